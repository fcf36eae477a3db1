//! A thread with a tokio runtime of its own, so that neither the user nor his runtime has to care. Must not know: what runs there.

use std::{
    future::Future,
    io,
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
};

/// A thread that runs one future to its end, and everything that this spawned, which ends with it.
pub(crate) struct Background {
    handle: Handle,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Tells the future that it should come to its end.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits for the word.
    pub(crate) async fn requested(&mut self) {
        // An error means that the other end is gone, which is as good as its word.
        let _ = self.0.wait_for(|&stop| stop).await;
    }
}

impl Background {
    /// Starts the thread. `threads` more share the work where it is over 1.
    pub(crate) fn start<F: Future<Output = ()>>(
        name: &str,
        threads: usize,
        main: impl FnOnce(Stop) -> F + Send + 'static,
    ) -> io::Result<Self> {
        let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
        if threads > 1 {
            builder.worker_threads(threads).thread_name(format!("{name}-worker"));
        }
        let runtime = builder.enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(main(Stop(stopped))))?;
        Ok(Self { handle, stop, thread: Mutex::new(Some(thread)) })
    }

    /// For spawning onto the thread.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Asks the future to end and waits until the thread has; from that thread itself it only asks. Idempotent.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
            && thread.join().is_err()
        {
            tracing::error!("a network thread panicked");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}
