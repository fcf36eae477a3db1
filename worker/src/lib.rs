//! The fleet's side of quicsand: the sandbox that runs tasks, the worker around it, clusters on this machine, and the `quicsand` command.

mod cluster;
#[cfg(not(target_family = "wasm"))]
pub mod command;
#[cfg(not(target_family = "wasm"))]
pub mod sandbox;
#[cfg(not(target_family = "wasm"))]
mod shell;
// What the simulation drives as the shell does. Not part of the public API.
#[cfg(all(feature = "simulation", not(target_family = "wasm")))]
#[doc(hidden)]
pub mod state;
#[cfg(all(not(feature = "simulation"), not(target_family = "wasm")))]
#[allow(unreachable_pub, reason = "only the simulation drives it from outside")]
mod state;

pub use cluster::{Builder, LocalCluster, WorkerKind};
#[cfg(not(target_family = "wasm"))]
pub use shell::{WorkerServer, WorkerSettings};
