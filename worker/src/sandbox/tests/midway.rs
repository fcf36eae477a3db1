//! Batches of which something is known before their end: results that are told, and parts that are given up.

use std::sync::Arc;

use quicsand::TaskErrorKind;

use super::{
    super::{
        BatchResult, Control, Runner,
        midway::tests::{Ears, Said},
    },
    guest::{guest, job, load, numbers, raw, sandbox},
};

/// Waits until the host has made the batch of five, which lies at 128 Ki, shorter.
const UNTIL_DIVIDED: &str = "(loop $again (br_if $again (i32.eq (i32.load (i32.const 131072)) (i32.const 5))))";

/// Runs five items of a guest, which are to be divided as soon as one has begun; gives also what was said.
fn divided(wasm: &[u8]) -> (BatchResult, Vec<Said>) {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, wasm);
    let mut runner = Runner::new(Arc::clone(&sandbox));
    let (control, ears) = (Control::new(), Ears::default());
    control.listen(5, ears.clone());
    control.divide();
    let result = runner.run(&job(&module, 0..5), &control);
    let again = runner.run(&job(&module, 7..8), &Control::new());
    assert_eq!(again.values.count(), 1, "the next batch has all of its items");
    let said = ears.0.lock().clone();
    (result, said)
}

/// In item 0, this; else `x + 1`.
fn first(body: &str) -> Vec<u8> {
    guest(&format!("(if (i64.eqz (local.get $x)) (then {body})) (i64.add (local.get $x) (i64.const 1))"))
}

#[test]
fn a_batch_ends_after_half_of_what_has_not_begun() {
    for body in [UNTIL_DIVIDED, "(call $sleep (i64.const 1000))", "(call $print)"] {
        let (result, said) = divided(&first(body));
        assert_eq!(numbers(&result.values), [Some(1), Some(2), Some(3)], "{body}");
        assert!(result.errors.is_empty() && result.dropped.is_empty());
        assert_eq!(said, [Said::Divided(3)], "{body}");
    }
}

#[test]
fn an_item_that_fails_after_that_is_told_and_no_other() {
    let body = format!("(if (i64.eqz (local.get $x)) (then {UNTIL_DIVIDED}))");
    let trap = "(if (i64.ge_u (local.get $x) (i64.const 2)) (then (unreachable))) (local.get $x)";
    let (result, said) = divided(&guest(&format!("{body} {trap}")));
    assert_eq!((numbers(&result.values), said), (vec![Some(0), Some(1), None], vec![Said::Divided(3)]));
    assert_eq!(
        result.errors.iter().map(|error| (error.item, &error.error.kind)).collect::<Vec<_>>(),
        [(2, &TaskErrorKind::Trapped)]
    );
}

#[test]
fn what_a_guest_runs_beyond_its_end_does_not_count() {
    // It counts by itself, and traps in the end or does not.
    for end in ["", "(unreachable)"] {
        let (result, said) = divided(&raw(&format!(
            "(local $item i32) (local $count i32)
            (local.set $count (i32.load (local.get $batch)))
            (loop $next
                (i32.store (i32.const 16) (i32.add (local.get $item) (i32.const 1)))
                (if (i32.eq (local.get $count) (i32.const 5)) (then {UNTIL_DIVIDED}))
                (call $finish (local.get $item) (i64.extend_i32_u (local.get $item)))
                (local.set $item (i32.add (local.get $item) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $item) (local.get $count))))
            (if (i32.eq (local.get $count) (i32.const 5)) (then {end}))"
        )));
        assert_eq!((numbers(&result.values), said), (vec![Some(0), Some(1), Some(2)], vec![Said::Divided(3)]));
        assert!(result.errors.is_empty(), "{:?}", result.errors);
    }
}

#[test]
fn a_batch_that_nobody_hears_of_is_whole() {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, &first("(call $sleep (i64.const 1000))"));
    let control = Control::new();
    control.divide();
    assert_eq!(Runner::new(sandbox).run(&job(&module, 0..5), &control).values.count(), 5);
}

/// Runs items of a guest with somebody to hear of them; gives also what was said.
fn heard(wasm: &[u8], items: std::ops::Range<i64>) -> (BatchResult, Vec<Said>) {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, wasm);
    let (control, ears) = (Control::new(), Ears::default());
    control.listen(items.end as u32, ears.clone());
    let result = Runner::new(Arc::clone(&sandbox)).run(&job(&module, items), &control);
    let said = ears.0.lock().clone();
    (result, said)
}

/// Item 3 waits for longer than results are kept back, then there is this.
fn slow(then: &str) -> Vec<u8> {
    let wait = "(if (i64.eq (local.get $x) (i64.const 3)) (then (call $sleep (i64.const 150000000))))";
    guest(&format!("{wait} {then} (i64.add (local.get $x) (i64.const 1))"))
}

#[test]
fn what_has_finished_is_told_while_the_next_item_takes_long() {
    let (result, said) = heard(&slow(""), 0..6);
    assert_eq!(said, [Said::Part(0, 3)]);
    assert_eq!((result.first, numbers(&result.values)), (3, vec![Some(4), Some(5), Some(6)]));
    assert!(result.errors.is_empty() && result.dropped.is_empty());
}

#[test]
fn failures_after_a_part_are_told_and_no_part_follows_them() {
    let trap = "(if (i64.ge_u (local.get $x) (i64.const 3)) (then (unreachable)))";
    let (result, said) = heard(&slow(trap), 0..6);
    assert_eq!(said, [Said::Part(0, 3)]);
    assert_eq!((result.first, numbers(&result.values)), (3, vec![None; 3]));
    assert_eq!(result.errors.iter().map(|error| error.item).collect::<Vec<_>>(), [3, 4, 5]);
    let trap = "(if (i64.eqz (local.get $x)) (then (unreachable)))";
    let (result, said) = heard(&slow(trap), 0..6);
    assert_eq!((said, result.first, result.errors.len()), (vec![], 0, 1), "only what comes first in its batch is told");
}

#[test]
fn a_guest_that_takes_back_what_was_told_changes_nothing() {
    // Item 3 says that nothing was finished, and traps.
    let lie = "(if (i64.eq (local.get $x) (i64.const 3)) (then (i32.store (i32.const 20) (i32.const 0)) (unreachable)))";
    let (result, said) = heard(&slow(lie), 0..6);
    assert_eq!((&said[..], result.first), (&[Said::Part(0, 3)][..], 3));
    assert_eq!((result.values.count(), result.errors.len()), (3, 3), "{:?}", result.errors);
    // Results that lie outside of its memory are not told.
    let lie = "(if (i64.eq (local.get $x) (i64.const 2)) (then (i32.store (i32.const 24) (i32.const -8))))";
    let wait = "(if (i64.eq (local.get $x) (i64.const 3)) (then (i32.store (i32.const 24) (i32.const -8)) (call $sleep (i64.const 150000000)) (call $print)))";
    let (result, said) = heard(&guest(&format!("{lie} {wait} (local.get $x)")), 0..6);
    assert_eq!((said, result.first, result.values.count()), (vec![], 0, 6));
}
