//! Calls sent ahead: to the worker that computes all their missing inputs, before those are there. Must not know: maps.
//!
//! A chain of calls then costs no round trip a link. A call that is sent ahead is processing, but is not running: it is no load
//! and is never blamed. It comes back when an input does not appear, and is not sent ahead again then. What takes resources is not
//! sent ahead: it would keep them from others while it waits.

use std::ops::Range;

use super::{Scheduler, items::State, shapes::PLAIN};
use crate::{
    ids::{EntryId, RunId, WorkerId},
    wire::ToWorker,
};

/// Values that a call sent ahead may read.
const MAX_INPUTS: u64 = 64;
/// Dependents of newly assigned items that are looked at.
const LOOKED_AT: usize = 256;

impl Scheduler {
    /// Sends calls ahead that follow what was just assigned, and what could not follow earlier for lack of room.
    pub(super) fn send_ahead(&mut self) {
        if self.config.ahead == 0 {
            self.assigned.clear();
            self.waiting.clear();
            return;
        }
        while let Some(id) = self.waiting.pop_front() {
            self.try_ahead(id);
        }
        loop {
            while let Some((id, range)) = self.assigned.pop_front() {
                for (follower, ..) in self.hits(id, &range).into_iter().take(LOOKED_AT) {
                    self.try_ahead(follower);
                }
            }
            let Some(&worker_id) = self.hungry.first() else { return };
            let Some(worker) = self.fleet.workers.get_mut(&worker_id) else {
                self.hungry.remove(&worker_id);
                continue;
            };
            match worker.candidates.pop_first() {
                Some(id) if worker.ahead < self.config.ahead => self.try_ahead(id),
                Some(id) => {
                    worker.candidates.insert(id);
                    self.hungry.remove(&worker_id);
                }
                None => {
                    self.hungry.remove(&worker_id);
                }
            }
        }
    }

    /// Sends a call ahead if it can be.
    pub(super) fn try_ahead(&mut self, id: EntryId) {
        let Some(worker_id) = self.worker_ahead(id) else { return };
        let Some(worker) = self.fleet.workers.get_mut(&worker_id) else { return };
        if worker.ahead >= self.config.ahead {
            worker.candidates.insert(id);
        } else {
            self.assign(id, 0..1, worker_id, false, true);
        }
    }

    /// The worker that computes everything that a waiting call misses.
    fn worker_ahead(&self, id: EntryId) -> Option<WorkerId> {
        let entry = self.entries.get(&id).filter(|entry| entry.is_call())?;
        let held_back = entry.rare.suspects.contains(0) || entry.rare.oddities.get(&0).is_some_and(|oddity| oddity.not_ahead);
        if held_back || entry.items.state(0) != Some(State::Waiting) {
            return None;
        }
        let spans = entry.chunk_of(0)?.inputs_of(0..1);
        if spans.iter().map(|span| span.count).sum::<u64>() > MAX_INPUTS {
            return None;
        }
        let shape = self.shapes.get(entry.shape).filter(|shape| !shape.takes_resources())?;
        let mut found = None;
        for span in spans {
            let producer = self.entries.get(&span.entry)?;
            for item in span.first..span.first + span.count {
                if producer.items.state(item).is_some_and(State::is_made) {
                    continue;
                }
                let run = self
                    .runs
                    .get(&producer.run_of(item)?)
                    .filter(|run| !self.recalled_or_suspect(run.suspect, producer.run_of(item)))?;
                if found.is_some_and(|worker| worker != run.worker) {
                    return None;
                }
                found = Some(run.worker);
                // A value that many wait for would bring all of them to one worker.
                let worker = self.fleet.workers.get(&run.worker).filter(|worker| worker.takes_work() && !worker.load.pressed)?;
                let followers = producer.edges.of(item..item + 1, &self.edges).take(worker.slots() as usize + 1).count();
                if followers as u64 > worker.slots() && self.fleet.workers.len() > 1 {
                    return None;
                }
            }
        }
        found.filter(|worker| entry.shape == PLAIN || shape.workers().contains(worker))
    }

    fn recalled_or_suspect(&self, suspect: bool, run: Option<RunId>) -> bool {
        suspect || run.is_some_and(|run| self.recalled.contains(&run))
    }

    /// A call that was sent ahead has all its inputs now: from here on it is a run like any other.
    pub(super) fn ahead_caught_up(&mut self, id: EntryId, item: u64) {
        let Some(run) = self.entries.get(&id).and_then(|entry| entry.run_of(item)).and_then(|run| self.runs.get_mut(&run)) else {
            return;
        };
        if !std::mem::take(&mut run.ahead) {
            return;
        }
        let (worker_id, nanos) = (run.worker, run.nanos());
        if let Some(worker) = self.fleet.workers.get_mut(&worker_id) {
            worker.ahead -= 1;
            worker.load_nanos = worker.load_nanos.saturating_add(nanos);
            if !worker.candidates.is_empty() {
                self.hungry.insert(worker_id);
            }
        }
        self.rank_later(worker_id);
    }

    /// Items went back to the queue: what was sent ahead to follow them is asked back.
    pub(super) fn recall_dependents(&mut self, id: EntryId, range: Range<u64>) {
        for (consumer, consumers, _) in self.hits(id, &range) {
            let Some(entry) = self.entries.get(&consumer).filter(|entry| entry.is_call()) else { continue };
            let Some(run_id) = entry.run_of(consumers.start) else { continue };
            let Some(run) = self.runs.get(&run_id).filter(|run| run.ahead) else { continue };
            let worker = run.worker;
            if self.recalled.insert(run_id) {
                self.tell_worker(worker, ToWorker::Recall { run: run_id });
            }
        }
    }
}
