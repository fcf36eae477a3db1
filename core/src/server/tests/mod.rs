//! The shell and both peers' ends over loopback, around a machine of the tests' own.

mod admission;
mod again;
mod blobs;
mod hostile;
mod journal;
mod members;
mod messages;
mod operators;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Runtime;

use super::{SchedulerServer, ServerSettings, machine::Machine};
use crate::{
    ConnectError,
    client::backend::Inbox,
    codec::Span,
    ids::{ClientId, EntryId, Hash, Key, WorkerId},
    net::{
        Ca, Reserved, Room,
        client::{ConnectSettings, Connected, Program, connect},
        pass::Pass,
        worker::{self, BlobStore, Reading, WorkerLink, WorkerPass, WorkerSettings},
    },
    scheduler::{Action, Event, Location, Scheduler, Status},
    wire::{
        FromClient, FromWorker, LogLine, LogQuery, Role, Session, StateCounts, ToClient, ToWorker,
        operator::{Failures, OperatorRefusal, Tasks},
    },
};

/// Whatever is waited for takes far less; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers counts and heartbeats, remembers what happened and who said to have what.
#[derive(Clone, Default)]
struct Fake {
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    places: HashMap<Key, Location>,
    measures: HashMap<Key, (u64, Hash)>,
    /// What no worker has anything to do with.
    secrets: HashSet<Key>,
}

impl Machine for Fake {
    fn handle(&mut self, _now: Duration, event: Event, actions: &mut Vec<Action>) {
        let mut seen = self.seen.0.lock();
        match &event {
            Event::FromClient(client, FromClient::Count { query, .. }) => {
                actions.push(Action::ToClient(*client, ToClient::Counts { query: *query, counts: StateCounts::default() }));
            }
            Event::FromClient(client, FromClient::Close { .. }) => {
                actions.push(Action::ToClient(*client, ToClient::Refused { reason: "asked for".to_owned() }));
                actions.push(Action::DisconnectClient(*client));
            }
            Event::FromWorker(worker, FromWorker::Heartbeat(_)) => actions.push(Action::ToWorker(*worker, ToWorker::Drain)),
            Event::FromWorker(worker, FromWorker::Holds { key, len, hash }) => {
                seen.places.insert(*key, Location::Workers(vec![*worker]));
                seen.measures.insert(*key, (*len, *hash));
            }
            Event::ClientReturned { client } => actions.push(Action::AwaitRoom(*client)),
            Event::Held { key, .. } => drop(seen.places.insert(*key, Location::Held)),
            _ => {}
        }
        seen.events.push(event);
        self.seen.1.notify_all();
    }

    fn knows(&self, _client: ClientId) -> bool {
        true
    }

    fn next_deadline(&self) -> Option<Duration> {
        let seen = self.seen.0.lock();
        (!seen.events.iter().any(|event| matches!(event, Event::Tick))).then_some(Duration::from_millis(1))
    }

    fn may_read(&self, _worker: WorkerId, key: Key) -> bool {
        !self.seen.0.lock().secrets.contains(&key)
    }

    fn measure(&self, key: Key) -> Option<(u64, Hash)> {
        self.seen.0.lock().measures.get(&key).copied()
    }

    fn origin(&self, key: Key) -> Key {
        key
    }

    fn locate(&self, key: Key) -> Location {
        self.seen.0.lock().places.get(&key).cloned().unwrap_or(Location::Nowhere)
    }

    fn status(&self) -> Status {
        idle().status()
    }

    fn tasks(&self, now: Duration, limit: usize) -> Tasks {
        idle().tasks(now, limit)
    }

    fn failures(&self, now: Duration, limit: usize) -> Failures {
        idle().failures(now, limit)
    }

    fn pending(&self, span: &Span) -> Result<u64, OperatorRefusal> {
        idle().pending(span)
    }
}

/// What a client without the code that makes clients well-behaved shows.
fn session() -> Option<Session> {
    Some(Session { secret: [1; 16], client: None })
}

fn idle() -> Scheduler {
    Scheduler::new(crate::scheduler::Config::default())
}

impl Fake {
    /// Waits until such an event has happened.
    fn wait_for(&self, wanted: impl Fn(&Event) -> bool) {
        let mut seen = self.seen.0.lock();
        while !seen.events.iter().any(&wanted) {
            assert!(!self.seen.1.wait_for(&mut seen, PATIENCE).timed_out(), "only {:?} happened", seen.events);
        }
    }

    fn happened(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.seen.0.lock().events.iter().any(wanted)
    }
}

fn serve() -> (SchedulerServer, Fake) {
    let fake = Fake::default();
    let settings = ServerSettings::new("127.0.0.1:0".parse().expect("an address"), Ca::in_memory().expect("a CA"));
    (SchedulerServer::start_with(settings, Box::new(fake.clone()), |_| Ok(())).expect("started"), fake)
}

/// What a client's inbox got.
#[derive(Debug)]
enum Got {
    Message(ToClient),
    Fetched(Key, Option<Bytes>),
    Returned,
    Forgotten,
    Disconnected(String),
}

struct TestInbox(mpsc::Sender<Got>);

impl TestInbox {
    fn pass(&self, got: Got) {
        // A test that has seen enough does not listen any more.
        let _ = self.0.send(got);
    }
}

impl Inbox for TestInbox {
    fn receive(&self, messages: &mut Vec<ToClient>) {
        // That comes whenever it comes.
        messages.retain(|message| !matches!(message, ToClient::Applied { .. }));
        messages.drain(..).for_each(|message| self.pass(Got::Message(message)));
    }

    fn fetched(&self, key: Key, bytes: Option<Bytes>) {
        self.pass(Got::Fetched(key, bytes));
    }

    fn returned(&self) {
        self.pass(Got::Returned);
    }

    fn forgotten(&self) {
        self.pass(Got::Forgotten);
    }

    fn disconnected(&self, reason: &str) {
        self.pass(Got::Disconnected(reason.to_owned()));
    }
}

/// A connected client.
struct TestClient {
    connected: Connected,
    inbox: mpsc::Receiver<Got>,
}

impl TestClient {
    fn connect(server: &SchedulerServer) -> Self {
        Self::try_connect(server, &server.token(Role::Client).to_string()).expect("connected")
    }

    fn try_connect(server: &SchedulerServer, token: &str) -> Result<Self, ConnectError> {
        Self::connect_to(&server.local_addr().to_string(), token, b"\0asm module")
    }

    fn connect_to(address: &str, token: &str, wasm: &'static [u8]) -> Result<Self, ConnectError> {
        let (address, token) = (address.to_owned(), Some(token.to_owned()));
        Self::enter(&ConnectSettings { address, token, ..settings() }, wasm)
    }

    fn enter(settings: &ConnectSettings, wasm: &'static [u8]) -> Result<Self, ConnectError> {
        let (sender, inbox) = mpsc::channel();
        let program = Program { wasm: Bytes::from_static(wasm), hash: Hash::of(wasm) };
        let connected = connect(settings, program, Arc::new(TestInbox(sender)))?;
        Ok(Self { connected, inbox })
    }

    fn send(&self, message: FromClient) {
        self.connected.backend.send(&mut std::iter::once(message));
    }

    fn next(&self) -> Got {
        self.inbox.recv_timeout(PATIENCE).expect("something comes")
    }

    fn key(&self, seq: u64) -> Key {
        EntryId { client: self.connected.client, seq }.key(0)
    }

    /// Asks the fake something and waits for the answer.
    fn ping(&self, query: u64) {
        self.send(FromClient::Count { query, spans: Vec::new() });
        match self.next() {
            Got::Message(ToClient::Counts { query: answered, .. }) => assert_eq!(answered, query),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for TestClient {
    fn drop(&mut self) {
        self.connected.backend.close();
    }
}

/// Keeps values in a map; while that is locked, nobody is answered.
#[derive(Default)]
struct TestStore {
    values: Mutex<HashMap<Key, (Bytes, Hash)>>,
    lines: Vec<LogLine>,
}

impl BlobStore for TestStore {
    fn read(&self, key: Key) -> Reading<'_> {
        let value = self.values.lock().get(&key).cloned();
        Box::pin(std::future::ready(value))
    }

    fn reserve(&self, len: u64) -> Result<Reserved, String> {
        Room::new(1 << 30).reserve(len, 0).ok_or_else(|| "too much".to_owned())
    }

    fn write(&self, key: Key, bytes: Bytes, hash: Hash) -> Result<(), String> {
        self.values.lock().insert(key, (bytes, hash));
        Ok(())
    }

    fn log(&self, query: &LogQuery) -> Vec<LogLine> {
        let _values = self.values.lock();
        let wanted: Vec<_> = self.lines.iter().filter(|line| query.wants(line)).cloned().collect();
        wanted[wanted.len().saturating_sub(query.limit as usize)..].to_vec()
    }
}

/// Of clients that do not connect again.
fn settings() -> ConnectSettings {
    ConnectSettings { address: String::new(), token: None, state: None, name: "test".to_owned(), patience: Duration::ZERO }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// What a peer of that role gets in with; nothing is kept.
fn pass(server: &SchedulerServer, role: Role) -> Pass {
    let (address, token) = (server.local_addr().to_string(), server.token(role).to_string());
    Pass::new(&address, &[role], Some(&token), None, SystemTime::now()).expect("a token")
}

fn worker_settings(server: &SchedulerServer) -> WorkerSettings {
    worker_settings_at(server.local_addr().to_string(), server.token(Role::Worker).to_string())
}

fn worker_settings_at(address: String, token: String) -> WorkerSettings {
    WorkerSettings {
        address,
        token: Some(token),
        state: None,
        name: "test".to_owned(),
        slots: 1,
        memory: 1 << 30,
        arch: "x86_64".to_owned(),
        labels: Vec::new(),
        resources: Vec::new(),
        listen: None,
        incarnation: 0,
        keeps: 0,
    }
}

async fn join_worker(server: &SchedulerServer) -> (WorkerLink, Arc<TestStore>) {
    let store = Arc::new(TestStore::default());
    let link = try_join(&worker_settings(server), Arc::clone(&store) as Arc<dyn BlobStore>).await.expect("joined");
    (link, store)
}

async fn try_join(settings: &WorkerSettings, store: Arc<dyn BlobStore>) -> Result<WorkerLink, ConnectError> {
    worker::join(settings, &WorkerPass::new(settings)?, store).await
}

fn holds(key: Key, bytes: &Bytes) -> FromWorker {
    FromWorker::Holds { key, len: bytes.len() as u64, hash: Hash::of(bytes) }
}
