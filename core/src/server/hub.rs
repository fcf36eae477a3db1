//! Where everything meets: the state machine, the clock, everybody's outbox, and data that no worker took. Must not know: how peers
//! are let in, or what is written and read when.

use std::{collections::HashMap, sync::Arc, time::Duration};

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
    ids::{ClientId, Hash, Key, WorkerId},
    net::{Ca, Reserved, Room, control::Outbox, transport::Close},
    scheduler::{Action, Event, Location, Status},
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
    pub(super) outbox: Outbox,
    pub(super) connection: Connection,
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
        self.state.lock().machine.status()
    }

    /// A number that no peer had before; `None` if there are too many peers.
    pub(super) fn number(&self) -> Option<u64> {
        let mut state = self.state.lock();
        (state.seats.len() < self.max_peers).then(|| {
            state.seated += 1;
            state.seated
        })
    }

    /// Lets a peer take part: `joined` is its first event.
    pub(super) fn seat(&self, peer: Peer, seat: Seat, joined: Event) {
        let mut state = self.state.lock();
        state.seats.insert(peer, seat);
        self.handle(state, [joined]);
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

fn covers(span: &Span, key: &Key) -> bool {
    key.entry == span.entry && key.index >= span.first && key.index - span.first < span.count
}
