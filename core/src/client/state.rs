//! The client's bookkeeping, as a state machine. Owns: which entries exist, what is known of their items, credit. Must not know:
//! threads, locks, wakers, or how messages travel.
//!
//! [`Bookkeeping::open`] and [`Bookkeeping::extend`] mirror what was sent; [`Bookkeeping::receive`] takes the scheduler's answers and
//! says through [`Touched`] what changed; [`Bookkeeping::look`] tells what is known of an item.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    codec::{Encoded, Run, Span},
    error::{Error, PublishError},
    fault::{self, Fault},
    ids::{ClientId, EntryId, Hash, Key},
    wire::{ENTRY_COST, FromClient, StateCounts, ToClient, Waiting, blob::Place},
};

/// What small data may cost that the scheduler keeps at a time; further data goes to workers. Well below what it keeps of a client in all, since
/// it gives no credit beyond that, and data stays for as long as the program likes.
const INLINE_DATA: u64 = 256 << 20;

/// What is known of an item.
#[derive(Clone, Debug)]
pub enum Known {
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
pub struct Remote {
    /// Its length in bytes.
    pub len: u64,
    /// Its hash.
    pub hash: Hash,
    /// Who serves it, best first.
    pub places: Vec<Place>,
    /// Whether somebody asked for it already.
    pub fetching: bool,
}

/// What a message changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These items of this entry were resolved.
    Items(u64, Range<u64>),
    /// Credit came.
    Credit,
    /// Data is asked for that is not here any more.
    Gone(Span),
    /// Data is to be uploaded.
    Upload {
        /// The entry's only key.
        key: Key,
        /// The data.
        data: Encoded,
        /// Its hash.
        hash: Hash,
        /// Where to, and where it is handed on to; empty for the scheduler.
        route: Vec<Place>,
    },
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
    /// Items before this one were forgotten.
    base: u64,
    /// Items resolved so far; exact, since the scheduler reports an item once.
    resolved: u64,
    /// Results by first index; blocks do not overlap.
    values: BTreeMap<u64, Run>,
    /// Items that are not plain values.
    others: BTreeMap<u64, Known>,
    /// Data that waits to be uploaded.
    data: Option<(Encoded, Hash)>,
    /// Set when the whole entry can never be computed.
    broken: Option<Error>,
    /// The scheduler has never heard of it.
    unsent: bool,
    /// What data cost that was sent in a message, and that the scheduler keeps.
    inline: u64,
}

/// See the file's head.
#[derive(Debug)]
pub struct Bookkeeping {
    client: ClientId,
    next_seq: u64,
    entries: BTreeMap<u64, Entry>,
    /// What may be sent ahead of credit, in bytes.
    window: u64,
    /// What may be sent in the client's life, and what was, or is about to be, as messages cost.
    granted: u64,
    spent: u64,
    /// What data in messages cost that the scheduler keeps.
    inline: u64,
    /// Data that was let go before the scheduler said that it is somewhere, or that nobody needs it: calls that were sent may read it.
    orphans: BTreeMap<u64, (Encoded, Hash)>,
    /// What was asked and not answered, or whose answer nobody took, by number.
    queries: BTreeMap<u64, (FromClient, Option<Answer>)>,
    next_query: u64,
}

/// The answer to a query.
#[derive(Debug)]
pub enum Answer {
    /// How many items are in which state.
    Counts(StateCounts),
    /// What they wait for.
    Explained(Vec<Waiting>),
    /// What a name stands for.
    Named(Result<u64, PublishError>),
}

impl Bookkeeping {
    /// The bookkeeping of a client that may send what costs so much ahead of credit.
    pub fn new(client: ClientId, credit: u64) -> Self {
        Self {
            client,
            next_seq: 0,
            entries: BTreeMap::new(),
            window: credit,
            granted: credit,
            spent: 0,
            inline: 0,
            orphans: BTreeMap::new(),
            queries: BTreeMap::new(),
            next_query: 0,
        }
    }

    /// The name of the entry with that number.
    pub fn id(&self, seq: u64) -> EntryId {
        EntryId { client: self.client, seq }
    }

    /// A new entry of `count` items.
    pub fn open(&mut self, count: u64) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.entries.insert(seq, Entry { count, ..Entry::default() });
        seq
    }

    /// A new entry of data, of so many bytes, for which [`Bookkeeping::take_inline`] has made room.
    pub fn open_inline(&mut self, bytes: u64) -> u64 {
        let seq = self.open(1);
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.inline = bytes.saturating_add(ENTRY_COST);
        }
        seq
    }

    /// A new entry of `count` items that is broken from the start and never sent.
    pub fn open_broken(&mut self, count: u64, error: Error) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.entries.insert(seq, Entry { count, broken: Some(error), unsent: true, ..Entry::default() });
        seq
    }

    /// Whether the scheduler knows an entry.
    pub fn is_sent(&self, seq: u64) -> bool {
        self.entries.get(&seq).is_some_and(|entry| !entry.unsent)
    }

    /// Why an entry can never be computed.
    pub fn broken(&self, seq: u64) -> Option<Error> {
        self.entries.get(&seq)?.broken.clone()
    }

    /// Keeps a data entry's encoding until it is uploaded.
    pub fn keep_data(&mut self, seq: u64, data: Encoded, hash: Hash) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.data = Some((data, hash));
        }
    }

    /// Whether data is still to be uploaded.
    pub fn is_uploading(&self) -> bool {
        !self.orphans.is_empty() || self.entries.values().any(|entry| entry.data.is_some())
    }

    /// More items in an open map.
    pub fn extend(&mut self, seq: u64, more: u64) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.count += more;
        }
    }

    /// The entry can never be computed: every item of it fails with this.
    pub fn break_entry(&mut self, seq: u64, error: Error) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.broken.get_or_insert(error);
        }
    }

    /// Forgets an entry; gives its number of items if the scheduler knows it.
    pub fn forget(&mut self, seq: u64) -> Option<u64> {
        let entry = self.entries.remove(&seq).filter(|entry| !entry.unsent)?;
        self.inline = self.inline.saturating_sub(entry.inline);
        if let Some(data) = entry.data.filter(|_| !fault::is(Fault::OrphanDropped)) {
            self.orphans.insert(seq, data);
        }
        Some(entry.count)
    }

    /// Forgets the values of items before `end`.
    pub fn forget_before(&mut self, seq: u64, end: u64) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.values.retain(|first, run| first + u64::from(run.count()) > end);
            entry.others = entry.others.split_off(&end);
            entry.base = entry.base.max(end);
        }
    }

    /// Takes credit for a message of such a cost; false if there is too little. One that costs more than can be there at a time is sent when
    /// nothing is lacking.
    pub fn take_credit(&mut self, cost: u64) -> bool {
        let enough = self.granted >= self.spent.saturating_add(cost.min(self.window));
        if enough {
            self.spent = self.spent.saturating_add(cost);
        }
        enough
    }

    /// Takes credit and room for so many bytes of data in a message; false if there is too little of either.
    pub fn take_inline(&mut self, bytes: u64) -> bool {
        let cost = bytes.saturating_add(ENTRY_COST);
        let fits = self.inline.saturating_add(cost) <= INLINE_DATA && self.take_credit(cost);
        if fits {
            self.inline += cost;
        }
        fits
    }

    /// What is known of an item.
    pub fn look(&self, seq: u64, index: u64) -> Known {
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
    pub fn block_at(&self, seq: u64, index: u64) -> Option<Run> {
        let entry = self.entries.get(&seq).filter(|entry| entry.broken.is_none())?;
        let (first, run) = entry.values.range(..=index).next_back()?;
        let at = u32::try_from(index - first).ok().filter(|&at| at < run.count())?;
        Some(if at == 0 { run.clone() } else { run.slice(at..run.count()) })
    }

    /// Number of resolved items of an entry; all of them when it is broken or forgotten.
    pub fn resolved(&self, seq: u64) -> u64 {
        match self.entries.get(&seq) {
            Some(entry) if entry.broken.is_none() => entry.resolved,
            _ => u64::MAX,
        }
    }

    /// Number of items of an entry, as far as it is known.
    pub fn count(&self, seq: u64) -> u64 {
        self.entries.get(&seq).map_or(0, |entry| entry.count)
    }

    /// Whether an item has ended.
    pub fn is_resolved(&self, seq: u64, index: u64) -> bool {
        self.entries.get(&seq).is_none_or(|entry| entry.broken.is_some() || entry.holds_any(index..index + 1))
    }

    /// Marks a stored item as asked for, and says where it is, unless somebody asked before.
    pub fn begin_fetch(&mut self, seq: u64, index: u64) -> Option<Remote> {
        match self.entries.get_mut(&seq)?.others.get_mut(&index)? {
            Known::Stored(remote) if !remote.fetching => {
                remote.fetching = true;
                Some(remote.clone())
            }
            _ => None,
        }
    }

    /// The end of a fetch. Without bytes the item is pending again, until the scheduler says what became of it.
    pub fn fetched(&mut self, key: Key, bytes: Option<Bytes>) {
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
    pub fn receive(&mut self, message: ToClient, touched: &mut Vec<Touched>) {
        match message {
            ToClient::Done { seq, first, values } => {
                let count = u64::from(values.count());
                if let Some(entry) = self.entries.get_mut(&seq) {
                    if first < entry.base || entry.holds_any(first..first + count) {
                        entry.take_again(first, &values);
                    } else {
                        entry.resolved += count;
                        entry.values.insert(first, values);
                    }
                    touched.push(Touched::Items(seq, first..first + count));
                }
            }
            ToClient::Stored { seq, index, len, hash, places } => {
                self.resolve(seq, index, Known::Stored(Remote { len, hash, places, fetching: false }), touched);
            }
            ToClient::Failed { seq, index, error } => {
                self.resolve(seq, index, Known::Failed(Error::Task(Arc::new(error))), touched);
            }
            ToClient::Cancelled { mut span } => {
                span.count -= u64::from(span.count > 1 && fault::is(Fault::LastPassedOver));
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
            ToClient::Upload { seq, route } => {
                let key = self.id(seq).key(0);
                let data = self.entries.get(&seq).and_then(|entry| entry.data.as_ref());
                match data.or_else(|| self.orphans.get(&seq)).cloned() {
                    Some((data, hash)) => touched.push(Touched::Upload { key, data, hash, route }),
                    None => touched.push(Touched::Gone(Span { entry: key.entry, first: 0, count: 1 })),
                }
            }
            ToClient::Taken { seq } => {
                self.orphans.remove(&seq);
                if let Some(entry) = self.entries.get_mut(&seq) {
                    entry.data = None;
                }
                touched.push(Touched::Query);
            }
            ToClient::Credit { total } => {
                self.granted = self.granted.max(total);
                touched.push(Touched::Credit);
            }
            ToClient::Counts { query, counts } => self.answer(query, Answer::Counts(counts), touched),
            ToClient::Explained { query, waiting } => self.answer(query, Answer::Explained(waiting), touched),
            ToClient::Named { query, items } => self.answer(query, Answer::Named(items), touched),
            // Whoever carries messages keeps them for another connection, and has looked at this.
            ToClient::Applied { .. } => {}
            ToClient::Refused { reason } => touched.push(Touched::Refused(reason)),
        }
    }

    /// Notes a query, made of its number; gives both.
    pub fn ask(&mut self, query: impl FnOnce(u64) -> FromClient) -> (u64, FromClient) {
        self.next_query += 1;
        let message = query(self.next_query);
        self.queries.insert(self.next_query, (message.clone(), None));
        (self.next_query, message)
    }

    /// The answer to a query, once.
    pub fn take_answer(&mut self, query: u64) -> Option<Answer> {
        let answer = self.queries.get_mut(&query)?.1.take()?;
        self.queries.remove(&query);
        Some(answer)
    }

    /// What is to be said again on another connection, after all that was not taken in: queries whose answers may have been lost, and data
    /// that somebody may have asked for.
    pub fn repeat(&self) -> Vec<FromClient> {
        let unanswered = self.queries.values().filter(|(_, answer)| answer.is_none()).map(|(query, _)| query.clone());
        let with_data = self.entries.iter().filter(|(_, entry)| entry.data.is_some()).map(|(seq, _)| seq);
        let offers = with_data.chain(self.orphans.keys()).map(|&seq| FromClient::Offer { seq });
        unanswered.chain(offers).collect()
    }

    /// Only the first answer to what was asked.
    fn answer(&mut self, query: u64, answer: Answer, touched: &mut Vec<Touched>) {
        if let Some((_, place)) = self.queries.get_mut(&query) {
            place.get_or_insert(answer);
            touched.push(Touched::Query);
        }
    }

    /// The span of a whole entry.
    pub fn span(&self, seq: u64, range: Range<u64>) -> Span {
        Span { entry: self.id(seq), first: range.start, count: range.end - range.start }
    }

    /// Whether an item of a known entry was within its bounds, so that a span that claims too much ends at the first stranger.
    fn resolve(&mut self, seq: u64, index: u64, known: Known, touched: &mut Vec<Touched>) -> bool {
        let Some(entry) = self.entries.get_mut(&seq).filter(|entry| index < entry.count) else {
            return false;
        };
        if index < entry.base {
            return true;
        }
        if matches!(known, Known::Stored(_)) {
            // Data that a worker holds needs no second upload.
            entry.data = None;
        }
        if let Some(Known::Stored(before)) = entry.others.get(&index) {
            // It is somewhere else now, or it is gone and cannot be had again. Whoever is fetching it will say so.
            let known = match known {
                Known::Stored(remote) => Known::Stored(Remote { fetching: before.fetching, ..remote }),
                other => other,
            };
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
    /// Takes values of which some were reported before. Those are not believed again, but may be in the place of one that was elsewhere.
    fn take_again(&mut self, first: u64, values: &Run) {
        let mut fresh = 0..0;
        for at in 0..values.count() {
            let index = first + u64::from(at);
            if index >= self.base && !self.holds_any(index..index + 1) {
                fresh = if fresh.end == at { fresh.start..at + 1 } else { self.take_part(first, values, at..at + 1, fresh) };
                continue;
            }
            if let Some(known) = self.others.get_mut(&index)
                && matches!(known, Known::Stored(_))
                && let Some(value) = values.get(at)
            {
                *known = Known::Value(value);
            }
        }
        self.take_part(first, values, 0..0, fresh);
    }

    /// Takes those values of a run in that are at `part`; gives the part that is next.
    fn take_part(&mut self, first: u64, values: &Run, next: Range<u32>, part: Range<u32>) -> Range<u32> {
        if !part.is_empty() {
            self.resolved += u64::from(part.end - part.start);
            self.values.insert(first + u64::from(part.start), values.slice(part));
        }
        next
    }

    /// Whether any of these items is resolved: the scheduler reports each once, and a second report is not believed.
    fn holds_any(&self, items: Range<u64>) -> bool {
        let before = self.values.range(..items.end).next_back();
        before.is_some_and(|(first, run)| first + u64::from(run.count()) > items.start)
            || self.others.range(items).next().is_some()
    }
}
