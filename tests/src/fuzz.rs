//! What bytes from outside may do: one function an entry point, which takes any bytes and panics if something that must hold does not. The
//! fuzzers in `fuzz/` and the test `fuzz` call them. Owns: the entry points.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use quicsand::{
    codec,
    ids::{ClientId, Hash, Identity, WorkerId},
    manifest,
    scheduler::{Action, Config, Event, Fact, Passport, Scheduler},
    server::strangers,
    wire::{FromClient, FromWorker, ToClient, ToWorker, Validate, WorkerHello, decode_all},
};
use quicsand_worker::sandbox::{Sandbox, SandboxConfig};
use serde::{Serialize, de::DeserializeOwned};

/// An entry point.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs that the test derives from the corpus.
    pub tries: u32,
}

/// All entry points.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames, tries: 400_000 },
    Target { name: "handshake", run: strangers::listen, tries: 200_000 },
    Target { name: "scheduler", run: scheduler, tries: 200_000 },
    Target { name: "journal", run: journal, tries: 200_000 },
    Target { name: "module", run: module, tries: 10_000 },
    Target { name: "values", run: values, tries: 200_000 },
];

/// A frame of any kind of message.
pub fn frames(bytes: &[u8]) {
    frame::<FromClient>(bytes);
    frame::<ToClient>(bytes);
    frame::<FromWorker>(bytes);
    frame::<ToWorker>(bytes);
}

/// What reads as messages reads the same once it is written.
fn frame<M: DeserializeOwned + Serialize + Validate + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let mut messages = Vec::<M>::new();
    if decode_all(bytes, &mut messages).is_err() {
        return;
    }
    for message in messages {
        // Whatever a message that is not valid holds, nobody looks into it.
        if message.validate().is_ok() {
            let mut written = Vec::new();
            codec::encode_into(&message, &mut written).expect("what was read can be written");
            assert_eq!(codec::decode::<M>(&written).as_ref(), Ok(&message));
        }
    }
}

/// Facts of a journal, each after its length in two bytes: they are refused, or make a scheduler that keeps every invariant.
pub fn journal(bytes: &[u8]) {
    /// The check walks over all items, of which entries may say that they had more before.
    const LONGEST: u64 = 1 << 16;
    let mut facts = BTreeMap::new();
    let mut rest = bytes;
    while let Some((len, tail)) = rest.split_first_chunk() {
        let (fact, tail) = tail.split_at(tail.len().min(u16::from_le_bytes(*len).into()));
        rest = tail;
        let Ok(fact) = Fact::decode(fact) else { continue };
        if matches!(&fact, Fact::Entry(entry) if entry.len > LONGEST) {
            return;
        }
        facts.insert(fact.row(), fact);
    }
    let config = Config { journal: true, ..Config::default() };
    let Ok(mut scheduler) = Scheduler::restore(config, 1, facts.into_values()) else { return };
    scheduler.check();
    let mut actions = Vec::new();
    scheduler.handle(Duration::from_secs(3600), Event::Tick, &mut actions);
    scheduler.check();
}

/// What peers who are in say to the scheduler: each message has a byte before it that says who speaks.
pub fn scheduler(bytes: &[u8]) {
    let mut scheduler = Scheduler::new(Config::default());
    let mut actions = Vec::new();
    let module = Hash::of(b"a module");
    let mut now = Duration::ZERO;
    let mut handle = |event, now: &mut Duration, actions: &mut Vec<Action>| {
        *now += Duration::from_millis(1);
        scheduler.handle(*now, event, actions);
        actions.clear();
    };
    for client in [1, 2] {
        let who = Identity([client; 16]);
        handle(
            Event::ClientJoined { client: ClientId(client.into()), who, module, passport: Passport::default() },
            &mut now,
            &mut actions,
        );
    }
    for worker in [3, 4] {
        let (who, name) = (Identity([worker; 16]), format!("w{worker}"));
        handle(Event::WorkerJoined { worker: WorkerId(worker.into()), who, name, hello: hello() }, &mut now, &mut actions);
    }
    let mut rest = bytes;
    while let Some((&who, tail)) = rest.split_first() {
        let event = match who % 8 {
            client @ 1..=2 => take(tail).map(|(message, rest)| (Event::FromClient(ClientId(client.into()), message), rest)),
            worker @ 3..=4 => take(tail).map(|(message, rest)| (Event::FromWorker(WorkerId(worker.into()), message), rest)),
            _ => {
                // So that what waits for its time is seen, too.
                now += Duration::from_millis(u64::from(who));
                Some((Event::Tick, tail))
            }
        };
        let Some((event, tail)) = event else { return };
        handle(event, &mut now, &mut actions);
        rest = tail;
    }
}

/// A message that is valid, as only such reach the scheduler, and what follows.
fn take<M: DeserializeOwned + Validate>(bytes: &[u8]) -> Option<(M, &[u8])> {
    let (message, rest) = postcard::take_from_bytes::<M>(bytes).ok()?;
    message.validate().ok()?;
    Some((message, rest))
}

fn hello() -> WorkerHello {
    WorkerHello {
        slots: 2,
        memory: 1 << 30,
        arch: "x86_64".into(),
        listen: None,
        grant_secret: [1; 32],
        labels: Vec::new(),
        resources: Vec::new(),
        incarnation: 1,
        keeps: 0,
    }
}

/// A module that a client uploads: its list of tasks, which clients read, and all that a worker does before it runs anything.
pub fn module(bytes: &[u8]) {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    let sandbox = SANDBOX.get_or_init(|| Sandbox::new(SandboxConfig::default()).expect("the sandbox runs here"));
    if let Some(section) = manifest::section(bytes) {
        let _ = manifest::read(section);
    }
    let _ = manifest::read(bytes);
    let _ = sandbox.load(Hash::of(bytes), bytes);
}

/// A result that a worker sends, or an argument that a guest is given, as a list of any kind of number: what reads as one has a form that
/// reads as the same.
pub fn values(bytes: &[u8]) {
    macro_rules! lists {
        ($($number:ty)*) => {$(
            list::<Vec<$number>>(bytes);
            list::<Vec<Vec<$number>>>(bytes);
        )*};
    }
    lists!(u8 i8 u16 i16 u32 i32 u64 i64 usize isize f32 f64);
}

fn list<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(list) = codec::take_value::<T>(&mut rest) else {
        assert_eq!(rest.len(), bytes.len(), "nothing is taken of what does not read");
        return;
    };
    let (mut written, mut again) = (Vec::new(), Vec::new());
    codec::encode_value(&list, &mut written).expect("what was read can be written");
    // By their bytes, since there are numbers that are not equal to themselves.
    let read: T = codec::decode_value(&written).expect("what was written reads");
    codec::encode_value(&read, &mut again).expect("and can be written");
    assert_eq!(written, again);
}

/// Runs an entry point by its name.
///
/// # Panics
/// When there is none of that name, or the input does what must not be.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("an entry point").run)(bytes);
}
