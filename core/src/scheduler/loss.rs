//! Stored values: where they are, and what to do when they are gone. Must not know: inline values.

use std::sync::Arc;

use super::{
    Action, Departure, Scheduler,
    entry::{Cause, Kind, Oddity, Replicas},
    facts::Part,
    items::State,
    lifecycle::Need,
    machine::Todo,
};
use crate::{
    TaskError, TaskErrorKind,
    codec::Span,
    fault::{self, Fault},
    ids::{EntryId, Hash, Identity, Key, WorkerId},
    wire::{
        ToClient,
        blob::{Grant, Place},
    },
};

/// Places named to whoever is to fetch a value, or to give one.
const MAX_PLACES: usize = 3;
/// Workers that are named when data is lost with them.
const MAX_BEEN: usize = 8;

impl Scheduler {
    /// An item's value is on a worker, or in the shell's keeping, for the first time.
    pub(super) fn store(&mut self, key: Key, len: u64, hash: Hash, worker: Option<WorkerId>) {
        let Some(entry) = self.entries.get_mut(&key.entry) else { return };
        let Some(from) = entry.items.state(key.index) else { return };
        self.ledger.put_stored(key, len, hash);
        entry.rare.stored.insert(key.index, Replicas::on(worker, len, hash));
        let unread = entry.rare.oddities.get_mut(&key.index).map(|oddity| std::mem::take(&mut oddity.unread));
        entry.forget_oddities(key.index..key.index + 1);
        if let Some(unread) = unread.filter(|unread| !unread.is_empty()) {
            entry.rare.oddities.insert(key.index, Oddity { unread, ..Oddity::default() });
        }
        if let Some(worker) = worker.and_then(|worker| self.fleet.workers.get_mut(&worker)) {
            worker.holds.insert(key);
            worker.held_bytes = worker.held_bytes.saturating_add(len);
        }
        let Some(entry) = self.entries.get(&key.entry) else { return };
        let (wanted, is_result) = (entry.items.is_wanted(key.index), entry.spec().is_some());
        self.shift(key.entry, key.index..key.index + 1, from, State::Stored);
        self.todo.push_back(Todo::Made(key.entry, key.index..key.index + 1));
        if is_result {
            self.note_lineage(key.entry);
        }
        if wanted {
            self.tell_stored(key);
        } else {
            self.todo.push_back(Todo::Free(key.entry, key.index..key.index + 1));
        }
        self.review(key);
    }

    /// A worker has a copy of a value now: one that it fetched, data that a client uploaded, or one that it had when it joined.
    pub(super) fn holds(&mut self, worker: WorkerId, key: Key, len: u64, hash: Hash) {
        let Some(process) = self.fleet.workers.get_mut(&worker).map(|worker| {
            worker.copies.remove(&key);
            worker.process()
        }) else {
            return;
        };
        if !self.is_expected(key, len, hash) {
            if !fault::is(Fault::LateCopyKept) {
                self.free_stray(worker, key);
            }
            return;
        }
        let replicas = self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.stored.get_mut(&key.index));
        let Some(replicas) = replicas else {
            // It may be computed again by now, which is not worth going on with.
            self.stop_runs(key.entry, key.index..key.index + 1);
            return self.store(key, len, hash, Some(worker));
        };
        replicas.coming.retain(|&other| other != worker);
        replicas.away.retain(|other| *other != process);
        self.absences.forget(process, key);
        if !replicas.workers.contains(&worker) {
            replicas.workers.push(worker);
            if let Some(worker) = self.fleet.workers.get_mut(&worker) {
                worker.holds.insert(key);
                worker.held_bytes = worker.held_bytes.saturating_add(len);
            }
        }
        self.come_back(key);
        self.review(key);
    }

    /// The shell keeps a client's data now.
    pub(super) fn held(&mut self, key: Key, len: u64, hash: Hash) {
        if !self.is_expected(key, len, hash) {
            return self.out.push(Action::Drop(Span { entry: key.entry, first: key.index, count: 1 }));
        }
        match self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.stored.get_mut(&key.index)) {
            Some(replicas) => {
                replicas.held = true;
                self.come_back(key);
            }
            None => self.store(key, len, hash, None),
        }
    }

    /// Whether the value of a key is, or is to become, a stored one like this.
    fn is_expected(&self, key: Key, len: u64, hash: Hash) -> bool {
        let Some(entry) = self.entries.get(&key.entry) else { return false };
        match (entry.items.state(key.index), &entry.kind) {
            (Some(State::Uploading), Kind::Data(datum)) => (datum.len, datum.hash) == (len, hash),
            (Some(state), _) if state.is_stored() || state.is_away() => {
                entry.rare.stored.get(&key.index).is_some_and(|replicas| (replicas.len, replicas.hash) == (len, hash))
            }
            (Some(state), _) if state.is_active() => {
                entry.rare.oddities.get(&key.index).is_some_and(|oddity| oddity.was == Some((len, hash)))
            }
            _ => false,
        }
    }

    /// Asks a client to upload its data: to the worker that holds the least, and through it to as many as should have it, or to the shell.
    pub(super) fn ask_for_upload(&mut self, id: EntryId, to_worker: bool) {
        self.end_upload(id);
        let Some(client) = self.clients.get(&id.client) else { return };
        let Some(Kind::Data(datum)) = self.entries.get(&id).map(|entry| &entry.kind) else { return };
        let len = datum.len;
        let workers = if to_worker { self.takers(self.wanted_copies(len).min(MAX_PLACES)) } else { Vec::new() };
        let route = self.route(&workers, id.key(0), client.who);
        let taker = workers.first().copied();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        (entry.rare.taker, entry.rare.route) = (taker, workers);
        if let Some(worker) = taker.and_then(|worker| self.fleet.workers.get_mut(&worker)) {
            // So that the next upload goes elsewhere. The worker's next heartbeat has the true figure.
            worker.held_bytes = worker.held_bytes.saturating_add(len);
            // A worker can take it and be gone before it says so.
            worker.uploads.insert(id);
        }
        self.tell_client(id.client, ToClient::Upload { seq: id.seq, route });
    }

    /// So many workers that data can be given to, if there are as many: those that hold the least.
    fn takers(&self, count: usize) -> Vec<WorkerId> {
        let mut takers = Vec::new();
        for _ in 0..count {
            let others = self.fleet.workers.iter().filter(|(id, worker)| {
                // Who is short of memory is given data only where nobody else takes it.
                let is_fit = takers.is_empty() || !worker.load.pressed;
                worker.takes_work() && worker.hello.listen.is_some() && is_fit && !takers.contains(*id)
            });
            let least = others.min_by_key(|(id, worker)| (worker.load.pressed, worker.held_bytes, **id));
            takers.extend(least.map(|(&id, _)| id));
        }
        takers
    }

    /// The places of workers, of which each but the last one hands on to the next.
    fn route(&self, workers: &[WorkerId], key: Key, who: Identity) -> Vec<Place> {
        let mut route = Vec::new();
        for (at, &id) in workers.iter().enumerate().rev() {
            let before = at.checked_sub(1).and_then(|before| self.fleet.workers.get(&workers[before]));
            let place = self.place(id, key, before.map_or(who, |worker| worker.who), &route);
            route.splice(..0, place);
        }
        route
    }

    /// Data is no longer on its way to a worker, as far as this side knows.
    pub(super) fn end_upload(&mut self, id: EntryId) {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.rare.taker.is_some());
        let taker = entry.and_then(|entry| entry.rare.taker.take());
        if let Some(worker) = taker.and_then(|worker| self.fleet.workers.get_mut(&worker)) {
            worker.uploads.remove(&id);
        }
    }

    /// Forgets a value everywhere. If it is because nobody needs it (`later`), its workers are told when that is recorded.
    pub(super) fn free_replicas(&mut self, id: EntryId, item: u64, later: bool) {
        let Some(replicas) = self.entries.get_mut(&id).and_then(|entry| entry.rare.stored.remove(&item)) else { return };
        let key = id.key(item);
        self.ledger.drop_row(id, Part::Stored, item);
        for worker_id in replicas.workers {
            if let Some(worker) = self.fleet.workers.get_mut(&worker_id) {
                worker.holds.remove(&key);
                worker.handing.remove(&key);
                worker.held_bytes = worker.held_bytes.saturating_sub(replicas.len);
                match later {
                    true => self.free_unneeded(worker_id, key),
                    false => self.free_on(worker_id, key),
                }
            }
        }
        for worker in &replicas.coming {
            if let Some(worker) = self.fleet.workers.get_mut(worker) {
                worker.copies.remove(&key);
            }
        }
        replicas.away.into_iter().for_each(|process| self.absences.forget(process, key));
        self.thin.remove(&key);
        if replicas.held {
            self.out.push(Action::Drop(Span { entry: id, first: item, count: 1 }));
        }
    }

    /// A worker does not have a value any more. If nobody has, it is computed again where it is needed.
    pub(super) fn lose_replica(&mut self, worker: WorkerId, key: Key) {
        let replicas = self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.stored.get_mut(&key.index));
        let Some(replicas) = replicas else { return };
        replicas.workers.retain(|&other| other != worker);
        if replicas.workers.is_empty() && !replicas.held {
            self.lose_or_await(key);
        } else {
            self.review(key);
        }
    }

    /// Nobody who is here has a stored value.
    fn lose_or_await(&mut self, key: Key) {
        let replicas = self.entries.get(&key.entry).and_then(|entry| entry.rare.stored.get(&key.index));
        if replicas.is_some_and(|replicas| !replicas.away.is_empty()) { self.put_away(key) } else { self.lose(key) }
    }

    /// Notes of data that its worker is gone: if it is lost in the end, people want to know with whom.
    pub(super) fn note_departure(&mut self, key: Key, worker: &str, departure: Departure) {
        let how = match departure {
            Departure::Died => "died",
            Departure::CutOff => "fell silent",
            Departure::Lost => "lost its connection",
            Departure::Left => "left",
        };
        self.note_gone(key, || format!("{worker} ({how})"));
    }

    /// Notes of data who had it and has it no more.
    pub(super) fn note_gone(&mut self, key: Key, who: impl FnOnce() -> String) {
        let Some(entry) = self.entries.get_mut(&key.entry).filter(|entry| matches!(entry.kind, Kind::Data(_))) else {
            return;
        };
        if let Some(replicas) = entry.rare.stored.get_mut(&key.index).filter(|replicas| replicas.been.len() < MAX_BEEN) {
            replicas.been.push(who());
        }
    }

    /// A stored value is nowhere.
    pub(super) fn lose(&mut self, key: Key) {
        let Some(replicas) = self.entries.get_mut(&key.entry).and_then(|entry| entry.rare.stored.get_mut(&key.index)) else {
            return;
        };
        let (was, been) = ((replicas.len, replicas.hash), std::mem::take(&mut replicas.been));
        self.free_replicas(key.entry, key.index, false);
        let range = key.index..key.index + 1;
        let state = self.entries.get(&key.entry).and_then(|entry| entry.items.state(key.index));
        if state.is_some_and(State::is_stored) {
            self.unmake(key);
        }
        let Some(entry) = self.entries.get(&key.entry) else { return };
        let segment = entry.items.segment(key.index, range.end);
        let message = match (segment.state, &entry.kind) {
            (State::Stored | State::Away, Kind::Data(datum)) => {
                let with =
                    if been.is_empty() { "nobody has it any more".to_owned() } else { format!("it was on {}", been.join(", ")) };
                Some(format!("the scattered data {key} of {} bytes is gone: {with}", datum.len))
            }
            (State::Final | State::FinalAway, _) => Some(format!(
                "the result {key} is gone with the workers that held it, and is not computed again: its arguments were let go when the \
                 client had more than {} bytes of them",
                self.config.client_bytes
            )),
            (State::Stored | State::Away, _) => entry.rare.oddities.get(&key.index).and_then(Oddity::unreadable),
            _ => return,
        };
        if let Some(message) = message {
            let error = TaskError::new(TaskErrorKind::DataLost, entry.name(), key, message);
            return self.end_badly(key.entry, segment, &Cause::Failed(Arc::new(error)), false);
        }
        let need = self.needs(key.entry, range.clone()).first().map_or(Need::Nothing, |(_, need)| *need);
        if segment.wanted && !fault::is(Fault::LossUntold) {
            self.tell_client(key.entry.client, ToClient::Lost { seq: key.entry.seq, index: key.index });
            self.tell_takers_lost(key);
        }
        if segment.wanted || need == Need::Value {
            self.begin(key.entry, range, segment.state);
            if let Some(entry) = self.entries.get_mut(&key.entry)
                && entry.items.state(key.index).is_some_and(State::is_active)
            {
                entry.rare.oddities.entry(key.index).or_default().was = Some(was);
            }
        } else {
            let to = if need == Need::Lineage { State::Dormant } else { State::Released };
            if let Some(entry) = self.entries.get_mut(&key.entry) {
                entry.forget_oddities(range.clone());
            }
            self.shift(key.entry, range.clone(), segment.state, to);
            self.todo.push_back(Todo::Free(key.entry, range));
        }
    }

    /// Consumers that need a value that was there miss it again.
    pub(super) fn unmake(&mut self, key: Key) {
        for (consumer, consumers, times) in self.hits(key.entry, &(key.index..key.index + 1)) {
            let Some(entry) = self.entries.get_mut(&consumer) else { continue };
            let active: Vec<_> = entry.items.segments(consumers).filter(|segment| segment.state.is_active()).collect();
            for segment in active {
                let Some(entry) = self.entries.get_mut(&consumer) else { continue };
                for item in segment.range() {
                    entry.items.set_missing(item, entry.items.missing(item).saturating_add(times));
                }
                if segment.state == State::Queued {
                    self.shift(consumer, segment.range(), State::Queued, State::Waiting);
                }
            }
        }
    }

    /// Tells the client where its result is.
    pub(super) fn tell_stored(&mut self, key: Key) {
        let Some(client) = self.clients.get(&key.entry.client) else { return };
        let Some(replicas) = self.entries.get(&key.entry).and_then(|entry| entry.rare.stored.get(&key.index)) else { return };
        let places = self.places(replicas, key, client.who);
        let (len, hash) = (replicas.len, replicas.hash);
        self.tell_client(key.entry.client, ToClient::Stored { seq: key.entry.seq, index: key.index, len, hash, places });
        self.tell_takers(key.entry, &(key.index..key.index + 1));
    }

    /// Where a peer can fetch a value itself.
    pub(super) fn places(&self, replicas: &Replicas, key: Key, who: Identity) -> Vec<Place> {
        // Different keys begin with different replicas.
        let skip = usize::try_from(key.index.wrapping_add(key.entry.seq)).unwrap_or(0) % replicas.workers.len().max(1);
        let turned = replicas.workers.iter().cycle().skip(skip).take(replicas.workers.len());
        turned.filter_map(|&worker| self.place(worker, key, who, &[])).take(MAX_PLACES).collect()
    }

    /// Where `who` can fetch a value from a worker, or give it one that goes on to the places of `then`.
    fn place(&self, id: WorkerId, key: Key, who: Identity, then: &[Place]) -> Option<Place> {
        let worker = self.fleet.workers.get(&id)?;
        let address = worker.hello.listen?;
        Some(Place { worker: id, address, grant: Grant::issue_to_hand_on(&worker.hello.grant_secret, key, who, then) })
    }
}
