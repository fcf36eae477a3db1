//! Taking unstarted runs back from crowded workers when others have nothing to do, and asking `divide` for what is still lacking. Must
//! not know: what is placed where afterwards.

use std::time::Duration;

use super::{Scheduler, fleet::nanos, shapes::PLAIN};
use crate::{
    ids::{RunId, WorkerId},
    wire::ToWorker,
};

/// Crowded workers that are looked at.
const LOOKED_AT: usize = 16;
/// Time between two looks: this part of a batch's. While many short runs come and go, somebody is always idle for a moment and somebody
/// crowded, and a look at every event would cost more than the event.
const PAUSE_PART: u32 = 4;
/// A queue that is through in this part of a batch's time is left alone: asking for some of it would take about as long.
const SOON_PART: u64 = 8;

impl Scheduler {
    /// If nothing is ready that could run and slots are idle, asks for what those slots could run.
    pub(super) fn recall(&mut self) {
        self.recall_check = None;
        let nothing_to_get = self.fleet.crowded == 0 && self.fleet.divisible == 0;
        if nothing_to_get || !self.shapes.is_idle() || self.fleet.spare == 0 {
            return;
        }
        if self.now < self.next_recall {
            self.recall_check = Some(self.next_recall);
            return;
        }
        self.next_recall = self.now.saturating_add(self.config.batch_time / PAUSE_PART);
        let mut spare = self.spare_slots();
        self.recall_queued(&mut spare);
        self.divide(&mut spare);
    }

    /// Asks for the youngest runs of crowded workers. Queues that should be through soon anyway are left alone, until a batch's time has
    /// passed without anything coming of them.
    fn recall_queued(&mut self, spare: &mut [(WorkerId, u64)]) {
        if self.fleet.crowded == 0 {
            return;
        }
        for (surplus, id) in self.most_crowded() {
            let Some(worker) = self.fleet.workers.get(&id) else { continue };
            let due = worker.progress.saturating_add(self.config.batch_time);
            // What a slot is at counts as a whole until it ends.
            let left_nanos = (worker.load_nanos / worker.slots()).saturating_sub(nanos(self.now.saturating_sub(worker.progress)));
            let is_soon_through = left_nanos < self.batch_nanos / SOON_PART && self.now < due;
            let mut left = surplus;
            for run in self.unstarted(id) {
                let Some(taker) = self.taker(run, spare).filter(|_| left > 0) else { continue };
                if is_soon_through {
                    self.recall_again(due);
                    break;
                }
                *taker -= 1;
                left -= 1;
                self.recalled.insert(run);
                self.tell_worker(id, ToWorker::Recall { run });
            }
            if spare.iter().all(|(_, slots)| *slots == 0) {
                return;
            }
        }
    }

    /// There will be a look at this time, if not before.
    pub(super) fn recall_again(&mut self, at: Duration) {
        self.recall_check = Some(self.recall_check.map_or(at, |check| check.min(at)));
    }

    /// The workers that have most runs beside what is in their slots, and how many. A walk over all workers, which is cheaper, as seldom
    /// as it happens, than having them in order.
    fn most_crowded(&self) -> Vec<(u64, WorkerId)> {
        let workers = self.fleet.workers.iter();
        let mut crowded: Vec<_> = workers.filter_map(|(&id, worker)| Some((worker.surplus()?, id))).collect();
        crowded.sort_unstable_by(|one, other| other.cmp(one));
        crowded.truncate(LOOKED_AT);
        crowded
    }

    /// Asks for all that a worker has not begun and that others could run, since its memory is short.
    pub(super) fn relieve(&mut self, id: WorkerId) {
        for run in self.unstarted(id) {
            let shape = self.runs.get(&run).and_then(|run| self.entries.get(&run.entry)).map_or(PLAIN, |entry| entry.shape);
            let others =
                self.fleet.workers.iter().filter(|(other, worker)| **other != id && worker.takes_work() && !worker.load.pressed);
            if others.map(|(other, _)| *other).any(|other| self.can_run(other, shape, false)) {
                self.recalled.insert(run);
                self.tell_worker(id, ToWorker::Recall { run });
            }
        }
    }

    /// Workers with idle slots, and how many; slots for what is being recalled already are left out. A walk, as that over the crowded ones.
    fn spare_slots(&self) -> Vec<(WorkerId, u64)> {
        let mut spoken_for = self.recalled.len() as u64;
        let workers = self.fleet.workers.iter();
        let spare = workers.filter_map(|(&id, worker)| Some((id, worker.spare_slots()?))).take(LOOKED_AT);
        let idle = spare.map(|(id, slots)| {
            let taken = spoken_for.min(slots);
            spoken_for -= taken;
            (id, slots - taken)
        });
        idle.collect()
    }

    /// The idle slots of a worker that can run what a run holds.
    pub(super) fn taker<'a>(&self, run: RunId, spare: &'a mut [(WorkerId, u64)]) -> Option<&'a mut u64> {
        let shape = self.entries.get(&self.runs.get(&run)?.entry).map_or(PLAIN, |entry| entry.shape);
        let taker = spare.iter_mut().find(|(id, slots)| *slots > 0 && self.can_run(*id, shape, false));
        taker.map(|(_, slots)| slots)
    }

    /// Runs of a worker that can be taken back, youngest first.
    fn unstarted(&self, id: WorkerId) -> Vec<RunId> {
        let Some(worker) = self.fleet.workers.get(&id) else { return Vec::new() };
        let can_go = |id: &&RunId| {
            !self.recalled.contains(id)
                && self.runs.get(id).is_some_and(|run| run.started.is_none() && !run.ahead && !run.suspect)
        };
        worker.runs.iter().rev().filter(can_go).take(LOOKED_AT * 4).copied().collect()
    }
}
