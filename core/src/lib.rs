//! quicsand runs annotated functions on a fleet of machines that never had your program installed.
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate self as quicsand;

pub mod abi;
#[cfg(not(target_family = "wasm"))]
mod client;
pub mod codec;
mod error;
mod guest;
pub mod ids;
mod limits;
pub mod manifest;
mod module;
#[cfg(not(target_family = "wasm"))]
pub mod scheduler;
mod task;
pub mod wire;

pub use error::{ConnectError, Error, Result, TaskError, TaskErrorKind};
pub use limits::{DEFAULT_MEMORY, DEFAULT_TIMEOUT, Options};
pub use module::Module;
pub use quicsand_macros::{embed, main, task};
pub use task::Task;

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
        task::{ArgReader, HoleValues, ItemFailure, Output},
    };
}
