//! Making a compiler for tasks ready: the set-up script, which travels inside the program. Must not know: what the script does.

use std::{io, process::Command};

use thiserror::Error;

/// The script, for bash. It is safe to run twice, and says on stderr what it does.
pub const SCRIPT: &str = include_str!("../setup/guest-toolchain.sh");

/// Why the guest toolchain could not be made ready.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// There is no bash to run the script.
    #[error(
        "the set-up needs bash, which could not be run: {source}; `rustup target add wasm32-wasip1` may be all that is needed"
    )]
    Shell {
        /// What the system said.
        source: io::Error,
    },
    /// The script gave up; it has said why on stderr.
    #[error("the guest toolchain could not be made ready; the message above says what to do")]
    Failed,
}

/// Makes a compiler for tasks ready for the toolchain of the present directory, by whichever way works: rustup, or the packages of a
/// Debian system. Writes to the user's toolchains and data directory only. Quick when there is nothing to do, minutes else.
///
/// # Errors
/// When there is no bash, or no way to get a compiler; the script's own message on stderr says what to do then.
pub fn run() -> Result<(), SetupError> {
    // As an argument rather than as input: the script's commands may read what is typed.
    let status = Command::new("bash").args(["-c", SCRIPT, "guest-toolchain"]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(SetupError::Failed),
        Err(source) => Err(SetupError::Shell { source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_looks_only_at_a_compiler_that_was_named() {
        let mut command = Command::new("bash");
        command.args(["-c", SCRIPT, "guest-toolchain"]).env("QUICSAND_RUSTC", "/no/such/rustc");
        let output = command.output().expect("bash runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("QUICSAND_RUSTC names /no/such/rustc, which does not compile for wasm32-wasip1"), "{said}");
    }
}
