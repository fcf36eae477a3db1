//! When a guest has to stop: cancellation, time, memory. Must not know: what any task does, or how an error is worded.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use quicsand::codec::Run as Values;
use wasmtime::ResourceLimiter;

use super::midway::{Listener, Midway};

/// A batch that takes longer than so tells what it has finished, and again after as long.
const SILENCE: Duration = Duration::from_millis(100);

/// Cancels items of a running batch from another thread, or has it end early. Clones speak of the same batch; one is made a batch.
///
/// An item that finishes before its cancellation is noticed keeps its value.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    any: AtomicBool,
    /// Cancelled items: ascending, neither overlapping nor touching.
    cancelled: Mutex<Vec<Range<u32>>>,
    wake: Condvar,
    midway: Midway,
}

impl Control {
    /// Nothing is cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels `count` items from `first` on, counted from the batch's first. Items past its end are ignored.
    pub fn cancel(&self, first: u32, count: u32) {
        if count == 0 {
            return;
        }
        let mut new = first..first.saturating_add(count);
        let mut cancelled = self.0.cancelled.lock();
        let from = cancelled.partition_point(|range| range.end < new.start);
        let to = cancelled.partition_point(|range| range.start <= new.end);
        if let (Some(left), Some(right)) = (cancelled.get(from), to.checked_sub(1).and_then(|at| cancelled.get(at)))
            && from < to
        {
            new = new.start.min(left.start)..new.end.max(right.end);
        }
        cancelled.splice(from..to, [new]);
        self.0.any.store(true, Ordering::Release);
        self.0.wake.notify_all();
    }

    /// Cancels everything that has not finished.
    pub fn cancel_all(&self) {
        self.cancel(0, u32::MAX);
    }

    /// Whether `item`, counted from the batch's first, is cancelled.
    #[must_use]
    pub fn is_cancelled(&self, item: u32) -> bool {
        self.0.any.load(Ordering::Acquire) && covers(&self.0.cancelled.lock(), item)
    }

    /// The first cancelled item in `range`, or its end.
    pub(crate) fn next_cancelled(&self, range: Range<u32>) -> u32 {
        if !self.0.any.load(Ordering::Acquire) {
            return range.end;
        }
        let cancelled = self.0.cancelled.lock();
        let at = cancelled.partition_point(|cancelled| cancelled.end <= range.start);
        cancelled.get(at).map_or(range.end, |cancelled| cancelled.start.clamp(range.start, range.end))
    }

    /// Has somebody hear of a batch of `count` items before its end.
    pub fn listen(&self, count: u32, listener: impl Listener + 'static) {
        self.0.midway.listen(count, Box::new(listener));
    }

    /// Has the batch end after half of the items that have not begun, soon, if somebody hears of it and there are any.
    pub fn divide(&self) {
        self.0.midway.want();
        // Whoever is about to sleep has either seen it or is woken.
        drop(self.0.cancelled.lock());
        self.0.wake.notify_all();
    }

    /// How far the batch is.
    pub(super) fn midway(&self) -> &Midway {
        &self.0.midway
    }

    /// The items of a batch of `count` whose end was neither told nor given up.
    pub fn untold(&self, count: u32) -> Range<u32> {
        let left = self.left_of(count);
        self.0.midway.told().0.min(left)..left
    }

    /// How many items a batch has that had `count`.
    pub(crate) fn left_of(&self, count: u32) -> u32 {
        self.0.midway.left_of(count)
    }

    /// Blocks until `until` (for ever if `None`), until `item` is cancelled, or until the batch is to be divided.
    pub(crate) fn sleep(&self, item: u32, until: Option<Instant>) {
        let mut cancelled = self.0.cancelled.lock();
        while !covers(&cancelled, item) && !self.0.midway.is_wanted() {
            match until {
                Some(until) => {
                    if self.0.wake.wait_until(&mut cancelled, until).timed_out() {
                        return;
                    }
                }
                None => self.0.wake.wait(&mut cancelled),
            }
        }
    }
}

fn covers(cancelled: &[Range<u32>], item: u32) -> bool {
    let at = cancelled.partition_point(|range| range.end <= item);
    cancelled.get(at).is_some_and(|range| range.start <= item)
}

/// A limit that two have a say in; the smaller of what they say holds, and there is none where neither says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit<T> {
    /// What the task, or its call, asks for.
    pub(crate) wish: Option<T>,
    /// What the worker's owner allows.
    pub(crate) cap: Option<T>,
}

impl<T: Copy + Ord> Limit<T> {
    /// What holds.
    pub(crate) fn in_force(&self) -> Option<T> {
        self.wish.into_iter().chain(self.cap).min()
    }

    /// Whether it is the owner's.
    pub(crate) fn is_owners(&self) -> bool {
        self.cap.is_some_and(|cap| self.wish.is_none_or(|wish| cap < wish))
    }
}

/// Why the host stopped a guest. Travels as the cause of a wasmtime error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("cancelled")]
    Cancelled,
    #[error("over the time limit")]
    Time { limit: Limit<Duration> },
    #[error("over the memory limit")]
    Memory { limit: Limit<u64>, peak: u64 },
    #[error("it wanted a table of {wanted} functions, the worker's owner allows {cap} (--table-limit)")]
    Table { wanted: usize, cap: u32 },
    #[error("exit({0})")]
    Exit(i32),
    #[error("the module breaks the guest ABI: {0}")]
    Lie(&'static str),
}

/// Watches which item a guest is at, and when that item has to stop.
#[derive(Debug)]
pub(crate) struct Watch {
    control: Control,
    /// The call's first item, counted from the batch's first.
    first: u32,
    /// Items in the call.
    count: u32,
    limit: Limit<Duration>,
    /// The last value of the guest's `started` that was seen.
    seen: u32,
    /// Since when.
    since: Instant,
    /// The call's finished items whose values were told, and the bytes of these.
    told: (u32, u32),
    /// Since when nothing was told, and since when nobody looked for something to tell.
    silent: Instant,
    unseen: Instant,
}

impl Watch {
    /// A watch over a call of `items`, not begun. Until it begins, all time is the first item's.
    pub(crate) fn new(control: &Control, items: &Range<u32>, limit: Limit<Duration>) -> Self {
        let now = Instant::now();
        Self {
            control: control.clone(),
            first: items.start,
            count: items.end - items.start,
            limit,
            seen: 0,
            since: now,
            told: (0, 0),
            silent: now,
            unseen: now,
        }
    }

    /// The first item's clock starts now.
    pub(crate) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// The item that a guest with this `started` is at, counted from the batch's first.
    pub(crate) fn item(&self, started: u32) -> u32 {
        self.first.saturating_add(started.saturating_sub(1))
    }

    /// Takes note of the guest's `started`, and says whether its item has to stop.
    ///
    /// An item that begins between two looks is timed from the second: its limit holds to within a tick.
    pub(crate) fn look(&mut self, started: u32) -> Result<(), Stop> {
        let now = Instant::now();
        if started < self.seen || started > self.count {
            return Err(Stop::Lie("it counts its items wrong"));
        }
        if started != self.seen {
            if started > 1 {
                self.since = now;
            }
            self.seen = started;
        }
        if self.control.is_cancelled(self.item(started)) {
            return Err(Stop::Cancelled);
        }
        match self.limit.in_force() {
            Some(limit) if now.duration_since(self.since) >= limit => Err(Stop::Time { limit: self.limit }),
            _ => Ok(()),
        }
    }

    /// Divides the batch if that was asked for; gives the number of items of this call that are left, if there are fewer then. So many of
    /// them have begun.
    pub(crate) fn divide(&self, begun: u32) -> Option<u32> {
        let left = self.control.midway().divide(self.first.saturating_add(begun))?.saturating_sub(self.first);
        (left < self.count).then_some(left)
    }

    /// What of `finished` items is to be told now, if anything: the call's items, and the bytes of those before them.
    pub(crate) fn next_part(&mut self, finished: u32) -> Option<(Range<u32>, u32)> {
        if self.unseen.elapsed() < SILENCE {
            return None;
        }
        self.unseen = Instant::now();
        self.may_tell(finished).then_some((self.told.0..finished, self.told.1))
    }

    /// Whether values of the call's items up to `finished` may be told.
    fn may_tell(&self, finished: u32) -> bool {
        let (first, end) = (self.first.saturating_add(self.told.0), self.first.saturating_add(finished));
        finished > self.told.0 && self.control.midway().may_tell(first, end)
    }

    /// Tells values of the items that are next.
    pub(crate) fn tell(&mut self, values: Values) {
        let now = Instant::now();
        // What is told has ended before the item began that the guest is at, if it is at one.
        let end = if self.seen > self.told.0 + values.count() { self.since } else { now };
        let elapsed = end.saturating_duration_since(self.silent);
        self.silent = self.silent.max(end);
        self.told.0 += values.count();
        self.told.1 += values.bytes().len() as u32;
        self.control.midway().tell(values, elapsed);
        // That it took long is no fault of the item's.
        self.since += now.elapsed();
    }

    /// Blocks until `until` (for ever if `None`), the item's time limit, its cancellation, a division of its batch, or until something is
    /// to be told; [`Watch::look`], [`Watch::divide`] and [`Watch::next_part`] then say which.
    pub(crate) fn sleep(&self, until: Option<Instant>) {
        let deadline = self.limit.in_force().and_then(|limit| self.since.checked_add(limit));
        // The one that sleeps has not finished.
        let part = self.may_tell(self.seen.saturating_sub(1)).then(|| self.unseen + SILENCE);
        let until = [until, deadline, part].into_iter().flatten().min();
        self.control.sleep(self.item(self.seen), until);
    }
}

/// What an instance may grow to. A request beyond it ends the item: a guest whose allocator merely fails would report a crash of
/// its own making, or none.
#[derive(Debug)]
pub(crate) struct Growth {
    /// Bytes of linear memory.
    pub(crate) memory: Limit<u64>,
    /// Elements of its table.
    pub(crate) table: u32,
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let peak = desired as u64;
        match self.memory.in_force() {
            Some(limit) if peak > limit => Err(wasmtime::Error::new(Stop::Memory { limit: self.memory, peak })),
            _ => Ok(true),
        }
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        match usize::try_from(self.table) {
            Ok(cap) if desired > cap => Err(wasmtime::Error::new(Stop::Table { wanted: desired, cap: self.table })),
            _ => Ok(true),
        }
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(time: Duration) -> Limit<Duration> {
        Limit { wish: Some(time), cap: None }
    }

    #[test]
    fn the_smaller_of_wish_and_cap_holds() {
        let check = |wish, cap, in_force, is_owners| {
            let limit = Limit { wish, cap };
            assert_eq!((limit.in_force(), limit.is_owners()), (in_force, is_owners), "{limit:?}");
        };
        check(None, None, None, false);
        check(Some(3), None, Some(3), false);
        check(None, Some(3), Some(3), true);
        check(Some(3), Some(4), Some(3), false);
        check(Some(4), Some(3), Some(3), true);
        check(Some(3), Some(3), Some(3), false);
    }

    #[test]
    fn cancelled_ranges_merge() {
        let control = Control::new();
        for (first, count) in [(10, 5), (20, 5), (0, 2), (15, 5), (2, 1), (22, 1), (7, 0)] {
            control.cancel(first, count);
        }
        assert_eq!(*control.0.cancelled.lock(), [0..3, 10..25]);
        let cancelled: Vec<u32> = (0..30).filter(|&item| control.is_cancelled(item)).collect();
        assert_eq!(cancelled, (0..3).chain(10..25).collect::<Vec<_>>());
        assert_eq!(control.next_cancelled(3..8), 8);
        assert_eq!(control.next_cancelled(3..12), 10);
        assert_eq!(control.next_cancelled(12..14), 12);
        assert_eq!(control.next_cancelled(25..26), 26);
        control.cancel_all();
        assert!(control.is_cancelled(u32::MAX - 1));
        assert_eq!(control.0.cancelled.lock().len(), 1);
    }

    #[test]
    fn a_sleeper_wakes_when_its_item_is_cancelled() {
        let control = Control::new();
        std::thread::scope(|scope| {
            scope.spawn(|| control.sleep(3, None));
            control.cancel(3, 1);
        });
    }

    #[test]
    fn a_sleeper_wakes_to_divide_its_batch() {
        let control = Control::new();
        std::thread::scope(|scope| {
            scope.spawn(|| control.sleep(3, None));
            control.divide();
        });
    }

    #[test]
    fn a_guest_that_counts_backwards_or_too_far_is_a_liar() {
        let mut watch = Watch::new(&Control::new(), &(0..4), Limit { wish: None, cap: None });
        assert_eq!(watch.look(2), Ok(()));
        assert!(matches!(watch.look(1), Err(Stop::Lie(_))));
        assert!(matches!(watch.look(5), Err(Stop::Lie(_))));
    }

    #[test]
    fn each_item_has_its_own_time() {
        let mut watch = Watch::new(&Control::new(), &(0..4), wish(Duration::ZERO));
        assert!(matches!(watch.look(1), Err(Stop::Time { .. })));
        let mut watch = Watch::new(&Control::new(), &(0..4), wish(Duration::from_secs(3600)));
        watch.since = watch.since.checked_sub(Duration::from_secs(3599)).unwrap_or(watch.since);
        let before = watch.since;
        assert_eq!(watch.look(1), Ok(()));
        assert_eq!(watch.since, before);
        assert_eq!(watch.look(2), Ok(()));
        assert!(watch.since > before);
    }
}
