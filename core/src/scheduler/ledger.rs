//! What of the event in hand is to be recorded, and what waits until it is. Must not know: how records are stored.
//!
//! Changes are noted where they are made, and said at the end of the event, so that an item that changes twice is recorded once. Without a
//! journal nothing is noted.
//!
//! A worker is told that nobody needs a value only when that is recorded: a scheduler that was started again from before would want it
//! back, and scattered data is nowhere else. For the same reason a client is told only then that its upload was taken.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use super::{
    Action, Scheduler,
    clients::Client,
    entry::Entry,
    facts::{
        ClientFact, DETACHED, DeathFact, EntryFact, Fact, HistoryFact, NameFact, Part, RELEASED, Record, Row, SharingFact,
        Standing, StatesFact, TakerFact, WANTED,
    },
    items::{CHUNK, State},
};
use crate::{
    codec::{Args, Run, Span},
    ids::{ClientId, EntryId, Hash, Key, WorkerId},
    wire::ToClient,
};

/// The changes of the event in hand.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    is_on: bool,
    records: Vec<Record>,
    clients: BTreeSet<ClientId>,
    entries: BTreeMap<EntryId, Changes>,
    /// Records that were said since the start.
    said: u64,
    /// Those of them that are durable.
    durable: u64,
    /// What is to be said once so many records are durable.
    later: VecDeque<(u64, Later)>,
    /// Values that workers brought back, of entries that a restart forgot and whose clients have yet to say them again.
    strays: BTreeSet<(Key, WorkerId)>,
}

/// What is said when it is durable why.
#[derive(Debug)]
enum Later {
    /// A worker is to forget a value.
    Free(WorkerId, Key),
    /// A client need not keep its data.
    Taken(EntryId),
}

/// Stands for the end of the event in hand.
const NOT_SAID: u64 = u64::MAX;

/// What changed about an entry.
#[derive(Debug)]
struct Changes {
    /// Items that were forgotten before.
    base: u64,
    /// Whether more than items' states changed.
    is_head: bool,
    /// Whether who else wants them changed.
    is_sharing: bool,
    /// Blocks of items.
    blocks: BTreeSet<u64>,
}

impl Ledger {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, ..Self::default() }
    }

    /// A client came, or said something.
    pub(super) fn touch_client(&mut self, client: ClientId) {
        if self.is_on {
            self.clients.insert(client);
        }
    }

    /// An entry is new, or has more items, or may have no more.
    pub(super) fn touch_entry(&mut self, id: EntryId, entry: &Entry) {
        if self.is_on {
            self.changes(id, entry.items.base()).is_head = true;
        }
    }

    /// Others want items of an entry, or do not any more.
    pub(super) fn touch_sharing(&mut self, id: EntryId, entry: &Entry) {
        if self.is_on {
            self.changes(id, entry.items.base()).is_sharing = true;
        }
    }

    /// Items of an entry, of which those before `base` are forgotten, change.
    pub(super) fn touch(&mut self, id: EntryId, base: u64, items: &Range<u64>) {
        if self.is_on && !items.is_empty() {
            let blocks = items.start / CHUNK..=(items.end - 1) / CHUNK;
            self.changes(id, base).blocks.extend(blocks);
        }
    }

    fn changes(&mut self, id: EntryId, base: u64) -> &mut Changes {
        self.entries.entry(id).or_insert_with(|| Changes { base, is_head: false, is_sharing: false, blocks: BTreeSet::new() })
    }

    pub(super) fn put_args(&mut self, entry: EntryId, first: u64, args: &Args) {
        if self.is_on {
            self.records.push(Record::Put(Fact::Args { entry, first, args: args.clone() }));
        }
    }

    pub(super) fn put_values(&mut self, entry: EntryId, first: u64, values: &Run) {
        if self.is_on {
            self.records.push(Record::Put(Fact::Values { entry, first, values: values.clone() }));
        }
    }

    pub(super) fn put_stored(&mut self, key: Key, len: u64, hash: Hash) {
        if self.is_on {
            self.records.push(Record::Put(Fact::Stored { key, len, hash }));
        }
    }

    pub(super) fn put_error(&mut self, entry: EntryId, items: &Range<u64>, error: &crate::TaskError) {
        if self.is_on {
            let (first, count) = (items.start, items.end - items.start);
            self.records.push(Record::Put(Fact::Error { entry, first, count, error: error.clone() }));
        }
    }

    pub(super) fn drop_row(&mut self, entry: EntryId, part: Part, first: u64) {
        if self.is_on {
            let row = Row::of(entry, part, first);
            self.records.push(Record::Drop(row..=row));
        }
    }

    pub(super) fn drop_errors(&mut self, entry: EntryId, items: &Range<u64>) {
        if self.is_on {
            self.records.push(Record::DropErrors(Span { entry, first: items.start, count: items.end - items.start }));
        }
    }

    pub(super) fn drop_entry(&mut self, entry: EntryId) {
        if self.is_on {
            self.entries.remove(&entry);
            self.records.push(Record::Drop(Row::entry(entry)));
        }
    }

    fn next_due(&mut self) -> Option<Later> {
        let is_due = self.later.front().is_some_and(|(at, _)| *at <= self.durable);
        if is_due { self.later.pop_front().map(|(_, later)| later) } else { None }
    }

    pub(super) fn drop_client(&mut self, client: ClientId) {
        if self.is_on {
            self.clients.remove(&client);
            self.records.push(Record::Drop(Row::client(client)));
        }
    }
}

impl Scheduler {
    /// A worker is to forget a value that nobody needs: once the event in hand is recorded.
    pub(super) fn free_unneeded(&mut self, worker: WorkerId, key: Key) {
        match self.ledger.is_on {
            true => self.ledger.later.push_back((NOT_SAID, Later::Free(worker, key))),
            false => self.free_on(worker, key),
        }
    }

    /// A worker is to forget a value that was not expected of it. If it belongs to an entry that the value's client will say again, as it
    /// does with all that was not recorded before a restart, then only after that: the client may have it uploaded to that very worker, by a
    /// path on which a word that was said before can be overtaken.
    pub(super) fn free_stray(&mut self, worker: WorkerId, key: Key) {
        let client = self.clients.get(&key.entry.client).filter(|client| client.is_restored && !client.has_left);
        match client.is_some_and(|client| client.last_seq < Some(key.entry.seq)) {
            true => drop(self.ledger.strays.insert((key, worker))),
            false => self.free_unneeded(worker, key),
        }
    }

    /// A client has said all of its entries up to number `seq`, or is gone.
    pub(super) fn free_strays(&mut self, client: ClientId, seq: u64) {
        let last = EntryId { client, seq }.key(u64::MAX);
        while let Some(&(key, worker)) = self.ledger.strays.range((EntryId { client, seq: 0 }.key(0), WorkerId(0))..).next()
            && key <= last
        {
            self.ledger.strays.remove(&(key, worker));
            self.free_unneeded(worker, key);
        }
    }

    /// A client need not keep its data any more: once the event in hand is recorded.
    pub(super) fn say_taken(&mut self, id: EntryId) {
        match self.ledger.is_on {
            true => self.ledger.later.push_back((NOT_SAID, Later::Taken(id))),
            false => self.tell_client(id.client, ToClient::Taken { seq: id.seq }),
        }
    }

    /// Says what is to be recorded of the event in hand.
    pub(super) fn say_records(&mut self) {
        if !self.ledger.is_on {
            return;
        }
        for (id, changes) in std::mem::take(&mut self.ledger.entries) {
            if let Some(entry) = self.entries.get(&id) {
                record_changes(id, entry, &changes, &mut self.ledger.records);
                if changes.is_sharing {
                    let fact = self.sharing_fact(id, entry);
                    self.ledger.records.push(Record::Put(fact));
                }
            }
        }
        for id in std::mem::take(&mut self.ledger.clients) {
            if let Some(client) = self.clients.get(&id) {
                self.ledger.records.push(Record::Put(Fact::Client(client.fact(id))));
            }
        }
        let records = std::mem::take(&mut self.ledger.records);
        self.ledger.said += records.len() as u64;
        let said = self.ledger.said;
        // New ones are at the end.
        self.ledger.later.iter_mut().rev().take_while(|(at, _)| *at == NOT_SAID).for_each(|(at, _)| *at = said);
        if !records.is_empty() {
            self.out.push(Action::Record(records));
        }
        // What the event repeats may be durable already.
        self.recorded(0);
    }

    fn sharing_fact(&self, id: EntryId, entry: &Entry) -> Fact {
        let mut fact = SharingFact { entry: id, names: Vec::new(), takers: Vec::new() };
        if let Some(sharing) = &entry.rare.sharing {
            let kind = |name| self.names.get(name).map_or(String::new(), |known| known.kind.clone());
            let names = sharing.names.iter();
            fact.names.extend(names.map(|(name, items)| NameFact {
                name: name.clone(),
                kind: kind(name),
                first: items.start,
                end: items.end,
            }));
            let takers = sharing.takers.iter();
            fact.takers.extend(takers.map(|(&(client, seq), items)| TakerFact {
                client,
                seq,
                first: items.start,
                end: items.end,
            }));
        }
        Fact::Sharing(fact)
    }

    /// So many records are durable: what waits for that can be said.
    pub(super) fn recorded(&mut self, records: u64) {
        self.ledger.durable = self.ledger.durable.max(records);
        let mut again = Vec::new();
        while let Some(later) = self.ledger.next_due() {
            let (worker, key) = match later {
                Later::Free(worker, key) => (worker, key),
                Later::Taken(id) => {
                    self.tell_client(id.client, ToClient::Taken { seq: id.seq });
                    continue;
                }
            };
            let entry = self.entries.get(&key.entry);
            let holds =
                entry.and_then(|entry| entry.rare.stored.get(&key.index)).is_some_and(|value| value.workers.contains(&worker));
            // It is being computed or uploaded again, maybe by or to that very worker, or that worker may be getting a copy of it now: what
            // is to become of the one that it has is decided afterwards.
            let is_pending = entry.and_then(|entry| entry.items.state(key.index)).is_some_and(State::is_pending);
            let is_stored = entry.is_some_and(|entry| entry.rare.stored.contains_key(&key.index));
            match holds {
                true => {}
                false if is_pending || (is_stored && self.may_read(worker, key)) => again.push(Later::Free(worker, key)),
                false => self.free_on(worker, key),
            }
        }
        // When that ends, it is recorded.
        let next = self.ledger.said + 1;
        self.ledger.later.extend(again.into_iter().map(|later| (next, later)));
    }
}

impl Client {
    /// What is kept of it.
    pub(super) fn fact(&self, client: ClientId) -> ClientFact {
        let (passport, applied, sent) = (self.passport.clone(), self.applied, self.sent);
        let (who, module, last_seq, has_left) = (self.who, self.module, self.last_seq, self.has_left);
        ClientFact { client, who, module, passport, last_seq, applied, sent, has_left }
    }
}

/// Records how an entry stands, as far as it changed.
fn record_changes(id: EntryId, entry: &Entry, changes: &Changes, records: &mut Vec<Record>) {
    let base = entry.items.base();
    if changes.is_head || base != changes.base {
        records.push(Record::Put(Fact::Entry(EntryFact {
            entry: id,
            kind: entry.kind.clone(),
            arrival: entry.arrival,
            open: entry.open,
            is_abandoned: entry.is_abandoned,
            is_cancelled: entry.is_cancelled,
            base,
            len: entry.items.len(),
        })));
    }
    if base != changes.base {
        let blocks = Row::of(id, Part::States, changes.base / CHUNK)..=Row::of(id, Part::States, base / CHUNK - 1);
        records.push(Record::Drop(blocks));
        records.push(Record::DropErrors(Span { entry: id, first: 0, count: base }));
    }
    for &block in changes.blocks.range(base / CHUNK..) {
        let fact = states(id, entry, block);
        let row = Row::of(id, Part::States, block);
        match fact.stretches.is_empty() && fact.histories.is_empty() {
            true => records.push(Record::Drop(row..=row)),
            false => records.push(Record::Put(Fact::States(fact))),
        }
    }
}

/// How the items of a block stand.
fn states(id: EntryId, entry: &Entry, block: u64) -> StatesFact {
    let items = block * CHUNK..(block + 1) * CHUNK;
    let mut stretches = Vec::<(u32, Standing, u8)>::new();
    let mut push = |count: u32, standing: Standing, wants: u8| match stretches.last_mut() {
        Some((sum, last, same)) if (*last, *same) == (standing, wants) => *sum += count,
        _ => stretches.push((count, standing, wants)),
    };
    for segment in entry.items.segments(items.clone()) {
        let (standing, wanted) = (Standing::of(segment.state), if segment.wanted { WANTED } else { 0 });
        let Some(sharing) = &entry.rare.sharing else {
            push(segment.count() as u32, standing, wanted);
            continue;
        };
        for item in segment.range() {
            let released = if sharing.released.contains(item) { RELEASED } else { 0 };
            let detached = if sharing.detached.contains(item) { DETACHED } else { 0 };
            push(1, standing, wanted | released | detached);
        }
    }
    stretches.pop_if(|(_, standing, wants)| (*standing, *wants) == (Standing::Pending, WANTED));
    let odd = entry.rare.oddities.range(items).filter(|(_, oddity)| oddity.attempts > 0 || !oddity.deaths.is_empty());
    let histories = odd.map(|(&item, oddity)| {
        let deaths = oddity.deaths.iter().map(|death| DeathFact {
            worker: death.worker.clone(),
            who: death.process.0,
            incarnation: death.process.1,
            departure: death.departure,
        });
        HistoryFact { item, attempts: oddity.attempts, deaths: deaths.collect() }
    });
    StatesFact { entry: id, block, stretches, histories: histories.collect() }
}

impl Standing {
    pub(super) fn of(state: State) -> Self {
        match state {
            State::Waiting | State::Resting | State::Queued | State::Processing => Self::Pending,
            State::Inline => Self::Inline,
            State::Stored | State::Away => Self::Stored,
            State::Final | State::FinalAway => Self::Final,
            State::Dormant => Self::Dormant,
            State::Uploading => Self::Uploading,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Released => Self::Released,
        }
    }

    /// The state that an item begins with after a restart.
    pub(super) fn state(self) -> State {
        match self {
            Self::Pending => State::Waiting,
            Self::Inline => State::Inline,
            Self::Stored => State::Away,
            Self::Final => State::FinalAway,
            Self::Dormant => State::Dormant,
            Self::Uploading => State::Uploading,
            Self::Failed => State::Failed,
            Self::Cancelled => State::Cancelled,
            Self::Released => State::Released,
        }
    }
}
