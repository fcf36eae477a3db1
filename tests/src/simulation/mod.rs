//! The simulation: the real scheduler, the real bookkeeping of clients and the real state machine of workers in one thread, with a model of
//! the network, of processes and of time, and with random programs; all of it from one seed. Owns: running seeds, and telling why one
//! failed. Must not know: sockets, sandboxes.
//!
//! After each event of a machine its `check()` asserts its invariants; at the end the `oracle` asks whether every call ended as a plain
//! sequential run of its program says, or as what was planned for it allows, and whether nothing is left. A seed has one outcome. One
//! that fails is run again with its `story` kept, of which the events are shown that concern the call.
//!
//! | file | owns |
//! | --- | --- |
//! | `world`, `network`, `weather` | time, what is due, connections, what goes wrong |
//! | `hub`, `worker`, `client` | the shells around the machines |
//! | `blobs`, `disk` | values on their way, and where they are kept |
//! | `program`, `play` | what is computed, and what it must give; what programs do |
//! | `oracle`, `story` | what must be true of a run, and how it is told |

mod blobs;
mod client;
pub mod command;
mod disk;
mod hub;
mod network;
mod oracle;
mod play;
mod program;
mod rng;
mod story;
mod weather;
mod worker;
mod world;

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    ops::{AddAssign, Range},
    panic::{self, AssertUnwindSafe},
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quicsand::fault::{self, Fault};

use world::World;

/// What is to be simulated besides the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// So many steps for each program; by default each draws its own number.
    pub steps: Option<u32>,
    /// What is broken.
    pub fault: Option<Fault>,
}

/// What went on in seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many there were.
    pub seeds: u64,
    /// Events that the machines took.
    pub events: u64,
    /// Items that were sent.
    pub items: u64,
    /// Items that slots ran, again and again where need be.
    pub computed: u64,
    /// Mishaps.
    pub mishaps: u64,
    /// Time that went by in them.
    pub time: Duration,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.items += other.items;
        self.computed += other.computed;
        self.mishaps += other.mishaps;
        self.time += other.time;
    }
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was not as it must be.
    pub complaint: String,
    /// Where that was noticed.
    pub place: String,
    /// After so many events.
    pub events: u64,
    /// The events that concern the calls which the complaint names.
    pub story: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, complaint, place, events, story } = self;
        write!(f, "seed {seed} fails after {events} events: {complaint}\n({place})\n\n{story}\n")?;
        write!(f, "it replays: cargo xtask simulate --seeds 1 --from {seed}")
    }
}

/// Runs one seed; if it fails, once more, to tell why.
///
/// # Errors
/// With what was wrong.
pub fn run(seed: u64, options: Options) -> Result<Report, Box<Failure>> {
    play(seed, options, false).map_err(|_| {
        play(seed, options, true).err().unwrap_or_else(|| {
            Box::new(Failure {
                seed,
                complaint: "it failed, and did not fail again: something is not determined by its events".into(),
                place: String::new(),
                events: 0,
                story: String::new(),
            })
        })
    })
}

/// Runs many seeds on all processors; ends with the first failure that is found.
///
/// # Errors
/// With the failure of the smallest seed of those that were run.
pub fn run_all(seeds: Range<u64>, options: Options) -> Result<Report, Box<Failure>> {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut report = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= stop.load(Ordering::Relaxed) {
                return Ok(report);
            }
            match run(seed, options) {
                Ok(one) => report += one,
                Err(failure) => {
                    stop.fetch_min(seed, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    });
    let mut all = Report::default();
    let mut first = None::<Box<Failure>>;
    for result in results {
        match result {
            Ok(report) => all += report,
            Err(failure) if first.as_ref().is_none_or(|first| failure.seed < first.seed) => first = Some(failure),
            Err(_) => {}
        }
    }
    first.map_or(Ok(all), Err)
}

fn play(seed: u64, options: Options, is_told: bool) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, options.steps, is_told);
    let ended = caught(options.fault, || world.run());
    match ended {
        Ok(()) => Ok(Report {
            seeds: 1,
            events: world.events,
            items: world.graph.items.len() as u64,
            computed: world.computed,
            mishaps: world.mishaps,
            time: world.now,
        }),
        Err((complaint, place)) => {
            let story = world.story.about(&complaint, |key| world.graph.ancestors(key));
            Err(Box::new(Failure { seed, complaint, place, events: world.events, story }))
        }
    }
}

std::thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs something with a fault set; gives what its panic said, and where. Other threads' panics are reported as ever.
fn caught(fault: Option<Fault>, work: impl FnOnce()) -> Result<(), (String, String)> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_QUIET.get() {
                let place = info.location().map_or_else(String::new, ToString::to_string);
                PLACE.with_borrow_mut(|old| *old = place);
            } else {
                before(info);
            }
        }));
    });
    IS_QUIET.set(true);
    fault::set(fault);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    fault::set(None);
    IS_QUIET.set(false);
    result.map_err(|panic| (message(&*panic), PLACE.take()))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}
