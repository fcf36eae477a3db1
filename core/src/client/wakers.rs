//! Who waits for what, of those who wait without a thread. Must not know: what wakes them.

use std::{collections::BTreeMap, ops::Range, task::Waker};

/// Wakers by what they wait for; each is woken once.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    /// By entry and index.
    items: BTreeMap<(u64, u64), Vec<Waker>>,
    credit: Vec<Waker>,
}

impl Wakers {
    /// Wakes when there is news of an item.
    pub(super) fn wait_for_item(&mut self, seq: u64, index: u64, waker: &Waker) {
        add(self.items.entry((seq, index)).or_default(), waker);
    }

    /// Wakes when there is more credit.
    pub(super) fn wait_for_credit(&mut self, waker: &Waker) {
        add(&mut self.credit, waker);
    }

    /// Moves those who wait for any of these items over to `due`.
    pub(super) fn take_items(&mut self, seq: u64, items: Range<u64>, due: &mut Vec<Waker>) {
        while let Some((&key, _)) = self.items.range((seq, items.start)..(seq, items.end)).next() {
            due.extend(self.items.remove(&key).into_iter().flatten());
        }
    }

    /// Moves those who wait for credit over to `due`.
    pub(super) fn take_credit(&mut self, due: &mut Vec<Waker>) {
        due.append(&mut self.credit);
    }

    /// Moves all over to `due`.
    pub(super) fn take_all(&mut self, due: &mut Vec<Waker>) {
        self.take_credit(due);
        due.extend(std::mem::take(&mut self.items).into_values().flatten());
    }
}

/// A task that is polled again and again waits once.
fn add(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|old| old.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_those_who_wait_for_it_are_woken() {
        let counters: Vec<Arc<Counter>> = (0..4).map(|_| Arc::default()).collect();
        let waker = |i: usize| Waker::from(Arc::clone(&counters[i]));
        let mut wakers = Wakers::default();
        let same = waker(0);
        wakers.wait_for_item(1, 0, &same);
        wakers.wait_for_item(1, 0, &same);
        wakers.wait_for_item(1, 9, &waker(1));
        wakers.wait_for_item(2, 0, &waker(2));
        wakers.wait_for_credit(&waker(3));
        let mut check = |take: &dyn Fn(&mut Wakers, &mut Vec<Waker>), expected: [usize; 4]| {
            let mut due = Vec::new();
            take(&mut wakers, &mut due);
            due.into_iter().for_each(Waker::wake);
            let woken: Vec<usize> = counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).collect();
            assert_eq!(woken, expected);
        };
        check(&|wakers, due| wakers.take_items(1, 0..9, due), [1, 0, 0, 0]);
        check(&|wakers, due| wakers.take_items(1, 0..9, due), [1, 0, 0, 0]);
        check(&|wakers, due| wakers.take_credit(due), [1, 0, 0, 1]);
        check(&|wakers, due| wakers.take_all(due), [1, 1, 1, 1]);
    }
}
