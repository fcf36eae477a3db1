//! The client's bookkeeping, as a state machine. Owns: which entries exist, what is known of their items, credit. Must not know:
//! threads, locks, wakers, or how messages travel.
//!
//! [`Bookkeeping::open`] and [`Bookkeeping::extend`] mirror what was sent; [`Bookkeeping::receive`] takes the scheduler's answers and
//! says through [`Touched`] what changed; [`Bookkeeping::look`] tells what is known of an item.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    codec::{Run, Span},
    error::Error,
    ids::{ClientId, EntryId, Hash, Key},
    wire::{StateCounts, ToClient, Waiting, blob::Place},
};

/// Bytes of small data that the scheduler keeps at a time; further data goes to workers. Well below what it keeps of a client in all, since
/// it gives no credit beyond that, and data stays for as long as the program likes.
const INLINE_DATA: u64 = 256 << 20;

/// What is known of an item.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// Nothing yet.
    Pending,
    /// Its value's encoding.
    Value(Bytes),
    /// That workers hold the value; to be fetched.
    Stored(Remote),
    /// That it did not end well.
    Failed(Error),
}

/// A value that workers hold.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) len: u64,
    pub(crate) hash: Hash,
    pub(crate) places: Vec<Place>,
    /// Whether somebody asked for it already.
    pub(crate) fetching: bool,
}

/// What a message changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// These items of this entry were resolved.
    Items(u64, Range<u64>),
    /// Credit came.
    Credit,
    /// Data is asked for that is not here any more.
    Gone(Span),
    /// Data is to be uploaded.
    Upload { key: Key, bytes: Bytes, hash: Hash, place: Option<Place> },
    /// A query was answered.
    Query,
    /// The connection is over.
    Refused(String),
}

/// An entry of this client.
#[derive(Debug, Default)]
struct Entry {
    /// Items opened so far.
    count: u64,
    /// Items resolved so far; exact, since the scheduler reports an item once.
    resolved: u64,
    /// Results by first index; blocks do not overlap.
    values: BTreeMap<u64, Run>,
    /// Items that are not plain values.
    others: BTreeMap<u64, Known>,
    /// Data that waits to be uploaded.
    data: Option<(Bytes, Hash)>,
    /// Whether somebody was told to upload it.
    asked: bool,
    /// Set when the whole entry can never be computed.
    broken: Option<Error>,
    /// The scheduler has never heard of it.
    unsent: bool,
    /// Bytes of data that were sent in a message, and that the scheduler keeps.
    inline: u64,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Bookkeeping {
    client: ClientId,
    next_seq: u64,
    entries: BTreeMap<u64, Entry>,
    credit: u64,
    /// Bytes of data in messages that the scheduler keeps.
    inline: u64,
    /// Data that was let go before it was uploaded: calls that were sent may read it.
    orphans: BTreeMap<u64, (Bytes, Hash)>,
    counts: BTreeMap<u64, StateCounts>,
    explained: BTreeMap<u64, Vec<Waiting>>,
}

impl Bookkeeping {
    pub(crate) fn new(client: ClientId, credit: u64) -> Self {
        Self {
            client,
            next_seq: 0,
            entries: BTreeMap::new(),
            credit,
            inline: 0,
            orphans: BTreeMap::new(),
            counts: BTreeMap::new(),
            explained: BTreeMap::new(),
        }
    }

    pub(crate) fn id(&self, seq: u64) -> EntryId {
        EntryId { client: self.client, seq }
    }

    /// A new entry of `count` items.
    pub(crate) fn open(&mut self, count: u64) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.entries.insert(seq, Entry { count, ..Entry::default() });
        seq
    }

    /// A new entry of data, of so many bytes, for which [`Bookkeeping::take_inline`] has made room.
    pub(crate) fn open_inline(&mut self, bytes: u64) -> u64 {
        let seq = self.open(1);
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.inline = bytes;
        }
        seq
    }

    /// A new entry of `count` items that is broken from the start and never sent.
    pub(crate) fn open_broken(&mut self, count: u64, error: Error) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.entries.insert(seq, Entry { count, broken: Some(error), unsent: true, ..Entry::default() });
        seq
    }

    /// Whether the scheduler knows an entry.
    pub(crate) fn is_sent(&self, seq: u64) -> bool {
        self.entries.get(&seq).is_some_and(|entry| !entry.unsent)
    }

    /// Why an entry can never be computed.
    pub(crate) fn broken(&self, seq: u64) -> Option<Error> {
        self.entries.get(&seq)?.broken.clone()
    }

    /// Keeps a data entry's bytes until they are uploaded.
    pub(crate) fn keep_data(&mut self, seq: u64, bytes: Bytes, hash: Hash) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.data = Some((bytes, hash));
        }
    }

    /// More items in an open map.
    pub(crate) fn extend(&mut self, seq: u64, more: u64) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.count += more;
        }
    }

    /// The entry can never be computed: every item of it fails with this.
    pub(crate) fn break_entry(&mut self, seq: u64, error: Error) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.broken.get_or_insert(error);
        }
    }

    /// Forgets an entry; gives its number of items if the scheduler knows it.
    pub(crate) fn forget(&mut self, seq: u64) -> Option<u64> {
        let entry = self.entries.remove(&seq).filter(|entry| !entry.unsent)?;
        self.inline = self.inline.saturating_sub(entry.inline);
        if let Some(data) = entry.data.filter(|_| !entry.asked) {
            self.orphans.insert(seq, data);
        }
        Some(entry.count)
    }

    /// Forgets the values of items before `end`.
    pub(crate) fn forget_before(&mut self, seq: u64, end: u64) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.values.retain(|first, run| first + u64::from(run.count()) > end);
            entry.others = entry.others.split_off(&end);
        }
    }

    /// Takes credit for `bytes`; false if there is too little.
    pub(crate) fn take_credit(&mut self, bytes: u64) -> bool {
        let enough = self.credit >= bytes;
        if enough {
            self.credit -= bytes;
        }
        enough
    }

    /// Takes credit and room for so many bytes of data in a message; false if there is too little of either.
    pub(crate) fn take_inline(&mut self, bytes: u64) -> bool {
        let fits = self.inline.saturating_add(bytes) <= INLINE_DATA && self.take_credit(bytes);
        if fits {
            self.inline += bytes;
        }
        fits
    }

    /// What is known of an item.
    pub(crate) fn look(&self, seq: u64, index: u64) -> Known {
        let Some(entry) = self.entries.get(&seq) else {
            return Known::Failed(Error::Closed);
        };
        if let Some(error) = &entry.broken {
            return Known::Failed(error.clone());
        }
        if let Some((first, run)) = entry.values.range(..=index).next_back()
            && let Some(value) = u32::try_from(index - first).ok().and_then(|at| run.get(at))
        {
            return Known::Value(value);
        }
        entry.others.get(&index).cloned().unwrap_or(Known::Pending)
    }

    /// The block of values that begins at `index`, from there on.
    pub(crate) fn block_at(&self, seq: u64, index: u64) -> Option<Run> {
        let entry = self.entries.get(&seq).filter(|entry| entry.broken.is_none())?;
        let (first, run) = entry.values.range(..=index).next_back()?;
        let at = u32::try_from(index - first).ok().filter(|&at| at < run.count())?;
        Some(if at == 0 { run.clone() } else { run.slice(at..run.count()) })
    }

    /// Number of resolved items of an entry; all of them when it is broken or forgotten.
    pub(crate) fn resolved(&self, seq: u64) -> u64 {
        match self.entries.get(&seq) {
            Some(entry) if entry.broken.is_none() => entry.resolved,
            _ => u64::MAX,
        }
    }

    /// Number of items of an entry, as far as it is known.
    pub(crate) fn count(&self, seq: u64) -> u64 {
        self.entries.get(&seq).map_or(0, |entry| entry.count)
    }

    /// Whether an item has ended.
    pub(crate) fn is_resolved(&self, seq: u64, index: u64) -> bool {
        self.entries.get(&seq).is_none_or(|entry| entry.broken.is_some() || entry.holds_any(index..index + 1))
    }

    /// Marks a stored item as asked for, and says where it is, unless somebody asked before.
    pub(crate) fn begin_fetch(&mut self, seq: u64, index: u64) -> Option<Remote> {
        match self.entries.get_mut(&seq)?.others.get_mut(&index)? {
            Known::Stored(remote) if !remote.fetching => {
                remote.fetching = true;
                Some(remote.clone())
            }
            _ => None,
        }
    }

    /// The end of a fetch. Without bytes the item is pending again, until the scheduler says what became of it.
    pub(crate) fn fetched(&mut self, key: Key, bytes: Option<Bytes>) {
        let Some(entry) = self.entries.get_mut(&key.entry.seq) else { return };
        if !matches!(entry.others.get(&key.index), Some(Known::Stored(_))) {
            return;
        }
        match bytes {
            Some(bytes) => {
                entry.others.insert(key.index, Known::Value(bytes));
            }
            None => {
                entry.others.remove(&key.index);
                entry.resolved -= 1;
            }
        }
    }

    /// Takes a scheduler's message in. What concerns forgotten entries is dropped.
    pub(crate) fn receive(&mut self, message: ToClient, touched: &mut Vec<Touched>) {
        match message {
            ToClient::Done { seq, first, values } => {
                let count = u64::from(values.count());
                if let Some(entry) = self.entries.get_mut(&seq) {
                    if entry.holds_any(first..first + count) {
                        return;
                    }
                    entry.resolved += count;
                    entry.values.insert(first, values);
                    touched.push(Touched::Items(seq, first..first + count));
                }
            }
            ToClient::Stored { seq, index, len, hash, places } => {
                self.resolve(seq, index, Known::Stored(Remote { len, hash, places, fetching: false }), touched);
            }
            ToClient::Failed { seq, index, error } => {
                self.resolve(seq, index, Known::Failed(Error::Task(Arc::new(error))), touched);
            }
            ToClient::Cancelled { span } => {
                for index in span.first..span.first.saturating_add(span.count) {
                    let key = span.entry.key(index);
                    if !self.resolve(span.entry.seq, index, Known::Failed(Error::Cancelled { key }), touched) {
                        break;
                    }
                }
            }
            ToClient::Lost { seq, index } => {
                if let Some(entry) = self.entries.get_mut(&seq)
                    && matches!(entry.others.get(&index), Some(Known::Stored(_)))
                {
                    entry.others.remove(&index);
                    entry.resolved -= 1;
                }
            }
            ToClient::Upload { seq, place } => {
                let key = self.id(seq).key(0);
                let data = self.entries.get_mut(&seq).and_then(|entry| {
                    entry.asked = true;
                    entry.data.clone()
                });
                match (data, self.orphans.remove(&seq)) {
                    (Some((bytes, hash)), _) => touched.push(Touched::Upload { key, bytes, hash, place }),
                    // To the scheduler, which is always there: nobody keeps it for a second try.
                    (None, Some((bytes, hash))) => touched.push(Touched::Upload { key, bytes, hash, place: None }),
                    (None, None) => touched.push(Touched::Gone(Span { entry: key.entry, first: 0, count: 1 })),
                }
            }
            ToClient::Credit { bytes } => {
                self.credit = self.credit.saturating_add(bytes);
                touched.push(Touched::Credit);
            }
            ToClient::Counts { query, counts } => {
                self.counts.insert(query, counts);
                touched.push(Touched::Query);
            }
            ToClient::Explained { query, waiting } => {
                self.explained.insert(query, waiting);
                touched.push(Touched::Query);
            }
            ToClient::Refused { reason } => touched.push(Touched::Refused(reason)),
        }
    }

    /// The answer to a query, once.
    pub(crate) fn take_counts(&mut self, query: u64) -> Option<StateCounts> {
        self.counts.remove(&query)
    }

    /// The answer to a query for reasons, once.
    pub(crate) fn take_explained(&mut self, query: u64) -> Option<Vec<Waiting>> {
        self.explained.remove(&query)
    }

    /// The span of a whole entry.
    pub(crate) fn span(&self, seq: u64, range: Range<u64>) -> Span {
        Span { entry: self.id(seq), first: range.start, count: range.end - range.start }
    }

    /// Whether an item of a known entry was within its bounds, so that a span that claims too much ends at the first stranger.
    fn resolve(&mut self, seq: u64, index: u64, known: Known, touched: &mut Vec<Touched>) -> bool {
        let Some(entry) = self.entries.get_mut(&seq).filter(|entry| index < entry.count) else {
            return false;
        };
        if matches!(known, Known::Stored(_)) {
            // Data that a worker holds needs no second upload.
            entry.data = None;
        }
        if matches!(entry.others.get(&index), Some(Known::Stored(_))) {
            // It is somewhere else now, or it is gone and cannot be had again.
            entry.others.insert(index, known);
        } else if !entry.holds_any(index..index + 1) {
            entry.others.insert(index, known);
            entry.resolved += 1;
        }
        match touched.last_mut() {
            Some(Touched::Items(last, items)) if *last == seq && items.end == index => items.end += 1,
            _ => touched.push(Touched::Items(seq, index..index + 1)),
        }
        true
    }
}

impl Entry {
    /// Whether any of these items is resolved: the scheduler reports each once, and a second report is not believed.
    fn holds_any(&self, items: Range<u64>) -> bool {
        let before = self.values.range(..items.end).next_back();
        before.is_some_and(|(first, run)| first + u64::from(run.count()) > items.start)
            || self.others.range(items).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::RunBuilder;

    fn run(values: &[&[u8]]) -> Run {
        let mut builder = RunBuilder::default();
        for value in values {
            builder.push(value).expect("short");
        }
        builder.take()
    }

    fn receive(book: &mut Bookkeeping, message: ToClient) -> Vec<Touched> {
        let mut touched = Vec::new();
        book.receive(message, &mut touched);
        touched
    }

    #[test]
    fn blocks_arrive_in_any_order() {
        let mut book = Bookkeeping::new(ClientId(1), 0);
        let seq = book.open(4);
        receive(&mut book, ToClient::Done { seq, first: 2, values: run(&[b"c", b"d"]) });
        assert!(matches!(book.look(seq, 0), Known::Pending));
        receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a", b"b"]) });
        assert!(matches!(book.look(seq, 3), Known::Value(value) if value == "d"));
        assert_eq!(book.resolved(seq), 4);
        assert_eq!(book.block_at(seq, 1).map(|run| run.count()), Some(1));
    }

    #[test]
    fn a_second_report_is_not_believed() {
        let mut book = Bookkeeping::new(ClientId(1), 0);
        let seq = book.open(2);
        receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a"]) });
        let span = book.span(seq, 0..2);
        receive(&mut book, ToClient::Cancelled { span });
        receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"x", b"y"]) });
        assert!(matches!(book.look(seq, 0), Known::Value(value) if value == "a"));
        assert!(matches!(book.look(seq, 1), Known::Failed(Error::Cancelled { .. })));
        assert_eq!(book.resolved(seq), 2);
    }

    #[test]
    fn a_lost_value_is_pending_again() {
        let mut book = Bookkeeping::new(ClientId(1), 0);
        let seq = book.open(1);
        let stored = ToClient::Stored { seq, index: 0, len: 9, hash: Hash([0; 32]), places: Vec::new() };
        receive(&mut book, stored.clone());
        assert!(book.begin_fetch(seq, 0).is_some());
        assert!(book.begin_fetch(seq, 0).is_none(), "fetched once");
        book.fetched(book.id(seq).key(0), None);
        assert_eq!(book.resolved(seq), 0);
        receive(&mut book, stored);
        receive(&mut book, ToClient::Lost { seq, index: 0 });
        assert!(matches!(book.look(seq, 0), Known::Pending));
    }

    #[test]
    fn a_stored_value_that_is_gone_for_good_is_an_error() {
        let mut book = Bookkeeping::new(ClientId(1), 0);
        let seq = book.open(1);
        receive(&mut book, ToClient::Stored { seq, index: 0, len: 9, hash: Hash([0; 32]), places: Vec::new() });
        let error = crate::TaskError::new(crate::TaskErrorKind::DataLost, "f", book.id(seq).key(0), "gone");
        receive(&mut book, ToClient::Failed { seq, index: 0, error });
        assert!(matches!(book.look(seq, 0), Known::Failed(Error::Task(_))));
        assert_eq!(book.resolved(seq), 1);
    }

    #[test]
    fn forgotten_entries_and_strangers_are_ignored() {
        let mut book = Bookkeeping::new(ClientId(1), 0);
        let seq = book.open(1);
        let huge = Span { entry: book.id(seq), first: 0, count: u64::MAX };
        receive(&mut book, ToClient::Cancelled { span: huge });
        assert_eq!(book.resolved(seq), 1);
        assert_eq!(book.forget(seq), Some(1));
        assert!(receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a"]) }).is_empty());
        assert!(matches!(book.look(seq, 0), Known::Failed(Error::Closed)));
    }

    #[test]
    fn data_that_is_let_go_early_is_still_uploaded() {
        let mut book = Bookkeeping::new(ClientId(1), 0);
        let upload = |seq| ToClient::Upload { seq, place: None };
        let seq = book.open(1);
        book.keep_data(seq, Bytes::from_static(b"data"), Hash([1; 32]));
        book.forget(seq);
        assert!(matches!(&receive(&mut book, upload(seq))[..], [Touched::Upload { bytes, .. }] if bytes == "data"));
        assert!(matches!(&receive(&mut book, upload(seq))[..], [Touched::Gone(_)]), "it is not kept for ever");
    }

    #[test]
    fn small_data_leaves_room_for_calls() {
        let mut book = Bookkeeping::new(ClientId(1), u64::MAX);
        assert!(book.take_inline(INLINE_DATA));
        let seq = book.open_inline(INLINE_DATA);
        assert!(!book.take_inline(1) && book.take_credit(1));
        book.forget(seq);
        assert!(book.take_inline(1));
    }

    #[test]
    fn credit_is_spent_and_returned() {
        let mut book = Bookkeeping::new(ClientId(1), 10);
        assert!(book.take_credit(7));
        assert!(!book.take_credit(4));
        receive(&mut book, ToClient::Credit { bytes: 1 });
        assert!(book.take_credit(4));
    }
}
