//! The scheduler's shell: seats, the timer, data that no worker took, and a mirror of the runs that are out. Must not know: what peers
//! do with what they are told.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use quicsand::{
    ids::{ClientId, Hash, Key, RunId, WorkerId},
    scheduler::{Action, Config, Departure, Event, Passport, Scheduler},
    wire::{FromWorker, ToClient, ToWorker, Validate},
};

use super::{
    network::{Down, LinkId, Process, Up},
    story::{self, Told},
    world::{Due, World},
};

/// A client hears how many of its messages were taken in after so many.
const TELL_MESSAGES: u64 = 8;

/// Somebody with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Client(ClientId),
    Worker(WorkerId),
}

/// A run that is out, as the messages tell.
#[derive(Debug)]
struct Given {
    worker: WorkerId,
    first: Key,
    count: u32,
    done: u32,
    started: bool,
}

/// What is kept of a client for as long as the scheduler knows it.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Its messages that were taken in, and those of them that it was told of.
    applied: u64,
    told: u64,
}

#[derive(Debug)]
pub(super) struct Hub {
    pub(super) scheduler: Scheduler,
    pub(super) seats: BTreeMap<Peer, LinkId>,
    pub(super) sessions: BTreeMap<ClientId, Session>,
    pub(super) held: BTreeMap<Key, (Bytes, Hash)>,
    numbers: u64,
    /// Whether a worker's connection was ever lost: what it held may have been away, and told of again.
    pub(super) were_away: bool,
    tick: Option<Duration>,
    runs: BTreeMap<RunId, Given>,
    latest_run: Option<RunId>,
    /// Workers that said that they drain: what they leave behind is nobody's fault.
    draining: Vec<WorkerId>,
}

impl Hub {
    pub(super) fn new(config: Config) -> Self {
        Self {
            scheduler: Scheduler::new(config),
            seats: BTreeMap::new(),
            sessions: BTreeMap::new(),
            held: BTreeMap::new(),
            numbers: 0,
            were_away: false,
            tick: None,
            runs: BTreeMap::new(),
            latest_run: None,
            draining: Vec::new(),
        }
    }

    fn seat_of(&self, link: LinkId) -> Option<Peer> {
        self.seats.iter().find(|(_, seat)| **seat == link).map(|(&peer, _)| peer)
    }

    /// Runs that are out, for complaints.
    pub(super) fn runs(&self) -> Vec<RunId> {
        self.runs.keys().copied().collect()
    }
}

/// What is to be sent to one peer.
#[derive(Default)]
struct Post {
    client: Vec<ToClient>,
    worker: Vec<ToWorker>,
}

impl World {
    /// Something arrived at the scheduler's end of a link.
    pub(super) fn hub_received(&mut self, link: LinkId, up: Up) {
        let seat = self.hub.seat_of(link);
        match (up, seat) {
            (Up::ClientHello { who, module }, None) => {
                self.hub.numbers += 1;
                let client = ClientId(self.hub.numbers);
                self.hub.seats.insert(Peer::Client(client), link);
                self.hub.sessions.insert(client, Session::default());
                self.send_down(link, Down::ClientWelcome { id: client, credit: self.settings.config.credit });
                let passport = Passport::default();
                self.hub_event(Event::ClientJoined { client, who, module, passport });
            }
            (Up::ClientAgain { client }, None) => {
                let applied = self.hub.sessions.get(&client).map(|session| session.applied);
                let Some(applied) = applied.filter(|_| self.hub.scheduler.knows(client)) else {
                    return self.send_down(link, Down::Forgotten);
                };
                self.story.note(self.now, || general(format!("client {client} is here again")));
                self.hub.seats.insert(Peer::Client(client), link);
                self.send_down(link, Down::ClientBack { applied });
                self.hub_event(Event::ClientReturned { client });
            }
            (Up::WorkerHello { who, hello }, None) => {
                self.hub.numbers += 1;
                let worker = WorkerId(self.hub.numbers);
                self.hub.seats.insert(Peer::Worker(worker), link);
                self.send_down(link, Down::WorkerWelcome { id: worker });
                self.hub_event(Event::WorkerJoined { worker, who, name: format!("w{worker}"), hello: *hello });
            }
            (Up::Client(messages), Some(Peer::Client(client))) => {
                for message in messages {
                    if self.hub.seats.get(&Peer::Client(client)) == Some(&link) {
                        self.story.note(self.now, || {
                            prefixed(format!("client {client} to scheduler: "), story::from_client(client, &message))
                        });
                        if let Some(session) = self.hub.sessions.get_mut(&client) {
                            session.applied += 1;
                        }
                        self.hub_event(Event::FromClient(client, message));
                    }
                }
            }
            (Up::Worker(messages), Some(Peer::Worker(worker))) => {
                for message in messages {
                    if self.hub.seats.get(&Peer::Worker(worker)) == Some(&link) {
                        if !matches!(message, FromWorker::Heartbeat(_)) {
                            self.story.note(self.now, || {
                                prefixed(format!("worker {worker} to scheduler: "), story::from_worker(&message))
                            });
                        }
                        self.mirror_answer(worker, &message);
                        self.hub_event(Event::FromWorker(worker, message));
                    }
                }
            }
            (Up::End, _) => self.hub_parts(link, true),
            // Of a peer that was shown the door.
            _ => {}
        }
    }

    /// The scheduler's end of a link is over.
    pub(super) fn hub_notices(&mut self, link: LinkId) {
        self.hub_parts(link, false);
    }

    fn hub_parts(&mut self, link: LinkId, is_farewell: bool) {
        let Some(peer) = self.hub.seat_of(link) else { return };
        self.hub.seats.remove(&peer);
        self.story.note(self.now, || general(format!("the scheduler sees that {peer:?} is gone, in good order: {is_farewell}")));
        match peer {
            Peer::Client(client) if is_farewell => self.hub_event(Event::ClientLeft { client }),
            Peer::Client(client) => self.hub_event(Event::ClientLost { client }),
            Peer::Worker(worker) => {
                let departure = if is_farewell { Departure::Left } else { Departure::Lost };
                self.count_deaths(worker);
                self.forget_runs(worker);
                self.hub_event(Event::WorkerLeft { worker, departure });
            }
        }
    }

    /// Runs that were alone on a worker that is gone may be blamed, unless it was leaving.
    fn count_deaths(&mut self, worker: WorkerId) {
        self.hub.were_away = true;
        let is_blamed = !self.hub.draining.contains(&worker);
        for given in self.hub.runs.values().filter(|given| given.worker == worker && given.started && given.count == 1) {
            *self.troubles.deaths.entry(given.first).or_default() += u32::from(is_blamed);
        }
    }

    /// Somebody looked for a silent worker's process.
    pub(super) fn hub_probed(&mut self, worker: WorkerId) {
        let Some(link) = self.hub.seats.get(&Peer::Worker(worker)) else { return };
        let is_dead = self.network.links.get(link).is_some_and(|link| match link.process {
            Process::Worker(pid) => !self.workers.contains_key(&pid),
            Process::Client(_) => false,
        });
        if is_dead {
            self.story.note(self.now, || general(format!("the process of worker {worker} is found dead")));
            self.hub.seats.remove(&Peer::Worker(worker));
            self.count_deaths(worker);
            self.forget_runs(worker);
            self.hub_event(Event::WorkerLeft { worker, departure: Departure::Died });
        }
    }

    /// Data arrived that the shell keeps.
    pub(super) fn hub_holds(&mut self, client: ClientId, key: Key, bytes: Bytes, hash: Hash) {
        if self.hub.sessions.contains_key(&client) {
            let len = bytes.len() as u64;
            self.hub.held.insert(key, (bytes, hash));
            self.hub_event(Event::Held { key, len, hash });
        }
    }

    /// The timer.
    pub(super) fn hub_ticks(&mut self) {
        if self.hub.tick.is_none_or(|tick| tick > self.now) {
            return;
        }
        self.hub.tick = None;
        match self.hub.scheduler.next_deadline() {
            Some(deadline) if deadline <= self.now => self.hub_event(Event::Tick),
            _ => self.set_timer(),
        }
    }

    /// Has the real scheduler handle an event, checks it, and carries its actions out.
    pub(super) fn hub_event(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.hub.scheduler.handle(self.now, event, &mut actions);
        self.events += 1;
        self.hub.scheduler.check();
        let mut post = BTreeMap::<LinkId, Post>::new();
        for action in actions {
            match action {
                Action::ToClient(client, message) => {
                    let Some(&link) = self.hub.seats.get(&Peer::Client(client)) else { continue };
                    self.story.note(self.now, || {
                        prefixed(format!("scheduler to client {client}: "), story::to_client(client, &message))
                    });
                    assert_eq!(message.validate(), Ok(()), "the scheduler says what no client takes");
                    let is_due = matches!(message, ToClient::Credit { .. });
                    let to = &mut post.entry(link).or_default().client;
                    to.push(message);
                    let session = self.hub.sessions.entry(client).or_default();
                    if session.applied > session.told && (is_due || session.applied - session.told >= TELL_MESSAGES) {
                        session.told = session.applied;
                        to.push(ToClient::Applied { messages: session.applied });
                    }
                }
                Action::ToWorker(worker, message) => {
                    let Some(&link) = self.hub.seats.get(&Peer::Worker(worker)) else { continue };
                    self.story.note(self.now, || prefixed(format!("scheduler to worker {worker}: "), story::to_worker(&message)));
                    assert_eq!(message.validate(), Ok(()), "the scheduler says what no worker takes");
                    self.mirror_order(worker, &message);
                    post.entry(link).or_default().worker.push(message);
                }
                Action::Drop(span) => {
                    self.hub.held.retain(|key, _| key.entry != span.entry || key.index.wrapping_sub(span.first) >= span.count);
                }
                Action::DisconnectClient(client) => self.dismiss(Peer::Client(client), &mut post),
                Action::Record(_) => panic!("there is no journal"),
                Action::AwaitRoom(_) => panic!("less than a portion is said"),
                Action::ForgetClient(client) => drop(self.hub.sessions.remove(&client)),
                Action::Probe(worker) => {
                    if self.rng.chance(500) {
                        let at = self.now + self.rng.micros(100, 50_000);
                        self.schedule(at, Due::Probed(worker));
                    }
                }
                Action::DisconnectWorker(worker) => {
                    self.count_deaths(worker);
                    self.forget_runs(worker);
                    self.dismiss(Peer::Worker(worker), &mut post);
                }
            }
        }
        for (link, post) in post {
            self.deliver(link, post);
        }
        self.set_timer();
    }

    fn dismiss(&mut self, peer: Peer, post: &mut BTreeMap<LinkId, Post>) {
        self.story.note(self.now, || general(format!("the scheduler shows {peer:?} the door")));
        if let Some(link) = self.hub.seats.remove(&peer) {
            self.deliver(link, post.remove(&link).unwrap_or_default());
            self.send_down(link, Down::End);
        }
    }

    fn deliver(&mut self, link: LinkId, Post { client, worker }: Post) {
        if !client.is_empty() {
            self.send_down(link, Down::Client(client));
        }
        if !worker.is_empty() {
            self.send_down(link, Down::Worker(worker));
        }
    }

    fn set_timer(&mut self) {
        let next = self.hub.scheduler.next_deadline();
        if let Some(next) = next.filter(|&next| self.hub.tick.is_none_or(|tick| next < tick)) {
            self.hub.tick = Some(next);
            self.schedule(next.max(self.now), Due::HubTick);
        }
    }

    fn mirror_order(&mut self, worker: WorkerId, message: &ToWorker) {
        if let ToWorker::Assign(assignment) = message {
            let run = assignment.run;
            assert!(self.hub.latest_run < Some(run), "run {run} is used again");
            self.hub.latest_run = Some(run);
            let given = Given {
                worker,
                first: assignment.entry.key(assignment.first),
                count: assignment.args.count(),
                done: 0,
                started: false,
            };
            self.hub.runs.insert(run, given);
        }
    }

    fn mirror_answer(&mut self, worker: WorkerId, message: &FromWorker) {
        assert_eq!(message.validate(), Ok(()), "worker {worker} says what the scheduler does not take");
        match message {
            FromWorker::Started { run } => {
                if let Some(given) = self.hub.runs.get_mut(run) {
                    given.started = true;
                }
            }
            FromWorker::Finished { run, outcome, .. } => {
                let over = self.hub.runs.get_mut(run).is_some_and(|given| {
                    given.started = true;
                    given.done += outcome.values.count();
                    given.done >= given.count
                });
                if over {
                    self.hub.runs.remove(run);
                }
            }
            FromWorker::Returned { run, .. } => drop(self.hub.runs.remove(run)),
            FromWorker::Divided { run, count } => {
                if let Some(given) = self.hub.runs.get_mut(run) {
                    given.count = *count;
                }
            }
            FromWorker::Draining => self.hub.draining.push(worker),
            FromWorker::Holds { .. } | FromWorker::Heartbeat(_) | FromWorker::Registered | FromWorker::Unreplicated { .. } => {}
        }
    }

    pub(super) fn forget_runs(&mut self, worker: WorkerId) {
        self.hub.runs.retain(|_, given| given.worker != worker);
    }
}

/// Something that concerns all.
pub(super) fn general(text: String) -> Told {
    Told { text, ..Told::default() }
}

fn prefixed(prefix: String, told: Told) -> Told {
    Told { text: prefix + &told.text, ..told }
}
