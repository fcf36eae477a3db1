//! Values on their way: fetched from one place after the other, the scheduler last, and uploaded. Must not know: who wants them why.

use std::time::Duration;

use bytes::Bytes;
use quicsand::{
    ids::{Hash, Identity, Key, WorkerId},
    scheduler::{Event, Location},
    wire::blob::Place,
};

use super::{
    hub::{Peer, general},
    network::{LinkId, Process},
    worker::WorkerProcess,
    world::{Due, World},
};

/// How long it takes to move a byte: 1 GB/s.
const BYTE_NANOS: u64 = 1;

/// Who waits for a value; a process may have another session when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) process: Process,
    pub(super) session: u64,
}

/// A value on its way to somebody.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) asker: Asker,
    pub(super) who: Identity,
    pub(super) link: LinkId,
    pub(super) key: Key,
    pub(super) len: u64,
    pub(super) hash: Hash,
    pub(super) places: Vec<Place>,
    /// The next place to ask.
    pub(super) next: usize,
}

/// A value on its way from a client, or handed on by a worker.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) from: Giver,
    pub(super) who: Identity,
    pub(super) key: Key,
    pub(super) bytes: Bytes,
    pub(super) hash: Hash,
    /// Empty for the scheduler.
    pub(super) route: Vec<Place>,
}

/// Who gives a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Giver {
    /// This client, over this link, which hears when it was not taken.
    Client(u32, LinkId),
    /// A worker, which does not care.
    Worker,
}

impl World {
    pub(super) fn start_fetch(&mut self, fetch: Fetch) {
        let at = self.now + self.rng.micros(20, 2000);
        self.schedule(at, Due::Fetch(Box::new(fetch)));
    }

    /// A fetch reaches the next place that it has.
    pub(super) fn ask(&mut self, mut fetch: Box<Fetch>) {
        let Some(place) = fetch.places.get(fetch.next).cloned() else { return self.ask_scheduler(&fetch) };
        fetch.next += 1;
        let found = self.value_at(&place, fetch.key, fetch.who, fetch.hash).filter(|_| !self.is_mishap());
        match found {
            Some(bytes) => self.arrive(&fetch, Some(bytes)),
            None => {
                let at = self.now + self.rng.micros(100, 100_000);
                self.schedule(at, Due::Fetch(fetch));
            }
        }
    }

    fn ask_scheduler(&mut self, fetch: &Fetch) {
        let is_up = self.arrives(fetch.link).is_some() && self.blocked(fetch.link).is_none();
        let found = if is_up && !self.is_mishap() { self.relayed(fetch) } else { None };
        self.arrive(fetch, found);
    }

    fn relayed(&mut self, fetch: &Fetch) -> Option<Bytes> {
        match self.hub.scheduler.locate(fetch.key) {
            Location::Inline(bytes) => Some(bytes),
            Location::Held => self.hub.held.get(&fetch.key).map(|(bytes, _)| bytes.clone()),
            Location::Workers(workers) => workers.into_iter().find_map(|worker| self.relayed_from(worker, fetch)),
            Location::Nowhere => None,
        }
    }

    /// A value from a worker that is said to have it; the scheduler hears of one that answers and does not.
    fn relayed_from(&mut self, worker: WorkerId, fetch: &Fetch) -> Option<Bytes> {
        let link = *self.hub.seats.get(&Peer::Worker(worker))?;
        let Process::Worker(pid) = self.arrives(link)? else { return None };
        let is_there = |process: &WorkerProcess| {
            process.id() == Some(worker) && Process::Worker(pid) != fetch.asker.process && !process.is_frozen(self.now)
        };
        if !self.workers.get(&pid).is_some_and(is_there) || self.blocked(link).is_some() {
            return None;
        }
        let &Fetch { key, len, hash, .. } = fetch;
        let found = self.served(pid, key, Some(worker), hash);
        if found.is_none() && self.hub.scheduler.measure(key) == Some((len, hash)) {
            self.hub_event(Event::Unserved { worker, key, len, hash });
        }
        found
    }

    fn value_at(&mut self, place: &Place, key: Key, who: Identity, hash: Hash) -> Option<Bytes> {
        let (&pid, process) = self.workers.iter().find(|(_, process)| process.id() == Some(place.worker))?;
        assert!(place.grant.allows(&process.secret, key, who), "a grant for {key} that does not let its bearer in");
        if process.is_frozen(self.now) || process.is_shut(self.now) {
            return None;
        }
        self.served(pid, key, Some(place.worker), hash)
    }

    fn arrive(&mut self, fetch: &Fetch, bytes: Option<Bytes>) {
        if bytes.is_none() {
            *self.troubles.missed.entry(fetch.key).or_default() += 1;
            self.story.note(self.now, || general(format!("{:?} could not fetch {}", fetch.asker.process, fetch.key)));
        }
        let at = self.now + self.rng.micros(20, 2000) + Duration::from_nanos(fetch.len * BYTE_NANOS);
        self.schedule(at, Due::Fetched { asker: fetch.asker, key: fetch.key, hash: fetch.hash, bytes });
    }

    pub(super) fn start_upload(&mut self, upload: Upload) {
        let at = self.now + self.rng.micros(20, 3000) + Duration::from_nanos(upload.bytes.len() as u64 * BYTE_NANOS);
        self.schedule(at, Due::Upload(Box::new(upload)));
    }

    /// An upload is where it goes.
    pub(super) fn uploaded(&mut self, upload: Upload) {
        let Upload { from, who, key, bytes, hash, mut route } = upload;
        if route.is_empty() {
            let Giver::Client(client, link) = from else { return };
            if self.arrives(link).is_some() {
                return self.hub_holds(key.entry.client, key, bytes, hash);
            }
            return self.upload_failed(client, key.entry.seq);
        }
        let place = route.remove(0);
        let (mishap, is_answer_lost) = (self.is_mishap(), self.rng.chance(500));
        let process = self.workers.iter().find(|(_, process)| process.id() == Some(place.worker));
        let taker = process.filter(|(_, process)| !process.is_frozen(self.now) && !process.is_shut(self.now));
        if let Some((&pid, process)) = taker.filter(|_| !mishap || is_answer_lost) {
            let is_let_in = place.grant.allows_to_hand_on(&process.secret, key, who, &route);
            assert!(is_let_in, "a grant to write {key} that does not let its bearer in");
            let on = Upload { from: Giver::Worker, who: process.who, key, bytes: bytes.clone(), hash, route };
            self.written(pid, key, hash, bytes);
            if !on.route.is_empty() && !self.is_mishap() {
                self.start_upload(on);
            }
            if !mishap {
                return;
            }
        }
        // Not taken, or the answer was lost.
        if let Giver::Client(client, _) = from {
            self.upload_failed(client, key.entry.seq);
        }
    }

    /// A transfer fails for no reason that anybody can see.
    fn is_mishap(&mut self) -> bool {
        self.is_stormy() && self.rng.chance(30)
    }
}
