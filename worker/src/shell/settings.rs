//! What a worker is to be: every setting once, as a field here that is a flag of `quicsand worker`, a key of its configuration file and a
//! variable of its environment too. Must not know: where a setting came from.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use quicsand::{ConnectError, Size, net::worker as net};

use super::{labels, machine};
use crate::sandbox::{Caps, Grants, SandboxConfig};

/// What a worker is to be. Each field's first line is its help on the command line.
#[derive(Clone, Debug, Args)]
pub struct WorkerSettings {
    /// The scheduler's HOST:PORT
    #[arg(id = "scheduler", value_name = "SCHEDULER", env = "QUICSAND_SCHEDULER")]
    pub address: String,
    /// A worker's join token; without one, the certificate of an earlier run has to do.
    #[arg(skip)]
    pub token: Option<String>,
    /// The directory in which certificates are kept for later runs, as far as the scheduler keeps its own; nowhere by default.
    #[arg(skip)]
    pub state: Option<PathBuf>,
    /// A name for people; by default host and process
    #[arg(long)]
    pub name: Option<String>,
    /// Items to run at a time
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096), default_value_t = machine::processors())]
    pub slots: u32,
    /// Memory that tasks may use together, like 8GiB; by default four fifths of the machine's
    #[arg(long, value_name = "SIZE", default_value_t = default_memory())]
    pub memory: Size,
    /// What tasks may use, whatever they wish.
    #[command(flatten)]
    pub caps: Caps,
    /// What tasks may see of the machine.
    #[command(flatten)]
    pub grants: Grants,
    /// A label that calls can ask for; can be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = labels::label)]
    pub labels: Vec<(String, String)>,
    /// A resource that calls can take some of while they run, like gpu=2; can be given several times
    #[arg(long = "resource", value_name = "NAME=AMOUNT", value_parser = labels::resource)]
    pub resources: Vec<(String, u64)>,
    /// Where to serve values to clients and other workers; by default any free port
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where compiled modules are kept, by default `quicsand` in the user's cache directory
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

impl WorkerSettings {
    /// A worker for that scheduler, with every default, and without a place for compiled modules.
    #[must_use]
    pub fn new(address: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            token: Some(token.into()),
            state: None,
            name: None,
            slots: machine::processors(),
            memory: default_memory(),
            caps: Caps::default(),
            grants: Grants::default(),
            labels: Vec::new(),
            resources: Vec::new(),
            listen: None,
            cache: None,
        }
    }

    /// Bytes of memory for one task, at most.
    pub(crate) fn task_memory(&self) -> Size {
        Size(self.for_sandbox().memory_cap())
    }

    /// # Errors
    /// When a label or resource could not be asked for, or has the name of a label that every worker has.
    pub(super) fn for_net(&self) -> Result<net::WorkerSettings, ConnectError> {
        Ok(net::WorkerSettings {
            address: self.address.clone(),
            token: self.token.clone(),
            state: self.state.clone(),
            name: self.name.clone().unwrap_or_else(machine::name),
            slots: self.slots.max(1),
            memory: self.memory.0,
            arch: std::env::consts::ARCH.to_owned(),
            labels: labels::all(&self.labels.iter().cloned().collect())?,
            resources: labels::resources(&self.resources.iter().cloned().collect())?,
            listen: self.listen,
        })
    }

    pub(super) fn for_sandbox(&self) -> SandboxConfig {
        SandboxConfig {
            caps: self.caps.clone(),
            grants: self.grants.clone(),
            memory_share: self.memory.0 / u64::from(self.slots.max(1)),
            cache_dir: self.cache.clone(),
            slots: self.slots.max(1),
        }
    }
}

/// Whole mebibytes: easier to read, and to read back.
fn default_memory() -> Size {
    Size(machine::memory() >> 20 << 20)
}
