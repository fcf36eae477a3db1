//! Stored values that cannot be read where they are said to be. Owns: how often that is tried again, what becomes of an item whose value is
//! lost for that again and again, and of a worker that does not have what it says. Must not know: how values are fetched.
//!
//! Readers that fail prove nothing of a worker: the path between them may be broken, or they may lie. So after some failures the value counts
//! as lost and is computed again, which is counted for the item alone. Only what a worker itself answered to the scheduler's own question is
//! counted for the worker.

use super::{
    Scheduler,
    entry::{Kind, Oddity},
    items::State,
    refusal::Refusal,
};
use crate::{
    TaskError, TaskErrorKind,
    ids::{Hash, Key, WorkerId},
    wire::ToClient,
};

/// A client may fail to fetch a value so often before its replicas count as lost.
const MAX_UNREACHABLE: u32 = 3;
/// An item's value may be lost so often because it could not be read, before the item fails. More often than [`MAX_UNSERVED`], so that no
/// worker alone fails a call that others can compute.
pub(super) const MAX_UNREAD: usize = 6;
/// So many values that it is said to have and does not have cost a worker its place: fewer than fail an item.
pub(super) const MAX_UNSERVED: u32 = 5;
/// Workers that are named as those who had a value.
const MAX_NAMED: usize = 3;

impl Scheduler {
    /// A client could not fetch a value from any of its places. It names it as its own: the item may be another client's that it took up.
    pub(super) fn unreachable(&mut self, mine: Key) {
        let key = self.origin(mine);
        let Some(entry) = self.entries.get_mut(&key.entry) else { return };
        let state = entry.items.state(key.index).filter(|state| state.is_stored() && entry.items.is_wanted(key.index));
        let Some(state) = state else { return };
        let is_irretrievable = state == State::Final || matches!(entry.kind, Kind::Data(_));
        if is_irretrievable && mine != key {
            return self.unreachable_to_taker(mine, key);
        }
        let oddity = entry.rare.oddities.entry(key.index).or_default();
        oddity.misses += 1;
        if oddity.misses < MAX_UNREACHABLE {
            return self.tell_stored(key);
        }
        oddity.misses = 0;
        if oddity.unread.len() + 1 >= MAX_UNREAD && mine != key {
            // Who only took it up cannot fail it for others.
            let message = "the result could not be fetched, however often it was computed again";
            return self.tell_lost_to_taker(mine, key, message);
        }
        self.lose_unread(key);
    }

    /// As [`unreachable`](Self::unreachable), of what was taken up and nobody can compute again: its client and all others keep it, and only
    /// who cannot get it does without.
    fn unreachable_to_taker(&mut self, mine: Key, key: Key) {
        let link = self.clients.get_mut(&mine.entry.client).and_then(|client| client.links.get_mut(&mine.entry.seq));
        let Some(link) = link else { return };
        link.misses += 1;
        if link.misses < MAX_UNREACHABLE {
            let start = link.items.start;
            let mut room = u64::MAX;
            self.report(key.entry, key.index..key.index + 1, mine.entry, start, &mut room);
            return;
        }
        link.misses = 0;
        let message = format!("the value {key} was there and could not be fetched, {MAX_UNREACHABLE} times: take it up again");
        self.tell_lost_to_taker(mine, key, message);
    }

    /// Whoever took a value up under its own name does without; the item itself stays as it is.
    fn tell_lost_to_taker(&mut self, mine: Key, key: Key, message: impl Into<String>) {
        let Some(entry) = self.entries.get(&key.entry) else { return };
        let error = TaskError::new(TaskErrorKind::DataLost, entry.name(), key, message);
        self.tell_client(mine.entry.client, ToClient::Failed { seq: mine.entry.seq, index: mine.index, error });
    }

    /// A stored value counts as lost because nobody could read it: it is computed again where it is needed, unless that has happened too
    /// often.
    pub(super) fn lose_unread(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key.entry) else { return };
        let Some(replicas) = entry.rare.stored.get(&key.index) else { return };
        let workers = replicas.workers.iter().filter_map(|id| self.fleet.workers.get(id)).take(MAX_NAMED);
        let names: Vec<_> = workers.map(|worker| worker.name.as_str()).collect();
        let place = if names.is_empty() { "the scheduler".to_owned() } else { names.join(" and ") };
        entry.rare.oddities.entry(key.index).or_default().unread.push(place);
        self.lose(key);
    }

    /// A worker that is here said to the shell that it does not have a value, or has another one in its place.
    pub(super) fn unserved(&mut self, id: WorkerId, key: Key, len: u64, hash: Hash) {
        let Some(entry) = self.entries.get_mut(&key.entry) else { return };
        let Some(replicas) = entry.rare.stored.get_mut(&key.index) else { return };
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        // It may have been told to forget it, or had another one, when it was asked.
        if (replicas.len, replicas.hash) != (len, hash) || !worker.holds.remove(&key) {
            return;
        }
        worker.handing.remove(&key);
        worker.held_bytes = worker.held_bytes.saturating_sub(len);
        worker.unserved += 1;
        let (name, count) = (worker.name.clone(), worker.unserved);
        tracing::warn!(worker = %id, name, %key, count, "a worker does not have a value that it says it has");
        let is_last = replicas.workers.iter().all(|&other| other == id) && !replicas.held && replicas.away.is_empty();
        if is_last && entry.spec().is_some() {
            entry.rare.oddities.entry(key.index).or_default().unread.push(name.clone());
        }
        self.note_gone(key, || format!("{name} (does not have it any more)"));
        // Whatever it has in its place.
        self.free_on(id, key);
        self.lose_replica(id, key);
        if count >= MAX_UNSERVED {
            self.refuse_worker(id, &Refusal::Unserved { count });
        }
    }
}

impl Oddity {
    /// Why an item is not computed again, if its value was lost too often because it could not be read.
    pub(super) fn unreadable(&self) -> Option<String> {
        (self.unread.len() >= MAX_UNREAD).then(|| {
            let places = self.unread.join(", then on ");
            format!("its result could not be read, however often it was computed again: it was on {places}")
        })
    }
}
