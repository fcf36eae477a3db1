//! Where everything meets: the state machine, the clock, everybody's outbox, and data that no worker took. Must not know: how peers
//! are let in, or what is written and read when.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quinn::Connection;
use serde::Serialize;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{ServerSettings, machine::Machine, modules::Modules};
use crate::{
    codec::Span,
    ids::{ClientId, Hash, Identity, Key, WorkerId},
    net::{Ca, Reserved, Room, control::Outbox, transport::Close},
    scheduler::{Action, Event, Location, Status},
    wire::operator::{Failures, OperatorRefusal, Tasks},
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
    Workers(Vec<Connection>),
    Nowhere,
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
    pub(super) modules: Modules,
}

struct State {
    machine: Box<dyn Machine>,
    seats: HashMap<Peer, Seat>,
    seated: u64,
    held: HashMap<Key, Held>,
    /// What the timer waits for.
    deadline: Option<Duration>,
    actions: Vec<Action>,
}

impl Hub {
    pub(super) fn new(settings: ServerSettings, machine: Box<dyn Machine>) -> Self {
        let state =
            State { machine, seats: HashMap::new(), seated: 0, held: HashMap::new(), deadline: None, actions: Vec::new() };
        Self {
            ca: settings.ca,
            heartbeat: settings.config.lease / 5,
            credit: settings.config.credit,
            room: Room::new(settings.held_bytes),
            max_peers: settings.max_peers,
            epoch: Instant::now(),
            state: Mutex::new(state),
            sooner: Notify::new(),
            modules: Modules::default(),
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
            if let Some(seat) = state.seats.get(&Peer::Client(client.id)) {
                client.address = Some(seat.address());
                client.name.clone_from(&seat.name);
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
        (state.seats.len() < self.max_peers).then(|| {
            state.seated += 1;
            state.seated
        })
    }

    /// Lets a peer take part: `joined` is its first event. One that was revoked since it was greeted leaves again at once.
    pub(super) fn seat(&self, peer: Peer, seat: Seat, joined: Event) {
        let mut state = self.state.lock();
        let revoked = self.ca.is_revoked(seat.who);
        state.seats.insert(peer, seat);
        self.handle(state, [joined].into_iter().chain(revoked.then(|| expulsion(peer))));
    }

    /// The identity of a worker that is here.
    pub(super) fn identity(&self, worker: WorkerId) -> Option<Identity> {
        self.state.lock().seats.get(&Peer::Worker(worker)).map(|seat| seat.who)
    }

    /// Shows every peer of that identity, which is revoked already, the door. Gives their connections.
    pub(super) fn expel(&self, who: Identity) -> Vec<Connection> {
        let state = self.state.lock();
        let here = state.seats.iter().filter(|(_, seat)| seat.who == who);
        let (peers, connections): (Vec<_>, Vec<_>) = here.map(|(&peer, seat)| (peer, seat.connection.clone())).unzip();
        self.handle(state, peers.into_iter().map(expulsion));
        connections
    }

    /// A peer is gone.
    pub(super) fn leave(&self, peer: Peer) {
        let mut state = self.state.lock();
        state.seats.remove(&peer);
        let left = match peer {
            Peer::Client(client) => {
                state.forget(|key| key.entry.client == client);
                Event::ClientLeft { client }
            }
            Peer::Worker(worker) => Event::WorkerLeft { worker },
        };
        self.handle(state, [left]);
    }

    /// Has what a peer said handled; nothing of one that has been shown the door.
    pub(super) fn feed(&self, peer: Peer, events: impl IntoIterator<Item = Event>) {
        let state = self.state.lock();
        if state.seats.contains_key(&peer) {
            self.handle(state, events);
        }
    }

    /// Keeps data, and says so.
    pub(super) fn hold(&self, peer: Peer, key: Key, bytes: Bytes, hash: Hash, room: Reserved) {
        let mut state = self.state.lock();
        if state.seats.contains_key(&peer) {
            let len = bytes.len() as u64;
            state.held.insert(key, Held { bytes, hash, _room: room });
            self.handle(state, [Event::Held { key, len, hash }]);
        }
    }

    /// Where to get a value, for a peer that asks for it.
    pub(super) fn find(&self, key: Key, asking: Peer) -> Source {
        let state = self.state.lock();
        match state.machine.locate(key) {
            Location::Inline(bytes) => Source::Here(bytes, None),
            Location::Held => match state.held.get(&key) {
                Some(held) => Source::Here(held.bytes.clone(), Some(held.hash)),
                None => Source::Nowhere,
            },
            Location::Workers(workers) => {
                let others = workers.into_iter().map(Peer::Worker).filter(|&worker| worker != asking);
                Source::Workers(others.filter_map(|worker| Some(state.seats.get(&worker)?.connection.clone())).collect())
            }
            Location::Nowhere => Source::Nowhere,
        }
    }

    /// Ticks when the state machine wants it.
    pub(super) async fn run_timer(self: Arc<Self>) {
        loop {
            let deadline = self.state.lock().deadline.map(|deadline| self.epoch + deadline);
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

    fn handle(&self, mut state: MutexGuard<'_, State>, events: impl IntoIterator<Item = Event>) {
        let now = self.epoch.elapsed();
        let state = &mut *state;
        for event in events {
            state.machine.handle(now, event, &mut state.actions);
        }
        state.carry_out();
        let next = state.machine.next_deadline();
        if next.is_some_and(|next| state.deadline.is_none_or(|deadline| next < deadline)) {
            state.deadline = next;
            self.sooner.notify_one();
        }
    }
}

impl State {
    fn carry_out(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut last: Option<Outbox> = None;
        for action in actions.drain(..) {
            match action {
                Action::ToClient(client, message) => self.tell(Peer::Client(client), &message, &mut last),
                Action::ToWorker(worker, message) => self.tell(Peer::Worker(worker), &message, &mut last),
                Action::Drop(span) => self.forget(|key| covers(&span, key)),
                Action::DisconnectClient(client) => self.dismiss(Peer::Client(client)),
                Action::DisconnectWorker(worker) => self.dismiss(Peer::Worker(worker)),
            }
        }
        if let Some(last) = last {
            last.flush();
        }
        self.actions = actions;
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

    fn forget(&mut self, is_gone: impl Fn(&Key) -> bool) {
        self.held.retain(|key, _| !is_gone(key));
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
