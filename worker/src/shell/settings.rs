//! What a worker is to be: every setting once, as a field here that is a flag of `quicsand worker`, a key of its configuration file and a
//! variable of its environment too. Must not know: where a setting came from.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use quicsand::{ConnectError, Size, net::worker as net};

use super::{labels, machine};
use crate::{
    sandbox::{Caps, Compiler, Grants, SandboxConfig, duration},
    state::Budget,
};

/// Disk space for spilled values where the owner says nothing.
const SPILL_LIMIT: Size = Size(16 << 30);
/// Memory that a worker's process uses besides tasks and values, at most: the program, compiled modules, messages.
const BASE_BYTES: u64 = 256 << 20;

/// Where held values are kept.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) budget: Budget,
    /// The system's place for temporary files if nothing is said.
    pub(super) spill_dir: Option<PathBuf>,
}

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
    /// Who compiles modules: this process by default.
    #[arg(skip)]
    pub compiler: Compiler,
    /// A name for people; by default host and process
    #[arg(long)]
    pub name: Option<String>,
    /// Items to run at a time
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096), default_value_t = machine::processors())]
    pub slots: u32,
    /// Memory that tasks may use together, like 8GiB; by default four fifths of the machine's
    #[arg(long, value_name = "SIZE", default_value_t = default_memory())]
    pub memory: Size,
    /// Memory for results and data held for others, which go to disk beyond it; by default an eighth of --memory
    #[arg(long, value_name = "SIZE")]
    pub hold_limit: Option<Size>,
    /// Where values that do not fit into memory go, in a directory of this run; by default the system's place for temporary files
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
    /// Disk space for values that do not fit into memory
    #[arg(long, value_name = "SIZE", default_value_t = SPILL_LIMIT)]
    pub spill_limit: Size,
    /// Whether the process is the worker's alone, so that the memory that it uses is the worker's.
    #[arg(skip)]
    pub is_own_process: bool,
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
    /// How long results are kept while the scheduler is out of reach, for when it can be reached again
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub keep: Duration,
    /// Names the process to the scheduler, for whoever starts it and watches over it; a random number by default.
    #[arg(skip)]
    pub incarnation: Option<u64>,
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
            compiler: Compiler::Here,
            name: None,
            slots: machine::processors(),
            memory: default_memory(),
            hold_limit: None,
            spill_dir: None,
            spill_limit: SPILL_LIMIT,
            is_own_process: false,
            caps: Caps::default(),
            grants: Grants::default(),
            labels: Vec::new(),
            resources: Vec::new(),
            listen: None,
            keep: Duration::from_secs(60),
            incarnation: None,
            cache: None,
        }
    }

    /// Bytes of memory for one task, at most.
    pub(crate) fn task_memory(&self) -> Size {
        Size(self.for_sandbox().memory_cap())
    }

    /// Bytes of memory for held values.
    pub(crate) fn hold_limit(&self) -> Size {
        self.hold_limit.unwrap_or(Size(self.memory.0 / 8))
    }

    pub(super) fn holding(&self) -> Holding {
        let memory = self.hold_limit().0;
        let process = self.memory.0.saturating_add(memory).saturating_add(BASE_BYTES);
        let budget = Budget { memory, disk: self.spill_limit.0, process: if self.is_own_process { process } else { u64::MAX } };
        Holding { budget, spill_dir: self.spill_dir.clone() }
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
            incarnation: self.incarnation.unwrap_or_else(super::random),
            keeps: 0,
        })
    }

    pub(super) fn for_sandbox(&self) -> SandboxConfig {
        SandboxConfig {
            caps: self.caps.clone(),
            grants: self.grants.clone(),
            memory_share: self.memory.0 / u64::from(self.slots.max(1)),
            cache_dir: self.cache.clone(),
            compiler: self.compiler.clone(),
            slots: self.slots.max(1),
        }
    }
}

/// Whole mebibytes: easier to read, and to read back.
fn default_memory() -> Size {
    Size(machine::memory() >> 20 << 20)
}
