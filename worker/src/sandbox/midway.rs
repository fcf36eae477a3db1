//! What becomes of a batch before its end: results that are told early, and a part that is given up. Must not know: guests.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use quicsand::codec::Run;

/// Hears of a batch before its end, on the thread that runs it.
pub trait Listener: Send {
    /// The batch has only its first `count` items from now on.
    fn divided(&self, count: u32);

    /// Items from `first` on, counted from the batch's first, have these values and took so long together. The batch's result is of
    /// the items after them.
    fn part(&self, first: u32, values: Run, elapsed: Duration);
}

/// How far a batch is, and who hears of it.
#[derive(Default)]
pub(super) struct Midway {
    /// Whether it is to be divided.
    wanted: AtomicBool,
    /// Items at its end that were given up.
    given_up: AtomicU32,
    /// Items at its beginning whose values were told.
    told: AtomicU32,
    /// How long those took, in nanoseconds.
    told_nanos: AtomicU64,
    /// Its number of items, and who hears of it.
    heard: Mutex<Option<(u32, Box<dyn Listener>)>>,
}

impl std::fmt::Debug for Midway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Midway").field("given_up", &self.given_up).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Midway {
    pub(super) fn listen(&self, count: u32, listener: Box<dyn Listener>) {
        *self.heard.lock() = Some((count, listener));
    }

    /// The batch is to be divided.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Divides the batch if it is to be, and gives the number of items that it has then; so many of its items have begun.
    pub(super) fn divide(&self, begun: u32) -> Option<u32> {
        if !self.wanted.swap(false, Ordering::AcqRel) {
            return None;
        }
        let heard = self.heard.lock();
        let (all, listener) = heard.as_ref()?;
        // Whatever the guest says now.
        let begun = begun.max(self.told().0 + 1);
        let left = self.left_of(*all).checked_sub(begun).filter(|left| *left > 0)?;
        let count = begun + left / 2;
        self.given_up.store(all - count, Ordering::Release);
        listener.divided(count);
        Some(count)
    }

    /// How many items a batch has that had `count`.
    pub(super) fn left_of(&self, count: u32) -> u32 {
        count - self.given_up.load(Ordering::Acquire).min(count)
    }

    /// Whether values of items `first..end` may be told: they come after those that were, somebody hears of it, and it is not all.
    pub(super) fn may_tell(&self, first: u32, end: u32) -> bool {
        let heard = self.heard.lock();
        first == self.told().0 && heard.as_ref().is_some_and(|(all, _)| end < self.left_of(*all))
    }

    /// Tells values of the items that come next.
    pub(super) fn tell(&self, values: Run, elapsed: Duration) {
        let (first, count) = (self.told().0, values.count());
        if let Some((_, listener)) = &*self.heard.lock() {
            listener.part(first, values, elapsed);
            self.told.store(first + count, Ordering::Release);
            self.told_nanos.fetch_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        }
    }

    /// Items whose values were told, and how long they took.
    pub(super) fn told(&self) -> (u32, Duration) {
        (self.told.load(Ordering::Acquire), Duration::from_nanos(self.told_nanos.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// What a batch said: that it was divided, or first items and numbers of values.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(in super::super) enum Said {
        Divided(u32),
        Part(u32, u32),
    }

    /// Writes down what it hears.
    #[derive(Clone, Default)]
    pub(in super::super) struct Ears(pub(in super::super) Arc<Mutex<Vec<Said>>>);

    impl Listener for Ears {
        fn divided(&self, count: u32) {
            self.0.lock().push(Said::Divided(count));
        }

        fn part(&self, first: u32, values: Run, _: Duration) {
            self.0.lock().push(Said::Part(first, values.count()));
        }
    }

    fn one() -> Run {
        Run::single(bytes::Bytes::new()).expect("short")
    }

    #[test]
    fn a_batch_is_divided_where_it_is_and_says_so() {
        let (midway, ears) = (Midway::default(), Ears::default());
        midway.want();
        assert_eq!(midway.divide(1), None, "nobody hears of it");
        midway.listen(10, Box::new(ears.clone()));
        assert_eq!(midway.divide(1), None, "once for each time that it is asked for");
        midway.want();
        assert_eq!((midway.divide(3), midway.left_of(10)), (Some(6), 6), "of 7 that have not begun, 3 are left");
        midway.want();
        assert_eq!(midway.divide(5), Some(5), "a single one goes");
        midway.want();
        assert_eq!((midway.divide(5), midway.left_of(10)), (None, 5));
        assert_eq!(*ears.0.lock(), [Said::Divided(6), Said::Divided(5)]);
    }

    #[test]
    fn parts_follow_one_another_and_leave_something() {
        let (midway, ears) = (Midway::default(), Ears::default());
        assert!(!midway.may_tell(0, 1), "nobody hears of it");
        midway.listen(4, Box::new(ears.clone()));
        assert!(midway.may_tell(0, 3) && !midway.may_tell(1, 2) && !midway.may_tell(0, 4));
        midway.tell(one(), Duration::from_secs(1));
        assert!(midway.may_tell(1, 2) && !midway.may_tell(0, 2));
        midway.tell(one(), Duration::from_secs(2));
        midway.want();
        assert_eq!(midway.divide(0), Some(3), "what was told has begun");
        assert!(!midway.may_tell(2, 3), "it is the last one now");
        assert_eq!(midway.told(), (2, Duration::from_secs(3)));
        assert_eq!(*ears.0.lock(), [Said::Part(0, 1), Said::Part(1, 1), Said::Divided(3)]);
    }
}
