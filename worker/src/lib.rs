//! The fleet's side of quicsand: the sandbox that runs tasks, the worker around it, clusters on this machine, and the `quicsand` command.

mod cluster;
#[cfg(not(target_family = "wasm"))]
pub mod command;
#[cfg(not(target_family = "wasm"))]
pub mod sandbox;
#[cfg(not(target_family = "wasm"))]
mod shell;
#[cfg(not(target_family = "wasm"))]
mod state;

pub use cluster::{Builder, LocalCluster, WorkerKind};
#[cfg(not(target_family = "wasm"))]
pub use shell::{WorkerServer, WorkerSettings};
