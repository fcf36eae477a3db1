//! The program behind `cargo xtask simulate`: runs seeds, as many as one likes, and says how it went.

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use quicsand::fault::Fault;

use super::{Options, Report, run_all};

/// Seeds between two lines of progress.
const PIECE: u64 = 5000;

/// Simulate scheduler, workers, clients and network; the first seed that fails tells its story.
#[derive(Debug, Parser)]
#[command(name = "quicsand-simulate")]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Steps of each program, instead of a number that its seed draws: few make a short story
    #[arg(long)]
    steps: Option<u32>,
    /// A deliberate fault to look for, or `list` to see which there are
    #[arg(long)]
    fault: Option<String>,
}

/// Reads the process's arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let Arguments { seeds, from, steps, fault } = Arguments::parse();
    let known = |name: &str| Fault::ALL.iter().copied().find(|fault| format!("{fault:?}") == name);
    let fault = match fault.as_deref().map(known) {
        Some(None) => {
            println!("the faults are: {:?}", Fault::ALL);
            return ExitCode::FAILURE;
        }
        known => known.flatten(),
    };
    let start = Instant::now();
    let (mut at, end) = (from, from.saturating_add(seeds));
    let mut all = Report::default();
    while at < end {
        let next = end.min(at + PIECE);
        match run_all(at..next, Options { steps, fault }) {
            Ok(report) => all += report,
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
        at = next;
        let Report { seeds, events, items, computed, mishaps, time } = all;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{seeds} seeds pass up to {}, in {seconds:.0} s: {:.0} seeds/s, {:.0} events/s; {events} events, {items} items ran \
             {computed} times, {mishaps} mishaps, {} s of virtual time",
            at - 1,
            seeds as f64 / seconds,
            events as f64 / seconds,
            time.as_secs()
        );
    }
    ExitCode::SUCCESS
}
