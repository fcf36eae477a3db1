//! The scheduler's shell: a server around the state machine. Owns: connections, the clock, modules, data that no worker took.
//! Must not know: why the state machine decides as it does.
//!
//! One lock holds the state machine and everybody's outbox: whichever connection's task has a batch of messages takes it, has them
//! handled, and queues the answers. Nothing is awaited under it, and no task or channel stands between.

mod blobs;
mod connection;
mod hub;
mod journal;
mod logs;
mod machine;
mod members;
mod modules;
mod operator;
mod probe;
mod restart;
mod sessions;
#[doc(hidden)]
pub mod strangers;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use quinn::Endpoint;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

pub use self::journal::JournalFault;
use self::{connection::Gate, hub::Hub, machine::Machine, restart::Restart};
use crate::{
    ConnectError,
    net::{
        Ca, Token,
        background::{Background, Stop},
        resets::Resets,
        tls,
        transport::{self, Close},
    },
    scheduler::{Config, Scheduler, Status},
    wire::Role,
};

/// Peers that are not admitted yet, at a time: more are refused until these have made it or given up.
const STRANGERS: usize = 256;
/// How long sockets may take to say goodbye.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a scheduler's server needs.
#[derive(Debug)]
pub struct ServerSettings {
    /// Where to listen; port 0 for any free one.
    pub listen: SocketAddr,
    /// Who signs certificates, and which tokens are good.
    pub ca: Ca,
    /// The state machine's settings.
    pub config: Config,
    /// Threads; with 1, connections and state machine share a single one.
    pub threads: usize,
    /// Bytes of data that are kept here at most because no worker took them.
    pub held_bytes: u64,
    /// Clients and workers that are taken, together.
    pub max_peers: usize,
    /// A directory for what is to outlive this process: calls, results and clients. `None` to keep nothing.
    pub journal: Option<PathBuf>,
}

impl ServerSettings {
    /// The usual.
    #[must_use]
    pub fn new(listen: SocketAddr, ca: Ca) -> Self {
        Self { listen, ca, config: Config::default(), threads: 1, held_bytes: 4 << 30, max_peers: 10_000, journal: None }
    }
}

/// A scheduler that peers can connect to. Dropping it ends it: connections are closed, and its threads and socket are gone.
pub struct SchedulerServer {
    hub: Arc<Hub>,
    address: SocketAddr,
    background: Background,
}

impl std::fmt::Debug for SchedulerServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl SchedulerServer {
    /// Starts to listen, on threads of its own.
    ///
    /// # Errors
    /// [`ConnectError::Start`] when the address cannot be listened on, or the system has no threads to give; [`ConnectError::Journal`]
    /// when the journal cannot be used.
    pub fn start(settings: ServerSettings) -> Result<Self, ConnectError> {
        let Some(directory) = &settings.journal else {
            let machine = Box::new(Scheduler::new(settings.config.clone()));
            return Self::start_with(settings, machine, |_| Ok(()));
        };
        let name = directory.display().to_string();
        let fault = |reason: &dyn ToString| ConnectError::Journal { directory: name.clone(), reason: reason.to_string() };
        let restart = Restart::from(directory, settings.ca.fingerprint(), &settings.config).map_err(|error| fault(&error))?;
        let Restart { machine, store, modules, data } = restart;
        let known = machine.clients().collect();
        let (clients, entries) =
            (machine.status().clients.len(), machine.status().clients.iter().map(|client| client.entries).sum::<u64>());
        tracing::info!(starts = store.starts(), clients, entries, "the journal is open");
        Self::start_with(settings, Box::new(machine), |hub| hub.go_on(store, known, modules, data).map_err(|error| fault(&error)))
    }

    /// As [`SchedulerServer::start`], around any machine; `begin` is done before anybody is let in.
    fn start_with(
        settings: ServerSettings,
        machine: Box<dyn Machine>,
        begin: impl FnOnce(&Arc<Hub>) -> Result<(), ConnectError>,
    ) -> Result<Self, ConnectError> {
        let what = format!("a scheduler at {}", settings.listen);
        let failed = |reason: String| ConnectError::Start { what: what.clone(), reason };
        let (listen, threads) = (settings.listen, settings.threads);
        let credentials = settings.ca.scheduler_credentials()?;
        let crypto = tls::scheduler_server(&credentials).map_err(|error| failed(error.to_string()))?;
        let resets = Resets::new(&settings.ca);
        let hub = Arc::new(Hub::new(settings, machine));
        begin(&hub)?;
        let served = Arc::clone(&hub);
        let (ready, readiness) = mpsc::sync_channel(1);
        let background = Background::start("quicsand-scheduler", threads, move |stop| async move {
            let endpoint = transport::endpoint(listen, Some(&crypto), Some(&resets));
            match endpoint.and_then(|endpoint| Ok((endpoint.local_addr()?, endpoint))) {
                Ok((address, endpoint)) => {
                    if ready.send(Ok(address)).is_ok() {
                        let gate = Arc::new(Gate::new(&crypto, &served));
                        serve(&endpoint, gate, stop).await;
                    }
                }
                // Nobody waits any more only if the caller's thread is gone.
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        let background = background.map_err(|error| failed(error.to_string()))?;
        let listening = readiness.recv().map_err(|error| failed(error.to_string()))?;
        let address = listening.map_err(|error| failed(explain(&error)))?;
        tracing::info!(%address, "the scheduler listens");
        Ok(Self { hub, address, background })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What a peer of that role needs to join.
    #[must_use]
    pub fn token(&self, role: Role) -> Token {
        self.hub.ca().token(role)
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        self.hub.status()
    }

    /// Has `tell` called, once, if it ends by itself: when its journal cannot be written.
    pub fn on_failure(&self, tell: impl FnOnce(ConnectError) + Send + 'static) {
        self.hub.on_failure(tell);
    }

    /// Says that a worker's process has ended: whoever started it knows at once, the scheduler itself only when it has been silent for a
    /// while. `incarnation` is the number that the process gave itself, or was given.
    pub fn worker_died(&self, incarnation: u64) {
        self.hub.worker_died(incarnation);
    }

    /// Ends it: every peer is told, then connections, threads and socket are gone. Idempotent.
    pub fn shutdown(&self) {
        self.background.stop();
    }
}

async fn serve(endpoint: &Endpoint, gate: Arc<Gate>, mut stop: Stop) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(gate.hub()).run_timer());
    tasks.spawn(Arc::clone(gate.hub()).run_probes());
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = stop.requested() => None,
            () = gate.hub().failed() => None,
        };
        let Some(incoming) = incoming else { break };
        match Arc::clone(&strangers).try_acquire_owned() {
            Ok(permit) => {
                tasks.spawn(Arc::clone(&gate).receive(incoming, permit));
            }
            Err(_) => incoming.refuse(),
        }
        while tasks.try_join_next().is_some() {}
    }
    gate.hub().close();
    // Nobody needs to wait for a cluster that will not be there again.
    let close = if gate.hub().ca().is_kept() { Close::Shutdown } else { Close::Done };
    endpoint.close(close.code(), b"the scheduler is shutting down");
    // A peer that is gone does not answer, which is no reason to wait.
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; stop what runs there (another scheduler?) or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not listen there; choose a port above 1023".to_owned(),
        _ => error.to_string(),
    }
}
