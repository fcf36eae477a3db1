//! The client's end of the network: a [`Backend`] on a thread of its own, over as many connections as it takes. Must not know: calls,
//! futures, results.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::Connection;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    background::{Background, Stop},
    blobs::{self, BlobError},
    control::{self, Inlet, Outbox},
    join::{self, Approached, Greeted, start_failed, wrong_welcome},
    pass::Pass,
    peers::Peers,
    tls,
    transport::Close,
};
use crate::{
    ConnectError, abi,
    client::backend::{Backend, Inbox},
    codec::Encoded,
    ids::{ClientId, Hash, Key},
    wire::{
        FromClient, Hello, PROTOCOL, Role, Session, ToClient, Welcome,
        blob::{BlobRequest, Place},
    },
};

/// Values that are fetched or uploaded at a time; the rest wait.
const TRANSFERS: usize = 64;
/// How long sockets may take to say goodbye.
const FAREWELL: Duration = Duration::from_millis(500);
/// Pauses between attempts to connect again, the first and the longest one; each is shortened by up to a half, so that not all come at once.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Time for one attempt, the first and the longest: a packet that is lost while nobody listens is sent again later and later.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(15);

/// Where to go, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct ConnectSettings {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// A client's join token; without one, the certificate of an earlier run has to do.
    pub(crate) token: Option<String>,
    /// Where certificates are kept for later runs.
    pub(crate) state: Option<PathBuf>,
    /// For people: shows up in the scheduler's log.
    pub(crate) name: String,
    /// For how long a connection that broke is tried to be made again.
    pub(crate) patience: Duration,
}

/// The program's module.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) wasm: Bytes,
    pub(crate) hash: Hash,
}

/// A client that is in.
pub(crate) struct Connected {
    pub(crate) client: ClientId,
    pub(crate) credit: u64,
    pub(crate) backend: Arc<dyn Backend>,
}

/// Joins a fleet. Blocks until the scheduler has welcomed the client and has its module, or for a few seconds if nobody answers.
///
/// The inbox is kept until the backend is closed.
pub(crate) fn connect(settings: &ConnectSettings, program: Program, inbox: Arc<dyn Inbox>) -> Result<Connected, ConnectError> {
    let (ready, readiness) = mpsc::sync_channel(1);
    let (outbox, fault) = (Outbox::lasting(), Fault::default());
    let settings = settings.clone();
    let (queued, received, blamed) = (outbox.clone(), Arc::clone(&inbox), fault.clone());
    let background = Background::start("quicsand-net", 1, move |stop| async move {
        let begun = async {
            let now = SystemTime::now();
            let pass = Pass::new(&settings.address, &[Role::Client], settings.token.as_deref(), settings.state.clone(), now)?;
            let secret = tls::random().ok_or_else(|| start_failed("the system gives no random numbers"))?;
            let member = Member { settings, pass, program, secret, outbox: queued, inbox: received, fault: blamed };
            let entered = member.enter(None).await?;
            Ok((member, entered))
        };
        match begun.await {
            Ok((member, entered)) => {
                let (peers, current) = watch::channel(Arc::clone(&entered.peers));
                if ready.send(Ok((entered.client, entered.credit, current))).is_ok() {
                    member.run(entered, peers, stop).await;
                }
            }
            // Nobody waits any more only if the caller's thread is gone.
            Err(error) => drop(ready.send(Err(error))),
        }
    })
    .map_err(start_failed)?;
    let (client, credit, peers) = readiness.recv().map_err(start_failed)??;
    let transfers = Arc::new(Semaphore::new(TRANSFERS));
    let backend = Arc::new(Network { background, outbox, peers, transfers, fault, inbox: Mutex::new(Some(inbox)) });
    Ok(Connected { client, credit, backend })
}

/// A client, for as long as it lives.
struct Member {
    settings: ConnectSettings,
    pass: Pass,
    program: Program,
    secret: [u8; 16],
    outbox: Outbox,
    inbox: Arc<dyn Inbox>,
    fault: Fault,
}

/// One connection.
struct Entered {
    greeted: Greeted,
    peers: Arc<Peers>,
    client: ClientId,
    credit: u64,
    /// Messages that the scheduler took in before.
    applied: Option<u64>,
}

/// How a connection ended.
enum End {
    /// The client leaves.
    Stop,
    /// It broke, or the scheduler is shutting down: worth another one.
    Cut(String),
    /// One side ended it for good.
    Over(String),
}

/// Why there is no other connection.
enum Failure {
    Stop,
    Forgotten,
    Over(String),
}

impl Member {
    /// Says hello, as a new client or the one of that number, and gives the scheduler the module if it has not got it.
    async fn enter(&self, client: Option<ClientId>) -> Result<Entered, ConnectError> {
        let session = Some(Session { secret: self.secret, client });
        let hello = |_: &Approached| {
            let (abi, name, module) = (abi::VERSION, self.settings.name.clone(), Some(self.program.hash));
            Ok(Hello { protocol: PROTOCOL, abi, name, worker: None, module, session, operator: false })
        };
        let greeted = join::enter(&self.pass, hello).await?;
        let Approached { endpoint, address, keyring, connection } = &greeted.approached;
        let Welcome::Client { id, credit, applied, module_wanted } = greeted.welcome else {
            return Err(wrong_welcome(address));
        };
        if module_wanted {
            self.upload_module(connection).await.map_err(|error| match error {
                BlobError::Refused { reason } => ConnectError::BadModule { reason },
                other => ConnectError::Unreachable {
                    address: address.text.clone(),
                    reason: format!("the module was not sent: {other}"),
                },
            })?;
        }
        let peers = Arc::new(Peers::new(endpoint.clone(), keyring, connection.clone()).map_err(start_failed)?);
        Ok(Entered { greeted, peers, client: id, credit, applied })
    }

    async fn upload_module(&self, connection: &Connection) -> Result<(), BlobError> {
        let Program { wasm, hash } = self.program.clone();
        let request = BlobRequest::PutModule { hash, len: wasm.len() as u64 };
        blobs::put(connection, &request, wasm.into()).await
    }

    /// Pumps messages until the client leaves or the scheduler is gone for good, over one connection after the other, and stays for what is
    /// still asked of it until told to go.
    async fn run(self, mut entered: Entered, peers: watch::Sender<Arc<Peers>>, mut stop: Stop) {
        let mut again = Vec::new();
        let client = entered.client;
        loop {
            let cut = match self.pump(entered, again, &mut stop).await {
                End::Stop => return,
                End::Cut(reason) => self.reconnect(client, reason, &mut stop).await,
                End::Over(reason) => Err(Failure::Over(reason)),
            };
            match cut {
                Ok((next, frames)) => {
                    peers.send_replace(Arc::clone(&next.peers));
                    // Queued now, and so behind what is sent again.
                    self.inbox.returned();
                    (entered, again) = (next, frames);
                }
                Err(failure) => {
                    self.outbox.end();
                    match failure {
                        Failure::Stop => return,
                        Failure::Forgotten => self.inbox.forgotten(),
                        Failure::Over(reason) => self.inbox.disconnected(&reason),
                    }
                    // Whoever waits for another connection hears that there is none.
                    let last = Arc::clone(&peers.borrow());
                    drop(peers);
                    stop.requested().await;
                    return last.close();
                }
            }
        }
    }

    /// Carries messages over one connection until it ends.
    async fn pump(&self, entered: Entered, again: Vec<Bytes>, stop: &mut Stop) -> End {
        let Greeted { approached: Approached { endpoint, address, keyring, connection }, send, recv, .. } = entered.greeted;
        let (queued, written) = (self.outbox.clone(), connection.clone());
        let writer = tokio::spawn(async move {
            if let Err(error) = queued.write_after(again, send).await {
                Close::Again.close(&written, &error.to_string());
            }
        });
        let certified = async {
            join::keep_certified(&self.pass, &endpoint, &address, &keyring).await;
            std::future::pending().await
        };
        let end = tokio::select! {
            () = certified => End::Stop,
            reason = self.receive(Inlet::new(recv)) => self.judge(&connection, reason),
            () = stop.requested() => {
                self.outbox.finish();
                control::part(&connection, Close::Done, "the client has left").await;
                End::Stop
            }
        };
        match &end {
            End::Stop => endpoint.close(Close::Done.code(), b"the client has left"),
            End::Cut(reason) => Close::Again.close(&connection, reason),
            // Values may still be fetched from workers.
            End::Over(_) => Close::Done.close(&connection, ""),
        }
        writer.abort();
        // An error means that it was in fact stopped.
        let _ = writer.await;
        if matches!(end, End::Stop) {
            // A peer that is gone does not answer, which is no reason to wait.
            let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        }
        end
    }

    /// Delivers messages until no more come; says why, and whether the scheduler or the network is the reason.
    async fn receive(&self, mut inlet: Inlet) -> (String, bool) {
        let mut batch = Vec::new();
        let mut refused = false;
        loop {
            match inlet.read(&mut batch).await {
                Ok(true) => {
                    let applied = batch.iter().rev().find_map(|message| match message {
                        ToClient::Applied { messages } => Some(*messages),
                        _ => None,
                    });
                    applied.into_iter().for_each(|messages| self.outbox.applied(messages));
                    refused |= matches!(batch.last(), Some(ToClient::Refused { .. }));
                    self.inbox.receive(&mut batch);
                }
                Ok(false) => return ("the scheduler ended it".to_owned(), true),
                Err(error) => return (error.to_string(), refused || error.is_violation()),
            }
            batch.clear();
        }
    }

    fn judge(&self, connection: &Connection, (reason, is_scheduler): (String, bool)) -> End {
        if let Some(fault) = self.fault.take() {
            return End::Over(fault);
        }
        let closed = connection.close_reason();
        let reason = closed.as_ref().map_or(reason, ToString::to_string);
        if is_scheduler || Close::is_final(closed) { End::Over(reason) } else { End::Cut(reason) }
    }

    /// Tries to get in again, less and less often, as long as the settings say. Also gives what is to be sent again first.
    async fn reconnect(&self, client: ClientId, lost: String, stop: &mut Stop) -> Result<(Entered, Vec<Bytes>), Failure> {
        let patience = self.settings.patience;
        if patience.is_zero() {
            return Err(Failure::Over(lost));
        }
        tracing::warn!(reason = lost, "the connection to the scheduler broke, connecting again");
        let deadline = Instant::now() + patience;
        let (mut pause, mut attempt) = (FIRST_PAUSE, FIRST_ATTEMPT);
        let mut why = lost;
        while Instant::now() < deadline {
            let trying = timeout_at(deadline.min(Instant::now() + attempt), self.enter(Some(client)));
            let entered = tokio::select! {
                entered = trying => entered,
                () = stop.requested() => return Err(Failure::Stop),
            };
            match entered {
                Ok(Ok(entered)) => return self.resume(entered),
                Ok(Err(ConnectError::Forgotten { .. })) => return Err(Failure::Forgotten),
                Ok(Err(error)) if is_passing(&error) => why = error.to_string(),
                Ok(Err(error)) => return Err(Failure::Over(error.to_string())),
                Err(_) => why = "nobody answers".to_owned(),
            }
            tokio::select! {
                () = sleep(shortened(pause)) => {}
                () = stop.requested() => return Err(Failure::Stop),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            attempt = (attempt * 2).min(LONGEST_ATTEMPT);
        }
        Err(Failure::Over(format!("for {} s no other could be made: {why}", patience.as_secs_f32())))
    }

    fn resume(&self, entered: Entered) -> Result<(Entered, Vec<Bytes>), Failure> {
        if self.outbox.is_overfull() {
            return Err(Failure::Over("too much was submitted while it was gone".to_owned()));
        }
        let again = entered.applied.and_then(|applied| self.outbox.resume::<FromClient>(applied));
        match again {
            Some(again) => {
                tracing::info!(client = %entered.client, "connected again");
                Ok((entered, again))
            }
            None => Err(Failure::Forgotten),
        }
    }
}

/// Whether another attempt may fare better.
fn is_passing(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::Unreachable { .. }
            | ConnectError::Refused { .. }
            | ConnectError::Address { .. }
            | ConnectError::Start { .. }
    )
}

/// Somewhat less than that.
fn shortened(pause: Duration) -> Duration {
    let [share] = tls::random().unwrap_or([0]);
    pause - pause / 2 * u32::from(share) / 256
}

/// Why this side ended the connection, if it did.
#[derive(Clone, Default)]
struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    /// Ends it; the first reason counts.
    fn end(&self, connection: &Connection, reason: String) {
        // Said before the connection's task can notice its end.
        let text = self.0.lock().get_or_insert(reason).clone();
        Close::Protocol.close(connection, &text);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().take()
    }
}

struct Network {
    fault: Fault,
    background: Background,
    outbox: Outbox,
    /// Of the present connection, or the last one.
    peers: watch::Receiver<Arc<Peers>>,
    transfers: Arc<Semaphore>,
    inbox: Mutex<Option<Arc<dyn Inbox>>>,
}

impl Network {
    /// Runs a transfer on the thread, once there is room for it.
    fn transfer(&self, transfer: impl Future<Output = ()> + Send + 'static) {
        let room = Arc::clone(&self.transfers);
        self.background.handle().spawn(async move {
            // The semaphore is never closed.
            if let Ok(_permit) = room.acquire().await {
                transfer.await;
            }
        });
    }
}

impl Backend for Network {
    fn send(&self, messages: &mut dyn Iterator<Item = FromClient>) {
        for message in messages {
            if let Err(error) = self.outbox.push(&message) {
                // Going on without it would leave a gap that nobody ever fills.
                self.fault.end(self.peers.borrow().scheduler(), error.to_string());
            }
        }
        self.outbox.flush();
    }

    fn upload(&self, key: Key, data: Encoded, hash: Hash, route: Vec<Place>) {
        let (peers, outbox, fault) = (Arc::clone(&self.peers.borrow()), self.outbox.clone(), self.fault.clone());
        self.transfer(async move {
            let Err(error) = peers.upload(key, data, hash, &route).await else { return };
            tracing::debug!(%key, %error, "not uploaded");
            match &route[..] {
                [_, ..] => {
                    // A message of one number fits.
                    let _ = outbox.push(&FromClient::UploadFailed { seq: key.entry.seq });
                    outbox.flush();
                }
                // It is asked for again on the next one.
                [] if peers.scheduler().close_reason().is_some() => {}
                [] => fault.end(peers.scheduler(), format!("the scheduler does not take data: {error}")),
            }
        });
    }

    fn fetch(&self, key: Key, len: u64, hash: Hash, places: Vec<Place>) {
        let Some(inbox) = self.inbox.lock().clone() else { return };
        let mut current = self.peers.clone();
        self.transfer(async move {
            let fetched = loop {
                let peers = Arc::clone(&current.borrow_and_update());
                let fetched = peers.fetch(key, len, hash, &places).await;
                let Err(error) = &fetched else { break fetched };
                tracing::debug!(%key, %error, "not fetched from anywhere");
                // If the connection broke meanwhile, that says nothing of the value.
                if peers.scheduler().close_reason().is_none() || current.changed().await.is_err() {
                    break fetched;
                }
            };
            inbox.fetched(key, fetched.ok());
        });
    }

    fn close(&self) {
        // A message of no content fits.
        let _ = self.outbox.push(&FromClient::Bye);
        self.outbox.flush();
        self.background.stop();
        self.inbox.lock().take();
    }
}
