//! `quicsand scheduler`.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use clap::Args;
use quicsand::{
    ConnectError,
    net::{Ca, state_directory},
    server::{SchedulerServer, ServerSettings},
    wire::Role,
};
use serde::{Deserialize, Serialize};

use super::{
    Child,
    failures::FailureSettings,
    lifetime::{self, Ending},
    operator, say, say_json,
};
use crate::sandbox::duration;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Starts the scheduler of a fleet in the foreground, until it is interrupted, and prints how workers, programs and operators join it.
Workers and programs must reach it over UDP.

The cluster's certificate authority and tokens are kept in the state directory and are the same after a restart. The directory also tells
operators' commands on this machine (status, tasks, logs, cancel, token) where the scheduler is, and lets them in.

Without a journal, calls end with the scheduler. With one, a scheduler that is started again with the same journal, state directory and
address goes on with them, also after it was killed.

Examples:
    quicsand scheduler
    quicsand scheduler --listen 0.0.0.0:7447 --state /var/lib/quicsand --log-format json
    quicsand scheduler --journal /var/lib/quicsand/journal")]
pub(super) struct Scheduler {
    /// Where to listen; port 0 for any free one
    #[arg(long, default_value = "127.0.0.1:7447", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where the cluster's certificate authority and tokens are kept, by default quicsand in XDG_STATE_HOME or ~/.local/state
    #[arg(long, env = "QUICSAND_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Keep nothing: a new cluster each time, which no earlier token or certificate fits
    #[arg(long)]
    ephemeral: bool,
    /// Keep calls, results and clients in this directory, so that a scheduler that is started again there goes on with them
    #[arg(long, env = "QUICSAND_JOURNAL", value_name = "DIR", conflicts_with = "ephemeral")]
    journal: Option<PathBuf>,
    /// How long the certificates of clients and workers are good; while they run, they renew them in time
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    certificate_lifetime: Duration,
    /// A client whose connection broke and that has not come back after this is taken to have left: its calls are cancelled
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    client_lease: Duration,
    #[command(flatten)]
    failures: FailureSettings,
    #[command(flatten)]
    child: Child,
}

/// How to join a scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SchedulerAnnouncement {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// For workers.
    pub(crate) worker_token: String,
    /// For clients.
    pub(crate) client_token: String,
    /// For operators.
    pub(crate) operator_token: String,
}

impl SchedulerAnnouncement {
    pub(crate) fn of(server: &SchedulerServer) -> Self {
        Self {
            address: server.local_addr().to_string(),
            worker_token: server.token(Role::Worker).to_string(),
            client_token: server.token(Role::Client).to_string(),
            operator_token: server.token(Role::Operator).to_string(),
        }
    }

    /// For people. An address that stands for all of the machine's is none that others can use.
    fn instructions(&self, ip: IpAddr, directory: Option<&Path>) -> String {
        let Self { address, worker_token, client_token, operator_token } = self;
        let (access, keeping) = match directory {
            Some(directory) => (
                format!("--state {}", directory.display()),
                format!(
                    "the cluster's key and tokens are kept in {}; `quicsand token` makes, lists and revokes tokens",
                    directory.display()
                ),
            ),
            None => (
                format!("--scheduler {address} --token {operator_token}"),
                "nothing is kept: tokens and certificates end with the scheduler".to_owned(),
            ),
        };
        let note = match ip.is_unspecified() {
            true => "\nfrom other machines, put this machine's name or address in place of the one above\n",
            false => "",
        };
        format!(
            "the scheduler listens at {address}\n\nstart workers with\n    quicsand worker {address} --token {worker_token}\n\nrun programs with\n    \
             export QUICSAND_SCHEDULER={address}\n    export QUICSAND_TOKEN={client_token}\n\nlook on with\n    quicsand status {access}\n{note}\n\
             {keeping}\n"
        )
    }
}

impl Scheduler {
    pub(super) fn run(self) -> Result<(), ConnectError> {
        let directory = self.directory()?;
        let ca = directory.as_deref().map_or_else(Ca::in_memory, Ca::load_or_create)?;
        let ca = ca.with_certificate_lifetime(self.certificate_lifetime);
        let mut settings = ServerSettings::new(self.listen, ca);
        settings.journal.clone_from(&self.journal);
        self.failures.apply(&mut settings);
        settings.config.client_lease = self.client_lease;
        let server = SchedulerServer::start(settings)?;
        let (endings, ended) = mpsc::channel();
        let failed = endings.clone();
        // Nobody listens if the command is about to end anyway.
        server.on_failure(move |error| drop(failed.send(Ending::Done(Err(error)))));
        lifetime::watch_signals(endings.clone())?;
        if self.child.with_parent {
            lifetime::watch_parent(endings)?;
        }
        let _published = operator::Published::new(directory.as_deref(), server.local_addr());
        let announcement = SchedulerAnnouncement::of(&server);
        if self.child.announce {
            say_json(&announcement);
        } else {
            say(&mut std::io::stdout(), &announcement.instructions(self.listen.ip(), directory.as_deref()));
        }
        // Whatever it is, it is a reason to leave.
        let ending = ended.recv();
        server.shutdown();
        match ending {
            Ok(Ending::Done(result)) => result,
            _ => Ok(()),
        }
    }

    /// `None` for a cluster that keeps nothing.
    fn directory(&self) -> Result<Option<PathBuf>, ConnectError> {
        if self.ephemeral {
            return Ok(None);
        }
        self.state.clone().or_else(state_directory).map(Some).ok_or_else(|| ConnectError::Setting {
            name: "--state".to_owned(),
            reason: "this user has no home directory; name a directory for the cluster's state, or give --ephemeral".to_owned(),
        })
    }
}
