//! Batches that are divided while they run.

use std::sync::Arc;

use parking_lot::Mutex;
use quicsand::TaskErrorKind;

use super::{
    super::{BatchResult, Control, Runner},
    guest::{guest, job, load, numbers, raw, sandbox},
};

/// Waits until the host has made the batch of five, which lies at 128 Ki, shorter.
const UNTIL_DIVIDED: &str = "(loop $again (br_if $again (i32.eq (i32.load (i32.const 131072)) (i32.const 5))))";

/// Runs five items of a guest, which are to be divided as soon as one has begun; gives also what was told.
fn divided(wasm: &[u8]) -> (BatchResult, Vec<u32>) {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, wasm);
    let mut runner = Runner::new(Arc::clone(&sandbox));
    let (control, told) = (Control::new(), Arc::new(Mutex::new(Vec::new())));
    let ears = Arc::clone(&told);
    control.allow_division(5, move |count| ears.lock().push(count));
    control.divide();
    let result = runner.run(&job(&module, 0..5), &control);
    let again = runner.run(&job(&module, 7..8), &Control::new());
    assert_eq!(again.values.count(), 1, "the next batch has all of its items");
    let told = told.lock().clone();
    (result, told)
}

/// In item 0, this; else `x + 1`.
fn first(body: &str) -> Vec<u8> {
    guest(&format!("(if (i64.eqz (local.get $x)) (then {body})) (i64.add (local.get $x) (i64.const 1))"))
}

#[test]
fn a_batch_ends_after_half_of_what_has_not_begun() {
    for body in [UNTIL_DIVIDED, "(call $sleep (i64.const 1000))", "(call $print)"] {
        let (result, told) = divided(&first(body));
        assert_eq!(numbers(&result.values), [Some(1), Some(2), Some(3)], "{body}");
        assert!(result.errors.is_empty() && result.dropped.is_empty());
        assert_eq!(told, [3], "{body}");
    }
}

#[test]
fn an_item_that_fails_after_that_is_told_and_no_other() {
    let body = format!("(if (i64.eqz (local.get $x)) (then {UNTIL_DIVIDED}))");
    let trap = "(if (i64.ge_u (local.get $x) (i64.const 2)) (then (unreachable))) (local.get $x)";
    let (result, told) = divided(&guest(&format!("{body} {trap}")));
    assert_eq!((numbers(&result.values), told), (vec![Some(0), Some(1), None], vec![3]));
    assert_eq!(
        result.errors.iter().map(|error| (error.item, &error.error.kind)).collect::<Vec<_>>(),
        [(2, &TaskErrorKind::Trapped)]
    );
}

#[test]
fn what_a_guest_runs_beyond_its_end_does_not_count() {
    // It counts by itself, and traps in the end or does not.
    for end in ["", "(unreachable)"] {
        let (result, told) = divided(&raw(&format!(
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
        assert_eq!((numbers(&result.values), told), (vec![Some(0), Some(1), Some(2)], vec![3]));
        assert!(result.errors.is_empty(), "{:?}", result.errors);
    }
}

#[test]
fn a_batch_that_nobody_lets_be_divided_is_whole() {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, &first("(call $sleep (i64.const 1000))"));
    let control = Control::new();
    control.divide();
    assert_eq!(Runner::new(sandbox).run(&job(&module, 0..5), &control).values.count(), 5);
}
