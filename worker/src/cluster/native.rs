//! The parts of a local cluster, in this process or as processes.

use std::{ffi::OsStr, net::SocketAddr};

use quicsand::{
    ConnectError,
    net::Ca,
    server::{SchedulerServer, ServerSettings},
    wire::Role,
};
use std::net::Ipv4Addr;

use super::{
    Builder,
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
        let memory = builder.memory.unwrap_or_else(|| machine::memory() / builder.workers.max(1) as u64);
        if builder.processes { Self::start_processes(builder, memory) } else { Self::start_here(builder, memory) }
    }

    fn start_here(builder: &Builder, memory: u64) -> Result<Self, ConnectError> {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = SchedulerServer::start(ServerSettings::new(listen, Ca::in_memory()?))?;
        let joining = SchedulerAnnouncement::of(&server);
        let mut cluster = Self { workers: Vec::new(), _scheduler: SchedulerPart::Here { _server: server }, joining };
        for index in 0..builder.workers {
            let settings = WorkerSettings {
                name: Some(format!("local-{index}")),
                slots: Some(builder.slots),
                memory: Some(memory),
                cache: default_cache(),
                ..WorkerSettings::new(cluster.address(), cluster.token(Role::Worker))
            };
            cluster.workers.push(Some(WorkerPart::Here(WorkerServer::start(&settings)?)));
        }
        Ok(cluster)
    }

    fn start_processes(builder: &Builder, memory: u64) -> Result<Self, ConnectError> {
        let command = command::find(builder.command.as_deref())?;
        let words = ["scheduler", "--listen", "127.0.0.1:0"].map(OsStr::new);
        let (process, joining): (_, SchedulerAnnouncement) = Process::start(&command, &words, &[])?;
        let mut cluster = Self { workers: Vec::new(), _scheduler: SchedulerPart::Process { _process: process }, joining };
        let (slots, memory) = (builder.slots.to_string(), memory.to_string());
        for index in 0..builder.workers {
            let name = format!("local-{index}");
            let words = ["worker", cluster.address(), "--slots", &slots, "--memory", &memory, "--name", &name].map(OsStr::new);
            let token = [("QUICSAND_TOKEN", cluster.token(Role::Worker))];
            let (process, _): (_, WorkerAnnouncement) = Process::start(&command, &words, &token)?;
            cluster.workers.push(Some(WorkerPart::Process { _process: process }));
        }
        Ok(cluster)
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
