//! Compute threads, one a slot: each takes a run, has the sandbox run it, and hands the results to the state machine itself, whose answer
//! is often the next run. Must not know: the network.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use quicsand::{TaskErrorKind, codec::Run, ids::RunId};

use super::core::Core;
use crate::{
    sandbox::{BatchResult, Control, HoleInput, Job, Listener, Module, Runner, Sandbox},
    state::{Ended, Event, Work},
};

/// A compute thread without work for so long gives its instance's memory back.
const IDLE: Duration = Duration::from_secs(1);

/// A run on its way to a compute thread.
pub(crate) struct Task {
    pub(crate) work: Box<Work>,
    pub(crate) module: Option<Arc<Module>>,
    pub(crate) control: Control,
}

/// Where a compute thread waits for its next run.
#[derive(Default)]
pub(crate) struct Mailbox {
    post: Mutex<Post>,
    came: Condvar,
}

#[derive(Default)]
struct Post {
    task: Option<Task>,
    closed: bool,
}

impl Mailbox {
    /// Wakes the thread with a run. Its slot is free, so there is none before it.
    pub(crate) fn put(&self, task: Task) {
        self.post.lock().task = Some(task);
        self.came.notify_one();
    }

    /// Ends the thread once it has nothing to do.
    pub(crate) fn close(&self) {
        self.post.lock().closed = true;
        self.came.notify_one();
    }

    /// Waits for a run; calls `idle` when none came for a while. `None` once it is closed.
    fn take(&self, idle: impl FnOnce()) -> Option<Task> {
        let mut post = self.post.lock();
        let waiting = |post: &mut Post| post.task.is_none() && !post.closed;
        if self.came.wait_while_for(&mut post, waiting, IDLE).timed_out() {
            MutexGuard::unlocked(&mut post, idle);
            self.came.wait_while(&mut post, waiting);
        }
        if post.closed { None } else { post.task.take() }
    }
}

/// Starts the thread of `slot`.
pub(crate) fn start(core: &Arc<Core>, sandbox: &Arc<Sandbox>, slot: u32, name: &str) -> io::Result<JoinHandle<()>> {
    let (core, sandbox, name) = (Arc::clone(core), Arc::clone(sandbox), name.to_owned());
    // What tasks may use of it, and what the host needs besides.
    let stack = sandbox.config().caps.stack_bytes() + (1 << 20);
    let thread = std::thread::Builder::new().name(format!("quicsand-slot-{slot}")).stack_size(stack);
    thread.spawn(move || serve(&core, &sandbox, slot, &name))
}

fn serve(core: &Arc<Core>, sandbox: &Arc<Sandbox>, slot: u32, name: &str) {
    let new = || Runner::printing(Arc::clone(sandbox), Arc::clone(core.printed()));
    let mut runner = new();
    let mut next = None;
    while let Some(task) = next.take().or_else(|| core.mailbox(slot)?.take(|| runner.rest())) {
        let run = task.work.run;
        let (entry, first, count) = (task.work.entry, task.work.first, task.work.args.count());
        let (spec, control) = (task.work.spec.clone(), task.control.clone());
        if count > 1 {
            control.listen(count, Ears { core: Arc::downgrade(core), run });
        }
        // The task itself is sandboxed: a panic here is a fault of this program, which costs the run but not the worker.
        let ended = catch_unwind(AssertUnwindSafe(|| execute(&mut runner, task, name))).unwrap_or_else(|_| {
            runner = new();
            Ended::failed(&spec.name, entry, first, control.untold(count), name, &TaskErrorKind::Worker, "the worker panicked")
        });
        core.count_finished(ended.finished());
        next = core.run_ended(slot, Event::RunEnded { run, ended });
    }
}

fn execute(runner: &mut Runner, task: Task, name: &str) -> Ended {
    let Task { work, module, control } = task;
    let Work { spec, entry, first, args, inputs, cancelled, .. } = *work;
    let (Some(module), Some(filled)) = (module, inputs.fill_holes(&args)) else {
        let reason = "the worker lost its module or inputs";
        return Ended::failed(&spec.name, entry, first, 0..args.count(), name, &TaskErrorKind::Worker, reason);
    };
    cancelled.into_iter().for_each(|items| control.cancel(items.start, items.end - items.start));
    let holes = filled.into_iter().map(|f| HoleInput { item: f.item, field: f.field, value: f.value }).collect();
    let job = Job {
        module,
        client: entry.client,
        task: spec.task,
        name: spec.name.clone(),
        options: spec.options.clone(),
        entry,
        first,
        args: args.run,
        holes,
        worker: name.to_owned(),
    };
    let BatchResult { first, values, errors, dropped, elapsed } = runner.run(&job, &control);
    Ended::from(first, values, errors, dropped, elapsed)
}

/// Passes on what a batch says before its end.
struct Ears {
    /// Which has what stops the batch, and with it this.
    core: Weak<Core>,
    run: RunId,
}

impl Listener for Ears {
    fn divided(&self, count: u32) {
        if let Some(core) = self.core.upgrade() {
            core.tell([Event::Divided { run: self.run, count }]);
        }
    }

    fn part(&self, first: u32, values: Run, elapsed: Duration) {
        let ended = Ended::from(first, values, Vec::new(), Vec::new(), elapsed);
        if let Some(core) = self.core.upgrade() {
            core.count_finished(ended.finished());
            core.tell([Event::Part { run: self.run, ended }]);
        }
    }
}
