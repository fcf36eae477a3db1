//! Calls and maps of tiny tasks, and how much of the machine longer ones get. Every result is checked.

use std::{hint::black_box, time::Instant};

use anyhow::{Result, ensure};
use quicsand::Client;
use quicsand_tests::processes;

use crate::tasks::{add, churn, inc};

/// CPU time of the call that says how long a step of `churn` takes.
const CALIBRATED_STEPS: u64 = 100_000_000;
/// Different calls of one length; all results are compared with theirs.
const SEEDS: u64 = 4;

/// Microseconds of one call after the other: the median, and what one in a hundred exceeds.
pub(crate) fn roundtrips(client: &Client, count: i64) -> Result<(f64, f64)> {
    eprintln!("bench: {count} calls, one after the other");
    let mut times = Vec::new();
    for i in 0..count {
        let start = Instant::now();
        let result = client.submit(inc, black_box(i)).result()?;
        times.push(start.elapsed());
        ensure!(result == i + 1, "inc({i}) is not {result}");
    }
    times.sort();
    let at = |part: f64| times[((times.len() as f64 * part) as usize).min(times.len() - 1)].as_secs_f64() * 1e6;
    Ok((at(0.5), at(0.99)))
}

/// Items a second of a map whose results are gathered.
pub(crate) fn map(client: &Client, count: i64) -> Result<f64> {
    eprintln!("bench: a map over {count} items");
    let start = Instant::now();
    let results = client.gather(client.map(inc, (0..count).map(black_box)))?;
    let elapsed = start.elapsed();
    ensure!(results.iter().copied().eq(1..=count), "a map over {count} items has a wrong result");
    Ok(count as f64 / elapsed.as_secs_f64())
}

/// Seconds of a lazy map whose results are looked at one by one.
pub(crate) fn batched(client: &Client, count: i64) -> Result<f64> {
    eprintln!("bench: a lazy map over {count} items");
    let start = Instant::now();
    let mut expected = 1;
    for result in client.batched_map(inc, (0..count).map(black_box)) {
        let result = result?;
        ensure!(result == expected, "item {} is not {result}", expected - 1);
        expected += 1;
    }
    ensure!(expected == count + 1, "{count} items went in, {} came out", expected - 1);
    Ok(start.elapsed().as_secs_f64())
}

/// Calls a second of a sum in which each call adds two results.
pub(crate) fn tree(client: &Client, count: i64) -> Result<f64> {
    eprintln!("bench: a tree that sums up {count} numbers");
    let start = Instant::now();
    let numbers: Vec<i64> = (0..count).map(black_box).collect();
    let mut level: Vec<_> = numbers.chunks_exact(2).map(|pair| client.submit(add, (pair[0], pair[1]))).collect();
    while level.len() > 1 {
        level = level.chunks_exact(2).map(|pair| client.submit(add, (&pair[0], &pair[1]))).collect();
    }
    let sum = level.remove(0).result()?;
    let elapsed = start.elapsed();
    ensure!(sum == count * (count - 1) / 2, "the sum of the numbers below {count} is not {sum}");
    Ok((count - 1) as f64 / elapsed.as_secs_f64())
}

/// Calls a second where each takes the last one's result.
pub(crate) fn chain(client: &Client, count: i64) -> Result<f64> {
    eprintln!("bench: a chain of {count} calls");
    let start = Instant::now();
    let mut last = client.submit(inc, black_box(0));
    for _ in 1..count {
        last = client.submit(inc, &last);
    }
    let result = last.result()?;
    let elapsed = start.elapsed();
    ensure!(result == count, "adding one {count} times gives {result}");
    Ok(count as f64 / elapsed.as_secs_f64())
}

/// Nanoseconds of CPU that a step of `churn` takes in the sandbox while all `workers` are busy, as they are when it matters: by their CPU
/// time, since the clock on the wall would not notice that something else ran in between.
pub(crate) fn step_ns(client: &Client, workers: u64) -> Result<f64> {
    let used = || -> Result<f64> { Ok(processes::children("worker")?.iter().map(|usage| usage.cpu_ns as f64).sum()) };
    let before = used()?;
    let results = client.gather(client.map(churn, (0..workers).map(|seed| (black_box(seed), CALIBRATED_STEPS))))?;
    let taken = used()? - before;
    ensure!(results.into_iter().eq((0..workers).map(|seed| churn(seed, CALIBRATED_STEPS))), "the workers count differently");
    Ok(taken / (workers * CALIBRATED_STEPS) as f64)
}

/// Which part of the time that two processors need for so many calls of `us` they are busy with them.
pub(crate) fn efficiency(client: &Client, count: u64, us: f64, step_ns: f64) -> Result<f64> {
    eprintln!("bench: {count} calls of {us} us");
    let steps = (us * 1e3 / step_ns) as u64;
    let expected: Vec<u64> = (0..SEEDS).map(|seed| churn(seed, steps)).collect();
    let start = Instant::now();
    let results = client.gather(client.map(churn, (0..count).map(|seed| (black_box(seed % SEEDS), steps))))?;
    let elapsed = start.elapsed();
    ensure!(results.iter().eq(expected.iter().cycle().take(count as usize)), "a call of {steps} steps has a wrong result");
    Ok(count as f64 * us * 1e-6 / 2.0 / elapsed.as_secs_f64())
}
