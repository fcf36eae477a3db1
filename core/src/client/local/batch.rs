//! A batch of items that native threads run.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::panics;
use crate::{
    TaskError, TaskErrorKind,
    codec::RunBuilder,
    ids::RunId,
    task::{ArgReader, HoleValues, ItemFailure, Output},
    wire::{Assignment, Filled, FromWorker, Inputs, ItemError, Outcome},
};

/// A task's function, as [`Task::run_item`](crate::Task) has it.
pub(super) type Native = fn(&mut ArgReader<'_>, &mut Output) -> Result<(), ItemFailure>;

/// A batch, or what is left of one that was given up.
pub(super) struct Batch {
    assignment: std::sync::Arc<Assignment>,
    function: Option<Native>,
    state: Mutex<State>,
}

struct State {
    begun: bool,
    /// Number of items, which a division makes less.
    count: u32,
    /// The item that runs, or will next.
    item: u32,
    /// When it began, while it runs.
    since: Option<Duration>,
    given_up: bool,
    cancelled: Vec<Range<u32>>,
    values: RunBuilder,
    errors: Vec<ItemError>,
    dropped: Vec<u32>,
    elapsed: Duration,
}

impl Batch {
    pub(super) fn new(assignment: Assignment, function: Option<Native>) -> Self {
        let state = State::new(assignment.args.count());
        Self { assignment: assignment.into(), function, state: Mutex::new(state) }
    }

    pub(super) fn run_id(&self) -> RunId {
        self.assignment.run
    }

    /// Marks it as begun; false if it was.
    pub(super) fn begin(&self) -> bool {
        !std::mem::replace(&mut self.lock().begun, true)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.lock().begun
    }

    pub(super) fn has_deadline(&self) -> bool {
        self.assignment.spec.options.timeout.is_some()
    }

    /// When the item that runs is out of time, or at the earliest the next one, while none is running.
    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let state = self.lock();
        let since = if state.begun { state.since.unwrap_or(now) } else { return None };
        Some(since.saturating_add(self.assignment.spec.options.timeout?))
    }

    /// Items that are not wanted any more.
    pub(super) fn cancel(&self, first: u32, count: u32) {
        self.lock().cancelled.push(first..first.saturating_add(count));
    }

    /// Gives up half of the items that have not begun, if there are any; the number of those that are left then.
    pub(super) fn divide(&self) -> Option<u32> {
        let mut state = self.lock();
        let begun = state.item + 1;
        let left = state.count.checked_sub(begun).filter(|left| *left > 0 && state.begun && !state.given_up)?;
        state.count = begun + left / 2;
        Some(state.count)
    }

    /// Runs all items that are left; false if it was given up in the middle, in which case its end is somebody else's to tell.
    pub(super) fn run(&self, now: &dyn Fn() -> Duration) -> bool {
        let items = self.assignment.args.run.iter().enumerate();
        let mut out = Output::default();
        let holes = self.hole_values();
        let begun = self.lock().item as usize;
        for (item, inline) in items.skip(begun) {
            let item = u32::try_from(item).unwrap_or(u32::MAX);
            {
                let mut state = self.lock();
                if item == state.count {
                    break;
                }
                if state.is_cancelled(item) {
                    state.drop_item(item);
                    continue;
                }
                state.since = Some(now());
            }
            out.clear(1 << 20);
            let mine = holes.as_ref().map(|holes| {
                let at = holes.partition_point(|hole| hole.item < item);
                let end = holes.partition_point(|hole| hole.item <= item);
                &holes[at..end]
            });
            let result = self.run_item(item, inline, mine, &mut out);
            let mut state = self.lock();
            if state.given_up {
                return false;
            }
            let took = now().saturating_sub(state.since.take().unwrap_or_default());
            state.elapsed += took;
            let limit = self.assignment.spec.options.timeout.filter(|limit| took > *limit);
            match (result, limit) {
                (_, Some(limit)) => state.fail_item(item, self.late(item, limit)),
                (Ok(()), None) => state.finish_item(item, out.bytes()),
                (Err(error), None) => state.fail_item(item, *error),
            }
        }
        debug_assert!(self.has_ended(), "every item has ended");
        true
    }

    fn has_ended(&self) -> bool {
        let state = self.lock();
        state.item == state.count
    }

    /// If the item that runs is cancelled or out of time: the rest, with that item told; this batch's thread will find itself alone.
    pub(super) fn give_up(&self, now: Duration) -> Option<Self> {
        let mut state = self.lock();
        let (item, since) = (state.item, state.since?);
        let limit = self.assignment.spec.options.timeout.filter(|limit| now.saturating_sub(since) > *limit);
        let cancelled = state.is_cancelled(item);
        if state.given_up || !(cancelled || limit.is_some()) {
            return None;
        }
        let count = state.count;
        let mut rest = std::mem::replace(&mut *state, State { given_up: true, item, ..State::new(count) });
        drop(state);
        rest.since = None;
        rest.elapsed += now.saturating_sub(since);
        match limit {
            Some(limit) if !cancelled => rest.fail_item(item, self.late(item, limit)),
            _ => rest.drop_item(item),
        }
        Some(Self { assignment: self.assignment.clone(), function: self.function, state: Mutex::new(rest) })
    }

    /// What to tell the scheduler, once every item has ended.
    pub(super) fn finished(&self) -> Option<FromWorker> {
        let mut state = self.lock();
        (state.item == state.count && !state.given_up).then(|| FromWorker::Finished {
            run: self.run_id(),
            outcome: Outcome {
                first: 0,
                values: state.values.take(),
                stored: Vec::new(),
                errors: std::mem::take(&mut state.errors),
                dropped: std::mem::take(&mut state.dropped),
            },
            elapsed: state.elapsed,
        })
    }

    fn run_item(&self, item: u32, inline: &[u8], holes: Option<&[Filled]>, out: &mut Output) -> Result<(), Box<TaskError>> {
        let Some(function) = self.function else {
            return Err(self.error(item, TaskErrorKind::UnknownTask, "no function of this process is that task").into());
        };
        let Some(holes) = holes else {
            return Err(self.error(item, TaskErrorKind::Worker, "the values that it reads did not come along").into());
        };
        let holes: Vec<_> = holes.iter().map(|hole| (hole.field, hole.value.clone())).collect();
        let ran = panics::guard(|| function(&mut ArgReader::new(inline, HoleValues::Native(&holes)), out));
        let error = match ran {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ItemFailure::Returned { message })) => self.error(item, TaskErrorKind::Returned, message),
            Ok(Err(ItemFailure::Result { message })) => self.error(item, TaskErrorKind::Result, message),
            Ok(Err(ItemFailure::Argument { name, message })) => {
                self.error(item, TaskErrorKind::Argument { name: name.to_owned() }, message)
            }
            Err(panic) => TaskError {
                location: panic.location,
                backtrace: panic.backtrace,
                ..self.error(item, TaskErrorKind::Panicked, panic.message)
            },
        };
        Err(error.into())
    }

    /// The values of all items' holes, by item, then field; `None` if some did not come along.
    fn hole_values(&self) -> Option<Vec<Filled>> {
        let (inputs, wanted) = Inputs::new(&self.assignment.args, self.assignment.inputs.clone())?;
        if wanted.is_empty() { inputs.fill_holes(&self.assignment.args) } else { None }
    }

    fn late(&self, item: u32, limit: Duration) -> TaskError {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let message = format!("the task asked for {limit:?}, which #[task(timeout = \"…\")] or the call's options raise");
        self.error(item, TaskErrorKind::TimeLimit { limit_ms }, message)
    }

    fn error(&self, item: u32, kind: TaskErrorKind, message: impl Into<String>) -> TaskError {
        let key = self.assignment.entry.key(self.assignment.first + u64::from(item));
        TaskError::new(kind, self.assignment.spec.name.clone(), key, message)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(count: u32) -> Self {
        Self {
            begun: false,
            count,
            item: 0,
            since: None,
            given_up: false,
            cancelled: Vec::new(),
            values: RunBuilder::default(),
            errors: Vec::new(),
            dropped: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    fn is_cancelled(&self, item: u32) -> bool {
        self.cancelled.iter().any(|items| items.contains(&item))
    }

    fn finish_item(&mut self, item: u32, value: &[u8]) {
        // A result of 4 GiB cannot be in memory as one encoding and escape `end_item`'s limit; it would be an empty place otherwise.
        if self.values.push(value).is_err() {
            let _ = self.values.push(&[]);
        }
        self.item = item + 1;
    }

    fn fail_item(&mut self, item: u32, error: TaskError) {
        self.errors.push(ItemError { item, error });
        self.finish_item(item, &[]);
    }

    fn drop_item(&mut self, item: u32) {
        self.dropped.push(item);
        self.finish_item(item, &[]);
    }
}
