//! A finished run's results, cut into messages. Owns: what rides along and what is kept here. Must not know: runs, or who asks.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use quicsand::{
    TaskError, TaskErrorKind,
    codec::{Run, RunBuilder},
    ids::{EntryId, Hash},
    wire::{INLINE_BYTES, ItemError, Outcome, RUN_BYTES, RUN_ITEMS, Stored},
};

/// How a run's items ended. Made by [`Ended::from`] outside of any lock, since it hashes what is large.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What to tell the scheduler, in order; each with its share of the time.
    pub(super) outcomes: Vec<(Outcome, Duration)>,
    /// Results that stay here, by ascending item.
    pub(super) kept: Vec<(Stored, Bytes)>,
    /// Items without a result, ascending.
    void: Vec<u32>,
}

impl Ended {
    /// Cuts the results of a run up: `values` has one value an item, an empty one for those in `errors` and `dropped`.
    pub fn new(values: Run, errors: Vec<ItemError>, dropped: Vec<u32>, elapsed: Duration) -> Self {
        Self::from(0, values, errors, dropped, elapsed)
    }

    /// The same of the items from `first` on.
    pub fn from(first: u32, values: Run, mut errors: Vec<ItemError>, dropped: Vec<u32>, elapsed: Duration) -> Self {
        for ItemError { error, .. } in &mut errors {
            [&mut error.message, &mut error.backtrace, &mut error.log].into_iter().for_each(clip);
        }
        let mut void: Vec<u32> = errors.iter().map(|error| error.item).chain(dropped.iter().copied()).collect();
        void.sort_unstable();
        let kept = keep_large(first, &values);
        let mut ended = Self { outcomes: Vec::new(), kept, void };
        ended.cut(first, values, errors, dropped, elapsed);
        ended
    }

    /// All items were dropped before any ran.
    pub(super) fn dropped(count: u32) -> Self {
        Self::new(empty(count), Vec::new(), (0..count).collect(), Duration::ZERO)
    }

    /// These items of a run failed alike, whose first item has index `first`.
    pub fn failed(
        task: &str,
        entry: EntryId,
        first: u64,
        items: Range<u32>,
        worker: &str,
        kind: &TaskErrorKind,
        reason: &str,
    ) -> Self {
        let error = |item| {
            let mut error = TaskError::new(kind.clone(), task, entry.key(first + u64::from(item)), reason);
            worker.clone_into(&mut error.worker);
            ItemError { item, error }
        };
        Self::from(items.start, empty(items.end - items.start), items.map(error).collect(), Vec::new(), Duration::ZERO)
    }

    /// Items with a result.
    pub fn finished(&self) -> u64 {
        let items: u64 = self.outcomes.iter().map(|(outcome, _)| u64::from(outcome.values.count())).sum();
        items.saturating_sub(self.void.len() as u64)
    }

    /// The items whose end this is, in order.
    pub(super) fn items(&self) -> Range<u32> {
        let first = self.outcomes.first().map_or(0, |(outcome, _)| outcome.first);
        first..self.outcomes.last().map_or(first, |(outcome, _)| outcome.first + outcome.values.count())
    }

    /// The result of an item, if it has one.
    pub(super) fn value(&self, item: u32) -> Option<Bytes> {
        if self.void.binary_search(&item).is_ok() {
            return None;
        }
        match self.kept.binary_search_by_key(&item, |(stored, _)| stored.item) {
            Ok(at) => Some(self.kept[at].1.clone()),
            Err(_) => {
                let (outcome, _) = self.outcomes.iter().find(|(outcome, _)| has(outcome, item))?;
                outcome.values.get(item - outcome.first)
            }
        }
    }

    /// Has an item that was to be stored fail instead.
    pub(super) fn refuse(&mut self, item: u32, error: TaskError) {
        if let Some((outcome, _)) = self.outcomes.iter_mut().find(|(outcome, _)| has(outcome, item)) {
            outcome.stored.retain(|stored| stored.item != item);
            let at = outcome.errors.partition_point(|error| error.item < item);
            outcome.errors.insert(at, ItemError { item, error });
        }
        let at = self.void.partition_point(|&void| void < item);
        self.void.insert(at, item);
    }

    fn cut(&mut self, start: u32, mut values: Run, errors: Vec<ItemError>, dropped: Vec<u32>, elapsed: Duration) {
        let (mut errors, mut dropped) = (errors.into_iter().peekable(), dropped.into_iter().peekable());
        let (count, mut first) = (values.count(), start);
        let all = start..start.saturating_add(count);
        while first < all.end {
            let mut outcome = Outcome { first, values: Run::default(), stored: vec![], errors: vec![], dropped: vec![] };
            let (mut end, mut size) = (first, 0);
            while end < all.end && end - first < RUN_ITEMS as u32 && size < RUN_BYTES {
                while let Some(error) = errors.next_if(|error| error.item <= end) {
                    size += weight(&error.error);
                    outcome.errors.push(error);
                }
                outcome.dropped.extend(std::iter::from_fn(|| dropped.next_if(|&item| item <= end)));
                size += values.len_at(end - start).filter(|&len| len <= INLINE_BYTES).unwrap_or(0);
                end += 1;
            }
            let range = first..end;
            outcome
                .stored
                .extend(self.kept.iter().map(|(stored, _)| stored).filter(|stored| range.contains(&stored.item)).cloned());
            // Lengths are copied with a part, which the usual run, told in one piece, can do without.
            let part =
                if range == all { std::mem::take(&mut values) } else { values.slice(range.start - start..range.end - start) };
            outcome.values = small_values(part, !outcome.stored.is_empty());
            self.outcomes.push((outcome, elapsed * (end - first) / count));
            first = end;
        }
    }
}

/// Whether an outcome is of this item, among others.
fn has(outcome: &Outcome, item: u32) -> bool {
    item.checked_sub(outcome.first).is_some_and(|at| at < outcome.values.count())
}

/// Copies what is too large to ride along out of the run, so that freeing it gives its memory back. A run of one is shared.
fn keep_large(first: u32, values: &Run) -> Vec<(Stored, Bytes)> {
    // Of a run that was told in part, the rest lies where all of it did.
    let is_whole = first == 0;
    let large = values.iter().enumerate().filter(|(_, value)| value.len() > INLINE_BYTES);
    let keep = |(item, value): (usize, &[u8])| {
        let bytes = if is_whole && values.count() == 1 { values.bytes().clone() } else { Bytes::copy_from_slice(value) };
        (Stored { item: first + item as u32, len: bytes.len() as u64, hash: Hash::of(&bytes) }, bytes)
    };
    large.map(keep).collect()
}

/// The values, with an empty place for each large one; shared if there is none.
fn small_values(values: Run, some_large: bool) -> Run {
    if !some_large {
        return values;
    }
    let mut builder = RunBuilder::default();
    for value in values.iter() {
        let value = if value.len() > INLINE_BYTES { &[] } else { value };
        let pushed = builder.push(value);
        debug_assert!(pushed.is_ok(), "at most INLINE_BYTES long");
    }
    builder.take()
}

/// Cuts a text that a task made down to what may ride along.
fn clip(text: &mut String) {
    if text.len() > INLINE_BYTES {
        text.truncate(text.floor_char_boundary(INLINE_BYTES));
        text.push('…');
    }
}

fn weight(error: &TaskError) -> usize {
    128 + error.message.len() + error.backtrace.len() + error.log.len()
}

fn empty(count: u32) -> Run {
    Run::checked(count, quicsand::codec::Lens::Same(0), Bytes::new()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use quicsand::ids::ClientId;

    use super::*;

    fn run_of(lens: &[usize]) -> Run {
        let mut builder = RunBuilder::default();
        lens.iter().enumerate().for_each(|(i, &len)| builder.push(&vec![i as u8; len]).expect("short"));
        builder.take()
    }

    #[test]
    fn large_results_stay_and_small_ones_ride_along() {
        let large = INLINE_BYTES + 1;
        let ended = Ended::new(run_of(&[INLINE_BYTES, large, 0, 3]), vec![], vec![2], Duration::from_secs(4));
        let [(outcome, elapsed)] = &ended.outcomes[..] else { panic!("{:?}", ended.outcomes) };
        assert_eq!(*elapsed, Duration::from_secs(4));
        assert_eq!(outcome.values.iter().map(<[u8]>::len).collect::<Vec<_>>(), [INLINE_BYTES, 0, 0, 3]);
        assert_eq!(outcome.stored, [Stored { item: 1, len: large as u64, hash: Hash::of(&vec![1; large]) }]);
        assert_eq!(outcome.dropped, [2]);
        let lens: Vec<_> = (0..5).map(|i| ended.value(i).map(|value| value.len())).collect();
        assert_eq!(lens, [Some(INLINE_BYTES), Some(large), None, Some(3), None]);
    }

    #[test]
    fn messages_are_bounded_and_without_gaps() {
        let entry = EntryId { client: ClientId(1), seq: 1 };
        let cases = [run_of(&[INLINE_BYTES; 10]), run_of(&vec![1; RUN_ITEMS + 1]), run_of(&[INLINE_BYTES * 2; 3])];
        let failed = Ended::failed("t", entry, 5, 0..4, "w", &TaskErrorKind::Module, &"é".repeat(RUN_BYTES));
        assert_eq!(failed.outcomes.len(), 1);
        let last = &failed.outcomes[0].0.errors[3].error;
        assert_eq!((last.key, last.message.len()), (entry.key(8), INLINE_BYTES + 3));
        let cases = cases.into_iter().map(|run| (run.count(), Ended::new(run, vec![], vec![], Duration::ZERO)));
        for (count, ended) in cases.chain([(4, failed)]) {
            let mut next = 0;
            for (outcome, _) in &ended.outcomes {
                assert_eq!(outcome.first, next);
                next += outcome.values.count();
                assert!(outcome.values.count() as usize <= RUN_ITEMS);
                assert!(outcome.values.bytes().len() <= RUN_BYTES + INLINE_BYTES);
            }
            assert_eq!((next, ended.finished()), (count, u64::from(count) - ended.void.len() as u64));
        }
    }
}
