//! Chaos: a real fleet over loopback under a mixed load, whose parts are killed, frozen, cut off and restarted at random while every result
//! is compared with what plain sequential Rust gives. Owns: the run and its report.
//!
//! At the end nothing may be left of what went by: no call in the scheduler, no value on a worker, no process, and no more files and memory
//! than such a fleet needs.

mod faults;
mod fleet;
mod load;
mod visitor;

use std::{
    collections::BTreeMap,
    env,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use quicsand::Client;
use quicsand_tests::{
    processes::{Usage, usage},
    relay::Relay,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

use self::{
    faults::Faults,
    fleet::{Fleet, diary},
    load::{Job, Outcome},
    visitor::VISITOR,
};

/// A job that takes so long has hung.
const HUNG: Duration = Duration::from_secs(150);
/// Once everything is mended, what is over is forgotten in this time.
const QUIET: Duration = Duration::from_secs(90);
/// A process may have grown so much in the run; pools and caches grow with use, and then no more.
const GROWTH_KIB: u64 = 512 << 10;
const GROWTH_FILES: usize = 64;

/// Maltreats a fleet of this machine, and tells whether it went on doing what it should.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos")]
struct Options {
    /// How long
    #[arg(long, default_value = "2", value_name = "N")]
    minutes: f64,
    /// Decides on faults and jobs; by default the time does
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[arg(long, default_value = "3", value_name = "N")]
    workers: usize,
    #[arg(long, default_value = "2", value_name = "N")]
    clients: usize,
    /// Run the scheduler without a journal, and leave it alive
    #[arg(long)]
    no_journal: bool,
    /// Where logs are written; by default a directory that is removed if all goes well
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

#[quicsand::main]
fn main() -> Result<()> {
    if env::args().nth(1).as_deref() == Some(VISITOR) {
        return visitor::visit();
    }
    let options = Options::parse();
    let kept = tempfile::Builder::new().prefix("quicsand-chaos-").tempdir()?;
    let directory = options.logs.clone().unwrap_or_else(|| kept.path().to_owned());
    std::fs::create_dir_all(&directory)?;
    let report = run(&options, &directory);
    if report.as_ref().map_or(true, |report| report["bad"] != json!([])) && options.logs.is_none() {
        eprintln!("chaos: logs are in {}", kept.keep().display());
    }
    let report = report?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    ensure!(report["bad"] == json!([]), "not all went well");
    Ok(())
}

/// What the clients see.
#[derive(Debug, Default)]
struct Tally {
    jobs: BTreeMap<String, u64>,
    calls: u64,
    lost: u64,
    /// Everything that should not have happened.
    bad: Vec<String>,
}

/// Jobs that are under way, by client.
type Current = Mutex<Vec<Option<(Job, Instant)>>>;

fn run(options: &Options, directory: &std::path::Path) -> Result<Value> {
    let seed = options.seed.unwrap_or_else(|| Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()));
    eprintln!("chaos: seed {seed}, {} minutes", options.minutes);
    let start = Instant::now();
    let mut fleet = Fleet::start(directory, options.workers, seed, !options.no_journal)?;
    let relays = (0..options.clients).map(|number| fleet.relay(1000 + number as u64)).collect::<Result<Vec<_>>>()?;
    let token = fleet.client_token().to_owned();
    let clients: Vec<Client> = relays.iter().map(|relay| connect(relay, &token)).collect::<Result<_>>()?;
    // Everybody has done something once.
    for (client, job) in clients.iter().flat_map(|client| Job::ALL.map(|job| (client, job))) {
        let outcome = job.run(client, &mut Pcg64Mcg::seed_from_u64(seed));
        ensure!(matches!(outcome, Outcome::Right { .. }), "{job} before anything was done to the fleet: {outcome:?}");
    }
    let before = usage("self")?;
    let end = start + Duration::from_secs_f64(options.minutes * 60.0);
    let healed = AtomicBool::new(false);
    let (tally, current) = (Mutex::new(Tally::default()), Current::new(vec![None; clients.len()]));
    let mut faults = Faults::new(&mut fleet, &relays, !options.no_journal, seed, diary(directory)?);
    thread::scope(|scope| -> Result<()> {
        for (number, client) in clients.iter().enumerate() {
            let (tally, current, healed) = (&tally, &current, &healed);
            scope.spawn(move || work(client, number, seed, end, healed, tally, current));
        }
        scope.spawn(|| watch(&current, &tally, &healed));
        let injected = faults.run(end);
        healed.store(true, Ordering::Relaxed);
        injected
    })?;
    let injected = std::mem::take(&mut faults.injected);
    drop(faults);
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(clients);
    let left = settle(&mut fleet, options.workers);
    if let Err(error) = &left {
        tally.bad.push(format!("something is left: {error:#}"));
    }
    let journal_bytes = fleet.journal_bytes();
    let usages = processes(&fleet).unwrap_or_else(|error| {
        tally.bad.push(format!("a process is gone: {error:#}"));
        BTreeMap::new()
    });
    if let Err(error) = fleet.end() {
        tally.bad.push(format!("{error:#}"));
    }
    drop(relays);
    let after = usage("self")?;
    if after.resident_kib > before.resident_kib + GROWTH_KIB || after.files > before.files + GROWTH_FILES {
        tally.bad.push(format!("the clients' process has grown: {before:?}, then {after:?}"));
    }
    let processes =
        usages.iter().map(|(name, usage)| (name.clone(), json!({"rss_kib": usage.resident_kib, "files": usage.files})));
    Ok(json!({
        "seed": seed,
        "minutes": (start.elapsed().as_secs_f64() / 6.0).round() / 10.0,
        "calls": tally.calls,
        "jobs": tally.jobs,
        "faults": injected.values().sum::<u64>(),
        "faults_by_kind": injected,
        "data_lost": tally.lost,
        "processes": processes.collect::<serde_json::Map<_, _>>(),
        "clients_before": {"rss_kib": before.resident_kib, "files": before.files},
        "clients_after": {"rss_kib": after.resident_kib, "files": after.files},
        "journal_bytes": journal_bytes,
        "bad": tally.bad,
    }))
}

fn connect(relay: &Relay, token: &str) -> Result<Client> {
    Ok(Client::builder().address(&relay.address().to_string()).token(token).name("chaos").connect()?)
}

/// A client's work: one job after the other.
fn work(client: &Client, number: usize, seed: u64, end: Instant, healed: &AtomicBool, tally: &Mutex<Tally>, current: &Current) {
    let mut random = Pcg64Mcg::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64));
    let set = |job| current.lock().unwrap_or_else(PoisonError::into_inner)[number] = job;
    // On until all is mended, so that the last faults are seen out too.
    while Instant::now() < end || !healed.load(Ordering::Relaxed) {
        let job = Job::ALL[random.random_range(0..Job::ALL.len())];
        set(Some((job, Instant::now())));
        let outcome = job.run(client, &mut random);
        set(None);
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        *tally.jobs.entry(job.to_string()).or_default() += 1;
        match outcome {
            Outcome::Right { calls } => tally.calls += calls,
            Outcome::Lost(_) => tally.lost += 1,
            Outcome::Wrong(what) => tally.bad.push(format!("{job}: {what}")),
            Outcome::Failed(what) => {
                tally.bad.push(format!("{job} failed: {what}"));
                // One that is refused for good says the same for ever.
                if tally.bad.len() > 20 {
                    return;
                }
            }
        }
    }
}

/// Ends the program when a job has hung: nothing else would.
fn watch(current: &Current, tally: &Mutex<Tally>, healed: &AtomicBool) {
    loop {
        thread::sleep(Duration::from_millis(200));
        let jobs = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if healed.load(Ordering::Relaxed) && jobs.iter().all(Option::is_none) {
            return;
        }
        for (job, since) in jobs.into_iter().flatten() {
            if since.elapsed() > HUNG {
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.bad.push(format!("{job} hangs"));
                eprintln!("chaos: {job} hangs; {:?}", *tally);
                // The processes end as their standard input does, and their logs stay.
                std::process::exit(3);
            }
        }
    }
}

/// Waits until the fleet has forgotten what is over.
fn settle(fleet: &mut Fleet, workers: usize) -> Result<()> {
    let start = Instant::now();
    loop {
        fleet.restart_workers()?;
        let status = fleet.status();
        let rest = match &status {
            Ok(status) => rest(status, workers),
            Err(error) => Some(format!("{error:#}")),
        };
        match rest {
            None => return Ok(()),
            Some(rest) if start.elapsed() > QUIET => bail!(rest),
            Some(_) => thread::sleep(Duration::from_millis(250)),
        }
    }
}

/// What is left in a fleet without clients, if anything is.
fn rest(status: &Value, workers: usize) -> Option<String> {
    let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let here = list("workers");
    let busy = here
        .iter()
        .find(|worker| ["slots_busy", "held_values", "held_bytes", "assignments"].iter().any(|name| worker[name] != json!(0)));
    match busy {
        _ if !list("clients").is_empty() => Some(format!("clients: {}", status["clients"])),
        _ if here.len() != workers => Some(format!("{} workers instead of {workers}", here.len())),
        Some(worker) => Some(format!("a worker: {worker}")),
        None => None,
    }
}

fn processes(fleet: &Fleet) -> Result<BTreeMap<String, Usage>> {
    let scheduler = fleet.scheduler.as_ref().context("the scheduler is not there")?.usage()?;
    let workers =
        fleet.workers.iter().enumerate().filter_map(|(number, worker)| {
            Some(worker.process.as_ref()?.usage().map(|usage| (format!("worker {number}"), usage)))
        });
    std::iter::once(Ok(("scheduler".to_owned(), scheduler))).chain(workers).collect()
}
