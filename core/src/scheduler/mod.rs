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
//! | `lifecycle`, `loss`, `lineage` | items changing state, and what follows for others; what can be computed again |
//! | `queue`, `placement`, `assign`, `ahead`, `recall` | which items go to which worker, when |
//! | `status`, `tasks`, `why` | what people see, and why others are not running |
//! | `entry`, `items`, `values`, `edges`, `ranges`, `shapes`, `offer` | the data structures, which know nothing of each other's meaning |

mod ahead;
mod assign;
mod check;
mod clients;
mod edges;
mod entry;
mod fleet;
mod items;
mod lifecycle;
mod lineage;
mod loss;
mod machine;
mod offer;
mod placement;
mod queue;
mod ranges;
mod recall;
mod refusal;
mod register;
mod results;
mod shapes;
mod status;
mod tasks;
#[cfg(test)]
mod tests;
mod values;
mod why;

pub use crate::wire::operator::{ClientStatus, Status, WorkerStatus};
pub use machine::Scheduler;

use std::time::Duration;

use bytes::Bytes;

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
    },
    /// A client is gone, with or without a farewell.
    ClientLeft {
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
    /// An operator cancels these items. A span from 0 to the last number stands for all of an entry, to come or not.
    Cancel(Span),
    /// Time went by.
    Tick,
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
    /// Close a client's connection once what was said to it is written.
    DisconnectClient(ClientId),
    /// Close a worker's connection once what was said to it is written.
    DisconnectWorker(WorkerId),
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
    /// Bytes of arguments of one client that are kept before its credit is held back; arguments that are kept only in case a stored
    /// result is lost are let go then.
    pub client_bytes: u64,
    /// Bytes of arguments that a client may send ahead of credit.
    pub credit: u64,
    /// A worker is cut off when nothing was heard of it for so long.
    pub lease: Duration,
    /// Workers that may die while a call runs alone on them, before it is poisonous.
    pub max_deaths: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_time: Duration::from_millis(4),
            pipeline: 2,
            ahead: 256,
            client_bytes: 1 << 30,
            credit: 64 << 20,
            lease: Duration::from_secs(5),
            max_deaths: 3,
        }
    }
}
