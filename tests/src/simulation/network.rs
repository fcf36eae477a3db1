//! The network: control connections with an ordered stream each way, delay, partition and loss. Must not know: what a message means.

use std::{collections::BTreeMap, time::Duration};

use quicsand::{
    ids::{ClientId, Hash, Identity, WorkerId},
    wire::{FromClient, FromWorker, ToClient, ToWorker, WorkerHello},
};

use super::{
    rng::Rng,
    world::{Due, World},
};

/// Names a connection; never used again.
pub(super) type LinkId = u64;

/// One of the processes that are not the scheduler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Process {
    Client(u32),
    Worker(u32),
}

/// What travels to the scheduler.
#[derive(Debug)]
pub(super) enum Up {
    ClientHello {
        who: Identity,
        module: Hash,
    },
    /// From a client that was here on another connection.
    ClientAgain {
        client: ClientId,
    },
    WorkerHello {
        who: Identity,
        hello: Box<WorkerHello>,
    },
    Client(Vec<FromClient>),
    Worker(Vec<FromWorker>),
    /// The other side has nothing more to say.
    End,
}

/// What travels from the scheduler.
#[derive(Debug)]
pub(super) enum Down {
    ClientWelcome {
        id: ClientId,
        credit: u64,
    },
    /// To a client that goes on: so many of its messages were taken in.
    ClientBack {
        applied: u64,
    },
    /// To a client that is not known any more.
    Forgotten,
    WorkerWelcome {
        id: WorkerId,
    },
    Client(Vec<ToClient>),
    Worker(Vec<ToWorker>),
    End,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) process: Process,
    latency: Duration,
    /// Nothing gets through until then; it is not lost.
    pub(super) blocked_until: Duration,
    /// What is on its way is lost, and so is what follows; both sides find out by themselves.
    pub(super) is_cut: bool,
    last_up: Duration,
    last_down: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) links: BTreeMap<LinkId, Link>,
    next: LinkId,
}

impl Link {
    /// When something arrives that is sent now, in order.
    fn arrival(last: &mut Duration, latency: Duration, blocked_until: Duration, now: Duration, rng: &mut Rng) -> Duration {
        let delay = latency + rng.micros(0, 300);
        *last = (now + delay).max(*last).max(blocked_until);
        *last
    }
}

impl World {
    /// A new connection of a process.
    pub(super) fn connect(&mut self, process: Process) -> LinkId {
        let id = self.network.next;
        self.network.next += 1;
        let latency = match self.rng.below(10) {
            0 => self.rng.millis(5, 60),
            _ => self.rng.micros(20, 1500),
        };
        let blocked_until = Duration::ZERO;
        let link = Link { process, latency, blocked_until, is_cut: false, last_up: Duration::ZERO, last_down: Duration::ZERO };
        self.network.links.insert(id, link);
        id
    }

    pub(super) fn send_up(&mut self, id: LinkId, up: Up) {
        let Some(link) = self.network.links.get_mut(&id).filter(|link| !link.is_cut) else { return };
        let at = Link::arrival(&mut link.last_up, link.latency, link.blocked_until, self.now, &mut self.rng);
        self.schedule(at, Due::Up(id, up));
    }

    pub(super) fn send_down(&mut self, id: LinkId, down: Down) {
        let Some(link) = self.network.links.get_mut(&id).filter(|link| !link.is_cut) else { return };
        let at = Link::arrival(&mut link.last_down, link.latency, link.blocked_until, self.now, &mut self.rng);
        self.schedule(at, Due::Down(id, down));
    }

    /// The process of a link over which something arrives now; `None` if it is lost.
    pub(super) fn arrives(&self, id: LinkId) -> Option<Process> {
        self.network.links.get(&id).filter(|link| !link.is_cut).map(|link| link.process)
    }

    /// Until when a link lets nothing through, if it does not now.
    pub(super) fn blocked(&self, id: LinkId) -> Option<Duration> {
        self.network.links.get(&id).map(|link| link.blocked_until).filter(|&until| until > self.now)
    }

    /// Lets nothing through for a while.
    pub(super) fn block(&mut self, id: LinkId, time: Duration) {
        if let Some(link) = self.network.links.get_mut(&id) {
            link.blocked_until = link.blocked_until.max(self.now + time);
            link.last_up = link.last_up.max(link.blocked_until);
            link.last_down = link.last_down.max(link.blocked_until);
            let until = link.blocked_until;
            self.put_off(until, |due, _| matches!(due, Due::Up(link, _) | Due::Down(link, _) if *link == id));
        }
    }

    /// Loses a connection with all that is on its way. Both sides notice, each in its time.
    pub(super) fn cut(&mut self, id: LinkId) {
        if let Some(link) = self.network.links.get_mut(&id).filter(|link| !link.is_cut) {
            link.is_cut = true;
            let (hub, peer) = (self.rng.millis(0, 1500), self.rng.millis(0, 1500));
            self.schedule(self.now + hub, Due::HubNotices(id));
            self.schedule(self.now + peer, Due::PeerNotices(id));
        }
    }

    /// A process vanished: what it had sent still arrives, and then its silence is noticed.
    pub(super) fn vanish(&mut self, id: LinkId) {
        if let Some(link) = self.network.links.get(&id) {
            let at = link.last_up.max(self.now) + self.rng.millis(0, 2500);
            self.schedule(at, Due::HubNotices(id));
        }
    }
}
