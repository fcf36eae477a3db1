//! What the examples share, and the tasks of `zstack`. Owns: the choice of where to run, and everything about image stacks. Must not
//! know: how calls get where they run.

pub mod nuclei;
pub mod session;
pub mod sheet;
pub mod stack;
pub mod synthetic;
pub mod table;

use std::{error::Error, process::ExitCode};

/// Turns what a program's work came to into its exit code, and says on standard error what went wrong.
pub fn finish(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
