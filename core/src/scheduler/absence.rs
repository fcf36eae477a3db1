//! Workers that are away: cut off, or with a broken connection, and perhaps alive. What only they have is awaited for a while,
//! neither lost nor to be read. Must not know: what is computed again once it is lost.
//!
//! A worker's process is known by its certificate's identity and a number of its own. When it joins again it first names what it
//! has. Whatever of that is still expected, with the same length and hash, is taken; the rest it is told to forget.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Departure, Scheduler, items::State, machine::Todo};
use crate::{
    fault::{self, Fault},
    ids::{Identity, Key, WorkerId},
};

/// A worker's process.
pub(super) type Process = (Identity, u64);

/// Stands for whoever may have values that a journal knows of.
pub(super) const ANYONE: Process = (Identity([0; 16]), 0);

/// A process that is away.
#[derive(Debug)]
struct Absence {
    /// When what it has counts as lost.
    until: Duration,
    holds: BTreeSet<Key>,
}

/// All that are away.
#[derive(Debug, Default)]
pub(super) struct Absences {
    gone: BTreeMap<Process, Absence>,
    /// Items that are blamed for the silence, or the death, of these processes.
    pub(super) accused: BTreeMap<Process, Vec<Key>>,
}

impl Absences {
    /// When the first of them ends.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.gone.values().map(|absence| absence.until).min()
    }

    /// Gives everybody more time.
    pub(super) fn postpone(&mut self, time: Duration) {
        self.gone.values_mut().for_each(|absence| absence.until = absence.until.saturating_add(time));
    }

    /// A value is not awaited of a process any more.
    pub(super) fn forget(&mut self, process: Process, key: Key) {
        if let Some(absence) = self.gone.get_mut(&process) {
            absence.holds.remove(&key);
            if absence.holds.is_empty() {
                self.gone.remove(&process);
            }
        }
    }

    /// A value is awaited of whoever joins in time and has it, although no worker was ever seen with it: as a journal brings it back.
    pub(super) fn await_of_anyone(&mut self, key: Key, until: Duration) {
        self.gone.entry(ANYONE).or_insert(Absence { until, holds: BTreeSet::new() }).holds.insert(key);
    }

    /// Whether a value is awaited of a process.
    pub(super) fn is_awaited(&self, process: Process, key: Key) -> bool {
        self.gone.get(&process).is_some_and(|absence| absence.holds.contains(&key))
    }

    /// What is awaited, of whom.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Process, Key)> + '_ {
        self.gone.iter().flat_map(|(&process, absence)| absence.holds.iter().map(move |&key| (process, key)))
    }

    fn of_incarnation(&self, incarnation: u64) -> Vec<Process> {
        let all = self.gone.keys().chain(self.accused.keys());
        let found: BTreeSet<_> = all.filter(|process| process.1 == incarnation && **process != ANYONE).copied().collect();
        found.into_iter().collect()
    }
}

impl Scheduler {
    /// A worker is away with these values. It has been taken out of the fleet.
    pub(super) fn go_away(&mut self, id: WorkerId, process: Process, holds: BTreeSet<Key>) {
        let until = if fault::is(Fault::AbsenceEndless) { Duration::MAX } else { self.now.saturating_add(self.config.grace) };
        for key in holds {
            let replicas = self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.stored.get_mut(&key.index));
            let Some(replicas) = replicas else { continue };
            replicas.workers.retain(|&other| other != id);
            if !replicas.away.contains(&process) {
                replicas.away.push(process);
            }
            let is_nowhere = replicas.workers.is_empty() && !replicas.held;
            let absence = self.absences.gone.entry(process).or_insert(Absence { until, holds: BTreeSet::new() });
            absence.until = until;
            absence.holds.insert(key);
            match is_nowhere {
                true => self.put_away(key),
                false => self.review(key),
            }
        }
    }

    /// Nobody who is here has a stored value: who needs it waits.
    pub(super) fn put_away(&mut self, key: Key) {
        let range = key.index..key.index + 1;
        let to = match self.entries.get(&key.entry).and_then(|entry| entry.items.state(key.index)) {
            Some(State::Stored) => (State::Stored, State::Away),
            Some(State::Final) => (State::Final, State::FinalAway),
            _ => return,
        };
        self.unmake(key);
        self.shift(key.entry, range, to.0, to.1);
    }

    /// Somebody who has a value that was away is here.
    pub(super) fn come_back(&mut self, key: Key) {
        let range = key.index..key.index + 1;
        let Some(entry) = self.entries.get(&key.entry) else { return };
        let (wanted, is_result) = (entry.items.is_wanted(key.index), entry.spec().is_some());
        match entry.items.state(key.index) {
            Some(State::Away) => self.shift(key.entry, range.clone(), State::Away, State::Stored),
            Some(State::FinalAway) => self.shift(key.entry, range.clone(), State::FinalAway, State::Final),
            _ => return,
        }
        if is_result {
            self.note_lineage(key.entry);
        }
        self.todo.push_back(Todo::Made(key.entry, range.clone()));
        if wanted {
            // The places may be new, and whoever tried the old ones waits to hear of them.
            self.tell_stored(key);
        } else {
            self.todo.push_back(Todo::Free(key.entry, range));
        }
    }

    /// A process is not away any more, or not awaited: what it did not bring back is lost, unless others have it.
    pub(super) fn end_absence(&mut self, process: Process) {
        let Some(absence) = self.absences.gone.remove(&process) else { return };
        for key in absence.holds {
            let Some(entry) = self.entries.get_mut(&key.entry) else { continue };
            let Some(replicas) = entry.rare.stored.get_mut(&key.index) else { continue };
            replicas.away.retain(|other| *other != process);
            let is_nowhere = replicas.away.is_empty() && replicas.workers.is_empty() && !replicas.held;
            match is_nowhere {
                true => self.lose(key),
                false => self.review(key),
            }
        }
    }

    /// Ends the absences that lasted too long.
    pub(super) fn end_absences(&mut self) {
        let now = self.now;
        let over: Vec<_> = self.absences.gone.iter().filter(|(_, absence)| absence.until <= now).map(|(&who, _)| who).collect();
        over.into_iter().for_each(|process| self.end_absence(process));
    }

    /// A worker's process is known to have ended, whether its connection is still there or not.
    pub(super) fn worker_died(&mut self, incarnation: u64) {
        if incarnation == 0 {
            return;
        }
        let here = self.fleet.workers.iter().find(|(_, worker)| worker.hello.incarnation == incarnation).map(|(&id, _)| id);
        if let Some(id) = here {
            self.out.push(super::Action::DisconnectWorker(id));
            self.worker_left(id, Departure::Died);
        }
        for process in self.absences.of_incarnation(incarnation) {
            self.condemn(process);
            self.end_absence(process);
        }
    }

    /// A process joined. If it was thought to be gone, what is awaited of it is about to be named; if it has nothing, it is lost.
    pub(super) fn welcome_back(&mut self, process: Process, keeps: u64) {
        self.acquit(process);
        if keeps == 0 {
            self.end_absence(process);
        }
    }
}
