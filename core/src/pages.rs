//! Large memory on large pages. Owns: what is said to the system about memory that is about to be filled. Must not know: with what.
//!
//! Memory that is new to a process costs a fault a page when it is first touched, 3 us in a virtual machine: 50 ms for 64 MiB in pages of
//! 4 KiB, three times as much as copying them. In pages of 2 MiB it costs 10 ms, nearly all of it for filling them with zeroes. Systems
//! give those only where they are asked to.

use std::mem::MaybeUninit;

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
        bytes.reserve(more);
        advise(bytes.spare_capacity_mut());
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
