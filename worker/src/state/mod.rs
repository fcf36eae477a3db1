//! The worker's state machine. Owns: which runs there are, what each waits for, which slot runs it, which values are held, and what
//! the scheduler is told. Must not know: sockets, clocks, threads, wasmtime.
//!
//! # How it is driven
//! [`Worker::handle`] takes an [`Event`] and appends [`Action`]s, which the shell carries out in order. Each `FetchModule` and
//! `FetchBlob` is answered by one event, each `Execute` by one [`Event::RunEnded`]; until then its slot is taken.
//! [`Worker::held`] answers whoever serves values to peers. `check()` asserts every invariant, after each event in tests.
//! Nothing depends on the time, so no event carries it.
//!
//! # A run's way
//! | phase | module, inputs | slot | where it is listed | leaves by |
//! | --- | --- | --- | --- | --- |
//! | waiting | `missing` of them still to come | no | `modules`, `fetches`, `awaited` | the last arrival, a failure, `Returned`, `Cancel` of all |
//! | ready | all there | no | `ready`, by arrival | a free slot, `Returned`, `Cancel` of all |
//! | running | handed over | yes | | [`Event::RunEnded`] |

mod modules;
mod results;
mod runs;
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
    ids::{EntryId, Hash, Key, RunId},
    wire::{CallSpec, FromWorker, Inputs, Load, ToWorker, blob::Place},
};

pub(crate) use results::Ended;

use modules::Modules;
use runs::{Phase, RunEntry};
use store::Store;

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
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
    /// A slot is done with its run.
    RunEnded { run: RunId, ended: Ended },
    /// A peer wrote a value here.
    Written { key: Key, hash: Hash, bytes: Bytes },
    /// A heartbeat is due; the process uses so much memory.
    Tick { used_bytes: u64 },
    /// The worker's owner wants it to leave in good order.
    Drain,
}

/// Something to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Say this to the scheduler.
    Send(FromWorker),
    /// Fetch and compile a module.
    FetchModule(Hash),
    /// No run needs this module: its code may go.
    ForgetModule(Hash),
    /// Fetch a blob from the first of these places that has it, the scheduler last.
    FetchBlob { key: Key, len: u64, hash: Hash, places: Vec<Place> },
    /// Run this on the slot.
    Execute { slot: u32, work: Box<Work> },
    /// Stop these items of the run that the slot executes.
    Stop { slot: u32, first: u32, count: u32 },
    /// Close the connection once everything is said; with the reason if this is not in good order.
    Leave(Option<String>),
}

/// A run with everything that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) run: RunId,
    pub(crate) spec: CallSpec,
    pub(crate) module: Hash,
    pub(crate) entry: EntryId,
    pub(crate) first: u64,
    pub(crate) args: Args,
    pub(crate) inputs: Inputs,
    /// Items that were cancelled before it started.
    pub(crate) cancelled: Vec<Range<u32>>,
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

/// A blob on its way, and the runs that wait for it.
#[derive(Debug, Default)]
struct Fetch {
    waiters: Vec<RunId>,
    /// It was freed meanwhile: the waiters get it, but it is not held.
    freed: bool,
}

/// The bookkeeping of one worker's registration with a scheduler.
#[derive(Debug)]
pub(crate) struct Worker {
    name: String,
    stage: Stage,
    runs: BTreeMap<RunId, RunEntry>,
    arrivals: u64,
    /// Runs that lack only a slot, by arrival.
    ready: BTreeSet<(u64, RunId)>,
    /// The slot that was used last is last, and is used next: its instance is warm.
    free_slots: Vec<u32>,
    slots: u32,
    /// The runs here by the key of their first item.
    producers: BTreeSet<(Key, RunId)>,
    /// Keys of runs here that other runs wait for. May name waiters that are gone.
    awaited: BTreeMap<Key, Vec<RunId>>,
    /// Blobs on their way. May name waiters that are gone.
    fetches: BTreeMap<(Key, Hash), Fetch>,
    modules: Modules,
    store: Store,
}

impl Worker {
    /// A worker that executes `slots` runs at a time and is called `name` in errors.
    pub(crate) fn new(slots: u32, name: String) -> Self {
        Self {
            name,
            stage: Stage::Serving,
            runs: BTreeMap::new(),
            arrivals: 0,
            ready: BTreeSet::new(),
            free_slots: (0..slots).rev().collect(),
            slots,
            producers: BTreeSet::new(),
            awaited: BTreeMap::new(),
            fetches: BTreeMap::new(),
            modules: Modules::default(),
            store: Store::default(),
        }
    }

    /// Takes in what happened and appends what is to be done.
    pub(crate) fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
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
            Event::BlobMissing { key, hash } => {
                let waiters = self.fetches.remove(&(key, hash)).unwrap_or_default().waiters;
                waiters.into_iter().for_each(|run| self.give_back(run, vec![key], actions));
            }
            Event::RunEnded { run, ended } => self.run_ended(run, ended, actions),
            Event::Written { key, hash, bytes } => self.hold(key, hash, bytes, actions),
            Event::Tick { used_bytes } => {
                let busy = self.slots - self.free_slots.len() as u32;
                let load = Load { held_bytes: self.store.held_bytes(), used_bytes, busy };
                actions.push(Action::Send(FromWorker::Heartbeat(load)));
            }
            Event::Drain => {
                if self.stage == Stage::Serving {
                    actions.push(Action::Send(FromWorker::Draining));
                }
                self.drain(actions);
            }
        }
        self.dispatch(actions);
        if self.stage == Stage::Draining && self.runs.is_empty() {
            self.stage = Stage::Left;
            actions.push(Action::Leave(None));
        }
        if let Some(hash) = self.modules.surplus() {
            actions.push(Action::ForgetModule(hash));
        }
    }

    /// A held value and its hash.
    pub(crate) fn held(&self, key: Key) -> Option<(Bytes, Hash)> {
        self.store.held(key).map(|(hash, bytes)| (bytes, hash))
    }

    /// Bytes of values that are held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.store.held_bytes()
    }

    fn receive(&mut self, message: ToWorker, actions: &mut Vec<Action>) {
        match message {
            ToWorker::Assign(assignment) => self.assign(assignment, actions),
            ToWorker::Cancel { run, first, count } => self.cancel(run, first, count, actions),
            ToWorker::Recall { run } => self.give_back(run, Vec::new(), actions),
            ToWorker::Free { spans } => {
                for span in spans {
                    self.store.free(span);
                    let within =
                        |key: &Key| key.entry == span.entry && key.index >= span.first && key.index - span.first < span.count;
                    let freed = self.fetches.iter_mut().filter(|((key, _), _)| within(key));
                    freed.for_each(|(_, fetch)| fetch.freed = true);
                }
            }
            ToWorker::Drain => self.drain(actions),
            ToWorker::Refused { reason } => self.abandon(reason, actions),
        }
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
        let fetch = self.fetches.remove(&(key, hash)).unwrap_or_default();
        if !fetch.freed {
            self.hold(key, hash, bytes.clone(), actions);
        }
        for run in fetch.waiters {
            self.fill(run, key, bytes);
        }
    }

    fn hold(&mut self, key: Key, hash: Hash, bytes: Bytes, actions: &mut Vec<Action>) {
        let len = bytes.len() as u64;
        self.store.hold(key, hash, bytes);
        actions.push(Action::Send(FromWorker::Holds { key, len, hash }));
    }

    /// Asserts what holds between any two events.
    #[cfg(test)]
    pub(crate) fn check(&self) {
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
                        + self.fetches.values().map(|fetch| waits(&fetch.waiters)).sum::<usize>()
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
        self.store.check();
    }
}
