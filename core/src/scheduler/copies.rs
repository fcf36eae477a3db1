//! Copies of stored values: as many as there should be, and somebody else's of what a draining worker would take with it. Must not
//! know: how they are fetched.

use std::time::Duration;

use super::{Scheduler, entry::Kind, items::State};
use crate::{
    fault::{self, Fault},
    ids::{Key, WorkerId},
    wire::ToWorker,
};

/// Data that is longer has one copy: time and memory for more would cost others.
const COPIED_BYTES: u64 = 128 << 20;

impl Scheduler {
    /// Something about who has a value has changed: asks further workers to get it where there should be more copies, and notes for
    /// draining workers whether it is worth staying for.
    pub(super) fn review(&mut self, key: Key) {
        self.thin.remove(&key);
        while let Some((taker, message)) = self.next_copy(key) {
            let ToWorker::Replicate { len, .. } = message else { return };
            if let Some(replicas) = self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.stored.get_mut(&key.index)) {
                replicas.coming.push(taker);
            }
            if let Some(worker) = self.fleet.workers.get_mut(&taker) {
                worker.copies.insert(key);
                worker.held_bytes = worker.held_bytes.saturating_add(len);
            }
            self.tell_worker(taker, message);
        }
        if self.fleet.draining.is_empty() {
            return;
        }
        let Some(replicas) = self.entries.get(&key.entry).and_then(|entry| entry.rare.stored.get(&key.index)) else { return };
        let stays = |id: &WorkerId| self.fleet.workers.get(id).is_some_and(|worker| !worker.draining);
        let is_handed_over = replicas.held || replicas.workers.iter().any(stays) || replicas.coming.is_empty();
        for id in replicas.workers.clone() {
            let Some(worker) = self.fleet.workers.get_mut(&id).filter(|worker| worker.draining) else { continue };
            match is_handed_over {
                true => worker.handing.remove(&key),
                false => worker.handing.insert(key),
            };
        }
    }

    /// How many workers should have data of that length.
    pub(super) fn wanted_copies(&self, len: u64) -> usize {
        if len <= COPIED_BYTES { self.config.data_copies.max(1) as usize } else { 1 }
    }

    /// The worker that should get a copy next, and what it is to be told; `None` if there are enough, or nobody is left to take one.
    fn next_copy(&mut self, key: Key) -> Option<(WorkerId, ToWorker)> {
        let entry = self.entries.get(&key.entry)?;
        let replicas = entry.rare.stored.get(&key.index)?;
        if replicas.held || !entry.items.state(key.index).is_some_and(State::is_stored) {
            return None;
        }
        let wanted = match &entry.kind {
            Kind::Data(datum) => self.wanted_copies(datum.len),
            _ => 1,
        };
        let stays = |id: &&WorkerId| self.fleet.workers.get(id).is_some_and(|worker| !worker.draining);
        let count = replicas.workers.iter().filter(stays).count() + replicas.coming.len() + replicas.away.len();
        if count >= wanted {
            return None;
        }
        let takers = self.fleet.workers.iter().filter(|(id, worker)| {
            worker.takes_work()
                && !worker.load.pressed
                && ![&replicas.workers, &replicas.coming, &replicas.declined].into_iter().any(|list| list.contains(id))
        });
        let route = &entry.rare.route;
        let Some((&id, taker)) = takers.min_by_key(|(id, worker)| (!route.contains(id), worker.held_bytes, **id)) else {
            self.thin.insert(key);
            return None;
        };
        let places = self.places(replicas, key, taker.who);
        Some((id, ToWorker::Replicate { key, len: replicas.len, hash: replicas.hash, places }))
    }

    /// A worker came that could take copies for which there was nobody.
    pub(super) fn review_thin(&mut self) {
        for key in std::mem::take(&mut self.thin) {
            self.review(key);
        }
    }

    /// A copy that a worker was asked to get will not come; `declined` if the worker said so.
    pub(super) fn no_copy(&mut self, id: WorkerId, key: Key, declined: bool) {
        if let Some(worker) = self.fleet.workers.get_mut(&id)
            && !worker.copies.remove(&key)
        {
            return;
        }
        let replicas = self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.stored.get_mut(&key.index));
        if let Some(replicas) = replicas {
            replicas.coming.retain(|&other| other != id);
            if declined {
                replicas.declined.push(id);
            }
            self.review(key);
        }
    }

    /// Has a draining worker's values handed over.
    pub(super) fn hand_over(&mut self, id: WorkerId) {
        let leave_by = self.now.saturating_add(self.config.hand_over);
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        worker.leave_by = Some(leave_by);
        self.fleet.draining.insert(id);
        let holds = worker.holds.clone();
        holds.into_iter().for_each(|key| self.review(key));
        // What it was to get, others get.
        let copies = self.fleet.workers.get(&id).map(|worker| worker.copies.clone()).unwrap_or_default();
        copies.into_iter().for_each(|key| self.no_copy(id, key, true));
    }

    /// Lets draining workers go that have nothing more to do and nothing more to hand over, or have had the time for it.
    pub(super) fn dismiss_drained(&mut self) {
        if self.fleet.draining.is_empty() {
            return;
        }
        let now = self.now;
        let done = |id: &WorkerId| {
            let worker = self.fleet.workers.get(id)?;
            let is_done = worker.runs.is_empty() && worker.handing.is_empty();
            let leave_by = worker.leave_by?;
            (is_done || leave_by <= now).then_some(*id)
        };
        let ready: Vec<_> = self.fleet.draining.iter().filter_map(done).collect();
        for id in ready {
            if let Some(worker) = self.fleet.workers.get_mut(&id) {
                worker.leave_by = None;
            }
            if !fault::is(Fault::LeaveUnsaid) {
                self.tell_worker(id, ToWorker::Leave);
            }
        }
    }

    /// When the first draining worker has had its time.
    pub(super) fn hand_over_check(&self) -> Option<Duration> {
        self.fleet.draining.iter().filter_map(|id| self.fleet.workers.get(id)?.leave_by).min()
    }
}
