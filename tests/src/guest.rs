//! Tasks of the library, for the sandbox to be measured with. Must not know: who calls them.

use quicsand::task;

/// The least that a task can do.
#[task]
pub fn inc(x: i64) -> i64 {
    x + 1
}
