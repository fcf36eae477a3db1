//! `quicsand scheduler`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::mpsc,
};

use clap::Args;
use quicsand::{
    ConnectError,
    net::Ca,
    server::{SchedulerServer, ServerSettings},
    wire::Role,
};
use serde::{Deserialize, Serialize};

use super::{Child, announce, lifetime, say};

#[derive(Debug, Args)]
pub(super) struct Scheduler {
    /// Where to listen; port 0 for any free one
    #[arg(long, default_value = "127.0.0.1:7447", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where the cluster's certificate authority and tokens are kept, to be the same after a restart; by default they are new each time
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
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
}

impl SchedulerAnnouncement {
    pub(crate) fn of(server: &SchedulerServer) -> Self {
        Self {
            address: server.local_addr().to_string(),
            worker_token: server.token(Role::Worker).to_string(),
            client_token: server.token(Role::Client).to_string(),
        }
    }

    /// For people. An address that stands for all of the machine's is none that others can use.
    fn instructions(&self, ip: IpAddr) -> String {
        let Self { address, worker_token, client_token } = self;
        let note = match ip.is_unspecified() {
            true => "\nfrom other machines, put this machine's name or address in place of the one above\n",
            false => "",
        };
        format!(
            "the scheduler listens at {address}\n\nstart workers with\n    quicsand worker {address} --token {worker_token}\n\nrun programs with\n    \
             export QUICSAND_SCHEDULER={address}\n    export QUICSAND_TOKEN={client_token}\n{note}\n"
        )
    }
}

impl Scheduler {
    pub(super) fn run(self) -> Result<(), ConnectError> {
        let ca = self.state.as_deref().map_or_else(Ca::in_memory, Ca::load_or_create)?;
        let server = SchedulerServer::start(ServerSettings::new(self.listen, ca))?;
        let (endings, ended) = mpsc::channel();
        lifetime::watch_signals(endings.clone())?;
        if self.child.with_parent {
            lifetime::watch_parent(endings)?;
        }
        let announcement = SchedulerAnnouncement::of(&server);
        if self.child.announce {
            announce(&announcement);
        } else {
            say(&mut std::io::stdout(), &announcement.instructions(self.listen.ip()));
        }
        // Whatever it is, it is a reason to leave.
        let _ = ended.recv();
        server.shutdown();
        Ok(())
    }
}
