//! What failures cost: a killed worker, a killed scheduler, a million calls that came and went. Owns: the fleets of processes that are
//! maltreated for it.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use quicsand::Client;
use quicsand_tests::processes::{Announced, Process, program};

use crate::tasks::spin;

/// Calls of the measurement with a killed worker, how long each takes, and when the worker is killed.
const CALLS: u64 = 2_000;
const CALL: Duration = Duration::from_millis(5);
const KILLED_AFTER: Duration = Duration::from_millis(1_500);
/// Calls that come and go at a time.
const AT_A_TIME: u64 = 10_000;

/// A scheduler and workers of one slot each.
struct Fleet {
    announced: Announced,
    workers: Vec<Process>,
    scheduler: Option<Process>,
    directory: tempfile::TempDir,
}

impl Fleet {
    fn start(workers: usize) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (scheduler, announced) = scheduler(directory.path(), SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let started = (0..workers).map(|number| {
            let mut command = Command::new(program("quicsand"));
            command.args(["worker", &announced.address, "--slots", "1", "--log-level", "warn"]);
            command
                .env("QUICSAND_TOKEN", &announced.worker_token)
                .env("QUICSAND_STATE", directory.path().join(number.to_string()));
            Ok(Process::start(&mut command, &directory.path().join("workers.log"))?.0)
        });
        let workers = started.collect::<Result<_>>()?;
        Ok(Self { announced, workers, scheduler: Some(scheduler), directory })
    }

    fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.announced.address, &self.announced.client_token)?)
    }
}

fn scheduler(directory: &Path, listen: SocketAddr) -> Result<(Process, Announced)> {
    let mut command = Command::new(program("quicsand"));
    command.args(["scheduler", "--listen", &listen.to_string(), "--log-level", "warn"]);
    command.arg("--state").arg(directory.join("state")).arg("--journal").arg(directory.join("journal"));
    let (scheduler, announced) = Process::start(&mut command, &directory.join("scheduler.log"))?;
    Ok((scheduler, Announced::read(&announced)?))
}

/// Seconds by which calls take longer when one of two workers is killed, and how many of them are beyond what the other worker needs for the
/// killed one's part.
pub(crate) fn killed_worker() -> Result<(f64, f64)> {
    eprintln!("bench: {CALLS} calls of {} ms, and a worker that is killed", CALL.as_millis());
    let mut fleet = Fleet::start(2)?;
    let client = fleet.client()?;
    let run = |victim: Option<Process>| -> Result<(f64, f64)> {
        let start = Instant::now();
        let calls = client.map(spin, (0..CALLS).map(|x| (x, CALL.as_micros() as u64)));
        let mut share = 0.0;
        if let Some(victim) = victim {
            thread::sleep(KILLED_AFTER);
            // What is left then takes twice as long.
            share = pending(client.counts(&calls)?) as f64 * CALL.as_secs_f64() / 2.0;
            victim.kill()?;
        }
        ensure!(client.gather(&calls)?.into_iter().eq(0..CALLS), "a result is wrong");
        Ok((start.elapsed().as_secs_f64(), share))
    };
    let (undisturbed, _) = run(None)?;
    let (disturbed, share) = run(fleet.workers.pop())?;
    let extra = disturbed - undisturbed;
    Ok((extra, extra - share))
}

fn pending(counts: quicsand::wire::StateCounts) -> u64 {
    counts.waiting + counts.queued + counts.processing
}

/// Milliseconds from killing a scheduler, which is started again at once, to the next result.
pub(crate) fn killed_scheduler() -> Result<f64> {
    eprintln!("bench: a scheduler that is killed and started again");
    let mut fleet = Fleet::start(2)?;
    let client = fleet.client()?;
    client.gather(client.map(spin, (0..100).map(|x| (x, 10))))?;
    let waiting = client.submit(spin, (7, 200_000));
    let start = Instant::now();
    fleet.scheduler.take().context("a scheduler")?.kill()?;
    let (scheduler, _) = scheduler(fleet.directory.path(), fleet.announced.address.parse()?)?;
    fleet.scheduler = Some(scheduler);
    ensure!(waiting.result()? == 7, "a result is wrong");
    // The call itself is not what is measured.
    Ok((start.elapsed().as_secs_f64() - 0.2) * 1e3)
}

/// Mebibytes of a scheduler's memory before and after so many calls came and went.
pub(crate) fn passing_calls(count: u64) -> Result<(f64, f64)> {
    eprintln!("bench: a scheduler's memory before and after {count} calls");
    let fleet = Fleet::start(2)?;
    let client = fleet.client()?;
    let round = |count: u64| -> Result<()> {
        let calls: Vec<_> = (0..count).map(|x| client.submit(spin, (x, 0))).collect();
        ensure!(client.gather(calls)?.into_iter().eq(0..count), "a result is wrong");
        Ok(())
    };
    let mebibytes =
        || -> Result<f64> { Ok(fleet.scheduler.as_ref().context("a scheduler")?.usage()?.resident_kib as f64 / 1024.0) };
    round(AT_A_TIME)?;
    let before = mebibytes()?;
    for _ in 0..count / AT_A_TIME {
        round(AT_A_TIME)?;
    }
    Ok((before, mebibytes()?))
}
