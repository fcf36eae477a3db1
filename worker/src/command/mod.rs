//! The `quicsand` command. Owns: its arguments, its messages, its exit codes. Must not know: how schedulers and workers work.

mod config;
mod lifetime;
mod scheduler;
mod setup;
mod worker;

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

pub(crate) use config::Layer;
pub(crate) use scheduler::SchedulerAnnouncement;
pub(crate) use worker::{WorkerAnnouncement, settings_of};

/// Runs annotated Rust functions on a fleet of machines: the fleet's side.
#[derive(Debug, Parser)]
#[command(name = "quicsand", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommands,
    /// What is logged on standard error: error, warn, info, debug, trace, or a filter like quicsand=debug
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Start a scheduler, and print how clients and workers join it
    Scheduler(scheduler::Scheduler),
    /// Start a worker of this machine for a scheduler
    Worker(worker::Worker),
    /// Make a compiler for tasks ready: the wasm32-wasip1 target
    Setup(setup::Setup),
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
    let arguments = Arguments::parse();
    let Ok(filter) = arguments.log_level.parse::<tracing_subscriber::EnvFilter>() else {
        let error = format!("`{}` is no level or filter for the log; write one like info or quicsand=debug", arguments.log_level);
        return fail(error, 2);
    };
    // It fails if a log is set up already, which is then the one to use.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = log.with_ansi(std::io::stderr().is_terminal()).try_init();
    let result = match arguments.subcommand {
        Subcommands::Scheduler(scheduler) => scheduler.run().map_err(|error| error.to_string()),
        Subcommands::Worker(worker) => worker.run().map_err(|error| error.to_string()),
        Subcommands::Setup(setup) => setup.run().map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
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

/// Prints a line of JSON for a parent.
fn announce(announcement: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(announcement) {
        say(&mut std::io::stdout(), &format!("{line}\n"));
    }
}

/// Where compiled modules are kept unless the owner says otherwise: in `quicsand` under XDG_CACHE_HOME or `~/.cache`.
pub(crate) fn default_cache() -> Option<PathBuf> {
    let directory = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")))?;
    Some(cache.join("quicsand"))
}
