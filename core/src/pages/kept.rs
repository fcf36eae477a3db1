//! Blocks of memory that are done with, kept for a moment for whoever needs one next. Owns: how many, how large, and for how long. Must not
//! know: what was in them.
//!
//! A block that is used again costs nothing; a new one costs being filled with zeroes by the system, an eighth of all that it takes to
//! receive so many bytes. Programs that move one large value after the other need a block of much the same size each time.

use std::{
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long a block is kept at least; twice that at most.
const MOMENT: Duration = Duration::from_secs(1);
/// Larger ones go back to the system at once.
const MAX_BLOCK: usize = 128 << 20;
/// All of them together have no more bytes.
const MAX_BYTES: usize = 256 << 20;
/// A block is not given for less than its size divided by this.
const WASTE: usize = 2;

static KEPT: Mutex<Kept> = Mutex::new(Kept::new());

/// An empty list with room for `len` bytes, if there is a block that suits.
pub(super) fn take(len: usize) -> Option<Vec<u8>> {
    KEPT.lock().take(len)
}

/// Keeps a block, or gives it back to the system.
pub(super) fn put(block: Vec<u8>) {
    let mut kept = KEPT.lock();
    let refused = kept.put(block, Instant::now());
    let needs_sweeper = !kept.blocks.is_empty() && !kept.is_swept;
    kept.is_swept |= needs_sweeper;
    drop(kept);
    drop(refused);
    if needs_sweeper && thread::Builder::new().name("quicsand-memory".into()).spawn(sweep).is_err() {
        // Nobody would ever let go of them.
        let blocks = KEPT.lock().clear();
        drop(blocks);
    }
}

/// Bytes that are kept.
pub(super) fn bytes() -> u64 {
    KEPT.lock().bytes as u64
}

/// Lets go of what was not used for a moment, until nothing is left.
fn sweep() {
    loop {
        thread::sleep(MOMENT);
        let (old, is_done) = KEPT.lock().sweep(Instant::now());
        drop(old);
        if is_done {
            return;
        }
    }
}

#[derive(Debug)]
struct Kept {
    /// With the time since when, the oldest first.
    blocks: Vec<(Instant, Vec<u8>)>,
    bytes: usize,
    /// A thread sees to it that they do not stay.
    is_swept: bool,
}

impl Kept {
    const fn new() -> Self {
        Self { blocks: Vec::new(), bytes: 0, is_swept: false }
    }

    /// The smallest block that has room for `len` bytes and does not waste much.
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let fitting = self.blocks.iter().enumerate().map(|(at, (_, block))| (block.capacity(), at));
        let (capacity, at) = fitting.filter(|&(capacity, _)| capacity >= len && capacity / WASTE <= len).min()?;
        self.bytes -= capacity;
        Some(self.blocks.remove(at).1)
    }

    /// Keeps a block, and gives back what is too much, the oldest first.
    fn put(&mut self, mut block: Vec<u8>, now: Instant) -> Vec<Vec<u8>> {
        if block.capacity() > MAX_BLOCK {
            return vec![block];
        }
        block.clear();
        self.bytes += block.capacity();
        self.blocks.push((now, block));
        let mut left = self.bytes;
        let too_many = self.blocks.iter().take_while(|(_, block)| {
            let is_too_much = left > MAX_BYTES;
            left -= block.capacity();
            is_too_much
        });
        let too_many = too_many.count();
        self.remove(too_many)
    }

    /// What was kept for a moment. The flag says that nothing is left, and that nobody needs to look again.
    fn sweep(&mut self, now: Instant) -> (Vec<Vec<u8>>, bool) {
        let old = self.blocks.iter().take_while(|(since, _)| now.saturating_duration_since(*since) >= MOMENT).count();
        let old = self.remove(old);
        self.is_swept = !self.blocks.is_empty();
        (old, !self.is_swept)
    }

    /// Takes all out; nobody looks after them any more.
    fn clear(&mut self) -> Vec<Vec<u8>> {
        self.is_swept = false;
        self.remove(self.blocks.len())
    }

    fn remove(&mut self, count: usize) -> Vec<Vec<u8>> {
        let blocks: Vec<_> = self.blocks.drain(..count).map(|(_, block)| block).collect();
        self.bytes -= blocks.iter().map(Vec::capacity).sum::<usize>();
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn block(mib: usize) -> Vec<u8> {
        Vec::with_capacity(mib * MIB)
    }

    #[test]
    fn the_smallest_block_that_fits_is_given() {
        let (mut kept, now) = (Kept::new(), Instant::now());
        for mib in [16, 8, 12] {
            assert!(kept.put(vec![7; mib * MIB], now).is_empty());
        }
        let given = kept.take(7 * MIB).expect("8 MiB fit");
        assert_eq!((given.len(), given.capacity()), (0, 8 * MIB));
        assert_eq!(kept.take(7 * MIB).map(|block| block.capacity()), Some(12 * MIB));
        assert_eq!(kept.take(7 * MIB), None, "16 MiB are too much for that");
        assert_eq!(kept.take(17 * MIB), None);
        assert_eq!(kept.bytes, 16 * MIB);
    }

    #[test]
    fn no_more_is_kept_than_allowed_and_the_oldest_goes_first() {
        let (mut kept, now) = (Kept::new(), Instant::now());
        assert_eq!(kept.put(block(129), now).len(), 1);
        assert_eq!(kept.bytes, 0);
        for _ in 0..2 {
            assert!(kept.put(block(100), now).is_empty());
        }
        assert!(kept.put(block(56), now).is_empty());
        let gone: Vec<_> = kept.put(block(90), now).iter().map(Vec::capacity).collect();
        assert_eq!(gone, [100 * MIB]);
        assert_eq!(kept.bytes, (100 + 56 + 90) * MIB);
    }

    #[test]
    fn nothing_stays_that_is_not_used() {
        let (mut kept, start) = (Kept::new(), Instant::now());
        kept.put(block(8), start);
        kept.put(block(9), start + MOMENT / 2);
        assert_eq!(kept.sweep(start + MOMENT / 2), (Vec::new(), false));
        let (old, is_done) = kept.sweep(start + MOMENT);
        assert_eq!((old.len(), old[0].capacity(), is_done), (1, 8 * MIB, false));
        let (old, is_done) = kept.sweep(start + 2 * MOMENT);
        assert_eq!((old.len(), is_done, kept.bytes), (1, true, 0));
        kept.put(block(8), start);
        assert_eq!((kept.clear().len(), kept.bytes, kept.is_swept), (1, 0, false));
    }
}
