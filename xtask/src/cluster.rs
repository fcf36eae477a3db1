//! A scheduler and workers as processes of the `quicsand` command. Owns: their lives.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

/// A running cluster; its processes end with it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The scheduler's `HOST:PORT`.
    pub(crate) address: String,
    /// A token of the role client.
    pub(crate) token: String,
    // Workers end before their scheduler.
    _workers: Vec<Process>,
    _scheduler: Process,
}

impl Cluster {
    /// Starts a scheduler on a free port of this machine and `workers` workers of one slot each.
    pub(crate) fn start(quicsand: &Path, workers: usize) -> Result<Self> {
        let (scheduler, joining) =
            Process::start(Command::new(quicsand).args(["scheduler", "--ephemeral", "--listen", "127.0.0.1:0"]))?;
        let text = |name| {
            let value = joining.get(name).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| anyhow!("the scheduler announced no `{name}`"))
        };
        let (address, token) = (text("address")?, text("client_token")?);
        let worker_token = text("worker_token")?;
        let workers = (0..workers).map(|index| {
            let name = format!("demo-{index}");
            let mut command = Command::new(quicsand);
            command.args(["worker", &address, "--slots", "1", "--name", &name]).env("QUICSAND_TOKEN", &worker_token);
            Process::start(&mut command).map(|(worker, _)| worker)
        });
        Ok(Self { _workers: workers.collect::<Result<_>>()?, _scheduler: scheduler, address, token })
    }
}

#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Starts it and waits for its announcement, a line of JSON.
    fn start(command: &mut Command) -> Result<(Self, Value)> {
        let command = command.args(["--announce", "--with-parent", "--log-level", "warn"]);
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
