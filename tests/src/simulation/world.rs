//! All that there is in one simulation, and what is due when. Owns: virtual time. Must not know: what makes a run right.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use quicsand::{
    ids::{Hash, Key, RunId, WorkerId},
    scheduler::{Config, Event},
};
use quicsand_worker::state::Budget;

use super::{
    blobs::{Asker, Fetch, Upload},
    client::ClientProcess,
    hub::Hub,
    network::{Down, LinkId, Network, Process, Up},
    program::{Graph, Troubles},
    rng::Rng,
    story::Story,
    worker::{KINDS, WorkerProcess, is_heartbeat},
};

/// The module of most clients.
const MODULE: Hash = Hash([7; 32]);
/// One that the sandbox refuses.
pub(super) const BAD_MODULE: Hash = Hash([0xbad_u32 as u8; 32]);

/// Something that is to happen.
#[derive(Debug)]
pub(super) enum Due {
    Up(LinkId, Up),
    Down(LinkId, Down),
    HubNotices(LinkId),
    PeerNotices(LinkId),
    HubTick,
    Heartbeat { pid: u32, session: u64 },
    Join(u32),
    Spawn(usize),
    Rejoin(u32),
    Cut(LinkId),
    Probed(WorkerId),
    DeathKnown(u64),
    Disk(u32),
    Drain(u32),
    Step(u32),
    Weather,
    Module { pid: u32, session: u64, hash: Hash },
    RunEnds { pid: u32, session: u64, slot: u32, turn: u64 },
    Divide { pid: u32, session: u64, slot: u32, run: RunId },
    Part { pid: u32, session: u64, slot: u32, run: RunId },
    Kill { pid: u32, session: u64, slot: u32, turn: u64, key: Key },
    Fetch(Box<Fetch>),
    Fetched { asker: Asker, key: Key, hash: Hash, bytes: Option<Bytes> },
    Upload(Box<Upload>),
}

impl Due {
    /// Whether something could come of it that would not come by itself for ever.
    fn is_work(&self) -> bool {
        match self {
            Self::HubTick | Self::Heartbeat { .. } | Self::Weather => false,
            Self::Up(_, Up::Worker(messages)) => !is_heartbeat(messages),
            _ => true,
        }
    }

    /// The worker's process that it happens to, which may be frozen.
    fn worker(&self, network: &Network) -> Option<u32> {
        match self {
            Self::Heartbeat { pid, .. }
            | Self::Module { pid, .. }
            | Self::RunEnds { pid, .. }
            | Self::Divide { pid, .. }
            | Self::Part { pid, .. }
            | Self::Kill { pid, .. }
            | Self::Disk(pid)
            | Self::Drain(pid) => Some(*pid),
            Self::Down(link, _) | Self::PeerNotices(link) => match network.links.get(link)?.process {
                Process::Worker(pid) => Some(pid),
                Process::Client(_) => None,
            },
            Self::Fetched { asker: Asker { process: Process::Worker(pid), .. }, .. } => Some(*pid),
            _ => None,
        }
    }
}

/// What a seed makes of the world.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    /// Whether items fail and kill.
    pub(super) is_rough: bool,
    /// About so long from one mishap to the next; `None` where all goes well.
    pub(super) storm: Option<Duration>,
    /// Items in a message.
    pub(super) chunk_items: u32,
    /// What workers' held values may take up.
    pub(super) budget: Budget,
    pub(super) steps: Option<u32>,
}

/// How often an item was tried to no avail, wherever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    pub(super) fails: u32,
    pub(super) kills: u32,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) rng: Rng,
    pub(super) settings: Settings,
    queue: BTreeMap<(Duration, u64), Due>,
    numbered: u64,
    /// Things in the queue of which something comes.
    pub(super) busy: u64,
    pub(super) is_mended: bool,
    pub(super) story: Story,
    pub(super) network: Network,
    pub(super) hub: Hub,
    pub(super) clients: BTreeMap<u32, ClientProcess>,
    pub(super) workers: BTreeMap<u32, WorkerProcess>,
    pub(super) next_pid: u32,
    pub(super) graph: Graph,
    pub(super) troubles: Troubles,
    pub(super) tries: BTreeMap<Key, Tries>,
    /// Plans of executions so far.
    pub(super) turns: u64,
    /// Events that the machines took.
    pub(super) events: u64,
    /// Items that slots ran, and mishaps.
    pub(super) computed: u64,
    pub(super) mishaps: u64,
}

impl Settings {
    fn draw(rng: &mut Rng, steps: Option<u32>) -> Self {
        let mut config = Config {
            batch_time: Duration::from_millis(rng.of(&[1, 4, 4])),
            pipeline: rng.of(&[1, 2, 2, 3]),
            ahead: rng.of(&[0, 2, 256, 256]),
            lease: Duration::from_millis(rng.of(&[1000, 2000, 5000])),
            grace: Duration::from_millis(rng.of(&[0, 500, 3000, 5000])),
            client_lease: Duration::from_millis(rng.of(&[500, 2000, 6000])),
            retry_delay: Duration::from_millis(rng.of(&[0, 5, 50])),
            longest_retry_delay: Duration::from_millis(100),
            data_copies: rng.of(&[1, 2, 2, 3]),
            hand_over: Duration::from_millis(rng.of(&[100, 3000, 10_000])),
            max_deaths: rng.of(&[1, 2, 3, 3, 3]),
            ..Config::default()
        };
        if rng.chance(400) {
            config.credit = 100 + rng.below(1500);
        }
        if rng.chance(300) {
            config.client_bytes = 20_000 + rng.below(60_000);
        }
        let storm = rng.chance(750).then(|| rng.millis(5, 800));
        let chunk_items = (config.credit / 16).clamp(1, 12) as u32;
        let memory = if rng.chance(400) { rng.below(200_000) } else { 1 << 40 };
        let budget = Budget { memory, disk: 1 << 40, process: u64::MAX };
        Self { config, is_rough: rng.chance(700), storm, chunk_items, budget, steps }
    }
}

impl World {
    /// The world of a seed, before anything happens. With `steps`, every program takes so many.
    pub(super) fn new(seed: u64, steps: Option<u32>, is_told: bool) -> Self {
        let mut rng = Rng::new(seed);
        let settings = Settings::draw(&mut rng, steps);
        let troubles = Troubles {
            sheds: settings.config.client_bytes < 1 << 20,
            max_deaths: settings.config.max_deaths,
            ..Troubles::default()
        };
        let mut world = Self {
            now: Duration::ZERO,
            rng,
            hub: Hub::new(settings.config.clone()),
            settings,
            queue: BTreeMap::new(),
            numbered: 0,
            busy: 0,
            is_mended: false,
            story: Story::new(is_told),
            network: Network::default(),
            clients: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_pid: 1,
            graph: Graph::default(),
            troubles,
            tries: BTreeMap::new(),
            turns: 0,
            events: 0,
            computed: 0,
            mishaps: 0,
        };
        for _ in 0..world.rng.of(&[1, 1, 1, 2, 2, 3]) {
            world.new_client();
        }
        for _ in 0..1 + world.rng.below(4) {
            let kind = world.rng.below(KINDS.len() as u64) as usize;
            world.spawn_worker(kind);
        }
        world.next_mishap();
        world
    }

    /// Another client, with a program of its own.
    pub(super) fn new_client(&mut self) {
        let module = if self.rng.chance(30) { BAD_MODULE } else { MODULE };
        let drawn = 4 + self.rng.below(36) as u32;
        self.spawn_client(module, self.settings.steps.unwrap_or(drawn));
    }

    /// What is to happen to a frozen process happens when it goes on.
    pub(super) fn schedule(&mut self, at: Duration, due: Due) {
        let frozen = due.worker(&self.network).and_then(|pid| self.workers.get(&pid)).map_or(at, |process| process.frozen_until);
        self.busy += u64::from(due.is_work());
        self.numbered += 1;
        self.queue.insert((at.max(self.now).max(frozen), self.numbered), due);
    }

    /// Puts off what would happen to a process or on a link before that time; it keeps its order.
    pub(super) fn put_off(&mut self, until: Duration, is_late: impl Fn(&Due, Option<u32>) -> bool) {
        let network = &self.network;
        let late = self.queue.extract_if(..(until, 0), |_, due| is_late(due, due.worker(network)));
        let late: Vec<_> = late.map(|(_, due)| due).collect();
        for due in late {
            self.numbered += 1;
            self.queue.insert((until, self.numbered), due);
        }
    }

    /// Whether mishaps happen.
    pub(super) fn is_stormy(&self) -> bool {
        self.settings.storm.is_some() && !self.is_mended
    }

    /// The next thing happens.
    pub(super) fn advance(&mut self) {
        let Some(((at, _), due)) = self.queue.pop_first() else { panic!("nothing is due any more") };
        self.now = at;
        self.busy -= u64::from(due.is_work());
        self.dispatch(due);
    }

    fn dispatch(&mut self, due: Due) {
        match due {
            Due::Up(link, up) => {
                if self.arrives(link).is_some() {
                    self.hub_received(link, up);
                }
            }
            Due::Down(link, down) => match self.arrives(link) {
                Some(Process::Client(pid)) => self.client_received(pid, link, down),
                Some(Process::Worker(pid)) => self.worker_received(pid, link, down),
                None => {}
            },
            Due::HubNotices(link) => self.hub_notices(link),
            Due::PeerNotices(link) => match self.network.links.get(&link).map(|link| link.process) {
                Some(Process::Client(pid)) => self.client_lost(pid, link),
                Some(Process::Worker(pid)) => self.session_lost(pid, link),
                None => {}
            },
            Due::HubTick => self.hub_ticks(),
            Due::Heartbeat { pid, session } => self.heartbeat(pid, session),
            Due::Join(pid) => self.join(pid),
            Due::Rejoin(pid) => self.client_rejoins(pid),
            Due::Cut(link) => self.cut(link),
            Due::Probed(worker) => self.hub_probed(worker),
            Due::DeathKnown(incarnation) => self.hub_event(Event::WorkerDied { incarnation }),
            Due::Disk(pid) => self.disk_goes_on(pid),
            Due::Spawn(kind) => drop(self.spawn_worker(kind)),
            Due::Drain(pid) => self.drain(pid),
            Due::Step(pid) => self.step(pid),
            Due::Weather => self.mishap(),
            Due::Module { pid, session, hash } if self.is_session(pid, session) => self.module_came(pid, hash),
            Due::Module { .. } => {}
            Due::RunEnds { pid, session, slot, turn } => self.run_ends(pid, session, slot, turn),
            Due::Divide { pid, session, slot, run } => self.divide(pid, session, slot, run),
            Due::Part { pid, session, slot, run } => self.tell_part(pid, session, slot, run),
            Due::Kill { pid, session, slot, turn, key } => self.kill(pid, session, slot, turn, key),
            Due::Fetch(fetch) => self.ask(fetch),
            Due::Fetched { asker: Asker { process: Process::Client(pid), .. }, key, bytes, .. } => {
                self.client_fetched(pid, key, bytes)
            }
            Due::Fetched { asker: Asker { process: Process::Worker(pid), session }, key, hash, bytes } => {
                if self.is_session(pid, session) {
                    self.worker_fetched(pid, key, hash, bytes);
                }
            }
            Due::Upload(upload) => self.uploaded(*upload),
        }
    }
}
