//! A billion calls: arguments are drawn and results consumed one by one, so that memory stays the same however many there are.

use std::{
    error::Error,
    fs,
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use quicsand::task;
use quicsand_examples::session::RunOn;

/// How often it says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Items between two looks at the clock.
const LOOK_EVERY: u64 = 1 << 16;

#[task]
fn inc(x: u64) -> u64 {
    x + 1
}

/// Adds 1 to every number below N, a call a number, and checks the sum of the results.
///
/// Arguments are drawn and results consumed one by one: memory stays the same however many there are. Runs in this process, unless told
/// otherwise or QUICSAND_SCHEDULER and QUICSAND_TOKEN name a fleet. The memory that is told is this process's: in-process and with a local
/// cluster whose workers are threads, theirs is in it.
#[derive(Debug, Parser)]
struct Options {
    /// How many numbers
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    n: u64,
    #[command(flatten)]
    run_on: RunOn,
}

#[quicsand::main]
fn main() -> ExitCode {
    quicsand_examples::finish(run(&Options::parse()))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let session = options.run_on.start()?;
    eprintln!("billion: {} items, running {session}", options.n);
    let start = Instant::now();
    let mut said = start;
    let (mut count, mut sum) = (0_u64, 0_u128);
    // The compiler is kept from seeing what comes, as from any source that is no range.
    for result in session.client.batched_map(inc, (0..options.n).map(black_box)) {
        sum += u128::from(result?);
        count += 1;
        if count.is_multiple_of(LOOK_EVERY) && said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            eprintln!("{count}/{} done", options.n);
        }
    }
    let seconds = start.elapsed().as_secs_f64();

    let n = u128::from(options.n);
    let expected = n * (n + 1) / 2;
    if (u128::from(count), sum) != (n, expected) {
        return Err(format!("{count} results sum up to {sum}; it should be {n} and {expected}").into());
    }
    println!("{count} items, and their sum is {sum}, as it should be");
    println!("{seconds:.2} s, {:.0} items a second", count as f64 / seconds);
    println!("peak memory of this process: {}", peak_memory().unwrap_or_else(|| "not known".to_owned()));
    Ok(())
}

/// The most memory that this process has had, as Linux tells it.
fn peak_memory() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(format!("{:.1} MiB", kib as f64 / 1024.0))
}
