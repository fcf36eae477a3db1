//! How fast the machine alone is. Not a measurement: only what would be embarrassing fails.

use std::time::{Duration, Instant};

use super::lab::{CLIENT, args, entry, outcome, same, span, spec, spec_for, values};
use crate::{
    codec::{Hole, Source},
    ids::{ClientId, Hash, WorkerId},
    scheduler::{Action, Config, Event, Scheduler},
    wire::{FromClient, FromWorker, ToWorker, WorkerHello},
};

/// A scheduler whose two workers answer at once; gives back how long the machine itself took.
struct Track {
    scheduler: Scheduler,
    spent: Duration,
    now: Duration,
}

impl Track {
    fn new() -> Self {
        let mut track = Self { scheduler: Scheduler::new(Config::default()), spent: Duration::ZERO, now: Duration::ZERO };
        track.event(Event::ClientJoined {
            client: ClientId(1),
            who: super::lab::identity(9),
            module: Hash([0; 32]),
            passport: crate::scheduler::Passport::default(),
        });
        for worker in 1..=2 {
            let hello = WorkerHello { slots: 1, ..WorkerHello::default() };
            let who = super::lab::identity(worker);
            track.event(Event::WorkerJoined { worker: WorkerId(worker), who, name: String::new(), hello });
        }
        track
    }

    fn event(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        let mut actions = Vec::new();
        while let Some(event) = events.pop_front() {
            self.now += Duration::from_micros(10);
            let start = Instant::now();
            self.scheduler.handle(self.now, event, &mut actions);
            self.spent += start.elapsed();
            for action in actions.drain(..) {
                let Action::ToWorker(worker, ToWorker::Assign(assignment)) = action else { continue };
                let count = assignment.args.count();
                let elapsed = Duration::from_nanos(u64::from(count) * 500);
                let finished = FromWorker::Finished { run: assignment.run, outcome: outcome(0, values(count)), elapsed };
                events.push_back(Event::FromWorker(worker, finished));
            }
        }
    }

    fn client(&mut self, message: FromClient) {
        self.event(Event::FromClient(CLIENT, message));
    }

    /// Nanoseconds per item.
    fn end(self, name: &str, items: u32) -> u32 {
        assert!(self.scheduler.entries.is_empty(), "{name}: something is left");
        let nanos = (self.spent / items).as_nanos() as u32;
        println!("{name}: {nanos} ns an item");
        nanos
    }
}

#[test]
fn maps_cost_nanoseconds_an_item() {
    let mut track = Track::new();
    track.client(FromClient::Map { seq: 1, spec: spec("f") });
    for _ in 0..200 {
        track.client(FromClient::Items { seq: 1, args: args(8192, Vec::new()) });
    }
    track.client(FromClient::Close { seq: 1 });
    track.client(FromClient::Release { span: span(1, 0, 200 * 8192) });
    assert!(track.end("map", 200 * 8192) < 1000);
}

#[test]
fn maps_over_maps_do_too() {
    let mut track = Track::new();
    for seq in 1..=2 {
        track.client(FromClient::Map { seq, spec: spec("f") });
    }
    for chunk in 0..50 {
        let each = Hole { first: 0, count: 8192, field: 0, source: Source::Each { entry: entry(1), first: chunk * 8192 } };
        track.client(FromClient::Items { seq: 2, args: args(8192, vec![each]) });
    }
    for _ in 0..50 {
        track.client(FromClient::Items { seq: 1, args: args(8192, Vec::new()) });
    }
    for seq in 1..=2 {
        track.client(FromClient::Close { seq });
        track.client(FromClient::Release { span: span(seq, 0, 50 * 8192) });
    }
    assert!(track.end("map over map", 100 * 8192) < 3000);
}

#[test]
fn calls_cost_microseconds() {
    let mut track = Track::new();
    for seq in 1..=100_000 {
        let holes = if seq % 2 == 0 { vec![same(seq - 1, 0)] } else { Vec::new() };
        track.client(FromClient::Call { seq, spec: spec("f"), args: args(1, holes) });
    }
    for seq in 1..=100_000 {
        track.client(FromClient::Release { span: span(seq, 0, 1) });
    }
    assert!(track.end("call", 100_000) < 100_000);
}

/// What waits for a worker that is not here costs nothing when something else happens.
#[test]
fn calls_cost_no_more_beside_many_that_nobody_can_run() {
    let mut track = Track::new();
    let blocked = 100_000;
    for seq in 1..=blocked {
        let spec = spec_for(["zone=b", "gpu=1", "zone=c gpu=4"][seq as usize % 3]);
        track.client(FromClient::Call { seq, spec, args: args(1, Vec::new()) });
    }
    track.spent = Duration::ZERO;
    for seq in blocked + 1..=2 * blocked {
        track.client(FromClient::Call { seq, spec: spec("f"), args: args(1, Vec::new()) });
        track.client(FromClient::Release { span: span(seq, 0, 1) });
    }
    let spent = track.spent;
    for seq in 1..=blocked {
        track.client(FromClient::Release { span: span(seq, 0, 1) });
    }
    track.spent = spent;
    assert!(track.end("call beside blocked ones", blocked as u32) < 100_000);
}
