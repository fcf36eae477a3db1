//! Held values, in memory and on disk. Owns: which of them are where, what goes to disk and when, and what files there are. Must not know:
//! runs, or how a file is written.
//!
//! Values beyond the memory that they may take up go to files, those used longest ago first. A value may be in both places: read back, it
//! keeps its file, and leaves memory without being written again. While it is written it is served from memory. A file whose value was
//! freed meanwhile goes once the disk is done with it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quicsand::{
    codec::Span,
    ids::{Hash, Key},
};

use super::{Action, Budget};

/// Held values by key.
#[derive(Debug)]
pub(super) struct Shelf {
    budget: Budget,
    values: BTreeMap<Key, Value>,
    /// Those in memory, by when they were used last.
    by_use: BTreeMap<u64, Key>,
    files: BTreeMap<u64, File>,
    next_file: u64,
    clock: u64,
    bytes: u64,
    memory_bytes: u64,
    /// Of those in memory, what is being written, to leave memory then.
    leaving_bytes: u64,
    /// Of those in memory, what runs use as inputs.
    pinned_bytes: u64,
    disk_bytes: u64,
    /// A file could not be written: the disk is done without.
    is_disk_broken: bool,
}

#[derive(Debug)]
struct Value {
    hash: Hash,
    len: u64,
    used: u64,
    memory: Option<Bytes>,
    file: Option<u64>,
    /// Runs that have it as an input: dropping it would free nothing.
    users: u32,
}

#[derive(Debug)]
struct File {
    key: Key,
    hash: Hash,
    len: u64,
    work: FileWork,
    /// Its value still is to be had.
    is_wanted: bool,
}

/// What the disk does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileWork {
    Writing,
    Reading,
    Nothing,
}

/// Where a held value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// In memory.
    Here { bytes: Bytes, hash: Hash },
    /// In this file.
    OnDisk { file: u64, len: u64, hash: Hash },
}

impl Shelf {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            values: BTreeMap::new(),
            by_use: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 0,
            clock: 0,
            bytes: 0,
            memory_bytes: 0,
            leaving_bytes: 0,
            pinned_bytes: 0,
            disk_bytes: 0,
            is_disk_broken: false,
        }
    }

    /// Where a value is, if it is held; counts as a use.
    pub(super) fn find(&mut self, key: Key) -> Option<Held> {
        self.touch(key);
        self.look(key)
    }

    /// Where a value is, if it is held.
    pub(super) fn look(&self, key: Key) -> Option<Held> {
        let Value { hash, len, memory, file, .. } = self.values.get(&key)?;
        match (memory, file) {
            (Some(bytes), _) => Some(Held::Here { bytes: bytes.clone(), hash: *hash }),
            (None, Some(file)) => Some(Held::OnDisk { file: *file, len: *len, hash: *hash }),
            (None, None) => None,
        }
    }

    /// Bytes of all held values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is room for so many bytes more, in memory or on disk.
    pub(super) fn has_room(&self, len: u64) -> bool {
        self.bytes.saturating_add(len) <= self.capacity()
    }

    /// Bytes of values that can be held.
    pub(super) fn capacity(&self) -> u64 {
        self.budget.memory.saturating_add(if self.is_disk_broken { 0 } else { self.budget.disk })
    }

    /// Bytes of values in memory, and of them those that are on their way out.
    pub(super) fn memory(&self) -> (u64, u64) {
        (self.memory_bytes, self.leaving_bytes)
    }

    /// Bytes in memory that runs use.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// Holds a value until it is freed; a value of the same key is replaced.
    pub(super) fn hold(&mut self, key: Key, hash: Hash, bytes: Bytes, actions: &mut Vec<Action>) {
        if self.values.get(&key).is_some_and(|value| value.hash != hash) {
            self.remove(key, actions);
        }
        let len = bytes.len() as u64;
        let value = self.values.entry(key).or_insert_with(|| {
            self.bytes += len;
            Value { hash, len, used: 0, memory: None, file: None, users: 0 }
        });
        if value.memory.is_none() {
            value.memory = Some(bytes);
            self.memory_bytes += len;
            self.pinned_bytes += if value.users > 0 { len } else { 0 };
        }
        self.touch(key);
    }

    /// A run has the value as an input.
    pub(super) fn pin(&mut self, key: Key, hash: Hash) {
        if let Some(value) = self.values.get_mut(&key).filter(|value| value.hash == hash) {
            value.users += 1;
            if value.users == 1 && value.memory.is_some() {
                self.pinned_bytes += value.len;
            }
        }
    }

    /// A run that had the value as an input is over.
    pub(super) fn unpin(&mut self, key: Key, hash: Hash) {
        if let Some(value) = self.values.get_mut(&key).filter(|value| value.hash == hash && value.users > 0) {
            value.users -= 1;
            if value.users == 0 && value.memory.is_some() {
                self.pinned_bytes -= value.len;
            }
        }
    }

    /// All runs are over.
    pub(super) fn unpin_all(&mut self) {
        self.values.values_mut().for_each(|value| value.users = 0);
        self.pinned_bytes = 0;
    }

    /// Number of held values.
    pub(super) fn count(&self) -> u64 {
        self.values.len() as u64
    }

    /// Every held value's key, length and hash.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, u64, Hash)> + '_ {
        self.values.iter().map(|(&key, value)| (key, value.len, value.hash))
    }

    /// Whether that value is held.
    pub(super) fn has(&self, key: Key, hash: Hash) -> bool {
        self.values.get(&key).is_some_and(|value| value.hash == hash)
    }

    /// Whether the disk has nothing to do.
    pub(super) fn is_still(&self) -> bool {
        self.files.values().all(|file| file.work == FileWork::Nothing)
    }

    /// Whether a file is there that holds a value.
    pub(super) fn has_file(&self, file: u64) -> bool {
        self.files.get(&file).is_some_and(|file| file.is_wanted)
    }

    /// Has a file read, unless that is under way.
    pub(super) fn load(&mut self, file: u64, actions: &mut Vec<Action>) {
        if let Some(File { len, hash, work: work @ FileWork::Nothing, .. }) = self.files.get_mut(&file) {
            *work = FileWork::Reading;
            actions.push(Action::Load { file, len: *len, hash: *hash });
        }
    }

    /// A file was read, or is damaged; gives what was in it. The value is in memory then if it is still wanted.
    pub(super) fn loaded(&mut self, file: u64, bytes: Option<Bytes>, actions: &mut Vec<Action>) -> Option<(Key, Hash)> {
        let File { key, hash, work, is_wanted, .. } = self.files.get_mut(&file)?;
        let (key, hash, is_wanted) = (*key, *hash, *is_wanted);
        *work = FileWork::Nothing;
        match bytes {
            _ if !is_wanted => self.unlink(file, actions),
            Some(bytes) => self.hold(key, hash, bytes, actions),
            None => self.damaged(file, actions),
        }
        Some((key, hash))
    }

    /// What is in a file is not what was written: the value is lost, unless it is in memory too.
    pub(super) fn damaged(&mut self, file: u64, actions: &mut Vec<Action>) {
        let Some(File { key, is_wanted: true, .. }) = self.files.get(&file) else { return };
        let key = *key;
        match self.values.get_mut(&key) {
            Some(Value { memory: Some(_), file: at, .. }) => {
                *at = None;
                self.let_go(file, actions);
            }
            _ => self.remove(key, actions),
        }
    }

    /// A file is written.
    pub(super) fn spilled(&mut self, file: u64, actions: &mut Vec<Action>) {
        let Some(File { len, work, is_wanted, .. }) = self.files.get_mut(&file) else { return };
        *work = FileWork::Nothing;
        if *is_wanted {
            self.leaving_bytes -= *len;
        } else {
            self.unlink(file, actions);
        }
    }

    /// A file could not be written: its value stays in memory, and so do all others from now on.
    pub(super) fn not_spilled(&mut self, file: u64) {
        self.is_disk_broken = true;
        if let Some(File { key, len, is_wanted, .. }) = self.files.remove(&file) {
            self.disk_bytes -= len;
            if is_wanted {
                self.leaving_bytes -= len;
                if let Some(value) = self.values.get_mut(&key) {
                    value.file = None;
                }
            }
        }
    }

    /// Forgets every value of `span`.
    pub(super) fn free(&mut self, span: Span, actions: &mut Vec<Action>) {
        let keys = span.entry.key(span.first)..span.entry.key(span.first.saturating_add(span.count));
        for key in self.values.range(keys).map(|(&key, _)| key).collect::<Vec<_>>() {
            self.remove(key, actions);
        }
    }

    fn touch(&mut self, key: Key) {
        if let Some(value) = self.values.get_mut(&key) {
            self.by_use.remove(&value.used);
            self.clock += 1;
            value.used = self.clock;
            if value.memory.is_some() {
                self.by_use.insert(value.used, key);
            }
        }
    }

    /// Has values leave memory until what is left fits, as far as that is possible. To be called after any change.
    pub(super) fn balance(&mut self, actions: &mut Vec<Action>) {
        let mut last = 0;
        while self.memory_bytes - self.leaving_bytes > self.budget.memory {
            let Some((&used, &key)) = self.by_use.range(last + 1..).next() else { return };
            self.evict(key, actions);
            last = used;
        }
    }

    /// Has a value leave memory, if that is possible and of use.
    fn evict(&mut self, key: Key, actions: &mut Vec<Action>) {
        let Some(value) = self.values.get_mut(&key).filter(|value| value.users == 0) else { return };
        let Some(bytes) = &value.memory else { return };
        match value.file.map(|file| self.files.get(&file).map(|file| file.work)) {
            Some(Some(FileWork::Writing)) => {}
            Some(_) => {
                value.memory = None;
                self.memory_bytes -= value.len;
                self.by_use.remove(&value.used);
            }
            None if self.is_disk_broken || self.disk_bytes.saturating_add(value.len) > self.budget.disk => {}
            None => {
                let file = self.next_file;
                self.next_file += 1;
                value.file = Some(file);
                self.disk_bytes += value.len;
                self.leaving_bytes += value.len;
                actions.push(Action::Spill { file, bytes: bytes.clone() });
                let (hash, len) = (value.hash, value.len);
                self.files.insert(file, File { key, hash, len, work: FileWork::Writing, is_wanted: true });
            }
        }
    }

    fn remove(&mut self, key: Key, actions: &mut Vec<Action>) {
        let Some(Value { len, used, memory, file, users, .. }) = self.values.remove(&key) else { return };
        self.bytes -= len;
        if memory.is_some() {
            self.memory_bytes -= len;
            self.by_use.remove(&used);
            self.pinned_bytes -= if users > 0 { len } else { 0 };
        }
        if let Some(file) = file {
            self.let_go(file, actions);
        }
    }

    /// A file is not wanted any more.
    fn let_go(&mut self, file: u64, actions: &mut Vec<Action>) {
        let Some(found) = self.files.get_mut(&file) else { return };
        found.is_wanted = false;
        match found.work {
            FileWork::Writing => self.leaving_bytes -= found.len,
            FileWork::Reading => {}
            FileWork::Nothing => self.unlink(file, actions),
        }
    }

    fn unlink(&mut self, file: u64, actions: &mut Vec<Action>) {
        if let Some(File { len, .. }) = self.files.remove(&file) {
            self.disk_bytes -= len;
            actions.push(Action::Unlink { file });
        }
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn check(&self) {
        let sum = |which: &dyn Fn(&Value) -> bool| {
            self.values.values().filter(|value| which(value)).map(|value| value.len).sum::<u64>()
        };
        let is_leaving = |value: &Value| value.file.is_some_and(|file| self.files[&file].work == FileWork::Writing);
        assert_eq!(self.bytes, sum(&|_| true));
        assert_eq!(self.memory_bytes, sum(&|value| value.memory.is_some()));
        assert_eq!(self.leaving_bytes, sum(&is_leaving));
        assert_eq!(self.pinned_bytes, sum(&|value| value.memory.is_some() && value.users > 0));
        assert_eq!(self.disk_bytes, self.files.values().map(|file| file.len).sum::<u64>());
        assert!(self.disk_bytes <= self.budget.disk, "the disk's cap holds");
        let in_memory = self.values.iter().filter(|(_, value)| value.memory.is_some());
        assert_eq!(self.by_use, in_memory.map(|(&key, value)| (value.used, key)).collect::<BTreeMap<_, _>>());
        for (key, value) in &self.values {
            assert!(value.memory.as_ref().is_none_or(|bytes| bytes.len() as u64 == value.len));
            match value.file {
                Some(file) => {
                    let found = &self.files[&file];
                    assert!(found.key == *key && found.hash == value.hash && found.len == value.len && found.is_wanted);
                    assert!(value.memory.is_some() || found.work != FileWork::Writing, "served from memory while it is written");
                }
                None => assert!(value.memory.is_some(), "{key} is somewhere"),
            }
        }
        let owned = self.values.values().filter(|value| value.file.is_some()).count();
        assert_eq!(owned, self.files.values().filter(|file| file.is_wanted).count());
        assert!(self.files.values().all(|file| file.is_wanted || file.work != FileWork::Nothing), "no file without a use");
        if self.memory_bytes - self.leaving_bytes > self.budget.memory {
            let could_leave = |value: &Value| {
                value.memory.is_some()
                    && value.users == 0
                    && !is_leaving(value)
                    && (value.file.is_some() || !self.is_disk_broken && self.disk_bytes + value.len <= self.budget.disk)
            };
            assert!(!self.values.values().any(could_leave), "nothing stays in memory beyond its cap that could leave");
        }
    }
}

#[cfg(test)]
mod tests {
    use quicsand::ids::{ClientId, EntryId};

    use super::*;

    const ENTRY: EntryId = EntryId { client: ClientId(1), seq: 7 };

    /// A shelf with room for 30 bytes in memory and 30 on disk, and what it asked of the disk.
    struct Rig {
        shelf: Shelf,
        actions: Vec<Action>,
    }

    impl Rig {
        fn new() -> Self {
            Self { shelf: Shelf::new(Budget { memory: 30, disk: 30, process: u64::MAX }), actions: Vec::new() }
        }

        fn told(&mut self) -> String {
            self.shelf.balance(&mut self.actions);
            self.shelf.check();
            let told = |action| match action {
                Action::Spill { file, bytes } => format!("spill {file} {}", bytes.len()),
                Action::Load { file, .. } => format!("load {file}"),
                Action::Unlink { file } => format!("unlink {file}"),
                other => panic!("{other:?}"),
            };
            self.actions.drain(..).map(told).collect::<Vec<_>>().join(", ")
        }

        fn hold(&mut self, index: u64) -> String {
            self.shelf.hold(ENTRY.key(index), hash(index), value(index), &mut self.actions);
            self.told()
        }

        fn spilled(&mut self, file: u64) -> String {
            self.shelf.spilled(file, &mut self.actions);
            self.told()
        }

        fn free(&mut self, index: u64) -> String {
            self.shelf.free(Span { entry: ENTRY, first: index, count: 1 }, &mut self.actions);
            self.told()
        }

        fn is_in_memory(&self, index: u64) -> bool {
            matches!(self.shelf.look(ENTRY.key(index)), Some(Held::Here { .. }))
        }
    }

    fn hash(index: u64) -> Hash {
        Hash([index as u8; 32])
    }

    fn value(index: u64) -> Bytes {
        Bytes::from(vec![index as u8; 10])
    }

    #[test]
    fn what_was_used_longest_ago_goes_to_disk() {
        let mut rig = Rig::new();
        (0..3).for_each(|index| assert_eq!(rig.hold(index), ""));
        rig.shelf.find(ENTRY.key(0));
        assert_eq!(rig.hold(3), "spill 0 10");
        assert!(rig.is_in_memory(1), "while it is written");
        assert_eq!(rig.spilled(0), "");
        assert!(!rig.is_in_memory(1) && rig.is_in_memory(0));
        assert_eq!((rig.shelf.bytes(), rig.shelf.memory()), (40, (30, 0)));
    }

    #[test]
    fn what_is_read_back_stays_on_disk_too() {
        let mut rig = Rig::new();
        (0..4).for_each(|index| drop(rig.hold(index)));
        rig.spilled(0);
        rig.shelf.load(0, &mut rig.actions);
        rig.shelf.load(0, &mut rig.actions);
        assert_eq!(rig.told(), "load 0", "read once");
        assert_eq!(rig.shelf.loaded(0, Some(value(0)), &mut rig.actions), Some((ENTRY.key(0), hash(0))));
        assert_eq!(rig.told(), "spill 1 10", "another one leaves instead");
        assert_eq!(rig.spilled(1), "");
        assert!(rig.is_in_memory(0) && !rig.is_in_memory(1));
        assert_eq!(rig.hold(4), "spill 2 10");
        rig.spilled(2);
        assert_eq!(rig.hold(5), "", "the one that has a file is not written again");
        assert!(!rig.is_in_memory(0));
        assert!(rig.shelf.has_room(0) && !rig.shelf.has_room(1));
    }

    #[test]
    fn freed_values_leave_no_file() {
        let mut rig = Rig::new();
        (0..5).for_each(|index| drop(rig.hold(index)));
        assert_eq!(rig.free(0), "", "it is being written");
        assert_eq!(rig.shelf.memory(), (40, 10));
        assert_eq!(rig.spilled(0), "unlink 0");
        assert_eq!(rig.spilled(1), "");
        rig.shelf.load(1, &mut rig.actions);
        assert_eq!(rig.told(), "load 1");
        assert_eq!(rig.free(1), "", "it is being read");
        assert_eq!(rig.shelf.loaded(1, Some(value(1)), &mut rig.actions), Some((ENTRY.key(1), hash(1))), "whoever waits gets it");
        assert_eq!(rig.told(), "unlink 1");
        assert_eq!(rig.shelf.look(ENTRY.key(1)), None);
        assert_eq!(rig.free(2), "");
    }

    #[test]
    fn a_damaged_file_is_a_lost_value() {
        let mut rig = Rig::new();
        (0..4).for_each(|index| drop(rig.hold(index)));
        rig.spilled(0);
        rig.shelf.load(0, &mut rig.actions);
        rig.told();
        assert!(rig.shelf.loaded(0, None, &mut rig.actions).is_some());
        assert_eq!(rig.told(), "unlink 0");
        assert_eq!((rig.shelf.look(ENTRY.key(0)), rig.shelf.bytes()), (None, 30));
    }

    #[test]
    fn a_disk_that_fails_is_done_without() {
        let mut rig = Rig::new();
        (0..4).for_each(|index| drop(rig.hold(index)));
        rig.shelf.not_spilled(0);
        assert_eq!(rig.told(), "");
        assert!(rig.is_in_memory(0) && !rig.shelf.has_room(0));
        assert_eq!(rig.hold(4), "", "nothing more is tried");
        assert_eq!(rig.shelf.capacity(), 30);
    }

    #[test]
    fn what_runs_use_stays_in_memory() {
        let mut rig = Rig::new();
        (0..3).for_each(|index| drop(rig.hold(index)));
        rig.shelf.pin(ENTRY.key(0), hash(0));
        rig.shelf.pin(ENTRY.key(1), hash(7));
        assert_eq!((rig.hold(3), rig.shelf.pinned_bytes()), ("spill 0 10".into(), 10));
        rig.spilled(0);
        assert!(rig.is_in_memory(0) && !rig.is_in_memory(1));
        rig.shelf.unpin(ENTRY.key(0), hash(0));
        rig.shelf.unpin(ENTRY.key(0), hash(0));
        assert_eq!((rig.hold(4), rig.shelf.pinned_bytes()), ("spill 1 10".into(), 0));
    }

    #[test]
    fn a_value_of_the_same_key_is_replaced() {
        let mut rig = Rig::new();
        (0..4).for_each(|index| drop(rig.hold(index)));
        rig.shelf.hold(ENTRY.key(0), hash(9), Bytes::from(vec![0; 5]), &mut rig.actions);
        assert_eq!((rig.told(), rig.shelf.bytes()), ("spill 1 10".into(), 35));
        assert_eq!(rig.spilled(0), "unlink 0");
    }
}
