//! QUIC: certificates and tokens, connections, control streams, blob streams, and the two peers' ends of them.
//!
//! Owns sockets and everything that is said before and around messages. Must not know what messages mean: state machines and
//! stores above decide, this carries.
//!
//! # How a connection is made
//! A [`Token`] names the cluster's CA by fingerprint. `join` opens a connection on which the server must prove that CA before
//! anything is said, sends the token's secret with a signing request, and gets a certificate. `greet` connects
//! again with it, both sides authenticated, and exchanges the wire's `Hello` and `Welcome`. From there on a `control` stream
//! carries messages and `blobs` travel on streams of their own.

pub(crate) mod background;
pub(crate) mod blobs;
mod ca;
pub(crate) mod client;
pub(crate) mod control;
mod der;
pub(crate) mod identity;
pub(crate) mod join;
pub(crate) mod peers;
mod room;
pub(crate) mod tls;
mod token;
pub(crate) mod transport;
pub mod worker;

pub use blobs::BlobError;
pub use ca::Ca;
pub use room::{Reserved, Room};
pub use token::{Token, TokenError};
