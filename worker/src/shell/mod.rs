//! A worker of this process: its threads, its connection, its sandbox. Owns the shell around the state machine. Must not know: how
//! work is placed, or what a module is made of.
//!
//! # Threads
//! One with a small runtime for the link, fetches and heartbeats; one for spilled values; one compute thread a slot; modules compile in
//! child processes, for which the runtime's blocking threads wait; others of those put large values together as they arrive. A run goes from the link's thread to a compute thread by one wake-up, and its results from there to the link by one.

mod core;
mod disk;
mod labels;
pub(crate) mod machine;
mod session;
mod settings;
mod slots;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use quicsand::{ConnectError, ids::WorkerId, net::worker as net};
use tokio::{runtime::Builder, sync::watch, time::timeout};

use crate::sandbox::Sandbox;
use session::{Departure, Session, Stock, Wish};
use settings::Holding;
pub use settings::WorkerSettings;

/// First pause before joining again.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A worker of this process. Dropping it stops it.
#[derive(Debug)]
pub struct WorkerServer {
    id: WorkerId,
    incarnation: u64,
    wishes: watch::Sender<Wish>,
    thread: Mutex<Option<JoinHandle<Result<(), ConnectError>>>>,
}

impl WorkerServer {
    /// Joins the fleet and starts to work. Blocks until the scheduler has let it in; later losses of the connection are followed by
    /// joining again, for as long as it takes.
    ///
    /// # Errors
    /// When the fleet cannot be joined, when sandbox, threads or socket cannot be had, or when a label has the name of one that every
    /// worker has.
    pub fn start(settings: &WorkerSettings) -> Result<Self, ConnectError> {
        let failed = |what: &str, reason: String| ConnectError::Start { what: what.to_owned(), reason };
        let net = settings.for_net()?;
        let (incarnation, keep) = (net.incarnation, settings.keep);
        if let Some(asked) = settings.caps.task_memory
            && asked > settings.task_memory()
        {
            tracing::warn!(%asked, in_force = %settings.task_memory(), "a slot's part of the memory is smaller than --task-memory");
        }
        let holding = settings.holding();
        let sandbox = Sandbox::new(settings.for_sandbox()).map_err(|error| failed("the sandbox", error.to_string()))?;
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| failed("a runtime", error.to_string()))?;
        let (wishes, mut wished) = watch::channel(Wish::Serve);
        // Not a tokio channel: whoever starts a worker may be inside a runtime, which must not block on those.
        let (joined, first) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("quicsand-worker".into())
            .spawn(move || {
                let result = runtime.block_on(work(&net, keep, &Arc::new(sandbox), &holding, &mut wished, joined));
                // What still compiles is not worth waiting for.
                runtime.shutdown_background();
                result
            })
            .map_err(|error| failed("the worker's thread", error.to_string()))?;
        match first.recv() {
            Ok(id) => Ok(Self { id, incarnation, wishes, thread: Mutex::new(Some(thread)) }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err(failed("the worker", "its thread ended".to_owned())),
            },
        }
    }

    /// The number that it first got.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// The number that names its process to the scheduler.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Has it finish what runs, give the rest back and leave; [`WorkerServer::wait`] tells when it has.
    pub fn drain(&self) {
        self.wishes.send_if_modified(|wish| {
            let serving = *wish == Wish::Serve;
            if serving {
                *wish = Wish::Drain;
            }
            serving
        });
    }

    /// Blocks until it has left.
    ///
    /// # Errors
    /// When it did not leave of its own: the scheduler refused it, or it could not join again.
    pub fn wait(&self) -> Result<(), ConnectError> {
        let thread = self.thread.lock().take();
        thread.map_or(Ok(()), |thread| {
            let panicked = |_| ConnectError::Start { what: "the worker".into(), reason: "its thread panicked".into() };
            thread.join().map_err(panicked)?
        })
    }

    /// Stops every task, leaves, and waits until all threads have ended.
    pub fn stop(&self) {
        self.halt();
        if let Err(error) = self.wait() {
            tracing::warn!(%error, "a worker had ended before it was stopped");
        }
    }

    /// As [`WorkerServer::stop`], without waiting.
    pub(crate) fn halt(&self) {
        self.wishes.send_replace(Wish::Stop);
    }

    /// Vanishes as if the process had died: the scheduler is not told, and finds out by itself.
    pub(crate) fn die(self) {
        self.wishes.send_replace(Wish::Die);
        if let Err(error) = self.wait() {
            tracing::warn!(%error, "a worker had ended before it was killed");
        }
    }
}

impl Drop for WorkerServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Joins, serves, and joins again when the connection was lost, with what was held then if that is not longer than `keep` ago.
async fn work(
    settings: &net::WorkerSettings,
    keep: Duration,
    sandbox: &Arc<Sandbox>,
    holding: &Holding,
    wishes: &mut watch::Receiver<Wish>,
    joined: mpsc::SyncSender<WorkerId>,
) -> Result<(), ConnectError> {
    let pass = net::WorkerPass::new(settings)?;
    let mut stock = Stock::new(holding)?;
    let mut session = Session::join(settings, &pass, sandbox, holding, &mut stock).await?;
    // Nobody to tell: the worker was dropped, which its wishes say too.
    let _ = joined.send(session.id());
    loop {
        tracing::info!(id = %session.id(), scheduler = settings.address, slots = settings.slots, "joined");
        let departure;
        (departure, stock.kept) = session.serve(wishes).await;
        match departure {
            Departure::Left => return Ok(()),
            Departure::Expelled(reason) => return Err(ConnectError::Refused { address: settings.address.clone(), reason }),
            Departure::Lost(reason) => tracing::warn!(reason, "the connection to the scheduler was lost, joining again"),
        }
        match rejoin(settings, keep, &pass, sandbox, holding, wishes, &mut stock).await? {
            Some(again) => session = again,
            None => return Ok(()),
        }
    }
}

/// Tries to join with growing pauses; `None` when the worker is not wanted any more.
async fn rejoin(
    settings: &net::WorkerSettings,
    keep: Duration,
    pass: &net::WorkerPass,
    sandbox: &Arc<Sandbox>,
    holding: &Holding,
    wishes: &mut watch::Receiver<Wish>,
    stock: &mut Stock,
) -> Result<Option<Session>, ConnectError> {
    let lost = Instant::now();
    let mut longest = PAUSE;
    loop {
        // Not all workers at once, when it is the scheduler that was away.
        let pause = longest.mul_f64(0.5 + (random() % 512) as f64 / 1024.0);
        let unwanted = wishes.wait_for(|&wish| wish != Wish::Serve);
        if timeout(pause, unwanted).await.is_ok() {
            return Ok(None);
        }
        if stock.kept.count() > 0 && lost.elapsed() > keep {
            tracing::warn!(
                values = stock.kept.count(),
                "the scheduler was out of reach for too long: what was kept for it is forgotten"
            );
            *stock = Stock::new(holding)?;
        }
        match Session::join(settings, pass, sandbox, holding, stock).await {
            Ok(session) => return Ok(Some(session)),
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => tracing::warn!(%error, "joining again failed"),
        }
        longest = (longest * 2).min(LONGEST_PAUSE);
    }
}

/// A number that other processes, and other calls, are unlikely to get.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Whether trying again would end as badly.
fn is_final(error: &ConnectError) -> bool {
    use ConnectError::{Certificate, CertificateRefused, Revoked, Token, TokenRefused, Version};
    matches!(
        error,
        Token { .. } | TokenRefused { .. } | Revoked { .. } | Version { .. } | Certificate { .. } | CertificateRefused { .. }
    )
}
