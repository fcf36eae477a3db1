//! What a worker's owner lets tasks use, whatever they wish. Owns: the caps, their defaults, their flags. Must not know: who enforces them.

use std::time::Duration;

use quicsand::Size;

/// The owner's caps. Where a task wishes too, as for memory and time, the smaller of the two holds, and errors name both.
///
/// The fields are flags of `quicsand worker` and keys of its configuration file as well; their first lines are its help.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Caps {
    /// Most memory for one task, like 512MiB; by default an equal part of --memory for each slot, which it never exceeds, nor 4GiB
    #[arg(long, value_name = "SIZE")]
    pub task_memory: Option<Size>,
    /// Longest time for one item, like 10m, whatever its task allows; by default without limit
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Largest result of one item; never more than 1GiB
    #[arg(long, value_name = "SIZE", default_value_t = Self::DEFAULT.result_limit)]
    pub result_limit: Size,
    /// How much is kept of what one item prints: its end
    #[arg(long, value_name = "SIZE", default_value_t = Self::DEFAULT.log_limit)]
    pub log_limit: Size,
    /// How much is kept of what all items print, for `quicsand logs`: the last lines
    #[arg(long, value_name = "SIZE", default_value_t = Self::DEFAULT.log_buffer)]
    pub log_buffer: Size,
    /// Largest module, as WebAssembly
    #[arg(long, value_name = "SIZE", default_value_t = Self::DEFAULT.module_limit)]
    pub module_limit: Size,
    /// Processor time for compiling one module; whole seconds, rounded up
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub compile_time: Duration,
    /// Memory for compiling one module
    #[arg(long, value_name = "SIZE", default_value_t = Self::DEFAULT.compile_memory)]
    pub compile_memory: Size,
    /// Most functions in a module's table: those whose address is taken
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000), default_value_t = Self::DEFAULT.table_limit)]
    pub table_limit: u32,
    /// Stack of one task beside the one in its own memory, which programs set; from 64KiB to 256MiB
    #[arg(long, value_name = "SIZE", default_value_t = Self::DEFAULT.stack_limit)]
    pub stack_limit: Size,
}

impl Caps {
    /// What holds where the owner says nothing.
    pub const DEFAULT: Self = Self {
        task_memory: None,
        timeout: None,
        result_limit: Size(256 << 20),
        log_limit: Size(16 << 10),
        log_buffer: Size(4 << 20),
        module_limit: Size(256 << 20),
        compile_time: Duration::from_secs(30),
        compile_memory: Size(1 << 30),
        table_limit: 100_000,
        stack_limit: Size(1 << 20),
    };

    /// Bytes of stack for wasm code, as in force.
    #[must_use]
    pub fn stack_bytes(&self) -> usize {
        self.stack_limit.0.clamp(64 << 10, 256 << 20) as usize
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A duration: a number with `ms`, `s`, `m` or `h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is no duration; write one like 30s or 5m");
    let trimmed = text.trim();
    let (number, unit) = trimmed.split_at(trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len()));
    let scale = match unit.trim() {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3600e3,
        _ => return Err(error()),
    };
    let ms = number.parse::<f64>().map_err(|_| error())? * scale;
    // Up to where milliseconds are counted exactly.
    if (1.0..=9e15).contains(&ms) { Ok(Duration::from_millis(ms as u64)) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_are_not_given_are_the_defaults() {
        use clap::{Args, FromArgMatches};
        let matches = Caps::augment_args(clap::Command::new("caps")).get_matches_from(["caps"]);
        assert_eq!(Caps::from_arg_matches(&matches).expect("reads"), Caps::DEFAULT);
    }

    #[test]
    fn durations() {
        let check = |text: &str, ms: u64| assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        check("30s", 30_000);
        check("1.5 m", 90_000);
        check("250ms", 250);
        for text in ["", "30", "s", "3d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
