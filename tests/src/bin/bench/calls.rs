//! Calls and maps of tiny tasks, and how much of the machine longer ones get. Every result is checked.

use std::{hint::black_box, time::Instant};

use anyhow::{Result, ensure};
use quicsand::Client;
use quicsand_tests::processes;

use crate::tasks::{add, churn, inc};

/// Steps of the calls that say about how long one step of `churn` takes.
const FIRST_STEPS: u64 = 20_000_000;
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

/// Equally long calls that keep all workers busy, and how much of the machine they get.
pub(crate) struct Efficiency {
    count: u64,
    steps: u64,
    /// By seed.
    expected: Vec<u64>,
    long: Long,
}

/// One call for each worker, which take as long as all others together.
struct Long {
    steps: u64,
    /// By seed, of which each worker has one.
    expected: Vec<u64>,
}

impl Efficiency {
    /// `count` calls of about `us` microseconds each.
    pub(crate) fn new(client: &Client, workers: u64, count: u64, us: f64) -> Result<Self> {
        eprintln!("bench: {count} calls of {us} us");
        let steps = (us * 1e3 / Long::new(workers, FIRST_STEPS).step_ns(client)?) as u64;
        let expected = (0..SEEDS).map(|seed| churn(seed, steps)).collect();
        Ok(Self { count, steps, expected, long: Long::new(workers, count / workers * steps) })
    }

    /// Which part of the time that the calls take on all processors is theirs. How long they would take is measured right after them, and
    /// for as long, since a processor that begins to work is faster than one that has worked for a while.
    pub(crate) fn measure(&self, client: &Client) -> Result<f64> {
        let Self { count, steps, .. } = *self;
        let start = Instant::now();
        let results = client.gather(client.map(churn, (0..count).map(|seed| (black_box(seed % SEEDS), steps))))?;
        let elapsed = start.elapsed();
        let expected = self.expected.iter().cycle().take(count as usize);
        ensure!(results.iter().eq(expected), "a call of {steps} steps has a wrong result");
        let ideal = (count * steps) as f64 * self.long.step_ns(client)? * 1e-9 / self.long.expected.len() as f64;
        Ok(ideal / elapsed.as_secs_f64())
    }
}

impl Long {
    fn new(workers: u64, steps: u64) -> Self {
        Self { steps, expected: (0..workers).map(|seed| churn(seed, steps)).collect() }
    }

    /// Nanoseconds of CPU that a step takes in the sandbox while all workers are busy, as they are when it matters: by their CPU time, since
    /// the clock on the wall would not notice that something else ran in between.
    fn step_ns(&self, client: &Client) -> Result<f64> {
        let used = || -> Result<f64> { Ok(processes::children("worker")?.iter().map(|usage| usage.cpu_ns as f64).sum()) };
        let (workers, steps, before) = (self.expected.len() as u64, self.steps, used()?);
        let results = client.gather(client.map(churn, (0..workers).map(|seed| (black_box(seed), steps))))?;
        let taken = used()? - before;
        ensure!(results == self.expected, "the workers count differently");
        Ok(taken / (workers * steps) as f64)
    }
}
