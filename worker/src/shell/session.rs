//! One registration with a scheduler, from joining to leaving: the link's messages into the core, heartbeats, fetches, the end. Must not
//! know: when to join again.

use std::{
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use quicsand::{
    ConnectError,
    ids::{Hash, Key, WorkerId},
    net::{
        Reserved,
        worker::{self as net, BlobStore, Reading, WorkerBlobs, WorkerLink, WorkerSender},
    },
    wire::{FromWorker, LogLine, LogQuery, blob::Place},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    core::{Core, Uplink},
    disk::Disk,
    machine,
    settings::Holding,
    slots,
};
use crate::{
    sandbox::{Printed, Sandbox},
    state::{Event, Held, Kept},
};

/// What the worker's owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Go on.
    Serve,
    /// Finish what runs, give the rest back, leave.
    Drain,
    /// Stop everything and leave.
    Stop,
    /// Vanish without a word, as if the process had died.
    Die,
}

/// How a registration ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// In good order, or because its owner stopped it.
    Left,
    /// One side broke the protocol, or the scheduler does not want it.
    Expelled(String),
    /// The connection is gone.
    Lost(String),
}

/// A worker that is registered.
pub(crate) struct Session {
    link: WorkerLink,
    core: Arc<Core>,
    left: watch::Receiver<Option<Departure>>,
    disk: Disk,
    threads: Vec<JoinHandle<()>>,
}

/// What outlives a registration: the values that were held, and the disk that has some of them.
pub(crate) struct Stock {
    home: Home,
    thread: Option<JoinHandle<()>>,
    pub(crate) kept: Kept,
}

impl Stock {
    /// Nothing, and the place for it.
    pub(crate) fn new(holding: &Holding) -> Result<Self, ConnectError> {
        let (home, thread) = Home::new(holding)?;
        Ok(Self { home, thread: Some(thread), kept: Kept::default() })
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.home.disk.close();
        // So that no file outlives the process.
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the disk's thread panicked");
        }
    }
}

impl Session {
    /// Joins, starts the compute threads, and names what was kept from an earlier registration; if it fails, that is still kept.
    pub(crate) async fn join(
        settings: &net::WorkerSettings,
        pass: &net::WorkerPass,
        sandbox: &Arc<Sandbox>,
        holding: &Holding,
        stock: &mut Stock,
    ) -> Result<Self, ConnectError> {
        let home = stock.home.clone();
        let settings = net::WorkerSettings { keeps: stock.kept.count(), ..settings.clone() };
        let link = net::join(&settings, pass, Arc::new(home.clone())).await?;
        let (leave, left) = watch::channel(None);
        let uplink = Link {
            sender: link.sender(),
            blobs: link.blobs(),
            home: home.clone(),
            sandbox: Arc::clone(sandbox),
            runtime: Handle::current(),
            leave,
        };
        let name = format!("{} ({})", settings.name, settings.arch);
        let printed = Printed::new(usize::try_from(sandbox.config().caps.log_buffer.0).unwrap_or(usize::MAX));
        let kept = std::mem::take(&mut stock.kept);
        let core = Arc::new(Core::new(settings.slots, name.clone(), holding.budget, printed, kept, Box::new(uplink)));
        *home.core.lock() = Arc::downgrade(&core);
        let mut session = Self { link, core, left, disk: home.disk, threads: Vec::new() };
        for slot in 0..settings.slots {
            match slots::start(&session.core, sandbox, slot, &name) {
                Ok(thread) => session.threads.push(thread),
                Err(error) => {
                    session.core.close();
                    stock.kept = session.core.take_kept();
                    return Err(ConnectError::Start { what: "a compute thread".into(), reason: error.to_string() });
                }
            }
        }
        session.core.tell([Event::Joined]);
        Ok(session)
    }

    /// The worker's number.
    pub(crate) fn id(&self) -> WorkerId {
        self.link.id
    }

    /// Serves until the registration ends. Gives what was held then, too.
    pub(crate) async fn serve(mut self, wishes: &mut watch::Receiver<Wish>) -> (Departure, Kept) {
        let departure = self.converse(wishes).await;
        self.core.close();
        let threads = std::mem::take(&mut self.threads);
        // They end within the time that the sandbox takes to stop a task.
        let ended = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).all(|end| end.is_ok()));
        if !ended.await.unwrap_or(false) {
            tracing::error!("a compute thread panicked");
        }
        tracing::info!(id = %self.id(), finished = self.core.finished(), "left");
        if departure == Departure::Left && *wishes.borrow() != Wish::Die {
            self.link.close().await;
        }
        // What the disk is at is for this registration to hear.
        while !self.core.is_disk_still() && self.disk.settle().await {}
        (departure, self.core.take_kept())
    }

    async fn converse(&mut self, wishes: &mut watch::Receiver<Wish>) -> Departure {
        let mut heartbeat = interval(self.link.heartbeat.max(Duration::from_millis(10)));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wish = *wishes.borrow();
        loop {
            match wish {
                Wish::Serve => {}
                Wish::Drain => self.core.tell([Event::Drain]),
                Wish::Stop | Wish::Die => return Departure::Left,
            }
            wish = Wish::Serve;
            tokio::select! {
                received = self.link.recv() => match received {
                    Ok(Some(messages)) => self.core.tell(messages.into_iter().map(Event::Message)),
                    Ok(None) => return Departure::Lost("the scheduler closed the connection".into()),
                    Err(error) => return Departure::Lost(error.reason),
                },
                _ = heartbeat.tick() => self.core.tell([Event::Tick { used_bytes: machine::used_memory() }]),
                changed = wishes.changed() => match changed {
                    Ok(()) => wish = *wishes.borrow_and_update(),
                    // Whoever had wishes is gone.
                    Err(_) => return Departure::Left,
                },
                departure = departed(&mut self.left) => return departure,
            }
        }
    }
}

async fn departed(left: &mut watch::Receiver<Option<Departure>>) -> Departure {
    match left.wait_for(Option::is_some).await {
        Ok(departure) => departure.clone().unwrap_or(Departure::Left),
        Err(_) => Departure::Left,
    }
}

/// Where what comes from network and disk finds the core, while there is one.
#[derive(Clone)]
struct Home {
    core: Arc<Mutex<Weak<Core>>>,
    disk: Disk,
    /// Mebibytes that values read for peers may take up until they are sent.
    loans: Arc<Semaphore>,
    /// Of them in all.
    lendable: u32,
}

/// A value that was read for a peer.
struct Loan {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Home {
    fn new(holding: &Holding) -> Result<(Self, JoinHandle<()>), ConnectError> {
        let core: Arc<Mutex<Weak<Core>>> = Arc::default();
        let told = Arc::clone(&core);
        let tell = move |event| {
            let core = told.lock().upgrade();
            if let Some(core) = core {
                core.tell([event]);
            }
        };
        let (disk, thread) = Disk::start(holding.spill_dir.clone(), tell)
            .map_err(|error| ConnectError::Start { what: "the disk's thread".into(), reason: error.to_string() })?;
        let lendable = mebibytes(holding.budget.memory);
        let loans = Arc::new(Semaphore::new(lendable as usize));
        Ok((Self { core, disk, loans, lendable }, thread))
    }

    fn core(&self) -> Option<Arc<Core>> {
        self.core.lock().upgrade()
    }

    fn tell(&self, event: Event) {
        if let Some(core) = self.core() {
            core.tell([event]);
        }
    }

    /// A value from disk, for a peer. It does not come back into memory for others, and waits until what others read has been sent.
    async fn lend(&self, file: u64, len: u64, hash: Hash) -> Option<(Bytes, Hash)> {
        let permits = mebibytes(len).min(self.lendable);
        let permit = Arc::clone(&self.loans).acquire_many_owned(permits).await.ok()?;
        let bytes = self.disk.serve(file, len, hash).await?;
        Some((Bytes::from_owner(Loan { bytes, _permit: permit }), hash))
    }
}

/// Begun mebibytes, as far as a semaphore counts.
fn mebibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX).clamp(1, 1 << 28)
}

impl BlobStore for Home {
    fn read(&self, key: Key) -> Reading<'_> {
        let held = self.core().and_then(|core| core.held(key));
        Box::pin(async move {
            match held? {
                Held::Here { bytes, hash } => Some((bytes, hash)),
                Held::OnDisk { file, len, hash } => self.lend(file, len, hash).await,
            }
        })
    }

    fn reserve(&self, len: u64) -> Result<Reserved, String> {
        self.core().ok_or("this worker is not ready")?.reserve(len)
    }

    fn write(&self, key: Key, bytes: Bytes, hash: Hash) -> Result<(), String> {
        self.core().ok_or("this worker is not ready")?.write(key, bytes, hash)
    }

    fn log(&self, query: &LogQuery) -> Vec<LogLine> {
        self.core().map_or_else(Vec::new, |core| core.printed().lines(query))
    }
}

/// The network as the core sees it.
struct Link {
    sender: WorkerSender,
    blobs: WorkerBlobs,
    home: Home,
    sandbox: Arc<Sandbox>,
    runtime: Handle,
    leave: watch::Sender<Option<Departure>>,
}

impl Uplink for Link {
    fn send(&self, messages: Vec<FromWorker>) {
        if let Err(error) = self.sender.send(messages) {
            // Going on without it would leave a gap that nobody ever fills: better a registration lost than a call.
            tracing::error!(%error, "a message to the scheduler has no room in a frame");
            self.leave.send_replace(Some(Departure::Lost(error.to_string())));
        }
    }

    fn fetch_module(&self, hash: Hash) {
        let (blobs, home, sandbox) = (self.blobs.clone(), self.home.clone(), Arc::clone(&self.sandbox));
        self.runtime.spawn(async move {
            if let Err(event) = load_module(hash, &blobs, &home, sandbox).await {
                home.tell(event);
            }
        });
    }

    fn fetch_blob(&self, key: Key, len: u64, hash: Hash, places: Vec<Place>) {
        let (blobs, home) = (self.blobs.clone(), self.home.clone());
        self.runtime.spawn(async move {
            home.tell(match blobs.get(key, len, hash, &places).await {
                Ok(bytes) => Event::BlobArrived { key, hash, bytes },
                Err(error) => {
                    tracing::warn!(%key, %error, "an input could not be fetched");
                    Event::BlobMissing { key, hash }
                }
            });
        });
    }

    fn spill(&self, file: u64, bytes: Bytes) {
        self.home.disk.write(file, bytes);
    }

    fn load(&self, file: u64, len: u64, hash: Hash) {
        self.home.disk.read(file, len, hash);
    }

    fn unlink(&self, file: u64) {
        self.home.disk.remove(file);
    }

    fn leave(&self, reason: Option<String>) {
        self.leave.send_replace(Some(reason.map_or(Departure::Left, Departure::Expelled)));
    }
}

/// Fetches a module unless the sandbox still has it, and compiles it on a thread where that disturbs nobody.
async fn load_module(hash: Hash, blobs: &WorkerBlobs, home: &Home, sandbox: Arc<Sandbox>) -> Result<(), Event> {
    let module = match sandbox.get(hash) {
        Some(module) => module,
        None => {
            let missing = |error| Event::ModuleMissing { hash, reason: format!("its module could not be fetched: {error}") };
            let wasm = blobs.get_module(hash).await.map_err(missing)?;
            let loaded = tokio::task::spawn_blocking(move || sandbox.load(hash, &wasm));
            let refused = |reason| Event::ModuleRefused { hash, reason };
            let loaded = loaded.await.map_err(|_| refused("the compiler panicked".to_owned()))?;
            loaded.map_err(|error| {
                tracing::warn!(%hash, %error, "a module was refused");
                if error.is_passing() {
                    Event::ModuleMissing { hash, reason: error.to_string() }
                } else {
                    refused(error.to_string())
                }
            })?
        }
    };
    if let Some(core) = home.core() {
        core.module_ready(hash, module);
    }
    Ok(())
}
