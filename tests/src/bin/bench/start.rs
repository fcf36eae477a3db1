//! Beginnings: from nothing to the first result, and modules. Owns: the processes with empty caches that it is measured in.

use std::{env, ffi::OsStr, fs, hint::black_box, process::Command, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use quicsand::ids::Hash;
use quicsand_tests::processes::program;
use quicsand_worker::{
    LocalCluster,
    sandbox::{Compiler, Sandbox, SandboxConfig},
};

use crate::tasks::inc;

/// Milliseconds from before a cluster's processes start to the first result.
pub(crate) fn first_result(workers: usize) -> Result<f64> {
    let start = Instant::now();
    let cluster = cluster(workers)?;
    let client = cluster.client()?;
    ensure!(client.submit(inc, black_box(1)).result()? == 2, "1 + 1 is 2");
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// The same in a process of its own, whose cache is empty, as are those of the workers it starts.
pub(crate) fn first_result_in_a_new_process() -> Result<f64> {
    eprintln!("bench: from nothing to the first result");
    let cache = tempfile::tempdir()?;
    let output = Command::new(env::current_exe()?).arg("--first-result").env("XDG_CACHE_HOME", cache.path()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// A scheduler and workers of one slot each.
pub(crate) fn cluster(workers: usize) -> Result<LocalCluster> {
    Ok(LocalCluster::builder().workers(workers).slots(1).processes().start()?)
}

/// The module that the quick start carries.
pub(crate) fn module() -> Result<Vec<u8>> {
    let program = program("quickstart");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("quickstart.wasm");
    let status = Command::new(&program).args([OsStr::new("--module"), file.as_os_str()]).status();
    let status = status.with_context(|| format!("{} could not be started", program.display()))?;
    ensure!(status.success(), "{} could not write its module", program.display());
    Ok(fs::read(file)?)
}

/// Milliseconds in which a worker gets that module ready to run: compiled in a child, nothing kept from before.
pub(crate) fn module_compile(wasm: &[u8]) -> Result<f64> {
    let config = SandboxConfig { slots: 1, compiler: Compiler::Command(program("quicsand")), ..SandboxConfig::default() };
    let sandbox = Arc::new(Sandbox::new(config)?);
    let start = Instant::now();
    sandbox.load(Hash::of(wasm), wasm)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Seconds in which the quick start, its module included, is built from nothing but downloaded sources.
pub(crate) fn clean_build() -> Result<f64> {
    eprintln!("bench: a clean build of the quick start");
    let target = tempfile::tempdir()?;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--quiet", "--bin", "quickstart", "--manifest-path", manifest]);
    let start = Instant::now();
    let output = build.env("CARGO_TARGET_DIR", target.path()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(start.elapsed().as_secs_f64())
}
