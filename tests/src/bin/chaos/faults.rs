//! What is done to the fleet: one fault after the other, at random. Owns: which fault comes next, how long it lasts, and that everything is
//! mended at the end. Must not know: what runs on the fleet.

use std::{
    collections::BTreeMap,
    io::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use quicsand_tests::{
    processes::Process,
    relay::{Relay, Weather},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{fleet::Fleet, visitor::Visitor};

/// Between two faults, at most.
const PAUSE_MS: u64 = 2_500;
/// A fault lasts so long, at most.
const FAULT_MS: u64 = 4_000;

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillWorker,
    FreezeWorker,
    DrainWorker,
    CutWorker,
    SpoilWorker,
    CutClient,
    SpoilClient,
    KillScheduler,
    FreezeScheduler,
    KillClient,
}

const FAULTS: [Fault; 10] = [
    Fault::KillWorker,
    Fault::FreezeWorker,
    Fault::DrainWorker,
    Fault::CutWorker,
    Fault::SpoilWorker,
    Fault::CutClient,
    Fault::SpoilClient,
    Fault::KillScheduler,
    Fault::FreezeScheduler,
    Fault::KillClient,
];

/// Something that is to be undone at its time.
enum Cure {
    StartWorker(usize),
    ThawWorker(usize),
    ClearWorker(usize),
    ClearClient(usize),
    StartScheduler,
    ThawScheduler,
}

pub(crate) struct Faults<'a> {
    fleet: &'a mut Fleet,
    clients: &'a [Relay],
    has_journal: bool,
    random: Pcg64Mcg,
    cures: Vec<(Instant, Cure)>,
    visitor: Option<Visitor>,
    start: Instant,
    diary: std::fs::File,
    pub(crate) injected: BTreeMap<String, u64>,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(fleet: &'a mut Fleet, clients: &'a [Relay], has_journal: bool, seed: u64, diary: std::fs::File) -> Self {
        Self {
            fleet,
            clients,
            has_journal,
            random: Pcg64Mcg::seed_from_u64(seed),
            cures: Vec::new(),
            visitor: None,
            start: Instant::now(),
            diary,
            injected: BTreeMap::new(),
        }
    }

    /// Does one thing after the other to the fleet until the end; then mends everything.
    pub(crate) fn run(&mut self, end: Instant) -> Result<()> {
        let mut next = Instant::now();
        while Instant::now() < end {
            self.cure(Instant::now())?;
            if Instant::now() >= next {
                self.inject()?;
                next = Instant::now() + self.random_ms(PAUSE_MS);
            }
            thread::sleep(Duration::from_millis(10));
        }
        while !self.cures.is_empty() {
            self.cure(Instant::now())?;
            thread::sleep(Duration::from_millis(10));
        }
        self.visitor = None;
        Ok(())
    }

    fn random_ms(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.random_range(0..most))
    }

    fn inject(&mut self) -> Result<()> {
        let fault = FAULTS[self.random.random_range(0..FAULTS.len())];
        let worker = self.random.random_range(0..self.fleet.workers.len());
        let client = self.random.random_range(0..self.clients.len());
        let undone = Instant::now() + self.random_ms(FAULT_MS);
        let has_worker = self.fleet.workers[worker].process.as_ref().is_some_and(|process| !process.is_frozen());
        let has_scheduler = self.fleet.scheduler.as_ref().is_some_and(|process| !process.is_frozen());
        let bad = Weather {
            lost_percent: self.random.random_range(1..15),
            delay: Duration::from_millis(self.random.random_range(0..30)),
            is_cut: false,
        };
        let cut = Weather { is_cut: true, ..Weather::default() };
        let cure = match fault {
            Fault::KillWorker if has_worker => {
                self.fleet.workers[worker].process.take().map_or(Ok(()), Process::kill)?;
                Cure::StartWorker(worker)
            }
            Fault::DrainWorker if has_worker => {
                let Some(process) = self.fleet.workers[worker].process.take() else { return Ok(()) };
                // Whatever else is done meanwhile, it may find nobody to give things back to.
                thread::spawn(move || process.end());
                Cure::StartWorker(worker)
            }
            Fault::FreezeWorker if has_worker => {
                self.fleet.workers[worker].process.as_mut().map_or(Ok(()), |process| process.freeze(true))?;
                Cure::ThawWorker(worker)
            }
            Fault::CutWorker => {
                self.fleet.workers[worker].relay.set(cut);
                Cure::ClearWorker(worker)
            }
            Fault::SpoilWorker => {
                self.fleet.workers[worker].relay.set(bad);
                Cure::ClearWorker(worker)
            }
            Fault::CutClient => {
                self.clients[client].set(cut);
                Cure::ClearClient(client)
            }
            Fault::SpoilClient => {
                self.clients[client].set(bad);
                Cure::ClearClient(client)
            }
            Fault::KillScheduler if has_scheduler && self.has_journal => {
                self.fleet.scheduler.take().map_or(Ok(()), Process::kill)?;
                Cure::StartScheduler
            }
            Fault::FreezeScheduler if has_scheduler => {
                self.fleet.scheduler.as_mut().map_or(Ok(()), |process| process.freeze(true))?;
                Cure::ThawScheduler
            }
            Fault::KillClient => {
                // The one that is here is killed, and another one comes.
                self.visitor = Some(Visitor::start(&self.clients[client], self.fleet.client_token())?);
                *self.injected.entry(format!("{fault:?}")).or_default() += 1;
                self.note(&format!("{fault:?} client {client}"));
                return Ok(());
            }
            // What is not there cannot be hurt.
            _ => return Ok(()),
        };
        self.note(&format!(
            "{fault:?} worker {worker} client {client} for {:?}",
            undone.saturating_duration_since(Instant::now())
        ));
        *self.injected.entry(format!("{fault:?}")).or_default() += 1;
        self.cures.push((undone, cure));
        Ok(())
    }

    fn cure(&mut self, now: Instant) -> Result<()> {
        let (due, later) = std::mem::take(&mut self.cures).into_iter().partition(|(at, _)| *at <= now);
        self.cures = later;
        let due: Vec<(Instant, Cure)> = due;
        self.fleet.restart_workers()?;
        for (_, cure) in due {
            match cure {
                Cure::StartWorker(worker) => self.fleet.start_worker(worker)?,
                Cure::ThawWorker(worker) => {
                    if let Some(process) = &mut self.fleet.workers[worker].process {
                        process.freeze(false)?;
                    }
                }
                Cure::ClearWorker(worker) => self.fleet.workers[worker].relay.set(Weather::default()),
                Cure::ClearClient(client) => self.clients[client].set(Weather::default()),
                Cure::StartScheduler => {
                    self.fleet.start_scheduler()?;
                    self.note("the scheduler is back");
                }
                Cure::ThawScheduler => {
                    if let Some(process) = &mut self.fleet.scheduler {
                        process.freeze(false)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        // The story is for people, who can do without.
        let _ = writeln!(self.diary, "{:9.3} {text}", self.start.elapsed().as_secs_f64());
    }
}
