//! quicsand runs annotated Rust functions on a fleet of machines that never had your program installed.
//!
//! [`#[task]`](task) on a function leaves it a function and makes it something to submit. [`#[quicsand::main]`](main) compiles all tasks of
//! the program to one WebAssembly module and embeds it. A [`Client`] submits calls: to native functions in this process, or to a fleet,
//! whose workers fetch the module over QUIC and run it in sandboxes.
//!
//! ```
//! use quicsand::{Client, task};
//!
//! #[task]
//! fn inc(x: i64) -> i64 {
//!     x + 1
//! }
//!
//! #[task]
//! fn sum(xs: &[i64]) -> i64 {
//!     xs.iter().sum()
//! }
//!
//! #[quicsand::main]
//! fn main() -> quicsand::Result<()> {
//!     let client = Client::from_env()?; // in-process, unless QUICSAND_SCHEDULER names a fleet
//!     let many = client.map(inc, 0..1000);
//!     let total = client.submit(sum, &many); // futures are arguments like any others
//!     assert_eq!(client.gather(total)?, 500_500);
//!     Ok(())
//! }
//! ```
//!
//! # Features
//! `net` (on by default): everything that talks to a fleet. Without it, programs build quickly and run in-process only.
//! `simulation` is for quicsand's own tests.
//!
//! # What lies where
//! [`Client`], [`Future`], [`Futures`] and [`Call`] are what programs use. [`ids`], [`codec`], [`wire`], [`abi`] and [`manifest`] are what the
//! parts of quicsand share; [`scheduler`] is the scheduler as a state machine.

extern crate self as quicsand;

pub mod abi;
#[cfg_attr(
    any(not(feature = "net"), target_family = "wasm"),
    allow(dead_code, unused_imports, reason = "the parts that talk to a fleet stand idle without a network")
)]
mod client;
pub mod codec;
mod error;
#[doc(hidden)]
pub mod fault;
mod guest;
pub mod ids;
mod limits;
pub mod manifest;
mod module;
#[cfg(all(feature = "net", not(target_family = "wasm")))]
pub mod net;
#[doc(hidden)]
pub mod pages;
pub mod requirements;
#[cfg(not(target_family = "wasm"))]
pub mod scheduler;
#[cfg(all(feature = "net", not(target_family = "wasm")))]
pub mod server;
#[cfg(not(target_family = "wasm"))]
pub mod setup;
mod task;
pub mod wire;

pub use client::{
    ArgWriter, AsCompleted, BatchedMap, Call, Client, ClientBuilder, Count, Future, Futures, Gather, IntoArg, IntoArgs, IntoIter,
    Publish, Status,
};
pub use error::{ConnectError, Error, PublishError, Result, TaskError, TaskErrorKind, TokenRefusal};
pub use limits::{DEFAULT_MEMORY, DEFAULT_TIMEOUT, Options, Size, SizeError};
pub use module::Module;
pub use quicsand_macros::{embed, main, task};
pub use requirements::Requirements;
pub use task::{Task, Value};

/// What the simulation drives as a client's threads do. Not part of the public API.
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod bookkeeping {
    pub use crate::client::state::{Answer, Bookkeeping, Known, Remote, Touched};
}

/// What the macros' output uses. Not part of the public API: it changes without notice.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::guest::run_batch;
    pub use crate::{
        abi::Batch,
        ids::TaskId,
        manifest::{TaskInfo, entry, entry_len},
        module::Module,
        task::{ArgReader, Fallible, HoleValues, ItemFailure, Output, read, write, write_result},
    };
}
