//! A scheduler with peers that are written by hand: for examples. Checks every invariant after every event.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Options, Requirements, TaskError, TaskErrorKind,
    codec::{Args, Hole, Lens, Run, Source, Span},
    ids::{ClientId, EntryId, Hash, Identity, Key, RunId, TaskId, WorkerId},
    scheduler::{Action, Config, Departure, Event, Scheduler},
    wire::{
        Assignment, CallSpec, FromClient, FromWorker, ItemError, Outcome, SharedSpec, Stored, ToClient, ToWorker, WorkerHello,
    },
};

pub(super) const CLIENT: ClientId = ClientId(1);

pub(super) struct Lab {
    pub(super) scheduler: Scheduler,
    pub(super) now: Duration,
    /// What was said, since it was last taken.
    pub(super) actions: Vec<Action>,
}

impl Lab {
    /// A scheduler with one client.
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        let mut lab = Self { scheduler: Scheduler::new(config), now: Duration::ZERO, actions: Vec::new() };
        lab.event(Event::ClientJoined {
            client: CLIENT,
            who: identity(100),
            module: Hash([7; 32]),
            passport: crate::scheduler::Passport::default(),
        });
        lab
    }

    pub(super) fn event(&mut self, event: Event) {
        self.scheduler.handle(self.now, event, &mut self.actions);
        self.scheduler.check();
    }

    pub(super) fn client(&mut self, message: FromClient) {
        self.event(Event::FromClient(CLIENT, message));
    }

    pub(super) fn worker(&mut self, worker: u64, message: FromWorker) {
        self.event(Event::FromWorker(WorkerId(worker), message));
    }

    /// Lets a worker in that others can reach.
    pub(super) fn join(&mut self, worker: u64, slots: u32) {
        self.join_with(worker, slots, "");
    }

    /// Lets a worker in that has this: labels and resources as one writes them, `zone=a gpu=1`.
    pub(super) fn join_with(&mut self, worker: u64, slots: u32, offer: &str) {
        self.join_as(worker, worker, slots, offer, 0);
    }

    /// Worker `process` comes back, with another number and so many values.
    pub(super) fn rejoin(&mut self, worker: u64, process: u64, slots: u32, keeps: u64) {
        self.join_as(worker, process, slots, "", keeps);
    }

    fn join_as(&mut self, worker: u64, process: u64, slots: u32, offer: &str, keeps: u64) {
        let offer = requirements(offer);
        let hello = WorkerHello {
            slots,
            memory: u64::from(slots) << 30,
            arch: "x86_64".into(),
            listen: Some(([127, 0, 0, 1], worker as u16).into()),
            grant_secret: [worker as u8; 32],
            labels: offer.labels().map(|(name, value)| (name.into(), value.into())).collect(),
            resources: offer.resources().map(|(name, amount)| (name.into(), amount)).collect(),
            incarnation: process,
            keeps,
        };
        let name = format!("w{process}");
        self.event(Event::WorkerJoined { worker: WorkerId(worker), who: identity(process), name, hello });
    }

    /// A worker's process is known to have ended.
    pub(super) fn leave(&mut self, worker: u64) {
        self.depart(worker, Departure::Died);
    }

    pub(super) fn depart(&mut self, worker: u64, departure: Departure) {
        self.event(Event::WorkerLeft { worker: WorkerId(worker), departure });
    }

    /// Time goes by, with a tick whenever one is due.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.scheduler.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.event(Event::Tick);
        }
        self.now = end;
        self.event(Event::Tick);
    }

    /// As [`wait`](Self::wait), while these workers say that they are there.
    pub(super) fn wait_with(&mut self, time: Duration, workers: &[u64]) {
        let end = self.now + time;
        while self.now < end {
            workers.iter().for_each(|&worker| self.worker(worker, FromWorker::Heartbeat(Default::default())));
            self.wait(Duration::from_millis(100).min(end - self.now));
        }
    }

    pub(super) fn call(&mut self, seq: u64, holes: Vec<Hole>) {
        self.client(FromClient::Call { seq, spec: spec("f"), args: args(1, holes) });
    }

    /// A call that asks for this.
    pub(super) fn call_for(&mut self, seq: u64, requires: &str, holes: Vec<Hole>) {
        self.client(FromClient::Call { seq, spec: spec_for(requires), args: args(1, holes) });
    }

    /// Why the items of an entry wait: how many, and the reason.
    pub(super) fn why(&mut self, seq: u64) -> Vec<(u64, String)> {
        self.client(FromClient::Explain { query: 9, spans: vec![span(seq, 0, 1 << 20)] });
        match self.told().pop() {
            Some(ToClient::Explained { query: 9, waiting }) => waiting.into_iter().map(|all| (all.items, all.why)).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// A closed map.
    pub(super) fn map(&mut self, seq: u64, count: u32) {
        self.client(FromClient::Map { seq, spec: spec("f") });
        self.client(FromClient::Items { seq, args: args(count, Vec::new()) });
        self.client(FromClient::Close { seq });
    }

    pub(super) fn release(&mut self, seq: u64, first: u64, count: u64) {
        self.client(FromClient::Release { span: span(seq, first, count) });
    }

    pub(super) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What the client was told since the last look; credit left out.
    pub(super) fn told(&mut self) -> Vec<ToClient> {
        let (told, rest) = self.take().into_iter().partition(|action| matches!(action, Action::ToClient(..)));
        self.actions = rest;
        let messages = Vec::into_iter(told).filter_map(|action| match action {
            Action::ToClient(_, ToClient::Credit { .. }) => None,
            Action::ToClient(_, message) => Some(message),
            _ => None,
        });
        messages.collect()
    }

    /// What workers were told since the last look.
    pub(super) fn ordered(&mut self) -> Vec<(u64, ToWorker)> {
        let (told, rest) = self.take().into_iter().partition(|action| matches!(action, Action::ToWorker(..)));
        self.actions = rest;
        let messages = Vec::into_iter(told).filter_map(|action| match action {
            Action::ToWorker(worker, message) => Some((worker.0, message)),
            _ => None,
        });
        messages.collect()
    }

    /// The assignments since the last look, with their workers.
    pub(super) fn assigned(&mut self) -> Vec<(u64, Assignment)> {
        let assignments = self.ordered().into_iter().filter_map(|(worker, message)| match message {
            ToWorker::Assign(assignment) => Some((worker, assignment)),
            _ => None,
        });
        assignments.collect()
    }

    /// The one assignment since the last look.
    pub(super) fn assignment(&mut self) -> (u64, Assignment) {
        let mut all = self.assigned();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    pub(super) fn start(&mut self, worker: u64, run: RunId) {
        self.worker(worker, FromWorker::Started { run });
    }

    /// All items of a run have results of one byte.
    pub(super) fn finish(&mut self, worker: u64, assignment: &Assignment) {
        self.finish_part(worker, assignment.run, 0, assignment.args.count());
    }

    pub(super) fn finish_part(&mut self, worker: u64, run: RunId, first: u32, count: u32) {
        let outcome = outcome(first, values(count));
        self.worker(worker, FromWorker::Finished { run, outcome, elapsed: Duration::from_millis(1) });
    }

    /// Finishes everything that is or becomes assigned, each batch in the given time; gives the batches.
    pub(super) fn finish_all(&mut self, time: impl Fn(u32) -> Duration) -> Vec<Assignment> {
        let (mut all, mut next) = (self.assigned(), 0);
        while let Some((worker, assignment)) = all.get(next).cloned() {
            let outcome = outcome(0, values(assignment.args.count()));
            let elapsed = time(assignment.args.count());
            self.worker(worker, FromWorker::Finished { run: assignment.run, outcome, elapsed });
            all.extend(self.assigned());
            next += 1;
        }
        all.into_iter().map(|(_, assignment)| assignment).collect()
    }

    /// The only item of a run has a result that stays on the worker.
    pub(super) fn finish_stored(&mut self, worker: u64, run: RunId) {
        let mut outcome = outcome(0, Run::single(Bytes::new()).expect("short"));
        outcome.stored.push(Stored { item: 0, len: 100_000, hash: Hash([1; 32]) });
        self.worker(worker, FromWorker::Finished { run, outcome, elapsed: Duration::from_millis(1) });
    }

    /// The only item of a run failed.
    pub(super) fn fail(&mut self, worker: u64, run: RunId) {
        let mut outcome = outcome(0, Run::single(Bytes::new()).expect("short"));
        let error = TaskError::new(TaskErrorKind::Panicked, "", key(0, 0), "boom");
        outcome.errors.push(ItemError { item: 0, error });
        self.worker(worker, FromWorker::Finished { run, outcome, elapsed: Duration::from_millis(1) });
    }

    pub(super) fn is_empty(&self) -> bool {
        let (scheduler, status) = (&self.scheduler, self.scheduler.status());
        scheduler.entries.is_empty()
            && scheduler.edges.iter().next().is_none()
            && scheduler.shapes.iter().all(|(_, shape)| !shape.is_ready())
            && scheduler.runs.is_empty()
            && status.workers.iter().all(|worker| worker.assignments == 0 && worker.values == 0)
            && status.clients.iter().all(|client| client.held_bytes == 0)
    }
}

pub(super) fn identity(number: u64) -> Identity {
    Identity([number as u8; 16])
}

pub(super) fn entry(seq: u64) -> EntryId {
    EntryId { client: CLIENT, seq }
}

pub(super) fn key(seq: u64, index: u64) -> Key {
    entry(seq).key(index)
}

pub(super) fn span(seq: u64, first: u64, count: u64) -> Span {
    Span { entry: entry(seq), first, count }
}

pub(super) fn spec(name: &str) -> SharedSpec {
    CallSpec { task: TaskId::of(name), name: name.into(), options: Options::DEFAULT }.into()
}

pub(super) fn spec_with(options: Options) -> SharedSpec {
    CallSpec { task: TaskId::of("f"), name: "f".into(), options }.into()
}

/// A call that asks for this.
pub(super) fn spec_for(requires: &str) -> SharedSpec {
    spec_with(Options { requires: requirements(requires), ..Options::DEFAULT })
}

/// `zone=a gpu=1`
pub(super) fn requirements(text: &str) -> Requirements {
    let mut requires = Requirements::NONE;
    for (name, value) in text.split_whitespace().filter_map(|pair| pair.split_once('=')) {
        match value.parse() {
            Ok(amount) => requires.set_resource(name.to_owned(), amount),
            Err(_) => requires.set_label(name.to_owned(), value.to_owned()),
        }
    }
    requires
}

/// Values of one byte each: x.
pub(super) fn values(count: u32) -> Run {
    Run::checked(count, Lens::Same(1), vec![b'x'; count as usize].into()).expect("agrees")
}

pub(super) fn outcome(first: u32, values: Run) -> Outcome {
    Outcome { first, values, stored: Vec::new(), errors: Vec::new(), dropped: Vec::new() }
}

pub(super) fn args(count: u32, holes: Vec<Hole>) -> Args {
    Args { run: values(count), holes }
}

/// A hole of one item.
pub(super) fn hole(source: Source) -> Hole {
    Hole { first: 0, count: 1, field: 0, source }
}

pub(super) fn same(seq: u64, index: u64) -> Hole {
    hole(Source::Same(key(seq, index)))
}
