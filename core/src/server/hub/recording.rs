//! The hub and its journal: taking up where it ends, waiting for it, and ending when it fails. Must not know: how it is written, and what
//! its facts mean.

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;

use super::{Held, Hub};
use crate::{
    ConnectError,
    ids::{Hash, Key},
    net::Reserved,
    scheduler::{ClientFact, Event},
    server::{
        journal::{Journal, Large, Store, Written},
        sessions::Session,
    },
};

impl Hub {
    /// Takes up where the journal ends, and goes on with it.
    pub(in crate::server) fn go_on(
        self: &Arc<Self>,
        store: Store,
        clients: Vec<ClientFact>,
        modules: Vec<(Hash, Option<Bytes>)>,
        data: Vec<(Key, Bytes)>,
    ) -> io::Result<()> {
        let first = store.numbers().start;
        let hub = Arc::downgrade(self);
        let journal = Journal::start(store, move |written| {
            let Some(hub) = hub.upgrade() else { return };
            match written {
                Written::Records(records) => hub.recorded(records),
                Written::Failed(fault) => hub.fail(fault.to_string()),
            }
        })?;
        for (hash, bytes) in modules {
            self.modules.announce(hash);
            if let Some(bytes) = bytes
                && let Some(room) = self.modules.room.reserve(bytes.len() as u64, 0)
            {
                // It has just been announced.
                let _ = self.modules.put(hash, bytes, room);
            }
        }
        let mut state = self.state.lock();
        state.seated = first;
        clients.into_iter().for_each(|client| state.sessions.open(client.client, Session::restored(client)));
        let mut events = vec![Event::Tick];
        for (key, bytes) in data {
            match self.room.reserve(bytes.len() as u64, 0) {
                Some(room) => {
                    let (len, hash) = (bytes.len() as u64, Hash::of(&bytes));
                    state.held.insert(key, Held { bytes, hash, _room: room });
                    events.push(Event::Held { key, len, hash });
                }
                None => tracing::warn!(%key, "there is no room any more for data that the journal has"),
            }
        }
        // It was empty.
        let _ = self.journal.set(journal);
        self.handle(state, events);
        Ok(())
    }

    /// Waits until the journal has room for what peers may cause.
    pub(in crate::server) async fn room_to_record(&self) {
        if let Some(journal) = self.journal.get() {
            journal.room().await;
        }
    }

    /// Waits until all that has happened so far is in the journal, if there is one.
    pub(in crate::server) async fn flushed(&self) {
        if let Some(journal) = self.journal.get() {
            // If it has failed, the scheduler is about to end.
            let _ = journal.flushed().await;
        }
    }

    /// So many records are in the journal.
    fn recorded(&self, records: u64) {
        let mut state = self.state.lock();
        let mut last = None;
        for client in state.sessions.recorded(records) {
            state.acknowledge(client, true, &mut last);
        }
        if let Some(last) = last {
            last.flush();
        }
        self.handle(state, [Event::Recorded { records }]);
    }

    /// Takes an announced module.
    pub(in crate::server) fn put_module(&self, hash: Hash, bytes: Bytes, room: Reserved) -> Result<(), String> {
        self.modules.put(hash, bytes.clone(), room)?;
        if let Some(journal) = self.journal.get() {
            journal.keep(Large::Module(hash), bytes);
        }
        Ok(())
    }

    /// Lets nothing happen any more, and has the journal written to its end: whoever leaves after this comes back to the next scheduler.
    pub(in crate::server) fn close(&self) {
        self.state.lock().is_over = true;
        if let Some(journal) = self.journal.get() {
            journal.close();
        }
    }

    /// The journal cannot be written: going on would promise what cannot be kept.
    fn fail(&self, reason: String) {
        tracing::error!(reason, "the journal failed, the scheduler ends");
        let mut state = self.state.lock();
        state.is_over = true;
        let error = self.journal_error(reason.clone());
        state.failure = Some(reason);
        let told = state.on_failure.take();
        drop(state);
        if let Some(tell) = told {
            tell(error);
        }
        self.failed.notify_one();
    }

    /// Has `tell` called when the journal fails.
    pub(in crate::server) fn on_failure(&self, tell: impl FnOnce(ConnectError) + Send + 'static) {
        let mut state = self.state.lock();
        match state.failure.clone() {
            Some(reason) => {
                drop(state);
                tell(self.journal_error(reason));
            }
            None => state.on_failure = Some(Box::new(tell)),
        }
    }

    /// Waits until the journal has failed.
    pub(in crate::server) async fn failed(&self) {
        self.failed.notified().await;
    }

    fn journal_error(&self, reason: String) -> ConnectError {
        let directory = self.journal_directory.as_deref().unwrap_or(Path::new(""));
        ConnectError::Journal { directory: directory.display().to_string(), reason }
    }
}
