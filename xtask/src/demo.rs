//! The demo: the real thing on this machine, with a picture at the end.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    cluster::{Cluster, WorkerPlan},
    steps::{cargo, program, root, run, set_up},
};

const WORKERS: usize = 2;
/// A real stack, where the repository lies beside the data that its tests use.
const REAL_STACK: &str = "../shared/data/nuclei.tif";

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// A stack of grey images; without one, that of the tests where it is there, else a made-up one
    #[arg(value_name = "FILE.tif")]
    file: Option<PathBuf>,
}

impl Demo {
    pub(crate) fn run(self) -> Result<()> {
        let stack = match self.file {
            Some(file) => Some(env::current_dir().context("the current directory is not to be had")?.join(file)),
            None => root().join(REAL_STACK).canonicalize().ok(),
        };
        set_up()?;
        eprintln!("xtask: the first build takes a few minutes: the sandbox brings a compiler");
        let packages = ["--package", "quicsand-worker", "--package", "quicsand-examples"];
        let needed = ["--bin", "quicsand", "--bin", "quickstart", "--bin", "zstack"];
        run(cargo(["build", "--release"]).args(packages).args(needed))?;
        let shown = root().join("target/demo");
        std::fs::create_dir_all(&shown).with_context(|| format!("{} cannot be made", shown.display()))?;
        let (picture, table) = (shown.join("zstack.png"), shown.join("zstack.csv"));

        let quicsand = program("quicsand");
        let workers: Vec<_> = (0..WORKERS).map(|index| WorkerPlan::new(format!("demo-{index}"), &quicsand)).collect();
        let cluster = Cluster::start(&quicsand, &workers)?;
        eprintln!("xtask: a scheduler and {WORKERS} sandboxed workers run, joined over QUIC at {}", cluster.address);
        run(&mut on(&cluster, "quickstart"))?;
        run(on(&cluster, "zstack").args(&stack).arg("--csv").arg(&table).arg("--png").arg(&picture))?;
        drop(cluster);
        println!("{}", summary(stack.as_deref(), &picture, &table));
        Ok(())
    }
}

/// An example, told where the cluster is.
fn on(cluster: &Cluster, example: &str) -> Command {
    let mut command = Command::new(program(example));
    command.env("QUICSAND_SCHEDULER", &cluster.address).env("QUICSAND_TOKEN", &cluster.token);
    command
}

fn summary(stack: Option<&Path>, picture: &Path, table: &Path) -> String {
    let (stack, picture, table) = (
        stack.map_or_else(|| "a made-up image stack".to_owned(), |file| file.display().to_string()),
        picture.display(),
        table.display(),
    );
    format!(
        "
What happened
  A scheduler and {WORKERS} workers ran as processes of their own and spoke QUIC with the programs.
  quickstart sent its tasks to them as WebAssembly, called them, and summed their results up.
  zstack had the nuclei in every plane of {stack} found the same way.
  The picture of them: {picture}
  The table of them:   {table}
Try next
  cargo run --release -p quicsand-examples --bin zstack -- --help
      the same program: in its own process, on a local cluster, on a fleet
  cargo run --release -p quicsand-worker --bin quicsand -- scheduler
      a fleet of your own: it says how workers and programs join it
  examples/src/bin/quickstart.rs
      how little there is to write"
    )
}
