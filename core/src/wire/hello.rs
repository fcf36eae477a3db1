//! How a connection begins.
//!
//! A peer without a certificate first joins, on a connection of its own (with an ALPN of its own): one bidirectional stream,
//! a [`JoinRequest`] frame there, a `Result<JoinReply, HelloError>` frame back. With the certificate it connects again, both sides
//! authenticated, opens the control stream and writes a [`Hello`] frame; a `Result<Welcome, HelloError>` frame comes back, and
//! then messages of its role flow both ways.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{ClientId, Hash, WorkerId};

/// Version of the protocol: of every message in this module's parent, and of frames and blobs.
pub const PROTOCOL: u32 = 1;

/// What a peer may do. A token and a certificate each carry one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Submits calls.
    Client,
    /// Runs them.
    Worker,
}

/// Asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The role that the token is for.
    pub role: Role,
    /// The token's secret.
    pub secret: [u8; 32],
    /// A certificate signing request (PKCS #10, DER), for the public key that is to be certified.
    pub csr: Vec<u8>,
}

/// A certificate for the peer's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReply {
    /// DER, signed by the cluster's CA; role and identity are in it.
    pub certificate: Vec<u8>,
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
}

/// What a worker tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The scheduler's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// To a client.
    Client {
        /// Its number, for the keys of its entries.
        id: ClientId,
        /// Bytes of arguments that it may send before more are granted.
        credit: u64,
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
    /// The token's secret is unknown, expired, or of another role.
    #[error("the join token is unknown, expired, or for another role")]
    Token,
    /// The certificate is missing, or of another role than the peer plays.
    #[error("the certificate does not allow this role")]
    Role,
    /// The request does not make sense.
    #[error("malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// No more peers are taken.
    #[error("the scheduler has as many peers as it takes")]
    Full,
}
