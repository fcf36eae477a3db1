//! The scheduler's events, with two workers that answer at once.

use std::{collections::VecDeque, time::Duration};

use quicsand::{
    codec::{Args, Hole, Lens, Run, Source, Span},
    ids::{ClientId, EntryId, Hash, Identity, WorkerId},
    scheduler::{Action, Config, Event, Passport, Scheduler},
    wire::{Assignment, FromClient, FromWorker, Load, Outcome, ToWorker, WorkerHello},
};

use super::{
    ITEMS,
    codec::integers,
    frames::{one_item, spec},
};

/// Calls in one run.
pub(super) const CALLS: u32 = 1000;
const CLIENT: ClientId = ClientId(1);

/// Calls, each of which is done before the next one comes.
pub(super) fn calls() -> Box<dyn FnMut()> {
    let mut track = Track::new();
    Box::new(move || {
        for _ in 0..CALLS {
            let seq = track.call(Vec::new());
            track.finish_all();
            track.release(seq, 1);
        }
        track.end();
    })
}

/// As many calls before the first one is done.
pub(super) fn backlog() -> Box<dyn FnMut()> {
    let mut track = Track::new();
    Box::new(move || {
        let first = track.next_seq;
        (0..CALLS).for_each(|_| {
            track.call(Vec::new());
        });
        track.finish_all();
        (first..track.next_seq).for_each(|seq| track.release(seq, 1));
        track.end();
    })
}

/// Calls, every other one of which reads the one before it, which is not done yet.
pub(super) fn dependents() -> Box<dyn FnMut()> {
    let mut track = Track::new();
    Box::new(move || {
        for _ in 0..CALLS / 2 {
            let read = track.call(Vec::new());
            let source = Source::Same(EntryId { client: CLIENT, seq: read }.key(0));
            let reader = track.call(vec![Hole { first: 0, count: 1, field: 0, source }]);
            track.finish_all();
            track.release(read, 1);
            track.release(reader, 1);
        }
        track.end();
    })
}

/// A map of one message's items.
pub(super) fn map() -> Box<dyn FnMut()> {
    let mut track = Track::new();
    let args = Args { run: integers(), holes: Vec::new() };
    Box::new(move || {
        let seq = track.new_seq();
        track.say(FromClient::Map { seq, spec: spec() });
        track.say(FromClient::Items { seq, args: args.clone() });
        track.say(FromClient::Close { seq });
        track.finish_all();
        track.release(seq, u64::from(ITEMS));
        track.end();
    })
}

struct Track {
    scheduler: Scheduler,
    now: Duration,
    next_seq: u64,
    actions: Vec<Action>,
    assigned: VecDeque<(WorkerId, Assignment)>,
    /// A result of one byte for each item of the longest batch.
    results: Run,
}

impl Track {
    fn new() -> Self {
        let results = vec![42; ITEMS as usize].into();
        let mut track = Self {
            scheduler: Scheduler::new(Config::default()),
            now: Duration::ZERO,
            next_seq: 1,
            actions: Vec::new(),
            assigned: VecDeque::new(),
            results: Run::checked(ITEMS, Lens::Same(1), results).expect("it agrees with itself"),
        };
        track.event(Event::ClientJoined {
            client: CLIENT,
            who: Identity([9; 16]),
            module: Hash([0; 32]),
            passport: Passport::default(),
        });
        for worker in 1..=2 {
            let hello = WorkerHello { slots: 1, incarnation: worker, ..WorkerHello::default() };
            let who = Identity([worker as u8; 16]);
            track.event(Event::WorkerJoined { worker: WorkerId(worker), who, name: String::new(), hello });
        }
        track
    }

    /// What workers are given is kept; what a client is told is dropped, as if it had been written.
    fn event(&mut self, event: Event) {
        self.now += Duration::from_micros(10);
        self.scheduler.handle(self.now, event, &mut self.actions);
        for action in self.actions.drain(..) {
            if let Action::ToWorker(worker, ToWorker::Assign(assignment)) = action {
                self.assigned.push_back((worker, assignment));
            }
        }
    }

    fn say(&mut self, message: FromClient) {
        self.event(Event::FromClient(CLIENT, message));
    }

    fn new_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    fn call(&mut self, holes: Vec<Hole>) -> u64 {
        let seq = self.new_seq();
        self.say(FromClient::Call { seq, spec: spec(), args: Args { holes, ..one_item() } });
        seq
    }

    fn release(&mut self, seq: u64, count: u64) {
        self.say(FromClient::Release { span: Span { entry: EntryId { client: CLIENT, seq }, first: 0, count } });
    }

    /// Answers whatever is assigned until nothing is.
    fn finish_all(&mut self) {
        while let Some((worker, assignment)) = self.assigned.pop_front() {
            let count = assignment.args.count();
            let outcome = Outcome {
                first: 0,
                values: self.results.slice(0..count),
                stored: Vec::new(),
                errors: Vec::new(),
                dropped: Vec::new(),
            };
            let elapsed = Duration::from_nanos(u64::from(count) * 500);
            self.event(Event::FromWorker(worker, FromWorker::Finished { run: assignment.run, outcome, elapsed }));
        }
    }

    /// Ends a run: nothing is left of it, and both workers are alive, the one that had nothing to do, too.
    fn end(&mut self) {
        for worker in 1..=2 {
            self.event(Event::FromWorker(WorkerId(worker), FromWorker::Heartbeat(Load::default())));
        }
        let status = self.scheduler.status();
        assert!(status.clients.iter().all(|client| client.entries == 0), "entries are left");
        assert!(status.workers.len() == 2 && self.assigned.is_empty(), "a worker is gone, or was not heard");
    }
}
