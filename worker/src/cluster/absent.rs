//! In a guest there are no clusters.

use quicsand::{ConnectError, wire::Role};

use super::{Builder, WorkerKind};

/// Cannot be.
#[derive(Debug)]
pub(super) enum Cluster {}

impl Cluster {
    pub(super) fn start(_: &Builder) -> Result<Self, ConnectError> {
        Err(ConnectError::Unsupported {
            what: "a local cluster",
            reason: "this is WebAssembly, which has neither threads nor sockets",
        })
    }

    pub(super) fn address(&self) -> &str {
        match *self {}
    }

    pub(super) fn token(&self, _: Role) -> &str {
        match *self {}
    }

    pub(super) fn add_workers(&mut self, _: &WorkerKind) -> Result<(), ConnectError> {
        match *self {}
    }

    pub(super) fn kill_worker(&mut self, _: usize) {
        match *self {}
    }
}
