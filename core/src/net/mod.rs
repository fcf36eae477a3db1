//! QUIC: certificates and tokens, connections, control streams, blob streams, and the two peers' ends of them.
//!
//! Owns sockets and everything that is said before and around messages. Must not know what messages mean: state machines and
//! stores above decide, this carries.
//!
//! # How a connection is made
//! A [`Token`] names the cluster's CA by fingerprint. `join` opens a connection on which the server must prove that CA before
//! anything is said, sends the token's secret with a signing request, and gets a certificate, which the peer's `pass` holds, renews and
//! keeps for the next run. `greet` connects again with it, both sides authenticated, and exchanges the wire's `Hello` and `Welcome`.
//! From there on a `control` stream carries messages and `blobs` travel on streams of their own.

pub(crate) mod background;
pub(crate) mod blobs;
mod ca;
pub(crate) mod client;
pub(crate) mod control;
mod der;
pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod join;
mod kept;
mod operator;
pub(crate) mod pass;
mod passing;
pub(crate) mod peers;
pub(crate) mod resets;
mod room;
mod sent;
mod serving;
mod signer;
pub(crate) mod tls;
pub(crate) mod token;
mod tokens;
pub(crate) mod transport;
pub mod worker;

pub use blobs::BlobError;
pub use ca::{Ca, DEFAULT_CERTIFICATE_LIFETIME};
pub use files::state_directory;
pub use operator::{Operator, OperatorError};
pub use room::{Reserved, Room};
pub use token::{Token, TokenError};
