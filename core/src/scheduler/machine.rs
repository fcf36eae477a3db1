//! The struct, and the order of work within one event. Must not know: what any single message means.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    time::Duration,
};

use super::{
    Action, Config, Event, Location,
    absence::Absences,
    ascending::Ascending,
    clients::Client,
    credit::CreditWatch,
    edges::Edges,
    entries::Entries,
    entry::{Entry, queue_key},
    fleet::{Fleet, Run, nanos},
    items::State,
    ledger::Ledger,
    queue::TaskTimes,
    refusal::Refusal,
    shapes::Shapes,
    sharing::Name,
    tasks::History,
};
use crate::{
    codec::Span,
    fault::{self, Fault},
    ids::{ClientId, EntryId, Hash, Key, RunId, WorkerId},
    wire::{ToClient, ToWorker},
};

/// The scheduler: see the [module](super) for how it is driven.
///
/// Two kinds of methods change it: [`handle`](Scheduler::handle), and nothing else. The others only look.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) config: Config,
    /// Time that a batch should take, as the configuration says, in nanoseconds.
    pub(super) batch_nanos: u64,
    /// Time of the event in hand.
    pub(super) now: Duration,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) entries: Entries,
    pub(super) edges: Edges,
    pub(super) runs: Ascending<RunId, Run>,
    pub(super) fleet: Fleet,
    /// What is ready, by what it asks of a worker.
    pub(super) shapes: Shapes,
    pub(super) times: TaskTimes,
    pub(super) history: History,
    pub(super) ledger: Ledger,
    /// What is published.
    pub(super) names: BTreeMap<String, Name>,
    pub(super) next_run: u64,
    pub(super) next_arrival: u64,
    /// When to look at the workers' leases.
    pub(super) lease_check: Option<Duration>,
    /// Workers that are away.
    pub(super) absences: Absences,
    /// Items that rest, by the end of their rest.
    pub(super) rests: BTreeSet<(Duration, Key)>,
    /// Stored values that have fewer copies than they should, for want of workers.
    pub(super) thin: BTreeSet<Key>,
    /// When to look again whether runs, or parts of them, are to be taken back.
    pub(super) recall_check: Option<Duration>,
    /// Not before this time, though.
    pub(super) next_recall: Duration,
    /// Runs that were asked back.
    pub(super) recalled: BTreeSet<RunId>,
    pub(super) credit: CreditWatch,
    /// Clients without a connection, by when they are taken to have left.
    pub(super) away: BTreeSet<(Duration, ClientId)>,
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
    /// The worker whose place in the fleet's orders is still to be looked at.
    pub(super) unranked: Option<WorkerId>,
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
    /// Maybe nobody wants these items any more, which have ended.
    Ended(EntryId, Range<u64>),
}

impl Scheduler {
    /// A scheduler without peers.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            ledger: Ledger::new(config.journal),
            credit: CreditWatch::new(&config),
            batch_nanos: nanos(config.batch_time),
            config,
            now: Duration::ZERO,
            clients: BTreeMap::new(),
            entries: Entries::default(),
            edges: Edges::default(),
            runs: Ascending::default(),
            fleet: Fleet::default(),
            shapes: Shapes::default(),
            times: TaskTimes::default(),
            history: History::default(),
            names: BTreeMap::new(),
            next_run: 1,
            next_arrival: 0,
            lease_check: None,
            absences: Absences::default(),
            rests: BTreeSet::new(),
            thin: BTreeSet::new(),
            recall_check: None,
            next_recall: Duration::ZERO,
            recalled: BTreeSet::new(),
            away: BTreeSet::new(),
            todo: VecDeque::new(),
            frees: BTreeMap::new(),
            assigned: VecDeque::new(),
            waiting: VecDeque::new(),
            hungry: BTreeSet::new(),
            unranked: None,
            out: Vec::new(),
        }
    }

    /// Takes an event in and appends what is to be done about it. `now` is the time since an arbitrary start and never goes back.
    /// No event is too malformed or too late: a peer that breaks the protocol is refused and disconnected, an event of a peer that
    /// is gone is nothing.
    pub fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        std::mem::swap(&mut self.out, actions);
        self.excuse_own_sleep();
        match event {
            Event::ClientJoined { client, who, module, passport } => self.client_joined(client, who, module, passport),
            Event::ClientLeft { client } => self.client_left(client),
            Event::ClientLost { client } => self.client_lost(client),
            Event::ClientReturned { client } => self.client_returned(client),
            Event::ClientHasRoom { client } => self.report_more(client),
            Event::ClientRevoked { client } => self.refuse_client(client, &Refusal::Revoked),
            Event::FromClient(client, message) => self.client_said(client, message),
            Event::WorkerJoined { worker, who, name, hello } => self.worker_joined(worker, who, name, hello),
            Event::WorkerLeft { worker, departure } => self.worker_left(worker, departure),
            Event::WorkerDied { incarnation } => self.worker_died(incarnation),
            Event::WorkerRevoked { worker } => self.refuse_worker(worker, &Refusal::Revoked),
            Event::FromWorker(worker, message) => self.worker_said(worker, message),
            Event::Held { key, len, hash } => self.held(key, len, hash),
            Event::Unserved { worker, key, len, hash } => self.unserved(worker, key, len, hash),
            Event::Cancel(span) => self.cancel_for_operator(span),
            Event::Recorded { records } => self.recorded(records),
            Event::Tick => {}
        }
        self.expire_leases();
        self.end_absences();
        self.wake_rested();
        self.expire_absences();
        self.settle();
        self.say_frees();
        self.warn_of_hopeless();
        self.rank_now();
        self.dispatch();
        self.send_ahead();
        if !self.todo.is_empty() {
            // Some items turned out to be impossible to assign.
            self.settle();
            self.say_frees();
        }
        self.rank_now();
        self.recall();
        self.give_credit();
        self.dismiss_drained();
        self.say_frees();
        self.say_records();
        self.say_frees();
        std::mem::swap(&mut self.out, actions);
    }

    /// When [`Event::Tick`] is due if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let checks = [self.lease_check, self.recall_check, self.credit.due(), self.hand_over_check()];
        let rested = self.rests.first().map(|(until, _)| *until);
        let absence = self.away.first().map(|(until, _)| *until);
        checks.into_iter().chain([self.absences.next_end(), rested, absence]).flatten().min()
    }

    /// Where a value is: for a shell that serves it.
    #[must_use]
    pub fn locate(&self, key: Key) -> Location {
        let key = self.origin(key);
        let Some(entry) = self.entries.get(&key.entry) else { return Location::Nowhere };
        match entry.items.state(key.index) {
            Some(State::Inline) => entry.values.get(key.index).map_or(Location::Nowhere, Location::Inline),
            Some(State::Stored | State::Final) => match entry.rare.stored.get(&key.index) {
                Some(replicas) if replicas.held => Location::Held,
                Some(replicas) => Location::Workers(replicas.workers.clone()),
                None => Location::Nowhere,
            },
            _ => Location::Nowhere,
        }
    }

    /// Length and hash of a stored value.
    #[must_use]
    pub fn measure(&self, key: Key) -> Option<(u64, Hash)> {
        let key = self.origin(key);
        let replicas = self.entries.get(&key.entry)?.rare.stored.get(&key.index)?;
        Some((replicas.len, replicas.hash))
    }

    /// Forgets an entry of which nothing is left, or whose client is gone.
    pub(super) fn drop_entry(&mut self, id: EntryId) -> Option<Box<Entry>> {
        self.end_upload(id);
        let entry = self.entries.remove(&id)?;
        self.shapes.leave(entry.shape, &queue_key(id, &entry));
        for (&item, &until) in entry.rare.resting.iter() {
            self.rests.remove(&(until, id.key(item)));
        }
        if let Some(client) = self.clients.get_mut(&id.client) {
            client.leave_shape(entry.shape);
            client.lineage.remove(&id.seq);
            // With a client, all its rows go at once.
            self.ledger.drop_entry(id);
            if client.has_left && !self.entries.has_any(id.client) {
                self.clients.remove(&id.client);
                self.entries.forget_client(id.client);
                self.ledger.drop_client(id.client);
                self.out.push(Action::ForgetClient(id.client));
            }
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
        if fault::is(Fault::NeverFreed) {
            return;
        }
        let spans = self.frees.entry(worker).or_default();
        match spans.last_mut() {
            Some(last) if last.entry == key.entry && last.first + last.count == key.index => last.count += 1,
            _ => spans.push(Span { entry: key.entry, first: key.index, count: 1 }),
        }
    }

    fn say_frees(&mut self) {
        // Most events free nothing, and taking an empty map apart costs more than looking at it.
        if self.frees.is_empty() {
            return;
        }
        for (worker, spans) in std::mem::take(&mut self.frees) {
            self.tell_worker(worker, ToWorker::Free { spans });
        }
    }
}
