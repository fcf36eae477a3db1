//! The scheduler's state machine. Owns: clients' entries, workers' assignments, who has what, and every decision about them.
//! Must not know: sockets, clocks, threads, or whether the workers are sandboxes or native functions.
//!
//! # How it is driven
//! [`Scheduler::handle`] takes the time and an [`Event`] and appends [`Action`]s, which the shell carries out in order.
//! [`Scheduler::next_deadline`] says when [`Event::Tick`] is due at the latest. [`Scheduler::locate`] answers a shell that serves
//! a value. [`Scheduler::check`] asserts every invariant and is called after each event in tests; [`Scheduler::status`],
//! [`Scheduler::tasks`] and [`Scheduler::failures`] are for people.
//!
//! # Where is what
//! | file | owns |
//! | --- | --- |
//! | `machine` | the struct, the order of work within one event |
//! | `clients`, `register`, `results`, `fleet` | what clients and workers say |
//! | `credit` | what clients may send |
//! | `lease`, `absence`, `blame` | silence; what workers that are away have; whose fault a death is |
//! | `sharing` | what is detached, published, and taken up by other clients |
//! | `away` | clients without a connection, and what they are told when they return |
//! | `lifecycle`, `loss`, `lineage`, `rest` | items changing state, and what follows for others; what can be computed again; retries |
//! | `unread` | stored values that cannot be read where they are said to be, and workers of which that is known |
//! | `copies` | how many workers have a value, and who takes over what another one leaves behind |
//! | `facts`, `ledger`, `restore`, `draft` | what a journal keeps; what of an event is recorded; a machine from what was kept, an entry from its facts |
//! | `queue`, `placement`, `assign`, `ahead`, `recall`, `divide` | which items go to which worker, when |
//! | `status`, `tasks`, `why` | what people see, and why others are not running |
//! | `reads` | who may read which value |
//! | `entry`, `entries`, `items`, `stretches`, `values`, `edges`, `ranges`, `ascending`, `lanes`, `chunks`, `tournament`, `shapes`, `offer` | the data structures, which know nothing of each other's meaning |

mod absence;
mod ahead;
mod ascending;
mod assign;
mod away;
mod blame;
mod check;
mod chunks;
mod clients;
mod copies;
mod credit;
mod divide;
mod draft;
mod edges;
mod entries;
mod entry;
mod facts;
mod fleet;
mod items;
mod lanes;
mod lease;
mod ledger;
mod lifecycle;
mod lineage;
mod loss;
mod machine;
mod offer;
mod placement;
mod queue;
mod ranges;
mod reads;
mod recall;
mod refusal;
mod register;
mod rest;
mod restore;
mod results;
mod shapes;
mod sharing;
mod sparse;
mod status;
mod stretches;
mod tasks;
#[cfg(test)]
mod tests;
mod tournament;
mod unread;
mod values;
mod why;

pub use crate::wire::operator::{ClientStatus, Status, WorkerStatus};
pub use entry::{Datum, Kind};
pub use facts::{
    ClientFact, DeathFact, EntryFact, Fact, HistoryFact, NameFact, Passport, Record, Row, SharingFact, Standing, StatesFact,
    TakerFact,
};
pub use machine::Scheduler;
pub use restore::RestoreError;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    codec::Span,
    ids::{ClientId, Hash, Identity, Key, WorkerId},
    wire::{FromClient, FromWorker, ToClient, ToWorker, WorkerHello},
};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client was let in. Its number is new.
    ClientJoined {
        /// Its number.
        client: ClientId,
        /// Its certificate's identity.
        who: Identity,
        /// Its program's module.
        module: Hash,
        /// How it is known again: kept for the shell, and not looked at.
        passport: Passport,
    },
    /// A client has left and will not come again.
    ClientLeft {
        /// Its number.
        client: ClientId,
    },
    /// A client's connection is gone without a farewell. Nothing that is said to it arrives until it returns.
    ClientLost {
        /// Its number.
        client: ClientId,
    },
    /// A client is here again, on another connection, and may have missed anything that was said to it before.
    ClientReturned {
        /// Its number.
        client: ClientId,
    },
    /// What was said to a client is written ([`Action::AwaitRoom`]).
    ClientHasRoom {
        /// Its number.
        client: ClientId,
    },
    /// A client's right to be here was revoked: it is told and sent away.
    ClientRevoked {
        /// Its number.
        client: ClientId,
    },
    /// A client said something.
    FromClient(ClientId, FromClient),
    /// A worker was let in. Its number is new.
    WorkerJoined {
        /// Its number.
        worker: WorkerId,
        /// Its certificate's identity.
        who: Identity,
        /// Its name for people.
        name: String,
        /// What it offers.
        hello: WorkerHello,
    },
    /// A worker's connection ended, or its process.
    WorkerLeft {
        /// Its number.
        worker: WorkerId,
        /// How.
        departure: Departure,
    },
    /// A worker's process is known to have ended: whoever started it says so, perhaps after its connection is gone.
    WorkerDied {
        /// The process, as its hello names it.
        incarnation: u64,
    },
    /// A worker's right to be here was revoked: it is told and sent away. What it ran is not blamed.
    WorkerRevoked {
        /// Its number.
        worker: WorkerId,
    },
    /// A worker said something.
    FromWorker(WorkerId, FromWorker),
    /// The shell received a client's data and keeps it, since no worker could.
    Held {
        /// The data.
        key: Key,
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
    },
    /// The shell asked a worker, which answered, for a value of such a length and hash that it is said to have: it does not have it, or has
    /// another one in its place. A worker that does not answer, or not to the end, is no such case.
    Unserved {
        /// Whom it asked.
        worker: WorkerId,
        /// For what.
        key: Key,
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
    },
    /// An operator cancels these items. A span from 0 to the last number stands for all of an entry, to come or not.
    Cancel(Span),
    /// So many of the records in [`Action::Record`], counted from the machine's beginning, will outlive this process.
    Recorded {
        /// How many.
        records: u64,
    },
    /// Time went by.
    Tick,
}

/// How a worker went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Departure {
    /// Its process is known to have ended.
    Died,
    /// It fell silent.
    CutOff,
    /// Its connection broke, and nobody knows why.
    Lost,
    /// It said farewell, or was told to go.
    Left,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say this to a client. A client that has left meanwhile is none of the state machine's business.
    ToClient(ClientId, ToClient),
    /// Say this to a worker.
    ToWorker(WorkerId, ToWorker),
    /// Forget blobs that the shell keeps ([`Event::Held`]).
    Drop(Span),
    /// What of the event is to be kept for a restart, all of it or none; only with [`Config::journal`].
    Record(Vec<Record>),
    /// Say [`Event::ClientHasRoom`] once what was said to the client is written: there is more for it. Whatever becomes of its connection
    /// before then makes that void.
    AwaitRoom(ClientId),
    /// Close a client's connection once what was said to it is written.
    DisconnectClient(ClientId),
    /// Nothing is left of a client: it cannot return.
    ForgetClient(ClientId),
    /// Close a worker's connection once what was said to it is written.
    DisconnectWorker(WorkerId),
    /// A worker is silent: find out, where that can be found out, whether its process has ended.
    Probe(WorkerId),
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the scheduler's own memory.
    Inline(Bytes),
    /// In the shell's keeping.
    Held,
    /// On these workers.
    Workers(Vec<WorkerId>),
    /// Nowhere: not computed yet, lost, released, or never heard of.
    Nowhere,
}

/// What the scheduler does when nobody says otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time that a batch should take.
    pub batch_time: Duration,
    /// Assignments that a slot has at a time while little is known of their duration; with short ones, as many as fill
    /// `batch_time` twice.
    pub pipeline: u32,
    /// Calls that are sent ahead to one worker at a time, before their inputs are there; 0 to send none.
    pub ahead: u64,
    /// Bytes of results that a client which returns is told of at a time: more when it has read these.
    pub report_bytes: u64,
    /// Bytes of arguments of one client that are kept before its credit is held back, and what is kept of each entry and item that is not
    /// over; arguments that are kept only in case a stored result is lost are let go then.
    pub client_bytes: u64,
    /// What a client may send ahead of credit, in bytes: of arguments, and for each entry and item ([`FromClient::cost`]).
    pub credit: u64,
    /// A worker is cut off when nothing was heard of it for so long.
    pub lease: Duration,
    /// Values of a worker that was cut off, or whose connection broke, are awaited for so long before they count as lost.
    pub grace: Duration,
    /// A client whose connection is gone is taken to have left when it has not returned for so long.
    pub client_lease: Duration,
    /// Workers that may die while a call runs alone on them, before it is poisonous.
    pub max_deaths: u32,
    /// Whether there is a journal, so that [`Action::Record`] says what to keep.
    pub journal: bool,
    /// After a restart, stored values count as lost when no worker has come back with them for so long.
    pub workers_return: Duration,
    /// After a restart, clients count as gone when they have not come back for so long.
    pub clients_return: Duration,
    /// A call that failed is tried again after so long, after twice that the next time, and so on.
    pub retry_delay: Duration,
    /// But never after more than this.
    pub longest_retry_delay: Duration,
    /// Workers that are to have a copy of scattered data that is not too long for that.
    pub data_copies: u32,
    /// How long a draining worker stays for others to take over its values.
    pub hand_over: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_time: Duration::from_millis(16),
            pipeline: 2,
            ahead: 256,
            report_bytes: 16 << 20,
            client_bytes: 1 << 30,
            credit: 64 << 20,
            lease: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            client_lease: Duration::from_secs(30),
            max_deaths: 3,
            journal: false,
            workers_return: Duration::from_secs(10),
            clients_return: Duration::from_secs(60),
            retry_delay: Duration::from_millis(50),
            longest_retry_delay: Duration::from_secs(5),
            data_copies: 2,
            hand_over: Duration::from_secs(30),
        }
    }
}
