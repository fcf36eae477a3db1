//! Programs' modules, by hash: announced by clients, uploaded once, asked for by workers. Must not know: what is in them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    ids::Hash,
    net::{Reserved, Room},
    wire::operator::ModuleStatus,
};

/// How long a worker waits for a module that a client has announced.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of all modules at a time.
const MODULE_BYTES: u64 = 4 << 30;
/// Modules of clients that have left are kept up to this size together, for when they come again.
const KEPT_BYTES: usize = 256 << 20;

pub(super) struct Modules {
    shelf: Mutex<Shelf>,
    changed: Notify,
    /// For modules that are here, or on their way.
    pub(super) room: Arc<Room>,
}

impl Default for Modules {
    fn default() -> Self {
        Self { shelf: Mutex::default(), changed: Notify::new(), room: Room::new(MODULE_BYTES) }
    }
}

#[derive(Default)]
struct Shelf {
    modules: HashMap<Hash, Entry>,
    /// Counts announcements, to tell which module was wanted longest ago.
    clock: u64,
}

#[derive(Default)]
struct Entry {
    bytes: Option<Bytes>,
    /// What they take up.
    room: Option<Reserved>,
    clients: usize,
    wanted_at: u64,
}

impl Modules {
    /// A client is here whose program has this module; whether it should upload it.
    pub(super) fn announce(&self, hash: Hash) -> bool {
        let mut shelf = self.shelf.lock();
        shelf.clock += 1;
        let now = shelf.clock;
        let entry = shelf.modules.entry(hash).or_default();
        entry.clients += 1;
        entry.wanted_at = now;
        entry.bytes.is_none()
    }

    /// Whether a module that was announced should be uploaded.
    pub(super) fn is_wanted(&self, hash: Hash) -> bool {
        self.shelf.lock().modules.get(&hash).is_none_or(|entry| entry.bytes.is_none())
    }

    /// That client has left. Gives the modules that are forgotten.
    pub(super) fn withdraw(&self, hash: Hash) -> Vec<Hash> {
        let mut shelf = self.shelf.lock();
        if let Some(entry) = shelf.modules.get_mut(&hash) {
            entry.clients -= 1;
        }
        let gone = shelf.tidy();
        self.changed.notify_waiters();
        gone
    }

    /// Takes an announced module, whose bytes were checked, with the room that they take up.
    ///
    /// # Errors
    /// When nobody has announced it.
    pub(super) fn put(&self, hash: Hash, bytes: Bytes, room: Reserved) -> Result<(), String> {
        let mut shelf = self.shelf.lock();
        let entry = shelf.modules.get_mut(&hash).ok_or("nobody has announced this module")?;
        (entry.bytes, entry.room) = (Some(bytes), Some(room));
        self.changed.notify_waiters();
        Ok(())
    }

    /// Those that are here or announced, by hash.
    pub(super) fn list(&self) -> Vec<ModuleStatus> {
        let status = |(&hash, entry): (&Hash, &Entry)| ModuleStatus {
            hash,
            bytes: entry.bytes.as_ref().map(|bytes| bytes.len() as u64),
            clients: entry.clients as u64,
        };
        let mut list: Vec<_> = self.shelf.lock().modules.iter().map(status).collect();
        list.sort_by_key(|module| module.hash);
        list
    }

    /// The module, once it is here; `None` if nobody has announced it, or its client does not upload it in time.
    pub(super) async fn get(&self, hash: Hash) -> Option<Bytes> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before the look, so that no change slips in between.
            changed.as_mut().enable();
            if let Some(bytes) = &self.shelf.lock().modules.get(&hash)?.bytes {
                return Some(bytes.clone());
            }
            timeout_at(deadline, changed).await.ok()?;
        }
    }
}

impl Shelf {
    /// Forgets what nobody announces and never came, and the oldest of what is unused and takes too much room.
    fn tidy(&mut self) -> Vec<Hash> {
        self.modules.retain(|_, entry| entry.clients > 0 || entry.bytes.is_some());
        let mut unused: Vec<_> = self.modules.iter().filter(|(_, entry)| entry.clients == 0).collect();
        unused.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.wanted_at));
        let mut kept = 0;
        let mut gone = Vec::new();
        for (hash, entry) in unused {
            kept += entry.bytes.as_ref().map_or(0, Bytes::len);
            if kept > KEPT_BYTES {
                gone.push(*hash);
            }
        }
        gone.iter().for_each(|hash| drop(self.modules.remove(hash)));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: Hash = Hash([7; 32]);

    fn put(modules: &Modules, hash: Hash, bytes: Bytes) -> Result<(), String> {
        let room = modules.room.reserve(bytes.len() as u64, 0).expect("there is room");
        modules.put(hash, bytes, room)
    }

    #[tokio::test]
    async fn workers_wait_for_what_was_announced() {
        let modules = Modules::default();
        assert_eq!(modules.get(HASH).await, None);
        assert!(put(&modules, HASH, Bytes::from_static(b"x")).is_err());
        assert!(modules.announce(HASH));
        let (got, put) = tokio::join!(modules.get(HASH), async { put(&modules, HASH, Bytes::from_static(b"x")) });
        assert_eq!((got, put), (Some(Bytes::from_static(b"x")), Ok(())));
        assert!(!modules.announce(HASH));
    }

    #[tokio::test]
    async fn a_client_that_leaves_lets_nobody_wait() {
        let modules = Modules::default();
        modules.announce(HASH);
        let (got, ()) = tokio::join!(modules.get(HASH), async { drop(modules.withdraw(HASH)) });
        assert_eq!(got, None);
    }

    #[tokio::test]
    async fn unused_modules_are_kept_within_bounds() {
        let modules = Modules::default();
        let half = Bytes::from(vec![0; KEPT_BYTES / 2 + 1]);
        for i in 0..2 {
            modules.announce(Hash([i; 32]));
            put(&modules, Hash([i; 32]), half.clone()).expect("announced");
            let gone = modules.withdraw(Hash([i; 32]));
            assert_eq!(gone, if i == 0 { vec![] } else { vec![Hash([0; 32])] });
        }
        assert_eq!(modules.get(Hash([0; 32])).await, None);
        assert_eq!(modules.get(Hash([1; 32])).await, Some(half));
    }
}
