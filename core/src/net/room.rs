//! Room for bytes that are on their way in: taken before the first of them is read, so that peers together cannot send more than there
//! is. Must not know: whose bytes, and where they are kept.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// So many bytes may be on their way in at a time.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    taken: AtomicU64,
}

/// Room that is taken; given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    /// Room for `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicU64::new(0) })
    }

    /// Takes room for `bytes` more, where `used` are taken up otherwise; `None` if there is not so much.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, bytes: u64, used: u64) -> Option<Reserved> {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|&sum| sum.saturating_add(used) <= self.limit);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Reserved { room: Arc::clone(self), bytes })
    }

    /// How much there is in all, in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_back() {
        let room = Room::new(10);
        let six = room.reserve(6, 0).expect("there is room");
        assert!(room.reserve(5, 0).is_none() && room.reserve(u64::MAX, 0).is_none());
        assert!(room.reserve(3, 2).is_none(), "what is used otherwise counts");
        let four = room.reserve(4, 0).expect("there is room");
        drop(six);
        assert!(room.reserve(6, 0).is_some());
        drop(four);
        assert!(room.reserve(10, 0).is_some());
    }
}
