//! The disks of workers: files are written and read one after the other, slowly, and may fail or be damaged without anybody noticing at
//! first. Must not know: which value is in which file, or why.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quicsand::ids::{Hash, Key};
use quicsand_worker::state::{Action, Event, Held, Worker};

use super::{
    hub::general,
    world::{Due, World},
};

/// Something that a disk is to do.
#[derive(Debug)]
enum Job {
    Write { file: u64, bytes: Bytes },
    Read { file: u64 },
    Remove { file: u64 },
}

/// One worker's.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What is in each file; `None` if it is not what was written.
    files: BTreeMap<u64, Option<Bytes>>,
    jobs: VecDeque<Job>,
}

/// What goes wrong with the next file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Luck {
    Good,
    Full,
    Damage,
}

impl Disk {
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// What is in a file that is there: nothing if it is damaged.
    fn read(&self, file: u64) -> Option<Bytes> {
        let Some(content) = self.files.get(&file) else { panic!("file {file} is read, and is not there") };
        content.clone()
    }

    /// Takes a worker's action as a job; gives it back if it is none.
    fn take(&mut self, action: Action) -> Option<Action> {
        self.jobs.push_back(match action {
            Action::Spill { file, bytes } => Job::Write { file, bytes },
            Action::Load { file, .. } => Job::Read { file },
            Action::Unlink { file } => Job::Remove { file },
            other => return Some(other),
        });
        None
    }

    /// Does the next job; gives what the worker is to hear.
    fn work(&mut self, luck: Luck) -> Option<Event> {
        match self.jobs.pop_front()? {
            Job::Write { file, .. } if luck == Luck::Full => Some(Event::NotSpilled { file }),
            Job::Write { file, bytes } => {
                let before = self.files.insert(file, (luck == Luck::Good).then_some(bytes));
                assert!(before.is_none(), "file {file} is written twice");
                Some(Event::Spilled { file })
            }
            Job::Read { file } => Some(Event::Loaded { file, bytes: self.read(file) }),
            Job::Remove { file } => {
                assert!(self.files.remove(&file).is_some(), "file {file} is removed, and is not there");
                None
            }
        }
    }
}

impl World {
    /// Gives a worker's disk a job; gives it back if it is none.
    pub(super) fn disk_job(&mut self, pid: u32, action: Action) -> Option<Action> {
        let process = self.workers.get_mut(&pid)?;
        let other = process.disk.take(action);
        if other.is_none() && process.disk.jobs.len() == 1 {
            self.next_disk_job(pid);
        }
        other
    }

    fn next_disk_job(&mut self, pid: u32) {
        let at = self.now + if self.rng.chance(100) { self.rng.millis(1, 300) } else { self.rng.micros(20, 2000) };
        self.schedule(at, Due::Disk(pid));
    }

    /// A worker's disk is done with a job.
    pub(super) fn disk_goes_on(&mut self, pid: u32) {
        let luck = self.luck(pid);
        let Some(process) = self.workers.get_mut(&pid) else { return };
        if process.disk.jobs.is_empty() {
            return;
        }
        let event = process.disk.work(luck);
        if !process.disk.jobs.is_empty() {
            self.next_disk_job(pid);
        }
        event.into_iter().for_each(|event| self.worker_event(pid, event));
    }

    /// What becomes of a disk's next job. A value that will turn out to be lost is noted.
    fn luck(&mut self, pid: u32) -> Luck {
        if !self.is_stormy() || self.rng.chance(850) {
            return Luck::Good;
        }
        if self.rng.chance(100) {
            self.troubles.are_disks_full = true;
            return Luck::Full;
        }
        let keys: Vec<Key> = self.graph.items.keys().chain(self.graph.data.keys()).copied().collect();
        let Some(process) = self.workers.get_mut(&pid) else { return Luck::Good };
        let Some(Job::Write { bytes, .. }) = process.disk.jobs.front() else { return Luck::Good };
        let hash = Hash::of(bytes);
        let Some(machine) = process.machine_mut() else { return Luck::Good };
        for key in keys {
            if matches!(machine.held(key), Some(Held::Here { hash: held, .. }) if held == hash) {
                *self.troubles.missed.entry(key).or_default() += 1;
                self.story.note(self.now, || general(format!("{key} is damaged on the disk of process {pid}")));
            }
        }
        Luck::Damage
    }

    /// A session is over: what its disk is at ends before anything else does.
    pub(super) fn settle_disk(&mut self, pid: u32, machine: &mut Worker) {
        let Some(process) = self.workers.get_mut(&pid) else { return };
        let mut actions = Vec::new();
        while !process.disk.jobs.is_empty() {
            let event = process.disk.work(Luck::Good);
            event.into_iter().for_each(|event| machine.handle(event, &mut actions));
            // Nobody hears the rest any more.
            actions.drain(..).for_each(|action| drop(process.disk.take(action)));
        }
        assert!(machine.is_disk_still(), "process {pid} waits for its disk");
    }

    /// A value that a worker has under that number, as a peer gets it.
    pub(super) fn served(&mut self, pid: u32, key: Key, id: Option<quicsand::ids::WorkerId>, wanted: Hash) -> Option<Bytes> {
        let process = self.workers.get_mut(&pid).filter(|process| process.id() == id)?;
        match process.machine_mut()?.held(key)? {
            Held::Here { bytes, hash } => (hash == wanted).then_some(bytes),
            Held::OnDisk { hash, .. } if hash != wanted => None,
            Held::OnDisk { file, .. } => {
                let found = process.disk.read(file);
                if found.is_none() {
                    self.worker_event(pid, Event::Damaged { file });
                }
                found
            }
        }
    }
}
