//! The fleet that is maltreated: a scheduler with a journal and workers, as processes of the `quicsand` command, each worker behind a
//! relay. Owns: processes and their files. Must not know: what runs on them, and when what is done to them.

use std::{
    fs,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use quicsand_tests::{
    processes::{Announced, Process, program},
    relay::Relay,
};
use serde_json::Value;

pub(crate) struct Fleet {
    directory: PathBuf,
    listen: SocketAddr,
    client_token: String,
    worker_token: String,
    has_journal: bool,
    pub(crate) scheduler: Option<Process>,
    pub(crate) workers: Vec<Worker>,
    seed: u64,
}

/// A worker's place: its process comes and goes.
pub(crate) struct Worker {
    name: String,
    pub(crate) relay: Relay,
    pub(crate) process: Option<Process>,
}

impl Fleet {
    /// Starts a scheduler, and places for workers that are still to be started.
    pub(crate) fn start(directory: &Path, workers: usize, seed: u64, has_journal: bool) -> Result<Self> {
        let mut fleet = Self {
            directory: directory.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            client_token: String::new(),
            worker_token: String::new(),
            has_journal,
            scheduler: None,
            workers: Vec::new(),
            seed,
        };
        let announced = fleet.start_scheduler()?;
        let announced = Announced::read(&announced)?;
        fleet.listen = announced.address.parse()?;
        (fleet.client_token, fleet.worker_token) = (announced.client_token, announced.worker_token);
        for number in 0..workers {
            let relay = fleet.relay(number as u64)?;
            fleet.workers.push(Worker { name: format!("w{number}"), relay, process: None });
            fleet.start_worker(number)?;
        }
        Ok(fleet)
    }

    /// A path to the scheduler.
    pub(crate) fn relay(&self, number: u64) -> Result<Relay> {
        Relay::new(self.listen, self.seed.wrapping_add(number)).context("a relay cannot be started")
    }

    pub(crate) fn client_token(&self) -> &str {
        &self.client_token
    }

    /// Starts the scheduler, on the port that it had.
    pub(crate) fn start_scheduler(&mut self) -> Result<Value> {
        let mut command = Command::new(program("quicsand"));
        command.arg("scheduler").args(["--listen", &self.listen.to_string()]);
        command.arg("--state").arg(self.directory.join("state")).args(["--max-deaths", "1000000", "--log-level", "info"]);
        if self.has_journal {
            command.arg("--journal").arg(self.directory.join("journal"));
        }
        let (process, announced) = Process::start(&mut command, &self.directory.join("scheduler.log"))?;
        self.scheduler = Some(process);
        Ok(announced)
    }

    /// Starts a worker in its place.
    pub(crate) fn start_worker(&mut self, number: usize) -> Result<()> {
        let worker = &mut self.workers[number];
        let mut command = Command::new(program("quicsand"));
        command.arg("worker").arg(worker.relay.address().to_string());
        command.args(["--slots", "1", "--name", &worker.name, "--log-level", "info"]);
        command.arg("--cache").arg(self.directory.join("cache")).env("QUICSAND_STATE", self.directory.join(&worker.name));
        // It announces itself once it has joined.
        let log = self.directory.join(format!("{}.log", worker.name));
        worker.process = Some(Process::spawn(command.env("QUICSAND_TOKEN", &self.worker_token), &log)?);
        Ok(())
    }

    /// Starts workers again that have ended because they found no scheduler when they were started, as whatever starts workers does.
    pub(crate) fn restart_workers(&mut self) -> Result<()> {
        for number in 0..self.workers.len() {
            let worker = &mut self.workers[number];
            let Some(process) = &mut worker.process else { continue };
            let log = self.directory.join(format!("{}.log", worker.name));
            let found_nobody = || {
                fs::read_to_string(log)
                    .is_ok_and(|log| log.lines().last().is_some_and(|last| last.contains("no scheduler answers")))
            };
            if process.has_ended()? && found_nobody() {
                self.start_worker(number)?;
            }
        }
        Ok(())
    }

    /// How things stand, as `quicsand status --json` says it.
    pub(crate) fn status(&self) -> Result<Value> {
        let mut command = Command::new(program("quicsand"));
        command.args(["status", "--json", "--state"]).arg(self.directory.join("state")).stdin(Stdio::null());
        let output = command.output()?;
        ensure!(output.status.success(), "quicsand status: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Bytes of all files of the journal.
    pub(crate) fn journal_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.directory.join("journal")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
    }

    /// Ends everything in good order.
    pub(crate) fn end(&mut self) -> Result<()> {
        for worker in &mut self.workers {
            let process = worker.process.take().with_context(|| format!("{} is not there", worker.name))?;
            process.end().with_context(|| format!("{} does not end well", worker.name))?;
        }
        self.scheduler.take().context("the scheduler is not there")?.end().context("the scheduler does not end well")
    }
}

/// A file in which the story is told.
pub(crate) fn diary(directory: &Path) -> Result<File> {
    Ok(File::create(directory.join("chaos.log"))?)
}
