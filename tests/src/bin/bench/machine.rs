//! The scheduler's state machine alone, with workers that answer at once. Owns: the clock around its events. Messages are made before, and
//! what it says is looked at after, a block of them at a time: the clock costs as much as an event.

use std::{
    collections::{BTreeMap, VecDeque},
    hint::black_box,
    mem,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use quicsand::{
    Options,
    codec::{Args, Hole, Run, RunBuilder, Source, Span},
    ids::{ClientId, EntryId, Hash, Identity, TaskId, WorkerId},
    scheduler::{Action, Config, Event, Passport, Scheduler},
    wire::{CallSpec, FromClient, FromWorker, Outcome, SharedSpec, ToWorker, WorkerHello},
};

const CLIENT: ClientId = ClientId(1);
/// Events that are timed at a time.
const BLOCK: usize = 256;
/// Items of one message of a map.
const CHUNK: u32 = 8192;
/// Bytes of an item's arguments, and of its result.
const ITEM_BYTES: usize = 3;
/// What a worker says that an item took.
const ITEM: Duration = Duration::from_nanos(500);

/// Events a second: submits and finished calls of single calls, finished batches of a map.
#[derive(Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) submits: f64,
    pub(crate) calls: f64,
    pub(crate) batches: f64,
}

impl Rates {
    pub(crate) fn slowest(self) -> f64 {
        self.submits.min(self.calls).min(self.batches)
    }

    /// The most by which an event costs more than one of those.
    pub(crate) fn growth_from(self, few: Self) -> f64 {
        (few.submits / self.submits).max(few.calls / self.calls).max(few.batches / self.batches)
    }
}

/// With so many workers of one slot each.
pub(crate) fn rates(workers: u64, calls: u64, items: u64) -> Result<Rates> {
    eprintln!("bench: the scheduler's machine, {workers} workers, {calls} calls, {items} items");
    let (submits, finished) = single_calls(workers, calls)?;
    Ok(Rates { submits, calls: finished, batches: batches(workers, items)? })
}

fn single_calls(workers: u64, calls: u64) -> Result<(f64, f64)> {
    let mut track = Track::new(workers);
    let mut submits = Clock::default();
    let mut seq = 0;
    while seq < calls {
        for _ in 0..(calls - seq).min(BLOCK as u64) {
            seq += 1;
            let before = EntryId { client: CLIENT, seq: seq - 1 }.key(0);
            let hole = Hole { first: 0, count: 1, field: 0, source: Source::Same(before) };
            let holes = if seq % 2 == 0 { vec![hole] } else { Vec::new() };
            let args = Args { run: track.values(1), holes };
            track.say(FromClient::Call { seq, spec: spec(), args });
        }
        track.handle(&mut submits);
    }
    let mut finished = Clock::default();
    track.work(&mut finished);
    ensure!((submits.events, finished.items) == (calls, calls), "calls were lost");
    for seq in 1..=calls {
        track.release(seq, 1);
    }
    track.end()?;
    Ok((submits.rate(), finished.rate()))
}

fn batches(workers: u64, items: u64) -> Result<f64> {
    let mut track = Track::new(workers);
    let mut finished = Clock::default();
    track.say(FromClient::Map { seq: 1, spec: spec() });
    let mut sent = 0;
    while sent < items {
        let count = (items - sent).min(u64::from(CHUNK)) as u32;
        let args = Args { run: track.values(count), holes: Vec::new() };
        track.say(FromClient::Items { seq: 1, args });
        track.handle(&mut Clock::default());
        sent += u64::from(count);
    }
    track.say(FromClient::Close { seq: 1 });
    track.handle(&mut Clock::default());
    track.work(&mut finished);
    ensure!(finished.items == items, "items were lost");
    track.release(1, items);
    track.end()?;
    Ok(finished.rate())
}

#[derive(Default)]
struct Clock {
    spent: Duration,
    events: u64,
    items: u64,
}

impl Clock {
    fn rate(&self) -> f64 {
        self.events as f64 / self.spent.as_secs_f64()
    }
}

struct Track {
    scheduler: Scheduler,
    now: Duration,
    /// What is to be handled next. This list and the next one are filled again and again, as those of the scheduler's shell are: an
    /// allocator is slow for a while after it got a large block back.
    block: Vec<Event>,
    actions: Vec<Action>,
    /// What workers are about to say.
    answers: VecDeque<(u32, Event)>,
    /// Values of so many items.
    values: BTreeMap<u32, Run>,
}

impl Track {
    fn new(workers: u64) -> Self {
        // Nobody falls silent here, and nobody waits for credit.
        let config = Config { lease: Duration::MAX, client_bytes: u64::MAX / 4, credit: u64::MAX / 4, ..Config::default() };
        let mut track = Self {
            scheduler: Scheduler::new(config),
            now: Duration::ZERO,
            block: Vec::new(),
            actions: Vec::new(),
            answers: VecDeque::new(),
            values: BTreeMap::new(),
        };
        let who = identity(0);
        track.block.push(Event::ClientJoined { client: CLIENT, who, module: Hash([0; 32]), passport: Passport::default() });
        track.block.extend((1..=workers).map(|worker| {
            let hello = WorkerHello { slots: 1, memory: 1 << 30, incarnation: worker, ..WorkerHello::default() };
            Event::WorkerJoined { worker: WorkerId(worker), who: identity(worker), name: String::new(), hello }
        }));
        track.handle(&mut Clock::default());
        track
    }

    fn values(&mut self, count: u32) -> Run {
        let run = self.values.entry(count).or_insert_with(|| {
            let mut builder = RunBuilder::default();
            for item in 0..count {
                let _ = builder.push(&black_box(i64::from(item)).to_le_bytes()[..ITEM_BYTES]);
            }
            builder.take()
        });
        run.clone()
    }

    fn say(&mut self, message: FromClient) {
        self.block.push(Event::FromClient(CLIENT, message));
    }

    /// Times a block of events, then has the workers think of their answers.
    fn handle(&mut self, clock: &mut Clock) {
        clock.events += self.block.len() as u64;
        self.now += Duration::from_micros(10);
        let start = Instant::now();
        for event in self.block.drain(..) {
            self.scheduler.handle(self.now, event, &mut self.actions);
        }
        clock.spent += start.elapsed();
        let mut actions = mem::take(&mut self.actions);
        for action in actions.drain(..) {
            let Action::ToWorker(worker, ToWorker::Assign(assignment)) = action else { continue };
            let count = assignment.args.count();
            let values = self.values(count);
            let outcome = Outcome { first: 0, values, stored: Vec::new(), errors: Vec::new(), dropped: Vec::new() };
            let finished = FromWorker::Finished { run: assignment.run, outcome, elapsed: ITEM * count };
            self.answers.push_back((count, Event::FromWorker(worker, finished)));
        }
        self.actions = actions;
    }

    /// Has the workers answer until there is nothing left to do.
    fn work(&mut self, clock: &mut Clock) {
        while !self.answers.is_empty() {
            for (count, answer) in self.answers.drain(..self.answers.len().min(BLOCK)) {
                clock.items += u64::from(count);
                self.block.push(answer);
            }
            self.handle(clock);
        }
    }

    fn release(&mut self, seq: u64, count: u64) {
        let span = Span { entry: EntryId { client: CLIENT, seq }, first: 0, count };
        self.say(FromClient::Release { span });
        self.handle(&mut Clock::default());
    }

    fn end(&self) -> Result<()> {
        let left: u64 = self.scheduler.status().clients.iter().map(|client| client.held_bytes).sum();
        ensure!(left == 0, "{left} bytes are left when all is released");
        Ok(())
    }
}

fn spec() -> SharedSpec {
    CallSpec { task: TaskId::of("f"), name: "f".into(), options: Options::DEFAULT }.into()
}

fn identity(number: u64) -> Identity {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Identity(bytes)
}
