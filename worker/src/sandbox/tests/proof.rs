//! The sandbox proof, running guests: each tries one thing that no task may do, and is shown to fail, within its limits and alone.

use super::{
    guest::{guest, guest_of, guest_with, job, load, numbers, prelude, raw, sandbox},
    *,
};

const TIMEOUT: Duration = Duration::from_millis(20);

fn timeout(job: &mut Job) {
    job.options.timeout = Some(TIMEOUT);
}

/// As [`error_of`], of a guest with further fields.
fn error_with(fields: &str, bad: &str, change: impl FnOnce(&mut Job)) -> TaskError {
    let sandbox = sandbox(|_| {});
    let body =
        format!("(local $i i32) (if (i64.eq (local.get $x) (i64.const 2)) (then {bad})) (i64.add (local.get $x) (i64.const 1))");
    let mut job = job(&load(&sandbox, &guest_of("", fields, &body)), 0..4);
    change(&mut job);
    let mut result = run(&sandbox, &job);
    assert_eq!(numbers(&result.values), [Some(1), Some(2), None, Some(4)], "{bad}: {:?}", result.errors);
    let error = result.errors.pop().expect("an error").error;
    assert!(result.errors.is_empty() && (&*error.task, error.key.index) == ("run", 102), "{bad}: {error}");
    error
}

/// What one item of this guest gives.
fn value_of(imports: &str, body: &str) -> i64 {
    let sandbox = sandbox(|_| {});
    let result = run(&sandbox, &job(&load(&sandbox, &guest_with(imports, body)), [0]));
    numbers(&result.values)[0].unwrap_or_else(|| panic!("{body}: {:?}", result.errors))
}

#[test]
fn there_are_no_sockets() {
    let imports = r#"(import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_recv" (func $recv (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_shutdown" (func $shutdown (param i32 i32) (result i32)))"#;
    let fields = [
        "(call $accept (local.get $fd) (i32.const 0) (i32.const 1300))",
        "(call $recv (local.get $fd) (i32.const 1300) (i32.const 1) (i32.const 0) (i32.const 1308) (i32.const 1312))",
        "(call $send (local.get $fd) (i32.const 1300) (i32.const 1) (i32.const 0) (i32.const 1308))",
        "(call $shutdown (local.get $fd) (i32.const 3))",
    ];
    for call in fields {
        let body = format!(
            "(local $fd i32) (local $granted i64)
             (loop $next
                (if (i32.ne {call} (i32.const 8)) (then (local.set $granted (i64.add (local.get $granted) (i64.const 1)))))
                (br_if $next (i32.lt_s (local.tee $fd (i32.add (local.get $fd) (i32.const 1))) (i32.const 64))))
             (local.get $granted)"
        );
        assert_eq!(value_of(imports, &body), 0, "each descriptor is bad: {call}");
    }
}

#[test]
fn there_are_neither_arguments_nor_variables() {
    for function in ["args_sizes_get", "environ_sizes_get"] {
        let import = format!(r#"(import "wasi_snapshot_preview1" "{function}" (func $sizes (param i32 i32) (result i32)))"#);
        let body = "(i64.store (i32.const 1300) (i64.const -1))
            (drop (call $sizes (i32.const 1300) (i32.const 1304))) (i64.load (i32.const 1300))";
        assert_eq!(value_of(&import, body), 0, "{function}");
    }
}

#[test]
fn no_address_leads_out_of_the_memory() {
    let end = "(i32.mul (memory.size) (i32.const 65536))";
    for access in [
        format!("(drop (i32.load {end}))"),
        format!("(drop (i64.load (i32.sub {end} (i32.const 7))))"),
        "(drop (i32.load (i32.const -4)))".into(),
        "(drop (i32.load8_u offset=4294967295 (i32.const -1)))".into(),
        format!("(i64.store {end} (i64.const 1))"),
        "(i32.store8 offset=4294967295 (i32.const -1) (i32.const 1))".into(),
        format!("(memory.copy (i32.const 0) {end} (i32.const 1))"),
        "(memory.copy (i32.const 262144) (i32.const 262144) (i32.const -1))".into(),
        "(memory.fill (i32.const 262144) (i32.const 1) (i32.const -1))".into(),
        "(v128.store (i32.const -16) (v128.const i64x2 1 1))".into(),
    ] {
        let error = error_of(&access, |_| {});
        assert_eq!(error.kind, TaskErrorKind::Trapped, "{access}");
        assert!(error.message.contains("outside its memory"), "{access}: {}", error.message);
    }
}

/// Fills all memory above 256 KiB, after growing by 4 MiB, and takes a large table.
const HIDE: &str = "(drop (memory.grow (i32.const 64)))
    (memory.fill (i32.const 262144) (i32.const 0x5e) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 262144)))
    (drop (table.grow (ref.func $run) (i32.const 500)))
    (global.set $leaked (i32.const 7)) (local.get $x)";
/// Counts the words above 256 KiB that are not zero, after growing by as much.
const SEEK: &str = "(local $at i32) (local $found i64)
    (drop (memory.grow (i32.const 64))) (local.set $at (i32.const 262144))
    (loop $next
        (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (local.set $found (i64.add (local.get $found) (i64.const 1)))))
        (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.mul (memory.size) (i32.const 65536)))))
    (drop (table.grow (ref.null func) (i32.const 500)))
    (local.set $at (i32.const 0))
    (loop $next
        (if (i32.eqz (ref.is_null (table.get (local.get $at)))) (then (local.set $found (i64.add (local.get $found) (i64.const 1)))))
        (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (table.size))))
    (i64.add (local.get $found) (i64.extend_i32_u (global.get $leaked)))";
const TABLE: &str = r#"(table 1 funcref) (elem declare func $run) (func $run)"#;

#[test]
fn nothing_of_others_is_left_in_memory() {
    let sandbox = sandbox(|config| config.slots = 1);
    let (hider, seeker) = (load(&sandbox, &guest_of("", TABLE, HIDE)), load(&sandbox, &guest_of("", TABLE, SEEK)));
    let mut runner = Runner::new(Arc::clone(&sandbox));
    // More rounds than the pool has rooms, so that each of them is met again.
    for round in 0..8 {
        let mut secret = job(&hider, [round]);
        assert_eq!(numbers(&runner.run(&secret, &Control::new()).values), [Some(round)]);
        let mut look = job(&seeker, [0]);
        look.client = ClientId(2);
        assert_eq!(numbers(&runner.run(&look, &Control::new()).values), [Some(0)], "another module of another client");
        secret.module = Arc::clone(&seeker);
        secret.client = ClientId(3);
        assert_eq!(numbers(&runner.run(&secret, &Control::new()).values), [Some(0)], "the same module for another client");
    }
}

#[test]
fn a_clients_own_items_share_an_instance() {
    let sandbox = sandbox(|_| {});
    let body = "(i64.load (i32.const 300000)) (i64.store (i32.const 300000) (i64.add (local.get $x) (i64.const 1)))";
    let module = load(&sandbox, &guest(body));
    let mut runner = Runner::new(Arc::clone(&sandbox));
    let mut call = |client| {
        let mut job = job(&module, 5..7);
        job.client = ClientId(client);
        numbers(&runner.run(&job, &Control::new()).values)
    };
    assert_eq!(call(1), [Some(0), Some(6)]);
    assert_eq!(call(1), [Some(7), Some(6)], "statics carry over");
    assert_eq!(call(2), [Some(0), Some(6)], "for one client only");
}

#[test]
fn endless_work_of_any_kind_is_stopped() {
    let fields = r#"(table $t 1000 funcref) (elem (i32.const 0) func $callee) (elem $passive func $callee)
        (type $nothing (func)) (func $callee) (data $blob "some passive data")"#;
    for body in [
        "(loop $again (loop $inner (br_if $inner (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000)))) (br $again))",
        "(loop $again (call $callee) (br $again))",
        "(loop $again (call_indirect $t (type $nothing) (i32.const 0)) (br $again))",
        "(loop $again (call $print) (br $again))",
        "(loop $again (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 1300))) (br $again))",
        "(loop $again (drop (call $random (i32.const 1300) (i32.const 8))) (br $again))",
        "(loop $again (call $sleep (i64.const 1)) (br $again))",
        "(loop $again (memory.fill (i32.const 262144) (i32.const 1) (i32.const 262144)) (br $again))",
        "(loop $again (memory.copy (i32.const 262144) (i32.const 262145) (i32.const 262143)) (br $again))",
        "(loop $again (memory.init $blob (i32.const 300000) (i32.const 0) (i32.const 17)) (br $again))",
        "(loop $again (table.fill $t (i32.const 0) (ref.null func) (i32.const 1000)) (br $again))",
        "(loop $again (table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 999)) (br $again))",
        "(loop $again (table.init $t $passive (i32.const 0) (i32.const 0) (i32.const 1)) (br $again))",
        "(loop $again (br_table $again $again (i32.const 1)))",
        "(call $sleep (i64.const -1))",
        "(call $sleep (i64.const 9223372036854775807))",
    ] {
        let began = Instant::now();
        let error = error_with(fields, body, timeout);
        assert_eq!(error.kind, TaskErrorKind::TimeLimit { limit_ms: 20 }, "{body}: {error}");
        assert!(began.elapsed() < SOON, "{body}: {:?}", began.elapsed());
    }
}

#[test]
fn a_sleep_on_many_clocks_is_stopped() {
    // A thousand subscriptions, each to a clock that never comes, by a relative and by an absolute time.
    let fill = |flags: u32| {
        format!(
            "(drop (memory.grow (i32.const 2)))
             (loop $next
                (memory.fill (i32.add (i32.const 300000) (i32.mul (local.get $i) (i32.const 48))) (i32.const 0) (i32.const 48))
                (i64.store (i32.add (i32.const 300024) (i32.mul (local.get $i) (i32.const 48))) (i64.const -1))
                (i32.store (i32.add (i32.const 300040) (i32.mul (local.get $i) (i32.const 48))) (i32.const {flags}))
                (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))
             (drop (call $poll (i32.const 300000) (i32.const 400000) (i32.const 1000) (i32.const 1300)))"
        )
    };
    for flags in [0, 1] {
        assert_eq!(error_with("", &fill(flags), timeout).kind, TaskErrorKind::TimeLimit { limit_ms: 20 });
    }
}

#[test]
fn a_long_host_call_is_stopped() {
    let body = "(drop (memory.grow (i32.const 8192)))
        (loop $again (drop (call $random (i32.const 524288) (i32.const 536870912))) (br $again))";
    let began = Instant::now();
    assert_eq!(error_of(body, timeout).kind, TaskErrorKind::TimeLimit { limit_ms: 20 });
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn the_longest_instruction_is_bounded_by_the_memory() {
    // Nothing interrupts one instruction; so the item ends within its limit and one more of the largest that its memory allows.
    let grow = "(drop (memory.grow (i32.const 8192)))";
    let fill = "(memory.fill (i32.const 524288) (i32.const 1) (i32.const 536870912))";
    let sandbox = sandbox(|_| {});
    let one = run(&sandbox, &job(&load(&sandbox, &guest(&format!("{grow} {fill} (local.get $x)"))), [0]));
    assert!(one.errors.is_empty(), "{:?}", one.errors);
    let began = Instant::now();
    let error = error_of(&format!("{grow} (loop $again {fill} (br $again))"), timeout);
    assert_eq!(error.kind, TaskErrorKind::TimeLimit { limit_ms: 20 });
    let allowed = TIMEOUT + one.elapsed * 10 + SOON;
    assert!(began.elapsed() < allowed, "{:?} of {allowed:?}", began.elapsed());
}

#[test]
fn memory_ends_at_its_limit_however_it_is_asked_for() {
    let limit = |job: &mut Job| job.options.memory = 4 << 20;
    for (grow, peak) in [
        ("(loop $again (drop (memory.grow (i32.const 1))) (br $again))", (4 << 20) + (1 << 16)),
        ("(drop (memory.grow (i32.const 65527)))", (65_527 + 8) << 16),
        ("(drop (memory.grow (i32.const 57)))", (57 + 8) << 16),
    ] {
        let error = error_of(grow, limit);
        let expected = TaskErrorKind::MemoryLimit { limit: 4 << 20, peak };
        assert_eq!(error.kind, expected, "{grow}");
        assert!(
            error.message.contains("the task asked for 4MiB") && error.message.contains("the worker's owner allows"),
            "{error}"
        );
    }
}

#[test]
fn a_growing_table_ends_at_its_cap() {
    let table = "(table 1 funcref)";
    for grow in [
        "(loop $again (drop (table.grow (ref.null func) (i32.const 1000))) (br $again))",
        "(drop (table.grow (ref.null func) (i32.const 2147483647)))",
    ] {
        let error = error_with(table, grow, |_| {});
        assert_eq!(error.kind, TaskErrorKind::Trapped);
        assert!(error.message.contains("the worker's owner allows 100000 (--table-limit)"), "{}", error.message);
    }
    let small = sandbox(|config| config.caps.table_limit = 10);
    let module =
        load(&small, &guest_of("", "(table 10 funcref)", "(drop (table.grow (ref.null func) (i32.const 1))) (local.get $x)"));
    let result = run(&small, &job(&module, [0]));
    assert!(
        result.errors[0].error.message.contains("a table of 11 functions, the worker's owner allows 10"),
        "{:?}",
        result.errors
    );
}

#[test]
fn recursion_of_any_kind_ends_at_the_stack_limit() {
    let fields = r#"(table $t 2 funcref) (elem (i32.const 0) func $ping $pong) (type $step (func (param i32) (result i32)))
        (func $ping (param i32) (result i32) (i32.add (call_indirect $t (type $step) (local.get 0) (i32.const 1)) (i32.const 1)))
        (func $pong (param i32) (result i32) (i32.add (call_indirect $t (type $step) (local.get 0) (i32.const 0)) (i32.const 1)))
        (func $wide (param i64 i64 i64 i64 i64 i64) (result i64)
            (i64.add (call $wide (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 0)) (local.get 0)))"#;
    let wide = format!("(drop (call $wide {}))", "(i64.const 1) ".repeat(6));
    for body in ["(drop (call $ping (i32.const 0)))", "(drop (call $recurse (i32.const 0)))", &wide] {
        let error = error_with(fields, body, |_| {});
        assert_eq!(error.kind, TaskErrorKind::Trapped);
        assert!(error.message.contains("the worker's owner allows 1MiB (--stack-limit)"), "{body}: {}", error.message);
        assert!(error.backtrace.len() <= 8 << 10, "a bounded backtrace");
    }
}

#[test]
fn the_owner_sets_the_stack() {
    let fields = "(func $down (param i32) (result i32)
        (if (result i32) (local.get 0) (then (i32.add (call $down (i32.sub (local.get 0) (i32.const 1))) (i32.const 1))) (else (i32.const 0))))";
    let wasm = guest_of("", fields, "(i64.extend_i32_u (call $down (i32.wrap_i64 (local.get $x))))");
    let depths = |stack: u64| {
        let sandbox = sandbox(|config| config.caps.stack_limit = Size(stack));
        let job = job(&load(&sandbox, &wasm), [100, 10_000, 100_000]);
        let stack = sandbox.config().caps.stack_bytes() + (1 << 20);
        let thread = thread::Builder::new().stack_size(stack).spawn(move || numbers(&run(&sandbox, &job).values));
        thread.expect("starts").join().expect("no panic")
    };
    assert_eq!(depths(64 << 10), [Some(100), None, None]);
    assert_eq!(depths(1 << 20), [Some(100), Some(10_000), None]);
    assert_eq!(depths(32 << 20), [Some(100), Some(10_000), Some(100_000)]);
}

#[test]
fn printing_for_ever_fills_nothing() {
    let error = error_of("(loop $again (call $print) (br $again))", timeout);
    assert_eq!(error.kind, TaskErrorKind::TimeLimit { limit_ms: 20 });
    assert!(error.log.len() < (16 << 10) + 200 && error.log.contains("(--log-limit)"), "{} bytes", error.log.len());
}

#[test]
fn results_end_at_their_limit() {
    let sandbox = sandbox(|config| config.caps.result_limit = Size(1 << 20));
    // One item that returns 32 MiB, as it could with the default limits; and one that says it returns all that can be said.
    let returns = |len: u32| {
        raw(&format!(
            "(drop (memory.grow (i32.const 1024)))
             (i32.store (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 1))
             (i32.store (i32.const 24) (i32.const 65536)) (i32.store (i32.const 28) (i32.const {len}))
             (i32.store (i32.const 32) (i32.const 32768)) (i32.store (i32.const 32768) (i32.const {len}))"
        ))
    };
    let result = run(&sandbox, &job(&load(&sandbox, &returns(32 << 20)), [0]));
    let error = &result.errors[0].error;
    assert_eq!(error.kind, TaskErrorKind::OutputLimit { limit: 1 << 20 });
    assert_eq!(error.message, "a result of 32MiB, the worker's owner allows 1MiB (--result-limit)");
    let result = run(&sandbox, &job(&load(&sandbox, &returns((1 << 30) - 1)), [0]));
    assert!(result.errors[0].error.message.contains("outside its memory"), "{:?}", result.errors);
    assert_eq!(result.values.bytes().len(), 0);
}

#[test]
fn constructors_have_the_first_items_limits() {
    let rest = prelude().replace(r#"(export "__wasm_call_ctors")"#, "");
    let module_of = |body: &str| {
        guest::module(&format!(r#"{rest} (func (export "__wasm_call_ctors") {body}) (func (export "run") (param i32))"#))
    };
    let check = |body: &str, kind: &dyn Fn(&TaskErrorKind) -> bool| {
        let sandbox = sandbox(|_| {});
        let mut job = job(&load(&sandbox, &module_of(body)), 0..2);
        timeout(&mut job);
        job.options.memory = 4 << 20;
        let result = run(&sandbox, &job);
        let errors: Vec<_> = result.errors.iter().map(|error| (error.item, &error.error.kind)).collect();
        assert!(errors.len() == 2 && errors.iter().all(|(_, found)| kind(found)), "{body}: {errors:?}");
    };
    let is_time = |kind: &TaskErrorKind| matches!(kind, TaskErrorKind::TimeLimit { limit_ms: 20 });
    check("(loop $again (br $again))", &is_time);
    check("(call $sleep (i64.const -1))", &is_time);
    check("(loop $again (call $print) (br $again))", &is_time);
    check("(unreachable)", &|kind| *kind == TaskErrorKind::Trapped);
    check("(drop (call $recurse (i32.const 0)))", &|kind| *kind == TaskErrorKind::Trapped);
    check("(call $grow_forever)", &|kind| matches!(kind, TaskErrorKind::MemoryLimit { limit: 4_194_304, .. }));
    check("(call $exit (i32.const 0))", &|kind| *kind == TaskErrorKind::Trapped);
}
