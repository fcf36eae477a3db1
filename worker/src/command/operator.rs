//! How a command that asks a scheduler finds it, and gets in: flags, environment, state directory. Must not know: what is asked.

use std::{
    env, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::Args;
use quicsand::{
    ConnectError,
    net::{Operator, Token, state_directory},
    wire::Role,
};

/// Where a scheduler writes how to reach it from its machine, in its state directory.
pub(super) const ADDRESS_FILE: &str = "scheduler.address";
/// Where its operators' token is, in its state directory.
pub(super) const TOKEN_FILE: &str = "operator.token";
const ENV_TOKEN: &str = "QUICSAND_TOKEN";

/// Which scheduler, and with what right.
#[derive(Clone, Debug, Args)]
pub(super) struct Access {
    /// The scheduler's HOST:PORT; by default that of the scheduler on this machine
    #[arg(long, env = "QUICSAND_SCHEDULER", value_name = "HOST:PORT")]
    scheduler: Option<String>,
    /// An operator's token, or a client's, which allows `status` only; by default that in QUICSAND_TOKEN or the state directory
    #[arg(long)]
    token: Option<String>,
    /// A file that has the token; goes before the other ways to give it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The state directory of the scheduler on this machine; by default ~/.local/state/quicsand
    #[arg(long, env = "QUICSAND_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Access {
    /// Connects to the scheduler.
    pub(super) fn connect(&self) -> Result<Operator, ConnectError> {
        let state = self.state.clone().or_else(state_directory);
        let address = match &self.scheduler {
            Some(address) => address.clone(),
            None => read_state(state.as_deref(), ADDRESS_FILE)?.ok_or_else(|| ConnectError::Setting {
                name: "--scheduler".to_owned(),
                reason: "none was given, by --scheduler or QUICSAND_SCHEDULER, and no scheduler of this machine says where it is"
                    .to_owned(),
            })?,
        };
        let token = match (&self.token_file, &self.token) {
            (Some(path), _) => fs::read_to_string(path).map_err(|error| unreadable("--token-file", path, &error))?,
            (None, Some(token)) => token.clone(),
            (None, None) => {
                let exported = env::var(ENV_TOKEN).ok().filter(|token| !token.is_empty());
                // Who asks for more than a client's token allows on another machine does not need this one's.
                let kept = match &exported {
                    Some(token) => {
                        read_state(state.as_deref(), TOKEN_FILE).unwrap_or_default().filter(|kept| is_better(kept, token))
                    }
                    None => read_state(state.as_deref(), TOKEN_FILE)?,
                };
                kept.or(exported).ok_or_else(|| ConnectError::Token {
                    reason: "none was given, by --token, --token-file or QUICSAND_TOKEN, and no scheduler of this machine has left one"
                        .to_owned(),
                })?
            }
        };
        Operator::connect(address.trim(), token.trim())
    }
}

/// Whether the kept token is an operator's of the very cluster for which the other one, which was exported for programs, is less.
fn is_better(kept: &str, exported: &str) -> bool {
    match (kept.parse::<Token>(), exported.parse::<Token>()) {
        (Ok(kept), Ok(exported)) => exported.role != Role::Operator && kept.fingerprint == exported.fingerprint,
        _ => false,
    }
}

/// Says in a state directory where the scheduler is, for as long as this value lives. Best effort: flags and environment say it, too.
pub(super) struct Published(Option<(PathBuf, String)>);

impl Published {
    pub(super) fn new(state: Option<&Path>, listening: SocketAddr) -> Self {
        let Some(path) = state.map(|state| state.join(ADDRESS_FILE)) else { return Self(None) };
        let text = format!("{}\n", near(listening));
        match fs::write(&path, &text) {
            Ok(()) => Self(Some((path, text))),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "operators' commands are not told where the scheduler is");
                Self(None)
            }
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Another scheduler may have written its own meanwhile.
        if let Some((path, text)) = &self.0
            && fs::read_to_string(path).is_ok_and(|found| found == *text)
        {
            // What is left leads nowhere, as whoever follows it is told.
            let _ = fs::remove_file(path);
        }
    }
}

/// Where a scheduler that listens there is from its own machine.
fn near(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// A file of the state directory; `None` if it is not there.
fn read_state(state: Option<&Path>, name: &str) -> Result<Option<String>, ConnectError> {
    let Some(path) = state.map(|state| state.join(name)) else { return Ok(None) };
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable("--state", &path, &error)),
    }
}

fn unreadable(name: &str, path: &Path, error: &io::Error) -> ConnectError {
    ConnectError::Setting { name: name.to_owned(), reason: format!("{} cannot be read: {error}", path.display()) }
}

#[cfg(test)]
mod tests {
    use quicsand::net::Ca;

    use super::*;

    #[test]
    fn an_operators_token_of_the_same_cluster_goes_before_an_exported_one() {
        let (here, there) = (Ca::in_memory().expect("a CA"), Ca::in_memory().expect("a CA"));
        let token = |ca: &Ca, role| ca.token(role).to_string();
        let kept = token(&here, Role::Operator);
        assert!(is_better(&kept, &token(&here, Role::Client)));
        assert!(!is_better(&kept, &token(&there, Role::Client)));
        assert!(!is_better(&kept, &kept));
        assert!(!is_better(&kept, "nonsense") && !is_better("nonsense", &kept));
    }

    #[test]
    fn an_address_is_published_while_the_scheduler_runs() {
        let state = tempfile::tempdir().expect("a directory");
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let read = || read_state(Some(state.path()), ADDRESS_FILE).expect("readable");
        let published = Published::new(Some(state.path()), address("0.0.0.0:7447"));
        assert_eq!(read().as_deref(), Some("127.0.0.1:7447\n"));
        let newer = Published::new(Some(state.path()), address("[::]:7448"));
        drop(published);
        assert_eq!(read().as_deref(), Some("[::1]:7448\n"));
        drop(newer);
        assert_eq!(read(), None);
        assert_eq!(read_state(None, ADDRESS_FILE).expect("readable"), None);
    }
}
