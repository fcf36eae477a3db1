//! The values that a worker has. Owns: held values (the scheduler knows of them and says when to forget them) and the recent small
//! results (nobody counts on them, they are bounded). Must not know: runs.

use std::collections::BTreeMap;

use bytes::Bytes;
use quicsand::{
    codec::Span,
    ids::{Hash, Key},
};

/// Number of recent small results that are kept.
const RECENT_VALUES: usize = 4096;
/// Bytes of them.
const RECENT_BYTES: usize = 16 << 20;

/// Values by key.
#[derive(Debug, Default)]
pub(super) struct Store {
    held: BTreeMap<Key, (Hash, Bytes)>,
    held_bytes: u64,
    recent: BTreeMap<Key, (u64, Bytes)>,
    recent_order: BTreeMap<u64, Key>,
    recent_bytes: usize,
    clock: u64,
}

impl Store {
    /// A value, held or recent.
    pub(super) fn get(&self, key: Key) -> Option<Bytes> {
        self.held(key).map(|(_, bytes)| bytes).or_else(|| self.recent.get(&key).map(|(_, bytes)| bytes.clone()))
    }

    /// A held value and its hash.
    pub(super) fn held(&self, key: Key) -> Option<(Hash, Bytes)> {
        self.held.get(&key).cloned()
    }

    /// Bytes of held values.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Holds a value until it is freed; a value of the same key is replaced.
    pub(super) fn hold(&mut self, key: Key, hash: Hash, bytes: Bytes) {
        self.held_bytes += bytes.len() as u64;
        if let Some((_, old)) = self.held.insert(key, (hash, bytes)) {
            self.held_bytes -= old.len() as u64;
        }
    }

    /// Remembers a small result for a while.
    pub(super) fn remember(&mut self, key: Key, value: Bytes) {
        self.forget(key);
        self.clock += 1;
        self.recent_bytes += value.len();
        self.recent.insert(key, (self.clock, value));
        self.recent_order.insert(self.clock, key);
        while self.recent.len() > RECENT_VALUES || self.recent_bytes > RECENT_BYTES {
            let Some((_, &oldest)) = self.recent_order.first_key_value() else { break };
            self.forget(oldest);
        }
    }

    /// Forgets every value of `span`.
    pub(super) fn free(&mut self, span: Span) {
        let keys = span.entry.key(span.first)..span.entry.key(span.first.saturating_add(span.count));
        for key in self.held.range(keys.clone()).map(|(&key, _)| key).collect::<Vec<_>>() {
            if let Some((_, bytes)) = self.held.remove(&key) {
                self.held_bytes -= bytes.len() as u64;
            }
        }
        for key in self.recent.range(keys).map(|(&key, _)| key).collect::<Vec<_>>() {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some((clock, value)) = self.recent.remove(&key) {
            self.recent_order.remove(&clock);
            self.recent_bytes -= value.len();
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.held_bytes, self.held.values().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
        assert_eq!(self.recent_bytes, self.recent.values().map(|(_, bytes)| bytes.len()).sum::<usize>());
        assert!(self.recent.len() <= RECENT_VALUES && self.recent_bytes <= RECENT_BYTES);
        assert_eq!(self.recent.len(), self.recent_order.len());
        self.recent.iter().for_each(|(key, (clock, _))| assert_eq!(self.recent_order.get(clock), Some(key)));
    }
}

#[cfg(test)]
mod tests {
    use quicsand::ids::{ClientId, EntryId};

    use super::*;

    const ENTRY: EntryId = EntryId { client: ClientId(1), seq: 7 };

    #[test]
    fn held_values_stay_until_freed() {
        let mut store = Store::default();
        for i in 0..10 {
            store.hold(ENTRY.key(i), Hash([i as u8; 32]), Bytes::from(vec![0; 10]));
        }
        store.hold(ENTRY.key(3), Hash([9; 32]), Bytes::from(vec![0; 5]));
        store.check();
        assert_eq!(store.held_bytes(), 95);
        store.free(Span { entry: ENTRY, first: 2, count: 7 });
        store.check();
        assert_eq!((store.held_bytes(), store.get(ENTRY.key(3))), (30, None));
        assert!(store.get(ENTRY.key(9)).is_some());
        store.free(Span { entry: ENTRY, first: 0, count: u64::MAX });
        assert_eq!(store.held_bytes(), 0);
    }

    #[test]
    fn recent_values_are_bounded_by_number_and_bytes() {
        let mut store = Store::default();
        for i in 0..=RECENT_VALUES as u64 {
            store.remember(ENTRY.key(i), Bytes::from_static(b"x"));
            store.remember(ENTRY.key(i), Bytes::from_static(b"xy"));
        }
        store.check();
        assert_eq!((store.get(ENTRY.key(0)), store.get(ENTRY.key(1)).is_some()), (None, true));
        store.remember(ENTRY.key(0), Bytes::from(vec![0; RECENT_BYTES]));
        store.check();
        assert_eq!((store.recent.len(), store.held_bytes()), (1, 0));
    }
}
