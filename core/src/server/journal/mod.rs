//! The journal: what outlives the scheduler's process, written by a thread of its own. Owns: the queue of what is to be written, its
//! limit, and what happens when the disk fails. Must not know: what facts mean.
//!
//! Whatever has gathered while a transaction was on its way to the disk is the next transaction. Nobody waits for the disk, except who
//! asks for room while too much waits.

mod fault;
mod files;
mod store;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

pub use self::fault::JournalFault;
use self::store::{Group, NUMBERS};
pub(super) use self::{files::Large, store::Store};
use crate::scheduler::{Fact, Record};

/// Bytes that may wait to be written before peers are not listened to any more, about.
const WAITING_BYTES: u64 = 64 << 20;
/// What a record takes beside its values.
const RECORD_BYTES: u64 = 128;

/// A journal that is being written.
pub(super) struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What became of the changes.
#[derive(Debug)]
pub(super) enum Written {
    /// So many records, from the first on, are durable.
    Records(u64),
    /// The disk failed: nothing is written any more.
    Failed(JournalFault),
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something is to be written, or it is over.
    work: Condvar,
    /// Something was written, or it is over.
    written: Notify,
}

#[derive(Default)]
struct Queue {
    next: Group,
    /// Of what waits and of what is being written.
    bytes: u64,
    /// Numbers that are set aside for good, and those that are to be.
    numbers: (u64, u64),
    /// Changes that were said, and those of them that are durable.
    changes: (u64, u64),
    is_closed: bool,
    is_failed: bool,
}

impl Journal {
    /// Starts to write to a journal. `written` is called, on the journal's thread, after each transaction.
    pub(super) fn start(store: Store, written: impl Fn(Written) + Send + 'static) -> io::Result<Self> {
        let numbers = store.numbers().end;
        let queue = Queue { numbers: (numbers, numbers), ..Queue::default() };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), work: Condvar::new(), written: Notify::new() });
        let writing = Arc::clone(&shared);
        let thread = thread::Builder::new().name("quicsand-journal".into()).spawn(move || writing.write(store, &written))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// These records are to be written, all or none of them.
    pub(super) fn push(&self, records: Vec<Record>) {
        let bytes: u64 = records.iter().map(size).sum();
        self.change(bytes, |group| group.records.extend(records));
    }

    /// A file is to be written, before the records that come.
    pub(super) fn keep(&self, large: Large, bytes: Bytes) {
        self.change(bytes.len() as u64, |group| drop(group.files.insert(large, Some(bytes))));
    }

    /// A file is to be removed, after the records that came.
    pub(super) fn discard(&self, large: Large) {
        self.change(RECORD_BYTES, |group| drop(group.files.insert(large, None)));
    }

    /// Whether a peer may have this number. Sets more aside in time.
    pub(super) fn allows(&self, number: u64) -> bool {
        let mut queue = self.shared.queue.lock();
        let (durable, asked) = queue.numbers;
        if number + NUMBERS / 2 > asked {
            queue.numbers.1 = asked + NUMBERS;
            queue.next.numbers = Some(asked + NUMBERS);
            self.shared.work.notify_one();
        }
        number < durable
    }

    /// Waits until there is room for more. Dropping the future does nothing.
    pub(super) async fn room(&self) {
        self.wait_until(|queue| queue.bytes < WAITING_BYTES).await;
    }

    /// Waits until all that was said so far is durable; false if it never will be. Dropping the future does nothing.
    pub(super) async fn flushed(&self) -> bool {
        let changes = self.shared.queue.lock().changes.0;
        self.wait_until(|queue| queue.changes.1 >= changes).await
    }

    /// False if writing has ended, or failed, before it is so.
    async fn wait_until(&self, is_so: impl Fn(&Queue) -> bool) -> bool {
        loop {
            let mut written = std::pin::pin!(self.shared.written.notified());
            // Before the look, so that no change slips in between.
            written.as_mut().enable();
            {
                let queue = self.shared.queue.lock();
                if is_so(&queue) {
                    return true;
                }
                if queue.is_closed || queue.is_failed {
                    return false;
                }
            }
            written.await;
        }
    }

    /// Writes what waits, and ends. Idempotent.
    pub(super) fn close(&self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.work.notify_one();
        self.shared.written.notify_waiters();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }

    fn change(&self, bytes: u64, change: impl FnOnce(&mut Group)) {
        let mut queue = self.shared.queue.lock();
        if !queue.is_closed && !queue.is_failed {
            queue.bytes += bytes;
            queue.changes.0 += 1;
            change(&mut queue.next);
            self.shared.work.notify_one();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn write(&self, mut store: Store, written: &dyn Fn(Written)) {
        let mut records = 0;
        while let Some((group, bytes, changes)) = self.next() {
            records += group.records.len() as u64;
            let numbers = group.numbers;
            let result = store.write(group);
            let mut queue = self.queue.lock();
            queue.bytes -= bytes;
            match result {
                Ok(()) => {
                    queue.numbers.0 = numbers.unwrap_or(queue.numbers.0);
                    queue.changes.1 = changes;
                }
                Err(_) => queue.is_failed = true,
            }
            drop(queue);
            self.written.notify_waiters();
            match result {
                Ok(()) => written(Written::Records(records)),
                Err(fault) => return written(Written::Failed(fault)),
            }
        }
    }

    /// What is to be written next, its bytes, and the changes so far; `None` at the end.
    fn next(&self) -> Option<(Group, u64, u64)> {
        let mut queue = self.queue.lock();
        loop {
            let group = &queue.next;
            if !group.records.is_empty() || !group.files.is_empty() || group.numbers.is_some() {
                return Some((std::mem::take(&mut queue.next), queue.bytes, queue.changes.0));
            }
            if queue.is_closed {
                return None;
            }
            self.work.wait(&mut queue);
        }
    }
}

/// Bytes that a record takes, about.
fn size(record: &Record) -> u64 {
    let values = match record {
        Record::Put(Fact::Args { args, .. }) => args.run.bytes().len() + 64 * args.holes.len(),
        Record::Put(Fact::Values { values, .. }) => values.bytes().len(),
        Record::Put(Fact::Error { error, .. }) => error.message.len() + error.backtrace.len() + error.log.len(),
        Record::Put(Fact::States(fact)) => 4 * fact.stretches.len(),
        Record::Put(Fact::Sharing(fact)) => 64 * fact.takers.len() + 256 * fact.names.len(),
        Record::Put(Fact::Client(_) | Fact::Entry(_) | Fact::Stored { .. }) | Record::Drop(_) | Record::DropErrors(_) => 0,
    };
    values as u64 + RECORD_BYTES
}
