//! What a journal keeps of the scheduler, as facts, each with a place of its own, and how they change. Must not know: the machine that
//! they are about, and how they are stored.
//!
//! A fact says how things stand, not what happened: putting it twice is putting it once, and all facts at one moment are the scheduler's
//! state then, less what a restart ends anyway: workers, runs, measured times. Their number goes with entries, batches and stored values,
//! not with items.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Departure, entry::Kind};
use crate::{
    TaskError,
    codec::{self, Args, Run, Span},
    ids::{ClientId, EntryId, Hash, Identity, Key},
};

/// Somebody wants the items.
pub(super) const WANTED: u8 = 1;
/// Their client has released them, and others may want them.
pub(super) const RELEASED: u8 = 2;
/// They are to run to their end whatever their client does.
pub(super) const DETACHED: u8 = 4;

/// A change of the facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A fact is new, or is in the place of an older one.
    Put(Fact),
    /// The facts in these rows are over.
    Drop(RangeInclusive<Row>),
    /// Errors of these items, as far as an error has no other items, are over.
    DropErrors(Span),
}

/// Where a fact belongs. Facts are restored in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    client: u64,
    seq: u64,
    part: Part,
    first: u64,
}

/// Parts of what is kept of an entry; a client is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Part {
    Client = 0,
    Entry = 1,
    Sharing = 2,
    States = 3,
    Values = 4,
    Stored = 5,
    Errors = 6,
    Args = 7,
}

impl Row {
    pub(super) fn of(entry: EntryId, part: Part, first: u64) -> Self {
        Self { client: entry.client.0, seq: entry.seq, part, first }
    }

    /// All rows of an entry.
    pub(super) fn entry(entry: EntryId) -> RangeInclusive<Self> {
        Self::of(entry, Part::Entry, 0)..=Self::of(entry, Part::Args, u64::MAX)
    }

    /// All rows of a client and its entries.
    pub(super) fn client(client: ClientId) -> RangeInclusive<Self> {
        let (client, first) = (client.0, 0);
        Self { client, seq: 0, part: Part::Client, first }..=Self { client, seq: u64::MAX, part: Part::Args, first: u64::MAX }
    }

    /// The rows of errors that begin with these items.
    #[must_use]
    pub fn errors(span: &Span) -> RangeInclusive<Self> {
        let last = span.first.saturating_add(span.count).saturating_sub(1);
        Self::of(span.entry, Part::Errors, span.first)..=Self::of(span.entry, Part::Errors, last)
    }

    /// A name of the row, which sorts as rows do.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 25] {
        let mut bytes = [0; 25];
        bytes[..8].copy_from_slice(&self.client.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_be_bytes());
        bytes[16] = self.part as u8;
        bytes[17..].copy_from_slice(&self.first.to_be_bytes());
        bytes
    }
}

/// What is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A client takes part.
    Client(ClientFact),
    /// There is an entry.
    Entry(EntryFact),
    /// Others than its client want items of an entry, or did.
    Sharing(SharingFact),
    /// How items of an entry stand that are not all pending and wanted.
    States(StatesFact),
    /// Results that the scheduler has.
    Values {
        /// Their entry.
        entry: EntryId,
        /// The first one's index.
        first: u64,
        /// The results.
        values: Run,
    },
    /// A result or data that workers have, or the shell.
    Stored {
        /// Whose.
        key: Key,
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
    },
    /// Why those of consecutive items that failed did.
    Error {
        /// Their entry.
        entry: EntryId,
        /// The first one's index.
        first: u64,
        /// Number of items.
        count: u64,
        /// Why.
        error: TaskError,
    },
    /// Arguments that are still needed, or might be.
    Args {
        /// Their entry.
        entry: EntryId,
        /// The first one's index.
        first: u64,
        /// The arguments.
        args: Args,
    },
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFact {
    /// Its number.
    pub client: ClientId,
    /// Its certificate's identity.
    pub who: Identity,
    /// Its program's module.
    pub module: Hash,
    /// How it is known again.
    pub passport: Passport,
    /// The number of its latest entry.
    pub last_seq: Option<u64>,
    /// Its messages that were taken in.
    pub applied: u64,
    /// Bytes of arguments and data that it sent.
    pub sent: u64,
    /// Whether it has left, and something of it is still wanted.
    pub has_left: bool,
}

/// What the shell knows a client by: kept for it, and not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passport {
    /// Drawn by the client.
    pub secret: [u8; 16],
    /// For people.
    pub name: String,
}

/// Who else wants items of an entry. Which ones its client has released, and which are detached, is said with how they stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharingFact {
    /// The entry.
    pub entry: EntryId,
    /// Names that stand for items of it.
    pub names: Vec<NameFact>,
    /// Clients that took items of it up.
    pub takers: Vec<TakerFact>,
}

/// A published result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFact {
    /// The name.
    pub name: String,
    /// What it is for the program that published it.
    pub kind: String,
    /// The first item.
    pub first: u64,
    /// The end of the items.
    pub end: u64,
}

/// What a client took up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakerFact {
    /// The client.
    pub client: ClientId,
    /// Its own number for these items.
    pub seq: u64,
    /// The first item.
    pub first: u64,
    /// The end of the items.
    pub end: u64,
}

/// An entry, less its items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryFact {
    /// Its name.
    pub entry: EntryId,
    /// What it is.
    pub kind: Kind,
    /// Position in the order of arrival.
    pub arrival: u64,
    /// Whether items may still come.
    pub open: bool,
    /// Whether it was closed because all of it was released.
    pub is_abandoned: bool,
    /// Whether an operator cancelled all of it.
    pub is_cancelled: bool,
    /// Items before this one are released.
    pub base: u64,
    /// Number of items.
    pub len: u64,
}

/// How the items of a block stand. What is not said of a block's last items is that they are pending and wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatesFact {
    /// Their entry.
    pub entry: EntryId,
    /// Number of the block; blocks have 4096 items.
    pub block: u64,
    /// Number of consecutive items that are alike, how they stand, and who wants them: 1 somebody, 2 not its client any more, 4 it is detached.
    pub stretches: Vec<(u32, Standing, u8)>,
    /// Items with a history.
    pub histories: Vec<HistoryFact>,
}

/// An item's tries so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryFact {
    /// Its index.
    pub item: u64,
    /// Tries that failed.
    pub attempts: u32,
    /// Workers that died, or seem to have, while it ran alone on them.
    pub deaths: Vec<DeathFact>,
}

/// A worker that died, or seems to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeathFact {
    /// Its name.
    pub worker: String,
    /// Its certificate's identity.
    pub who: Identity,
    /// The number of its process.
    pub incarnation: u64,
    /// How it went.
    pub departure: Departure,
}

/// What lasts of an item's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// To be computed.
    Pending,
    /// Its value is in the scheduler.
    Inline,
    /// Its value is stored.
    Stored,
    /// Its value is stored, and cannot be computed again.
    Final,
    /// Its value is gone, and could be computed again.
    Dormant,
    /// Its value is being uploaded.
    Uploading,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Nothing is left of it.
    Released,
}

impl Fact {
    /// Where it belongs.
    #[must_use]
    pub fn row(&self) -> Row {
        match self {
            Self::Client(fact) => *Row::client(fact.client).start(),
            Self::Entry(fact) => Row::of(fact.entry, Part::Entry, 0),
            Self::Sharing(fact) => Row::of(fact.entry, Part::Sharing, 0),
            Self::States(fact) => Row::of(fact.entry, Part::States, fact.block),
            Self::Values { entry, first, .. } => Row::of(*entry, Part::Values, *first),
            Self::Stored { key, .. } => Row::of(key.entry, Part::Stored, key.index),
            Self::Error { entry, first, .. } => Row::of(*entry, Part::Errors, *first),
            Self::Args { entry, first, .. } => Row::of(*entry, Part::Args, *first),
        }
    }

    /// Whether it is about errors of these items alone.
    #[must_use]
    pub fn is_error_within(&self, span: &Span) -> bool {
        match self {
            Self::Error { entry, first, count, .. } => {
                *entry == span.entry
                    && *first >= span.first
                    && first.saturating_add(*count) <= span.first.saturating_add(span.count)
            }
            _ => false,
        }
    }

    /// Appends its encoding.
    ///
    /// # Errors
    /// None is expected: facts consist of numbers, texts and lists.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
        codec::encode_into(self, out)
    }

    /// Decodes a fact. Fails rather than asks for more memory than there are bytes.
    ///
    /// # Errors
    /// When the bytes are no fact.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        codec::decode(bytes)
    }
}
