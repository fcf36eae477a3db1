//! What may end the command: signals, its parent's end, or the end of its work. Must not know: what it does.

use std::{
    io::{self, Read},
    sync::mpsc::Sender,
    thread,
};

use quicsand::ConnectError;
use tokio::runtime::Builder;

/// Why the command should come to its end.
#[derive(Debug)]
pub(super) enum Ending {
    /// SIGINT or SIGTERM. After the first, another one ends the process at once.
    Signal,
    /// The parent is gone.
    Orphaned,
    /// The work has ended by itself.
    Done(Result<(), ConnectError>),
}

/// Exit code after a second signal, as of a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Tells the first signal; exits at the second.
pub(super) fn watch_signals(endings: Sender<Ending>) -> Result<(), ConnectError> {
    let failed = |error: io::Error| ConnectError::Start { what: "waiting for signals".into(), reason: error.to_string() };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new().map_err(failed)?
    };
    let watch = move || {
        runtime.block_on(async {
            signals.next().await;
            // Nobody listens: the command is about to end anyway.
            let _ = endings.send(Ending::Signal);
            signals.next().await;
            tracing::warn!("stopped by a second signal");
            std::process::exit(INTERRUPTED);
        });
    };
    thread::Builder::new().name("quicsand-signals".into()).spawn(watch).map(drop).map_err(failed)
}

/// Tells when standard input ends.
pub(super) fn watch_parent(endings: Sender<Ending>) -> Result<(), ConnectError> {
    let watch = move || {
        let mut buffer = [0; 64];
        while io::stdin().read(&mut buffer).is_ok_and(|len| len > 0) {}
        let _ = endings.send(Ending::Orphaned);
    };
    let failed = |error: io::Error| ConnectError::Start { what: "waiting for the parent".into(), reason: error.to_string() };
    thread::Builder::new().name("quicsand-parent".into()).spawn(watch).map(drop).map_err(failed)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
