//! Where everything meets: the state machine, the clock, everybody's outbox, and data that no worker took. Must not know: how peers
//! are let in, or what is written and read when.

mod recording;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quinn::Connection;
use serde::Serialize;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    ServerSettings,
    journal::{Journal, Large},
    machine::Machine,
    modules::Modules,
    probe,
    sessions::{Session, Sessions},
};
use crate::{
    ConnectError,
    codec::Span,
    ids::{ClientId, Hash, Identity, Key, WorkerId},
    net::{Ca, Reserved, Room, control::Outbox, transport::Close},
    scheduler::{Action, Departure, Event, Location, Passport, Status},
    wire::{
        self, ToClient,
        operator::{Failures, OperatorRefusal, Tasks},
    },
};

/// One of the two kinds of peers, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    Client(ClientId),
    Worker(WorkerId),
}

/// What the shell has of a peer.
#[derive(Clone)]
pub(super) struct Seat {
    /// Its certificate's identity.
    pub(super) who: Identity,
    pub(super) name: String,
    pub(super) outbox: Outbox,
    pub(super) connection: Connection,
}

impl Seat {
    /// Where the peer comes from. An IPv4 peer of an IPv6 socket is an IPv4 peer, to others too.
    fn address(&self) -> SocketAddr {
        let address = self.connection.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }
}

/// A value's bytes, wherever they are.
pub(super) enum Source {
    Here(Bytes, Option<Hash>),
    /// These workers have it, and know it by that name.
    Workers(Stored, Vec<(WorkerId, Connection)>),
    Nowhere,
}

/// A value that workers have.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    pub(super) key: Key,
    pub(super) len: u64,
    pub(super) hash: Hash,
}

/// Data that is kept here, with the room that it takes up.
struct Held {
    bytes: Bytes,
    hash: Hash,
    _room: Reserved,
}

pub(super) struct Hub {
    ca: Ca,
    heartbeat: Duration,
    credit: u64,
    /// For data that no worker takes.
    pub(super) room: Arc<Room>,
    max_peers: usize,
    epoch: Instant,
    state: Mutex<State>,
    /// The deadline has moved nearer.
    sooner: Notify,
    /// There are silent workers.
    silence: Notify,
    pub(super) modules: Arc<Modules>,
    journal: OnceLock<Journal>,
    journal_directory: Option<PathBuf>,
    /// The journal has failed.
    failed: Notify,
}

struct State {
    machine: Box<dyn Machine>,
    seats: HashMap<Peer, Seat>,
    sessions: Sessions,
    modules: Arc<Modules>,
    seated: u64,
    held: HashMap<Key, Held>,
    /// What the timer waits for.
    deadline: Option<Duration>,
    /// Workers whose processes are to be looked for.
    silent: Vec<WorkerId>,
    actions: Vec<Action>,
    /// Nothing that happens from now on matters.
    is_over: bool,
    failure: Option<String>,
    on_failure: Option<Box<dyn FnOnce(ConnectError) + Send>>,
}

impl Hub {
    pub(super) fn new(settings: ServerSettings, machine: Box<dyn Machine>) -> Self {
        let modules = Arc::new(Modules::default());
        let state = State {
            machine,
            seats: HashMap::new(),
            sessions: Sessions::default(),
            modules: Arc::clone(&modules),
            seated: 0,
            held: HashMap::new(),
            deadline: None,
            silent: Vec::new(),
            actions: Vec::new(),
            is_over: false,
            failure: None,
            on_failure: None,
        };
        Self {
            ca: settings.ca,
            heartbeat: settings.config.lease / 5,
            credit: settings.config.credit,
            room: Room::new(settings.held_bytes),
            max_peers: settings.max_peers,
            epoch: Instant::now(),
            state: Mutex::new(state),
            sooner: Notify::new(),
            silence: Notify::new(),
            modules,
            journal: OnceLock::new(),
            journal_directory: settings.journal,
            failed: Notify::new(),
        }
    }

    pub(super) fn ca(&self) -> &Ca {
        &self.ca
    }

    pub(super) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    pub(super) fn credit(&self) -> u64 {
        self.credit
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state.lock();
        let mut status = state.machine.status();
        for worker in &mut status.workers {
            worker.address = state.seats.get(&Peer::Worker(worker.id)).map(Seat::address);
        }
        for client in &mut status.clients {
            client.address = state.seats.get(&Peer::Client(client.id)).map(Seat::address);
            if let Some(session) = state.sessions.get(client.id) {
                client.name.clone_from(&session.name);
            }
        }
        status.modules = self.modules.list();
        status.uptime_ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        status
    }

    pub(super) fn tasks(&self, limit: usize) -> Tasks {
        self.state.lock().machine.tasks(self.epoch.elapsed(), limit)
    }

    pub(super) fn failures(&self, limit: usize) -> Failures {
        self.state.lock().machine.failures(self.epoch.elapsed(), limit)
    }

    /// Cancels these items, and tells how many of them had not ended.
    pub(super) fn cancel(&self, span: Span) -> Result<u64, OperatorRefusal> {
        let state = self.state.lock();
        let pending = state.machine.pending(&span)?;
        self.handle(state, [Event::Cancel(span)]);
        Ok(pending)
    }

    /// The workers that are here, by number.
    pub(super) fn workers(&self) -> Vec<WorkerId> {
        let worker = |peer: &Peer| if let Peer::Worker(id) = peer { Some(*id) } else { None };
        let mut workers: Vec<_> = self.state.lock().seats.keys().filter_map(worker).collect();
        workers.sort_unstable();
        workers
    }

    /// Names and connections of those of the workers that are here.
    pub(super) fn worker_seats(&self, workers: &[WorkerId]) -> Vec<(WorkerId, String, Connection)> {
        let state = self.state.lock();
        let seat = |&id| state.seats.get(&Peer::Worker(id)).map(|seat| (id, seat.name.clone(), seat.connection.clone()));
        workers.iter().filter_map(seat).collect()
    }

    /// A number that no peer had before; `None` if there are too many peers.
    pub(super) fn number(&self) -> Option<u64> {
        let mut state = self.state.lock();
        // Clients without a connection count: what is kept of them is bounded by this.
        let workers = state.seats.keys().filter(|peer| matches!(peer, Peer::Worker(_))).count();
        let number = state.seated + 1;
        let is_new = self.journal.get().is_none_or(|journal| journal.allows(number));
        (is_new && workers + state.sessions.len() < self.max_peers).then(|| {
            state.seated = number;
            number
        })
    }

    /// Lets a peer take part: `joined` is its first event. One that was revoked since it was greeted leaves again at once.
    pub(super) fn seat(&self, peer: Peer, seat: Seat, joined: Event) {
        let mut state = self.state.lock();
        let revoked = self.ca.is_revoked(seat.who);
        state.seats.insert(peer, seat);
        self.handle(state, [joined].into_iter().chain(revoked.then(|| expulsion(peer))));
    }

    /// Lets a new client take part; whether its module is wanted.
    pub(super) fn seat_client(&self, client: ClientId, seat: Seat, session: Session) -> bool {
        let passport = Passport { secret: session.secret, name: session.name.clone() };
        let joined = Event::ClientJoined { client, who: session.who, module: session.module, passport };
        let is_wanted = self.modules.announce(session.module);
        self.state.lock().sessions.open(client, session);
        self.seat(Peer::Client(client), seat, joined);
        is_wanted
    }

    /// Lets a client that says to be one from before go on in this seat, if it is, instead of in the one that it had. Gives its number, and
    /// how many of its messages were taken in.
    pub(super) fn seat_again(
        &self,
        who: Identity,
        claim: &wire::Session,
        seat: impl FnOnce() -> Seat,
    ) -> Option<(ClientId, u64)> {
        let mut state = self.state.lock();
        let client = state.sessions.find(who, claim).filter(|&client| state.machine.knows(client))?;
        let applied = state.sessions.get(client)?.applied;
        if let Some(old) = state.seats.insert(Peer::Client(client), seat()) {
            Close::Again.close(&old.connection, "the client is here on another connection");
        }
        let revoked = self.ca.is_revoked(who).then(|| expulsion(Peer::Client(client)));
        self.handle(state, [Event::ClientReturned { client }].into_iter().chain(revoked));
        Some((client, applied))
    }

    /// The identity of a worker that is here.
    pub(super) fn identity(&self, worker: WorkerId) -> Option<Identity> {
        self.state.lock().seats.get(&Peer::Worker(worker)).map(|seat| seat.who)
    }

    /// Shows every peer of that identity, which is revoked already, the door. Gives their connections.
    pub(super) fn expel(&self, who: Identity) -> Vec<Connection> {
        let state = self.state.lock();
        let here = state.seats.iter().filter(|(_, seat)| seat.who == who);
        let (mut peers, connections): (Vec<_>, Vec<_>) = here.map(|(&peer, seat)| (peer, seat.connection.clone())).unzip();
        let away = state.sessions.of(who).map(Peer::Client).filter(|peer| !state.seats.contains_key(peer));
        peers.extend(away);
        self.handle(state, peers.into_iter().map(expulsion));
        connections
    }

    /// The connection of the peer with that outbox is gone; whether it has left for good. A client that is here on another connection does
    /// not notice.
    pub(super) fn leave(&self, peer: Peer, outbox: &Outbox, is_farewell: bool) {
        let mut state = self.state.lock();
        if state.seats.get(&peer).is_some_and(|seat| !seat.outbox.is(outbox)) {
            return;
        }
        // One without a seat was shown the door.
        let has_seat = state.seats.remove(&peer).is_some();
        let left = match peer {
            Peer::Client(client) if is_farewell || !has_seat => Event::ClientLeft { client },
            Peer::Client(client) => Event::ClientLost { client },
            Peer::Worker(worker) => {
                let departure = if is_farewell { Departure::Left } else { Departure::Lost };
                Event::WorkerLeft { worker, departure }
            }
        };
        self.handle(state, [left]);
    }

    /// A worker whose connection is still there turned out to have died.
    fn bury(&self, worker: WorkerId) {
        let mut state = self.state.lock();
        if state.seats.remove(&Peer::Worker(worker)).is_some() {
            self.handle(state, [Event::WorkerLeft { worker, departure: Departure::Died }]);
        }
    }

    /// A worker's process has ended.
    pub(super) fn worker_died(&self, incarnation: u64) {
        self.handle(self.state.lock(), [Event::WorkerDied { incarnation }]);
    }

    /// Has what the peer with that outbox said handled; nothing of one that has been shown the door, or is here on another connection.
    pub(super) fn feed(&self, peer: Peer, outbox: &Outbox, events: impl ExactSizeIterator<Item = Event>) {
        let mut state = self.state.lock();
        if !state.seats.get(&peer).is_some_and(|seat| seat.outbox.is(outbox)) {
            return;
        }
        if let Peer::Client(client) = peer {
            state.sessions.count(client, events.len() as u64, self.journal.get().is_none());
        }
        self.handle(state, events);
    }

    /// What was said to the peer with that outbox is written.
    pub(super) fn has_room(&self, peer: Peer, outbox: &Outbox) {
        let state = self.state.lock();
        let is_here = state.seats.get(&peer).is_some_and(|seat| seat.outbox.is(outbox));
        if let (Peer::Client(client), true) = (peer, is_here) {
            self.handle(state, [Event::ClientHasRoom { client }]);
        }
    }

    /// Breaks the connections of all clients that are here.
    #[cfg(test)]
    pub(super) fn cut(&self) {
        for (peer, seat) in &self.state.lock().seats {
            if matches!(peer, Peer::Client(_)) {
                Close::Again.close(&seat.connection, "cut");
            }
        }
    }

    /// Keeps data, and says so.
    pub(super) fn hold(&self, peer: Peer, key: Key, bytes: Bytes, hash: Hash, room: Reserved) {
        let mut state = self.state.lock();
        if state.seats.contains_key(&peer) {
            let len = bytes.len() as u64;
            if let Some(journal) = self.journal.get() {
                journal.keep(Large::Data(key), bytes.clone());
            }
            state.held.insert(key, Held { bytes, hash, _room: room });
            self.handle(state, [Event::Held { key, len, hash }]);
        }
    }

    /// Where to get a value, for a peer that asks for it; nowhere if it has nothing to do for which it needs it.
    pub(super) fn find(&self, key: Key, asking: Peer) -> Source {
        let state = self.state.lock();
        if let Peer::Worker(worker) = asking
            && !state.machine.may_read(worker, key)
        {
            return Source::Nowhere;
        }
        match state.machine.locate(key) {
            Location::Inline(bytes) => Source::Here(bytes, None),
            Location::Held => match state.held.get(&state.machine.origin(key)) {
                Some(held) => Source::Here(held.bytes.clone(), Some(held.hash)),
                None => Source::Nowhere,
            },
            Location::Workers(workers) => {
                let Some((len, hash)) = state.machine.measure(key) else { return Source::Nowhere };
                let others = workers.into_iter().filter(|&worker| Peer::Worker(worker) != asking);
                let connection = |worker| Some((worker, state.seats.get(&Peer::Worker(worker))?.connection.clone()));
                Source::Workers(Stored { key: state.machine.origin(key), len, hash }, others.filter_map(connection).collect())
            }
            Location::Nowhere => Source::Nowhere,
        }
    }

    /// A worker does not have what it says it has.
    pub(super) fn unserved(&self, worker: WorkerId, value: Stored) {
        let Stored { key, len, hash } = value;
        self.handle(self.state.lock(), [Event::Unserved { worker, key, len, hash }]);
    }

    /// Ticks when the state machine wants it.
    pub(super) async fn run_timer(self: Arc<Self>) {
        loop {
            let deadline = self.state.lock().deadline.and_then(|deadline| self.epoch.checked_add(deadline));
            let due = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.tick(),
                () = self.sooner.notified() => {}
            }
        }
    }

    fn tick(&self) {
        let mut state = self.state.lock();
        match state.machine.next_deadline() {
            Some(deadline) if deadline <= self.epoch.elapsed() => {
                state.deadline = None;
                self.handle(state, [Event::Tick]);
            }
            later => state.deadline = later,
        }
    }

    /// Looks for the processes of workers that the state machine named.
    pub(super) async fn run_probes(self: Arc<Self>) {
        let mut probes = JoinSet::new();
        loop {
            self.silence.notified().await;
            let silent: Vec<_> = {
                let mut state = self.state.lock();
                let silent = std::mem::take(&mut state.silent);
                silent.into_iter().filter_map(|id| Some((id, state.seats.get(&Peer::Worker(id))?.connection.clone()))).collect()
            };
            for (worker, connection) in silent {
                let hub = Arc::clone(&self);
                probes.spawn(async move {
                    if probe::is_gone(&connection).await {
                        tracing::warn!(%worker, "a worker is silent, and its process is gone");
                        hub.bury(worker);
                        Close::Done.close(&connection, "its process is gone");
                    }
                });
            }
            while probes.try_join_next().is_some() {}
        }
    }

    fn handle(&self, mut state: MutexGuard<'_, State>, events: impl IntoIterator<Item = Event>) {
        if state.is_over {
            return;
        }
        let now = self.epoch.elapsed();
        let state = &mut *state;
        for event in events {
            state.machine.handle(now, event, &mut state.actions);
        }
        state.carry_out(self.journal.get());
        if !state.silent.is_empty() {
            self.silence.notify_one();
        }
        let next = state.machine.next_deadline();
        if next.is_some_and(|next| state.deadline.is_none_or(|deadline| next < deadline)) {
            state.deadline = next;
            self.sooner.notify_one();
        }
    }
}

impl State {
    fn carry_out(&mut self, journal: Option<&Journal>) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut last: Option<Outbox> = None;
        let mut dropped = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::ToClient(client, message) => {
                    self.tell(Peer::Client(client), &message, &mut last);
                    self.acknowledge(client, matches!(message, ToClient::Credit { .. }), &mut last);
                }
                Action::ToWorker(worker, message) => self.tell(Peer::Worker(worker), &message, &mut last),
                Action::Drop(span) => dropped.push(span),
                Action::Record(records) => {
                    self.sessions.note_records(&records);
                    if let Some(journal) = journal {
                        journal.push(records);
                    }
                }
                Action::AwaitRoom(client) => {
                    if let Some(seat) = self.seats.get(&Peer::Client(client)) {
                        seat.outbox.ask_room();
                    }
                }
                Action::DisconnectClient(client) => self.dismiss(Peer::Client(client)),
                Action::DisconnectWorker(worker) => self.dismiss(Peer::Worker(worker)),
                Action::Probe(worker) => self.silent.push(worker),
                Action::ForgetClient(client) => {
                    if let Some(session) = self.sessions.close(client) {
                        let gone = self.modules.withdraw(session.module);
                        if let Some(journal) = journal {
                            gone.into_iter().for_each(|hash| journal.discard(Large::Module(hash)));
                        }
                    }
                }
            }
        }
        if let Some(last) = last {
            last.flush();
        }
        // After it is recorded that nobody needs them.
        dropped.into_iter().for_each(|span| self.forget(journal, |key| covers(&span, key)));
        self.actions = actions;
    }

    /// Tells a client how many of its messages were taken in, now and then; at the next occasion if it is `due`. Only here.
    fn acknowledge(&mut self, client: ClientId, due: bool, last: &mut Option<Outbox>) {
        if let Some(messages) = self.sessions.tell(client, due) {
            self.tell(Peer::Client(client), &ToClient::Applied { messages }, last);
        }
    }

    /// Queues a message. Writers are woken when the next message is for somebody else: a run of them goes into one frame.
    fn tell<T: Serialize>(&self, peer: Peer, message: &T, last: &mut Option<Outbox>) {
        let Some(seat) = self.seats.get(&peer) else { return };
        if let Err(error) = seat.outbox.push(message) {
            // Going on without it would leave a gap that nobody ever fills.
            tracing::error!(?peer, %error, "a message cannot be sent");
            Close::Protocol.close(&seat.connection, &error.to_string());
        }
        if !last.as_ref().is_some_and(|last| last.is(&seat.outbox))
            && let Some(before) = last.replace(seat.outbox.clone())
        {
            before.flush();
        }
    }

    /// Ends a connection once what was said is written; its task sees that and leaves.
    fn dismiss(&mut self, peer: Peer) {
        if let Some(seat) = self.seats.remove(&peer) {
            seat.outbox.finish();
        }
    }

    fn forget(&mut self, journal: Option<&Journal>, is_gone: impl Fn(&Key) -> bool) {
        let gone = self.held.extract_if(|key, _| is_gone(key)).map(|(key, _)| key);
        gone.for_each(|key| {
            if let Some(journal) = journal {
                journal.discard(Large::Data(key));
            }
        });
    }
}

fn expulsion(peer: Peer) -> Event {
    match peer {
        Peer::Client(client) => Event::ClientRevoked { client },
        Peer::Worker(worker) => Event::WorkerRevoked { worker },
    }
}

fn covers(span: &Span, key: &Key) -> bool {
    key.entry == span.entry && key.index >= span.first && key.index - span.first < span.count
}
