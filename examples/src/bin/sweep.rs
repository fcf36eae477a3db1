//! A parameter sweep: a data set that all calls share, a call a parameter and seed, a table and a plot of what came out.

use std::{error::Error, fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Parser;
use quicsand::task;
use quicsand_examples::{
    plot::{self, Point, Words},
    print,
    samples::Samples,
    session::RunOn,
};
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

/// One part of so many is held back, to measure the error on.
const HELD_BACK: usize = 5;

/// The error of a nearest-neighbours regression: the output of a sample is said to be the mean of those of the `neighbours` samples
/// that are nearest to it. Draws a fifth of the samples by `seed`, predicts them from the others, and gives the root of the mean squared
/// error.
#[task]
fn validate(samples: &Samples, neighbours: usize, seed: u64) -> f64 {
    let mut rows: Vec<usize> = (0..samples.len()).collect();
    // The same on any machine, 32-bit guests too: rand promises that for this generator and for `shuffle`.
    rows.shuffle(&mut Pcg64Mcg::seed_from_u64(seed));
    let (held_back, known) = rows.split_at(samples.len() / HELD_BACK);
    let squared = held_back.iter().map(|&row| {
        let error = predict(samples, known, neighbours, samples.input(row)) - samples.output(row);
        error * error
    });
    (squared.sum::<f64>() / held_back.len() as f64).sqrt()
}

fn predict(samples: &Samples, known: &[usize], neighbours: usize, input: &[f64]) -> f64 {
    let distance = |row: usize| -> f64 { samples.input(row).iter().zip(input).map(|(a, b)| (a - b) * (a - b)).sum() };
    let mut near: Vec<(f64, usize)> = known.iter().map(|&row| (distance(row), row)).collect();
    let count = neighbours.min(near.len());
    near.select_nth_unstable_by(count - 1, |one, other| one.0.total_cmp(&other.0));
    near[..count].iter().map(|&(_, row)| samples.output(row)).sum::<f64>() / count as f64
}

/// How many neighbours should a nearest-neighbours regression ask?
///
/// Scatters a data set once. For each number of neighbours and each of several seeds, a call draws a fifth of the samples, predicts them
/// from the others, and measures the error. Every number of neighbours meets the same draws. Runs in this process, unless told otherwise
/// or QUICSAND_SCHEDULER and QUICSAND_TOKEN name a fleet.
#[derive(Debug, Parser)]
struct Options {
    /// Samples as comma-separated numbers, one a line, the output last; without a file, 1,000 are made up after Friedman (1991)
    #[arg(value_name = "FILE.csv")]
    file: Option<PathBuf>,
    /// Numbers of neighbours to try
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_value = "1,2,3,4,6,8,12,16,24,32,48,64,96")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    neighbours: Vec<u32>,
    /// Seeds for each of them
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    repeats: u32,
    /// The first seed; the others follow it
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Where to draw the plot
    #[arg(long, value_name = "OUT", default_value = "sweep.svg")]
    svg: PathBuf,
    /// Write the table to OUT, with all digits
    #[arg(long, value_name = "OUT")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    run_on: RunOn,
}

#[quicsand::main]
fn main() -> ExitCode {
    quicsand_examples::finish(run(&Options::parse()))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let samples = match &options.file {
        Some(file) => Samples::read(file)?,
        None => Samples::friedman(1000, options.seed),
    };
    if samples.len() < HELD_BACK {
        return Err(format!("{} samples are too few: at least {HELD_BACK} are needed", samples.len()).into());
    }
    let session = options.run_on.start()?;
    let (count, columns, tries) = (samples.len(), samples.columns(), options.neighbours.len());
    eprintln!("sweep: {count} samples of {columns} inputs, {tries} values of {} seeds each, running {session}", options.repeats);
    let client = &session.client;

    let samples = client.scatter(samples);
    let seeds = || (0..options.repeats).map(|repeat| options.seed.wrapping_add(repeat.into()));
    let calls = options.neighbours.iter().flat_map(|&neighbours| seeds().map(move |seed| (neighbours as usize, seed)));
    let errors = client.map(validate, calls.map(|(neighbours, seed)| (&samples, neighbours, seed)));
    client.progress(&errors);
    let errors = client.gather(&errors)?;

    let points: Vec<Point> = options.neighbours.iter().zip(errors.chunks(seeds().len())).map(summary).collect();
    print(&table(&points))?;
    if let Some(path) = &options.csv {
        let rows: String = points.iter().map(|Point { x, mean, deviation }| format!("{x},{mean},{deviation}\n")).collect();
        let written = std::fs::write(path, format!("neighbours,mean,deviation\n{rows}"));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let title = format!("Nearest-neighbours regression, mean and deviation of {} draws", options.repeats);
    plot::write(&options.svg, Words { title: &title, x: "neighbours", y: "root mean squared error" }, &points)?;
    println!("wrote {}", options.svg.display());
    Ok(())
}

/// Mean and standard deviation of the errors.
fn summary((&neighbours, errors): (&u32, &[f64])) -> Point {
    let count = errors.len() as f64;
    let mean = errors.iter().sum::<f64>() / count;
    let squares: f64 = errors.iter().map(|error| (error - mean) * (error - mean)).sum();
    Point { x: neighbours.into(), mean, deviation: (squares / (count - 1.0)).sqrt() }
}

fn table(points: &[Point]) -> String {
    let least = points.iter().map(|point| point.mean).fold(f64::INFINITY, f64::min);
    let mut table = format!("{:>10} {:>9} {:>9}\n", "neighbours", "error", "deviation");
    for Point { x, mean, deviation } in points {
        let mark = if *mean == least { "  least" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{x:>10} {mean:>9.4} {deviation:>9.4}{mark}");
    }
    table
}
