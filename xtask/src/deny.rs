//! Checks of all dependencies, by cargo-deny and `deny.toml`: vulnerabilities, licences, origins, duplicates. Owns: how the checker is
//! had. What needs the network's list of vulnerabilities is said to be skipped where there is none.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::steps::{cargo, root, run};

const VERSION: &str = "0.20.2";
/// What cargo-deny says when it cannot have the list.
const UNREACHABLE: &str = "failed to fetch advisory database";

/// Checks them.
pub(crate) fn check() -> Result<()> {
    let tools = root().join("target/tools");
    let program = tools.join("bin").join(format!("cargo-deny{}", std::env::consts::EXE_SUFFIX));
    if !program.exists() {
        // Built once, and not optimised: it runs for seconds.
        let mut install = cargo(["install", "cargo-deny", "--version", VERSION, "--locked", "--debug", "--quiet"]);
        run(install.arg("--root").arg(&tools).arg("--target-dir").arg(tools.join("target")))?;
    }
    run(Command::new(&program).args(["check", "bans", "licenses", "sources"]))?;
    let mut advisories = Command::new(&program);
    advisories.args(["check", "advisories"]).current_dir(root()).stdin(Stdio::null());
    let output = advisories.output().context("cargo-deny could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains(UNREACHABLE) {
        println!("SKIPPED: known vulnerabilities of dependencies: the list is not to be had from this machine");
        return Ok(());
    }
    ensure!(output.status.success(), "cargo-deny check advisories:\n{said}");
    eprintln!("xtask: no dependency has a known vulnerability");
    Ok(())
}
