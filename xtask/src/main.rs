//! `cargo xtask`: the repository's chores. Owns: which commands run in which order, with which profile. Must not know: the library, so
//! that it builds in seconds and says what is missing before anything else is built.
//!
//! Everything runs in the release profile, so that demo, tests and benchmarks share one build of wasmtime and quinn.

mod book;
mod checks;
mod cluster;
mod demo;
mod deny;
mod deploy;
mod instructions;
mod mixed_fleet;
mod packages;
mod steps;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The chores of quicsand's repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Make the toolchain ready that compiles tasks to WebAssembly; safe to run twice
    Setup,
    /// Set up, build, and run two examples on a scheduler and two sandboxed workers of this machine
    Demo(demo::Demo),
    /// Set up, and run all tests
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Set up, and measure; JSON on standard output with --json
    Bench {
        /// Passed on to the benchmark program; try --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Set up, and measure codec, frames, scheduler and sandbox each by itself
    Micro {
        /// Passed on to criterion: part of a benchmark's name, or --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Count the instructions of codec, frames and scheduler, and compare them with tests/instructions.json
    Instructions(instructions::Instructions),
    /// Simulate scheduler, workers, clients and network in one process: --seeds N --from S, --steps N, --fault NAME
    Simulate {
        /// Passed on to the simulation; try --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Have an x86-64 worker and an aarch64 worker, in an emulator, share jobs, and compare the results
    MixedFleet,
    /// Maltreat a fleet of this machine, and compare every result with what it should be; --minutes N, --help for more
    Chaos {
        /// Passed on to the program that does it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Build the book into target/book
    Book,
    /// Check the systemd units, the Dockerfile and the Kubernetes manifests, as far as this machine can
    Deploy,
    /// Check all dependencies: vulnerabilities, licences, origins, duplicates
    Deny,
    /// Check format, lints, documentation, book, packaging and dependencies, then run all tests
    Ci,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Setup => steps::set_up(),
        Chore::Demo(demo) => demo.run(),
        Chore::Test { rest } => checks::test(&rest),
        Chore::Bench { rest } => checks::bench(&rest),
        Chore::Micro { rest } => checks::micro(&rest),
        Chore::Instructions(instructions) => instructions.run(),
        Chore::Simulate { rest } => checks::simulate(&rest),
        Chore::MixedFleet => mixed_fleet::run_all(),
        Chore::Chaos { rest } => checks::chaos(&rest),
        Chore::Book => book::build(),
        Chore::Deny => deny::check(),
        Chore::Deploy => deploy::check(),
        Chore::Ci => checks::ci(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
