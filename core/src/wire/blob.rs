//! Blobs: values and modules too large for a message, each on a bidirectional stream of its own.
//!
//! The opener writes one frame, a [`BlobRequest`]. To a `Get` the other side answers with a frame, a [`BlobReply`], and after
//! `Found` the raw bytes. After a `Put` frame the opener writes the raw bytes, and the other side answers with a reply frame.
//! Whoever receives bytes checks their length and BLAKE3 hash: the end of a stream proves nothing, since a stream that its
//! sender dropped looks finished.

#[cfg(not(target_family = "wasm"))]
use std::net::IpAddr;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::LogQuery;
#[cfg(not(target_family = "wasm"))]
use crate::ids::Identity;
use crate::ids::{Hash, Key, WorkerId};

/// Leave to read or write one value on one worker: BLAKE3, keyed with a secret that the scheduler shares with that worker, over the
/// value's key, the identity of the peer that may come, and the places where the worker hands the value on to. Opaque to its bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant(pub [u8; 32]);

#[cfg(not(target_family = "wasm"))]
impl Grant {
    /// Leave for `who` to come to the worker with that secret for the value of `key`.
    #[must_use]
    pub fn issue(secret: &[u8; 32], key: Key, who: Identity) -> Self {
        Self::issue_to_hand_on(secret, key, who, &[])
    }

    /// Leave for `who` to come to the worker with that secret with the value of `key`, and to have it handed on to the places of `then`.
    #[must_use]
    pub fn issue_to_hand_on(secret: &[u8; 32], key: Key, who: Identity, then: &[Place]) -> Self {
        let mut text = blake3::Hasher::new_keyed(secret);
        let [client, seq, index] = [key.entry.client.0, key.entry.seq, key.index].map(u64::to_le_bytes);
        text.update(&client).update(&seq).update(&index).update(&who.0);
        for Place { worker, address, grant } in then {
            let ip = match address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            text.update(&worker.0.to_le_bytes()).update(&ip.octets()).update(&address.port().to_le_bytes()).update(&grant.0);
        }
        Self(*text.finalize().as_bytes())
    }

    /// Whether this is that leave; takes the same time whatever the answer.
    #[must_use]
    pub fn allows(&self, secret: &[u8; 32], key: Key, who: Identity) -> bool {
        self.allows_to_hand_on(secret, key, who, &[])
    }

    /// Whether this is that leave; takes the same time whatever the answer.
    #[must_use]
    pub fn allows_to_hand_on(&self, secret: &[u8; 32], key: Key, who: Identity, then: &[Place]) -> bool {
        blake3::Hash::from(Self::issue_to_hand_on(secret, key, who, then).0) == blake3::Hash::from(self.0)
    }
}

/// A worker that serves a value, or takes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The worker.
    pub worker: WorkerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Leave to come.
    pub grant: Grant,
}

/// What a blob stream is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobRequest {
    /// Send me this value. Over a connection with the scheduler no grant is needed.
    Get {
        /// The value.
        key: Key,
        /// Leave to read it.
        grant: Option<Grant>,
    },
    /// Take this value, and hand it on while it comes.
    Put {
        /// The value.
        key: Key,
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
        /// Leave to write it.
        grant: Option<Grant>,
        /// Where it goes on to: to the first of these with the others, if there are any. Whoever takes it does not answer for them.
        then: Vec<Place>,
    },
    /// Send me this module. Asked by workers of the scheduler, which waits a while for one that a client has announced.
    GetModule {
        /// Its name.
        hash: Hash,
    },
    /// Send me lines that tasks printed, as a postcard encoding of `Vec<LogLine>`. Asked by the scheduler of workers.
    GetLog(LogQuery),
    /// Take this module. Asked by clients of the scheduler.
    PutModule {
        /// Its name.
        hash: Hash,
        /// Length in bytes.
        len: u64,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobReply {
    /// The bytes follow.
    Found {
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
    },
    /// It is not here.
    NotFound,
    /// It was taken, complete and correct.
    Taken,
    /// The grant does not fit, the size is over a limit, or the bytes are not what was announced.
    Refused {
        /// Which of these.
        reason: String,
    },
}
