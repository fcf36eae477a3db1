//! What a worker has: labels, amounts of named resources, memory; and what of the resources is taken. Must not know: runs, queues.

use std::collections::BTreeMap;

use crate::{requirements::Requirements, wire::WorkerHello};

/// What a worker offers.
#[derive(Debug)]
pub(super) struct Offer {
    labels: BTreeMap<String, String>,
    resources: BTreeMap<String, Amount>,
    /// Bytes of memory that one item can have.
    pub(super) memory: u64,
}

/// So much of a resource.
#[derive(Clone, Copy, Debug)]
struct Amount {
    total: u64,
    taken: u64,
}

impl Offer {
    pub(super) fn of(hello: &WorkerHello) -> Self {
        let resources = hello.resources.iter().map(|(name, total)| (name.clone(), Amount { total: *total, taken: 0 }));
        Self {
            labels: hello.labels.iter().cloned().collect(),
            resources: resources.collect(),
            memory: hello.memory / u64::from(hello.slots.max(1)),
        }
    }

    /// The value of a label.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// How much there is of a resource, taken or not.
    pub(super) fn total(&self, name: &str) -> u64 {
        self.resources.get(name).map_or(0, |amount| amount.total)
    }

    /// How much of a resource is not taken.
    pub(super) fn free(&self, name: &str) -> u64 {
        self.resources.get(name).map_or(0, |amount| amount.total.saturating_sub(amount.taken))
    }

    /// The resources of which something is taken, and how much.
    pub(super) fn taken(&self) -> impl Iterator<Item = (&str, u64)> {
        self.resources.iter().filter(|(_, amount)| amount.taken > 0).map(|(name, amount)| (&**name, amount.taken))
    }

    /// Whether it has all of this, once nothing is taken.
    pub(super) fn has(&self, requires: &Requirements) -> bool {
        requires.labels().all(|(name, value)| self.label(name) == Some(value))
            && requires.resources().all(|(name, amount)| self.total(name) >= amount)
    }

    /// Whether enough of the resources is free.
    pub(super) fn has_free(&self, requires: &Requirements) -> bool {
        requires.resources().all(|(name, amount)| self.free(name) >= amount)
    }

    pub(super) fn take(&mut self, requires: &Requirements) {
        for (name, amount) in requires.resources() {
            if let Some(known) = self.resources.get_mut(name) {
                known.taken = known.taken.saturating_add(amount);
            }
        }
    }

    pub(super) fn give_back(&mut self, requires: &Requirements) {
        for (name, amount) in requires.resources() {
            if let Some(known) = self.resources.get_mut(name) {
                known.taken = known.taken.saturating_sub(amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_taken_and_given_back() {
        let hello = WorkerHello {
            slots: 4,
            memory: 1 << 32,
            labels: vec![("zone".into(), "a".into())],
            resources: vec![("gpu".into(), 2)],
            ..WorkerHello::default()
        };
        let mut offer = Offer::of(&hello);
        assert_eq!(offer.memory, 1 << 30);
        let mut one = Requirements::NONE;
        one.set_label("zone", "a");
        one.set_resource("gpu", 1);
        let mut three = one.clone();
        three.set_resource("gpu", 3);
        let mut elsewhere = one.clone();
        elsewhere.set_label("zone", "b");
        let mut other = Requirements::NONE;
        other.set_resource("tpu", 1);
        assert!(offer.has(&one) && !offer.has(&three) && !offer.has(&elsewhere) && !offer.has(&other));
        offer.take(&one);
        offer.take(&one);
        assert!(offer.has(&one) && !offer.has_free(&one));
        assert_eq!(offer.taken().collect::<Vec<_>>(), [("gpu", 2)]);
        offer.give_back(&one);
        assert!(offer.has_free(&one));
        assert_eq!(offer.free("gpu"), 1);
    }
}
