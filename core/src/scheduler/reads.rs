//! Who may read which value through the scheduler. Must not know: where values are.

use std::ops::Range;

use super::Scheduler;
use crate::{
    codec::{Hole, Source},
    ids::{Key, WorkerId},
};

impl Scheduler {
    /// Whether a worker has something to do for which it needs a value: a run that reads it, or a copy to make.
    #[must_use]
    pub fn may_read(&self, worker: WorkerId, key: Key) -> bool {
        let Some(worker) = self.fleet.workers.get(&worker) else { return false };
        worker.copies.contains(&key)
            || worker.runs.iter().filter_map(|run| self.runs.get(run)).any(|run| {
                let items = run.first..run.first + u64::from(run.count);
                let chunks = self.entries.get(&run.entry).map(|entry| entry.args.iter());
                chunks.into_iter().flatten().filter(|chunk| chunk.first < items.end && items.start < chunk.range().end).any(
                    |chunk| {
                        let part = items.start.max(chunk.first) - chunk.first..items.end.min(chunk.range().end) - chunk.first;
                        chunk.holes.iter().any(|hole| reads(hole, &part, key))
                    },
                )
            })
    }
}

/// Whether one of these items, counted as the hole counts them, reads a value there.
fn reads(hole: &Hole, items: &Range<u64>, key: Key) -> bool {
    let first = u64::from(hole.first);
    let (start, end) = (items.start.max(first), items.end.min(first + u64::from(hole.count)));
    start < end
        && match &hole.source {
            Source::Same(other) => *other == key,
            Source::Each { entry, first: producer } => {
                *entry == key.entry && (producer + (start - first)..producer + (end - first)).contains(&key.index)
            }
            Source::List(spans) => {
                let within = |index: u64, first: u64, count: u64| index >= first && index - first < count;
                spans.iter().any(|span| span.entry == key.entry && within(key.index, span.first, span.count))
            }
        }
}
