//! The `quicsand` command. Owns: its arguments, its messages, its exit codes. Must not know: how schedulers and workers work.

mod cancel;
mod cluster;
mod completions;
mod config;
mod failures;
mod keys;
mod lifetime;
mod log;
mod logs;
mod operator;
mod report;
mod revoke;
mod scheduler;
mod setup;
mod status;
mod tasks;
mod text;
mod token;
mod worker;

use std::{fmt::Display, io::Write, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use quicsand::{ConnectError, net::OperatorError, setup::SetupError};
use serde::Serialize;
use thiserror::Error;

use crate::sandbox::compiler;
pub(crate) use config::Layer;
pub(crate) use failures::FailureSettings;
use log::Log;
pub(crate) use scheduler::SchedulerAnnouncement;
pub(crate) use worker::{WorkerAnnouncement, settings_of};

/// Runs annotated Rust functions on a fleet of machines: the fleet's side.
#[derive(Debug, Parser)]
#[command(name = "quicsand", version, about, arg_required_else_help = true)]
#[command(after_long_help = "\
A fleet is a scheduler, workers that join it, and programs that submit calls. On one machine, `quicsand cluster --workers 2` is all of a
fleet. On several, start `quicsand scheduler` on one of them, do on the others what it prints, and look on with `quicsand status`.

Environment:
    QUICSAND_SCHEDULER   the scheduler's HOST:PORT, for programs and operators' commands
    QUICSAND_TOKEN       the token to join with
    QUICSAND_STATE       the state directory of a scheduler on this machine
    RUST_LOG             as --log-level
    QUICSAND_LOG_FORMAT  as --log-format

Exit codes: 0 if all went well, 1 if something failed, 2 if the arguments make no sense.")]
struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommands,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Start a scheduler, and print how clients and workers join it
    Scheduler(scheduler::Scheduler),
    /// Start a worker of this machine for a scheduler
    Worker(Box<worker::Worker>),
    /// Run a scheduler and workers on this machine
    Cluster(cluster::Cluster),
    /// Show how things stand: workers, clients, modules, calls
    Status(status::Status),
    /// List calls and maps, or what failed lately
    Tasks(tasks::Tasks),
    /// Show what tasks printed
    Logs(logs::Logs),
    /// Cancel calls
    Cancel(cancel::Cancel),
    /// Make, list and revoke the tokens that workers, clients and operators join with
    Token(token::Token),
    /// Make a compiler for tasks ready: the wasm32-wasip1 target
    Setup(setup::Setup),
    /// Print a script with which a shell completes arguments
    Completions(completions::Completions),
}

/// Why the command fails.
#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("`{level}` is no level or filter for the log; write one like info or quicsand=debug")]
    LogLevel { level: String },
    #[error(
        "`{what}` is neither a worker's number or name nor a key; `quicsand status` and `quicsand tasks` list those that there are"
    )]
    NoSuchThing { what: String },
    #[error("there is no token {ids}; `quicsand token list` shows which there are")]
    NoSuchToken { ids: String },
    /// What failed is said already.
    #[error("not all of it could be done")]
    Said,
}

/// For whoever starts the command as a child.
#[derive(Clone, Copy, Debug, Args)]
struct Child {
    /// Print one line of JSON on standard output once it runs
    #[arg(long)]
    announce: bool,
    /// Leave when standard input ends, as it does when the parent does
    #[arg(long)]
    with_parent: bool,
}

/// The command: reads the process's arguments and does what they say. Exit code 1 stands for a failure, 2 for arguments that make no
/// sense; messages go to standard error.
#[must_use]
pub fn main() -> ExitCode {
    // A worker's child, of which nobody else needs to know.
    if std::env::args_os().skip(1).eq([compiler::ARGUMENT]) {
        return compiler::serve();
    }
    let Arguments { subcommand, log } = Arguments::parse();
    let result = log.set_up().and_then(|()| match subcommand {
        Subcommands::Scheduler(scheduler) => scheduler.run().map_err(Failed::from),
        Subcommands::Worker(worker) => worker.run(),
        Subcommands::Cluster(cluster) => cluster.run(&log),
        Subcommands::Status(status) => status.run(),
        Subcommands::Tasks(tasks) => tasks.run(),
        Subcommands::Logs(logs) => logs.run(),
        Subcommands::Cancel(cancel) => cancel.run(),
        Subcommands::Token(token) => token.run(),
        Subcommands::Setup(setup) => setup.run().map_err(Failed::from),
        Subcommands::Completions(completions) => {
            completions.run();
            Ok(())
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Said) => ExitCode::from(1),
        Err(error @ Failed::LogLevel { .. }) => fail(error, 2),
        Err(error) => fail(error, 1),
    }
}

fn fail(error: impl Display, code: u8) -> ExitCode {
    say(&mut std::io::stderr(), &format!("quicsand: {error}\n"));
    ExitCode::from(code)
}

/// Prints, and does not mind if nobody reads.
fn say(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// Prints a line of JSON for a program.
fn say_json(value: &impl Serialize) {
    // Structures of texts and numbers have a form in JSON.
    if let Ok(line) = serde_json::to_string(value) {
        say(&mut std::io::stdout(), &format!("{line}\n"));
    }
}

/// Where compiled modules are kept unless the owner says otherwise: in `quicsand` under XDG_CACHE_HOME or `~/.cache`.
pub(crate) fn default_cache() -> Option<PathBuf> {
    own_directory("XDG_CACHE_HOME", ".cache")
}

fn own_directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let directory = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = directory(variable).or_else(|| Some(directory("HOME")?.join(below_home)))?;
    Some(base.join("quicsand"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_make_sense_and_every_subcommand_has_examples() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        command.build();
        for subcommand in command.get_subcommands_mut().filter(|subcommand| subcommand.get_name() != "help") {
            let help = subcommand.render_long_help().to_string();
            assert!(help.contains("\nExamples:\n    quicsand "), "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 140), "{help}");
        }
    }

    #[test]
    fn every_shell_gets_a_script() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "quicsand", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("cancel") && script.contains("log-format"), "{shell}");
        }
    }
}
