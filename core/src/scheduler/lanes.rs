//! Entries in the order in which they are to be run: higher priority first, then by arrival. Must not know: what is ready about them.
//!
//! Most become ready in the order of their arrival: these stand in a line. Those that become ready after later ones are kept apart from it.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{ascending::Ascending, entry::QueueKey};
use crate::ids::EntryId;

/// A lane a priority.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// At most one is empty, the last one to be left: that is where the next entry comes to, mostly.
    lanes: BTreeMap<Reverse<i32>, Lane>,
}

/// Entries of one priority, by arrival.
#[derive(Debug, Default)]
struct Lane {
    /// Those that came at its end.
    line: Ascending<u64, EntryId>,
    /// Those that belonged before that.
    late: BTreeMap<u64, EntryId>,
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// Puts one in that is not there.
    pub(super) fn insert(&mut self, (priority, arrival, id): QueueKey) {
        let Lane { line, late } = self.lanes.entry(priority).or_default();
        match line.last() {
            Some((&last, _)) if arrival < last => late.insert(arrival, id),
            _ => line.insert(arrival, id),
        };
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, (priority, arrival, _): &QueueKey) -> bool {
        let Some(Lane { line, late }) = self.lanes.get_mut(priority) else { return false };
        let was_there = line.remove(arrival).or_else(|| late.remove(arrival)).is_some();
        if self.lanes.len() > 1 && self.lanes.get(priority).is_some_and(Lane::is_empty) {
            self.lanes.remove(priority);
        }
        was_there
    }

    pub(super) fn first(&self) -> Option<QueueKey> {
        self.lanes.iter().find_map(|(&priority, lane)| lane.first().map(|(arrival, id)| (priority, arrival, id)))
    }

    /// The next one after this, which need not be there.
    pub(super) fn after(&self, (priority, arrival, _): QueueKey) -> Option<QueueKey> {
        self.lanes.range(priority..).find_map(|(&each, lane)| {
            let next = if each == priority { lane.after(arrival) } else { lane.first() };
            next.map(|(arrival, id)| (each, arrival, id))
        })
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = QueueKey> {
        std::iter::successors(self.first(), |&key| self.after(key))
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.line.is_empty() && self.late.is_empty()
    }

    fn first(&self) -> Option<(u64, EntryId)> {
        earlier(self.line.first(), self.late.first_key_value())
    }

    fn after(&self, arrival: u64) -> Option<(u64, EntryId)> {
        let next = arrival.checked_add(1)?;
        earlier(self.line.range(next..=u64::MAX).next(), self.late.range(next..).next())
    }
}

fn earlier(one: Option<(&u64, &EntryId)>, other: Option<(&u64, &EntryId)>) -> Option<(u64, EntryId)> {
    let found = match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    found.map(|(&arrival, &id)| (arrival, id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ids::ClientId;

    proptest::proptest! {
        #[test]
        fn behave_like_a_set(steps in proptest::collection::vec((0_u8..5, 0_i32..3, 0_u64..60), 0..200)) {
            let (mut lanes, mut model) = (Lanes::default(), BTreeSet::new());
            let mut next = 0;
            for (what, priority, number) in steps {
                let id = |seq| EntryId { client: ClientId(1), seq };
                let key = |arrival: u64| (Reverse(priority), arrival, id(arrival));
                match what {
                    0..=2 => {
                        next += 1;
                        let arrival = if what == 2 { number } else { next };
                        if model.insert(key(arrival)) {
                            lanes.insert(key(arrival));
                        }
                    }
                    3 => assert_eq!(lanes.remove(&key(number)), model.remove(&key(number))),
                    _ => {
                        if let Some(first) = model.pop_first() {
                            assert!(lanes.remove(&first));
                        }
                    }
                }
                assert!(lanes.iter().eq(model.iter().copied()));
                assert_eq!((lanes.first(), lanes.is_empty()), (model.first().copied(), model.is_empty()));
                let after = (std::ops::Bound::Excluded(key(number)), std::ops::Bound::Unbounded);
                assert_eq!(lanes.after(key(number)), model.range(after).next().copied());
                assert!(lanes.lanes.values().filter(|lane| lane.is_empty()).count() <= 1);
            }
        }
    }
}
