//! What operators ask and hear: how things stand. Must not know: how any of it is found out, or shown.
//!
//! After `Welcome::Operator` the control stream carries frames of one message each: a [`FromOperator`] request, then a
//! `Result<ToOperator, OperatorRefusal>` answer, one answer a request, in order.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Load, LogLine, StateCounts, Waiting,
    members::{MembersReply, MembersRequest},
};
use crate::{
    TaskErrorKind,
    codec::Span,
    ids::{ClientId, EntryId, Hash, Identity, Key, WorkerId},
};

/// Longest request in bytes.
pub const REQUEST_BYTES: usize = 64 << 10;
/// Workers, clients and modules that a status lists, each.
pub const LISTED_PEERS: usize = 1000;
/// Entries, failures or lines that one answer lists, whatever limit was asked for.
pub const LISTED_ITEMS: usize = 10_000;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromOperator {
    /// How do things stand? The one request that a client's certificate allows, too.
    Status,
    /// Which calls and maps are there?
    Tasks {
        /// So many at most.
        limit: u32,
    },
    /// What failed lately?
    Failures {
        /// So many at most.
        limit: u32,
    },
    /// Cancel these items, as their client could. A span from 0 to the last number stands for all of an entry, to come or not.
    Cancel {
        /// The items.
        span: Span,
    },
    /// What did tasks print?
    Logs {
        /// On this worker only.
        worker: Option<WorkerId>,
        /// Of these items only.
        span: Option<Span>,
        /// The last so many lines at most.
        limit: u32,
        /// Of these workers, only lines with a greater number.
        after: Vec<(WorkerId, u64)>,
    },
    /// About who may join, and who may stay.
    Members(MembersRequest),
}

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToOperator {
    /// How things stand.
    Status(Status),
    /// Calls and maps.
    Tasks(Tasks),
    /// What failed.
    Failures(Failures),
    /// That items are cancelled, and with them what needs their results.
    Cancelled {
        /// Those of the span that had not ended.
        items: u64,
    },
    /// What was printed.
    Logs(Logs),
    /// About who may join, and who may stay.
    Members(MembersReply),
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum OperatorRefusal {
    /// The certificate is a client's, and the request needs an operator's.
    #[error("a client's token allows to ask for the status only; this needs an operator's")]
    Role,
    /// There is no such entry: its client never made it, has released it, or has left.
    #[error("there is no call or map {entry:?} (any more); `quicsand tasks` lists those that there are")]
    UnknownEntry {
        /// The entry.
        entry: EntryId,
    },
    /// The entry has no such item.
    #[error("{key} does not exist: its map has {items} items")]
    UnknownItem {
        /// The item.
        key: Key,
        /// Items that there are.
        items: u64,
    },
    /// There is no such worker.
    #[error("there is no worker {worker} (any more); `quicsand status` lists those that there are")]
    UnknownWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// The scheduler cannot do it.
    #[error("it cannot be done: {reason}")]
    Failed {
        /// Why not.
        reason: String,
    },
    /// The request is none. The connection ends after this.
    #[error("malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
}

/// What is going on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The workers, by number.
    pub workers: Vec<WorkerStatus>,
    /// The clients, by number.
    pub clients: Vec<ClientStatus>,
    /// The modules that the scheduler has or knows of, by hash.
    pub modules: Vec<ModuleStatus>,
    /// Workers, clients and modules that are not listed for their number.
    pub unlisted: u64,
    /// Items in each state, of all clients; entries that are gone are not in it.
    pub counts: StateCounts,
    /// Queued items, which no worker has yet, by what they ask for, and why they wait.
    pub waits: Vec<Waiting>,
    /// For how long the scheduler has been running, in milliseconds.
    pub uptime_ms: u64,
}

/// A worker, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub id: WorkerId,
    /// Its certificate's identity.
    pub identity: Identity,
    /// Its name.
    pub name: String,
    /// Where it comes from, as the scheduler sees it; `None` for one without a connection, in-process.
    pub address: Option<SocketAddr>,
    /// Its processor architecture.
    pub arch: String,
    /// Items that it runs at a time.
    pub slots: u32,
    /// Bytes of memory that tasks may use together.
    pub memory: u64,
    /// What it had to spare at its last heartbeat.
    pub load: Load,
    /// Labels of its owner, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Named resources, sorted by name.
    pub resources: Vec<(String, u64)>,
    /// What assignments take of them; those of which nothing is taken are left out.
    pub taken: Vec<(String, u64)>,
    /// Assignments that it has.
    pub assignments: u64,
    /// Those of them that were sent ahead of their inputs.
    pub ahead: u64,
    /// Stored values that it has.
    pub values: u64,
    /// Whether it is leaving.
    pub draining: bool,
}

/// A client, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its number.
    pub id: ClientId,
    /// Its name; empty in-process.
    pub name: String,
    /// Where it comes from; `None` for one without a connection, in-process.
    pub address: Option<SocketAddr>,
    /// Its entries: calls, maps and data that are not released.
    pub entries: u64,
    /// Bytes of its arguments and data that are kept here.
    pub held_bytes: u64,
    /// Its program's module.
    pub module: Hash,
    /// Whether it is here.
    pub presence: Presence,
    /// Names under which results of it are published.
    pub published: u32,
    /// Its items in each state.
    pub counts: StateCounts,
}

/// Whether a client is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// It is.
    Here,
    /// Its connection broke, and it may come back.
    Away,
    /// It has left, and something of it is still wanted: detached, published, or taken up by another client.
    Left,
}

/// A module, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// Its name.
    pub hash: Hash,
    /// Bytes of its WebAssembly; `None` while it is announced but not here.
    pub bytes: Option<u64>,
    /// Clients that are here whose program it belongs to.
    pub clients: u64,
}

/// Calls and maps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// Those that are not at their end first, then those with items that erred, then the others; each by client and number.
    pub entries: Vec<EntryStatus>,
    /// Entries that are not listed.
    pub more: u64,
}

/// What an entry is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A call.
    Call,
    /// A map.
    Map {
        /// Whether items may still come.
        open: bool,
    },
    /// Scattered data.
    Data {
        /// Its length.
        bytes: u64,
    },
}

/// A call, a map or data, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryStatus {
    /// Its name.
    pub id: EntryId,
    /// What it is.
    pub kind: EntryKind,
    /// Its task; empty for data.
    pub task: String,
    /// Its items in each state.
    pub counts: StateCounts,
    /// Workers that have items of it, at most [`ENTRY_WORKERS`] of them.
    pub workers: Vec<WorkerId>,
    /// Time since it came, in milliseconds.
    pub age_ms: u64,
}

/// Workers that are listed with one entry.
pub const ENTRY_WORKERS: usize = 8;

/// What failed lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// The latest first.
    pub failures: Vec<Failure>,
    /// Failures that the scheduler remembers and that are not listed.
    pub more: u64,
}

/// Items that failed, not for others' sake. Its texts are cut at a length that says enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The first of them.
    pub key: Key,
    /// Consecutive items that failed by the same error.
    pub items: u64,
    /// Their task.
    pub task: String,
    /// How they failed.
    pub kind: TaskErrorKind,
    /// The error, panic or trap message.
    pub message: String,
    /// `file:line:column` of a panic.
    pub location: Option<String>,
    /// Worker they ran on: name and architecture.
    pub worker: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Time since, in milliseconds.
    pub ago_ms: u64,
}

/// What tasks printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// By time, the latest last; with the worker.
    pub lines: Vec<(WorkerId, LogLine)>,
    /// The greatest number of a line that was found on each worker, listed or not: whoever asks again asks for what comes after it.
    pub last: Vec<(WorkerId, u64)>,
    /// Workers that did not answer.
    pub silent: Vec<SilentWorker>,
}

/// A worker that did not say what its tasks printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentWorker {
    /// Its number.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}
