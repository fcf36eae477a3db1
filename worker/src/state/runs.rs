//! The runs' ways through the worker: arrival, inputs, slots, ends. The second half of [`Worker`]'s methods.

use std::ops::Range;

use bytes::Bytes;
use quicsand::{
    Size, TaskError, TaskErrorKind,
    fault::{self, Fault},
    ids::{EntryId, Hash, Key, RunId},
    wire::{Assignment, FromWorker, Inputs, Wanted},
};

use super::{Action, Budget, Ended, Held, Source, Stage, Work, Worker, modules::Found};

/// A run that is not over.
#[derive(Debug)]
pub(super) struct RunEntry {
    pub(super) arrival: u64,
    pub(super) entry: EntryId,
    pub(super) first: u64,
    pub(super) count: u32,
    /// Items whose end was told.
    told: u32,
    pub(super) module: Hash,
    /// Held values that are its inputs.
    uses: Vec<(Key, Hash)>,
    pub(super) phase: Phase,
}

/// How far a run is.
#[derive(Debug)]
pub(super) enum Phase {
    /// So many of its module and inputs are still to come; ready at 0.
    Unstarted { missing: u32, work: Box<Work> },
    /// On this slot.
    Running { slot: u32 },
}

impl RunEntry {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Of the items whose end was not told.
    fn keys(&self) -> Range<Key> {
        self.entry.key(self.first + u64::from(self.told))..self.entry.key(self.first + u64::from(self.count))
    }
}

impl Worker {
    pub(super) fn assign(&mut self, assignment: Assignment, actions: &mut Vec<Action>) {
        let Assignment { run, spec, module, entry, first, args, inputs } = assignment;
        if self.stage != Stage::Serving {
            actions.push(returned(run, Vec::new()));
            return;
        }
        let count = args.count();
        let sound = count > 0 && first.checked_add(u64::from(count)).is_some() && !self.runs.contains_key(&run);
        let Some((mut inputs, wanted)) = Inputs::new(&args, inputs).filter(|_| sound) else {
            return self.abandon(format!("the scheduler sent an assignment that contradicts itself, run {run}"), actions);
        };
        let lost: Vec<Key> = wanted.iter().filter_map(|wanted| self.lost(wanted)).collect();
        if !lost.is_empty() {
            actions.push(returned(run, lost));
            return;
        }
        if let Some(key) = wanted.iter().find_map(too_large) {
            let reason = format!("the value of {key} has 4 GiB or more, which no task can take");
            finish(run, Ended::failed(&spec.name, entry, first, 0..count, &self.name, &TaskErrorKind::Worker, &reason), actions);
            return;
        }
        let mut missing = match self.modules.want(module, run) {
            Found::Ready => 0,
            Found::Coming => 1,
            Found::Unknown => {
                actions.push(Action::FetchModule(module));
                1
            }
            Found::Refused(reason) => {
                let ended = Ended::failed(&spec.name, entry, first, 0..count, &self.name, &TaskErrorKind::Module, &reason);
                finish(run, ended, actions);
                return;
            }
        };
        let arrival = self.arrivals;
        self.arrivals += 1;
        let mut uses = Vec::new();
        for wanted in wanted {
            missing += u32::from(!self.have(wanted, (run, arrival), &mut inputs, &mut uses));
        }
        let work = Box::new(Work { run, spec, module, entry, first, args, inputs, cancelled: Vec::new() });
        let phase = Phase::Unstarted { missing, work };
        self.runs.insert(run, Box::new(RunEntry { arrival, entry, first, count, told: 0, module, uses, phase }));
        self.producers.insert((entry.key(first), run));
        if missing == 0 {
            self.ready.insert((arrival, run));
        }
    }

    /// The key, if it was to be computed here before and neither is here nor will be.
    fn lost(&self, wanted: &Wanted) -> Option<Key> {
        match *wanted {
            Wanted::Ahead(key) => (!self.store.has(key) && !self.is_coming(key)).then_some(key),
            Wanted::Blob { .. } => None,
        }
    }

    /// Whether a run here computes `key`.
    pub(super) fn is_coming(&self, key: Key) -> bool {
        let starts = self.producers.range((key.entry.key(0), RunId(0))..=(key, RunId(u64::MAX))).rev();
        let mut runs = starts.filter_map(|(_, run)| self.runs.get(run));
        runs.any(|entry| entry.keys().contains(&key))
    }

    /// Fills an input in if its value is here, else sees to it that it comes.
    fn have(&mut self, wanted: Wanted, (run, arrival): (RunId, u64), inputs: &mut Inputs, uses: &mut Vec<(Key, Hash)>) -> bool {
        let (Wanted::Ahead(key) | Wanted::Blob { key, .. }) = wanted;
        let is_it = |held: Hash| !matches!(&wanted, Wanted::Blob { hash, .. } if *hash != held);
        match self.store.shelf.find(key) {
            Some(Held::Here { bytes, hash }) if is_it(hash) => {
                inputs.fill(key, bytes);
                self.store.shelf.pin(key, hash);
                uses.push((key, hash));
                return true;
            }
            Some(Held::OnDisk { file, len, hash }) if is_it(hash) => {
                self.fetches.want((key, hash), len, Source::File(file), run, arrival);
                return false;
            }
            _ => {}
        }
        match wanted {
            Wanted::Ahead(key) => match self.store.recent(key) {
                Some(value) => {
                    inputs.fill(key, value);
                    true
                }
                None => {
                    self.awaited.entry(key).or_default().push(run);
                    false
                }
            },
            Wanted::Blob { key, len, hash, places } => {
                self.fetches.want((key, hash), len, Source::Network(places), run, arrival);
                false
            }
        }
    }

    /// An input of a waiting run is here.
    pub(super) fn fill(&mut self, run: RunId, key: Key, value: &Bytes) {
        if let Some(RunEntry { uses, phase: Phase::Unstarted { work, .. }, .. }) = self.runs.get_mut(&run).map(Box::as_mut) {
            work.inputs.fill(key, value.clone());
            if let Some(Held::Here { hash, .. }) = self.store.shelf.look(key) {
                self.store.shelf.pin(key, hash);
                uses.push((key, hash));
            }
            self.one_less(run);
        }
    }

    /// Something that a run waited for is here.
    pub(super) fn one_less(&mut self, run: RunId) {
        let entry = self.runs.get_mut(&run).map(Box::as_mut);
        if let Some(RunEntry { arrival, phase: Phase::Unstarted { missing, .. }, .. }) = entry {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.ready.insert((*arrival, run));
            }
        }
    }

    /// Starts ready runs while there are free slots.
    pub(super) fn dispatch(&mut self, actions: &mut Vec<Action>) {
        while !self.free_slots.is_empty() {
            let Some((_, run)) = self.ready.pop_first() else { return };
            let Some(entry) = self.runs.get_mut(&run) else { continue };
            let Some(slot) = self.free_slots.pop() else { return };
            if let Phase::Unstarted { work, .. } = std::mem::replace(&mut entry.phase, Phase::Running { slot }) {
                actions.push(Action::Send(FromWorker::Started { run }));
                actions.push(Action::Execute { slot, work });
            }
        }
    }

    pub(super) fn run_ended(&mut self, run: RunId, ended: Ended, actions: &mut Vec<Action>) {
        let Some(Phase::Running { slot }) = self.runs.get(&run).map(|entry| &entry.phase) else { return };
        if ended.finished() > 0 || !fault::is(Fault::SlotKept) {
            self.free_slots.push(*slot);
        }
        self.end(run, ended, actions);
    }

    pub(super) fn cancel(&mut self, run: RunId, first: u32, count: u32, actions: &mut Vec<Action>) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let items = first.min(entry.count)..first.saturating_add(count).min(entry.count);
        let all = entry.count;
        match &mut entry.phase {
            Phase::Running { slot } => actions.push(Action::Stop { slot: *slot, first: items.start, count: items.len() as u32 }),
            Phase::Unstarted { work, .. } => {
                merge(&mut work.cancelled, items);
                if work.is_unwanted() {
                    self.end(run, Ended::dropped(all), actions);
                }
            }
        }
    }

    /// Others should have it: gives a run back that has not started, and half of what is left of one that has.
    pub(super) fn recall(&mut self, run: RunId, actions: &mut Vec<Action>) {
        match self.runs.get(&run).map(|entry| &entry.phase) {
            Some(Phase::Running { slot }) => actions.push(Action::Divide { slot: *slot }),
            _ if fault::is(Fault::RecallUnanswered) => self.give_back(run, Vec::new(), &mut Vec::new()),
            _ => self.give_back(run, Vec::new(), actions),
        }
    }

    /// Some items of a run have ended, and others have not.
    pub(super) fn part(&mut self, run: RunId, ended: Ended, actions: &mut Vec<Action>) {
        let Some(entry) = self.runs.get_mut(&run).filter(|entry| entry.is_running()) else { return };
        let items = ended.items();
        if items.start != entry.told || items.is_empty() || items.end >= entry.count {
            return;
        }
        entry.told = items.end;
        let (entry, first) = (entry.entry, entry.first);
        let awaited = self.waiters(entry.key(first + u64::from(items.start))..entry.key(first + u64::from(items.end)));
        self.tell(run, (entry, first), ended, awaited, actions);
    }

    /// Only the first `count` items of a run are run here.
    pub(super) fn divided(&mut self, run: RunId, count: u32, actions: &mut Vec<Action>) {
        let Some(entry) =
            self.runs.get_mut(&run).filter(|entry| entry.is_running() && (entry.told + 1..entry.count).contains(&count))
        else {
            return;
        };
        let (end, gone) = (entry.entry.key(entry.first + u64::from(count)), entry.keys().end);
        entry.count = count;
        actions.push(Action::Send(FromWorker::Divided { run, count }));
        for (key, waiters) in self.waiters(end..gone) {
            waiters.into_iter().for_each(|waiter| self.give_back(waiter, vec![key], actions));
        }
    }

    /// Gives a run back if it has not started, and with it those that wait for its results.
    pub(super) fn give_back(&mut self, run: RunId, missing: Vec<Key>, actions: &mut Vec<Action>) {
        if self.runs.get(&run).is_none_or(|entry| entry.is_running()) {
            return;
        }
        if let Some(entry) = self.remove(run) {
            actions.push(returned(run, missing));
            for (key, waiters) in self.waiters(entry.keys()) {
                waiters.into_iter().for_each(|waiter| self.give_back(waiter, vec![key], actions));
            }
        }
    }

    /// Runs that have not started fail, all items alike.
    pub(super) fn fail(&mut self, runs: Vec<RunId>, kind: &TaskErrorKind, reason: &str, actions: &mut Vec<Action>) {
        for run in runs {
            let Some(entry) = self.runs.get(&run) else { continue };
            let RunEntry { entry, first, count, phase: Phase::Unstarted { work, .. }, .. } = &**entry else { continue };
            let ended = Ended::failed(&work.spec.name, *entry, *first, 0..*count, &self.name, kind, reason);
            self.end(run, ended, actions);
        }
    }

    /// A run is over.
    fn end(&mut self, run: RunId, ended: Ended, actions: &mut Vec<Action>) {
        let Some(entry) = self.remove(run) else { return };
        let awaited = self.waiters(entry.keys());
        if let (1, Some(value)) = (entry.count, ended.value(0))
            && ended.kept.is_empty()
        {
            self.store.remember(entry.entry.key(entry.first), value);
        }
        self.tell(run, (entry.entry, entry.first), ended, awaited, actions);
    }

    /// Tells how items of a run ended, which has this entry and first item; keeps what is to be kept, and hands results to those that wait
    /// for them.
    fn tell(
        &mut self,
        run: RunId,
        (entry, first): (EntryId, u64),
        mut ended: Ended,
        awaited: Vec<(Key, Vec<RunId>)>,
        actions: &mut Vec<Action>,
    ) {
        for (stored, bytes) in std::mem::take(&mut ended.kept) {
            let key = entry.key(first + u64::from(stored.item));
            if self.store.shelf.has_room(stored.len) {
                self.store.shelf.hold(key, stored.hash, bytes.clone(), actions);
                ended.kept.push((stored, bytes));
            } else {
                let mut error = TaskError::new(TaskErrorKind::Worker, "", key, self.no_room(stored.len));
                error.worker.clone_from(&self.name);
                ended.refuse(stored.item, error);
            }
        }
        let values: Vec<_> = awaited.iter().map(|(key, _)| ended.value((key.index - first) as u32)).collect();
        finish(run, ended, actions);
        for ((key, waiters), value) in awaited.into_iter().zip(values) {
            for waiter in waiters {
                match &value {
                    Some(value) => self.fill(waiter, key, value),
                    None => self.give_back(waiter, vec![key], actions),
                }
            }
        }
    }

    /// Why a value of so many bytes is not held, and what its owner can do.
    pub(crate) fn no_room(&self, len: u64) -> String {
        let Budget { memory, disk, .. } = self.budget;
        let held = Size(self.held_bytes());
        let disk = match self.capacity() > memory {
            true => format!("and {} on disk (--spill-limit)", Size(disk)),
            false => "and cannot use its disk (--spill-dir)".to_owned(),
        };
        let limits = format!("its owner allows {} in memory (--hold-limit) {disk}", Size(memory));
        format!("the worker has no room for a value of {}: it holds {held}, {limits}", Size(len))
    }

    /// Takes a run off every list but those of what it waits for.
    fn remove(&mut self, run: RunId) -> Option<Box<RunEntry>> {
        let entry = self.runs.remove(&run)?;
        entry.uses.iter().for_each(|&(key, hash)| self.store.shelf.unpin(key, hash));
        self.ready.remove(&(entry.arrival, run));
        self.modules.release(entry.module, run);
        self.producers.remove(&(entry.entry.key(entry.first), run));
        Some(entry)
    }

    /// Takes the runs out that wait for one of these keys.
    fn waiters(&mut self, keys: Range<Key>) -> Vec<(Key, Vec<RunId>)> {
        let keys: Vec<Key> = self.awaited.range(keys).map(|(&key, _)| key).collect();
        keys.into_iter().filter_map(|key| self.awaited.remove_entry(&key)).collect()
    }
}

/// The key, if its value cannot be an argument.
fn too_large(wanted: &Wanted) -> Option<Key> {
    match *wanted {
        Wanted::Blob { key, len, .. } => (len > u64::from(u32::MAX)).then_some(key),
        Wanted::Ahead(_) => None,
    }
}

fn returned(run: RunId, missing: Vec<Key>) -> Action {
    Action::Send(FromWorker::Returned { run, missing })
}

fn finish(run: RunId, ended: Ended, actions: &mut Vec<Action>) {
    let messages = ended.outcomes.into_iter();
    actions.extend(messages.map(|(outcome, elapsed)| Action::Send(FromWorker::Finished { run, outcome, elapsed })));
}

/// Adds a range to ascending ranges that do not touch.
fn merge(ranges: &mut Vec<Range<u32>>, mut range: Range<u32>) {
    if range.is_empty() {
        return;
    }
    ranges.retain(|other| {
        let apart = other.end < range.start || range.end < other.start;
        if !apart {
            range = range.start.min(other.start)..range.end.max(other.end);
        }
        apart
    });
    let at = ranges.partition_point(|other| other.start < range.start);
    ranges.insert(at, range);
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn ranges_merge() {
        let check = |add: &[(u32, u32)], expected: &[(u32, u32)]| {
            let mut ranges = Vec::new();
            add.iter().for_each(|&(start, end)| merge(&mut ranges, start..end));
            assert_eq!(ranges.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>(), expected, "{add:?}");
        };
        check(&[(3, 5), (0, 1)], &[(0, 1), (3, 5)]);
        check(&[(3, 5), (0, 1), (1, 3)], &[(0, 5)]);
        check(&[(0, 10), (2, 3)], &[(0, 10)]);
        check(&[(2, 3), (7, 9), (5, 6), (3, 5)], &[(2, 6), (7, 9)]);
        check(&[(4, 4)], &[]);
    }
}
