//! Large memory: on large pages, and used again. Owns: what is said to the system about memory that is about to be filled, and what becomes
//! of it afterwards. Must not know: what it is filled with.
//!
//! Memory that is new to a process costs a fault a page when it is first touched, 3 us in a virtual machine: 50 ms for 64 MiB in pages of
//! 4 KiB, three times as much as copying them. In pages of 2 MiB it costs 10 ms, nearly all of it for filling them with zeroes. Systems
//! give those only where they are asked to.

#[cfg(not(target_family = "wasm"))]
mod kept;

use std::mem::MaybeUninit;

use bytes::Bytes;

/// Less is left as it is: a large page that is mostly empty costs more than it saves.
const LARGE_BYTES: usize = 4 << 20;
/// What the system manages memory in, at most, unless it is asked for larger pages.
#[cfg(target_os = "linux")]
const PAGE_BYTES: usize = 64 << 10;

/// As [`Vec::reserve`]; on large pages, if it is much.
///
/// # Panics
/// As [`Vec::reserve`].
#[inline]
pub fn reserve(bytes: &mut Vec<u8>, more: usize) {
    if bytes.capacity() - bytes.len() < more {
        grow(bytes, more);
    }
}

#[cold]
fn grow(bytes: &mut Vec<u8>, more: usize) {
    #[cfg(not(target_family = "wasm"))]
    if more >= LARGE_BYTES
        && bytes.is_empty()
        && let Some(block) = kept::take(more)
    {
        *bytes = block;
        return;
    }
    bytes.reserve(more);
    advise(bytes.spare_capacity_mut());
}

/// The bytes, for anyone to read. Much memory is kept for a moment afterwards, for the next one who reserves as much.
#[must_use]
pub fn share(bytes: Vec<u8>) -> Bytes {
    #[cfg(not(target_family = "wasm"))]
    if bytes.capacity() >= LARGE_BYTES {
        return Bytes::from_owner(Block(bytes));
    }
    bytes.into()
}

/// Memory of this process that nobody uses, but which is kept for the next one who reserves as much.
#[cfg(not(target_family = "wasm"))]
#[must_use]
pub fn idle_bytes() -> u64 {
    kept::bytes()
}

/// Bytes whose memory is kept when nobody reads them any more.
#[cfg(not(target_family = "wasm"))]
struct Block(Vec<u8>);

#[cfg(not(target_family = "wasm"))]
impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(not(target_family = "wasm"))]
impl Drop for Block {
    fn drop(&mut self) {
        kept::put(std::mem::take(&mut self.0));
    }
}

/// An empty list with room for so many elements; on large pages, if it is much.
///
/// # Panics
/// As [`Vec::with_capacity`].
#[must_use]
pub fn with_capacity<T>(capacity: usize) -> Vec<T> {
    let mut list = Vec::with_capacity(capacity);
    advise(list.spare_capacity_mut());
    list
}

/// Asks for large pages where memory that is about to be filled is not there yet, if it is much.
pub fn advise<T>(memory: &mut [MaybeUninit<T>]) {
    if size_of_val(memory) >= LARGE_BYTES {
        advise_at(memory.as_ptr().cast(), size_of_val(memory));
    }
}

/// Asks for large pages at these addresses, whatever is there: it is not touched.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "advice is given by address")]
#[cold]
pub fn advise_at(start: *const u8, len: usize) {
    use rustix::mm::{Advice, madvise};

    let skipped = start.addr().next_multiple_of(PAGE_BYTES) - start.addr();
    let len = len.saturating_sub(skipped) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: this advice changes nothing that is in memory, whosever that is.
    let advised = unsafe { madvise(start.wrapping_add(skipped).cast_mut().cast(), len, Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::trace!(%error, "no large pages");
    }
}

/// Asks for nothing: this system is not known to give large pages.
#[cfg(not(target_os = "linux"))]
pub fn advise_at(_: *const u8, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_shared_bytes_is_used_again() {
        const SIZE: usize = 5 * LARGE_BYTES;
        let comes_back = || {
            let shared = share(vec![7; SIZE]);
            let (start, part) = (shared.as_ptr(), shared.slice(1..3));
            drop(shared);
            let early = kept::take(SIZE).is_some_and(|block| block.as_ptr() == start);
            assert!(!early && part == [7, 7][..], "somebody reads it");
            drop(part);
            kept::take(SIZE).is_some_and(|block| block.is_empty() && block.as_ptr() == start)
        };
        // It can take longer than a moment to get there, and another test can take it.
        assert!((0..100).any(|_| comes_back()));
    }

    #[test]
    fn what_is_there_stays() {
        let mut bytes = vec![7; 3];
        reserve(&mut bytes, 5 * LARGE_BYTES);
        assert_eq!(bytes, [7; 3]);
        assert!(bytes.capacity() >= 3 + 5 * LARGE_BYTES);
        bytes.resize(2 * LARGE_BYTES, 8);
        let (room, capacity) = (bytes.as_ptr(), bytes.capacity());
        reserve(&mut bytes, 3 * LARGE_BYTES);
        assert_eq!((room, capacity), (bytes.as_ptr(), bytes.capacity()), "there was room");
        assert!(bytes[..3] == [7; 3] && bytes[3..].iter().all(|&byte| byte == 8));
        assert!(with_capacity::<u64>(LARGE_BYTES).capacity() >= LARGE_BYTES);
        assert_eq!(with_capacity::<u64>(0).capacity(), 0);
    }
}
