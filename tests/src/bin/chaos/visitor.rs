//! A client in a process of its own, that is killed in the middle of its work.

use std::{
    env,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use quicsand::Client;
use quicsand_tests::relay::Relay;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::load::Job;

/// The argument by which this program is a visitor.
pub(crate) const VISITOR: &str = "--visitor";

/// Killed when dropped.
pub(crate) struct Visitor(Child);

impl Visitor {
    pub(crate) fn start(relay: &Relay, token: &str) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(VISITOR).env("QUICSAND_SCHEDULER", relay.address().to_string()).env("QUICSAND_TOKEN", token);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.context("a visitor cannot be started")?))
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a visitor does until it is killed, or nobody can be reached any more.
pub(crate) fn visit() -> Result<()> {
    let client = Client::from_env()?;
    let mut random = Pcg64Mcg::seed_from_u64(u64::from(std::process::id()));
    loop {
        Job::ALL[random.random_range(0..Job::ALL.len())].run(&client, &mut random);
    }
}
