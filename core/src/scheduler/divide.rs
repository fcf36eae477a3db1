//! Dividing runs that are under way when others have nothing to do. Must not know: what is placed where afterwards.
//!
//! A batch has as many items as should take a batch's time. Where some take a thousand times as long as the others, several of them can
//! be in one batch, and would wait for each other while slots are idle.

use std::time::Duration;

use super::{Scheduler, refusal::Refusal, results::own_run};
use crate::{
    fault::{self, Fault},
    ids::{RunId, WorkerId},
    wire::ToWorker,
};

impl Scheduler {
    /// Asks runs that are late for a part of them, as many as there are spare slots, those first that have been under way for longest.
    ///
    /// Whoever is not late should be through within a batch's time, and what would be gained of that costs as much.
    pub(super) fn divide(&mut self, spare: &mut [(WorkerId, u64)]) {
        if self.fleet.divisible == 0 || spare.iter().all(|(_, slots)| *slots == 0) {
            return;
        }
        let (mut late, mut early) = (Vec::new(), Vec::new());
        for (&id, run) in self.runs.iter().filter(|(_, run)| run.is_divisible()) {
            let Some(started) = run.started else { continue };
            let due = started.saturating_add(Duration::from_nanos(run.nanos())).saturating_add(self.config.batch_time);
            if due <= self.now {
                late.push((started, id));
            } else {
                early.push(due);
            }
        }
        early.into_iter().min().into_iter().for_each(|due| self.recall_again(due));
        late.sort_unstable();
        let (mut asked, all) = (0, late.len());
        for (_, id) in late {
            let Some(taker) = self.taker(id, spare) else { continue };
            *taker -= 1;
            asked += 1;
            let Some(run) = self.runs.get_mut(&id) else { continue };
            run.asked = true;
            self.fleet.divisible -= 1;
            let worker = run.worker;
            self.tell_worker(worker, ToWorker::Recall { run: id });
        }
        if (1..all).contains(&asked) {
            // Whoever was asked may have nothing to give.
            self.recall_again(self.next_recall);
        }
    }

    /// A worker has only the first `count` items of a run left, and begins none of the others.
    pub(super) fn divided(&mut self, worker: WorkerId, id: RunId, count: u32) -> Result<(), Refusal> {
        let Some(run) = own_run(&mut self.runs, worker, id)? else { return Ok(()) };
        if !run.asked || !(run.done + 1..run.count).contains(&count) {
            return Err(Refusal::Division { run: id });
        }
        let (entry, before) = (run.entry, run.nanos());
        let rest = run.first + u64::from(count)..run.first + u64::from(run.count);
        (run.count, run.asked) = (count, false);
        self.fleet.divisible += u64::from(run.is_divisible());
        self.fleet.reload(worker, before, run.nanos());
        self.rank_later(worker);
        if !fault::is(Fault::RestForgotten) {
            self.requeue(entry, rest.clone());
        }
        self.keep_off(entry.key(rest.start));
        Ok(())
    }
}
