//! Runs batches of a module's tasks in WebAssembly. Owns: the engine, the compiler's process, compiled modules and their cache, instances,
//! limits, the guest's view of the world, what tasks printed lately. Knows bytes and ids only: no wire, no network, no async runtime.
//!
//! Order of use: one [`Sandbox`] a process; [`Sandbox::load`] for each module; one [`Runner`] a compute thread, whose
//! [`Runner::run`] blocks that thread for a batch; a [`Control`] shared with whoever may cancel items or divide it meanwhile.
//!
//! # Threads
//! wasm code runs on the calling thread's stack and may use [`Caps::stack_limit`] of it: give compute threads 1 MiB more than that.
//!
//! # What a batch may rely on
//! - Limits are per item. The epoch thread ticks every 5 ms; at a tick a running guest is asked which item it is at, and stopped
//!   when that item is out of time or cancelled. A guest that sleeps in the host wakes at once.
//! - At such a tick it also tells the results of a batch that takes long, if somebody hears of it ([`Listener`]), and has the batch end early
//!   if it is to be divided.
//! - A trap loses one item. What is finished is kept, the item is blamed, the rest runs in a fresh instance.
//! - Items share an instance's memory, and arguments and results of a whole batch lie in it. So an item that runs into the memory
//!   limit is run again alone in a fresh instance before it is blamed.
//! - Whatever the guest says about itself (addresses, lengths, counters) is checked before it is used.

mod batch;
mod cache;
mod caps;
pub(crate) mod compiler;
mod engine;
mod files;
mod grants;
mod instance;
mod limits;
mod log;
mod midway;
mod module;
mod outcome;
mod printed;
mod runner;
#[cfg(test)]
mod tests;
mod wasi;

pub use caps::Caps;
pub(crate) use caps::duration;
pub use compiler::Compiler;
pub use engine::{Sandbox, SandboxConfig, SandboxError};
pub use grants::{Clock, DirGrant, GrantError, Grants};
pub use limits::Control;
pub use midway::Listener;
pub use module::{Module, ModuleError};
pub use printed::Printed;
pub use runner::{BatchResult, HoleInput, Job, Runner};
