//! The table of facts on the disk, and the files beside it. Must not know: threads, and when something is written.
//!
//! redb is a copy-on-write B-tree: a transaction is there wholly or not at all, whenever the process or the machine stops, and what is
//! deleted is room for what comes, so that there is nothing to compact.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{
    fault::JournalFault,
    files::{Files, Large},
};
use crate::{
    codec,
    net::files::{Lock, create_directory, lock},
    scheduler::{Fact, Record, Row},
};

/// Version of what is written.
pub(super) const FORMAT: u32 = 1;
/// Facts by the names of their rows.
const FACTS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("facts");
/// The head, in its only row.
const HEAD: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("head");
/// Memory for pages of the tables.
const CACHE_BYTES: usize = 64 << 20;
/// Bytes of a row's checksum.
const SEAL: usize = 8;
/// Numbers of peers that are set aside at a time.
pub(super) const NUMBERS: u64 = 1000;

/// What is known of the journal itself. The format comes first in all versions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    cluster: [u8; 32],
    /// How often it was opened.
    starts: u32,
    /// Peers' numbers below this may have been used.
    numbers: u64,
}

/// Changes that are written together.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) records: Vec<Record>,
    /// Files to write (before the records) or to remove (after them).
    pub(super) files: BTreeMap<Large, Option<Bytes>>,
    /// Peers' numbers below this are set aside.
    pub(super) numbers: Option<u64>,
}

/// An open journal. The process has it for itself.
#[derive(Debug)]
pub(in crate::server) struct Store {
    database: Database,
    files: Files,
    head: Head,
    /// Numbers that no peer had before begin here.
    first_number: u64,
    _lock: Lock,
}

impl Store {
    /// Opens the journal in this directory, or begins one, for the cluster with this fingerprint.
    pub(in crate::server) fn open(directory: &Path, cluster: [u8; 32]) -> Result<Self, JournalFault> {
        create_directory(directory)?;
        let lock = lock(&directory.join("journal.lock"))?.ok_or(JournalFault::InUse)?;
        let path = directory.join("facts.redb");
        // A store that sees damage may panic about it, which is no reason to fall.
        let (database, head, first_number) = guarded(|| {
            if !fs::exists(&path)? {
                begin(directory, &path, cluster)?;
            }
            let database = Database::builder().set_cache_size(CACHE_BYTES).open(&path)?;
            let (head, first_number) = note_start(&database, cluster)?;
            Ok((database, head, first_number))
        })?;
        let files = Files::open(&directory.join("large"))?;
        Ok(Self { database, files, head, first_number, _lock: lock })
    }

    /// How often the journal was opened, this time included.
    pub(in crate::server) fn starts(&self) -> u32 {
        self.head.starts
    }

    /// Numbers that no peer had before, which are set aside.
    pub(in crate::server) fn numbers(&self) -> std::ops::Range<u64> {
        self.first_number..self.head.numbers
    }

    /// Gives `take` all facts, in order.
    pub(in crate::server) fn read<T, E>(
        &self,
        take: impl FnOnce(&mut dyn Iterator<Item = Fact>) -> Result<T, E>,
    ) -> Result<T, JournalFault>
    where
        JournalFault: From<E>,
    {
        guarded(|| {
            let table = self.database.begin_read()?.open_table(FACTS)?;
            let mut fault = None;
            let mut facts = table.iter()?.map_while(|row| {
                let fact = match row {
                    Ok((name, value)) => open(name.value(), value.value()),
                    Err(error) => Err(error.into()),
                };
                fact.map_err(|error| fault = Some(error)).ok()
            });
            let taken = take(&mut facts);
            drop(facts);
            match fault {
                Some(fault) => Err(fault),
                None => Ok(taken?),
            }
        })
    }

    /// The files that there are.
    pub(in crate::server) fn list(&self) -> Result<Vec<Large>, JournalFault> {
        Ok(self.files.list()?)
    }

    pub(in crate::server) fn read_file(&self, large: Large) -> Result<Bytes, JournalFault> {
        Ok(self.files.read(large)?)
    }

    pub(in crate::server) fn remove_file(&self, large: Large) -> Result<(), JournalFault> {
        Ok(self.files.remove(large)?)
    }

    /// Makes changes, all or none of the records. They outlive this process, and the machine's next stop, once this returns.
    pub(super) fn write(&mut self, group: Group) -> Result<(), JournalFault> {
        let Group { records, files, numbers } = group;
        for (&large, bytes) in files.iter() {
            if let Some(bytes) = bytes {
                self.files.write(large, bytes)?;
            }
        }
        if let Some(numbers) = numbers {
            self.head.numbers = numbers;
        }
        guarded(|| {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(FACTS)?;
                write_records(&mut table, records)?;
                if numbers.is_some() {
                    write_head(&mut transaction.open_table(HEAD)?, &self.head)?;
                }
            }
            Ok(transaction.commit()?)
        })?;
        let mut gone = files.iter().filter(|(_, bytes)| bytes.is_none());
        gone.try_for_each(|(&large, _)| Ok(self.files.remove(large)?))
    }
}

/// Begins a journal, which has its name only when it is whole.
fn begin(directory: &Path, path: &PathBuf, cluster: [u8; 32]) -> Result<(), JournalFault> {
    let unfinished = directory.join("facts.new");
    if fs::exists(&unfinished)? {
        fs::remove_file(&unfinished)?;
    }
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(&unfinished)?;
    let transaction = database.begin_write()?;
    write_head(&mut transaction.open_table(HEAD)?, &Head { format: FORMAT, cluster, starts: 0, numbers: 0 })?;
    transaction.open_table(FACTS)?;
    transaction.commit()?;
    drop(database);
    fs::rename(&unfinished, path)?;
    // Not all systems can sync a directory.
    if let Ok(directory) = fs::File::open(directory) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// Checks that the journal can be used, and notes that it is. Gives its head, and the first number that no peer had.
fn note_start(database: &Database, cluster: [u8; 32]) -> Result<(Head, u64), JournalFault> {
    let transaction = database.begin_write()?;
    let (head, first) = {
        let mut table = transaction.open_table(HEAD)?;
        let mut head = {
            let bytes = table.get(0)?.ok_or_else(|| JournalFault::damaged("its head is missing"))?;
            let (format, _) = postcard::take_from_bytes::<u32>(bytes.value())?;
            if format != FORMAT {
                return Err(JournalFault::Version { theirs: format });
            }
            codec::decode::<Head>(bytes.value())?
        };
        if head.cluster != cluster {
            return Err(JournalFault::Cluster);
        }
        let first = head.numbers;
        head.starts = head.starts.checked_add(1).ok_or_else(|| JournalFault::damaged("its number of starts"))?;
        head.numbers = first.checked_add(NUMBERS).ok_or_else(|| JournalFault::damaged("its numbers of peers"))?;
        write_head(&mut table, &head)?;
        // So that a journal without it is damaged when it is opened, not later.
        transaction.open_table(FACTS)?;
        (head, first)
    };
    transaction.commit()?;
    Ok((head, first))
}

fn write_head(table: &mut Table<'_, u32, &[u8]>, head: &Head) -> Result<(), JournalFault> {
    table.insert(0, postcard::to_stdvec(head)?.as_slice())?;
    Ok(())
}

fn write_records(table: &mut Table<'_, &[u8], &[u8]>, records: Vec<Record>) -> Result<(), JournalFault> {
    // A busy client's own row changes with every entry; its last state is all that matters.
    let mut clients: BTreeMap<Row, Fact> = BTreeMap::new();
    let mut bytes = Vec::new();
    for record in records {
        match record {
            Record::Put(fact @ Fact::Client(_)) => drop(clients.insert(fact.row(), fact)),
            Record::Put(fact) => put(table, &fact, &mut bytes)?,
            Record::Drop(rows) if rows.start() == rows.end() => drop(table.remove(&rows.start().to_bytes()[..])?),
            Record::Drop(rows) => {
                clients.retain(|row, _| !rows.contains(row));
                let (first, last) = (rows.start().to_bytes(), rows.end().to_bytes());
                table.retain_in::<&[u8], _>(&first[..]..=&last[..], |_, _| false)?;
            }
            Record::DropErrors(span) => {
                let rows = Row::errors(&span);
                let (first, last) = (rows.start().to_bytes(), rows.end().to_bytes());
                let is_other = |name: &[u8], value: &[u8]| !open(name, value).is_ok_and(|fact| fact.is_error_within(&span));
                table.retain_in::<&[u8], _>(&first[..]..=&last[..], is_other)?;
            }
        }
    }
    clients.values().try_for_each(|fact| put(table, fact, &mut bytes))
}

fn put(table: &mut Table<'_, &[u8], &[u8]>, fact: &Fact, bytes: &mut Vec<u8>) -> Result<(), JournalFault> {
    let name = fact.row().to_bytes();
    bytes.clear();
    bytes.extend_from_slice(&[0; SEAL]);
    fact.encode_into(bytes)?;
    let seal = seal(&name, &bytes[SEAL..]);
    bytes[..SEAL].copy_from_slice(&seal);
    table.insert(&name[..], bytes.as_slice())?;
    Ok(())
}

/// The fact in a row, if it is what was written there.
fn open(name: &[u8], value: &[u8]) -> Result<Fact, JournalFault> {
    let (written, fact) = value.split_first_chunk().ok_or_else(|| JournalFault::damaged("a fact is missing"))?;
    if *written != seal(name, fact) {
        return Err(JournalFault::damaged("a fact is not what was written"));
    }
    Ok(Fact::decode(fact)?)
}

/// Checks a row: the store itself looks at its own checksums only after a crash.
fn seal(name: &[u8], fact: &[u8]) -> [u8; SEAL] {
    let hash = blake3::Hasher::new().update(name).update(fact).finalize();
    let mut seal = [0; SEAL];
    seal.copy_from_slice(&hash.as_bytes()[..SEAL]);
    seal
}

/// Makes the journal in this directory one of another format.
#[cfg(test)]
pub(super) fn write_format(directory: &Path, format: u32) {
    let database = Database::open(directory.join("facts.redb")).expect("there");
    let transaction = database.begin_write().expect("begun");
    let head = Head { format, cluster: [0; 32], starts: 0, numbers: 0 };
    write_head(&mut transaction.open_table(HEAD).expect("opened"), &head).expect("written");
    transaction.commit().expect("written");
}

/// Does something with the store; a panic in it is damage.
fn guarded<T>(work: impl FnOnce() -> Result<T, JournalFault>) -> Result<T, JournalFault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(JournalFault::damaged(text.unwrap_or("the store cannot read it")))
    })
}
