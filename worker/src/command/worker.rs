//! `quicsand worker`.

use std::{net::SocketAddr, path::PathBuf, sync::mpsc, thread, time::Duration};

use clap::Args;
use quicsand::ConnectError;
use serde::{Deserialize, Serialize};

use super::{
    Child, announce, default_cache,
    lifetime::{self, Ending},
    values,
};
use crate::shell::{WorkerServer, WorkerSettings};

#[derive(Debug, Args)]
pub(super) struct Worker {
    /// The scheduler's HOST:PORT
    address: String,
    /// The worker token that the scheduler printed
    #[arg(long, env = "QUICSAND_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that has the token; goes before the other ways to give it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Items to run at a time; by default one a processor
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: Option<u32>,
    /// Memory that tasks may use together, like 8GiB; by default four fifths of the machine's
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    memory: Option<u64>,
    /// Longest time for one item, like 10m, whatever its task allows; by default without limit
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// Where to serve values to clients and other workers; by default any free port
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A name for people; by default host and process
    #[arg(long)]
    name: Option<String>,
    /// Where compiled modules are kept; by default in the user's cache directory
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// A label that calls can ask for; can be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// A resource that calls can take some of while they are here, like gpu=2; can be given several times
    #[arg(long = "resource", value_name = "NAME=AMOUNT", value_parser = values::resource)]
    resources: Vec<(String, u64)>,
    #[command(flatten)]
    child: Child,
}

/// That a worker has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerAnnouncement {
    /// Its number.
    pub(crate) worker: u64,
}

impl Worker {
    pub(super) fn run(self) -> Result<(), ConnectError> {
        let child = self.child;
        let server = WorkerServer::start(&self.settings()?)?;
        let (endings, ended) = mpsc::channel();
        lifetime::watch_signals(endings.clone())?;
        if child.with_parent {
            lifetime::watch_parent(endings.clone())?;
        }
        if child.announce {
            announce(&WorkerAnnouncement { worker: server.id().0 });
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                // Nobody listens: the command ends.
                let _ = endings.send(Ending::Done(server.wait()));
            });
            loop {
                match ended.recv() {
                    Ok(Ending::Signal) => {
                        tracing::info!("draining: what runs is finished, the rest is given back; a second signal stops at once");
                        server.drain();
                    }
                    Ok(Ending::Orphaned) | Err(_) => server.halt(),
                    Ok(Ending::Done(result)) => return result,
                }
            }
        })
    }

    fn settings(self) -> Result<WorkerSettings, ConnectError> {
        let token = match (self.token, self.token_file) {
            (_, Some(path)) => std::fs::read_to_string(&path).map_err(|error| ConnectError::Setting {
                name: "--token-file".into(),
                reason: format!("{} cannot be read: {error}", path.display()),
            })?,
            (Some(token), None) => token,
            (None, None) => {
                return Err(ConnectError::Token { reason: "none was given, by --token, --token-file or QUICSAND_TOKEN".into() });
            }
        };
        Ok(WorkerSettings {
            name: self.name,
            slots: self.slots,
            memory: self.memory,
            time_cap: self.timeout,
            listen: self.listen,
            labels: self.labels.into_iter().collect(),
            resources: self.resources.into_iter().collect(),
            cache: self.cache.or_else(default_cache),
            ..WorkerSettings::new(self.address, token.trim())
        })
    }
}
