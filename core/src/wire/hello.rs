//! How a connection begins.
//!
//! A peer without a certificate first joins, on a connection of its own (with an ALPN of its own): one bidirectional stream,
//! a [`JoinRequest`] frame there, a `Result<JoinReply, HelloError>` frame back. With the certificate it connects again, both sides
//! authenticated, opens the control stream and writes a [`Hello`] frame; a `Result<Welcome, HelloError>` frame comes back, and
//! then messages of its role flow both ways. Before its certificate ends it asks for another as it did for the first, on a new
//! connection on which it shows the old one.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    error::TokenRefusal,
    ids::{ClientId, Hash, WorkerId},
};

/// Version of the protocol: of every message in this module's parent, of frames and blobs, and of the form that values have.
pub const PROTOCOL: u32 = 6;

/// What a peer may do. A token and a certificate each carry one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Submits calls.
    Client,
    /// Runs them.
    Worker,
    /// Looks on and manages; submits nothing and runs nothing.
    Operator,
}

/// Asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// What the peer is to be.
    pub role: Role,
    /// Why it may.
    pub proof: Proof,
    /// A certificate signing request (PKCS #10, DER), for the public key that is to be certified.
    pub csr: Vec<u8>,
}

/// Why a peer may have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// It knows a token's secret. Its certificate will have an identity that nobody had before.
    Token([u8; 32]),
    /// It has one, which it showed when it connected. The new one will have the same identity.
    Certificate,
}

/// A certificate for the peer's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReply {
    /// DER, signed by the cluster's CA; role and identity are in it.
    pub certificate: Vec<u8>,
    /// Seconds for which it is good from now on.
    pub valid_s: u64,
    /// Whether it is worth keeping for the peer's next run: the scheduler keeps its own key.
    pub keep: bool,
}

/// The first frame on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`]. This field and its place never change.
    pub protocol: u32,
    /// The guest ABI version that this peer builds or runs.
    pub abi: u32,
    /// A name for people: host and process.
    pub name: String,
    /// Of a worker.
    pub worker: Option<WorkerHello>,
    /// Of a client: its program's module, which it will upload if asked.
    pub module: Option<Hash>,
    /// Of a client.
    pub session: Option<Session>,
    /// Whether it comes to ask and to manage. An operator does nothing else; a client may ask how things stand.
    pub operator: bool,
}

/// What a client can be known by when it comes again on another connection, besides its certificate's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Drawn by the client when it connects for the first time: several may have one certificate.
    pub secret: [u8; 16],
    /// Its number, if it has one from an earlier connection and wants to go on.
    pub client: Option<ClientId>,
}

/// What a worker tells of itself. The default has nothing, not even a slot: something to fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerHello {
    /// Items that it runs at a time; at least 1.
    pub slots: u32,
    /// Bytes of memory that tasks may use together.
    pub memory: u64,
    /// Processor architecture: `x86_64`, `aarch64`.
    pub arch: String,
    /// Where it serves blobs; `None` if others cannot reach it.
    pub listen: Option<SocketAddr>,
    /// Key of the grants that it honours.
    pub grant_secret: [u8; 32],
    /// Labels of its owner, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Named resources, sorted by name.
    pub resources: Vec<(String, u64)>,
    /// Names the worker's process: a random number, the same each time that the process joins.
    pub incarnation: u64,
    /// Values that it has from before. It names them first of all, by [`FromWorker::Holds`](super::FromWorker::Holds), and then says
    /// [`FromWorker::Registered`](super::FromWorker::Registered); until then it is given nothing to do.
    pub keeps: u64,
}

/// The scheduler's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// To a client.
    Client {
        /// Its number, for the keys of its entries.
        id: ClientId,
        /// Bytes of arguments that it may send before more are granted; of no meaning to one that goes on.
        credit: u64,
        /// Of a client that goes on: how many of its messages were taken in. The rest are to be sent again.
        applied: Option<u64>,
        /// Whether the scheduler needs its module.
        module_wanted: bool,
    },
    /// To a worker.
    Worker {
        /// Its number.
        id: WorkerId,
        /// How often it is to send a heartbeat, in milliseconds.
        heartbeat_ms: u64,
    },
    /// To an operator.
    Operator {
        /// Version of the scheduler's program, for people.
        version: String,
    },
}

/// Why a peer is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum HelloError {
    /// Another protocol version.
    #[error("protocol version {theirs} is not spoken here, only version {ours}")]
    Version {
        /// The refusing side's.
        ours: u32,
        /// The peer's.
        theirs: u32,
    },
    /// Another guest ABI.
    #[error("guest ABI version {theirs} is not spoken here, only version {ours}")]
    Abi {
        /// The refusing side's.
        ours: u32,
        /// The peer's.
        theirs: u32,
    },
    /// The token is not accepted.
    #[error("the join token is not accepted: {0}")]
    Token(TokenRefusal),
    /// The certificate was revoked.
    #[error("the certificate was revoked")]
    Revoked,
    /// The certificate is missing, or of another role than the peer plays.
    #[error("the certificate does not allow this role")]
    Role,
    /// The request does not make sense.
    #[error("malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The scheduler cannot do it now, through no fault of the peer's.
    #[error("the scheduler cannot do it: {reason}")]
    Unable {
        /// Why not.
        reason: String,
    },
    /// A client wants to go on that is not known, or not any more.
    #[error("this client is not known here any more")]
    Forgotten,
    /// No more peers are taken.
    #[error("the scheduler has as many peers as it takes")]
    Full,
}
