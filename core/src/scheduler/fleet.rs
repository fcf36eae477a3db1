//! Workers and their runs: joining, leaving, leases, and the orders in which workers are looked for. Must not know: what runs
//! compute.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Action, Scheduler, items::State, offer::Offer, refusal::Refusal};
use crate::{
    TaskError, TaskErrorKind,
    ids::{EntryId, Identity, Key, RunId, TaskId, WorkerId},
    requirements::Requirements,
    wire::{FromWorker, Load, ToWorker, WorkerHello},
};

/// What handing a run over costs, whatever is in it.
const RUN_NANOS: u64 = 20_000;
/// Runs of a slot at a time, however short.
const MAX_RUNS: u64 = 256;

/// An assignment that is not over.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) worker: WorkerId,
    pub(super) entry: EntryId,
    pub(super) task: TaskId,
    pub(super) first: u64,
    pub(super) count: u32,
    /// Items that were answered for.
    pub(super) done: u32,
    pub(super) started: bool,
    /// Whether it was sent before its inputs were there.
    pub(super) sent_ahead: bool,
    /// Whether it still waits for them.
    pub(super) ahead: bool,
    /// Whether it is one item that was running when a worker died.
    pub(super) suspect: bool,
    /// Estimated time of an item.
    pub(super) item_nanos: u64,
    /// Where it takes resources: from when it is assigned to its end, whether it is running or queued there.
    pub(super) takes: Option<Arc<Requirements>>,
}

impl Run {
    /// Estimated time that is left.
    pub(super) fn nanos(&self) -> u64 {
        self.item_nanos.saturating_mul(u64::from(self.count - self.done)).saturating_add(RUN_NANOS)
    }
}

/// A worker that is here.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) who: Identity,
    pub(super) name: String,
    pub(super) hello: WorkerHello,
    pub(super) offer: Offer,
    pub(super) draining: bool,
    /// When anything was last heard of it.
    pub(super) heard: Duration,
    /// When it last started or ended something.
    pub(super) progress: Duration,
    /// All its runs, oldest first.
    pub(super) runs: BTreeSet<RunId>,
    /// Those of them that wait for inputs which it computes itself.
    pub(super) ahead: u64,
    /// Those of them that hold one item which was running when another worker died.
    pub(super) suspects: u32,
    /// Estimated time of the runs that do not wait.
    pub(super) load_nanos: u64,
    /// Stored values that it has.
    pub(super) holds: BTreeSet<Key>,
    /// Their bytes, about: announced uploads count.
    pub(super) held_bytes: u64,
    /// Calls that could be sent ahead to it once there is room.
    pub(super) candidates: BTreeSet<EntryId>,
    pub(super) load: Load,
    place: Standing,
}

/// Where a worker is in the fleet's orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    free: Option<(bool, u64)>,
    spare: bool,
    crowded: Option<u64>,
}

impl Worker {
    pub(super) fn slots(&self) -> u64 {
        u64::from(self.hello.slots.max(1))
    }

    /// Whether there is room for more.
    pub(super) fn has_room(&self) -> bool {
        self.place.free.is_some()
    }

    /// Its place in the order of those with room.
    pub(super) fn room(&self) -> Option<(bool, u64)> {
        self.place.free
    }

    /// Whether it has fewer runs than it should have, however short they are.
    pub(super) fn wants_any(&self, pipeline: u32) -> bool {
        self.active() < u64::from(pipeline.max(1)) * self.slots()
    }

    /// Estimated time until something new begins there, if there is room for it.
    pub(super) fn delay(&self) -> Option<u64> {
        self.place.free.map(|(full, load)| if full { load } else { 0 })
    }

    /// Runs that do not wait for inputs.
    pub(super) fn active(&self) -> u64 {
        self.runs.len() as u64 - self.ahead
    }

    fn standing(&self, pipeline: u32, batch_nanos: u64) -> Standing {
        if self.draining {
            return Standing { crowded: None, ..Standing::default() };
        }
        let (active, slots) = (self.active(), self.slots());
        let load = self.load_nanos / slots;
        let has_room = self.wants_any(pipeline) || (active < MAX_RUNS * slots && load < 2 * batch_nanos);
        Standing {
            free: has_room.then_some((active >= slots, load)),
            spare: active < slots,
            crowded: (active > slots).then(|| active - slots),
        }
    }
}

/// The workers, and orders of them.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// Those that may be given more: those with idle slots first (whatever is taken back from a crowded worker must not go there
    /// again), then by load.
    pub(super) free: BTreeSet<((bool, u64), WorkerId)>,
    /// Those with slots that have nothing to run.
    pub(super) spare: BTreeSet<WorkerId>,
    /// Those with more runs than slots, by how many more.
    pub(super) crowded: BTreeSet<(u64, WorkerId)>,
    /// Slots of all that take work.
    pub(super) slots: u64,
}

impl Fleet {
    /// Puts a worker where it belongs in the orders, or takes it out when it is gone.
    fn place(&mut self, id: WorkerId, old: Standing, new: Standing) {
        if old == new {
            return;
        }
        if let Some(load) = old.free {
            self.free.remove(&(load, id));
        }
        if let Some(surplus) = old.crowded {
            self.crowded.remove(&(surplus, id));
        }
        self.spare.remove(&id);
        if let Some(load) = new.free {
            self.free.insert((load, id));
        }
        if let Some(surplus) = new.crowded {
            self.crowded.insert((surplus, id));
        }
        if new.spare {
            self.spare.insert(id);
        }
    }
}

impl Scheduler {
    pub(super) fn worker_joined(&mut self, id: WorkerId, who: Identity, name: String, hello: WorkerHello) {
        if self.fleet.workers.contains_key(&id) {
            return;
        }
        let worker = Worker {
            who,
            name,
            offer: Offer::of(&hello),
            hello,
            draining: false,
            heard: self.now,
            progress: self.now,
            runs: BTreeSet::new(),
            ahead: 0,
            suspects: 0,
            load_nanos: 0,
            holds: BTreeSet::new(),
            held_bytes: 0,
            candidates: BTreeSet::new(),
            load: Load::default(),
            place: Standing::default(),
        };
        self.fleet.slots += worker.slots();
        self.shapes.add_worker(id, &worker.offer);
        self.fleet.workers.insert(id, worker);
        if self.lease_check.is_none() {
            self.lease_check = end_of_lease(self.now, self.config.lease);
        }
        self.rank(id);
    }

    /// Puts a worker where it belongs in the fleet's orders, after something about it changed.
    pub(super) fn rank(&mut self, id: WorkerId) {
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        let batch_nanos = nanos(self.config.batch_time);
        let new = worker.standing(self.config.pipeline, batch_nanos);
        let old = std::mem::replace(&mut worker.place, new);
        if old.free.is_none() && new.free.is_some() {
            self.shapes.unstick(id, &worker.offer);
        }
        self.fleet.place(id, old, new);
    }

    /// A worker is gone. Its unfinished items go back to the queue; with `blame`, those that were running alone count a death.
    pub(super) fn worker_left(&mut self, id: WorkerId, blame: bool) {
        let Some(worker) = self.fleet.workers.remove(&id) else { return };
        self.fleet.place(id, worker.place, Standing::default());
        if !worker.draining {
            self.fleet.slots -= worker.slots();
            self.shapes.remove_worker(id);
        }
        let mut running = Vec::new();
        for &run_id in &worker.runs {
            let Some(run) = self.close_run(run_id) else { continue };
            let range = run.first + u64::from(run.done)..run.first + u64::from(run.count);
            if run.started {
                running.push((run.entry, range.clone(), run.count == 1));
            }
            self.requeue(run.entry, range);
        }
        for (entry, range, alone) in running {
            self.suspect(entry, range, (alone && blame && !worker.draining).then_some(&worker.name));
        }
        for key in worker.holds {
            self.lose_replica(id, key);
        }
    }

    /// Items were running when their worker died, one of them alone if the worker's name is given.
    fn suspect(&mut self, id: EntryId, range: std::ops::Range<u64>, death: Option<&String>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let back: Vec<_> =
            entry.items.segments(range).filter(|segment| matches!(segment.state, State::Queued | State::Waiting)).collect();
        for segment in back {
            let Some(entry) = self.entries.get_mut(&id) else { return };
            entry.suspects.insert(segment.range());
            let Some(name) = death else { continue };
            let oddity = entry.oddities.entry(segment.first).or_default();
            oddity.deaths.push(name.clone());
            let deaths = oddity.deaths.len() as u32;
            if deaths < self.config.max_deaths {
                continue;
            }
            let message = format!("it ran alone on {} when they died", oddity.deaths.join(", "));
            let attempts = oddity.attempts + deaths;
            let mut error = TaskError::new(TaskErrorKind::Poisonous { deaths }, entry.name(), id.key(segment.first), message);
            error.attempts = attempts;
            self.end_badly(id, segment, &super::entry::Cause::Failed(error.into()), false);
        }
    }

    /// Takes a run out of the books: it is over, or its worker is gone. What becomes of its items is the caller's business.
    pub(super) fn close_run(&mut self, run_id: RunId) -> Option<Run> {
        let run = self.runs.remove(&run_id)?;
        self.recalled.remove(&run_id);
        if let Some(entry) = self.entries.get_mut(&run.entry) {
            entry.runs.remove(&(run.first + u64::from(run.done)));
        }
        if let Some(worker) = self.fleet.workers.get_mut(&run.worker) {
            worker.runs.remove(&run_id);
            worker.suspects -= u32::from(run.suspect);
            if run.ahead {
                worker.ahead -= 1;
            } else {
                worker.load_nanos -= run.nanos();
            }
            if run.sent_ahead {
                self.hungry.insert(run.worker);
            }
            if let Some(takes) = &run.takes {
                worker.offer.give_back(takes);
                self.shapes.unstick(run.worker, &worker.offer);
            }
            self.rank(run.worker);
        }
        Some(run)
    }

    pub(super) fn worker_said(&mut self, id: WorkerId, message: FromWorker) {
        let now = self.now;
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        worker.heard = now;
        let result = match message {
            FromWorker::Started { run } => self.started(id, run),
            FromWorker::Finished { run, outcome, elapsed } => self.finished(id, run, outcome, elapsed),
            FromWorker::Returned { run, missing } => self.returned(id, run, &missing),
            FromWorker::Holds { key, len, hash } => {
                self.holds(id, key, len, hash);
                Ok(())
            }
            FromWorker::Heartbeat(load) => {
                worker.held_bytes = load.held_bytes;
                worker.load = load;
                Ok(())
            }
            FromWorker::Draining => {
                self.drain(id);
                Ok(())
            }
        };
        if let Err(refusal) = result {
            self.refuse_worker(id, &refusal);
        }
    }

    fn drain(&mut self, id: WorkerId) {
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        if !worker.draining {
            worker.draining = true;
            let slots = worker.slots();
            self.fleet.slots -= slots;
            self.shapes.remove_worker(id);
            self.rank(id);
        }
    }

    /// Says why, and ends it. What it ran is not blamed.
    pub(super) fn refuse_worker(&mut self, id: WorkerId, refusal: &Refusal) {
        // A silent worker did nothing wrong: it sees its connection end, and joins again.
        if !matches!(refusal, Refusal::Silent) {
            self.tell_worker(id, ToWorker::Refused { reason: refusal.to_string() });
        }
        self.out.push(Action::DisconnectWorker(id));
        self.worker_left(id, false);
    }

    /// Cuts off the workers of which nothing was heard for too long.
    pub(super) fn expire_leases(&mut self) {
        if self.lease_check.is_none_or(|check| self.now < check) {
            return;
        }
        let lease = self.config.lease;
        let silent: Vec<_> = self
            .fleet
            .workers
            .iter()
            .filter(|(_, worker)| end_of_lease(worker.heard, lease).is_some_and(|end| self.now >= end))
            .map(|(&id, _)| id)
            .collect();
        for id in silent {
            self.refuse_worker(id, &Refusal::Silent);
        }
        self.lease_check = self.fleet.workers.values().filter_map(|worker| end_of_lease(worker.heard, lease)).min();
    }
}

/// `None` for a lease that never ends.
fn end_of_lease(heard: Duration, lease: Duration) -> Option<Duration> {
    heard.checked_add(lease)
}

/// A duration in nanoseconds, as far as they can be counted.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
