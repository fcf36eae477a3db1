//! What the command logs on standard error, and in what form. Must not know: who logs.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::Failed;

/// What is logged, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct Log {
    /// What is logged on standard error: error, warn, info, debug, trace, or a filter like quicsand=debug
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info", value_name = "LEVEL")]
    log_level: String,
    /// How it is logged, one line an event
    #[arg(long, global = true, env = "QUICSAND_LOG_FORMAT", value_enum, default_value_t = Format::Pretty, value_name = "FORMAT")]
    log_format: Format,
}

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For machines: a JSON object a line
    Json,
    /// For people
    Pretty,
}

impl Log {
    /// Has events written from here on.
    pub(super) fn set_up(&self) -> Result<(), Failed> {
        let filter = self.log_level.parse::<EnvFilter>().map_err(|_| Failed::LogLevel { level: self.log_level.clone() })?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
        // It fails if a log is set up already, which is then the one to use.
        let _ = match self.log_format {
            Format::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
            Format::Pretty => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        };
        Ok(())
    }

    /// The arguments that say the same to another process of the command.
    pub(super) fn arguments(&self) -> [String; 4] {
        let format = match self.log_format {
            Format::Json => "json",
            Format::Pretty => "pretty",
        };
        ["--log-level", &self.log_level, "--log-format", format].map(str::to_owned)
    }
}
