//! The benchmarks: a scheduler and two workers of one slot each, as processes of this machine. Owns: what is measured, and how. Figures go
//! to standard output, everything else to standard error.
//!
//! Inputs pass through `black_box`, and every result is checked: a wrong one is an error, not a figure.

mod failures;
mod kernels;
mod peers;

use std::{
    env,
    ffi::OsStr,
    hint::black_box,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use quicsand::{Client, task};
use quicsand_worker::LocalCluster;
use serde_json::{Map, Value, json};

const WORKERS: usize = 2;
const KEYS: &[&str] = &[
    "roundtrip_p50_us",
    "roundtrip_p99_us",
    "map_100k_items_per_s",
    "batched_10m_items_per_s",
    "first_result_ms",
    "scatter2_64mib_mb_s",
    "kernels_wasm_over_native",
    "module_bytes",
    "kill_worker_extra_s",
    "kill_worker_beyond_share_s",
    "kill_scheduler_result_ms",
    "scheduler_mib_before_1m_calls",
    "scheduler_mib_after_1m_calls",
];
/// Of these, those that are measured on a fleet of their own.
const APART: &[&str] = &[
    "first_result_ms",
    "module_bytes",
    "kill_worker_extra_s",
    "kill_worker_beyond_share_s",
    "kill_scheduler_result_ms",
    "scheduler_mib_before_1m_calls",
    "scheduler_mib_after_1m_calls",
];
/// How long a call on scattered data holds its worker's only slot, so that the other worker has to take the other call.
const HOLD: Duration = Duration::from_secs(1);

#[task]
fn inc(x: i64) -> i64 {
    x + 1
}

#[task]
fn last_byte(data: &Bytes, hold_ms: u64) -> u8 {
    thread::sleep(Duration::from_millis(hold_ms));
    data.last().copied().unwrap_or(0)
}

/// Measures quicsand on a scheduler and two worker processes of one slot each.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Print one object of JSON
    #[arg(long)]
    json: bool,
    /// Measure only this; can be given several times
    #[arg(long, value_name = "KEY", num_args = 1.., value_parser = clap::builder::PossibleValuesParser::new(KEYS.iter().copied()))]
    only: Vec<String>,
    /// A tenth of the items and one try each: to see that it works, not to compare
    #[arg(long)]
    quick: bool,
    /// Measure Dask and Ray instead, which are installed into target/peers; without names, each with defaults and tuned
    #[arg(long, value_name = "PEER", num_args = 0.., conflicts_with = "only")]
    peers: Option<Vec<String>>,
    /// Start a cluster, make one call, print the milliseconds that took
    #[arg(long, hide = true)]
    first_result: bool,
}

#[quicsand::main]
fn main() -> Result<()> {
    let options = Options::parse();
    if options.first_result {
        println!("{}", first_result()?);
        return Ok(());
    }
    if let Some(only) = &options.peers {
        let figures = peers::peers(only, options.quick)?;
        if options.json {
            println!("{}", json!(figures));
        } else {
            for (peer, figures) in &figures {
                figures.iter().for_each(|(key, value)| println!("{peer:10} {key:24} {}", rounded(*value)));
            }
        }
        return Ok(());
    }
    let bench = Bench { options };
    let figures = bench.run()?;
    if bench.options.json {
        println!("{}", Value::Object(figures));
    } else {
        figures.iter().for_each(|(key, value)| println!("{key:24} {value}"));
    }
    Ok(())
}

struct Bench {
    options: Options,
}

impl Bench {
    fn run(&self) -> Result<Map<String, Value>> {
        let mut figures = Map::new();
        if self.wants("module_bytes") {
            figures.insert("module_bytes".into(), json!(module_bytes()?));
        }
        if self.wants("first_result_ms") {
            let run = || self.first_result_in_a_new_process();
            figures.insert("first_result_ms".into(), rounded(self.median(run)?));
        }
        self.run_apart(&mut figures)?;
        if KEYS.iter().filter(|key| !APART.contains(key)).any(|key| self.wants(key)) {
            let cluster = cluster()?;
            self.run_on(&cluster.client()?, &mut figures)?;
        }
        Ok(figures)
    }

    /// What failures cost.
    fn run_apart(&self, figures: &mut Map<String, Value>) -> Result<()> {
        let mut put = |key: &str, value: f64| {
            if self.wants(key) {
                figures.insert(key.into(), json!((value * 1000.0).round() / 1000.0));
            }
        };
        if self.wants("kill_worker_extra_s") || self.wants("kill_worker_beyond_share_s") {
            let mut extras = Vec::new();
            let beyond = self.median(|| {
                let (extra, beyond) = failures::killed_worker()?;
                extras.push(extra);
                Ok(beyond)
            })?;
            extras.sort_by(f64::total_cmp);
            put("kill_worker_extra_s", extras[extras.len() / 2]);
            put("kill_worker_beyond_share_s", beyond);
        }
        if self.wants("kill_scheduler_result_ms") {
            put("kill_scheduler_result_ms", self.median(failures::killed_scheduler)?);
        }
        if !self.options.quick && (self.wants("scheduler_mib_before_1m_calls") || self.wants("scheduler_mib_after_1m_calls")) {
            let (before, after) = failures::passing_calls()?;
            put("scheduler_mib_before_1m_calls", before);
            put("scheduler_mib_after_1m_calls", after);
        }
        Ok(())
    }

    fn run_on(&self, client: &Client, figures: &mut Map<String, Value>) -> Result<()> {
        // Both workers have the module, and have run it.
        map(client, 10_000)?;
        if self.wants("roundtrip_p50_us") || self.wants("roundtrip_p99_us") {
            let (p50, p99) = roundtrips(client, self.scaled(2_000))?;
            for (key, value) in [("roundtrip_p50_us", p50), ("roundtrip_p99_us", p99)] {
                if self.wants(key) {
                    figures.insert(key.into(), rounded(value));
                }
            }
        }
        if self.wants("map_100k_items_per_s") {
            let count = self.scaled(100_000);
            figures.insert("map_100k_items_per_s".into(), rounded(self.median(|| map(client, count))?));
        }
        if self.wants("batched_10m_items_per_s") {
            figures.insert("batched_10m_items_per_s".into(), rounded(batched(client, self.scaled(10_000_000))?));
        }
        if self.wants("scatter2_64mib_mb_s") {
            // From now on the scheduler knows how long such a call takes, and gives each worker one.
            client.submit(last_byte, (Bytes::from_static(&[7]), HOLD.as_millis() as u64)).result()?;
            figures.insert("scatter2_64mib_mb_s".into(), rounded(self.median(|| scatter(client, 64 << 20))?));
        }
        if self.wants("kernels_wasm_over_native") {
            let ratios = kernels::kernels(client, if self.options.quick { 1 } else { 5 })?;
            figures.insert("kernels_wasm_over_native".into(), rounded(kernels::geometric_mean(&ratios)?));
        }
        Ok(())
    }

    fn wants(&self, key: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|wanted| wanted == key)
    }

    fn scaled(&self, count: i64) -> i64 {
        if self.options.quick { count / 10 } else { count }
    }

    /// The median of five tries.
    fn median(&self, mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
        let tries = if self.options.quick { 1 } else { 5 };
        let mut figures = (0..tries).map(|_| run()).collect::<Result<Vec<_>>>()?;
        figures.sort_by(f64::total_cmp);
        Ok(figures[tries / 2])
    }

    /// In a process of its own, whose cache is empty, as are those of the workers it starts.
    fn first_result_in_a_new_process(&self) -> Result<f64> {
        eprintln!("bench: from nothing to the first result");
        let cache = tempfile::tempdir()?;
        let output = Command::new(env::current_exe()?).arg("--first-result").env("XDG_CACHE_HOME", cache.path()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

fn cluster() -> Result<LocalCluster> {
    Ok(LocalCluster::builder().workers(WORKERS).slots(1).processes().start()?)
}

/// Milliseconds from before a cluster's processes start to the first result.
fn first_result() -> Result<f64> {
    let start = Instant::now();
    let cluster = cluster()?;
    let client = cluster.client()?;
    ensure!(client.submit(inc, black_box(1)).result()? == 2, "1 + 1 is 2");
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Microseconds of one call after the other: the median, and what one in a hundred exceeds.
fn roundtrips(client: &Client, count: i64) -> Result<(f64, f64)> {
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
fn map(client: &Client, count: i64) -> Result<f64> {
    eprintln!("bench: a map over {count} items");
    let start = Instant::now();
    let results = client.gather(client.map(inc, (0..count).map(black_box)))?;
    let elapsed = start.elapsed();
    ensure!(results.iter().copied().eq(1..=count), "a map over {count} items has a wrong result");
    Ok(count as f64 / elapsed.as_secs_f64())
}

/// Items a second of a lazy map whose results are looked at one by one.
fn batched(client: &Client, count: i64) -> Result<f64> {
    eprintln!("bench: a lazy map over {count} items");
    let start = Instant::now();
    let mut expected = 1;
    for result in client.batched_map(inc, (0..count).map(black_box)) {
        let result = result?;
        ensure!(result == expected, "item {} is not {result}", expected - 1);
        expected += 1;
    }
    ensure!(expected == count + 1, "{count} items went in, {} came out", expected - 1);
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Megabytes a second that reach a worker each, from encoding to both workers having read the data.
fn scatter(client: &Client, len: usize) -> Result<f64> {
    eprintln!("bench: {len} bytes to {WORKERS} workers");
    let data = Bytes::from(black_box(vec![7; len]));
    let start = Instant::now();
    let scattered = client.scatter(data);
    let hold_ms = HOLD.as_millis() as u64;
    let calls: Vec<_> = (0..WORKERS).map(|_| client.submit(last_byte, (&scattered, hold_ms))).collect();
    let results = client.gather(calls)?;
    let elapsed = start.elapsed();
    ensure!(results == [7; WORKERS], "the data did not arrive");
    if elapsed >= HOLD * 2 {
        bail!("the two calls ran on one worker, one after the other");
    }
    Ok((len * WORKERS) as f64 / 1e6 / (elapsed - HOLD).as_secs_f64())
}

/// Bytes of the module that the quick start carries; it lies beside this program.
fn module_bytes() -> Result<u64> {
    let program = env::current_exe()?.with_file_name(format!("quickstart{}", env::consts::EXE_SUFFIX));
    let dir = tempfile::tempdir()?;
    let file: PathBuf = dir.path().join("quickstart.wasm");
    let status = Command::new(&program).args([OsStr::new("--module"), file.as_os_str()]).status();
    let status = status.with_context(|| format!("{} could not be started", program.display()))?;
    ensure!(status.success(), "{} could not write its module", program.display());
    Ok(file.metadata()?.len())
}

/// Three digits say enough.
fn rounded(value: f64) -> Value {
    let exponent = value.max(1.0).log10() as i32 - 2;
    let unit = 10_f64.powi(exponent.abs());
    match exponent {
        1.. => json!(((value / unit).round() * unit) as u64),
        _ => json!((value * unit).round() / unit),
    }
}
