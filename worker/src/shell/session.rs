//! One registration with a scheduler, from joining to leaving: the link's messages into the core, heartbeats, fetches, the end. Must not
//! know: when to join again.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use quicsand::{
    ConnectError,
    ids::{Hash, Key, WorkerId},
    net::{
        Reserved,
        worker::{self as net, BlobStore, WorkerBlobs, WorkerLink, WorkerSender},
    },
    wire::{FromWorker, LogLine, LogQuery, blob::Place},
};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    core::{Core, Uplink},
    machine, slots,
};
use crate::{
    sandbox::{Printed, Sandbox},
    state::Event,
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
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Session {
    /// Joins and starts the compute threads.
    pub(crate) async fn join(
        settings: &net::WorkerSettings,
        pass: &net::WorkerPass,
        sandbox: &Arc<Sandbox>,
    ) -> Result<Self, ConnectError> {
        let home = Home::default();
        let link = net::join(settings, pass, Arc::new(home.clone())).await?;
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
        let core = Arc::new(Core::new(settings.slots, name.clone(), settings.memory, printed, Box::new(uplink)));
        // It is empty: this is the only place that fills it.
        let _ = home.0.set(Arc::downgrade(&core));
        let mut session = Self { link, core, left, threads: Vec::new() };
        for slot in 0..settings.slots {
            match slots::start(&session.core, sandbox, slot, &name) {
                Ok(thread) => session.threads.push(thread),
                Err(error) => {
                    session.core.close();
                    return Err(ConnectError::Start { what: "a compute thread".into(), reason: error.to_string() });
                }
            }
        }
        Ok(session)
    }

    /// The worker's number.
    pub(crate) fn id(&self) -> WorkerId {
        self.link.id
    }

    /// Serves until the registration ends.
    pub(crate) async fn serve(mut self, wishes: &mut watch::Receiver<Wish>) -> Departure {
        let departure = self.converse(wishes).await;
        self.core.close();
        let threads = std::mem::take(&mut self.threads);
        // They end within the time that the sandbox takes to stop a task.
        let ended =
            tokio::task::spawn_blocking(move || threads.into_iter().map(std::thread::JoinHandle::join).all(|end| end.is_ok()));
        if !ended.await.unwrap_or(false) {
            tracing::error!("a compute thread panicked");
        }
        tracing::info!(id = %self.id(), finished = self.core.finished(), "left");
        if departure == Departure::Left && *wishes.borrow() != Wish::Die {
            self.link.close().await;
        }
        departure
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

/// Where what comes from the network finds the core; empty until there is one, and once it is gone.
#[derive(Clone, Default)]
struct Home(Arc<OnceLock<Weak<Core>>>);

impl Home {
    fn core(&self) -> Option<Arc<Core>> {
        self.0.get()?.upgrade()
    }

    fn tell(&self, event: Event) {
        if let Some(core) = self.core() {
            core.tell([event]);
        }
    }
}

impl BlobStore for Home {
    fn read(&self, key: Key) -> Option<(Bytes, Hash)> {
        self.core()?.held(key)
    }

    fn reserve(&self, len: u64) -> Result<Reserved, String> {
        self.core().ok_or("this worker is not ready")?.reserve(len)
    }

    fn write(&self, key: Key, bytes: Bytes, hash: Hash) -> Result<(), String> {
        self.core().ok_or("this worker is not ready")?.write(key, bytes, hash);
        Ok(())
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
                refused(error.to_string())
            })?
        }
    };
    if let Some(core) = home.core() {
        core.module_ready(hash, module);
    }
    Ok(())
}
