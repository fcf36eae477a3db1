//! Running calls in this process. Owns: the threads, and the shell around the scheduler's state machine that takes the place of network
//! and workers: one worker, whose slots are native threads. Must not know: what a future is.
//!
//! Everything lives behind one lock, [`Core`]. Whoever holds it and has messages for the client leaves them in the outbox, and delivers
//! them once the lock is free, one thread at a time, so that they keep their order.
//!
//! A native function cannot be stopped. When one is cancelled or out of time, its batch is *given up*: the item is reported, what is
//! left of the batch goes to another thread, a new thread takes the place of the stuck one, and that one ends when its function returns.

mod batch;
mod panics;

pub(super) use panics::is_task;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    thread,
    time::{Duration, Instant},
};

use self::batch::{Batch, Native};
use super::backend::{Backend, Inbox};
use crate::{
    Requirements,
    codec::Encoded,
    ids::{ClientId, Hash, Identity, Key, RunId, TaskId, WorkerId},
    scheduler::{Action, Config, Event, Passport, Scheduler},
    wire::{FromClient, FromWorker, ToClient, ToWorker, WorkerHello, blob::Place},
};

const CLIENT: ClientId = ClientId(1);
const WORKER: WorkerId = WorkerId(1);
const NOBODY: Identity = Identity([0; 16]);

/// The in-process executor.
pub(super) struct Local {
    me: Weak<Self>,
    core: Mutex<Core>,
    /// Signalled when there is something to run, or the end has come.
    work: Condvar,
    /// Signalled when a batch with a deadline begins, or the end has come.
    alarm: Condvar,
    inbox: Arc<dyn Inbox>,
    tasks: RwLock<HashMap<TaskId, Native>>,
    start: Instant,
}

struct Core {
    scheduler: Scheduler,
    actions: Vec<Action>,
    outbox: Vec<ToClient>,
    delivering: bool,
    /// Batches that wait for a thread; all are in `batches` too.
    queue: VecDeque<Arc<Batch>>,
    batches: HashMap<RunId, Arc<Batch>>,
    threads: Threads,
    watched: bool,
    /// When a thread that waits for work will look at the time, if one will.
    rouses: Option<Duration>,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Threads {
    /// None yet; so many at the first call, or with 0, the caller's own.
    Planned(usize),
    Started,
    Sequential,
}

impl Local {
    pub(super) fn new(inbox: Arc<dyn Inbox>) -> Arc<Self> {
        let config = Config {
            // The one worker never goes silent, and whatever is sent lies in this process either way.
            lease: Duration::MAX,
            // Threads that are all busy wake no call that rests.
            retry_delay: Duration::ZERO,
            client_bytes: u64::MAX,
            // There is no way whose length it would save.
            ahead: 0,
            ..Config::default()
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let core = Core {
            scheduler: Scheduler::new(config),
            actions: Vec::new(),
            outbox: Vec::new(),
            delivering: false,
            queue: VecDeque::new(),
            batches: HashMap::new(),
            threads: Threads::Planned(processors),
            watched: false,
            rouses: None,
            closed: false,
        };
        panics::catch();
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            core: Mutex::new(core),
            work: Condvar::new(),
            alarm: Condvar::new(),
            inbox,
            tasks: RwLock::default(),
            start: Instant::now(),
        })
    }

    /// How many threads the first call will start; 0 to run calls in the submitting thread.
    pub(super) fn set_threads(&self, threads: usize) {
        let mut core = self.lock();
        if let Threads::Planned(planned) = &mut core.threads {
            *planned = threads;
        }
    }

    /// Tells which function a task is.
    pub(super) fn register(&self, task: TaskId, function: Native) {
        if self.function(task).is_none() {
            self.tasks.write().unwrap_or_else(PoisonError::into_inner).insert(task, function);
        }
    }

    fn function(&self, task: TaskId) -> Option<Native> {
        self.tasks.read().unwrap_or_else(PoisonError::into_inner).get(&task).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Starts whatever the first call needs.
    fn begin(&self, core: &mut Core) {
        let Threads::Planned(planned) = core.threads else { return };
        self.event(
            core,
            Event::ClientJoined { client: CLIENT, who: NOBODY, module: Hash([0; 32]), passport: Passport::default() },
        );
        let mut slots = 0;
        while slots < planned && self.spawn("quicsand-task", Self::run) {
            slots += 1;
        }
        // Where no thread can be had, calls still run.
        core.threads = if slots == 0 { Threads::Sequential } else { Threads::Started };
        let hello = WorkerHello {
            slots: u32::try_from(slots.max(1)).unwrap_or(u32::MAX),
            memory: u64::MAX,
            arch: std::env::consts::ARCH.to_owned(),
            listen: None,
            grant_secret: [0; 32],
            labels: Vec::new(),
            resources: Vec::new(),
            incarnation: 0,
            keeps: 0,
        };
        self.event(core, Event::WorkerJoined { worker: WORKER, who: NOBODY, name: String::new(), hello });
    }

    fn spawn(&self, name: &str, body: fn(&Self)) -> bool {
        let Some(me) = self.me.upgrade() else { return false };
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || body(&me));
        spawned.inspect_err(|error| tracing::warn!(%error, "no thread for tasks could be started")).is_ok()
    }

    /// Feeds the scheduler, carries its actions out, and feeds it what comes of them.
    fn event(&self, core: &mut Core, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut actions = std::mem::take(&mut core.actions);
        while let Some(event) = events.pop_front() {
            core.scheduler.handle(self.now(), event, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::ToClient(_, message) => core.outbox.push(message),
                    Action::ToWorker(_, message) => {
                        events.extend(self.to_worker(core, message).map(|answer| Event::FromWorker(WORKER, answer)));
                    }
                    Action::AwaitRoom(client) => events.push_back(Event::ClientHasRoom { client }),
                    // Nothing is kept outside the scheduler, and closing is the owner's business.
                    Action::Drop(_)
                    | Action::Record(_)
                    | Action::DisconnectClient(_)
                    | Action::DisconnectWorker(_)
                    | Action::ForgetClient(_)
                    | Action::Probe(_) => {}
                }
            }
        }
        core.actions = actions;
    }

    fn to_worker(&self, core: &mut Core, message: ToWorker) -> Option<FromWorker> {
        match message {
            ToWorker::Assign(assignment) => {
                let function = self.function(assignment.spec.task);
                let batch = Arc::new(Batch::new(assignment, function));
                core.batches.insert(batch.run_id(), Arc::clone(&batch));
                core.queue.push_back(batch);
                self.work.notify_one();
                None
            }
            ToWorker::Cancel { run, first, count } => {
                let batch = Arc::clone(core.batches.get(&run)?);
                batch.cancel(first, count);
                self.give_up(core, &batch)
            }
            ToWorker::Recall { run } => {
                let batch = core.batches.get(&run)?;
                if batch.has_begun() {
                    return batch.divide().map(|count| FromWorker::Divided { run, count });
                }
                core.queue.retain(|batch| batch.run_id() != run);
                core.batches.remove(&run);
                Some(FromWorker::Returned { run, missing: Vec::new() })
            }
            ToWorker::Refused { reason } => {
                tracing::error!(reason, "the scheduler refused the in-process worker");
                None
            }
            // There is nobody to have a copy of.
            ToWorker::Replicate { key, .. } => Some(FromWorker::Unreplicated { key }),
            ToWorker::Free { .. } | ToWorker::Drain | ToWorker::Leave => None,
        }
    }

    /// If the item that a batch is at is cancelled or out of time, goes on without the thread that runs it.
    fn give_up(&self, core: &mut Core, batch: &Arc<Batch>) -> Option<FromWorker> {
        if core.threads == Threads::Sequential {
            return None;
        }
        let rest = Arc::new(batch.give_up(self.now())?);
        self.spawn("quicsand-task", Self::run);
        if let Some(finished) = rest.finished() {
            core.batches.remove(&rest.run_id());
            return Some(finished);
        }
        core.batches.insert(rest.run_id(), Arc::clone(&rest));
        core.queue.push_front(rest);
        self.work.notify_one();
        None
    }

    /// Delivers what is in the outbox, unless another thread is at it, which will.
    fn deliver<'a>(&'a self, mut core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        if core.delivering {
            return core;
        }
        core.delivering = true;
        let mut messages = Vec::new();
        while !core.outbox.is_empty() {
            std::mem::swap(&mut messages, &mut core.outbox);
            drop(core);
            self.inbox.receive(&mut messages);
            messages.clear();
            core = self.lock();
        }
        core.delivering = false;
        core
    }

    /// Runs the next batch, if there is one; false if it was given up meanwhile.
    fn step<'a>(&'a self, mut core: MutexGuard<'a, Core>, batch: &Batch) -> (MutexGuard<'a, Core>, bool) {
        if batch.begin() {
            self.event(&mut core, Event::FromWorker(WORKER, FromWorker::Started { run: batch.run_id() }));
            core = self.deliver(core);
        }
        if batch.has_deadline() && core.threads == Threads::Started {
            if !core.watched {
                core.watched = self.spawn("quicsand-watch", Self::watch);
            }
            self.alarm.notify_one();
        }
        if Self::unwatched(&core).is_some() {
            self.work.notify_one();
        }
        drop(core);
        let kept = batch.run(&|| self.now());
        core = self.lock();
        if kept && let Some(finished) = batch.finished() {
            core.batches.remove(&batch.run_id());
            self.event(&mut core, Event::FromWorker(WORKER, finished));
            core = self.deliver(core);
        }
        (core, kept)
    }

    /// A thread for tasks: runs batches until the end, or until one that it runs was given up.
    fn run(&self) {
        let mut core = self.lock();
        while !core.closed {
            let Some(batch) = core.queue.pop_front() else {
                core = self.rest(core);
                continue;
            };
            let kept;
            (core, kept) = self.step(core, &batch);
            if !kept {
                return;
            }
        }
    }

    /// Waits for work. One of the threads that do looks at the time for the scheduler, which wants to know it only while threads are idle.
    fn rest<'a>(&'a self, mut core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        let Some(due) = Self::unwatched(&core) else {
            return self.work.wait(core).unwrap_or_else(PoisonError::into_inner);
        };
        core.rouses = Some(due);
        let pause = due.saturating_sub(self.now()).max(Duration::from_millis(1));
        core = self.work.wait_timeout(core, pause).unwrap_or_else(PoisonError::into_inner).0;
        if core.rouses == Some(due) {
            core.rouses = None;
        }
        if core.closed || core.scheduler.next_deadline().is_none_or(|due| self.now() < due) {
            return core;
        }
        self.event(&mut core, Event::Tick);
        self.deliver(core)
    }

    /// When something is due before any thread looks at the time.
    fn unwatched(core: &Core) -> Option<Duration> {
        let due = core.scheduler.next_deadline()?;
        core.rouses.is_none_or(|at| due < at).then_some(due)
    }

    /// The thread that looks after deadlines.
    fn watch(&self) {
        let mut core = self.lock();
        while !core.closed {
            let now = self.now();
            let running: Vec<_> = core.batches.values().filter(|batch| batch.has_deadline()).map(Arc::clone).collect();
            for batch in &running {
                if let Some(finished) = self.give_up(&mut core, batch) {
                    self.event(&mut core, Event::FromWorker(WORKER, finished));
                }
            }
            core = self.deliver(core);
            let next = running.iter().filter_map(|batch| batch.deadline(now)).min();
            core = match next {
                Some(at) => {
                    let pause = at.saturating_sub(now).max(Duration::from_millis(1));
                    self.alarm.wait_timeout(core, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.alarm.wait(core).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Backend for Local {
    fn send(&self, messages: &mut dyn Iterator<Item = FromClient>) {
        let mut core = self.lock();
        if core.closed {
            return;
        }
        self.begin(&mut core);
        for mut message in messages {
            if let FromClient::Call { spec, .. } | FromClient::Map { spec, .. } = &mut message {
                // Programs are debugged on machines that have neither the labels nor the resources.
                if !spec.options.requires.is_empty() {
                    spec.make_mut().options.requires = Requirements::NONE;
                }
            }
            self.event(&mut core, Event::FromClient(CLIENT, message));
        }
        core = self.deliver(core);
        while core.threads == Threads::Sequential
            && let Some(batch) = core.queue.pop_front()
        {
            (core, _) = self.step(core, &batch);
        }
    }

    fn upload(&self, _: Key, _: Encoded, _: Hash, _: Vec<Place>) {
        // Data of any size travels in messages here, so nobody asks for an upload.
    }

    fn fetch(&self, key: Key, _: u64, _: Hash, _: Vec<Place>) {
        self.inbox.fetched(key, None);
    }

    fn close(&self) {
        let mut core = self.lock();
        core.closed = true;
        core.queue.clear();
        drop(core);
        self.work.notify_all();
        self.alarm.notify_all();
    }
}
