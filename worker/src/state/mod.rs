//! The worker's state machine. Owns: which runs there are, what each waits for, which slot runs it, which values are held, and what
//! the scheduler is told. Must not know: sockets, clocks, threads, wasmtime.
//!
//! # How it is driven
//! [`Worker::handle`] takes an [`Event`] and appends [`Action`]s, which the shell carries out in order. Each `FetchModule` and
//! `FetchBlob` is answered by one event, each `Execute` by one [`Event::RunEnded`]; until then its slot is taken.
//! Each `Spill` and `Load` is answered by one event as well. [`Worker::held`] answers whoever serves values to peers. `check()` asserts every invariant, after each event in tests.
//! Nothing depends on the time, so no event carries it.
//!
//! # A run's way
//! | phase | module, inputs | slot | where it is listed | leaves by |
//! | --- | --- | --- | --- | --- |
//! | waiting | `missing` of them still to come | no | `modules`, `fetches`, `awaited` | the last arrival, a failure, `Returned`, `Cancel` of all |
//! | ready | all there | no | `ready`, by arrival | a free slot, `Returned`, `Cancel` of all |
//! | running | handed over | yes | | [`Event::RunEnded`], before which each [`Event::Part`] tells some of it, and [`Event::Divided`] can make it shorter |

mod fetches;
mod modules;
mod results;
mod runs;
mod shelf;
mod store;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use bytes::Bytes;
use quicsand::{
    codec::Args,
    fault::{self, Fault},
    ids::{EntryId, Hash, Key, RunId},
    wire::{FromWorker, Inputs, Load, SharedSpec, ToWorker, blob::Place},
};

pub use results::Ended;
pub use shelf::Held;

use fetches::{Fetches, Source};
use modules::Modules;
use runs::{Phase, RunEntry};
use store::Store;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The scheduler said something.
    Message(ToWorker),
    /// A module is compiled and at hand.
    ModuleReady(Hash),
    /// The sandbox refused a module, for good.
    ModuleRefused { hash: Hash, reason: String },
    /// A module could not be fetched, this time.
    ModuleMissing { hash: Hash, reason: String },
    /// A blob was fetched and is what it was announced to be.
    BlobArrived { key: Key, hash: Hash, bytes: Bytes },
    /// A blob could not be fetched from anywhere.
    BlobMissing { key: Key, hash: Hash },
    /// A file is written.
    Spilled { file: u64 },
    /// A file could not be written.
    NotSpilled { file: u64 },
    /// A file was read, and is what was written to it; or is not, or is gone.
    Loaded { file: u64, bytes: Option<Bytes> },
    /// A file was read for a peer, and is not what was written to it.
    Damaged { file: u64 },
    /// A slot has come to the end of some items of its run, which come after those that were told before; it is not done with it.
    Part { run: RunId, ended: Ended },
    /// A slot runs only the first `count` items of its run.
    Divided { run: RunId, count: u32 },
    /// A slot is done with its run.
    RunEnded { run: RunId, ended: Ended },
    /// A peer wrote a value here.
    Written { key: Key, hash: Hash, bytes: Bytes },
    /// A heartbeat is due; the process uses so much memory.
    Tick { used_bytes: u64 },
    /// The worker's owner wants it to leave in good order.
    Drain,
    /// The scheduler has let it in.
    Joined,
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Say this to the scheduler.
    Send(FromWorker),
    /// Fetch and compile a module.
    FetchModule(Hash),
    /// No run needs this module: its code may go.
    ForgetModule(Hash),
    /// Fetch a blob from the first of these places that has it, the scheduler last.
    FetchBlob { key: Key, len: u64, hash: Hash, places: Vec<Place> },
    /// Write this to a file.
    Spill { file: u64, bytes: Bytes },
    /// Read a file that was written.
    Load { file: u64, len: u64, hash: Hash },
    /// Remove a file that was written.
    Unlink { file: u64 },
    /// Run this on the slot.
    Execute { slot: u32, work: Box<Work> },
    /// Have the run that the slot executes end after half of what it has not begun, and say so by [`Event::Divided`], if it has more than
    /// one item left.
    Divide { slot: u32 },
    /// Stop these items of the run that the slot executes.
    Stop { slot: u32, first: u32, count: u32 },
    /// Close the connection once everything is said; with the reason if this is not in good order.
    Leave(Option<String>),
}

/// A run with everything that it needs.
#[derive(Clone, Debug)]
pub struct Work {
    pub run: RunId,
    pub spec: SharedSpec,
    pub module: Hash,
    pub entry: EntryId,
    pub first: u64,
    pub args: Args,
    pub inputs: Inputs,
    /// Items that were cancelled before it started.
    pub cancelled: Vec<Range<u32>>,
}

impl Work {
    /// Whether every item was cancelled.
    fn is_unwanted(&self) -> bool {
        matches!(&self.cancelled[..], [all] if *all == (0..self.args.count()))
    }
}

/// How far the worker is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    Draining,
    Left,
}

/// What held values may take up, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of memory. What is more goes to disk.
    pub memory: u64,
    /// Of disk.
    pub disk: u64,
    /// Of memory, with all else that the process uses; `u64::MAX` where the process has other uses.
    pub process: u64,
}

/// What a worker has when its connection is gone: the values that it held, for when it joins again.
#[derive(Debug, Default)]
pub struct Kept(Option<Store>);

impl Kept {
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |store| store.shelf.count())
    }
}

/// The bookkeeping of one worker's registration with a scheduler.
#[derive(Debug)]
pub struct Worker {
    name: String,
    stage: Stage,
    runs: BTreeMap<RunId, Box<RunEntry>>,
    arrivals: u64,
    /// Runs that lack only a slot, by arrival.
    ready: BTreeSet<(u64, RunId)>,
    /// The slot that was used last is last, and is used next: its instance is warm.
    free_slots: Vec<u32>,
    slots: u32,
    /// Others have what only this worker had.
    may_leave: bool,
    /// The runs here by the key of their first item.
    producers: BTreeSet<(Key, RunId)>,
    /// Keys of runs here that other runs wait for. May name waiters that are gone.
    awaited: BTreeMap<Key, Vec<RunId>>,
    fetches: Fetches,
    budget: Budget,
    /// Memory is short, and will be less so by itself.
    is_pressed: bool,
    modules: Modules,
    store: Store,
}

#[cfg(test)]
impl Budget {
    /// More than any test takes up.
    pub const MUCH: Self = Self { memory: 1 << 40, disk: 1 << 40, process: u64::MAX };
}

impl Worker {
    /// A worker that executes `slots` runs at a time, holds values within a budget, and is called `name` in errors. What it `kept` it
    /// names when it has joined.
    pub fn new(slots: u32, name: String, budget: Budget, kept: Kept) -> Self {
        Self {
            name,
            stage: Stage::Serving,
            runs: BTreeMap::new(),
            arrivals: 0,
            ready: BTreeSet::new(),
            free_slots: (0..slots).rev().collect(),
            slots,
            may_leave: false,
            producers: BTreeSet::new(),
            awaited: BTreeMap::new(),
            fetches: Fetches::default(),
            budget,
            is_pressed: false,
            modules: Modules::default(),
            store: kept.0.unwrap_or_else(|| Store::new(budget)),
        }
    }

    /// Takes out what is worth keeping when the connection is gone: values that the scheduler may know of. Small recent results are
    /// known by their keys alone, which another scheduler may give to other values.
    pub fn take_kept(&mut self) -> Kept {
        let mut store = std::mem::replace(&mut self.store, Store::new(self.budget));
        store.rest();
        Kept(Some(store))
    }

    /// Takes in what happened and appends what is to be done.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Message(message) => self.receive(message, actions),
            Event::ModuleReady(hash) => {
                let waiters = self.modules.ready(hash);
                waiters.into_iter().for_each(|run| self.one_less(run));
            }
            Event::ModuleRefused { hash, reason } => {
                let waiters = self.modules.refused(hash, reason.clone());
                self.fail(waiters, &quicsand::TaskErrorKind::Module, &reason, actions);
            }
            Event::ModuleMissing { hash, reason } => {
                let waiters = self.modules.missing(hash);
                self.fail(waiters, &quicsand::TaskErrorKind::Worker, &reason, actions);
            }
            Event::BlobArrived { key, hash, bytes } => self.blob_arrived(key, hash, &bytes, actions),
            Event::BlobMissing { key, hash } => self.blob_missing(key, hash, actions),
            Event::Spilled { file } => self.store.shelf.spilled(file, actions),
            Event::NotSpilled { file } => self.store.shelf.not_spilled(file),
            Event::Loaded { file, bytes } => {
                let value = bytes.clone();
                if let Some((key, hash)) = self.store.shelf.loaded(file, bytes, actions) {
                    match value {
                        Some(value) => {
                            let waiters = self.fetches.end(key, hash).waiters;
                            waiters.into_iter().for_each(|run| self.fill(run, key, &value));
                        }
                        None if fault::is(Fault::DamageUnanswered) => drop(self.fetches.end(key, hash)),
                        None => self.blob_missing(key, hash, actions),
                    }
                }
            }
            Event::Damaged { file } => self.store.shelf.damaged(file, actions),
            Event::Part { run, ended } => self.part(run, ended, actions),
            Event::Divided { run, count } => self.divided(run, count, actions),
            Event::RunEnded { run, ended } => self.run_ended(run, ended, actions),
            Event::Written { key, hash, bytes } => self.hold(key, hash, bytes, actions),
            Event::Tick { used_bytes } => {
                let busy = self.slots - self.free_slots.len() as u32;
                self.is_pressed = self.is_short(used_bytes, busy);
                let load = Load { held_bytes: self.held_bytes(), used_bytes, busy, pressed: self.is_pressed };
                actions.push(Action::Send(FromWorker::Heartbeat(load)));
            }
            Event::Drain => {
                if self.stage == Stage::Serving {
                    actions.push(Action::Send(FromWorker::Draining));
                }
                self.drain(actions);
            }
            Event::Joined => self.register(actions),
        }
        self.dispatch(actions);
        self.store.shelf.balance(actions);
        self.fetch(actions);
        // Again: a run whose input is gone has let go of the others.
        self.store.shelf.balance(actions);
        if self.stage == Stage::Draining && self.may_leave && self.runs.is_empty() {
            self.stage = Stage::Left;
            actions.push(Action::Leave(None));
        }
        if let Some(hash) = self.modules.surplus() {
            actions.push(Action::ForgetModule(hash));
        }
    }

    /// Where a held value is. Being served counts as a use.
    pub fn held(&mut self, key: Key) -> Option<Held> {
        self.store.shelf.find(key)
    }

    /// Bytes of values that are held.
    pub fn held_bytes(&self) -> u64 {
        self.store.shelf.bytes()
    }

    /// Whether the disk has nothing to do.
    pub fn is_disk_still(&self) -> bool {
        self.store.shelf.is_still()
    }

    /// Bytes of values that can be held.
    pub fn capacity(&self) -> u64 {
        self.store.shelf.capacity()
    }

    fn receive(&mut self, message: ToWorker, actions: &mut Vec<Action>) {
        match message {
            ToWorker::Assign(assignment) => self.assign(assignment, actions),
            ToWorker::Cancel { run, first, count } => self.cancel(run, first, count, actions),
            ToWorker::Recall { run } => self.recall(run, actions),
            ToWorker::Free { spans } => {
                for span in spans {
                    self.store.free(span, actions);
                    self.fetches.free(span);
                }
            }
            ToWorker::Replicate { key, len, hash, places } => self.replicate(key, len, hash, places, actions),
            ToWorker::Drain => self.drain(actions),
            ToWorker::Leave => {
                self.may_leave = true;
                self.drain(actions);
            }
            ToWorker::Refused { reason } => self.abandon(reason, actions),
        }
    }

    /// Names what it has from before.
    fn register(&mut self, actions: &mut Vec<Action>) {
        if self.store.shelf.count() == 0 {
            return;
        }
        let held = self.store.shelf.iter();
        actions.extend(held.map(|(key, len, hash)| Action::Send(FromWorker::Holds { key, len, hash })));
        actions.push(Action::Send(FromWorker::Registered));
    }

    /// The scheduler wants a copy of a value here.
    fn replicate(&mut self, key: Key, len: u64, hash: Hash, places: Vec<Place>, actions: &mut Vec<Action>) {
        if self.store.shelf.has(key, hash) {
            return actions.push(Action::Send(FromWorker::Holds { key, len, hash }));
        }
        if self.stage != Stage::Serving || !self.store.shelf.has_room(len) {
            return actions.push(Action::Send(FromWorker::Unreplicated { key }));
        }
        self.fetches.want_copy((key, hash), len, places);
    }

    /// Gives everything back that has not started, in the order of arrival.
    fn drain(&mut self, actions: &mut Vec<Action>) {
        if self.stage == Stage::Serving {
            self.stage = Stage::Draining;
            let mut unstarted: Vec<_> = self.runs.iter().filter(|(_, entry)| !entry.is_running()).collect();
            unstarted.sort_by_key(|(_, entry)| entry.arrival);
            let unstarted: Vec<RunId> = unstarted.into_iter().map(|(&run, _)| run).collect();
            for run in unstarted {
                self.give_back(run, Vec::new(), actions);
            }
        }
    }

    /// Stops everything, and leaves without a word: the scheduler does not listen, or does not make sense.
    fn abandon(&mut self, reason: String, actions: &mut Vec<Action>) {
        if self.stage == Stage::Left {
            return;
        }
        self.stage = Stage::Left;
        for entry in self.runs.values() {
            if let Phase::Running { slot } = entry.phase {
                actions.push(Action::Stop { slot, first: 0, count: entry.count });
            }
        }
        self.runs.retain(|_, entry| entry.is_running());
        self.producers.retain(|(_, run)| self.runs.contains_key(run));
        self.awaited.clear();
        self.ready.clear();
        actions.push(Action::Leave(Some(reason)));
    }

    fn blob_arrived(&mut self, key: Key, hash: Hash, bytes: &Bytes, actions: &mut Vec<Action>) {
        let ended = self.fetches.end(key, hash);
        // Without room the runs get it all the same, and it goes with them.
        if !ended.is_freed && self.store.shelf.has_room(bytes.len() as u64) {
            self.hold(key, hash, bytes.clone(), actions);
        } else if ended.is_copy {
            actions.push(Action::Send(FromWorker::Unreplicated { key }));
        }
        ended.waiters.into_iter().for_each(|run| self.fill(run, key, bytes));
    }

    fn blob_missing(&mut self, key: Key, hash: Hash, actions: &mut Vec<Action>) {
        let ended = self.fetches.end(key, hash);
        if ended.is_copy {
            actions.push(Action::Send(FromWorker::Unreplicated { key }));
        }
        let answered = ended.waiters.into_iter().filter(|_| !fault::is(Fault::MissUnanswered));
        answered.for_each(|run| self.give_back(run, vec![key], actions));
    }

    /// Begins to fetch inputs and to read them back, as far as there is room for them, those of the oldest run first. When nothing else
    /// goes on that could make room, the oldest run's inputs come all the same.
    fn fetch(&mut self, actions: &mut Vec<Action>) {
        while let Some(next) = self.fetches.next() {
            if !self.fetches.is_wanted(next, |run| self.runs.contains_key(run)) {
                self.fetches.end(next.key, next.hash);
                continue;
            }
            let taken = self.store.shelf.pinned_bytes().saturating_add(self.fetches.bytes());
            let is_idle = !self.fetches.is_any_under_way() && self.ready.is_empty() && self.free_slots.len() as u32 == self.slots;
            if taken.saturating_add(next.len) > self.budget.memory && !is_idle {
                return;
            }
            match self.fetches.begin(next) {
                Some(Source::Network(places)) => {
                    actions.push(Action::FetchBlob { key: next.key, len: next.len, hash: next.hash, places });
                }
                Some(Source::File(file)) if self.store.shelf.has_file(file) => self.store.shelf.load(file, actions),
                _ => self.blob_missing(next.key, next.hash, actions),
            }
        }
    }

    /// Whether memory is short for now: values are to leave it and the disk is busy with that, or tasks that run take up too much. Either
    /// ends by itself, so that work that is held back for it is not held back for ever. What begins above a mark ends below a lower one.
    fn is_short(&self, used_bytes: u64, busy: u32) -> bool {
        let above = |bytes: u64, limit: u64| bytes > if self.is_pressed { limit / 8 * 7 } else { limit };
        let (memory, leaving) = self.store.shelf.memory();
        let is_spilling =
            leaving > 0 && (self.is_pressed || above(memory, self.budget.memory.saturating_add(self.budget.memory / 8)));
        is_spilling || busy > 0 && above(used_bytes, self.budget.process)
    }

    fn hold(&mut self, key: Key, hash: Hash, bytes: Bytes, actions: &mut Vec<Action>) {
        let len = bytes.len() as u64;
        self.store.shelf.hold(key, hash, bytes, actions);
        actions.push(Action::Send(FromWorker::Holds { key, len, hash }));
    }

    /// Asserts what holds between any two events.
    #[cfg(any(test, feature = "simulation"))]
    pub fn check(&self) {
        let mut taken = self.free_slots.clone();
        let mut users = 0;
        for (run, entry) in &self.runs {
            let listed = self.ready.contains(&(entry.arrival, *run));
            users += usize::from(self.stage != Stage::Left);
            match &entry.phase {
                Phase::Running { slot } => {
                    taken.push(*slot);
                    assert!(!listed && self.modules.is_ready(entry.module), "{run} runs");
                }
                Phase::Unstarted { missing, work } => {
                    let waits = |waiters: &Vec<RunId>| waiters.iter().filter(|&waiter| waiter == run).count();
                    let found = usize::from(self.modules.is_awaited(entry.module, *run))
                        + self.fetches.waits(*run)
                        + self.awaited.values().map(waits).sum::<usize>();
                    assert_eq!(*missing as usize, found, "{run} waits for what will come");
                    assert_eq!(*missing == 0, listed, "{run} is ready");
                    assert!(!work.is_unwanted(), "{run} is wanted");
                    assert_eq!(self.stage, Stage::Serving, "{run} was given back");
                }
            }
        }
        taken.sort_unstable();
        assert!(taken.iter().copied().eq(0..self.slots), "each slot is free or has one run: {taken:?}");
        assert!(self.ready.is_empty() || self.free_slots.is_empty(), "no slot idles while a run is ready");
        assert!(self.ready.iter().all(|(_, run)| self.runs.contains_key(run)));
        let producers: BTreeSet<_> = self.runs.iter().map(|(&run, entry)| (entry.entry.key(entry.first), run)).collect();
        assert_eq!(self.producers, producers);
        assert!(self.awaited.keys().all(|&key| self.is_coming(key)), "what is awaited is computed here");
        if self.stage != Stage::Left {
            assert_eq!(self.modules.users(), users, "modules know their users");
        }
        self.fetches.check();
        self.store.check();
    }
}
