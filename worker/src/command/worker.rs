//! `quicsand worker`.

use std::{path::PathBuf, sync::mpsc, thread};

use clap::{Args, Subcommand};
use quicsand::{ConnectError, net::state_directory};
use serde::{Deserialize, Serialize};

use super::{
    Child, Failed,
    config::{self, Flags, Layer, Resolved},
    default_cache,
    lifetime::{self, Ending},
    own_directory,
    revoke::Revoke,
    say, say_json,
};
use crate::{
    sandbox::Compiler,
    shell::{WorkerServer, WorkerSettings},
};

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Worker {
    #[command(subcommand)]
    manage: Option<Manage>,
    #[command(flatten)]
    settings: Flags<Settings>,
    /// A worker's token, which the scheduler or `quicsand token create` printed; not needed where an earlier run has left a certificate
    #[arg(long, env = "QUICSAND_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with settings, in TOML; by default quicsand/worker.toml in the user's configuration directory, if it is there
    #[arg(long, value_name = "FILE", env = "QUICSAND_WORKER_CONFIG")]
    config: Option<PathBuf>,
    /// Use neither a configuration file nor QUICSAND_WORKER_* variables
    #[arg(long)]
    no_config: bool,
    /// Print the settings in force, as a configuration file that says where each came from, and leave
    #[arg(long)]
    print_config: bool,
    /// Names the process to the scheduler, for whoever starts it
    #[arg(long, hide = true)]
    incarnation: Option<u64>,
    #[command(flatten)]
    child: Child,
}

#[derive(Debug, Subcommand)]
enum Manage {
    /// Send a worker away, and have its certificate not accepted any more; its work goes elsewhere
    Revoke(Revoke),
}

/// What flags, variables and the configuration file say.
#[derive(Clone, Debug, Args)]
struct Settings {
    #[command(flatten)]
    worker: WorkerSettings,
    /// A file that has the token; goes before the other ways to give it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Starts a worker in the foreground. The first interrupt lets it finish what runs, give the rest back and leave; a second one ends it at
once. It leaves when others have taken over what only it had. When the connection to the scheduler is lost, it joins again, with the
results that it holds if that is soon enough (--keep).

Every setting can also be a variable, like QUICSAND_WORKER_TASK_MEMORY for --task-memory, with commas between several values, or a
key of the configuration file, like `task-memory = \"512MiB\"` or `label = { zone = \"a\" }`. Flags go before variables, variables
before the file, the file before defaults; --print-config shows what holds. The token is no setting: name a file that has it.

Examples:
    quicsand worker scheduler.example:7447 --token-file /etc/quicsand/token --slots 4 --task-memory 2GiB --timeout 10m
    quicsand worker scheduler.example:7447 --label zone=a --resource gpu=2
    quicsand worker scheduler.example:7447 --allow-dir /srv/genomes=/genomes --env LANG=C
    quicsand worker --config worker.toml --print-config
    quicsand worker revoke 3";

/// That a worker has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerAnnouncement {
    /// Its number.
    pub(crate) worker: u64,
}

impl Worker {
    pub(super) fn run(self) -> Result<(), Failed> {
        match self.manage {
            Some(Manage::Revoke(revoke)) => revoke.run(),
            None => Ok(self.work()?),
        }
    }

    fn work(self) -> Result<(), ConnectError> {
        let resolved = config::resolve::<Settings>(&self.layers()?)?;
        if self.print_config {
            say(&mut std::io::stdout(), &printed(resolved));
            return Ok(());
        }
        let child = self.child;
        let server = WorkerServer::start(&self.settings(resolved.settings()?)?)?;
        let (endings, ended) = mpsc::channel();
        lifetime::watch_signals(endings.clone())?;
        if child.with_parent {
            lifetime::watch_parent(endings.clone())?;
        }
        if child.announce {
            say_json(&WorkerAnnouncement { worker: server.id().0 });
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                // Nobody listens: the command ends.
                let _ = endings.send(Ending::Done(server.wait()));
            });
            loop {
                match ended.recv() {
                    Ok(Ending::Signal) => {
                        tracing::info!(
                            "draining: what runs is finished, the rest is given back, others take over results; a second signal stops at once"
                        );
                        server.drain();
                    }
                    Ok(Ending::Orphaned) | Err(_) => server.halt(),
                    Ok(Ending::Done(result)) => return result,
                }
            }
        })
    }

    /// What was said where, the strongest last.
    fn layers(&self) -> Result<Vec<Layer>, ConnectError> {
        if self.no_config {
            return Ok(vec![self.settings.layer()]);
        }
        let default = || default_config().filter(|path| path.is_file());
        let file = self.config.clone().or_else(default).map(|path| Layer::read(&path)).transpose()?;
        let environment = Layer::environment::<Settings>(|name| std::env::var_os(name));
        Ok(file.into_iter().chain([environment, self.settings.layer()]).collect())
    }

    fn settings(self, settings: Settings) -> Result<WorkerSettings, ConnectError> {
        let Settings { mut worker, token_file } = settings;
        let token = match (self.token, token_file) {
            (_, Some(path)) => Some(std::fs::read_to_string(&path).map_err(|error| ConnectError::Setting {
                name: "--token-file".into(),
                reason: format!("{} cannot be read: {error}", path.display()),
            })?),
            (token, None) => token.filter(|token| !token.trim().is_empty()),
        };
        worker.token = token;
        worker.state = state_directory();
        worker.incarnation = self.incarnation;
        worker.compiler = Compiler::own();
        worker.is_own_process = true;
        worker.cache = worker.cache.or_else(default_cache);
        Ok(worker)
    }
}

/// The settings in force, those too that follow from others.
fn printed(mut resolved: Resolved<Settings>) -> String {
    if let Ok(Settings { worker, .. }) = resolved.settings() {
        resolved.imply("task-memory", worker.task_memory().to_string());
        resolved.imply("hold-limit", worker.hold_limit().to_string());
    }
    if let Some(cache) = default_cache() {
        resolved.imply("cache", cache);
    }
    resolved.to_toml()
}

/// The worker settings that a program gives by name and text.
///
/// # Errors
/// When there is no such setting, or it cannot be that.
pub(crate) fn settings_of(program: Layer) -> Result<WorkerSettings, ConnectError> {
    Ok(config::resolve::<Settings>(&[program])?.settings()?.worker)
}

/// Where the configuration is kept unless the owner says otherwise: in `quicsand` under XDG_CONFIG_HOME or `~/.config`.
fn default_config() -> Option<PathBuf> {
    Some(own_directory("XDG_CONFIG_HOME", ".config")?.join("worker.toml"))
}
