//! Where an example runs its calls: in this process, on a cluster of its own on this machine, or on a fleet. Owns: the options that
//! choose, and the cluster's life.

use std::fmt;

use quicsand::{Client, Result};
use quicsand_worker::LocalCluster;

/// Where to run. Without options: on the fleet that `QUICSAND_SCHEDULER` and `QUICSAND_TOKEN` name, else in this process.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunOn {
    /// Run on a scheduler and N sandboxed workers, started on this machine for this run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    local_cluster: Option<u16>,
    /// Start them as processes of their own (needs the `quicsand` command), not as threads of this one
    #[arg(long, requires = "local_cluster")]
    processes: bool,
}

impl RunOn {
    /// Starts what was chosen, and connects to it.
    ///
    /// # Errors
    /// When the cluster cannot be started or the fleet not be joined.
    pub fn start(&self) -> Result<Session> {
        let Some(workers) = self.local_cluster else {
            let client = Client::from_env()?;
            let place = match client.is_local() {
                true => Place::Process,
                false => Place::Fleet(std::env::var("QUICSAND_SCHEDULER").unwrap_or_default()),
            };
            return Ok(Session { client, place, _cluster: None });
        };
        let builder = LocalCluster::builder().workers(workers.into()).slots(1);
        let cluster = if self.processes { builder.processes() } else { builder }.start()?;
        let place = Place::Cluster { workers, processes: self.processes };
        Ok(Session { client: cluster.client()?, place, _cluster: Some(cluster) })
    }
}

/// A client, and whatever must live as long as it.
pub struct Session {
    /// The client.
    pub client: Client,
    place: Place,
    /// Declared after the client, since fields are dropped in order: the client says farewell before its scheduler goes.
    _cluster: Option<LocalCluster>,
}

enum Place {
    Process,
    Cluster { workers: u16, processes: bool },
    Fleet(String),
}

impl fmt::Display for Session {
    /// Where it runs, as the end of a sentence: "running …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Process => f.write_str("in this process"),
            Place::Cluster { workers, processes } => {
                let (s, of) = (if *workers == 1 { "" } else { "s" }, if *processes { "processes" } else { "threads" });
                write!(f, "on a local cluster: {workers} sandboxed worker{s}, as {of}, over QUIC")
            }
            Place::Fleet(address) => write!(f, "on the fleet of {address}"),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}
