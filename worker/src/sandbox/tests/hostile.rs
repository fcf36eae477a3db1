//! Guests that lie about themselves, or misbehave where they have nothing to do yet.

use super::{
    guest::{job, load, module, numbers, raw, sandbox},
    *,
};

/// Runs three items of a guest whose batch is `body`; nothing may come of it but errors.
fn caught(body: &str) -> String {
    let sandbox = sandbox(|_| {});
    let result = run(&sandbox, &job(&load(&sandbox, &raw(body)), 0..3));
    assert_eq!(result.errors.len(), 3, "{body}");
    assert!(result.errors.iter().all(|error| error.error.kind == TaskErrorKind::Trapped));
    assert_eq!(result.values.bytes().len(), 0);
    result.errors[0].error.message.clone()
}

/// A batch that claims three finished results, less what `change` then writes into the state.
fn claim(change: &str) -> String {
    format!(
        "(i32.store (i32.const 16) (i32.const 3))
         (call $finish (i32.const 0) (i64.const 1)) (call $finish (i32.const 1) (i64.const 2)) (call $finish (i32.const 2) (i64.const 3))
         {change}"
    )
}

#[test]
fn the_truth_is_believed() {
    let sandbox = sandbox(|_| {});
    let result = run(&sandbox, &job(&load(&sandbox, &raw(&claim(""))), 0..3));
    assert_eq!(numbers(&result.values), [Some(1), Some(2), Some(3)]);
}

#[test]
fn a_batch_that_ends_early_keeps_what_it_finished() {
    let sandbox = sandbox(|_| {});
    let result = run(&sandbox, &job(&load(&sandbox, &raw(&claim("(i32.store (i32.const 20) (i32.const 2))"))), 0..3));
    assert_eq!(numbers(&result.values), [Some(1), Some(2), None]);
    assert_eq!((result.errors.len(), &result.errors[0].error.kind), (1, &TaskErrorKind::Trapped));
}

#[test]
fn lies_are_caught() {
    let store = |at: u32, value: i64| claim(&format!("(i32.store (i32.const {at}) (i32.const {}))", value as i32));
    for (lie, hint) in [
        (store(20, 4), "counts"),
        (store(20, -1), "counts"),
        (store(20, 1), "counts"),
        (store(16, 4), "counts"),
        (store(16, -1), "counts"),
        (store(24, -8), "outside"),
        (store(24, 524_288 - 8), "outside"),
        (store(28, 8), "outside"),
        (store(32, -4), "outside"),
        (store(32, 524_288 - 4), "outside"),
        (store(32_768, 0x3fff_ffff), "outside"),
        (String::new(), "before its items"),
    ] {
        let message = caught(&lie);
        assert!(message.contains(hint), "{lie}: {message}");
    }
}

#[test]
fn a_lie_about_the_panic_is_not_read() {
    let message = caught(
        "(i32.store (i32.const 16) (i32.const 1))
         (i32.store (i32.const 36) (i32.const -1)) (i32.store (i32.const 40) (i32.const -1)) (unreachable)",
    );
    assert_eq!(message, "it aborted");
}

const MEMORY: &str = r#"(memory (export "memory") 1)"#;
const ABI: &str = r#"(func (export "quicsand_abi") (result i32) (i32.const 1))"#;
const STATE: &str = r#"(func (export "quicsand_state") (result i32) (i32.const 16))"#;
const ALLOC: &str = r#"(func (export "quicsand_alloc") (param i32) (result i32) (i32.const 1024))"#;
const RESET: &str = r#"(func (export "quicsand_reset"))"#;
const RUN: &str = r#"(func (export "run") (param i32))"#;

#[test]
fn misbehaviour_outside_the_batch_ends() {
    let endless = "(loop $again (br $again))";
    let abi = |body: &str| {
        [MEMORY, STATE, ALLOC, RESET, RUN, &format!(r#"(func (export "quicsand_abi") (result i32) {body})"#)].concat()
    };
    let state = |body: &str| {
        [MEMORY, ABI, ALLOC, RESET, RUN, &format!(r#"(func (export "quicsand_state") (result i32) {body})"#)].concat()
    };
    let alloc = |body: &str| {
        [MEMORY, ABI, STATE, RESET, RUN, &format!(r#"(func (export "quicsand_alloc") (param i32) (result i32) {body})"#)].concat()
    };
    let reset = |body: &str| [MEMORY, ABI, STATE, ALLOC, RUN, &format!(r#"(func (export "quicsand_reset") {body})"#)].concat();
    for fields in [
        abi("(i32.const 2)"),
        abi("(unreachable)"),
        abi(&format!("{endless} (unreachable)")),
        state("(i32.const -1)"),
        state("(i32.const 65530)"),
        state("(unreachable)"),
        alloc("(i32.const 65535)"),
        alloc("(i32.const -1)"),
        alloc("(unreachable)"),
        reset("(unreachable)"),
        reset(endless),
        [MEMORY, ABI, STATE, ALLOC, RESET, RUN].concat(),
    ] {
        let sandbox = sandbox(|_| {});
        let mut job = job(&load(&sandbox, &module(&fields)), 0..3);
        job.options.timeout = Some(Duration::from_millis(10));
        let result = run(&sandbox, &job);
        let kinds: Vec<_> = result.errors.iter().map(|error| error.error.kind.clone()).collect();
        let ends = |kind: &TaskErrorKind| matches!(kind, TaskErrorKind::Trapped | TaskErrorKind::TimeLimit { .. });
        assert!(kinds.len() == 3 && kinds.iter().all(ends), "{fields}: {kinds:?}");
    }
}

#[test]
fn a_module_that_starts_too_large_is_a_memory_error() {
    let sandbox = sandbox(|_| {});
    let mut job = job(&load(&sandbox, &raw("")), 0..2);
    job.options.memory = 1 << 16;
    let result = run(&sandbox, &job);
    let kinds: Vec<_> = result.errors.iter().map(|error| error.error.kind.clone()).collect();
    let limit = TaskErrorKind::MemoryLimit { limit: 1 << 16, peak: 8 << 16 };
    assert_eq!(kinds, [limit.clone(), limit]);
}

#[test]
fn host_calls_check_their_addresses() {
    let sandbox = sandbox(|_| {});
    let body = "(i64.extend_i32_u (i32.add
            (i32.mul (i32.const 100) (call $fd_write (i32.const 1) (i32.const -8) (i32.const 1000) (i32.const 0)))
            (i32.add (call $random (i32.const 524280) (i32.const 9)) (call $poll (i32.const -1) (i32.const 0) (i32.const 1) (i32.const 0)))))";
    let result = run(&sandbox, &job(&load(&sandbox, &guest::guest(body)), [0]));
    assert_eq!(numbers(&result.values), [Some(2142)], "three times EFAULT");
}
