//! Settings of a scheduler about failures: how soon it notices, how long it waits, how often it tries. Must not know: what it then does.

use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use quicsand::{ConnectError, server::ServerSettings};

use crate::sandbox::duration;

/// What a scheduler does about failures.
#[derive(Clone, Debug, Args)]
pub(crate) struct FailureSettings {
    /// A worker is cut off when nothing was heard of it for so long; it may join again
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = lease)]
    lease: Duration,
    /// How long to wait for a worker that was cut off to bring its results back before they are computed again
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    grace: Duration,
    /// How many workers may die while a call runs alone on them, before it fails as poisonous
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    max_deaths: u32,
    /// Pause before a call that failed is tried again; twice as long each further time
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = duration)]
    retry_delay: Duration,
    /// On how many workers scattered data lies, as far as it is not longer than 128 MiB
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// How long a draining worker stays at most for others to take over its results
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    hand_over: Duration,
}

impl FailureSettings {
    /// Those that are given by name and text; the others have their defaults.
    ///
    /// # Errors
    /// When there is no such setting, or it cannot be that.
    pub(crate) fn of(settings: &[(String, String)]) -> Result<Self, ConnectError> {
        let flags = settings.iter().map(|(name, value)| format!("--{name}={value}"));
        let command = Self::augment_args(Command::new("scheduler").no_binary_name(true).disable_help_flag(true));
        let parsed = command.try_get_matches_from(flags).and_then(|matches| Self::from_arg_matches(&matches));
        parsed.map_err(|error| {
            let text = error.to_string();
            let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            ConnectError::Setting { name: "a scheduler's setting".to_owned(), reason }
        })
    }

    /// Puts them into a scheduler's settings.
    pub(crate) fn apply(&self, settings: &mut ServerSettings) {
        let config = &mut settings.config;
        config.lease = self.lease;
        config.grace = self.grace;
        config.max_deaths = self.max_deaths;
        config.retry_delay = self.retry_delay;
        config.data_copies = self.replicas;
        config.hand_over = self.hand_over;
    }
}

/// Shorter ones would cut workers off for being busy.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    if lease < Duration::from_millis(100) { Err(format!("`{text}` is too short, the least is 100ms")) } else { Ok(lease) }
}

#[cfg(test)]
mod tests {
    use quicsand::net::Ca;

    use super::*;

    fn scheduler() -> ServerSettings {
        ServerSettings::new("127.0.0.1:0".parse().expect("an address"), Ca::in_memory().expect("a CA"))
    }

    #[test]
    fn defaults_are_the_schedulers_own() {
        let mut settings = scheduler();
        (settings.config.lease, settings.config.max_deaths) = (Duration::ZERO, 0);
        FailureSettings::of(&[]).expect("nothing said").apply(&mut settings);
        assert_eq!(format!("{:?}", settings.config), format!("{:?}", scheduler().config));
    }

    #[test]
    fn settings_have_names() {
        let said = |name: &str, value: &str| FailureSettings::of(&[(name.to_owned(), value.to_owned())]);
        let mut settings = scheduler();
        said("lease", "250ms").expect("a lease").apply(&mut settings);
        assert_eq!(settings.config.lease, Duration::from_millis(250));
        for (name, value, part) in [("lease", "1ms", "too short"), ("lase", "1s", "--lase"), ("max-deaths", "0", "0")] {
            let error = said(name, value).expect_err("wrong").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
