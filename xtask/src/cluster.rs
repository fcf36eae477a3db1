//! A scheduler and workers as processes of the `quicsand` command. Owns: their lives.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// A running cluster; its processes end with it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The scheduler's `HOST:PORT`.
    pub(crate) address: String,
    /// A token of the role client.
    pub(crate) token: String,
    // Workers end before their scheduler.
    workers: Vec<Process>,
    _scheduler: Process,
}

/// How a worker is started.
#[derive(Clone, Debug)]
pub(crate) struct WorkerPlan {
    /// What people see.
    pub(crate) name: String,
    /// The `quicsand` command, with an emulator before it where it needs one.
    pub(crate) command: Vec<OsString>,
    /// More arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Where its log goes; to standard error, and only warnings, without one.
    pub(crate) log: Option<PathBuf>,
}

impl WorkerPlan {
    /// A worker of this machine.
    pub(crate) fn new(name: impl Into<String>, quicsand: &Path) -> Self {
        Self { name: name.into(), command: vec![quicsand.into()], arguments: Vec::new(), log: None }
    }
}

impl Cluster {
    /// Starts a scheduler on a free port of this machine, and those workers with one slot each.
    pub(crate) fn start(quicsand: &Path, workers: &[WorkerPlan]) -> Result<Self> {
        let mut command = Command::new(quicsand);
        command.args(["scheduler", "--ephemeral", "--listen", "127.0.0.1:0", "--log-level", "warn"]);
        let (scheduler, joining) = Process::start(&mut command)?;
        let text = |name| {
            let value = joining.get(name).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| anyhow!("the scheduler announced no `{name}`"))
        };
        let (address, token) = (text("address")?, text("client_token")?);
        let worker_token = text("worker_token")?;
        let workers = workers.iter().map(|plan| {
            let [program, before @ ..] = &plan.command[..] else { bail!("the worker {} has no command", plan.name) };
            let mut command = Command::new(program);
            command.args(before).args(["worker", &address, "--slots", "1", "--name", &plan.name]).args(&plan.arguments);
            match &plan.log {
                Some(path) => {
                    let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
                    command.args(["--log-level", "info"]).stderr(file)
                }
                None => command.args(["--log-level", "warn"]),
            };
            Process::start(command.env("QUICSAND_TOKEN", &worker_token)).map(|(worker, _)| worker)
        });
        Ok(Self { workers: workers.collect::<Result<_>>()?, _scheduler: scheduler, address, token })
    }

    /// Has the workers leave in good order, and waits until they have.
    pub(crate) fn dismiss_workers(&mut self) -> Result<()> {
        for mut worker in self.workers.drain(..) {
            worker.0.stdin = None;
            worker.0.wait().context("a worker cannot be waited for")?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Starts it and waits for its announcement, a line of JSON.
    fn start(command: &mut Command) -> Result<(Self, Value)> {
        let command = command.args(["--announce", "--with-parent"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = Self(child.context("the `quicsand` command could not be started")?);
        let stdout = process.0.stdout.take().context("its standard output is not to be had")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let announcement = serde_json::from_str(&line).with_context(|| format!("`quicsand` announced itself as {line:?}"))?;
        Ok((process, announcement))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
