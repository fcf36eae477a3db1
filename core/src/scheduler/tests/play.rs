//! Random plays: clients, workers and a network that does things in any order. After each event every invariant is checked; at the
//! end every item that is wanted was told exactly once and is what the graph says, and when all is released nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    lab::{identity, requirements, spec_for},
    model::{FakeWorker, Fate, Graph, Item, Nature, inputs_of, source_of},
};
use crate::{
    TaskErrorKind,
    codec::{Args, Hole, RunBuilder, Span},
    ids::{ClientId, EntryId, Hash, Key, WorkerId},
    scheduler::{Action, Config, Event, Location, Scheduler},
    wire::{FromClient, FromWorker, InputPlace, ToClient, ToWorker, WorkerHello},
};

/// What a client was told of an item.
#[derive(Debug, PartialEq)]
enum Told {
    Done(Bytes),
    Stored(Hash),
    Failed(Key, TaskErrorKind),
    Cancelled,
}

#[derive(Debug, Default)]
struct FakeClient {
    next_seq: u64,
    /// Length of each entry that has items that are wanted, and whether it is open.
    entries: BTreeMap<u64, (u64, bool)>,
    told: BTreeMap<Key, Told>,
    released: BTreeSet<Key>,
    uploads: Vec<(u64, Option<WorkerId>)>,
}

struct Play {
    scheduler: Scheduler,
    now: Duration,
    graph: Graph,
    clients: BTreeMap<ClientId, FakeClient>,
    workers: BTreeMap<WorkerId, FakeWorker>,
    held: BTreeMap<Key, Bytes>,
    next_worker: u64,
    next_client: u64,
}

/// More than the workers on which items hiccup.
const RETRIES: u32 = 6;
/// What kinds of workers have. Each thing that is asked for is had by one of them.
const KINDS: [&str; 5] = ["", "zone=a", "zone=b gpu=2", "zone=a gpu=1 disk=10", "arch=z80 disk=3"];
/// What calls ask for.
const ASKED: [&str; 8] =
    ["zone=a", "zone=b", "gpu=1", "gpu=2 zone=b", "zone=a gpu=1 disk=7", "disk=3", "disk=2", "arch=z80 disk=1"];

/// More items than an entry of a play gets.
const ENTRY_ITEMS: u64 = 2000;

/// One step: what, and two numbers that say which and how.
type Step = (u8, u32, u32);

impl Play {
    /// With little room for arguments, those of stored results are let go soon.
    fn new(client_bytes: u64) -> Self {
        let config = Config { max_deaths: 1000, lease: Duration::MAX, client_bytes, ..Config::default() };
        let mut play = Self {
            scheduler: Scheduler::new(config),
            now: Duration::ZERO,
            graph: Graph { sheds: client_bytes < 1000, ..Graph::default() },
            clients: BTreeMap::new(),
            workers: BTreeMap::new(),
            held: BTreeMap::new(),
            next_worker: 1,
            next_client: 1,
        };
        play.client_joins();
        play.client_joins();
        play.worker_joins(2, 0);
        play
    }

    fn event(&mut self, event: Event) {
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
                Action::DisconnectWorker(worker) if !self.workers.contains_key(&worker) => {}
                Action::DisconnectClient(_) | Action::DisconnectWorker(_) => panic!("the model keeps to the protocol"),
            }
        }
    }

    fn told(&mut self, id: ClientId, message: ToClient) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let key = |seq, index| EntryId { client: id, seq }.key(index);
        let mut tell = |key: Key, told: Told| {
            assert!(!client.released.contains(&key), "{key} was released, and {told:?}");
            if let Some(before) = client.told.get(&key) {
                let again = matches!((before, &told), (Told::Stored(a), Told::Stored(b)) if a == b);
                let is_final = self.graph.sheds || self.graph.data.contains_key(&key);
                let lost_data = matches!(&told, Told::Failed(_, TaskErrorKind::DataLost)) && is_final;
                assert!(again || lost_data, "{key} was told twice: {before:?}, {told:?}");
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
                let before = client.told.remove(&key(seq, index));
                assert!(matches!(before, Some(Told::Stored(_))), "{before:?} was lost");
            }
            ToClient::Upload { seq, place } => client.uploads.push((seq, place.map(|place| place.worker))),
            ToClient::Credit { .. } | ToClient::Counts { .. } => {}
            ToClient::Explained { waiting, .. } => assert!(waiting.iter().all(|all| all.items > 0 && !all.why.is_empty())),
            ToClient::Refused { reason } => panic!("a model client was refused: {reason}"),
        }
    }

    fn client_joins(&mut self) {
        let id = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(id, FakeClient { next_seq: 1, ..FakeClient::default() });
        self.event(Event::ClientJoined { client: id, who: identity(100 + id.0), module: Hash([0; 32]) });
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
        };
        let who = identity(id.0);
        self.workers.insert(id, FakeWorker::new(who, hello.clone()));
        self.event(Event::WorkerJoined { worker: id, who, name: format!("w{id}"), hello });
    }

    fn step(&mut self, (what, a, b): Step) {
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
            (16, Some(client), _) => self.unreachable(client, a / 2),
            (17, Some(client), _) if b.is_multiple_of(16) => {
                self.clients.remove(&client);
                self.event(Event::ClientLeft { client });
                self.client_joins();
            }
            (18, _, Some(worker)) if b.is_multiple_of(4) => self.worker_dies(worker),
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
    fn spec(asks: u32, priority: i32) -> crate::wire::CallSpec {
        let mut spec = spec_for(ASKED.get(asks as usize % (2 * ASKED.len())).unwrap_or(&""));
        spec.options.retries = RETRIES;
        if asks.is_multiple_of(5) {
            spec.options.memory = 3 << 30;
        }
        spec.options.priority = priority;
        spec
    }

    fn submit(&mut self, client: ClientId, a: u32, b: u32) {
        let seq = self.clients[&client].next_seq;
        let args = self.args(client, seq, 1, a, b);
        let entry = self.new_entry(client, 1, false);
        self.note(entry, 0, &args);
        let call = FromClient::Call { seq, spec: Self::spec(b / 16, (b % 3) as i32), args };
        self.event(Event::FromClient(client, call));
    }

    fn open_map(&mut self, client: ClientId, b: u32) {
        let entry = self.new_entry(client, 0, true);
        self.event(Event::FromClient(client, FromClient::Map { seq: entry.seq, spec: Self::spec(b, 0) }));
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
        self.event(Event::FromClient(client, FromClient::Items { seq, args }));
    }

    fn explain(&mut self, client: ClientId) {
        let entries = self.clients[&client].entries.iter();
        let spans = entries.map(|(&seq, &(len, _))| Span { entry: EntryId { client, seq }, first: 0, count: len }).collect();
        self.event(Event::FromClient(client, FromClient::Explain { query: 1, spans }));
        assert_eq!(self.scheduler.status().waits.iter().map(|all| all.items).sum::<u64>(), self.scheduler.status().counts.queued);
    }

    fn close_map(&mut self, client: ClientId, a: u32) {
        let fake = self.clients.get_mut(&client).expect("here");
        let open: Vec<_> = fake.entries.iter().filter(|(_, (_, open))| *open).map(|(&seq, _)| seq).collect();
        let Some(&seq) = open.get(a as usize % open.len().max(1)) else { return };
        if let Some(place) = fake.entries.get_mut(&seq) {
            place.1 = false;
        }
        self.event(Event::FromClient(client, FromClient::Close { seq }));
    }

    fn send_data(&mut self, client: ClientId, b: u32) {
        let entry = self.new_entry(client, 1, false);
        let bytes = Bytes::copy_from_slice(&b.to_le_bytes());
        self.graph.data.insert(entry.key(0), bytes.clone());
        let inline = (b.is_multiple_of(2)).then(|| bytes.clone());
        let data = FromClient::Data { seq: entry.seq, len: 4, hash: Hash::of(&bytes), bytes: inline };
        self.event(Event::FromClient(client, data));
    }

    fn upload(&mut self, client: ClientId, fails: bool) {
        let Some((seq, place)) = self.clients.get_mut(&client).expect("here").uploads.pop() else { return };
        let key = EntryId { client, seq }.key(0);
        let bytes = self.graph.data[&key].clone();
        let (len, hash) = (4, Hash::of(&bytes));
        match place {
            None => {
                self.held.insert(key, bytes);
                self.event(Event::Held { key, len, hash });
            }
            Some(worker) if !fails && self.workers.contains_key(&worker) => {
                self.workers.get_mut(&worker).expect("here").stored.insert(key, bytes);
                self.event(Event::FromWorker(worker, FromWorker::Holds { key, len, hash }));
            }
            Some(_) => self.event(Event::FromClient(client, FromClient::UploadFailed { seq })),
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

    fn release(&mut self, client: ClientId, a: u32, b: u32) {
        if let Some(span) = self.some_span(client, a, b) {
            self.clients
                .get_mut(&client)
                .expect("here")
                .released
                .extend((span.first..span.first + span.count).map(|i| span.entry.key(i)));
            self.event(Event::FromClient(client, FromClient::Release { span }));
        }
    }

    fn cancel(&mut self, client: ClientId, a: u32, b: u32) {
        if let Some(span) = self.some_span(client, a, b) {
            self.graph.cancelled.extend((span.first..span.first + span.count).map(|i| span.entry.key(i)));
            self.event(Event::FromClient(client, FromClient::Cancel { span }));
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
        if let Some(key) = stored.get(a as usize % stored.len().max(1)).filter(|key| !self.graph.data.contains_key(key)) {
            self.event(Event::FromClient(client, FromClient::Unreachable { seq: key.entry.seq, index: key.index }));
        }
    }

    fn worker_dies(&mut self, worker: WorkerId) {
        self.graph.deaths = true;
        self.workers.remove(&worker);
        self.event(if worker.0.is_multiple_of(3) { Event::WorkerRevoked { worker } } else { Event::WorkerLeft { worker } });
    }

    fn read(&mut self, worker: WorkerId) {
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
        let leaves = worker.draining && worker.task_count() == 0 && worker.incoming.is_empty();
        self.workers.insert(id, worker);
        said.into_iter().for_each(|message| self.event(Event::FromWorker(id, message)));
        if leaves {
            self.worker_dies(id);
        }
    }

    /// Lets everything come to its end.
    fn finish(&mut self) {
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            while self.clients[&client].entries.values().any(|(_, open)| *open) {
                self.close_map(client, 0);
            }
        }
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
            let busy = self.workers.values().any(|worker| worker.task_count() > 0 || !worker.incoming.is_empty());
            if !busy && self.scheduler.runs.is_empty() && self.clients.values().all(|client| client.uploads.is_empty()) {
                break;
            }
            assert!(round < 1_000, "it does not come to an end: {:?}", self.scheduler.runs);
        }
    }

    fn compare(&self) {
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

    fn release_all(&mut self) {
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            for (seq, (len, _)) in std::mem::take(&mut self.clients.get_mut(&client).expect("here").entries) {
                let span = Span { entry: EntryId { client, seq }, first: 0, count: len };
                self.event(Event::FromClient(client, FromClient::Release { span }));
            }
        }
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            while self.workers.get(&worker).is_some_and(|worker| !worker.incoming.is_empty()) {
                self.read(worker);
            }
        }
        let status = self.scheduler.status();
        assert!(self.scheduler.entries.is_empty() && self.scheduler.runs.is_empty(), "{status:?}");
        assert!(status.workers.iter().all(|worker| worker.assignments == 0 && worker.values == 0), "{status:?}");
        assert!(status.clients.iter().all(|client| client.held_bytes == 0), "{status:?}");
        for (id, worker) in &self.workers {
            assert!(worker.stored.is_empty(), "worker {id} keeps {:?}", worker.stored.keys());
        }
        assert!(self.held.is_empty());
    }
}

impl Fate {
    fn allows(&self, told: &Told) -> bool {
        match told {
            Told::Done(value) => self.value.as_ref() == Some(value),
            Told::Stored(hash) => self.value.as_ref().is_some_and(|value| Hash::of(value) == *hash),
            Told::Failed(_, TaskErrorKind::DataLost) => self.may_lack,
            Told::Failed(key, _) => self.causes.contains(key),
            Told::Cancelled => self.may_be_cancelled,
        }
    }
}

fn play(client_bytes: u64, steps: &[Step]) {
    let mut play = Play::new(client_bytes);
    steps.iter().for_each(|&step| play.step(step));
    play.finish();
    play.compare();
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
        play(30, &steps);
    }

    /// Without deaths nothing may be lost or lacking: the stricter half.
    #[test]
    fn without_deaths_every_value_is_there(steps in proptest::collection::vec(any::<Step>(), 1..120)) {
        let peaceful: Vec<_> = steps.into_iter().filter(|(what, ..)| ![18, 20].contains(&(what % 32))).collect();
        play(1 << 30, &peaceful);
    }
}

#[test]
fn natures_are_mixed() {
    let natures: Vec<_> = (0..=255).map(|byte| Nature::of(&[byte])).collect();
    assert!(natures.iter().any(|nature| nature.fails) && natures.iter().any(|nature| nature.stored && !nature.fails));
}
