//! The worker's end of the network. Must not know: what a worker does with assignments, and where it keeps values.
//!
//! One endpoint dials the scheduler and serves other peers; a second one serves if the owner gives an address for it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use thiserror::Error;
use tokio::{task::JoinSet, time::timeout};

use super::{
    blobs::{self, BlobError, Expected, MAX_MODULE_BYTES},
    control::{Inlet, Outbox},
    join::{self, Approached, start_failed, wrong_welcome},
    pass::Pass,
    peers::Peers,
    room::Reserved,
    serving::{self, Host},
    tls,
    transport::{self, Close},
};
use crate::{
    ConnectError, abi,
    ids::{Hash, Key, WorkerId},
    wire::{
        FrameError, FromWorker, Hello, LogLine, LogQuery, PROTOCOL, Role, ToWorker, Welcome, WorkerHello,
        blob::{BlobRequest, Place},
    },
};

/// How long the scheduler may take to read the last messages, and sockets to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where to go, as whom, and what is offered.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The scheduler's `HOST:PORT`.
    pub address: String,
    /// A worker's join token; without one, the certificate of an earlier run has to do.
    pub token: Option<String>,
    /// The directory in which certificates are kept for later runs; nowhere without one.
    pub state: Option<PathBuf>,
    /// For people: host and process.
    pub name: String,
    /// Items that it runs at a time; at least 1.
    pub slots: u32,
    /// Bytes of memory that tasks may use together.
    pub memory: u64,
    /// Processor architecture.
    pub arch: String,
    /// Labels, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Named resources, sorted by name.
    pub resources: Vec<(String, u64)>,
    /// Where to serve values to clients and other workers; `None` for the socket that also talks to the scheduler: on loopback if
    /// the scheduler is there, on all interfaces otherwise.
    pub listen: Option<SocketAddr>,
    /// Names the process: the same number each time that it joins, and no other process's.
    pub incarnation: u64,
    /// Values that it has from before and will name at once.
    pub keeps: u64,
}

/// A value that is looked for, and its hash.
pub type Reading<'a> = Pin<Box<dyn Future<Output = Option<(Bytes, Hash)>> + Send + 'a>>;

/// Where a worker keeps values. Called from the network's threads; must not block for long.
pub trait BlobStore: Send + Sync + 'static {
    /// A value and its hash, if it is here; it may have to come from a disk. Dropping the future changes nothing.
    fn read(&self, key: Key) -> Reading<'_>;

    /// Makes room for a value of that length, before any of it is read.
    ///
    /// # Errors
    /// With the reason why it is not taken, for the peer.
    fn reserve(&self, len: u64) -> Result<Reserved, String>;

    /// Takes a value, whose length and hash were checked.
    ///
    /// # Errors
    /// With the reason why it is not taken, for the peer.
    fn write(&self, key: Key, bytes: Bytes, hash: Hash) -> Result<(), String>;

    /// Lines that tasks printed here, the latest last, of [`LOG_BYTES`](crate::wire::LOG_BYTES) of text at most.
    fn log(&self, query: &LogQuery) -> Vec<LogLine>;
}

/// The connection to the scheduler is gone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the connection to the scheduler was lost: {reason}")]
pub struct LinkError {
    /// What the transport or decoder said.
    pub reason: String,
}

/// A worker's connection to its scheduler. Dropping it breaks the connection; [`WorkerLink::close`] ends it.
pub struct WorkerLink {
    /// The worker's number.
    pub id: WorkerId,
    /// How often a heartbeat is due.
    pub heartbeat: Duration,
    inlet: Inlet,
    sender: WorkerSender,
    blobs: WorkerBlobs,
    served: Served,
}

/// Sends messages to the scheduler. Clones share the connection.
#[derive(Clone)]
pub struct WorkerSender {
    outbox: Outbox,
    connection: Connection,
}

/// Fetches modules and values. Clones share the connections.
#[derive(Clone)]
pub struct WorkerBlobs {
    peers: Arc<Peers>,
    host: Arc<Host>,
}

/// What a worker gets in with: its token, and the certificate that it got by it, which outlives connections.
pub struct WorkerPass {
    pass: Arc<Pass>,
}

impl WorkerPass {
    /// The settings' token, and what an earlier run kept.
    ///
    /// # Errors
    /// [`ConnectError::Token`] when the token is none, or for another role, or there is none and not exactly one kept certificate fits the
    /// address.
    pub fn new(settings: &WorkerSettings) -> Result<Self, ConnectError> {
        let WorkerSettings { address, token, state, .. } = settings;
        let pass = Pass::new(address, &[Role::Worker], token.as_deref(), state.clone(), SystemTime::now())?;
        Ok(Self { pass: Arc::new(pass) })
    }
}

/// Joins a fleet and starts to serve the store to it.
///
/// # Errors
/// Any of [`ConnectError`]'s network variants; [`ConnectError::Start`] when `listen` cannot be bound.
pub async fn join(settings: &WorkerSettings, pass: &WorkerPass, store: Arc<dyn BlobStore>) -> Result<WorkerLink, ConnectError> {
    let pass = Arc::clone(&pass.pass);
    let grant_secret = tls::random().ok_or_else(|| start_failed("the system gives no random numbers"))?;
    let mut serving = None;
    let greeted = join::enter(&pass, |approached| {
        // Bound once: the system takes its time to give an address free again.
        let bound = serving.take().filter(|_| settings.listen.is_some());
        let server = serving_endpoint(settings.listen, bound, approached)?;
        let listen = server.local_addr().ok();
        serving = Some(server);
        Ok(hello(settings, listen, grant_secret))
    });
    let greeted = greeted.await?;
    let Approached { endpoint, address, keyring, connection } = greeted.approached;
    let server = serving.unwrap_or_else(|| endpoint.clone());
    let Welcome::Worker { id, heartbeat_ms } = greeted.welcome else {
        return Err(wrong_welcome(&address));
    };
    let peers = Arc::new(Peers::new(endpoint.clone(), &keyring, connection.clone()).map_err(start_failed)?);
    let outbox = Outbox::new();
    let sender = WorkerSender { outbox: outbox.clone(), connection: connection.clone() };
    let mut tasks = JoinSet::new();
    let host = Arc::new(Host::new(Arc::clone(&store), grant_secret, Arc::clone(&peers)));
    tasks.spawn(serving::serve_connection(connection.clone(), Arc::clone(&host), None));
    tasks.spawn(serving::serve_endpoint(server.clone(), Arc::clone(&host)));
    let send = greeted.send;
    tasks.spawn(async move {
        if let Err(error) = outbox.write_to(send).await {
            Close::Stalled.close(&connection, &error.to_string());
        }
    });
    let dialling = endpoint.clone();
    tasks.spawn(async move { join::keep_certified(&pass, &dialling, &address, &keyring).await });
    Ok(WorkerLink {
        id,
        heartbeat: Duration::from_millis(heartbeat_ms),
        inlet: Inlet::new(greeted.recv),
        sender,
        blobs: WorkerBlobs { peers, host },
        served: Served { endpoints: [endpoint, server], _tasks: tasks },
    })
}

fn hello(settings: &WorkerSettings, listen: Option<SocketAddr>, grant_secret: [u8; 32]) -> Hello {
    let worker = WorkerHello {
        slots: settings.slots,
        memory: settings.memory,
        arch: settings.arch.clone(),
        listen,
        grant_secret,
        labels: settings.labels.clone(),
        resources: settings.resources.clone(),
        incarnation: settings.incarnation,
        keeps: settings.keeps,
    };
    let (abi, name) = (abi::VERSION, settings.name.clone());
    Hello { protocol: PROTOCOL, abi, name, worker: Some(worker), module: None, session: None, operator: false }
}

impl WorkerLink {
    /// Waits for the scheduler's next messages; `None` once it has ended the stream. Dropping this future loses nothing.
    ///
    /// # Errors
    /// When the connection broke or the scheduler broke the protocol.
    pub async fn recv(&mut self) -> Result<Option<Vec<ToWorker>>, LinkError> {
        let mut batch = Vec::new();
        match self.inlet.read(&mut batch).await {
            Ok(true) => Ok(Some(batch)),
            Ok(false) => {
                Close::Done.close(&self.sender.connection, "");
                Ok(None)
            }
            Err(error) => {
                let reason = self.sender.connection.close_reason().map_or_else(|| error.to_string(), |reason| reason.to_string());
                if error.is_violation() {
                    Close::Protocol.close(&self.sender.connection, &reason);
                }
                Err(LinkError { reason })
            }
        }
    }

    /// For sending.
    #[must_use]
    pub fn sender(&self) -> WorkerSender {
        self.sender.clone()
    }

    /// For fetching.
    #[must_use]
    pub fn blobs(&self) -> WorkerBlobs {
        self.blobs.clone()
    }

    /// Where this worker serves values.
    #[must_use]
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.served.endpoints[1].local_addr().ok()
    }

    /// Ends the connection once the scheduler has read what was sent, and stops serving. Takes two seconds at most. Dropping this
    /// future breaks the connection.
    pub async fn close(self) {
        self.sender.outbox.finish();
        // The scheduler closes when it has read the stream to its end.
        let _ = timeout(FAREWELL, self.sender.connection.closed()).await;
        for endpoint in &self.served.endpoints {
            endpoint.close(Close::Done.code(), b"the worker has left");
            // A peer that is gone does not answer, which is no reason to wait.
            let _ = timeout(FAREWELL / 4, endpoint.wait_idle()).await;
        }
    }
}

impl WorkerSender {
    /// Sends messages, in order. They are on their way when the network gets to it; after the connection's end they go nowhere.
    ///
    /// # Errors
    /// When a message is too long for a frame. The others are sent.
    pub fn send(&self, messages: impl IntoIterator<Item = FromWorker>) -> Result<(), FrameError> {
        let result = messages.into_iter().map(|message| self.outbox.push(&message)).fold(Ok(()), Result::and);
        self.outbox.flush();
        result
    }
}

impl WorkerBlobs {
    /// Fetches a module from the scheduler, which may have to wait for its client to upload it. The bytes have that hash.
    ///
    /// # Errors
    /// When the scheduler does not have it or the transfer fails. Dropping the future gives the transfer up.
    pub async fn get_module(&self, hash: Hash) -> Result<Bytes, BlobError> {
        let expected = Expected { len: None, limit: MAX_MODULE_BYTES, hash };
        blobs::get(self.peers.scheduler(), &BlobRequest::GetModule { hash }, expected).await
    }

    /// Fetches a value from the first of these workers that has it, or else through the scheduler, unless a peer is just giving it to this
    /// worker: then that is waited for. The bytes have that length and hash.
    ///
    /// # Errors
    /// With what the scheduler said, or what became of its transfer. Dropping the future gives the transfer up.
    pub async fn get(&self, key: Key, len: u64, hash: Hash, places: &[Place]) -> Result<Bytes, BlobError> {
        match self.host.given(key, len, hash).await {
            Some(bytes) => Ok(bytes),
            None => self.peers.fetch(key, len, hash, places).await,
        }
    }
}

/// What is to be closed with the link.
struct Served {
    endpoints: [Endpoint; 2],
    _tasks: JoinSet<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.endpoints.iter().for_each(|endpoint| endpoint.close(Close::Done.code(), b"the worker has left"));
    }
}

/// The endpoint that others come to: the one that there is, unless its owner wants another, which may be bound already.
fn serving_endpoint(
    listen: Option<SocketAddr>,
    bound: Option<Endpoint>,
    approached: &Approached,
) -> Result<Endpoint, ConnectError> {
    let Approached { endpoint, address, keyring, .. } = approached;
    let crypto = tls::worker_server(keyring).map_err(start_failed)?;
    if let (Some(listen), Some(bound)) = (listen, bound) {
        bound.set_server_config(Some(transport::server_config(&crypto, listen.ip().is_loopback())));
        return Ok(bound);
    }
    match listen {
        Some(listen) => transport::endpoint(listen, Some(&crypto), None)
            .map_err(|error| ConnectError::Start { what: format!("serving values at {listen}"), reason: error.to_string() }),
        None => {
            let near = address.socket.ip().is_loopback();
            endpoint.set_server_config(Some(transport::server_config(&crypto, near)));
            Ok(endpoint.clone())
        }
    }
}
