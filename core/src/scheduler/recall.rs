//! Taking unstarted runs back from crowded workers when others have nothing to do. Must not know: what is placed where afterwards.

use super::{Scheduler, fleet::nanos};
use crate::{
    ids::{RunId, WorkerId},
    wire::ToWorker,
};

/// Crowded workers that are looked at.
const LOOKED_AT: usize = 16;

impl Scheduler {
    /// If nothing is ready and slots are idle, asks for the youngest runs of crowded workers, as many as slots are idle. Queues that
    /// will be through in about a batch's time anyway are left alone, until that time has passed.
    pub(super) fn recall(&mut self) {
        self.recall_check = None;
        if !self.ready.is_empty() || self.fleet.spare.is_empty() || self.fleet.crowded.is_empty() {
            return;
        }
        let idle = self.fleet.spare.iter().filter_map(|id| self.fleet.workers.get(id)).take(LOOKED_AT);
        let spare: u64 = idle.map(|worker| worker.slots() - worker.active()).sum();
        let mut wanted = spare.saturating_sub(self.recalled.len() as u64);
        let batch_nanos = nanos(self.config.batch_time);
        let crowded: Vec<_> = self.fleet.crowded.iter().rev().take(LOOKED_AT).copied().collect();
        for (surplus, id) in crowded {
            let Some(worker) = self.fleet.workers.get(&id) else { continue };
            let due = worker.progress.saturating_add(self.config.batch_time);
            let candidates = self.unstarted(id);
            if candidates.is_empty() {
                continue;
            }
            if worker.load_nanos / worker.slots() < 2 * batch_nanos && self.now < due {
                self.recall_check = Some(self.recall_check.map_or(due, |check| check.min(due)));
                continue;
            }
            for run in candidates.into_iter().take(surplus.min(wanted) as usize) {
                self.recalled.insert(run);
                self.tell_worker(id, ToWorker::Recall { run });
                wanted -= 1;
            }
            if wanted == 0 {
                return;
            }
        }
    }

    /// Runs of a worker that can be taken back, youngest first.
    fn unstarted(&self, id: WorkerId) -> Vec<RunId> {
        let Some(worker) = self.fleet.workers.get(&id) else { return Vec::new() };
        let can_go = |id: &&RunId| {
            !self.recalled.contains(id) && self.runs.get(id).is_some_and(|run| !run.started && !run.ahead && !run.suspect)
        };
        worker.runs.iter().rev().filter(can_go).take(LOOKED_AT * 4).copied().collect()
    }
}
