//! What the examples share, and the tasks of `zstack`. Owns: the choice of where to run, and everything about image stacks, texts,
//! samples, pictures and plots. Must not know: how calls get where they run.

pub mod nuclei;
pub mod picture;
pub mod pieces;
pub mod plot;
pub mod samples;
pub mod session;
pub mod sheet;
pub mod stack;
pub mod synthetic;
pub mod table;

use std::{
    error::Error,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

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

/// Writes to standard output. A reader that has seen enough, such as `head`, is no error.
///
/// # Errors
/// When standard output cannot be written to.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
