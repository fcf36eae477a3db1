//! What workers say of their runs: every claim is checked against what they were given. Must not know: what is assigned next.

use std::{ops::Range, time::Duration};

use super::{
    Scheduler,
    ascending::Ascending,
    entry::Cause,
    fleet::Run,
    items::{Segment, State},
    machine::Todo,
    refusal::Refusal,
};
use crate::{
    TaskError, TaskErrorKind,
    codec::Run as Values,
    fault::{self, Fault},
    ids::{EntryId, Key, RunId, WorkerId},
    wire::{ItemError, Outcome, Stored, ToClient},
};

/// An item's inputs may be missing so often before those inputs count as lost.
const MAX_MISSES: u32 = 2;
/// And so often before the item fails.
const MAX_ALL_MISSES: u32 = 6;

/// How one item, or several alike, of an outcome ended.
enum End {
    Values,
    Stored(Stored),
    Failed(TaskError),
    Dropped,
}

impl Scheduler {
    pub(super) fn started(&mut self, worker: WorkerId, id: RunId) -> Result<(), Refusal> {
        if let Some(run) = own_run(&mut self.runs, worker, id)? {
            self.fleet.start(run, self.now, self.recalled.remove(&id));
            self.progressed(worker);
        }
        Ok(())
    }

    pub(super) fn finished(&mut self, worker: WorkerId, id: RunId, outcome: Outcome, elapsed: Duration) -> Result<(), Refusal> {
        let Some(run) = own_run(&mut self.runs, worker, id)? else { return Ok(()) };
        let count = outcome.values.count();
        if !is_sound(run, &outcome) {
            return Err(Refusal::Outcome { run: id });
        }
        self.fleet.start(run, self.now, self.recalled.remove(&id));
        let (entry_id, was_ahead) = (run.entry, run.ahead);
        let first = run.first + u64::from(run.done);
        let left = run.count - run.done - count;
        let stats = self.times.record(run.task, run.count, count, elapsed, self.batch_nanos);
        if left == 0 {
            self.close_run(id);
        } else {
            let (before, was_divisible) = (run.nanos(), run.is_divisible());
            run.done += count;
            run.item_nanos = stats;
            self.fleet.divisible -= u64::from(was_divisible && !run.is_divisible());
            if !was_ahead {
                self.fleet.reload(worker, before, run.nanos());
            }
            if let Some(entry) = self.entries.get_mut(&entry_id) {
                entry.runs.remove(first);
                entry.runs.insert(first + u64::from(count), id);
            }
            self.rank_later(worker);
        }
        self.progressed(worker);
        if was_ahead {
            // Its inputs are not there, as far as this side knows: they failed, or are tried again. It did not really run.
            self.forget_stored(worker, entry_id, first, &outcome);
            self.requeue(entry_id, first..first + u64::from(count));
        } else {
            self.take_outcome(worker, entry_id, first, outcome);
        }
        Ok(())
    }

    pub(super) fn returned(&mut self, worker: WorkerId, id: RunId, missing: &[Key]) -> Result<(), Refusal> {
        let Some(run) = own_run(&mut self.runs, worker, id)? else { return Ok(()) };
        if run.started.is_some() {
            return Err(Refusal::ReturnedLate { run: id });
        }
        let recalled = self.recalled.contains(&id);
        let Some(run) = self.close_run(id) else { return Ok(()) };
        let range = run.first..run.first + u64::from(run.count);
        self.requeue(run.entry, range);
        if !missing.is_empty() {
            self.miss(&run, missing);
        } else if recalled {
            self.keep_off(run.entry.key(run.first));
        }
        Ok(())
    }

    /// An item was taken back from a worker: that its inputs are there is no reason to give it the item again.
    pub(super) fn keep_off(&mut self, key: Key) {
        let entry = self.entries.get_mut(&key.entry);
        if let Some(entry) = entry.filter(|entry| entry.items.state(key.index).is_some_and(State::is_active)) {
            entry.rare.oddities.entry(key.index).or_default().not_local = true;
        }
    }

    fn progressed(&mut self, worker: WorkerId) {
        if let Some(worker) = self.fleet.workers.get_mut(&worker) {
            worker.progress = self.now;
        }
    }

    /// A run came back because inputs could not be had.
    fn miss(&mut self, run: &Run, missing: &[Key]) {
        let Some(entry) = self.entries.get_mut(&run.entry) else { return };
        if entry.items.state(run.first).is_none_or(|state| !state.is_active()) {
            return;
        }
        let oddity = entry.rare.oddities.entry(run.first).or_default();
        if run.sent_ahead {
            oddity.not_ahead = true;
            return;
        }
        let away = |key: &Key| {
            let entry = self.entries.get(&key.entry);
            entry.and_then(|entry| entry.items.state(key.index)).is_some_and(State::is_away)
        };
        if missing.iter().any(away) {
            // That is known, and it waits for them.
            return;
        }
        let Some(entry) = self.entries.get_mut(&run.entry) else { return };
        let oddity = entry.rare.oddities.entry(run.first).or_default();
        oddity.misses += 1;
        let misses = oddity.misses;
        if misses >= MAX_ALL_MISSES {
            let message = format!("its inputs could not be had, {misses} times");
            let error = TaskError::new(TaskErrorKind::Worker, entry.name(), run.entry.key(run.first), message);
            let segment = entry.items.segment(run.first, run.first + 1);
            return self.end_badly(run.entry, segment, &Cause::Failed(error.into()), true);
        }
        if misses < MAX_MISSES {
            return;
        }
        // Whatever a worker says here, it can only cost what its own inputs cost.
        let Some(chunk) = entry.chunk_of(run.first) else { return };
        let inputs = chunk.inputs_of(run.first..run.first + u64::from(run.count));
        for &key in missing {
            let is_input = inputs.iter().any(|span| span.entry == key.entry && key.index.wrapping_sub(span.first) < span.count);
            let state = self.entries.get(&key.entry).and_then(|entry| entry.items.state(key.index));
            if is_input && state.is_some_and(State::is_stored) {
                self.lose_unread(key);
            }
        }
    }

    /// Applies how consecutive items from `first` ended.
    fn take_outcome(&mut self, worker: WorkerId, id: EntryId, first: u64, outcome: Outcome) {
        if are_all_values(&outcome) {
            return self.take_values(id, first, outcome.values);
        }
        if !self.entries.contains_key(&id) {
            self.forget_stored(worker, id, first, &outcome);
            return;
        }
        let Outcome { first: offset, values, stored, errors, dropped } = outcome;
        let at = |item: u32| item - offset;
        let mut ends: Vec<(u32, End)> = Vec::with_capacity(stored.len() + errors.len() + dropped.len());
        ends.extend(stored.into_iter().map(|stored| (at(stored.item), End::Stored(stored))));
        ends.extend(errors.into_iter().map(|ItemError { item, error }| (at(item), End::Failed(error))));
        ends.extend(dropped.into_iter().map(|item| (at(item), End::Dropped)));
        if fault::is(Fault::NeighbourBlamed) {
            ends.iter_mut().for_each(|(item, _)| *item = (*item + 1) % values.count());
        }
        ends.sort_by_key(|(item, _)| *item);
        let mut next = 0;
        for (item, end) in ends.into_iter().chain([(values.count(), End::Values)]) {
            if next < item {
                let part = if item - next == values.count() { values.clone() } else { values.slice(next..item) };
                self.take_values(id, first + u64::from(next), part);
            }
            self.take_end(worker, id, first + u64::from(item), end);
            next = item + 1;
        }
    }

    /// Items have results that came along.
    fn take_values(&mut self, id: EntryId, first: u64, values: Values) {
        let end = first + u64::from(values.count());
        let mut at = first;
        let mut to_tell = None::<Range<u64>>;
        while at < end {
            let Some(entry) = self.entries.get_mut(&id) else { return };
            let segment = entry.items.segment(at, end);
            at = segment.end;
            if segment.state != State::Processing {
                continue;
            }
            // Nobody wants it and nobody needs it: it would have been cancelled. So all that is here is kept, until it is not.
            let part = cut(&values, first, &segment.range());
            self.ledger.put_values(id, segment.first, &part);
            entry.values.insert(segment.first, part);
            entry.forget_oddities(segment.range());
            let (is_needed, is_shared) = (!entry.edges.is_empty(), entry.rare.sharing.is_some());
            self.shift(id, segment.range(), State::Processing, State::Inline);
            if is_needed {
                self.todo.push_back(Todo::Made(id, segment.range()));
            }
            if !segment.wanted {
                self.todo.push_back(Todo::Free(id, segment.range()));
                continue;
            }
            if is_shared {
                self.tell_takers(id, &segment.range());
            }
            match &mut to_tell {
                Some(last) if last.end == segment.first => last.end = segment.end,
                last => {
                    if let Some(range) = last.replace(segment.range()) {
                        let values = cut(&values, first, &range);
                        self.tell_client(id.client, ToClient::Done { seq: id.seq, first: range.start, values });
                    }
                }
            }
        }
        if let Some(range) = to_tell {
            let is_whole = range.end - range.start == u64::from(values.count());
            let values = if is_whole { values } else { cut(&values, first, &range) };
            if fault::is(Fault::ToldTwice) {
                self.tell_client(id.client, ToClient::Done { seq: id.seq, first: range.start, values: values.clone() });
            }
            self.tell_client(id.client, ToClient::Done { seq: id.seq, first: range.start, values });
        }
    }

    /// A worker did not run an item that nobody cancelled: it is tried again, a few times.
    fn drop_unasked(&mut self, key: Key) {
        self.requeue(key.entry, key.index..key.index + 1);
        let Some(entry) = self.entries.get_mut(&key.entry) else { return };
        let oddity = entry.rare.oddities.entry(key.index).or_default();
        oddity.misses += 1;
        if oddity.misses >= MAX_ALL_MISSES {
            let message = format!("workers dropped it {} times", oddity.misses);
            let error = TaskError::new(TaskErrorKind::Worker, entry.name(), key, message);
            let segment = entry.items.segment(key.index, key.index + 1);
            self.end_badly(key.entry, segment, &Cause::Failed(error.into()), true);
        }
    }

    /// An item ended otherwise.
    fn take_end(&mut self, worker: WorkerId, id: EntryId, item: u64, end: End) {
        let key = id.key(item);
        let segment =
            self.entries.get(&id).filter(|entry| item < entry.items.len()).map(|entry| entry.items.segment(item, item + 1));
        let segment = segment.filter(|segment| segment.state == State::Processing);
        match (end, segment) {
            (End::Values, _) | (End::Failed(_) | End::Dropped, None) => {}
            (End::Stored(stored), None) => self.surplus(worker, key, &stored),
            (End::Stored(stored), Some(_)) => self.store(key, stored.len, stored.hash, Some(worker)),
            (End::Failed(error), Some(segment)) => self.take_failure(id, segment, error),
            // What was cancelled here is not processing any more: the worker let go of it by itself, as one does that is leaving.
            (End::Dropped, Some(_)) => self.drop_unasked(key),
        }
    }

    /// A result for which nothing is waiting any more is stored on a worker.
    fn surplus(&mut self, worker: WorkerId, key: Key, stored: &Stored) {
        let replicas = self.entries.get(&key.entry).and_then(|entry| entry.rare.stored.get(&key.index));
        let known = replicas.filter(|replicas| replicas.workers.contains(&worker)).map(|replicas| (replicas.len, replicas.hash));
        if known == Some((stored.len, stored.hash)) {
            // It had brought it back meanwhile.
            return;
        }
        self.free_on(worker, key);
        if known.is_some() {
            // It has this one in that one's place.
            if let Some(worker) = self.fleet.workers.get_mut(&worker) {
                worker.holds.remove(&key);
                worker.handing.remove(&key);
            }
            self.lose_replica(worker, key);
        }
    }

    fn take_failure(&mut self, id: EntryId, segment: Segment, mut error: TaskError) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let item = segment.first;
        let retries = entry.spec().map_or(0, |spec| spec.options.retries);
        let attempts = entry.rare.oddities.get(&item).map_or(0, |oddity| oddity.attempts) + 1;
        if attempts <= retries {
            entry.rare.oddities.entry(item).or_default().attempts = if fault::is(Fault::TriesUncounted) { 0 } else { attempts };
            let base = entry.items.base();
            self.ledger.touch(id, base, &segment.range());
            self.requeue(id, segment.range());
            let pause = self.retry_pause(attempts);
            if !pause.is_zero() {
                self.rest(id.key(item), self.now.saturating_add(pause));
            }
            return;
        }
        error.key = id.key(item);
        entry.name().clone_into(&mut error.task);
        error.attempts = attempts;
        self.end_badly(id, segment, &Cause::Failed(error.into()), false);
    }

    /// The entry is gone: what a worker kept for it is to go too.
    fn forget_stored(&mut self, worker: WorkerId, id: EntryId, first: u64, outcome: &Outcome) {
        for stored in &outcome.stored {
            self.free_on(worker, id.key(first + u64::from(stored.item - outcome.first)));
        }
    }
}

/// A run, if it is not over, for the worker that has it.
pub(super) fn own_run(runs: &mut Ascending<RunId, Run>, worker: WorkerId, id: RunId) -> Result<Option<&mut Run>, Refusal> {
    match runs.get_mut(&id) {
        Some(run) if run.worker != worker => Err(Refusal::ForeignRun { run: id }),
        found => Ok(found),
    }
}

/// Whether an outcome is of the run's next items, and says one thing of each.
fn is_sound(run: &Run, outcome: &Outcome) -> bool {
    let count = outcome.values.count();
    let range = outcome.first..outcome.first.saturating_add(count);
    outcome.values.is_valid()
        && count > 0
        && outcome.first == run.done
        && range.end <= run.count
        && (are_all_values(outcome) || {
            let others = others_of(outcome);
            others.iter().all(|item| range.contains(item)) && others.windows(2).all(|pair| pair[0] != pair[1])
        })
}

/// Whether every item of an outcome has its value there.
fn are_all_values(outcome: &Outcome) -> bool {
    outcome.stored.is_empty() && outcome.errors.is_empty() && outcome.dropped.is_empty()
}

/// The items of an outcome that have no value there, in order.
fn others_of(outcome: &Outcome) -> Vec<u32> {
    let mut others: Vec<u32> = outcome.stored.iter().map(|stored| stored.item).collect();
    others.extend(outcome.errors.iter().map(|error| error.item));
    others.extend(&outcome.dropped);
    others.sort_unstable();
    others
}

/// The values of items `range`, of a run whose first item is `first`.
fn cut(values: &Values, first: u64, range: &Range<u64>) -> Values {
    if range.end - range.start == u64::from(values.count()) {
        return values.clone();
    }
    values.slice((range.start - first) as u32..(range.end - first) as u32)
}
