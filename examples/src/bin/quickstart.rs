//! The quick start: a few tasks, futures as arguments, and a sum over a tree of calls.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use quicsand::{Future, Module, task};
use quicsand_examples::session::RunOn;

#[task]
fn inc(x: i64) -> i64 {
    x + 1
}

#[task]
fn double(x: i64) -> i64 {
    2 * x
}

#[task]
fn add(x: i64, y: i64) -> i64 {
    x + y
}

/// How many numbers the program starts from.
const INPUTS: i64 = 16;

/// Calls inc, double and add over 16 inputs, then sums their results up in a tree of calls.
///
/// Runs in this process, unless told otherwise or QUICSAND_SCHEDULER and QUICSAND_TOKEN name a fleet.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    run_on: RunOn,
    /// Only write the WebAssembly module that this program carries to FILE, to look at
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
}

#[quicsand::main]
fn main() -> ExitCode {
    quicsand_examples::finish(run(&Options::parse()))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &options.module {
        let module = Module::installed().ok_or("the program has no module")?;
        return std::fs::write(path, module.wasm()?).map_err(|error| format!("cannot write {}: {error}", path.display()).into());
    }
    let session = options.run_on.start()?;
    eprintln!("quickstart: running {session}");
    let client = &session.client;

    let incremented = client.map(inc, 0..INPUTS);
    let doubled = client.map(double, 0..INPUTS);
    let added = client.map(add, incremented.iter().zip(&doubled));

    let mut level: Vec<Future<i64>> = added.iter().collect();
    let mut heights = vec![level.len()];
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => client.submit(add, (left, right)),
                rest => rest[0].clone(),
            })
            .collect();
        heights.push(level.len());
    }
    client.progress(&(&incremented, &doubled, &added, &level));

    println!("inc(x) + double(x) for x in 0..{INPUTS}: {:?}", client.gather(&added)?);
    println!("summed up pair by pair: {}", heights.iter().map(usize::to_string).collect::<Vec<_>>().join(" -> "));
    println!("total: {}", client.gather(level)?.iter().sum::<i64>());
    Ok(())
}
