//! What peers say to each other. Owns: the messages, their frames' form and size limits, the protocol version. Must not know:
//! sockets, or what anybody does with a message.
//!
//! A control stream carries frames: a `u32` little-endian length, then that many bytes of messages, each a postcard encoding,
//! back to back. A frame is at most [`MAX_FRAME`] long; larger values travel as blobs ([`blob`]), on streams of their own.

pub mod blob;
mod client;
mod cost;
mod frame;
mod hello;
mod inputs;
mod log;
pub mod members;
pub mod operator;
mod validate;
mod worker;

pub use client::{CallSpec, FromClient, SharedSpec, StateCounts, ToClient, Waiting};
pub(crate) use cost::args_cost;
pub use cost::{ENTRY_COST, ITEM_COST};
pub use frame::{FrameError, Frames, MAX_FRAME, decode_all};
pub use hello::{Hello, HelloError, JoinReply, JoinRequest, PROTOCOL, Proof, Role, Session, Welcome, WorkerHello};
pub use inputs::{Filled, Inputs, Wanted};
pub use log::{LINE_BYTES, LOG_BYTES, LogLine, LogQuery, LogStream};
pub use validate::Validate;
pub(crate) use validate::{KIND_BYTES, NAME_BYTES};
pub use worker::{Assignment, FromWorker, Input, InputPlace, ItemError, Load, Outcome, Stored, ToWorker};

/// A value of at most this many bytes rides along in messages; a larger one stays where it is and is fetched as a blob.
pub const INLINE_BYTES: usize = 64 << 10;
/// Bytes of small values that travel along with one assignment, at most: a call that reads more of them fails.
pub const INPUT_BYTES: usize = MAX_FRAME / 2;
/// Items in one run of arguments or results that a peer sends, at most.
pub const RUN_ITEMS: usize = 8192;
/// Inline bytes in one run of arguments or results that a peer sends, about: a run ends once it has this many.
pub const RUN_BYTES: usize = 256 << 10;
