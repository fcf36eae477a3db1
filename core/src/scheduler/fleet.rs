//! Workers and their runs: joining, leaving, leases, and the orders in which workers are looked for. Must not know: what runs
//! compute.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    Action, Departure, Scheduler, absence::Process, ascending::Ascending, blame::Death, offer::Offer, refusal::Refusal,
    tournament::Tournament,
};
use crate::{
    fault::{self, Fault},
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
    /// When it started, as far as is known.
    pub(super) started: Option<Duration>,
    /// Whether it was asked for a part of it, and has not answered.
    pub(super) asked: bool,
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

    /// Whether it could be asked for a part of it, once it has started.
    pub(super) fn is_divisible(&self) -> bool {
        !self.asked && self.count - self.done > 1
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
    /// It has not named all that it had when it joined.
    pub(super) returning: bool,
    /// When a draining worker leaves, if others have not taken over its values before; `None` once it was told to go.
    pub(super) leave_by: Option<Duration>,
    /// When anything was last heard of it.
    pub(super) heard: Duration,
    /// Whether its process was looked for since.
    pub(super) probed: bool,
    /// When it last started or ended something.
    pub(super) progress: Duration,
    /// All its runs, oldest first.
    pub(super) runs: VecDeque<RunId>,
    /// Those of them that wait for inputs which it computes itself.
    pub(super) ahead: u64,
    /// Those of them that hold one item which was running when another worker died.
    pub(super) suspects: u32,
    /// Estimated time of the runs that do not wait.
    pub(super) load_nanos: u64,
    /// Stored values that it has.
    pub(super) holds: BTreeSet<Key>,
    /// Those that others are to take over before it leaves.
    pub(super) handing: BTreeSet<Key>,
    /// Values that it was asked to get.
    pub(super) copies: BTreeSet<Key>,
    /// Bytes of those that it has, about: announced ones count.
    pub(super) held_bytes: u64,
    /// How often the shell asked it for a value that it is said to have, and it did not have it.
    pub(super) unserved: u32,
    /// Data that clients were told to upload here and that is not here yet, as far as is known.
    pub(super) uploads: BTreeSet<EntryId>,
    /// Calls that could be sent ahead to it once there is room.
    pub(super) candidates: BTreeSet<EntryId>,
    pub(super) load: Load,
    place: Standing,
    /// Its number in the order of those with room.
    seat: u32,
}

/// Where a worker is in the fleet's orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// Among those with room, if it is one: its place, and its load below that.
    room: Option<u64>,
    spare: bool,
    crowded: bool,
    eager: bool,
}

/// Places in the order of those with room: a slot that is idle, none, and one that should get something only if nobody else can.
const IDLE: u64 = 0;
const FULL: u64 = 1 << LOAD_BITS;
const PRESSED: u64 = 2 << LOAD_BITS;
/// Bits of a load in that order; ones that take more are alike.
const LOAD_BITS: u32 = 62;
const MAX_LOAD: u64 = (1 << LOAD_BITS) - 1;

impl Worker {
    /// Its process.
    pub(super) fn process(&self) -> Process {
        (self.who, self.hello.incarnation)
    }

    /// Whether it may be given anything.
    pub(super) fn takes_work(&self) -> bool {
        !self.draining && !self.returning
    }

    pub(super) fn slots(&self) -> u64 {
        u64::from(self.hello.slots.max(1))
    }

    /// Whether there is room for more.
    pub(super) fn has_room(&self) -> bool {
        self.place.room.is_some()
    }

    /// How many of its slots have nothing to run, if it may be given something.
    pub(super) fn spare_slots(&self) -> Option<u64> {
        self.place.spare.then(|| self.slots() - self.active())
    }

    /// How many more runs than slots it has, if it may be relieved of them.
    pub(super) fn surplus(&self) -> Option<u64> {
        self.place.crowded.then(|| self.active() - self.slots())
    }

    /// Its place in the order of those with room.
    pub(super) fn room(&self) -> Option<u64> {
        self.place.room
    }

    /// Whether it has fewer runs than it should have, however short they are.
    pub(super) fn wants_any(&self, pipeline: u32) -> bool {
        self.active() < u64::from(pipeline.max(1)) * self.slots()
    }

    /// Estimated time until something new begins there, if there is room for it.
    pub(super) fn delay(&self) -> Option<u64> {
        self.place.room.map(|room| if room < FULL { 0 } else { room & MAX_LOAD })
    }

    /// Gives it a run, its youngest.
    pub(super) fn add_run(&mut self, run: RunId) {
        if self.runs.back().is_none_or(|last| *last < run) {
            self.runs.push_back(run);
        } else if let Err(at) = self.runs.binary_search(&run) {
            self.runs.insert(at, run);
        }
    }

    /// Takes a run away, mostly its oldest.
    fn drop_run(&mut self, run: RunId) {
        if self.runs.pop_front_if(|first| *first == run).is_none()
            && let Ok(at) = self.runs.binary_search(&run)
        {
            self.runs.remove(at);
        }
    }

    /// Runs that do not wait for inputs.
    pub(super) fn active(&self) -> u64 {
        self.runs.len() as u64 - self.ahead
    }

    fn standing(&self, pipeline: u32, batch_nanos: u64) -> Standing {
        if !self.takes_work() {
            return Standing::default();
        }
        let (active, slots) = (self.active(), self.slots());
        let load = (self.load_nanos / slots).min(MAX_LOAD);
        if self.load.pressed {
            // One thing at a time, and only if nobody else has room: memory may come free by nothing but that.
            return Standing { room: self.runs.is_empty().then_some(PRESSED | load), ..Standing::default() };
        }
        let (spare, crowded, eager) = (active < slots, active > slots, self.wants_any(pipeline));
        let has_room = eager || (active < MAX_RUNS * slots && load < 2 * batch_nanos);
        let place = if spare { IDLE } else { FULL };
        Standing { room: has_room.then_some(place | load), spare, crowded, eager }
    }
}

/// The workers, and orders of them.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) workers: Ascending<WorkerId, Worker>,
    /// Those that may be given more: those with idle slots first (whatever is taken back from a crowded worker must not go there
    /// again), then by load.
    pub(super) free: Tournament,
    /// Numbers in it that nobody has.
    vacant: Vec<u32>,
    /// How many have slots that have nothing to run.
    pub(super) spare: u64,
    /// How many have more runs than slots.
    pub(super) crowded: u64,
    /// How many have fewer runs than they should, and are not short of memory.
    pub(super) eager: u64,
    /// How many runs could be asked for a part of them, once they have started.
    pub(super) divisible: u64,
    /// Those that are on their way out.
    pub(super) draining: BTreeSet<WorkerId>,
    /// Slots of all that take work.
    pub(super) slots: u64,
}

impl Fleet {
    /// A run has started. If it was to come back as a whole, it is asked for a part now.
    pub(super) fn start(&mut self, run: &mut Run, now: Duration, was_recalled: bool) {
        let was_divisible = run.is_divisible();
        run.started.get_or_insert(now);
        run.asked |= was_recalled;
        self.divisible -= u64::from(was_divisible && !run.is_divisible());
    }

    /// The estimated time of a worker's runs has changed by that of one.
    pub(super) fn reload(&mut self, worker: WorkerId, before: u64, after: u64) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.load_nanos = worker.load_nanos - before + after;
        }
    }

    /// Puts a worker where it belongs in the orders, or takes it out when it is gone.
    fn place(&mut self, (id, seat): (WorkerId, u32), old: Standing, new: Standing) {
        if old.room != new.room {
            self.free.rank(seat, id, new.room);
        }
        self.spare -= u64::from(old.spare);
        self.spare += u64::from(new.spare);
        self.crowded -= u64::from(old.crowded);
        self.crowded += u64::from(new.crowded);
        self.eager -= u64::from(old.eager);
        self.eager += u64::from(new.eager);
    }
}

impl Scheduler {
    pub(super) fn worker_joined(&mut self, id: WorkerId, who: Identity, name: String, hello: WorkerHello) {
        if self.fleet.workers.contains_key(&id) {
            return;
        }
        let (process, keeps) = ((who, hello.incarnation), hello.keeps);
        let earlier = self.fleet.workers.iter().find(|(_, worker)| process.1 != 0 && worker.process() == process);
        if let Some((&earlier, _)) = earlier {
            // It noticed before this side did that its connection had broken.
            self.out.push(Action::DisconnectWorker(earlier));
            self.worker_left(earlier, Departure::Lost);
        }
        self.welcome_back(process, keeps);
        let worker = Worker {
            who,
            name,
            offer: Offer::of(&hello),
            returning: hello.keeps > 0,
            hello,
            draining: false,
            leave_by: None,
            heard: self.now,
            probed: false,
            progress: self.now,
            runs: VecDeque::new(),
            ahead: 0,
            suspects: 0,
            load_nanos: 0,
            holds: BTreeSet::new(),
            uploads: BTreeSet::new(),
            handing: BTreeSet::new(),
            copies: BTreeSet::new(),
            held_bytes: 0,
            unserved: 0,
            candidates: BTreeSet::new(),
            load: Load::default(),
            place: Standing::default(),
            // Each is taken by a worker, or vacant.
            seat: self.fleet.vacant.pop().unwrap_or(self.fleet.workers.len() as u32),
        };
        self.fleet.slots += worker.slots();
        self.shapes.add_worker(id, &worker.offer);
        self.fleet.workers.insert(id, worker);
        self.watch_leases();
        self.rank(id);
        if keeps == 0 {
            self.review_thin();
        }
    }

    /// A worker has named all that it had when it joined.
    fn registered(&mut self, id: WorkerId) {
        let Some(worker) = self.fleet.workers.get_mut(&id).filter(|worker| worker.returning) else { return };
        worker.returning = false;
        let process = worker.process();
        self.end_absence(process);
        self.rank(id);
        self.review_thin();
    }

    /// As [`rank`](Self::rank), at the latest before anybody looks at the fleet's orders: mostly something about the same worker changes
    /// again before then.
    pub(super) fn rank_later(&mut self, id: WorkerId) {
        if let Some(other) = self.unranked.replace(id)
            && other != id
        {
            self.rank(other);
        }
    }

    /// Ranks what was put off.
    pub(super) fn rank_now(&mut self) {
        if let Some(id) = self.unranked.take() {
            self.rank(id);
        }
    }

    /// Puts a worker where it belongs in the fleet's orders, after something about it changed.
    pub(super) fn rank(&mut self, id: WorkerId) {
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        let new = worker.standing(self.config.pipeline, self.batch_nanos);
        let (old, seat) = (std::mem::replace(&mut worker.place, new), worker.seat);
        if old.room.is_none() && new.room.is_some() {
            self.shapes.unstick(id, &worker.offer);
        }
        self.fleet.place((id, seat), old, new);
    }

    /// A worker is gone. Its unfinished items go back to the queue. Those that were running run alone from now on, and those that ran
    /// alone count a death, if it may have been their fault. What it has is awaited if it may come back, and is lost otherwise.
    pub(super) fn worker_left(&mut self, id: WorkerId, departure: Departure) {
        let Some(worker) = self.fleet.workers.remove(&id) else { return };
        self.fleet.draining.remove(&id);
        self.fleet.place((id, worker.seat), worker.place, Standing::default());
        self.fleet.vacant.push(worker.seat);
        if !worker.draining {
            self.fleet.slots -= worker.slots();
            self.shapes.remove_worker(id);
        }
        let process = worker.process();
        let mut running = Vec::new();
        for &run_id in &worker.runs {
            let Some(run) = self.close_run(run_id) else { continue };
            let range = run.first + u64::from(run.done)..run.first + u64::from(run.count);
            if run.started.is_some() {
                running.push((run.entry, range.clone(), run.count == 1));
            }
            if !fault::is(Fault::LossForgotten) {
                self.requeue(run.entry, range);
            }
        }
        if departure != Departure::Left {
            let death = Death { worker: worker.name.clone(), process, departure };
            for (entry, range, alone) in running {
                let is_blamed = alone && !worker.draining && !fault::is(Fault::DeathUnblamed);
                self.suspect(entry, range, is_blamed.then_some(&death));
            }
        }
        worker.uploads.into_iter().for_each(|entry| self.ask_for_upload(entry, true));
        worker.copies.into_iter().for_each(|key| self.no_copy(id, key, false));
        worker.holds.iter().for_each(|&key| self.note_departure(key, &worker.name, departure));
        let may_return = matches!(departure, Departure::CutOff | Departure::Lost) && !self.config.grace.is_zero();
        if may_return && !worker.draining {
            return self.go_away(id, process, worker.holds);
        }
        let lost = worker.holds.into_iter().filter(|_| !fault::is(Fault::GhostsBelieved));
        lost.for_each(|key| self.lose_replica(id, key));
        if departure == Departure::Died {
            self.end_absence(process);
        }
    }

    /// Takes a run out of the books: it is over, or its worker is gone. What becomes of its items is the caller's business.
    pub(super) fn close_run(&mut self, run_id: RunId) -> Option<Run> {
        let run = self.runs.remove(&run_id)?;
        self.recalled.remove(&run_id);
        self.fleet.divisible -= u64::from(run.is_divisible());
        if let Some(entry) = self.entries.get_mut(&run.entry) {
            entry.runs.remove(run.first + u64::from(run.done));
        }
        if let Some(worker) = self.fleet.workers.get_mut(&run.worker) {
            worker.drop_run(run_id);
            worker.suspects -= u32::from(run.suspect);
            if run.ahead {
                worker.ahead -= 1;
            } else {
                worker.load_nanos -= run.nanos();
            }
            if run.sent_ahead && !worker.candidates.is_empty() {
                self.hungry.insert(run.worker);
            }
            if let Some(takes) = run.takes.as_ref().filter(|_| !fault::is(Fault::ResourceKept)) {
                worker.offer.give_back(takes);
                self.shapes.unstick(run.worker, &worker.offer);
            }
            self.rank_later(run.worker);
        }
        Some(run)
    }

    pub(super) fn worker_said(&mut self, id: WorkerId, message: FromWorker) {
        let now = self.now;
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        worker.heard = now;
        worker.probed = false;
        let result = match message {
            FromWorker::Started { run } => self.started(id, run),
            FromWorker::Finished { run, outcome, elapsed } => self.finished(id, run, outcome, elapsed),
            FromWorker::Returned { run, missing } => self.returned(id, run, &missing),
            FromWorker::Divided { run, count } => self.divided(id, run, count),
            FromWorker::Holds { key, len, hash } => {
                self.holds(id, key, len, hash);
                Ok(())
            }
            FromWorker::Heartbeat(load) => {
                worker.held_bytes = load.held_bytes;
                let changed = std::mem::replace(&mut worker.load, load).pressed != load.pressed;
                if changed {
                    self.pressure_changed(id);
                }
                Ok(())
            }
            FromWorker::Registered => {
                self.registered(id);
                Ok(())
            }
            FromWorker::Unreplicated { key } => {
                self.no_copy(id, key, true);
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
            self.hand_over(id);
        }
    }

    /// A worker's memory became short, or is not any more.
    fn pressure_changed(&mut self, id: WorkerId) {
        self.rank(id);
        if self.fleet.workers.get(&id).is_some_and(|worker| worker.load.pressed) {
            self.relieve(id);
        } else {
            self.review_thin();
        }
    }

    /// Says why, and ends it. What it ran is not blamed.
    pub(super) fn refuse_worker(&mut self, id: WorkerId, refusal: &Refusal) {
        // A silent worker did nothing wrong: it sees its connection end, and joins again.
        if !matches!(refusal, Refusal::Silent) {
            self.tell_worker(id, ToWorker::Refused { reason: refusal.to_string() });
        }
        self.out.push(Action::DisconnectWorker(id));
        let departure = if matches!(refusal, Refusal::Silent) { Departure::CutOff } else { Departure::Left };
        self.worker_left(id, departure);
    }
}

/// A duration in nanoseconds, as far as they can be counted.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
