//! The parts of a local cluster, in this process or as processes.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use quicsand::{
    ConnectError,
    net::Ca,
    server::{SchedulerServer, ServerSettings},
    wire::Role,
};

use super::{
    Builder, WorkerKind,
    command::{self, Process},
};
use crate::{
    command::{SchedulerAnnouncement, WorkerAnnouncement, default_cache},
    shell::{WorkerServer, WorkerSettings, machine},
};

/// A running cluster. Fields end in their order: workers first, so that none of them looks for a lost scheduler.
#[derive(Debug)]
pub(super) struct Cluster {
    workers: Vec<Option<WorkerPart>>,
    _scheduler: SchedulerPart,
    joining: SchedulerAnnouncement,
    /// The command, if the parts are processes of it.
    command: Option<PathBuf>,
    /// Of a worker of which nothing else is said.
    slots: u32,
    /// Of each worker.
    memory: u64,
}

#[derive(Debug)]
enum SchedulerPart {
    Here { _server: SchedulerServer },
    Process { _process: Process },
}

#[derive(Debug)]
enum WorkerPart {
    Here(WorkerServer),
    Process { _process: Process },
}

impl Cluster {
    pub(super) fn start(builder: &Builder) -> Result<Self, ConnectError> {
        let plain = builder.workers.unwrap_or(usize::from(builder.kinds.is_empty()));
        let kinds = || [WorkerKind::new(plain)].into_iter().chain(builder.kinds.iter().cloned());
        let workers: usize = kinds().map(|kind| kind.count).sum();
        let memory = builder.memory.unwrap_or_else(|| machine::memory() / workers.max(1) as u64);
        let command = if builder.processes { Some(command::find(builder.command.as_deref())?) } else { None };
        let (scheduler, joining) = match &command {
            Some(command) => {
                let words = ["scheduler", "--listen", "127.0.0.1:0"].map(OsStr::new);
                let (process, joining) = Process::start(command, &words, &[])?;
                (SchedulerPart::Process { _process: process }, joining)
            }
            None => {
                let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let server = SchedulerServer::start(ServerSettings::new(listen, Ca::in_memory()?))?;
                let joining = SchedulerAnnouncement::of(&server);
                (SchedulerPart::Here { _server: server }, joining)
            }
        };
        let workers = Vec::with_capacity(workers);
        let mut cluster = Self { workers, _scheduler: scheduler, joining, command, slots: builder.slots, memory };
        for kind in kinds() {
            cluster.add_workers(&kind)?;
        }
        Ok(cluster)
    }

    pub(super) fn add_workers(&mut self, kind: &WorkerKind) -> Result<(), ConnectError> {
        for _ in 0..kind.count {
            let name = format!("local-{}", self.workers.len());
            let slots = kind.slots.unwrap_or(self.slots);
            let worker = match &self.command {
                Some(command) => self.start_process(command, &name, slots, kind)?,
                None => self.start_here(name, slots, kind)?,
            };
            self.workers.push(Some(worker));
        }
        Ok(())
    }

    fn start_here(&self, name: String, slots: u32, kind: &WorkerKind) -> Result<WorkerPart, ConnectError> {
        let settings = WorkerSettings {
            name: Some(name),
            slots: Some(slots),
            memory: Some(self.memory),
            labels: kind.labels.clone(),
            resources: kind.resources.clone(),
            cache: default_cache(),
            ..WorkerSettings::new(self.address(), self.token(Role::Worker))
        };
        WorkerServer::start(&settings).map(WorkerPart::Here)
    }

    fn start_process(&self, command: &Path, name: &str, slots: u32, kind: &WorkerKind) -> Result<WorkerPart, ConnectError> {
        let (slots, memory) = (slots.to_string(), self.memory.to_string());
        let mut words = vec!["worker", self.address(), "--slots", &slots, "--memory", &memory, "--name", name];
        let labels: Vec<_> = kind.labels.iter().map(|(name, value)| format!("--label={name}={value}")).collect();
        let resources: Vec<_> = kind.resources.iter().map(|(name, amount)| format!("--resource={name}={amount}")).collect();
        words.extend(labels.iter().chain(&resources).map(String::as_str));
        let words: Vec<_> = words.into_iter().map(OsStr::new).collect();
        let token = [("QUICSAND_TOKEN", self.token(Role::Worker))];
        let (process, _): (_, WorkerAnnouncement) = Process::start(command, &words, &token)?;
        Ok(WorkerPart::Process { _process: process })
    }

    pub(super) fn address(&self) -> &str {
        &self.joining.address
    }

    pub(super) fn token(&self, role: Role) -> &str {
        match role {
            Role::Client => &self.joining.client_token,
            Role::Worker => &self.joining.worker_token,
        }
    }

    pub(super) fn kill_worker(&mut self, index: usize) {
        match self.workers.get_mut(index).and_then(Option::take) {
            Some(WorkerPart::Here(server)) => server.die(),
            // Dropping a process kills it.
            Some(WorkerPart::Process { .. }) | None => {}
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once: each takes a moment to stop what it runs.
        for worker in self.workers.iter().flatten() {
            if let WorkerPart::Here(server) = worker {
                server.halt();
            }
        }
    }
}
