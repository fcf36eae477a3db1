//! Processes of the `quicsand` command: finding it, starting it, reading what it announces. Must not know: what they are for.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use quicsand::ConnectError;
use serde::de::DeserializeOwned;

/// A process that has not announced itself by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = if cfg!(windows) { "quicsand.exe" } else { "quicsand" };

/// A process that ends with this one: when the other end of its standard input is gone, however that came about, it leaves.
#[derive(Debug)]
pub(super) struct Process(Child);

/// A process that may not have announced itself yet.
pub(super) struct Starting {
    process: Process,
    /// For errors.
    what: String,
    announced: mpsc::Receiver<Option<String>>,
}

impl Process {
    /// Starts it.
    pub(super) fn start(command: &Path, arguments: &[&OsStr], environment: &[(&str, &str)]) -> Result<Starting, ConnectError> {
        let role = arguments.first().map(|role| role.to_string_lossy()).unwrap_or_default();
        let what = format!("`{} {role}`", command.display());
        let child = Command::new(command)
            .args(arguments)
            .args(["--announce", "--with-parent"])
            .envs(environment.iter().copied())
            .env("RUST_LOG", env::var_os("RUST_LOG").unwrap_or_else(|| "warn".into()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => return Err(ConnectError::Start { what, reason: error.to_string() }),
        };
        let stdout = child.stdout.take();
        let (send, announced) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.map(BufReader::new).and_then(|mut stdout| stdout.read_line(&mut line).ok());
            // Nobody to tell: the patience was at its end.
            let _ = send.send(read.map(|_| line));
        });
        Ok(Starting { process: Self(child), what, announced })
    }
}

impl Starting {
    /// Waits for its announcement.
    pub(super) fn announced<T: DeserializeOwned>(self) -> Result<(Process, T), ConnectError> {
        let reason = match self.announced.recv_timeout(PATIENCE) {
            Ok(Some(line)) if !line.is_empty() => match serde_json::from_str(&line) {
                Ok(announcement) => return Ok((self.process, announcement)),
                Err(error) => format!("it announced itself in words of another version ({error})"),
            },
            Ok(_) => "it ended at once; its message is on standard error".to_owned(),
            Err(_) => format!("it said nothing for {} seconds", PATIENCE.as_secs()),
        };
        Err(ConnectError::Start { what: self.what, reason })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The `quicsand` command: where the caller, or else QUICSAND_COMMAND, says; or else beside the program, or in PATH.
pub(super) fn find(given: Option<&Path>) -> Result<PathBuf, ConnectError> {
    let named = env::var_os("QUICSAND_COMMAND").filter(|value| !value.is_empty()).map(PathBuf::from);
    let said = given.map(|path| ("the command's path", path.to_owned())).or(named.map(|path| ("QUICSAND_COMMAND", path)));
    if let Some((name, path)) = said {
        return match path.is_file() {
            true => Ok(path),
            false => Err(ConnectError::Setting { name: name.to_owned(), reason: format!("there is no file {}", path.display()) }),
        };
    }
    let program = env::current_exe().unwrap_or_default();
    let path = env::var_os("PATH").unwrap_or_default();
    look(&program, env::split_paths(&path)).ok_or_else(|| ConnectError::Start {
        what: "the `quicsand` command".to_owned(),
        reason: "it is neither beside this program nor in PATH; install it (`cargo install --path worker` in quicsand's repository), or name it in \
                 QUICSAND_COMMAND"
            .to_owned(),
    })
}

/// Tests and examples lie a directory below the other programs of their build.
fn look(program: &Path, path: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let beside = program.ancestors().skip(1).take(2).map(Path::to_owned);
    beside.chain(path).filter(|dir| !dir.as_os_str().is_empty()).map(|dir| dir.join(NAME)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_found_beside_the_program_first() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |name: &str| root.path().join(name);
        for dir in ["release", "release/deps", "bin"] {
            std::fs::create_dir_all(at(dir)).expect("a directory");
        }
        let check = |expected: Option<&str>| {
            let path = [PathBuf::new(), at("nowhere"), at("bin")].into_iter();
            assert_eq!(look(&at("release/deps/test"), path), expected.map(|dir| at(dir).join(NAME)));
        };
        check(None);
        for dir in ["bin", "release", "release/deps"] {
            std::fs::write(at(dir).join(NAME), "").expect("a file");
            check(Some(dir));
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_is_said() {
        let error = find(Some(Path::new("/nowhere/quicsand"))).expect_err("no such file");
        assert_eq!(error.to_string(), "the command's path: there is no file /nowhere/quicsand");
    }

    #[cfg(unix)]
    #[test]
    fn a_process_that_says_nothing_sensible_is_an_error() {
        let start = |command: &str| {
            let starting = Process::start(Path::new(command), &[OsStr::new("worker")], &[]);
            match starting.and_then(Starting::announced::<u32>) {
                Ok((_, announced)) => panic!("announced {announced}"),
                Err(error) => error.to_string(),
            }
        };
        assert!(start("/bin/false").contains("`/bin/false worker` could not be started: it ended at once"));
        assert!(start("/bin/echo").contains("words of another version"));
        assert!(start("/nowhere/quicsand").contains("No such file"));
    }
}
