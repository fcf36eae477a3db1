//! Tests, benchmarks, and what a change must pass.

use std::process::Command;

use anyhow::Result;

use crate::{
    book, deny, deploy, instructions,
    steps::{cargo, programs, run, set_up},
};

/// Runs all tests; `rest` goes to `cargo test`. Building the workspace's tests builds the `quicsand` command, which some of them start.
pub(crate) fn test(rest: &[String]) -> Result<()> {
    set_up()?;
    run(cargo(["test", "--release", "--workspace", "--no-fail-fast"]).args(rest))
}

/// Measures; `rest` goes to the benchmark program.
pub(crate) fn bench(rest: &[String]) -> Result<()> {
    set_up()?;
    run(&mut cargo(["build", "--release", "--workspace", "--bins"]))?;
    run(Command::new(programs().join("quicsand-bench")).args(rest))
}

/// Measures small parts; `rest` goes to criterion.
pub(crate) fn micro(rest: &[String]) -> Result<()> {
    set_up()?;
    run(cargo(["bench", "--workspace", "--bench", "micro", "--"]).args(rest))
}

/// Maltreats a fleet; `rest` goes to the program that does it.
pub(crate) fn chaos(rest: &[String]) -> Result<()> {
    set_up()?;
    run(&mut cargo(["build", "--release", "--workspace", "--bins"]))?;
    run(Command::new(programs().join("quicsand-chaos")).args(rest))
}

/// Simulates; `rest` goes to the simulation.
pub(crate) fn simulate(rest: &[String]) -> Result<()> {
    set_up()?;
    run(&mut cargo(["build", "--release", "--workspace", "--bins"]))?;
    run(Command::new(programs().join("quicsand-simulate")).args(rest))
}

/// What a change must pass. The quick checks come first; lints are checked in the release profile, which shares build scripts and macros
/// with everything else.
pub(crate) fn ci() -> Result<()> {
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    set_up()?;
    run(&mut cargo(["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(cargo(["doc", "--release", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    book::build()?;
    deploy::check()?;
    deny::check()?;
    test(&[])?;
    // Last, since all that it counts is built by then.
    instructions::check()
}
