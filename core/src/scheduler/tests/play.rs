//! Random plays: clients, workers and a network that does things in any order. After each event every invariant is checked; at the
//! end every item that is wanted was told exactly once and is what the graph says, and when all is released nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    journal::Kept,
    lab::{identity, requirements, spec_with},
    model::{FakeWorker, Graph, Item, SMALL_SHARE, inputs_of, source_of},
};
use crate::{
    TaskErrorKind,
    codec::{Args, Hole, RunBuilder, Span},
    ids::{ClientId, EntryId, Hash, Key, WorkerId},
    scheduler::{Action, Config, Departure, Event, Location, Scheduler},
    wire::{FromClient, FromWorker, InputPlace, Load, ToClient, ToWorker, WorkerHello},
};

/// What a client was told of an item.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Done(Bytes),
    Stored(Hash),
    Failed(Key, TaskErrorKind),
    Cancelled,
}

#[derive(Debug, Default)]
pub(super) struct FakeClient {
    next_seq: u64,
    /// Length of each entry that has items that are wanted, and whether it is open.
    entries: BTreeMap<u64, (u64, bool)>,
    pub(super) told: BTreeMap<Key, Told>,
    released: BTreeSet<Key>,
    pub(super) uploads: Vec<(u64, Vec<WorkerId>)>,
    /// Data that may have to be uploaded.
    kept: BTreeSet<u64>,
    /// What it took up, by its own number: the first item and how many.
    pub(super) links: BTreeMap<u64, (Key, u64)>,
    /// Of what it took up, by its own number, that of which it said that something could not be fetched.
    missed: BTreeSet<u64>,
    /// Whether what is said by either side is lost.
    pub(super) is_cut: bool,
    /// What it said since, for when it returns.
    pub(super) backlog: Vec<FromClient>,
    /// Whether it is told again what it could have missed.
    catches_up: bool,
}

pub(super) struct Play {
    pub(super) scheduler: Scheduler,
    pub(super) now: Duration,
    pub(super) graph: Graph,
    pub(super) clients: BTreeMap<ClientId, FakeClient>,
    pub(super) workers: BTreeMap<WorkerId, FakeWorker>,
    /// Workers that lost their connection.
    pub(super) away: Vec<FakeWorker>,
    pub(super) held: BTreeMap<Key, Bytes>,
    /// What is published.
    pub(super) names: BTreeMap<String, Span>,
    /// What is detached or was ever published: it may be told of though it was released.
    shared: BTreeSet<Key>,
    next_worker: u64,
    next_client: u64,
    pub(super) kept: Kept,
}

/// More than the workers on which items hiccup.
const RETRIES: u32 = 6;
/// What is away is lost after so long.
const GRACE: Duration = Duration::from_millis(40);
const RETRY_DELAY: Duration = Duration::from_millis(3);
/// What kinds of workers have. Each thing that is asked for is had by one of them.
const KINDS: [&str; 5] = ["", "zone=a", "zone=b gpu=2", "zone=a gpu=1 disk=10", "arch=z80 disk=3"];
/// What calls ask for.
const ASKED: [&str; 8] =
    ["zone=a", "zone=b", "gpu=1", "gpu=2 zone=b", "zone=a gpu=1 disk=7", "disk=3", "disk=2", "arch=z80 disk=1"];

/// For how long clients may be without a connection.
const ABSENCE: Duration = Duration::from_secs(3600);
/// More items than an entry of a play gets.
const ENTRY_ITEMS: u64 = 2000;

/// One step: what, and two numbers that say which and how.
pub(super) type Step = (u8, u32, u32);

impl Play {
    /// With little room for arguments, those of stored results are let go soon.
    pub(super) fn new(client_bytes: u64, journal: bool) -> Self {
        let config = Config {
            max_deaths: 1000,
            lease: Duration::MAX,
            grace: GRACE,
            retry_delay: RETRY_DELAY,
            client_lease: ABSENCE,
            clients_return: ABSENCE,
            workers_return: GRACE,
            client_bytes,
            report_bytes: 700,
            journal,
            ..Config::default()
        };
        let mut play = Self {
            scheduler: Scheduler::new(config.clone()),
            now: Duration::ZERO,
            graph: Graph { sheds: client_bytes <= SMALL_SHARE, ..Graph::default() },
            clients: BTreeMap::new(),
            workers: BTreeMap::new(),
            away: Vec::new(),
            held: BTreeMap::new(),
            names: BTreeMap::new(),
            shared: BTreeSet::new(),
            next_worker: 1,
            next_client: 1,
            kept: Kept::new(config),
        };
        play.client_joins();
        play.client_joins();
        play.worker_joins(2, 0);
        play
    }

    pub(super) fn event(&mut self, event: Event) {
        self.kept.begin(&event);
        let mut actions = Vec::new();
        self.scheduler.handle(self.now, event, &mut actions);
        self.scheduler.check();
        for action in actions {
            match action {
                Action::ToClient(client, message) => self.told(client, message),
                // To one that is being revoked.
                Action::ToWorker(worker, ToWorker::Refused { .. }) if !self.workers.contains_key(&worker) => {}
                Action::ToWorker(worker, message) => {
                    self.workers.get_mut(&worker).expect("workers that left are told nothing").incoming.push_back(message);
                }
                Action::Drop(span) => {
                    (span.first..span.first + span.count).for_each(|item| drop(self.held.remove(&span.entry.key(item))));
                }
                Action::Record(records) => self.kept.record(records),
                Action::AwaitRoom(client) => self.event(Event::ClientHasRoom { client }),
                Action::Probe(_) => {}
                Action::DisconnectWorker(worker) if !self.workers.contains_key(&worker) => {}
                Action::ForgetClient(client) => assert!(!self.clients.contains_key(&client), "client {client} has not left"),
                Action::DisconnectClient(_) | Action::DisconnectWorker(_) => panic!("the model keeps to the protocol"),
            }
        }
    }

    /// A client says something, now or when it is connected again.
    fn say(&mut self, client: ClientId, message: FromClient) {
        match self.clients.get_mut(&client) {
            Some(fake) if fake.is_cut => fake.backlog.push(message),
            _ => self.event(Event::FromClient(client, message)),
        }
    }

    /// A client that is cut off is connected again: it hears again what it could have missed, and says again what was not heard.
    fn client_returns(&mut self, client: ClientId) {
        let Some(fake) = self.clients.get_mut(&client).filter(|fake| fake.is_cut) else { return };
        let backlog = std::mem::take(&mut fake.backlog);
        self.hears_again(client);
        backlog.into_iter().for_each(|message| self.event(Event::FromClient(client, message)));
        self.offers_again(client);
    }

    /// A client is connected again.
    pub(super) fn hears_again(&mut self, client: ClientId) {
        let fake = self.clients.get_mut(&client).expect("here");
        (fake.is_cut, fake.catches_up) = (false, true);
        fake.uploads.clear();
        // It may have missed that they were lost.
        fake.told.retain(|_, told| !matches!(told, Told::Stored(_)));
        self.event(Event::ClientReturned { client });
    }

    /// A client that said again what was not heard offers what may have to be uploaded.
    pub(super) fn offers_again(&mut self, client: ClientId) {
        let kept = self.clients[&client].kept.clone();
        kept.into_iter().for_each(|seq| self.event(Event::FromClient(client, FromClient::Offer { seq })));
        self.clients.get_mut(&client).expect("here").catches_up = false;
    }

    /// Whether others could want what a client has.
    fn are_shared(&self) -> bool {
        !self.names.is_empty() || self.clients.values().any(|client| !client.links.is_empty())
    }

    /// Clients that the scheduler misses for too long have left.
    fn absences_end(&mut self) {
        self.now += ABSENCE;
        self.graph.deaths |= self.are_shared();
        let scheduler = &self.scheduler;
        self.clients.retain(|id, _| scheduler.clients[id].away_until.is_none());
        self.event(Event::Tick);
        while self.clients.len() < 2 {
            self.client_joins();
        }
    }

    fn told(&mut self, id: ClientId, message: ToClient) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.is_cut) else { return };
        let key = |seq, index| EntryId { client: id, seq }.key(index);
        let kept = &mut self.kept;
        let mut tell = |key: Key, told: Told| {
            let is_new = kept.note_told(key, client.told.get(&key));
            if client.released.contains(&key) {
                return assert!(client.catches_up || self.shared.contains(&key), "{key} was released, and {told:?}");
            }
            if !is_new || (client.catches_up && client.told.get(&key) == Some(&told)) {
                return;
            }
            let may_miss = client.missed.contains(&key.entry.seq);
            if may_miss && matches!(client.told.get(&key), Some(Told::Failed(_, TaskErrorKind::DataLost))) {
                return; // It has given it up.
            }
            if let Some(before) = client.told.get(&key) {
                let again = matches!((before, &told), (Told::Stored(a), Told::Stored(b)) if a == b);
                let theirs = client.links.get(&key.entry.seq).map(|&(first, _)| first.entry.key(first.index + key.index));
                let is_final = self.graph.sheds || self.graph.data.contains_key(&theirs.unwrap_or(key));
                let lost_data = matches!(&told, Told::Failed(_, TaskErrorKind::DataLost)) && is_final;
                let is_missed = may_miss && matches!(&told, Told::Failed(_, TaskErrorKind::DataLost));
                assert!(again || lost_data || is_missed, "{key} was told twice: {before:?}, {told:?}");
            }
            client.told.insert(key, told);
        };
        match message {
            ToClient::Done { seq, first, values } => {
                values
                    .iter()
                    .zip(first..)
                    .for_each(|(value, index)| tell(key(seq, index), Told::Done(Bytes::copy_from_slice(value))));
            }
            ToClient::Stored { seq, index, hash, .. } => tell(key(seq, index), Told::Stored(hash)),
            ToClient::Failed { seq, index, error } => tell(key(seq, index), Told::Failed(error.key, error.kind)),
            ToClient::Cancelled { span } => {
                (span.first..span.first + span.count).for_each(|index| tell(span.entry.key(index), Told::Cancelled));
            }
            ToClient::Lost { seq, index } => {
                let key = key(seq, index);
                let before = client.told.get(&key).cloned();
                kept.note_told(key, before.as_ref());
                let may_be = matches!(before, None | Some(Told::Stored(_))) || kept.was_retold(&key);
                assert!(may_be, "{before:?} was lost");
                if matches!(before, Some(Told::Stored(_))) {
                    client.told.remove(&key);
                }
            }
            ToClient::Taken { seq } => drop(client.kept.remove(&seq)),
            ToClient::Upload { seq, route } => client.uploads.push((seq, route.iter().map(|place| place.worker).collect())),
            ToClient::Credit { .. } | ToClient::Counts { .. } | ToClient::Applied { .. } | ToClient::Named { .. } => {}
            ToClient::Explained { waiting, .. } => assert!(waiting.iter().all(|all| all.items > 0 && !all.why.is_empty())),
            ToClient::Refused { reason } => panic!("a model client was refused: {reason}"),
        }
    }

    pub(super) fn client_joins(&mut self) {
        let id = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(id, FakeClient { next_seq: 1, ..FakeClient::default() });
        self.event(Event::ClientJoined {
            client: id,
            who: identity(100 + id.0),
            module: Hash([0; 32]),
            passport: crate::scheduler::Passport::default(),
        });
    }

    /// A worker joins, of one of the kinds.
    fn worker_joins(&mut self, slots: u32, kind: u32) {
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let offer = requirements(KINDS[kind as usize % KINDS.len()]);
        let hello = WorkerHello {
            slots,
            memory: u64::from(kind) << 31,
            arch: String::new(),
            listen: (!id.0.is_multiple_of(3)).then(|| ([127, 0, 0, 1], 1).into()),
            grant_secret: [id.0 as u8; 32],
            labels: offer.labels().map(|(name, value)| (name.into(), value.into())).collect(),
            resources: offer.resources().map(|(name, amount)| (name.into(), amount)).collect(),
            incarnation: id.0,
            keeps: 0,
        };
        let who = identity(id.0);
        self.workers.insert(id, FakeWorker::new(who, hello.clone()));
        self.event(Event::WorkerJoined { worker: id, who, name: format!("w{id}"), hello });
    }

    pub(super) fn step(&mut self, (what, a, b): Step) {
        self.now += Duration::from_micros(u64::from(b % 3000));
        let client = self.clients.keys().nth(a as usize % self.clients.len().max(1)).copied();
        let worker = self.workers.keys().nth(a as usize % self.workers.len().max(1)).copied();
        match (what % 32, client, worker) {
            (0..=3, Some(client), _) => self.submit(client, a, b),
            (4..=5, Some(client), _) => self.open_map(client, b),
            (6..=9, Some(client), _) => self.add_items(client, a / 2, b),
            (10, Some(client), _) => self.close_map(client, a / 2),
            (11, Some(client), _) => self.send_data(client, b),
            (12..=13, Some(client), _) => self.release(client, a / 2, b),
            (14, Some(client), _) if b.is_multiple_of(4) => self.cancel(client, a / 2, b / 4),
            (14, Some(client), _) if b % 16 == 1 => self.cancel_for_operator(client, a / 2, b / 16),
            (15, Some(client), _) => self.upload(client, b.is_multiple_of(8)),
            (16, _, Some(worker)) if b.is_multiple_of(4) => self.unserved(worker, b),
            (16, Some(client), _) => self.unreachable(client, a / 2),
            (17, Some(client), _) if b % 4 == 1 => self.clients.get_mut(&client).expect("here").is_cut = true,
            (17, Some(client), _) if b % 4 == 2 => self.client_returns(client),
            (17, Some(client), _) if b % 4 == 3 && self.clients[&client].is_cut => self.event(Event::ClientLost { client }),
            (17, ..) if b.is_multiple_of(32) => self.absences_end(),
            (26, Some(client), _) if !self.clients[&client].is_cut => self.share(client, a / 2, b),
            (17, Some(client), _) if b.is_multiple_of(16) => {
                // Data that was not uploaded is lost to others.
                self.graph.deaths |= self.are_shared();
                self.clients.remove(&client);
                self.event(Event::ClientLeft { client });
                self.client_joins();
            }
            (18, _, Some(worker)) if b.is_multiple_of(4) => self.worker_dies(worker),
            (18, _, Some(worker)) if b % 4 == 1 => self.worker_is_lost(worker, b % 8 == 1),
            (18, ..) if b % 4 == 2 => self.worker_returns(a),
            (18, ..) if b % 32 == 3 => self.death_becomes_known(a),
            (19, _, Some(worker)) if b.is_multiple_of(3) => {
                let load = Load { pressed: b.is_multiple_of(2), ..Load::default() };
                self.event(Event::FromWorker(worker, FromWorker::Heartbeat(load)));
            }
            (19, ..) if self.workers.len() < 5 => self.worker_joins(1 + b % 3, a),
            (20, _, Some(worker)) if b.is_multiple_of(4) => {
                let said = self.workers.get_mut(&worker).expect("here").drain();
                said.into_iter().for_each(|message| self.event(Event::FromWorker(worker, message)));
            }
            (21, ..) if b.is_multiple_of(2) => self.event(Event::Tick),
            (21, Some(client), _) => self.explain(client),
            (22..=25, _, Some(worker)) => self.read(worker),
            (_, _, Some(worker)) => self.work(worker, a / 4, b % 5),
            _ => {}
        }
    }

    /// Arguments of so many items, with holes that name earlier entries which are wanted.
    fn args(&self, client: ClientId, seq: u64, count: u32, a: u32, b: u32) -> Args {
        let mut builder = RunBuilder::default();
        (0..count).for_each(|i| builder.push(&[(b >> 8).wrapping_add(i * 37) as u8, i as u8, seq as u8]).expect("short"));
        let earlier: Vec<_> = self.clients[&client].entries.range(..seq).collect();
        let mut holes = Vec::new();
        for field in 0..b % 3 {
            let Some(&(&seq, &(len, open))) =
                earlier.get((a.wrapping_mul(7).wrapping_add(field * 5)) as usize % earlier.len().max(1))
            else {
                continue;
            };
            // Of an open map, items that are still to come.
            let len = if open { len + 3 } else { len };
            let entry = EntryId { client, seq };
            let key = entry.key(u64::from(a) % len.max(1));
            let first = if count > 1 { a % 2 } else { 0 };
            let hole = Hole { first, count: count - first, field, source: source_of(a / 3 + field, key, len, u64::from(count)) };
            let released = &self.clients[&client].released;
            let keys =
                hole.spans().into_iter().flat_map(|span| (span.first..span.first + span.count).map(move |i| span.entry.key(i)));
            if keys.into_iter().all(|key| !released.contains(&key)) {
                holes.push(hole);
            }
        }
        Args { run: builder.take(), holes }
    }

    fn note(&mut self, entry: EntryId, first: u64, args: &Args) {
        for item in 0..args.count() {
            let inline = args.run.get(item).expect("within");
            self.graph.items.insert(entry.key(first + u64::from(item)), Item { inline, inputs: inputs_of(&args.holes, item) });
        }
    }

    fn new_entry(&mut self, client: ClientId, len: u64, open: bool) -> EntryId {
        let fake = self.clients.get_mut(&client).expect("here");
        let seq = fake.next_seq;
        fake.next_seq += 1 + seq % 2;
        fake.entries.insert(seq, (len, open));
        EntryId { client, seq }
    }

    /// Most calls ask for nothing.
    fn spec(asks: u32, priority: i32) -> crate::wire::SharedSpec {
        let requires = requirements(ASKED.get(asks as usize % (2 * ASKED.len())).unwrap_or(&""));
        let memory = if asks.is_multiple_of(5) { 3 << 30 } else { crate::Options::DEFAULT.memory };
        spec_with(crate::Options { requires, memory, retries: RETRIES, priority, ..crate::Options::DEFAULT })
    }

    fn submit(&mut self, client: ClientId, a: u32, b: u32) {
        let seq = self.clients[&client].next_seq;
        let args = self.args(client, seq, 1, a, b);
        let entry = self.new_entry(client, 1, false);
        self.note(entry, 0, &args);
        let call = FromClient::Call { seq, spec: Self::spec(b / 16, (b % 3) as i32), args };
        self.say(client, call);
    }

    fn open_map(&mut self, client: ClientId, b: u32) {
        let entry = self.new_entry(client, 0, true);
        self.say(client, FromClient::Map { seq: entry.seq, spec: Self::spec(b, 0) });
    }

    fn add_items(&mut self, client: ClientId, a: u32, b: u32) {
        let open: Vec<_> = self.clients[&client].entries.iter().filter(|(_, (_, open))| *open).map(|(&seq, _)| seq).collect();
        let Some(&seq) = open.get(a as usize % open.len().max(1)) else { return };
        let count = 1 + b % 12;
        let args = self.args(client, seq, count, a, b);
        let place = self.clients.get_mut(&client).and_then(|client| client.entries.get_mut(&seq)).expect("here");
        let first = place.0;
        place.0 += u64::from(count);
        self.note(EntryId { client, seq }, first, &args);
        self.say(client, FromClient::Items { seq, args });
    }

    fn explain(&mut self, client: ClientId) {
        let entries = self.clients[&client].entries.iter();
        let spans = entries.map(|(&seq, &(len, _))| Span { entry: EntryId { client, seq }, first: 0, count: len }).collect();
        self.say(client, FromClient::Explain { query: 1, spans });
        assert_eq!(self.scheduler.status().waits.iter().map(|all| all.items).sum::<u64>(), self.scheduler.status().counts.queued);
    }

    fn close_map(&mut self, client: ClientId, a: u32) {
        let fake = self.clients.get_mut(&client).expect("here");
        let open: Vec<_> = fake.entries.iter().filter(|(_, (_, open))| *open).map(|(&seq, _)| seq).collect();
        let Some(&seq) = open.get(a as usize % open.len().max(1)) else { return };
        if let Some(place) = fake.entries.get_mut(&seq) {
            place.1 = false;
        }
        self.say(client, FromClient::Close { seq });
    }

    fn send_data(&mut self, client: ClientId, b: u32) {
        let entry = self.new_entry(client, 1, false);
        let bytes = Bytes::copy_from_slice(&b.to_le_bytes());
        self.graph.data.insert(entry.key(0), bytes.clone());
        let inline = (b.is_multiple_of(2)).then(|| bytes.clone());
        if inline.is_none() {
            self.clients.get_mut(&client).expect("here").kept.insert(entry.seq);
        }
        let data = FromClient::Data { seq: entry.seq, len: 4, hash: Hash::of(&bytes), bytes: inline };
        self.say(client, data);
    }

    fn upload(&mut self, client: ClientId, fails: bool) {
        let fake = self.clients.get_mut(&client).expect("here");
        let (is_cut, Some((seq, route))) = (fake.is_cut, fake.uploads.pop()) else { return };
        let key = EntryId { client, seq }.key(0);
        let bytes = self.graph.data[&key].clone();
        let (len, hash) = (4, Hash::of(&bytes));
        match &route[..] {
            [] if is_cut => {}
            [] => {
                self.held.insert(key, bytes);
                self.event(Event::Held { key, len, hash });
            }
            [first, ..] if !fails && self.workers.contains_key(first) => {
                let handed_on = seq as usize % 2;
                for &worker in &route[..route.len().min(1 + handed_on)] {
                    let Some(fake) = self.workers.get_mut(&worker) else { break };
                    fake.stored.insert(key, bytes.clone());
                    self.event(Event::FromWorker(worker, FromWorker::Holds { key, len, hash }));
                }
            }
            _ => self.say(client, FromClient::UploadFailed { seq }),
        }
    }

    /// A span of some entry's items that are there.
    fn some_span(&self, client: ClientId, a: u32, b: u32) -> Option<Span> {
        let entries = &self.clients[&client].entries;
        let (&seq, &(len, _)) = entries.iter().nth(a as usize % entries.len().max(1))?;
        let first = u64::from(b) % len.max(1);
        let count = (u64::from(b / 64) % 20).min(len.saturating_sub(first));
        (count > 0).then_some(Span { entry: EntryId { client, seq }, first, count })
    }

    /// A client detaches or publishes something of its own, takes a name back, or takes up what it stands for.
    fn share(&mut self, client: ClientId, a: u32, b: u32) {
        let some_name = self.names.keys().nth(a as usize % self.names.len().max(1)).cloned();
        match (b % 4, self.some_span(client, a, b / 4), some_name) {
            (0, Some(span), _) => {
                self.shared.extend((span.first..span.first + span.count).map(|i| span.entry.key(i)));
                self.event(Event::FromClient(client, FromClient::Detach { span }));
            }
            (1, Some(span), _) => {
                let name = format!("{b}");
                let message = FromClient::Publish { query: 1, name: name.clone(), kind: String::new(), span };
                self.event(Event::FromClient(client, message));
                if self.scheduler.names.get(&name).is_some_and(|known| known.entry == span.entry) {
                    self.shared.extend((span.first..span.first + span.count).map(|i| span.entry.key(i)));
                    self.names.entry(name).or_insert(span);
                }
            }
            (2, _, Some(name)) => {
                self.names.remove(&name);
                self.event(Event::FromClient(client, FromClient::Unpublish { name }));
            }
            (3, _, Some(name)) => {
                let span = self.names[&name];
                let fake = self.clients.get_mut(&client).expect("here");
                let seq = fake.next_seq;
                fake.next_seq += 1;
                fake.links.insert(seq, (span.entry.key(span.first), span.count));
                let message = FromClient::TakeUp { seq, name, kind: String::new(), count: span.count };
                self.event(Event::FromClient(client, message));
            }
            _ => {}
        }
    }

    fn release(&mut self, client: ClientId, a: u32, b: u32) {
        if let Some(span) = self.some_span(client, a, b) {
            self.clients
                .get_mut(&client)
                .expect("here")
                .released
                .extend((span.first..span.first + span.count).map(|i| span.entry.key(i)));
            self.say(client, FromClient::Release { span });
        }
    }

    fn cancel(&mut self, client: ClientId, a: u32, b: u32) {
        if let Some(span) = self.some_span(client, a, b) {
            self.graph.cancelled.extend((span.first..span.first + span.count).map(|i| span.entry.key(i)));
            self.say(client, FromClient::Cancel { span });
        }
    }

    /// An operator cancels some of an entry's items, or all of it, to come or not.
    fn cancel_for_operator(&mut self, client: ClientId, a: u32, b: u32) {
        if let Some(mut span) = self.some_span(client, a, b) {
            if b.is_multiple_of(2) {
                span = Span { first: 0, count: u64::MAX, ..span };
            }
            let items = span.first..(span.first.saturating_add(span.count)).min(ENTRY_ITEMS);
            self.graph.cancelled.extend(items.map(|i| span.entry.key(i)));
            self.event(Event::Cancel(span));
        }
    }

    fn unreachable(&mut self, client: ClientId, a: u32) {
        let fake = &self.clients[&client];
        let stored: Vec<_> = fake.told.iter().filter(|(_, told)| matches!(told, Told::Stored(_))).map(|(&key, _)| key).collect();
        if let Some(key) = stored.get(a as usize % stored.len().max(1)).copied().filter(|key| self.may_be_unread(*key)) {
            // What nobody can get counts as lost after a few times.
            self.graph.deaths |= self.graph.sheds;
            let fake = self.clients.get_mut(&client).expect("here");
            if !fake.entries.contains_key(&key.entry.seq) {
                fake.missed.insert(key.entry.seq);
            }
            self.say(client, FromClient::Unreachable { seq: key.entry.seq, index: key.index });
        }
    }

    pub(super) fn worker_dies(&mut self, worker: WorkerId) {
        self.graph.deaths = true;
        self.workers.remove(&worker);
        let died = Event::WorkerLeft { worker, departure: Departure::Died };
        self.event(if worker.0.is_multiple_of(3) { Event::WorkerRevoked { worker } } else { died });
    }

    /// A worker's connection breaks; the scheduler hears of it, or does not before the worker comes back.
    fn worker_is_lost(&mut self, id: WorkerId, is_noticed: bool) {
        self.graph.deaths = true;
        let Some(worker) = self.workers.remove(&id) else { return };
        let is_over = worker.draining;
        if !is_over {
            self.away.push(worker);
        }
        if is_noticed || is_over {
            self.event(Event::WorkerLeft { worker: id, departure: Departure::Lost });
        } else {
            self.worker_returns(u32::try_from(self.away.len() - 1).expect("few"));
        }
    }

    /// A worker that lost its connection joins again.
    pub(super) fn worker_returns(&mut self, a: u32) {
        if self.away.is_empty() {
            return;
        }
        let mut worker = self.away.remove(a as usize % self.away.len());
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let said = worker.return_again();
        let (who, hello) = (worker.who, worker.hello.clone());
        self.workers.insert(id, worker);
        self.event(Event::WorkerJoined { worker: id, who, name: format!("w{id}"), hello });
        said.into_iter().for_each(|message| self.event(Event::FromWorker(id, message)));
    }

    /// A worker that lost its connection had died.
    fn death_becomes_known(&mut self, a: u32) {
        if !self.away.is_empty() {
            let worker = self.away.remove(a as usize % self.away.len());
            self.event(Event::WorkerDied { incarnation: worker.hello.incarnation });
        }
    }

    /// A worker that drained leaves.
    fn worker_leaves(&mut self, worker: WorkerId) {
        self.graph.deaths = true;
        self.workers.remove(&worker);
        self.event(Event::WorkerLeft { worker, departure: Departure::Left });
    }

    pub(super) fn read(&mut self, worker: WorkerId) {
        if let Some(message) = self.workers.get_mut(&worker).expect("here").read() {
            self.event(Event::FromWorker(worker, message));
        }
    }

    fn work(&mut self, id: WorkerId, pick: u32, count: u32) {
        let Some(mut worker) = self.workers.remove(&id) else { return };
        let who = worker.who;
        let fetch = |place: &InputPlace, key: Key| {
            let InputPlace::Blob { places, .. } = place else { return None };
            let direct = places.iter().find_map(|place| {
                let peer = self.workers.get(&place.worker)?;
                assert!(place.grant.allows(&peer.hello.grant_secret, key, who));
                peer.stored.get(&key).cloned()
            });
            let relayed = || match self.scheduler.locate(key) {
                Location::Held => self.held.get(&key).cloned(),
                Location::Workers(peers) => peers.iter().find_map(|peer| self.workers.get(peer)?.stored.get(&key).cloned()),
                Location::Inline(bytes) => Some(bytes),
                Location::Nowhere => None,
            };
            direct.or_else(relayed)
        };
        let said = worker.work(pick as usize, count, fetch);
        let leaves = worker.draining && worker.may_leave && worker.is_idle();
        self.workers.insert(id, worker);
        said.into_iter().for_each(|message| self.event(Event::FromWorker(id, message)));
        if leaves {
            self.worker_leaves(id);
        }
    }

    /// Lets everything come to its end.
    pub(super) fn finish(&mut self) {
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.client_returns(client);
            while self.clients[&client].entries.values().any(|(_, open)| *open) {
                self.close_map(client, 0);
            }
        }
        for worker in 0..self.away.len() / 2 {
            self.worker_returns(u32::try_from(worker).expect("few"));
        }
        self.now += GRACE;
        self.event(Event::Tick);
        // Whatever is asked for comes at last.
        for kind in 0..KINDS.len() as u32 {
            self.worker_joins(2, kind);
        }
        for round in 0.. {
            self.now += Duration::from_millis(20);
            self.event(Event::Tick);
            for client in self.clients.keys().copied().collect::<Vec<_>>() {
                while !self.clients[&client].uploads.is_empty() {
                    self.upload(client, false);
                }
            }
            for worker in self.workers.keys().copied().collect::<Vec<_>>() {
                while self.workers.get(&worker).is_some_and(|worker| !worker.incoming.is_empty()) {
                    self.read(worker);
                }
                self.work(worker, round, 3);
            }
            let busy = self.workers.values().any(|worker| !worker.is_idle());
            if !busy
                && self.scheduler.rests.is_empty()
                && self.scheduler.runs.is_empty()
                && self.clients.values().all(|client| client.uploads.is_empty())
            {
                break;
            }
            assert!(round < 1_000, "it does not come to an end: {:?}", self.scheduler.runs);
        }
    }

    pub(super) fn compare(&self) {
        let fates = self.graph.fates();
        let nothing = BTreeMap::new();
        for (key, fate) in &fates {
            let client = self.clients.get(&key.entry.client);
            if client.is_none_or(|client| client.released.contains(key)) {
                continue;
            }
            match client.map_or(&nothing, |client| &client.told).get(key) {
                None => assert!(self.graph.data.contains_key(key), "{key} was never told: {fate:?}"),
                Some(told) => assert!(fate.allows(told), "{key} became {told:?}: {fate:?}"),
            }
        }
    }

    pub(super) fn compare_links(&self) {
        let fates = self.graph.fates();
        for (&client, fake) in &self.clients {
            for (&seq, &(key, count)) in &fake.links {
                for index in 0..count {
                    let (mine, theirs) = (EntryId { client, seq }.key(index), key.entry.key(key.index + index));
                    let told = fake.told.get(&mine).unwrap_or_else(|| panic!("{mine}, which is {theirs}, was never told"));
                    let is_missed = fake.missed.contains(&seq) && matches!(told, Told::Failed(_, TaskErrorKind::DataLost));
                    assert!(
                        is_missed || fates[&theirs].allows(told),
                        "{mine}, which is {theirs}, became {told:?}: {:?}",
                        fates[&theirs]
                    );
                }
            }
        }
    }

    pub(super) fn release_all(&mut self) {
        let someone = *self.clients.keys().next().expect("here");
        // What a client says again after a restart may give a name or take something up later than the model knows.
        let names: BTreeSet<String> = self.names.keys().chain(self.scheduler.names.keys()).cloned().collect();
        assert!(self.kept.config.journal || names.len() == self.names.len(), "names that nobody gave: {names:?}");
        self.names.clear();
        for name in names {
            self.event(Event::FromClient(someone, FromClient::Unpublish { name }));
        }
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            let taken = self.scheduler.clients[&client].links.iter().map(|(&seq, link)| (seq, link.items.end - link.items.start));
            let mut links: BTreeMap<u64, u64> = taken.collect();
            links.extend(
                std::mem::take(&mut self.clients.get_mut(&client).expect("here").links)
                    .into_iter()
                    .map(|(seq, (_, count))| (seq, count)),
            );
            for (seq, count) in links {
                let span = Span { entry: EntryId { client, seq }, first: 0, count };
                self.event(Event::FromClient(client, FromClient::Release { span }));
            }
            for (seq, (len, _)) in std::mem::take(&mut self.clients.get_mut(&client).expect("here").entries) {
                let span = Span { entry: EntryId { client, seq }, first: 0, count: len };
                self.say(client, FromClient::Release { span });
            }
        }
        self.make_durable(usize::MAX);
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            while self.workers.get(&worker).is_some_and(|worker| !worker.incoming.is_empty()) {
                self.read(worker);
            }
        }
        // As much at a time as a client's share is.
        while let Some(deadline) = self.scheduler.credit.due() {
            self.now = deadline.max(self.now);
            self.event(Event::Tick);
        }
        self.make_durable(usize::MAX);
        self.kept.check_empty(self.clients.len());
        let status = self.scheduler.status();
        assert!(self.scheduler.clients.values().all(|client| client.owed == 0), "credit is kept back for nothing");
        assert!(self.clients.values().all(|client| client.kept.is_empty()), "data is kept for nothing");
        assert!(self.scheduler.entries.is_empty() && self.scheduler.runs.is_empty(), "{status:?}");
        assert!(status.workers.iter().all(|worker| worker.assignments == 0 && worker.values == 0), "{status:?}");
        assert!(status.clients.iter().all(|client| client.held_bytes == 0), "{status:?}");
        for (id, worker) in &self.workers {
            assert!(worker.stored.is_empty(), "worker {id} keeps {:?}", worker.stored.keys());
        }
        assert!(self.held.is_empty());
    }
}

fn play(client_bytes: u64, steps: &[Step]) {
    let mut play = Play::new(client_bytes, false);
    steps.iter().for_each(|&step| play.step(step));
    play.finish();
    play.compare();
    play.compare_links();
    play.release_all();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 3, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_item_ends_once_and_right(steps in proptest::collection::vec(any::<Step>(), 1..120)) {
        play(1 << 30, &steps);
    }

    #[test]
    fn arguments_that_are_let_go_hold_nothing_up(steps in proptest::collection::vec(any::<Step>(), 1..120)) {
        play(SMALL_SHARE, &steps);
    }

    /// Without deaths nothing may be lost or lacking: the stricter half.
    #[test]
    fn without_deaths_every_value_is_there(steps in proptest::collection::vec(any::<Step>(), 1..120)) {
        let peaceful: Vec<_> = steps.into_iter().filter(|(what, ..)| ![18, 20].contains(&(what % 32))).collect();
        play(1 << 30, &peaceful);
    }
}
