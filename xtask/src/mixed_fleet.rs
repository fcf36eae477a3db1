//! A mixed fleet: an x86-64 worker and an aarch64 worker, built for it and run under qemu, share one job. Owns: what such a fleet needs,
//! and the comparison of its results with those of either worker alone.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cluster::{Cluster, WorkerPlan},
    packages::{install, is_there},
    steps::{cargo, program, programs, root, run, set_up},
};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// Where the emulated program finds its C library.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";
/// Debian's packages that have linker, libraries and emulator.
const PACKAGES: [&str; 3] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"];

/// The first has no emulator and the second one has.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// How often both workers together get a job: a quick one is over before the slower worker is ready for it.
const ROUNDS: usize = 3;

/// A job: an example, its arguments, what of the repository it reads, and what it writes where it is started.
struct Job {
    example: &'static str,
    arguments: &'static [&'static str],
    reads: &'static [&'static str],
    writes: &'static [&'static str],
}

const JOBS: [Job; 3] = [
    Job {
        example: "zstack",
        arguments: &["--csv", "zstack.csv", "--png", "zstack.png"],
        reads: &[],
        writes: &["zstack.csv", "zstack.png"],
    },
    Job { example: "mandelbrot", arguments: &["mandelbrot.png", "--tile", "50"], reads: &[], writes: &["mandelbrot.png"] },
    // Small pieces, so that there are enough of them to share.
    Job {
        example: "wordcount",
        arguments: &["--all", "--piece", "1"],
        reads: &["README.md", "ARCHITECTURE.md", "docs/errors.md", "docs/tasks.md", "Cargo.lock"],
        writes: &[],
    },
];

/// Builds for both architectures, and runs every job on either alone and on both together.
pub(crate) fn run_all() -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the mixed fleet is made on x86-64 Linux: its aarch64 worker runs in an emulator"
    );
    set_up()?;
    prepare()?;
    eprintln!("xtask: the first build takes minutes twice: the sandbox brings a compiler, here for two architectures");
    run(&mut cargo(["build", "--release", "--package", "quicsand-worker", "--package", "quicsand-examples", "--bins"]))?;
    let mut cross = cargo(["build", "--release", "--target", TARGET, "--package", "quicsand-worker", "--bin", "quicsand"]);
    run(cross.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER).env("CC_aarch64_unknown_linux_gnu", LINKER))?;

    let place = root().join("target/mixed-fleet");
    let [native, foreign] = ARCHITECTURES.map(|architecture| WorkerKind::new(architecture, &place));
    let kinds = [native?, foreign?];
    let mut lines = Vec::new();
    for job in &JOBS {
        // Alone first: what a worker compiled for that, it finds again in its cache when both compete.
        let alone = [job.run(&kinds[..1], 1, &place)?, job.run(&kinds[1..], 1, &place)?];
        let mixed = job.run(&kinds, ROUNDS, &place)?;
        for (kind, alone) in kinds.iter().zip(&alone) {
            // As many times as there were rounds.
            for ((name, expected), (_, found)) in alone.results.iter().cycle().zip(&mixed.results) {
                ensure!(
                    expected == found,
                    "{}: {name} differs between {} alone and both together",
                    job.example,
                    kind.architecture
                );
            }
        }
        for (kind, items) in kinds.iter().zip(&mixed.items) {
            ensure!(*items > 0, "{}: the {} worker had no part in it", job.example, kind.architecture);
        }
        let shares: Vec<_> =
            kinds.iter().zip(&mixed.items).map(|(kind, items)| format!("{} {items} items", kind.architecture)).collect();
        let (shares, compared) = (shares.join(", "), mixed.results.len());
        lines.push(format!("  {}, {ROUNDS} times: {shares}; {compared} results equal to either alone", job.example));
    }
    println!("\nA mixed fleet shared every job\n{}", lines.join("\n"));
    Ok(())
}

/// Installs what is missing, where this user may.
fn prepare() -> Result<()> {
    if !is_there(LINKER) || !is_there(EMULATOR) || !Path::new(LIBRARIES).exists() {
        install(&PACKAGES).context("the aarch64 worker needs what is missing")?;
    }
    run(Command::new("rustup").args(["target", "add", TARGET]))
        .with_context(|| format!("Rust's library for {TARGET} is not to be had; it is needed to build the aarch64 worker"))
}

/// A kind of worker: one of each is in the mixed fleet.
struct WorkerKind {
    architecture: &'static str,
    /// How the `quicsand` command is started on this architecture.
    command: Vec<OsString>,
    cache: PathBuf,
}

impl WorkerKind {
    fn new(architecture: &'static str, place: &Path) -> Result<Self> {
        let command = match architecture == env::consts::ARCH {
            true => vec![program("quicsand").into()],
            false => {
                let target = programs().parent().map(|target| target.join(TARGET).join("release/quicsand")).unwrap_or_default();
                vec![EMULATOR.into(), "-L".into(), LIBRARIES.into(), target.into()]
            }
        };
        let cache = place.join("cache").join(architecture);
        fs::create_dir_all(&cache).with_context(|| format!("{} cannot be made", cache.display()))?;
        Ok(Self { architecture, command, cache })
    }

    fn plan(&self, place: &Path) -> WorkerPlan {
        WorkerPlan {
            name: self.architecture.to_owned(),
            command: self.command.clone(),
            arguments: vec!["--cache".into(), self.cache.clone().into()],
            log: Some(place.join(format!("{}.log", self.architecture))),
        }
    }
}

/// What came of a job on a fleet.
struct Outcome {
    /// Items that each worker finished.
    items: Vec<u64>,
    /// What the example printed, and its files.
    results: Vec<(String, Vec<u8>)>,
}

impl Job {
    fn run(&self, kinds: &[WorkerKind], rounds: usize, place: &Path) -> Result<Outcome> {
        let names: Vec<_> = kinds.iter().map(|kind| kind.architecture).collect();
        let place = place.join(self.example).join(names.join("+"));
        fs::create_dir_all(&place).with_context(|| format!("{} cannot be made", place.display()))?;
        let plans: Vec<_> = kinds.iter().map(|kind| kind.plan(&place)).collect();
        let mut cluster = Cluster::start(&program("quicsand"), &plans)?;
        let mut results = Vec::new();
        for _ in 0..rounds {
            eprintln!("xtask: {} on {}", self.example, names.join(" and "));
            let mut example = Command::new(program(self.example));
            example.args(self.arguments).args(self.reads.iter().map(|path| root().join(path))).current_dir(&place);
            example.env("QUICSAND_SCHEDULER", &cluster.address).env("QUICSAND_TOKEN", &cluster.token);
            let said = example.stderr(Stdio::inherit()).output();
            let said = said.with_context(|| format!("{} could not be started", self.example))?;
            ensure!(said.status.success(), "{} failed ({})", self.example, said.status);
            results.push(("its output".to_owned(), said.stdout));
            for name in self.writes {
                let path = place.join(name);
                results
                    .push(((*name).to_owned(), fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?));
            }
        }
        cluster.dismiss_workers()?;
        let items = plans.iter().map(|plan| finished(plan.log.as_deref().unwrap_or(Path::new("")))).collect::<Result<_>>()?;
        Ok(Outcome { items, results })
    }
}

/// The number of items that a worker finished, from the line with which it leaves.
fn finished(log: &Path) -> Result<u64> {
    let text = fs::read_to_string(log).with_context(|| format!("{} cannot be read", log.display()))?;
    let line = text.lines().rev().find(|line| line.contains(" left "));
    let count = line.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("finished=")?.parse().ok()));
    count.with_context(|| format!("{} does not say how many items the worker finished", log.display()))
}
