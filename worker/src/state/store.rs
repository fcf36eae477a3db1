//! The values that a worker has. Owns: the recent small results, on which nobody counts and which are bounded; held values, of which the
//! scheduler knows and says when to forget them, are on the shelf. Must not know: runs.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quicsand::{codec::Span, ids::Key};

use super::{Action, Budget, shelf::Shelf};

/// Number of recent small results that are kept.
const RECENT_VALUES: usize = 4096;
/// Bytes of them.
const RECENT_BYTES: usize = 16 << 20;

/// Values by key.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) shelf: Shelf,
    recent: BTreeMap<Key, (u64, Bytes)>,
    /// With those that were forgotten or replaced since, for some time.
    recent_order: VecDeque<(u64, Key)>,
    recent_bytes: usize,
    clock: u64,
}

impl Store {
    pub(super) fn new(budget: Budget) -> Self {
        Self { shelf: Shelf::new(budget), recent: BTreeMap::new(), recent_order: VecDeque::new(), recent_bytes: 0, clock: 0 }
    }

    /// A small result of late.
    pub(super) fn recent(&self, key: Key) -> Option<Bytes> {
        self.recent.get(&key).map(|(_, bytes)| bytes.clone())
    }

    /// The registration is over: keeps what is held, for the next one.
    pub(super) fn rest(&mut self) {
        self.shelf.unpin_all();
        self.recent.clear();
        self.recent_order.clear();
        self.recent_bytes = 0;
    }

    /// Whether a value is held, or recent.
    pub(super) fn has(&self, key: Key) -> bool {
        self.recent.contains_key(&key) || self.shelf.look(key).is_some()
    }

    /// Remembers a small result for a while.
    pub(super) fn remember(&mut self, key: Key, value: Bytes) {
        self.forget(key);
        self.clock += 1;
        self.recent_bytes += value.len();
        self.recent.insert(key, (self.clock, value));
        self.recent_order.push_back((self.clock, key));
        while self.recent.len() > RECENT_VALUES || self.recent_bytes > RECENT_BYTES || self.recent_order.len() > 2 * RECENT_VALUES
        {
            let Some((clock, oldest)) = self.recent_order.pop_front() else { break };
            if self.recent.get(&oldest).is_some_and(|(last, _)| *last == clock) {
                self.forget(oldest);
            }
        }
    }

    /// Forgets every value of `span`.
    pub(super) fn free(&mut self, span: Span, actions: &mut Vec<Action>) {
        self.shelf.free(span, actions);
        let keys = span.entry.key(span.first)..span.entry.key(span.first.saturating_add(span.count));
        for key in self.recent.range(keys).map(|(&key, _)| key).collect::<Vec<_>>() {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some((_, value)) = self.recent.remove(&key) {
            self.recent_bytes -= value.len();
        }
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn check(&self) {
        self.shelf.check();
        assert_eq!(self.recent_bytes, self.recent.values().map(|(_, bytes)| bytes.len()).sum::<usize>());
        assert!(self.recent.len() <= RECENT_VALUES && self.recent_bytes <= RECENT_BYTES);
        assert!(self.recent_order.len() <= 2 * RECENT_VALUES && self.recent_order.iter().is_sorted());
        for (&key, &(clock, _)) in &self.recent {
            assert!(self.recent_order.binary_search(&(clock, key)).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use quicsand::ids::{ClientId, EntryId, Hash};

    use super::*;

    const ENTRY: EntryId = EntryId { client: ClientId(1), seq: 7 };

    #[test]
    fn held_values_stay_until_freed() {
        let (mut store, mut actions) = (Store::new(Budget::MUCH), Vec::new());
        for i in 0..10 {
            store.shelf.hold(ENTRY.key(i), Hash([i as u8; 32]), Bytes::from(vec![0; 10]), &mut actions);
        }
        store.shelf.hold(ENTRY.key(3), Hash([9; 32]), Bytes::from(vec![0; 5]), &mut actions);
        store.check();
        assert_eq!(store.shelf.bytes(), 95);
        store.free(Span { entry: ENTRY, first: 2, count: 7 }, &mut actions);
        store.check();
        assert_eq!((store.shelf.bytes(), store.has(ENTRY.key(3))), (30, false));
        assert!(store.has(ENTRY.key(9)));
        store.free(Span { entry: ENTRY, first: 0, count: u64::MAX }, &mut actions);
        assert_eq!((store.shelf.bytes(), actions.len()), (0, 0));
    }

    #[test]
    fn recent_values_are_bounded_by_number_and_bytes() {
        let mut store = Store::new(Budget::MUCH);
        for i in 0..=RECENT_VALUES as u64 {
            store.remember(ENTRY.key(i), Bytes::from_static(b"x"));
            store.remember(ENTRY.key(i), Bytes::from_static(b"xy"));
        }
        store.check();
        assert_eq!((store.recent(ENTRY.key(0)), store.has(ENTRY.key(1))), (None, true));
        store.remember(ENTRY.key(0), Bytes::from(vec![0; RECENT_BYTES]));
        store.check();
        assert_eq!((store.recent.len(), store.shelf.bytes()), (1, 0));
    }
}
