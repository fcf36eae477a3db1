//! What a call may use, where it can run, and how it is to be run. Owns: limits, options, their defaults. Must not know: who
//! enforces them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::requirements::Requirements;

/// Memory of an instance where neither task nor call says otherwise: 1 GiB.
pub const DEFAULT_MEMORY: u64 = 1 << 30;
/// Time for one item where neither task nor call says otherwise: none but the worker's own cap.
pub const DEFAULT_TIMEOUT: Option<Duration> = None;

/// What one item of a call may use, where it can run, and how often and how eagerly it is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Bytes of linear memory; the smaller of this and the worker's cap holds.
    pub memory: u64,
    /// Time for one item; the smaller of this and the worker's cap holds.
    pub timeout: Option<Duration>,
    /// How often a failed item is tried again.
    pub retries: u32,
    /// Higher goes first; 0 where nothing is said.
    pub priority: i32,
    /// Labels and resources that its worker must have.
    pub requires: Requirements,
}

impl Options {
    /// What a task runs under where nothing is said.
    pub const DEFAULT: Self =
        Self { memory: DEFAULT_MEMORY, timeout: DEFAULT_TIMEOUT, retries: 0, priority: 0, requires: Requirements::NONE };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}
