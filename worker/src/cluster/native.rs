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
    command::{self, Process, Starting},
};
use crate::{
    command::{FailureSettings, Layer, SchedulerAnnouncement, WorkerAnnouncement, default_cache, settings_of},
    sandbox::Compiler,
    shell::{WorkerServer, WorkerSettings, machine},
};

/// A running cluster. Fields end in their order: workers first, so that none of them looks for a lost scheduler.
#[derive(Debug)]
pub(super) struct Cluster {
    workers: Vec<Option<WorkerPart>>,
    scheduler: SchedulerPart,
    joining: SchedulerAnnouncement,
    /// The command, if the parts are processes of it.
    command: Option<PathBuf>,
    /// Of workers of this process: by the command, if it is there.
    compiler: Compiler,
    /// Of a worker of which nothing else is said.
    slots: u32,
    /// Of each worker.
    memory: u64,
    /// Further settings of each worker.
    settings: Vec<(String, String)>,
}

#[derive(Debug)]
enum SchedulerPart {
    Here { server: SchedulerServer },
    Process { _process: Process },
}

#[derive(Debug)]
enum WorkerPart {
    Here(WorkerServer),
    Process { _process: Process },
}

impl Cluster {
    pub(super) fn start(builder: &Builder) -> Result<Self, ConnectError> {
        let failures = FailureSettings::of(&builder.scheduler)?;
        let plain = builder.workers.unwrap_or(usize::from(builder.kinds.is_empty()));
        let kinds = || [WorkerKind::new(plain)].into_iter().chain(builder.kinds.iter().cloned());
        let workers: usize = kinds().map(|kind| kind.count).sum();
        let memory = builder.memory.unwrap_or_else(|| machine::memory() / workers.max(1) as u64);
        let command = if builder.processes { Some(command::find(builder.command.as_deref())?) } else { None };
        let (scheduler, joining) = match &command {
            Some(command) => {
                let flags: Vec<_> = builder.scheduler.iter().map(|(name, value)| format!("--{name}={value}")).collect();
                let words = ["scheduler", "--ephemeral", "--listen", "127.0.0.1:0"].into_iter();
                let words: Vec<_> = words.chain(flags.iter().map(String::as_str)).map(OsStr::new).collect();
                let (process, joining) = Process::start(command, &words, &[])?.announced()?;
                (SchedulerPart::Process { _process: process }, joining)
            }
            None => {
                let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let mut settings = ServerSettings::new(listen, Ca::in_memory()?);
                failures.apply(&mut settings);
                let server = SchedulerServer::start(settings)?;
                let joining = SchedulerAnnouncement::of(&server);
                (SchedulerPart::Here { server }, joining)
            }
        };
        let workers = Vec::with_capacity(workers);
        let settings = builder.settings.clone();
        let compiler = command::find(builder.command.as_deref()).map_or(Compiler::Here, Compiler::Command);
        let slots = builder.slots;
        let mut cluster = Self { workers, scheduler, joining, command, compiler, slots, memory, settings };
        for kind in kinds() {
            cluster.add_workers(&kind)?;
        }
        Ok(cluster)
    }

    pub(super) fn add_workers(&mut self, kind: &WorkerKind) -> Result<(), ConnectError> {
        let next = self.workers.len();
        let settings = (next..next + kind.count).map(|index| self.worker_settings(&format!("local-{index}"), kind));
        let workers: Vec<_> = match &self.command {
            Some(command) => {
                // All at once: one has the processor while another waits.
                let starting = settings.map(|settings| self.start_process(command, settings)).collect::<Result<Vec<_>, _>>()?;
                let joined = |starting: Starting| {
                    let (process, _): (_, WorkerAnnouncement) = starting.announced()?;
                    Ok(WorkerPart::Process { _process: process })
                };
                starting.into_iter().map(joined).collect::<Result<_, _>>()?
            }
            None => settings.map(|settings| self.start_here(settings)).collect::<Result<_, _>>()?,
        };
        self.workers.extend(workers.into_iter().map(Some));
        Ok(())
    }

    fn start_here(&self, settings: Vec<(String, String)>) -> Result<WorkerPart, ConnectError> {
        let address = ("scheduler".to_owned(), self.address().to_owned());
        let settings = settings_of(Layer::program(std::iter::once(address).chain(settings)))?;
        let settings = WorkerSettings {
            cache: settings.cache.clone().or_else(default_cache),
            compiler: self.compiler.clone(),
            token: Some(self.token(Role::Worker).to_owned()),
            ..settings
        };
        WorkerServer::start(&settings).map(WorkerPart::Here)
    }

    fn start_process(&self, command: &Path, settings: Vec<(String, String)>) -> Result<Starting, ConnectError> {
        let flags: Vec<_> = settings.into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
        let words = ["worker", self.address(), "--no-config"].into_iter().chain(flags.iter().map(String::as_str));
        let words: Vec<_> = words.map(OsStr::new).collect();
        let token = [("QUICSAND_TOKEN", self.token(Role::Worker))];
        Process::start(command, &words, &token)
    }

    /// What a worker is to be, by the names of its settings.
    fn worker_settings(&self, name: &str, kind: &WorkerKind) -> Vec<(String, String)> {
        let slots = kind.slots.unwrap_or(self.slots).max(1);
        let own = [("name", name.to_owned()), ("slots", slots.to_string()), ("memory", self.memory.max(1).to_string())];
        let labels = kind.labels.iter().map(|(name, value)| ("label", format!("{name}={value}")));
        let resources = kind.resources.iter().map(|(name, amount)| ("resource", format!("{name}={amount}")));
        let said = own.into_iter().chain(labels).chain(resources).map(|(name, value)| (name.to_owned(), value));
        said.chain(self.settings.iter().cloned()).collect()
    }

    pub(super) fn address(&self) -> &str {
        &self.joining.address
    }

    pub(super) fn token(&self, role: Role) -> &str {
        match role {
            Role::Client => &self.joining.client_token,
            Role::Worker => &self.joining.worker_token,
            Role::Operator => &self.joining.operator_token,
        }
    }

    pub(super) fn kill_worker(&mut self, index: usize) {
        match self.workers.get_mut(index).and_then(Option::take) {
            Some(WorkerPart::Here(worker)) => {
                let incarnation = worker.incarnation();
                worker.die();
                if let SchedulerPart::Here { server } = &self.scheduler {
                    server.worker_died(incarnation);
                }
            }
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
