//! The client's end of the network: a [`Backend`] on a thread of its own. Must not know: calls, futures, results.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::Connection;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    background::{Background, Stop},
    blobs::{self, BlobError},
    control::{self, Inlet, Outbox},
    join::{self, Approached, Greeted, start_failed, wrong_welcome},
    pass::Pass,
    peers::Peers,
    transport::Close,
};
use crate::{
    ConnectError, abi,
    client::backend::{Backend, Inbox},
    ids::{ClientId, Hash, Key},
    wire::{
        FromClient, Hello, PROTOCOL, Role, Welcome,
        blob::{BlobRequest, Place},
    },
};

/// Values that are fetched or uploaded at a time; the rest wait.
const TRANSFERS: usize = 64;
/// How long sockets may take to say goodbye.
const FAREWELL: Duration = Duration::from_millis(500);

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
    let (settings, outbox, fault) = (settings.clone(), Outbox::new(), Fault::default());
    let (written, received, blamed) = (outbox.clone(), Arc::clone(&inbox), fault.clone());
    let background = Background::start("quicsand-net", 1, move |stop| async move {
        match enter(&settings, program).await {
            Ok((greeted, pass, peers, client, credit)) => {
                let peers = Arc::new(peers);
                if ready.send(Ok((client, credit, Arc::clone(&peers)))).is_ok() {
                    run(greeted, &pass, &written, received, &blamed, stop).await;
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

async fn enter(settings: &ConnectSettings, program: Program) -> Result<(Greeted, Pass, Peers, ClientId, u64), ConnectError> {
    let ConnectSettings { address, token, state, name } = settings;
    let pass = Pass::new(address, &[Role::Client], token.as_deref(), state.clone(), SystemTime::now())?;
    let hello = |_: &Approached| {
        let (abi, name, module) = (abi::VERSION, name.clone(), Some(program.hash));
        Ok(Hello { protocol: PROTOCOL, abi, name, worker: None, module, operator: false })
    };
    let greeted = join::enter(&pass, hello).await?;
    let Approached { endpoint, address, keyring, connection } = &greeted.approached;
    let Welcome::Client { id, credit, module_wanted } = greeted.welcome else {
        return Err(wrong_welcome(address));
    };
    if module_wanted {
        upload_module(connection, program).await.map_err(|error| match error {
            BlobError::Refused { reason } => ConnectError::BadModule { reason },
            other => {
                ConnectError::Unreachable { address: address.text.clone(), reason: format!("the module was not sent: {other}") }
            }
        })?;
    }
    let peers = Peers::new(endpoint.clone(), keyring, connection.clone()).map_err(start_failed)?;
    Ok((greeted, pass, peers, id, credit))
}

async fn upload_module(connection: &Connection, program: Program) -> Result<(), BlobError> {
    let request = BlobRequest::PutModule { hash: program.hash, len: program.wasm.len() as u64 };
    blobs::put(connection, &request, program.wasm).await
}

/// Pumps messages until the connection ends or is to end, says goodbye, and stays for what is still asked of it until told to go.
async fn run(greeted: Greeted, pass: &Pass, outbox: &Outbox, inbox: Arc<dyn Inbox>, fault: &Fault, mut stop: Stop) {
    let Greeted { approached: Approached { endpoint, address, keyring, connection }, send, recv, .. } = greeted;
    let (writer, written) = (outbox.clone(), connection.clone());
    tokio::spawn(async move {
        if let Err(error) = writer.write_to(send).await {
            Close::Stalled.close(&written, &error.to_string());
        }
    });
    let certified = async {
        join::keep_certified(pass, &endpoint, &address, &keyring).await;
        std::future::pending().await
    };
    tokio::select! {
        () = certified => {}
        reason = receive(Inlet::new(recv), inbox.as_ref()) => {
            let closed = || connection.close_reason().map_or(reason, |error| error.to_string());
            let reason = fault.take().unwrap_or_else(closed);
            Close::Done.close(&connection, "");
            inbox.disconnected(&reason);
            stop.requested().await;
        }
        () = stop.requested() => {
            outbox.finish();
            control::part(&connection, Close::Done, "the client has left").await;
        }
    }
    endpoint.close(Close::Done.code(), b"the client has left");
    // A peer that is gone does not answer, which is no reason to wait.
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
}

async fn receive(mut inlet: Inlet, inbox: &dyn Inbox) -> String {
    let mut batch = Vec::new();
    loop {
        match inlet.read(&mut batch).await {
            Ok(true) => inbox.receive(&mut batch),
            Ok(false) => return "the scheduler ended it".to_owned(),
            Err(error) => return error.to_string(),
        }
        batch.clear();
    }
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
    peers: Arc<Peers>,
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
                self.fault.end(self.peers.scheduler(), error.to_string());
            }
        }
        self.outbox.flush();
    }

    fn upload(&self, key: Key, bytes: Bytes, hash: Hash, place: Option<Place>) {
        let (peers, outbox, fault) = (Arc::clone(&self.peers), self.outbox.clone(), self.fault.clone());
        self.transfer(async move {
            let Err(error) = peers.upload(key, bytes, hash, place.as_ref()).await else { return };
            tracing::debug!(%key, %error, "not uploaded");
            match place {
                Some(_) => {
                    // A message of one number fits.
                    let _ = outbox.push(&FromClient::UploadFailed { seq: key.entry.seq });
                    outbox.flush();
                }
                None => fault.end(peers.scheduler(), format!("the scheduler does not take data: {error}")),
            }
        });
    }

    fn fetch(&self, key: Key, len: u64, hash: Hash, places: Vec<Place>) {
        let Some(inbox) = self.inbox.lock().clone() else { return };
        let peers = Arc::clone(&self.peers);
        self.transfer(async move {
            let fetched = peers.fetch(key, len, hash, &places).await;
            if let Err(error) = &fetched {
                tracing::debug!(%key, %error, "not fetched from anywhere");
            }
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
