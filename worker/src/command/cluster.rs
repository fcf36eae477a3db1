//! `quicsand cluster`: a scheduler in this process, workers as processes that end with it and are started again when they die.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use quicsand::{
    ConnectError, Size,
    net::Ca,
    server::{SchedulerServer, ServerSettings},
};
use serde::Serialize;
use tempfile::TempDir;
use tokio::{
    process::Command,
    runtime::Builder,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Child, Failed, Log, SchedulerAnnouncement, failures::FailureSettings, lifetime, operator, say, say_json};
use crate::shell::{machine, random};

/// Workers have joined by then, or something is wrong, which the log says.
const JOINED: Duration = Duration::from_secs(30);
/// A worker that was asked to end is killed after so long.
const GRACE: Duration = Duration::from_secs(5);
/// A worker that died is started again after this pause, and after longer ones if it dies again soon.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// One that lived so long did not die soon.
const STEADY: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_long_help = "\
Runs a scheduler and workers on this machine, in the foreground, until it is interrupted: for development, and for a single machine.
Everything is new each time, and nothing of it is left behind. It prints what a program needs to find the cluster, and how to look on.

Scheduler and workers listen on this machine's loopback address only. Each worker is a process of its own; all end with this one,
whatever ends it. A worker that dies is said in the log and started again after a second, or after up to half a minute if it keeps dying.

Examples:
    quicsand cluster --workers 2
    quicsand cluster --workers 4 --slots 2 --memory 1GiB --log-format json")]
pub(super) struct Cluster {
    /// Number of workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,
    /// Items that each worker runs at a time; by default an equal part of the processors, at least one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: Option<u32>,
    /// Memory that each worker's tasks may use together, like 2GiB; by default an equal part of four fifths of the machine's
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// The scheduler's port; by default any free one
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    #[command(flatten)]
    failures: FailureSettings,
    #[command(flatten)]
    child: Child,
}

/// How to reach the cluster.
#[derive(Debug, Serialize)]
struct ClusterAnnouncement<'a> {
    #[serde(flatten)]
    scheduler: &'a SchedulerAnnouncement,
    /// Where operators' commands find address and token.
    state: &'a str,
}

impl Cluster {
    pub(super) fn run(self, log: &Log) -> Result<(), Failed> {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut settings = ServerSettings::new(listen, Ca::in_memory()?);
        self.failures.apply(&mut settings);
        let server = Arc::new(SchedulerServer::start(settings)?);
        let scheduler = SchedulerAnnouncement::of(&server);
        let state = publish(&scheduler)?;
        let (endings, ended) = mpsc::channel();
        lifetime::watch_signals(endings.clone())?;
        if self.child.with_parent {
            lifetime::watch_parent(endings)?;
        }
        let workers = Workers::start(self.recipe(&scheduler, log)?, Arc::clone(&server))?;
        await_workers(&server, self.workers as usize);
        let directory = state.path().display().to_string();
        if self.child.announce {
            say_json(&ClusterAnnouncement { scheduler: &scheduler, state: &directory });
        } else {
            say(&mut std::io::stdout(), &instructions(&scheduler, &directory));
        }
        // Whatever it is, it is a reason to leave.
        let _ = ended.recv();
        workers.stop();
        server.shutdown();
        Ok(())
    }

    fn recipe(&self, scheduler: &SchedulerAnnouncement, log: &Log) -> Result<Recipe, ConnectError> {
        let slots = self.slots.unwrap_or_else(|| (machine::processors() / self.workers).max(1));
        let memory = self.memory.map_or_else(|| machine::memory() / u64::from(self.workers), |memory| memory.0);
        let mut arguments =
            vec!["worker".to_owned(), scheduler.address.clone(), "--no-config".to_owned(), "--with-parent".to_owned()];
        arguments.extend(["--slots".to_owned(), slots.to_string(), "--memory".to_owned(), memory.to_string()]);
        arguments.extend(log.arguments());
        Ok(Recipe {
            command: std::env::current_exe().map_err(|error| start_failed("a worker", &error))?,
            arguments,
            token: scheduler.worker_token.clone(),
            workers: self.workers,
        })
    }
}

/// A directory like a scheduler's state directory, with what commands of this machine need.
fn publish(scheduler: &SchedulerAnnouncement) -> Result<TempDir, ConnectError> {
    let failed = |error: std::io::Error| start_failed("a directory for the operator's token", &error);
    let directory = tempfile::Builder::new().prefix("quicsand-cluster-").tempdir().map_err(failed)?;
    std::fs::write(directory.path().join(operator::TOKEN_FILE), format!("{}\n", scheduler.operator_token)).map_err(failed)?;
    std::fs::write(directory.path().join(operator::ADDRESS_FILE), format!("{}\n", scheduler.address)).map_err(failed)?;
    Ok(directory)
}

fn await_workers(server: &SchedulerServer, count: usize) {
    let deadline = Instant::now() + JOINED;
    while server.status().workers.len() < count {
        if Instant::now() > deadline {
            return tracing::warn!("not all workers have joined");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn instructions(scheduler: &SchedulerAnnouncement, state: &str) -> String {
    let SchedulerAnnouncement { address, client_token, .. } = scheduler;
    format!(
        "the cluster runs, with its scheduler at {address}; an interrupt ends it\n\nrun programs with\n    export QUICSAND_SCHEDULER={address}\n    \
         export QUICSAND_TOKEN={client_token}\n\nlook on with\n    export QUICSAND_STATE={state}\n    quicsand status\n\n"
    )
}

fn start_failed(what: &str, error: &std::io::Error) -> ConnectError {
    ConnectError::Start { what: what.to_owned(), reason: error.to_string() }
}

/// How the workers are started.
struct Recipe {
    command: PathBuf,
    arguments: Vec<String>,
    token: String,
    workers: u32,
}

/// The workers, and the thread that looks after them.
struct Workers {
    stop: watch::Sender<bool>,
    thread: thread::JoinHandle<()>,
}

impl Workers {
    fn start(recipe: Recipe, server: Arc<SchedulerServer>) -> Result<Self, ConnectError> {
        let failed = |error: std::io::Error| start_failed("the workers' supervisor", &error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let look_after = move || {
            runtime.block_on(async {
                let recipe = Arc::new(recipe);
                let mut workers = JoinSet::new();
                for index in 0..recipe.workers {
                    workers.spawn(keep_running(Arc::clone(&recipe), index, Arc::clone(&server), stopped.clone()));
                }
                while workers.join_next().await.is_some() {}
            });
        };
        let thread = thread::Builder::new().name("quicsand-workers".into()).spawn(look_after).map_err(failed)?;
        Ok(Self { stop, thread })
    }

    /// Ends all workers and waits until they have ended.
    fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the workers' supervisor panicked");
        }
    }
}

/// Starts a worker, again and again as it dies, until all are to stop.
async fn keep_running(recipe: Arc<Recipe>, index: u32, server: Arc<SchedulerServer>, mut stop: watch::Receiver<bool>) {
    let name = format!("local-{index}");
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        let incarnation = random();
        match live(&recipe, &name, incarnation, &mut stop).await {
            Ok(Some(status)) => {
                server.worker_died(incarnation);
                tracing::warn!(worker = name, %status, "a worker died, it is started again");
            }
            Ok(None) => return,
            Err(error) => tracing::error!(worker = name, %error, "a worker cannot be started"),
        }
        if began.elapsed() > STEADY {
            pause = PAUSE;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.wait_for(|&stop| stop) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One life of a worker: how it ended, or `None` if it was to stop.
async fn live(
    recipe: &Recipe,
    name: &str,
    incarnation: u64,
    stop: &mut watch::Receiver<bool>,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let mut command = Command::new(&recipe.command);
    command
        .args(&recipe.arguments)
        .args(["--name", name, "--incarnation", &incarnation.to_string()])
        .env("QUICSAND_TOKEN", &recipe.token);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
    // Its end tells the worker to leave, even if this process is killed. Taken out, since waiting would close it.
    let line = child.stdin.take();
    let died = tokio::select! {
        status = child.wait() => Some(status?),
        _ = stop.wait_for(|&stop| stop) => None,
    };
    if died.is_none() {
        drop(line);
        if timeout(GRACE, child.wait()).await.is_err() {
            tracing::warn!(worker = name, "a worker does not end, it is killed");
            child.kill().await?;
        }
    }
    Ok(died)
}
