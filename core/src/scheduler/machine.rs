//! The struct, and the order of work within one event. Must not know: what any single message means.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    time::Duration,
};

use super::{
    Action, Config, Event, Location,
    clients::Client,
    edges::Edges,
    entry::{Entry, queue_key},
    fleet::{Fleet, Run},
    items::State,
    queue::TaskTimes,
    refusal::Refusal,
    shapes::Shapes,
    tasks::History,
};
use crate::{
    codec::Span,
    ids::{ClientId, EntryId, Key, RunId, WorkerId},
    wire::{ToClient, ToWorker},
};

/// The scheduler: see the [module](super) for how it is driven.
///
/// Two kinds of methods change it: [`handle`](Scheduler::handle), and nothing else. The others only look.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) config: Config,
    /// Time of the event in hand.
    pub(super) now: Duration,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) entries: BTreeMap<EntryId, Box<Entry>>,
    pub(super) edges: Edges,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) fleet: Fleet,
    /// What is ready, by what it asks of a worker.
    pub(super) shapes: Shapes,
    pub(super) times: TaskTimes,
    pub(super) history: History,
    pub(super) next_run: u64,
    pub(super) next_arrival: u64,
    /// Earliest time at which a worker's lease could end.
    pub(super) lease_check: Option<Duration>,
    /// When to look again whether queued runs are to be taken back.
    pub(super) recall_check: Option<Duration>,
    /// Runs that were asked back.
    pub(super) recalled: BTreeSet<RunId>,
    /// When small credits are due.
    pub(super) credit_check: Option<Duration>,
    /// Consequences of the event in hand. Empty between events, like all below.
    pub(super) todo: VecDeque<Todo>,
    /// Values that workers are to forget.
    pub(super) frees: BTreeMap<WorkerId, Vec<Span>>,
    /// Items just assigned, whose dependents could be sent ahead.
    pub(super) assigned: VecDeque<(EntryId, Range<u64>)>,
    /// New calls that wait, which could be sent ahead themselves.
    pub(super) waiting: VecDeque<EntryId>,
    /// Workers that may take more calls ahead.
    pub(super) hungry: BTreeSet<WorkerId>,
    pub(super) out: Vec<Action>,
}

/// A consequence that is still to be drawn. A queue of these, rather than recursion: graphs can be a million deep.
#[derive(Debug)]
pub(super) enum Todo {
    /// These items' values are there: dependents may be ready.
    Made(EntryId, Range<u64>),
    /// These items failed or were cancelled: so do dependents.
    Erred(EntryId, Range<u64>),
    /// Maybe nobody needs these items any more.
    Free(EntryId, Range<u64>),
}

impl Scheduler {
    /// A scheduler without peers.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            now: Duration::ZERO,
            clients: BTreeMap::new(),
            entries: BTreeMap::new(),
            edges: Edges::default(),
            runs: BTreeMap::new(),
            fleet: Fleet::default(),
            shapes: Shapes::default(),
            times: TaskTimes::default(),
            history: History::default(),
            next_run: 1,
            next_arrival: 0,
            lease_check: None,
            recall_check: None,
            recalled: BTreeSet::new(),
            credit_check: None,
            todo: VecDeque::new(),
            frees: BTreeMap::new(),
            assigned: VecDeque::new(),
            waiting: VecDeque::new(),
            hungry: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    /// Takes an event in and appends what is to be done about it. `now` is the time since an arbitrary start and never goes back.
    /// No event is too malformed or too late: a peer that breaks the protocol is refused and disconnected, an event of a peer that
    /// is gone is nothing.
    pub fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        std::mem::swap(&mut self.out, actions);
        match event {
            Event::ClientJoined { client, who, module } => self.client_joined(client, who, module),
            Event::ClientLeft { client } => self.client_left(client),
            Event::ClientRevoked { client } => self.refuse_client(client, &Refusal::Revoked),
            Event::FromClient(client, message) => self.client_said(client, message),
            Event::WorkerJoined { worker, who, name, hello } => self.worker_joined(worker, who, name, hello),
            Event::WorkerLeft { worker } => self.worker_left(worker, true),
            Event::WorkerRevoked { worker } => self.refuse_worker(worker, &Refusal::Revoked),
            Event::FromWorker(worker, message) => self.worker_said(worker, message),
            Event::Held { key, len, hash } => self.held(key, len, hash),
            Event::Cancel(span) => self.cancel_for_operator(span),
            Event::Tick => {}
        }
        self.expire_leases();
        self.settle();
        self.say_frees();
        self.warn_of_hopeless();
        self.dispatch();
        self.send_ahead();
        if !self.todo.is_empty() {
            // Some items turned out to be impossible to assign.
            self.settle();
            self.say_frees();
        }
        self.recall();
        self.give_credit();
        self.say_frees();
        std::mem::swap(&mut self.out, actions);
    }

    /// When [`Event::Tick`] is due if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.lease_check, self.recall_check, self.credit_check].into_iter().flatten().min()
    }

    /// Where a value is: for a shell that serves it.
    #[must_use]
    pub fn locate(&self, key: Key) -> Location {
        let Some(entry) = self.entries.get(&key.entry) else { return Location::Nowhere };
        match entry.items.state(key.index) {
            Some(State::Inline) => entry.values.get(key.index).map_or(Location::Nowhere, Location::Inline),
            Some(State::Stored | State::Final) => match entry.stored.get(&key.index) {
                Some(replicas) if replicas.held => Location::Held,
                Some(replicas) => Location::Workers(replicas.workers.clone()),
                None => Location::Nowhere,
            },
            _ => Location::Nowhere,
        }
    }

    /// Forgets an entry of which nothing is left, or whose client is gone.
    pub(super) fn drop_entry(&mut self, id: EntryId) -> Option<Box<Entry>> {
        let entry = self.entries.remove(&id)?;
        self.shapes.leave(entry.shape, &queue_key(id, &entry));
        if let Some(client) = self.clients.get_mut(&id.client) {
            client.leave_shape(entry.shape);
            client.lineage.remove(&id.seq);
        }
        Some(entry)
    }

    pub(super) fn tell_client(&mut self, client: ClientId, message: ToClient) {
        self.out.push(Action::ToClient(client, message));
    }

    pub(super) fn tell_worker(&mut self, worker: WorkerId, message: ToWorker) {
        if self.fleet.workers.contains_key(&worker) {
            self.out.push(Action::ToWorker(worker, message));
        }
    }

    /// Tells a worker, at the end of the event, to forget a value.
    pub(super) fn free_on(&mut self, worker: WorkerId, key: Key) {
        let spans = self.frees.entry(worker).or_default();
        match spans.last_mut() {
            Some(last) if last.entry == key.entry && last.first + last.count == key.index => last.count += 1,
            _ => spans.push(Span { entry: key.entry, first: key.index, count: 1 }),
        }
    }

    fn say_frees(&mut self) {
        for (worker, spans) in std::mem::take(&mut self.frees) {
            self.tell_worker(worker, ToWorker::Free { spans });
        }
    }
}
