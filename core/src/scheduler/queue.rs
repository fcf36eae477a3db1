//! What is ready, in order, and how much of it makes a batch. Must not know: which worker is best.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use super::{
    Scheduler,
    entry::{Entry, QueueKey},
    fleet::nanos,
};
use crate::{
    ids::{EntryId, TaskId},
    wire::RUN_ITEMS,
};

/// A batch may be so many times larger than the last one of its task.
const GROWTH: u32 = 8;
/// Batches are not made smaller than this part of their target time for the sake of balance: it would cost more than it gives.
const SMALLEST_PART: u64 = 16;
/// Tasks whose times are remembered; more than any program has.
const MAX_TASKS: usize = 4096;

/// Measured times of tasks' items.
#[derive(Debug, Default)]
pub(super) struct TaskTimes {
    tasks: BTreeMap<TaskId, TaskTime>,
}

#[derive(Clone, Copy, Debug)]
struct TaskTime {
    /// Moving average.
    item_nanos: u64,
    /// Largest batch that finished.
    largest: u32,
}

impl TaskTimes {
    /// Notes that `count` items of a run of `run_count` took so long; gives the estimate for one.
    pub(super) fn record(&mut self, task: TaskId, run_count: u32, count: u32, elapsed: Duration, batch_nanos: u64) -> u64 {
        if self.tasks.len() >= MAX_TASKS && !self.tasks.contains_key(&task) {
            self.tasks.clear();
        }
        // A single absurd figure must not spoil the average for long.
        let measured = (nanos(elapsed) / u64::from(count.max(1))).clamp(1, batch_nanos.saturating_mul(1 << 20).max(1));
        let time = self.tasks.entry(task).or_insert(TaskTime { item_nanos: measured, largest: 0 });
        time.item_nanos = (time.item_nanos.saturating_mul(3).saturating_add(measured) / 4).max(1);
        time.largest = time.largest.max(run_count);
        time.item_nanos
    }

    /// Estimated time of an item: so much while nothing is known that a slot's queue counts as full.
    pub(super) fn item_nanos(&self, task: TaskId, batch_nanos: u64) -> u64 {
        self.tasks.get(&task).map_or(batch_nanos.saturating_mul(2), |time| time.item_nanos)
    }

    /// Items that a batch should have, of `remaining` ones for that many slots, and at most `limit`. The flag says that it should
    /// have more once such batches have proved themselves.
    pub(super) fn batch_items(&self, task: TaskId, batch_nanos: u64, remaining: u64, slots: u64, limit: u64) -> (u64, bool) {
        let Some(time) = self.tasks.get(&task) else { return (1, limit > 1) };
        // To the nearest: with one item of ten milliseconds where it could have two, a batch costs twice as much beside its work.
        let fitting = batch_nanos.saturating_add(time.item_nanos / 2) / time.item_nanos;
        let grown = u64::from(time.largest.saturating_mul(GROWTH));
        let share = (remaining / (2 * slots.max(1))).max(fitting / SMALLEST_PART);
        let ideal = fitting.min(share).min(limit).clamp(1, RUN_ITEMS as u64);
        (ideal.min(grown), grown < ideal)
    }
}

/// What became of an entry's next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Assigned,
    /// Its items must run alone, or in larger batches, and no worker is ready for that.
    Passed,
    /// No worker has what entries of its shape ask for, or not now.
    Stuck,
}

impl Scheduler {
    /// Hands ready items out until there are none, or no worker has room for them.
    pub(super) fn dispatch(&mut self) {
        let mut passed = None::<QueueKey>;
        while self.fleet.free.len() > 0
            && let Some((key, shape)) = self.shapes.next(passed)
        {
            match self.assign_next(key.2) {
                Attempt::Assigned => {}
                Attempt::Passed => passed = Some(key),
                Attempt::Stuck => self.shapes.stick(shape),
            }
        }
    }

    /// Assigns the next batch of an entry.
    fn assign_next(&mut self, id: EntryId) -> Attempt {
        let Some(entry) = self.entries.get(&id) else { return Attempt::Passed };
        let takes_suspects = entry.rare.suspects.is_empty() || self.least_loaded(entry.shape, true).is_some();
        let Some((piece, suspect)) = entry.ready.first_piece(&entry.rare.suspects, takes_suspects) else {
            return self.no_taker(entry);
        };
        let Some(chunk) = entry.chunk_of(piece.start) else { return Attempt::Passed };
        let Some(spec) = entry.spec() else { return Attempt::Passed };
        let limit = piece.end.min(chunk.range().end) - piece.start;
        let remaining = entry.items.count(super::items::State::Queued);
        let (fitting, grows) = match suspect {
            true => (1, false),
            false => self.times.batch_items(spec.task, self.batch_nanos, remaining, self.fleet.slots, limit),
        };
        let Some(mut worker) = self.choose_worker(entry, &chunk, piece.start, suspect) else { return self.no_taker(entry) };
        // Small batches that are but a measure are not worth a long queue: larger ones follow when the first are back.
        if grows && !self.wants_any(worker) {
            let Some(eager) = self.eager(entry.shape) else { return Attempt::Passed };
            worker = eager;
        }
        let end = self.trim_batch(&chunk, piece.start, fitting, worker);
        match self.assign(id, Range { start: piece.start, end }, worker, suspect, false) {
            true => Attempt::Assigned,
            false => Attempt::Passed,
        }
    }

    /// No worker was found for an entry's next items: for these, or for any of the shape?
    fn no_taker(&self, entry: &Entry) -> Attempt {
        if self.least_loaded(entry.shape, false).is_some() { Attempt::Passed } else { Attempt::Stuck }
    }
}
