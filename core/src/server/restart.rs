//! A scheduler from its journal: the machine as it was, and what the shell had. Must not know: peers.

use std::path::Path;

use bytes::Bytes;

use super::journal::{JournalFault, Large, Store};
use crate::{
    ids::{Hash, Key},
    scheduler::{Config, Scheduler},
};

/// What a journal had.
pub(super) struct Restart {
    pub(super) machine: Scheduler,
    pub(super) store: Store,
    /// Modules of the clients that are expected back, one a client, where they are there.
    pub(super) modules: Vec<(Hash, Option<Bytes>)>,
    /// Clients' data that no worker took.
    pub(super) data: Vec<(Key, Bytes)>,
}

impl Restart {
    /// Opens the journal in this directory, or begins one, for the cluster with this fingerprint.
    pub(super) fn from(directory: &Path, cluster: Hash, config: &Config) -> Result<Self, JournalFault> {
        let store = Store::open(directory, cluster.0)?;
        let config = Config { journal: true, ..config.clone() };
        let machine = store.read(|facts| Scheduler::restore(config, store.starts(), facts))?;
        let files = store.list()?;
        let mut modules = Vec::new();
        for client in machine.clients() {
            let is_there = files.contains(&Large::Module(client.module));
            let bytes = is_there.then(|| store.read_file(Large::Module(client.module))).transpose()?;
            modules.push((client.module, bytes.filter(|bytes| Hash::of(bytes) == client.module)));
        }
        let mut data = Vec::new();
        for large in files {
            match large {
                Large::Data(key) => data.push((key, store.read_file(large)?)),
                Large::Module(hash) if modules.iter().any(|(module, _)| *module == hash) => {}
                // Of clients that left.
                Large::Module(_) => store.remove_file(large)?,
            }
        }
        Ok(Self { machine, store, modules, data })
    }
}
