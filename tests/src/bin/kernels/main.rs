//! What the sandbox costs code that computes: the same kernels natively in this process and on a worker. Owns: the list of kernels, how often
//! each runs, how the two are compared. Must not know: what a kernel computes.
//!
//! A kernel makes its input, then times itself, so that neither the call nor its compilation counts. Its checksum has to be the same on
//! both sides: it uses of floating point only what IEEE 754 defines to the last digit.

mod bytes;
mod numbers;

use std::{env, hint::black_box, time::Instant};

use anyhow::{Context, Result, ensure};
use quicsand::{Client, task};
use quicsand_worker::LocalCluster;

/// A kernel with its input, made from a seed; each run gives a checksum of what it computed.
type Prepared = Box<dyn FnMut() -> u64>;

struct Kernel {
    name: &'static str,
    /// Runs of one measurement: together some 10 ms natively, each of them 1 ms at most.
    rounds: u32,
    prepare: fn(u64) -> Prepared,
}

const KERNELS: &[Kernel] = &[
    Kernel { name: "matrix product", rounds: 12, prepare: numbers::matrix_product },
    Kernel { name: "fourier transform", rounds: 160, prepare: numbers::fourier_transform },
    Kernel { name: "gaussian filter", rounds: 20, prepare: numbers::gaussian_filter },
    Kernel { name: "mandelbrot", rounds: 10, prepare: numbers::mandelbrot },
    Kernel { name: "n-body", rounds: 10, prepare: numbers::bodies },
    Kernel { name: "sha-256", rounds: 10, prepare: bytes::sha256 },
    Kernel { name: "sort", rounds: 10, prepare: bytes::sort },
    Kernel { name: "json", rounds: 10, prepare: bytes::json },
    Kernel { name: "word count", rounds: 10, prepare: bytes::word_count },
];

/// Runs a kernel: nanoseconds of its fastest run, and a checksum of all. The others were disturbed by whatever else the machine does. A
/// kernel that is not in the list takes no time.
#[task]
fn timed(kernel: u32, seed: u64) -> (u64, u64) {
    let Some(kernel) = KERNELS.get(kernel as usize) else { return (0, 0) };
    let mut run = (kernel.prepare)(black_box(seed));
    let (mut checksum, mut fastest) = (run(), u64::MAX);
    for _ in 0..kernel.rounds {
        let start = Instant::now();
        let one = black_box(run());
        fastest = fastest.min(start.elapsed().as_nanos() as u64);
        checksum = checksum.rotate_left(1) ^ one;
    }
    (fastest, checksum)
}

/// Prints what the sandbox's time is over the native time: the geometric mean over all kernels. How often each is measured is its argument.
///
/// It is a program of its own, since what is compiled for it is no part of what the other benchmarks measure.
#[quicsand::main]
fn main() -> Result<()> {
    let tries = env::args().nth(1).map_or(Ok(5), |tries| tries.parse())?;
    let cluster = LocalCluster::builder().workers(1).slots(1).processes().start()?;
    println!("{}", geometric_mean(&kernels(&cluster.client()?, tries)?)?);
    Ok(())
}

/// Each kernel's time in the sandbox over its time in this process: of the medians of `tries` measurements, taken by turns.
fn kernels(client: &Client, tries: usize) -> Result<Vec<(&'static str, f64)>> {
    let mut ratios = Vec::new();
    for (index, kernel) in (0..).zip(KERNELS) {
        let (mut native, mut sandboxed) = (Vec::new(), Vec::new());
        for seed in 0..tries.max(1) as u64 {
            let (ns, checksum) = timed(index, black_box(seed));
            native.push(ns);
            let (ns, expected) = client.submit(timed, (index, seed)).result()?;
            sandboxed.push(ns);
            ensure!(checksum == expected, "{} has another result in the sandbox", kernel.name);
        }
        let (native, sandboxed) = (median(native), median(sandboxed));
        eprintln!("bench: {:18} {:7.1} us natively, {:7.1} us in the sandbox", kernel.name, native / 1e3, sandboxed / 1e3);
        ratios.push((kernel.name, sandboxed / native));
    }
    Ok(ratios)
}

/// The geometric mean of what [`kernels`] gave.
fn geometric_mean(ratios: &[(&'static str, f64)]) -> Result<f64> {
    let count = std::num::NonZero::new(ratios.len()).context("no kernels")?.get() as f64;
    Ok((ratios.iter().map(|(_, ratio)| ratio.ln()).sum::<f64>() / count).exp())
}

fn median(mut times: Vec<u64>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2] as f64
}

/// Numbers that look random, the same everywhere (splitmix64).
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// A number in [0, 1).
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

fn checksum(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(0, |sum: u64, value| (sum.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95))
}
