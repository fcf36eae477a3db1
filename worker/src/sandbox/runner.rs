//! Runs a batch to its end: picks or makes an instance, keeps what is finished, blames what trapped, goes on with the rest.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quicsand::{
    Options, TaskErrorKind,
    codec::Run,
    ids::{ClientId, EntryId, TaskId},
    wire::ItemError,
};
use wasmtime::Error;

use super::{
    batch::Layout,
    engine::Sandbox,
    instance::{Bounds, Failure, Instance, Phase},
    limits::{Control, Limit, Stop, Watch},
    module::Module,
    outcome::{Blame, Outcomes, blame},
    printed::Printed,
};

/// A batch: consecutive items of a call or map.
#[derive(Debug)]
pub struct Job {
    /// The module that has the task.
    pub module: Arc<Module>,
    /// Whose it is: instances are not shared between clients.
    pub client: ClientId,
    /// The task.
    pub task: TaskId,
    /// Its name, for errors.
    pub name: String,
    /// What an item may use; the worker's caps hold besides.
    pub options: Options,
    /// The entry that the items belong to.
    pub entry: EntryId,
    /// Index of the first item in it.
    pub first: u64,
    /// Inline bytes of the arguments, one tuple an item.
    pub args: Run,
    /// Values of the fields that are not inline, sorted by item, then field.
    pub holes: Vec<HoleInput>,
    /// The worker's name, for errors.
    pub worker: String,
}

/// The value for one field of one item. A buffer that several of them share goes into the guest once.
#[derive(Clone, Debug)]
pub struct HoleInput {
    /// The item, counted from the batch's first.
    pub item: u32,
    /// The field of the argument tuple, from 0.
    pub field: u32,
    /// Its encoding.
    pub value: Bytes,
}

/// How the items of a batch ended: all of them, or those that are left where some were told before or given up. An item that is neither
/// in `errors` nor in `dropped` has its result in `values`.
#[derive(Debug)]
pub struct BatchResult {
    /// The first item, counted from the batch's first, as all are.
    pub first: u32,
    /// One value an item; empty for the others.
    pub values: Run,
    /// Items that failed, ascending.
    pub errors: Vec<ItemError>,
    /// Items that were cancelled, ascending.
    pub dropped: Vec<u32>,
    /// Time that they took together.
    pub elapsed: Duration,
}

/// Runs batches, one at a time. Keeps an instance for consecutive batches of one module and client.
pub struct Runner {
    sandbox: Arc<Sandbox>,
    kept: Option<Instance>,
    layout: Layout,
    printed: Arc<Printed>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("keeps_instance", &self.kept.is_some()).finish_non_exhaustive()
    }
}

impl Runner {
    /// A runner of this sandbox. What its tasks print is kept for their errors only.
    #[must_use]
    pub fn new(sandbox: Arc<Sandbox>) -> Self {
        Self::printing(sandbox, Arc::new(Printed::new(0)))
    }

    /// As [`Runner::new`]; what its tasks print is to be seen there.
    #[must_use]
    pub fn printing(sandbox: Arc<Sandbox>, printed: Arc<Printed>) -> Self {
        Self { sandbox, kept: None, layout: Layout::default(), printed }
    }

    /// Gives the kept instance back, with its memory: for a thread that has nothing to do.
    pub fn rest(&mut self) {
        self.kept = None;
    }

    /// Runs a batch, and blocks until each of its items has ended one way or another.
    pub fn run(&mut self, job: &Job, control: &Control) -> BatchResult {
        let began = Instant::now();
        let sandbox = Arc::clone(&self.sandbox);
        let _ticking = sandbox.tick();
        // Lines that the guest prints are events in here.
        let _span = tracing::debug_span!("batch", task = %job.name, first = job.first).entered();
        let mut outcomes = Outcomes::new(job, sandbox.config());
        let mut count = job.args.count();
        if !is_consistent(job) {
            outcomes.fail_until(count, &TaskErrorKind::Worker, "the batch's lengths contradict each other");
        } else if job.module.export(job.task).is_none() {
            outcomes.fail_until(
                count,
                &TaskErrorKind::UnknownTask,
                "the module lists no such task; was it built from these sources?",
            );
        }
        // How many items to give to the guest at a time: all, until some do not fit into its memory together.
        let mut at_once = count;
        while outcomes.next() < count {
            let first = outcomes.next();
            if control.is_cancelled(first) {
                outcomes.drop_item();
                continue;
            }
            let end = control.next_cancelled(first..count.min(first.saturating_add(at_once)));
            at_once = match self.step(job, control, first..end.max(first + 1), &mut outcomes) {
                Next::Alone => 1,
                Next::Any => at_once.saturating_mul(2),
            };
            count = control.left_of(job.args.count());
        }
        let (mut values, mut errors, mut dropped) = outcomes.finish();
        let (first, elapsed) = control.midway().told();
        if first > 0 {
            // Whatever the guest says of them now, they are told.
            values = values.slice(first.min(values.count())..values.count());
            errors.retain(|error| error.item >= first);
            dropped.retain(|item| *item >= first);
        }
        BatchResult { first, values, errors, dropped, elapsed: began.elapsed().saturating_sub(elapsed) }
    }

    /// Gives `items` to a guest once. Either the end of the first of them is known afterwards, or they were several or the
    /// instance was used before, and the first is to be run alone; that happens in a fresh instance.
    fn step(&mut self, job: &Job, control: &Control, items: Range<u32>, outcomes: &mut Outcomes<'_>) -> Next {
        let config = self.sandbox.config();
        let limit = Limit { wish: Some(job.options.memory), cap: Some(config.memory_cap()) };
        let memory = job.options.memory.min(config.memory_cap());
        let time = Limit { wish: job.options.timeout, cap: config.caps.timeout };
        let bounds = || Bounds { watch: Watch::new(control, &items, time), memory: limit };

        let kept = self.kept.take().filter(|kept| kept.suits(job.module.hash(), job.client, memory));
        let started = match kept {
            Some(kept) => Ok(kept),
            None => Instance::start(&self.sandbox, &job.module, job.client, bounds(), &self.printed),
        };
        let mut instance = match started {
            Ok(instance) => instance,
            Err(failure) => return settle(&failure, Seen::nothing(), &items, true, outcomes),
        };
        let fresh = instance.is_fresh();
        let called = match self.layout.plan(job, &items, memory) {
            Ok(plan) => instance.call(job.task, job.entry.key(job.first), &plan, bounds()),
            Err(peak) => Err(Failure { error: Error::new(Stop::Memory { limit, peak }), phase: Phase::Prepare }),
        };
        let failure = match called {
            Ok(()) => None,
            Err(failure) if failure.phase == Phase::Run => Some(failure),
            Err(failure) => {
                let log = instance.results(&items).map(|(_, _, log)| log.take(items.start)).unwrap_or_default();
                return settle(&failure, Seen { log, ..Seen::nothing() }, &items, fresh, outcomes);
            }
        };
        // It may have been divided meanwhile.
        let left = items.start..items.end.min(control.left_of(job.args.count()));
        match (take(&mut instance, &items, left.end, failure.as_ref(), outcomes), failure) {
            (Ok(_), None) if outcomes.next() == left.end => {
                self.kept = Some(instance).filter(Instance::is_worth_keeping);
                Next::Any
            }
            (Ok(seen), Some(failure)) => settle(&failure, seen, &left, fresh, outcomes),
            (Ok(_), None) => lie(&Stop::Lie("it ends a batch before its items"), &left, outcomes),
            (Err(stop), _) => lie(&stop, &left, outcomes),
        }
    }
}

/// What to give to the guest next.
enum Next {
    /// The next item alone.
    Alone,
    /// More at a time than last time.
    Any,
}

/// What a guest that failed left behind.
struct Seen {
    /// Whether it was in the middle of an item, which is the first whose end is not known.
    inside: bool,
    /// What the item printed.
    log: String,
    /// The error of the item, if it is blamed.
    blame: Option<Blame>,
}

impl Seen {
    fn nothing() -> Self {
        Self { inside: false, log: String::new(), blame: None }
    }
}

/// Takes what the guest finished of the items before `end`, and if it failed, what it says about the item that it was at.
fn take(
    instance: &mut Instance,
    items: &Range<u32>,
    end: u32,
    failure: Option<&Failure>,
    outcomes: &mut Outcomes<'_>,
) -> Result<Seen, Stop> {
    let (mut state, memory, log) = instance.results(items)?;
    state.finished = state.finished.min(end.saturating_sub(items.start));
    outcomes.take(&state, memory, log)?;
    let mut seen = Seen { inside: state.started > state.finished, ..Seen::nothing() };
    if let Some(failure) = failure {
        let log = log.take(outcomes.next());
        seen.blame = Some(blame(failure, Some((&state, memory)), log, outcomes.caps));
    }
    Ok(seen)
}

/// Decides who is to blame for a failure, and how to go on. Progress: an item ends, or the next one is to be run alone and fresh.
fn settle(failure: &Failure, seen: Seen, items: &Range<u32>, fresh: bool, outcomes: &mut Outcomes<'_>) -> Next {
    if outcomes.next() == items.end {
        return Next::Any;
    }
    let alone = fresh && items.end - items.start == 1;
    let blamed = match failure.error.downcast_ref::<Stop>() {
        // The item stays cancelled, and is dropped before it would be run again.
        Some(Stop::Cancelled) => return Next::Any,
        Some(stop @ Stop::Lie(_)) => return lie(stop, items, outcomes),
        // The memory may have gone to other items: to their arguments, results, and what they left behind.
        Some(Stop::Memory { .. }) => alone,
        _ => seen.inside || alone,
    };
    if blamed {
        let caps = outcomes.caps;
        outcomes.fail(seen.blame.unwrap_or_else(|| blame(failure, None, seen.log, caps)));
        return Next::Any;
    }
    Next::Alone
}

/// A module that breaks the ABI is not asked again: the items that it was given all fail.
fn lie(stop: &Stop, items: &Range<u32>, outcomes: &mut Outcomes<'_>) -> Next {
    outcomes.fail_until(items.end, &TaskErrorKind::Trapped, &stop.to_string());
    Next::Any
}

/// Whether what the batch says of itself can be true.
fn is_consistent(job: &Job) -> bool {
    let count = job.args.count();
    job.args.is_valid()
        && job.holes.last().is_none_or(|hole| hole.item < count)
        && job.holes.is_sorted_by(|a, b| (a.item, a.field) < (b.item, b.field))
}
