//! What the sandbox makes of guests: good ones, runaways and liars.

mod granted;
mod guest;
mod hostile;
mod loading;
mod midway;
mod proof;
mod shapes;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quicsand::{Size, TaskError, TaskErrorKind, ids::ClientId};

use super::{BatchResult, Control, HoleInput, Job, Runner, Sandbox};
use guest::{bytes, guest, job, load, numbers, raw, sandbox};

/// Much longer than anything here takes; whoever waits for it has found a hang.
const LONG: Duration = Duration::from_secs(60);
/// What a runaway may take: 50 ms, plus what a crowded machine adds.
const SOON: Duration = Duration::from_secs(2);

const SLEEP_LONG: &str = "(call $sleep (i64.const 60000000000)) (local.get $x)";
const LOOP: &str = "(loop $again (br $again)) (local.get $x)";

fn run(sandbox: &Arc<Sandbox>, job: &Job) -> BatchResult {
    Runner::new(Arc::clone(sandbox)).run(job, &Control::new())
}

/// Runs items 0 to 3 of a guest in which item 2 does `bad` and the others add one, and gives the error of item 2.
fn error_of(bad: &str, change: impl FnOnce(&mut Job)) -> TaskError {
    let sandbox = sandbox(|_| {});
    let body = format!("(if (i64.eq (local.get $x) (i64.const 2)) (then {bad})) (i64.add (local.get $x) (i64.const 1))");
    let mut job = job(&load(&sandbox, &guest(&body)), 0..4);
    change(&mut job);
    let mut result = run(&sandbox, &job);
    assert_eq!(numbers(&result.values), [Some(1), Some(2), None, Some(4)], "{:?}", result.errors);
    assert!(result.dropped.is_empty());
    let error = result.errors.pop().expect("an error");
    assert!(result.errors.is_empty());
    assert_eq!((error.item, error.error.key.index, &*error.error.worker), (2, 102, "here"));
    error.error
}

#[test]
fn a_batch_comes_back_in_order() {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, &guest("(i64.add (local.get $x) (i64.const 1))"));
    let result = run(&sandbox, &job(&module, 0..1000));
    assert_eq!(numbers(&result.values), (1..=1000).map(Some).collect::<Vec<_>>());
    assert!(result.errors.is_empty() && result.dropped.is_empty());
    assert_eq!(run(&sandbox, &job(&module, [])).values.count(), 0);
}

#[test]
fn constructors_run_once_an_instance() {
    let sandbox = sandbox(|_| {});
    let body = "(i64.extend_i32_u (i32.add (global.get $constructed) (i32.mul (global.get $calls) (i32.const 100))))";
    let module = load(&sandbox, &guest(body));
    let mut runner = Runner::new(Arc::clone(&sandbox));
    let mut call = |change: &dyn Fn(&mut Job)| {
        let mut job = job(&module, [0]);
        change(&mut job);
        numbers(&runner.run(&job, &Control::new()).values)[0]
    };
    assert_eq!(call(&|_| {}), Some(101));
    assert_eq!(call(&|_| {}), Some(201), "the instance is kept");
    assert_eq!(call(&|job| job.client = ClientId(2)), Some(101), "for its client");
    assert_eq!(call(&|job| job.client = ClientId(2)), Some(201));
    assert_eq!(call(&|job| job.client = ClientId(1)), Some(101));
}

#[test]
fn an_instance_with_more_memory_than_allowed_is_not_used() {
    let sandbox = sandbox(|_| {});
    let body = "(if (i64.eqz (local.get $x)) (then (drop (memory.grow (i32.const 16))))) (i64.extend_i32_u (memory.size))";
    let module = load(&sandbox, &guest(body));
    let mut runner = Runner::new(Arc::clone(&sandbox));
    let mut call = |x, pages: u64| {
        let mut job = job(&module, [x]);
        job.options.memory = pages << 16;
        numbers(&runner.run(&job, &Control::new()).values)[0]
    };
    assert_eq!(call(0, 24), Some(24));
    assert_eq!(call(1, 24), Some(24));
    assert_eq!(call(1, 23), Some(8));
}

#[test]
fn a_trap_loses_one_item() {
    let error = error_of("(unreachable)", |_| {});
    assert_eq!(error.kind, TaskErrorKind::Trapped);
    assert_eq!(error.message, "it aborted");
    assert!(error.backtrace.starts_with("body"), "{}", error.backtrace);
}

#[test]
fn a_panic_has_message_and_place() {
    let panic = "(i32.store (i32.const 36) (i32.const 1040)) (i32.store (i32.const 40) (i32.const 20)) (unreachable)";
    let error = error_of(panic, |_| {});
    assert_eq!(error.kind, TaskErrorKind::Panicked);
    assert_eq!((&*error.message, error.location.as_deref()), ("oh no", Some("src/lib.rs:7:5")));
}

#[test]
fn what_an_item_printed_is_in_its_error() {
    let error = error_of("(call $print) (call $print) (unreachable)", |_| {});
    assert_eq!(error.log, "hello\nhello\n");
}

#[test]
fn a_runaway_loop_is_stopped() {
    let began = Instant::now();
    let error = error_of("(loop $again (br $again))", |job| job.options.timeout = Some(Duration::from_millis(20)));
    assert_eq!(error.kind, TaskErrorKind::TimeLimit { limit_ms: 20 });
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn a_sleeper_is_stopped() {
    let began = Instant::now();
    let timeout = |job: &mut Job| job.options.timeout = Some(Duration::from_millis(20));
    let error = error_of("(call $sleep (i64.const 60000000000))", timeout);
    assert_eq!(error.kind, TaskErrorKind::TimeLimit { limit_ms: 20 });
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn short_sleeps_come_to_their_end() {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, &guest("(call $sleep (i64.const 2000000)) (local.get $x)"));
    let result = run(&sandbox, &job(&module, 0..3));
    assert_eq!(numbers(&result.values), [Some(0), Some(1), Some(2)]);
    assert!(result.elapsed >= Duration::from_millis(6), "{:?}", result.elapsed);
}

#[test]
fn the_owners_time_cap_holds() {
    let sandbox = sandbox(|config| config.caps.timeout = Some(Duration::from_millis(10)));
    let mut job = job(&load(&sandbox, &guest(LOOP)), 0..2);
    job.options.timeout = Some(LONG);
    let result = run(&sandbox, &job);
    let kinds: Vec<_> = result.errors.iter().map(|error| error.error.kind.clone()).collect();
    assert_eq!(kinds, [TaskErrorKind::TimeLimit { limit_ms: 10 }, TaskErrorKind::TimeLimit { limit_ms: 10 }]);
    let message = &result.errors[0].error.message;
    assert_eq!(message, "the worker's owner allows 10ms (--timeout), the task asked for 60s");
}

#[test]
fn the_owners_memory_cap_holds() {
    let sandbox = sandbox(|config| config.caps.task_memory = Some(Size(1 << 20)));
    let result = run(&sandbox, &job(&load(&sandbox, &guest("(call $grow_forever) (local.get $x)")), 0..1));
    let error = &result.errors[0].error;
    assert_eq!(error.kind, TaskErrorKind::MemoryLimit { limit: 1 << 20, peak: (1 << 20) + (8 << 16) });
    assert_eq!(error.message, "the worker's owner allows 1MiB (--task-memory), the task asked for 1GiB");
    assert!(error.to_string().contains("wanted 1536KiB of memory and may have 1MiB: the worker's owner allows 1MiB"), "{error}");
}

#[test]
fn the_owners_log_cap_holds() {
    let sandbox = sandbox(|config| config.caps.log_limit = Size(8));
    let body = "(call $print) (call $print) (call $print) (unreachable)";
    let result = run(&sandbox, &job(&load(&sandbox, &guest(body)), 0..1));
    assert_eq!(
        result.errors[0].error.log,
        "(10B before this were not kept: the worker's owner allows 8B (--log-limit))\no\nhello\n"
    );
}

#[test]
fn time_limits_are_for_one_item() {
    let sandbox = sandbox(|_| {});
    let mut job = job(&load(&sandbox, &guest("(call $sleep (i64.const 20000000)) (local.get $x)")), 0..30);
    job.options.timeout = Some(Duration::from_millis(500));
    let result = run(&sandbox, &job);
    assert!(result.errors.is_empty(), "{:?}", result.errors[0]);
    assert!(result.elapsed > Duration::from_millis(500), "{:?}", result.elapsed);
}

#[test]
fn a_memory_hog_is_stopped() {
    let error = error_of("(call $grow_forever)", |job| job.options.memory = 2 << 20);
    assert_eq!(error.kind, TaskErrorKind::MemoryLimit { limit: 2 << 20, peak: (2 << 20) + (8 << 16) });
    assert!(error.message.contains("the task asked for 2MiB, which #[task(memory"), "{}", error.message);
}

#[test]
fn memory_that_others_took_is_not_blamed_on_an_item() {
    // Each item keeps a MiB for itself, of which the limit allows two at a time.
    let sandbox = sandbox(|_| {});
    let mut job = job(&load(&sandbox, &guest("(drop (memory.grow (i32.const 16))) (local.get $x)")), 0..9);
    job.options.memory = 3 << 20;
    let result = run(&sandbox, &job);
    assert_eq!(numbers(&result.values), (0..9).map(Some).collect::<Vec<_>>(), "{:?}", result.errors);
}

#[test]
fn arguments_that_do_not_fit_together_go_in_one_by_one() {
    let sandbox = sandbox(|_| {});
    let module = load(
        &sandbox,
        &raw("(i32.store (i32.const 16) (i32.load (local.get $batch)))
         (call $finish (i32.sub (i32.load (local.get $batch)) (i32.const 1)) (i64.const 7))
         (i32.store (i32.const 32768) (i32.const 8))"),
    );
    let mut args = quicsand::codec::RunBuilder::default();
    for len in [300_000, 300_000, 3_000_000, 300_000] {
        args.push(&vec![0; len]).expect("short");
    }
    let mut job = guest::job_of(&module, args.take());
    job.options.memory = 1 << 20;
    let result = run(&sandbox, &job);
    assert_eq!(numbers(&result.values), [Some(7), Some(7), None, Some(7)]);
    assert_eq!(result.errors.len(), 1);
    let TaskErrorKind::MemoryLimit { limit, peak } = result.errors[0].error.kind else { panic!("{:?}", result.errors[0]) };
    assert_eq!(limit, 1 << 20);
    assert!(peak > 3_000_000);
}

#[test]
fn deep_recursion_is_a_clean_error() {
    let error = error_of("(drop (call $recurse (i32.const 0)))", |_| {});
    assert_eq!(error.kind, TaskErrorKind::Trapped);
    assert!(error.message.contains("stack"), "{}", error.message);
}

#[test]
fn exit_is_an_error() {
    let error = error_of("(call $exit (i32.const 3))", |_| {});
    assert_eq!((error.kind, &*error.message), (TaskErrorKind::Trapped, "the task called exit(3)"));
}

#[test]
fn large_results_are_refused() {
    let sandbox = sandbox(|config| config.caps.result_limit = Size(7));
    let result = run(&sandbox, &job(&load(&sandbox, &guest("(local.get $x)")), 0..2));
    assert_eq!(result.errors.len(), 2);
    let error = &result.errors[1].error;
    assert_eq!(error.kind, TaskErrorKind::OutputLimit { limit: 7 });
    assert_eq!(error.message, "a result of 8B, the worker's owner allows 7B (--result-limit)");
    assert_eq!(result.values.count(), 2);
}

#[test]
fn statuses_become_errors() {
    let sandbox = sandbox(|_| {});
    // Item k has status k; its text is "src/lib.rs:7:5\noh no".
    let module = load(
        &sandbox,
        &raw("(local $i i32)
         (i32.store (i32.const 16) (i32.const 4)) (i32.store (i32.const 20) (i32.const 4))
         (i32.store (i32.const 24) (i32.const 65536)) (i32.store (i32.const 28) (i32.const 80))
         (i32.store (i32.const 32) (i32.const 32768))
         (loop $next
            (memory.copy (i32.add (i32.const 65536) (i32.mul (local.get $i) (i32.const 20))) (i32.const 1040) (i32.const 20))
            (i32.store (i32.add (i32.const 32768) (i32.mul (local.get $i) (i32.const 4)))
                (i32.or (i32.const 20) (i32.shl (local.get $i) (i32.const 30))))
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4))))"),
    );
    let result = run(&sandbox, &job(&module, 0..4));
    let values: Vec<usize> = result.values.iter().map(<[u8]>::len).collect();
    assert_eq!(values, [20, 0, 0, 0]);
    let errors: Vec<_> =
        result.errors.iter().map(|error| (error.item, error.error.kind.clone(), &*error.error.message)).collect();
    let argument = TaskErrorKind::Argument { name: "src/lib.rs:7:5".into() };
    let text = "src/lib.rs:7:5\noh no";
    assert_eq!(errors, [(1, TaskErrorKind::Returned, text), (2, argument, "oh no"), (3, TaskErrorKind::Result, text)]);
}

#[test]
fn holes_share_their_buffers() {
    // The result is the value's address in its upper half, and its first four bytes.
    let sandbox = sandbox(|_| {});
    let module = load(
        &sandbox,
        &guest(
            "(local $hole i32)
         (local.set $hole (i32.add (i32.load offset=16 (i32.const 131072)) (i32.mul (local.get $item) (i32.const 16))))
         (i64.or (i64.shl (i64.extend_i32_u (i32.load offset=8 (local.get $hole))) (i64.const 32))
                 (i64.load32_u (i32.load offset=8 (local.get $hole))))",
        ),
    );
    let (a, b) = (bytes("aaaa"), bytes("bbbb"));
    let mut job = job(&module, 0..4);
    job.holes = [&a, &b, &a, &a]
        .into_iter()
        .enumerate()
        .map(|(item, value)| HoleInput { item: item as u32, field: 0, value: value.clone() })
        .collect();
    let values: Vec<i64> = numbers(&run(&sandbox, &job).values).into_iter().flatten().collect();
    assert_eq!(
        values.iter().map(|value| *value as u32).collect::<Vec<_>>(),
        [0x6161_6161, 0x6262_6262, 0x6161_6161, 0x6161_6161]
    );
    assert_eq!((values[0], values[0]), (values[2], values[3]));
}

#[test]
fn cancelled_items_are_skipped() {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, &guest("(i64.add (local.get $x) (i64.const 1))"));
    let control = Control::new();
    control.cancel(0, 1);
    control.cancel(3, 2);
    let result = Runner::new(Arc::clone(&sandbox)).run(&job(&module, 0..7), &control);
    assert_eq!(result.dropped, [0, 3, 4]);
    assert_eq!(numbers(&result.values), [None, Some(2), Some(3), None, None, Some(6), Some(7)]);
    control.cancel_all();
    assert_eq!(Runner::new(sandbox).run(&job(&module, 0..7), &control).dropped.len(), 7);
}

/// Cancels item 1 of a batch whose item 1 does `body` for ever, and gives how long that took from then on.
fn time_to_cancel(body: &str) -> Duration {
    let sandbox = sandbox(|_| {});
    let body = format!("(if (i64.eq (local.get $x) (i64.const 1)) (then (drop (block (result i64) {body})))) (local.get $x)");
    let module = load(&sandbox, &guest(&body));
    let control = Control::new();
    thread::scope(|scope| {
        let batch = scope.spawn(|| Runner::new(Arc::clone(&sandbox)).run(&job(&module, 0..3), &control));
        // Long enough for the item to be running on most runs; a cancellation that comes earlier is fine too.
        thread::sleep(Duration::from_millis(30));
        let began = Instant::now();
        control.cancel(1, 1);
        let result = batch.join().expect("no panic");
        assert_eq!(result.dropped, [1]);
        assert_eq!(numbers(&result.values), [Some(0), None, Some(2)]);
        began.elapsed()
    })
}

#[test]
fn a_running_item_is_cancelled() {
    for body in [LOOP, SLEEP_LONG] {
        let took = time_to_cancel(body);
        assert!(took < SOON, "{body}: {took:?}");
    }
}

#[test]
fn runaways_do_not_disturb_others() {
    let sandbox = sandbox(|_| {});
    let (good, bad) = (load(&sandbox, &guest("(i64.add (local.get $x) (i64.const 1))")), load(&sandbox, &guest(LOOP)));
    thread::scope(|scope| {
        let runaways = scope.spawn(|| {
            let mut job = job(&bad, 0..10);
            job.options.timeout = Some(Duration::from_millis(10));
            run(&sandbox, &job).errors.len()
        });
        let mut runner = Runner::new(Arc::clone(&sandbox));
        let (job, mut batches) = (job(&good, 0..100), 0);
        while !runaways.is_finished() || batches == 0 {
            let result = runner.run(&job, &Control::new());
            assert_eq!(numbers(&result.values), (1..=100).map(Some).collect::<Vec<_>>());
            batches += 1;
        }
        assert_eq!(runaways.join().expect("no panic"), 10);
    });
}

#[test]
fn an_idle_sandbox_still_stops_runaways() {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, &guest(LOOP));
    // Long enough for the epoch thread to fall asleep.
    thread::sleep(Duration::from_millis(200));
    let mut job = job(&module, 0..1);
    job.options.timeout = Some(Duration::from_millis(10));
    assert_eq!(run(&sandbox, &job).errors.len(), 1);
}

#[test]
fn files_are_not_there_and_randomness_is() {
    let sandbox = sandbox(|_| {});
    let open = "(i64.extend_i32_u (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)))";
    assert_eq!(numbers(&run(&sandbox, &job(&load(&sandbox, &guest(open)), [0])).values), [Some(8)]);
    let random = "(drop (call $random (i32.const 1300) (i32.const 8))) (i64.load (i32.const 1300))";
    let values = numbers(&run(&sandbox, &job(&load(&sandbox, &guest(random)), 0..2)).values);
    assert_ne!(values[0], values[1]);
    let clock = "(drop (call $clock (i32.const 0) (i64.const 0) (i32.const 1304))) (i64.load (i32.const 1304))";
    let time = numbers(&run(&sandbox, &job(&load(&sandbox, &guest(clock)), [0])).values)[0].expect("a time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert!(now.as_secs().abs_diff(time as u64 / 1_000_000_000) < 60);
}

#[test]
fn unknown_tasks_and_contradictions_are_errors() {
    let sandbox = sandbox(|_| {});
    let module = load(&sandbox, &guest("(local.get $x)"));
    let mut unknown = job(&module, 0..2);
    unknown.task = quicsand::ids::TaskId(1);
    let result = run(&sandbox, &unknown);
    assert_eq!((result.errors.len(), &result.errors[0].error.kind), (2, &TaskErrorKind::UnknownTask));
    let mut contradiction = job(&module, 0..2);
    contradiction.holes = vec![HoleInput { item: 2, field: 0, value: bytes("") }];
    let result = run(&sandbox, &contradiction);
    assert_eq!((result.errors.len(), &result.errors[0].error.kind), (2, &TaskErrorKind::Worker));
}
