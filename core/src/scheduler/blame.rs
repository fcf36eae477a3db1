//! Whose fault a worker's death is. Owns: the count of deaths of an item, and what becomes of one that has too many. Must not know:
//! how a death is noticed.
//!
//! Only items that ran alone are blamed: those of a batch that ran are split, and run alone next. A process that is known to have
//! ended counts at once. One that fell silent counts for the time being: if it comes back, the count is taken back. So an item whose
//! limit is reached by silences is not failed before their workers had time to come back; until then it rests, and nobody else runs
//! it.

use std::{fmt, ops::Range};

use super::{Departure, Scheduler, absence::Process, entry::Cause, items::State};
use crate::{
    TaskError, TaskErrorKind,
    ids::{EntryId, Key},
};

/// A worker that died, or seems to have, while an item ran alone on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) worker: String,
    pub(super) process: Process,
    pub(super) departure: Departure,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.departure {
            Departure::Died => "its process died",
            Departure::CutOff => "it fell silent and did not come back",
            Departure::Lost | Departure::Left => "its connection broke and it did not come back",
        };
        write!(f, "{} ({how})", self.worker)
    }
}

impl Scheduler {
    /// Items were running when their worker went; one of them alone, if a death is given.
    pub(super) fn suspect(&mut self, id: EntryId, range: Range<u64>, death: Option<&Death>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let back: Vec<_> =
            entry.items.segments(range).filter(|segment| matches!(segment.state, State::Queued | State::Waiting)).collect();
        for segment in back {
            let Some(entry) = self.entries.get_mut(&id) else { return };
            entry.rare.suspects.insert(segment.range());
            let Some(death) = death else { continue };
            entry.rare.oddities.entry(segment.first).or_default().deaths.push(death.clone());
            self.ledger.touch(id, entry.items.base(), &segment.range());
            let key = id.key(segment.first);
            self.absences.accused.entry(death.process).or_default().push(key);
            self.judge(key);
        }
        self.forget_settled_accusations();
    }

    /// Fails an item that has too many deaths on it, or has it rest until it is known whether it has.
    fn judge(&mut self, key: Key) {
        let (limit, until) = (self.config.max_deaths as usize, self.now.saturating_add(self.config.grace));
        let Some(oddity) = self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.oddities.get_mut(&key.index)) else {
            return;
        };
        if oddity.deaths.len() < limit {
            return;
        }
        let known = oddity.deaths.iter().filter(|death| death.departure == Departure::Died).count();
        if known >= limit {
            return self.find_poisonous(key);
        }
        oddity.on_trial = true;
        self.rest(key, until);
    }

    /// Whether an item whose rest is over has too many deaths on it, in which case it fails.
    pub(super) fn is_guilty(&mut self, key: Key) -> bool {
        let limit = self.config.max_deaths as usize;
        let oddity = self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.oddities.get_mut(&key.index));
        let Some(oddity) = oddity else { return false };
        let guilty = std::mem::take(&mut oddity.on_trial) && oddity.deaths.len() >= limit;
        if guilty {
            self.find_poisonous(key);
        }
        guilty
    }

    fn find_poisonous(&mut self, key: Key) {
        let Some(entry) = self.entries.get(&key.entry) else { return };
        let Some(oddity) = entry.rare.oddities.get(&key.index) else { return };
        let deaths = oddity.deaths.len() as u32;
        let history: Vec<_> = oddity.deaths.iter().map(Death::to_string).collect();
        let message = format!("it ran alone on {}", history.join(", then on "));
        let mut error = TaskError::new(TaskErrorKind::Poisonous { deaths }, entry.name(), key, message);
        error.attempts = oddity.attempts + deaths;
        let segment = entry.items.segment(key.index, key.index + 1);
        self.end_badly(key.entry, segment, &Cause::Failed(error.into()), false);
    }

    /// A process that was thought to be gone is here: what was counted for it is taken back.
    pub(super) fn acquit(&mut self, process: Process) {
        for key in self.absences.accused.remove(&process).unwrap_or_default() {
            let Some(entry) = self.entries.get_mut(&key.entry) else { continue };
            let Some(oddity) = entry.rare.oddities.get_mut(&key.index) else { continue };
            self.ledger.touch(key.entry, entry.items.base(), &(key.index..key.index + 1));
            oddity.deaths.retain(|death| death.process != process);
            if oddity.on_trial && oddity.deaths.len() < self.config.max_deaths as usize {
                oddity.on_trial = false;
                self.end_rest(key);
            }
        }
    }

    /// A process that was thought to be gone is known to have ended.
    pub(super) fn condemn(&mut self, process: Process) {
        for key in self.absences.accused.get(&process).cloned().unwrap_or_default() {
            let Some(entry) = self.entries.get_mut(&key.entry) else { continue };
            let Some(oddity) = entry.rare.oddities.get_mut(&key.index) else { continue };
            self.ledger.touch(key.entry, entry.items.base(), &(key.index..key.index + 1));
            oddity.deaths.iter_mut().filter(|death| death.process == process).for_each(|death| death.departure = Departure::Died);
            let all_known = oddity.deaths.iter().all(|death| death.departure == Departure::Died);
            if oddity.on_trial && all_known {
                self.end_rest(key);
            }
        }
    }

    /// Forgets accusations of items that have ended since.
    fn forget_settled_accusations(&mut self) {
        let entries = &self.entries;
        self.absences.accused.retain(|process, keys| {
            keys.retain(|key| {
                let oddity = entries.get(&key.entry).and_then(|entry| entry.rare.oddities.get(&key.index));
                oddity.is_some_and(|oddity| oddity.deaths.iter().any(|death| death.process == *process))
            });
            !keys.is_empty()
        });
    }
}
