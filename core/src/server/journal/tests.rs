//! Journals that are opened again: whole, by others, damaged, and after their writer was killed.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    pin::pin,
    process::{Command, Stdio},
    sync::mpsc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    codec::{Args, Lens, Run},
    ids::{ClientId, EntryId, Hash},
    net::files::Scratch,
    scheduler::{Action, Config, Event, RestoreError, Row, Scheduler},
    wire::{CallSpec, FromClient, FromWorker, Outcome, SharedSpec, ToWorker, WorkerHello},
};

const CLUSTER: [u8; 32] = [7; 32];
const ENTRY: EntryId = EntryId { client: ClientId(3), seq: 1 };
/// Whatever is waited for takes far less.
const PATIENCE: Duration = Duration::from_secs(60);

fn values(first: u64, bytes: Vec<u8>) -> Fact {
    Fact::Values { entry: ENTRY, first, values: Run::single(bytes.into()).expect("short") }
}

fn facts(store: &Store) -> Result<Vec<Fact>, JournalFault> {
    store.read(|facts| Ok::<_, RestoreError>(facts.collect()))
}

fn row(fact: &Fact) -> std::ops::RangeInclusive<Row> {
    fact.row()..=fact.row()
}

/// Writes to the journal until that is durable.
fn write(directory: &Path, records: Vec<Record>) {
    let store = Store::open(directory, CLUSTER).expect("opened");
    let (sender, written) = mpsc::channel();
    let journal = Journal::start(store, move |result| drop(sender.send(result))).expect("started");
    let count = records.len() as u64;
    journal.push(records);
    journal.close();
    assert!(matches!(written.iter().last(), Some(Written::Records(records)) if records == count));
}

#[test]
fn facts_come_back_in_order() {
    let scratch = Scratch::new("journal");
    let (a, b, c) = (values(1, vec![1]), values(300, vec![2]), values(2, vec![3; 10_000]));
    write(&scratch.0, vec![Record::Put(a.clone()), Record::Put(b.clone()), Record::Put(c.clone())]);
    let store = Store::open(&scratch.0, CLUSTER).expect("opened");
    assert_eq!(facts(&store).expect("read"), [a.clone(), c.clone(), b.clone()]);
    assert_eq!((store.starts(), store.numbers()), (2, NUMBERS..2 * NUMBERS));
    drop(store);
    write(&scratch.0, vec![Record::Drop(row(&c)), Record::Drop(a.row()..=values(299, Vec::new()).row())]);
    let store = Store::open(&scratch.0, CLUSTER).expect("opened");
    assert_eq!(facts(&store).expect("read"), [b]);
    assert_eq!(store.starts(), 4);
}

#[test]
fn a_journal_is_one_schedulers_of_one_cluster() {
    let scratch = Scratch::new("journal-owner");
    let store = Store::open(&scratch.0, CLUSTER).expect("begun");
    assert!(matches!(Store::open(&scratch.0, CLUSTER), Err(JournalFault::InUse)));
    drop(store);
    assert!(matches!(Store::open(&scratch.0, [8; 32]), Err(JournalFault::Cluster)));
    // Begun and not finished: begun again.
    fs::remove_file(scratch.0.join("facts.redb")).expect("there");
    fs::write(scratch.0.join("facts.new"), b"half").expect("written");
    assert_eq!(Store::open(&scratch.0, CLUSTER).expect("begun").starts(), 1);
}

#[test]
fn another_format_is_told_apart() {
    let scratch = Scratch::new("journal-format");
    drop(Store::open(&scratch.0, CLUSTER).expect("begun"));
    store::write_format(&scratch.0, store::FORMAT + 1);
    assert!(matches!(Store::open(&scratch.0, CLUSTER), Err(JournalFault::Version { theirs }) if theirs == store::FORMAT + 1));
}

#[test]
fn damage_is_an_error_or_undone() {
    let scratch = Scratch::new("journal-damage");
    let all: Vec<_> = (0..50).map(|i| values(i, vec![i as u8; 1000])).collect();
    write(&scratch.0, all.iter().cloned().map(Record::Put).collect());
    let path = scratch.0.join("facts.redb");
    let whole = fs::read(&path).expect("there");
    let look = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        let began = Instant::now();
        loop {
            match Store::open(&scratch.0, CLUSTER) {
                // The store unlocks nothing when it panics, and a child that another test starts has its file for a moment.
                Err(JournalFault::InUse) if began.elapsed() < PATIENCE => std::thread::yield_now(),
                store => return store.and_then(|store| facts(&store)),
            }
        }
    };
    let mut errors = 0;
    let mut check = |bytes: &[u8]| match look(bytes) {
        // An older state of the file, or what was changed was room for more.
        Ok(facts) => assert!(facts.is_empty() || facts == all, "{} facts", facts.len()),
        Err(JournalFault::Damaged { .. }) => errors += 1,
        Err(other) => panic!("{other}"),
    };
    for part in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        check(&whole[..part]);
    }
    check(b"something else altogether, and long enough to be a header of some file");
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut bytes = whole.clone();
        bytes[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0x5a);
        check(&bytes);
    }
    assert!(errors > 10, "only {errors} damages were seen");
    assert_eq!(look(&whole).expect("whole"), all);
}

#[test]
fn files_go_with_what_is_recorded() {
    let scratch = Scratch::new("journal-files");
    let (module, data) = (Large::Module(Hash([1; 32])), Large::Data(ENTRY.key(0)));
    let store = Store::open(&scratch.0, CLUSTER).expect("opened");
    let journal = Journal::start(store, |_| {}).expect("started");
    journal.keep(module, Bytes::from_static(b"one"));
    journal.keep(data, Bytes::from_static(b"two"));
    journal.discard(module);
    journal.keep(module, Bytes::from_static(b"three"));
    journal.close();
    let store = Store::open(&scratch.0, CLUSTER).expect("opened");
    assert_eq!(store.list().expect("read"), [module, data]);
    assert_eq!(store.read_file(module).expect("there"), Bytes::from_static(b"three"));
}

#[test]
fn numbers_are_set_aside_before_they_are_used() {
    let scratch = Scratch::new("journal-numbers");
    let store = Store::open(&scratch.0, CLUSTER).expect("opened");
    let journal = Journal::start(store, |_| {}).expect("started");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut number = 0;
    while number < 3 * NUMBERS {
        if journal.allows(number + 1) {
            number += 1;
        } else {
            assert!(runtime.block_on(journal.flushed()));
        }
    }
    journal.close();
    assert!(Store::open(&scratch.0, CLUSTER).expect("opened").numbers().start > number);
}

#[test]
fn a_failing_disk_is_told_once() {
    let scratch = Scratch::new("journal-failing");
    let store = Store::open(&scratch.0, CLUSTER).expect("opened");
    let (sender, written) = mpsc::channel();
    let journal = Journal::start(store, move |result| drop(sender.send(result))).expect("started");
    fs::remove_dir_all(scratch.0.join("large")).expect("there");
    journal.keep(Large::Module(Hash([1; 32])), Bytes::from_static(b"one"));
    assert!(matches!(written.recv_timeout(PATIENCE), Ok(Written::Failed(JournalFault::Io(_)))));
    journal.push(vec![Record::Put(values(0, vec![1]))]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert!(!runtime.block_on(journal.flushed()), "nothing is durable any more");
    runtime.block_on(journal.room());
    journal.close();
    assert!(written.recv().is_err(), "it is told once");
}

#[test]
fn what_waits_is_bounded() {
    let scratch = Scratch::new("journal-bounded");
    let store = Store::open(&scratch.0, CLUSTER).expect("opened");
    let (go, gone) = mpsc::channel::<()>();
    let journal = Journal::start(store, move |_| while gone.recv().is_ok() {}).expect("started");
    journal.push(vec![Record::Put(values(0, vec![0]))]);
    let room = || pin!(journal.room()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(room());
    journal.push(vec![Record::Put(values(1, vec![0; WAITING_BYTES as usize]))]);
    assert!(!room(), "the writer is held up, and too much waits");
    drop(go);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(journal.room());
    assert!(room());
}

/// What a killed writer has written: so many steps, each wholly or not at all.
fn step(i: u64) -> Vec<Record> {
    let mut records =
        vec![Record::Put(values(2 * i, vec![i as u8; 700])), Record::Put(values(2 * i + 1, i.to_le_bytes().into()))];
    if i >= 20 {
        records.push(Record::Drop(values(2 * (i - 20), Vec::new()).row()..=values(2 * (i - 20) + 1, Vec::new()).row()));
    }
    records
}

/// Not a test: the process that is killed.
#[test]
#[ignore = "it writes until it is killed by a_killed_writer_loses_nothing_that_was_durable"]
fn killed_writer() {
    let directory = std::env::var_os("QUICSAND_TEST_JOURNAL").expect("it is started by a test");
    let store = Store::open(Path::new(&directory), CLUSTER).expect("opened");
    let facts = facts(&store).expect("read");
    let mut next = facts.iter().map(|fact| fact_index(fact) / 2 + 1).max().unwrap_or(0);
    let counts = std::sync::Mutex::new(BTreeMap::from([(0, next)]));
    let counts = Arc::new(counts);
    let told = Arc::clone(&counts);
    let journal = Journal::start(store, move |written| {
        let Written::Records(records) = written else { panic!("{written:?}") };
        let durable = told.lock().expect("unharmed").get(&records).copied();
        println!("durable {}", durable.expect("steps are not divided"));
    });
    let journal = journal.expect("started");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut records = 0;
    loop {
        let step = step(next);
        next += 1;
        records += step.len() as u64;
        counts.lock().expect("unharmed").insert(records, next);
        journal.push(step);
        if next.is_multiple_of(64) {
            assert!(runtime.block_on(journal.flushed()));
        }
    }
}

fn fact_index(fact: &Fact) -> u64 {
    match fact {
        Fact::Values { first, .. } => *first,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_was_durable() {
    let scratch = Scratch::new("journal-killed");
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "server::journal::tests::killed_writer", "--ignored", "--nocapture"])
            .env("QUICSAND_TEST_JOURNAL", &scratch.0)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let durable = |line: String| line.rsplit_once("durable ").and_then(|(_, count)| count.parse::<u64>().ok());
        let first = lines.by_ref().find_map(durable).expect("it writes");
        let mut last = lines.by_ref().filter_map(durable).take(round * 3).last().unwrap_or(first);
        child.kill().expect("it ran");
        child.wait().expect("killed");
        last = lines.filter_map(durable).last().unwrap_or(last);
        let store = Store::open(&scratch.0, CLUSTER).expect("opened again");
        let facts = facts(&store).expect("read");
        let steps = facts.iter().map(|fact| fact_index(fact) / 2 + 1).max().expect("something is there");
        assert!(steps >= last, "{last} steps were durable, {steps} are there");
        let expected = (steps.saturating_sub(20)..steps).flat_map(|i| step(i).into_iter().take(2));
        assert!(expected.eq(facts.into_iter().map(Record::Put)), "steps before {steps} are not whole");
    }
}

/// Has a machine and a worker that answers at once handle this, and a journal, if there is one, written; gives how long it took.
fn drive(scheduler: &mut Scheduler, journal: Option<&Journal>, messages: impl Iterator<Item = FromClient>) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut actions = Vec::new();
    let start = Instant::now();
    for message in messages {
        let mut events = vec![Event::FromClient(CLIENT, message)];
        while let Some(event) = events.pop() {
            scheduler.handle(start.elapsed(), event, &mut actions);
            for action in actions.drain(..) {
                match (action, journal) {
                    (Action::Record(records), Some(journal)) => journal.push(records),
                    (Action::ToWorker(worker, ToWorker::Assign(assignment)), _) => {
                        let count = assignment.args.count();
                        let values = Run::checked(count, Lens::Same(8), vec![0; 8 * count as usize].into()).expect("agrees");
                        let (stored, errors, dropped) = (Vec::new(), Vec::new(), Vec::new());
                        let outcome = Outcome { first: 0, values, stored, errors, dropped };
                        let elapsed = Duration::from_nanos(500) * count;
                        events.push(Event::FromWorker(worker, FromWorker::Finished { run: assignment.run, outcome, elapsed }));
                    }
                    _ => {}
                }
            }
        }
        if let Some(journal) = journal {
            runtime.block_on(journal.room());
        }
    }
    if let Some(journal) = journal {
        assert!(runtime.block_on(journal.flushed()));
    }
    start.elapsed()
}

const CLIENT: ClientId = ClientId(1);

fn joined(config: Config, with_worker: bool) -> Scheduler {
    let mut scheduler = Scheduler::new(config);
    let who = crate::ids::Identity([1; 16]);
    let hello = WorkerHello { slots: 1, incarnation: 1, ..WorkerHello::default() };
    let mut actions = Vec::new();
    scheduler.handle(
        Duration::ZERO,
        Event::ClientJoined { client: CLIENT, who, module: Hash([0; 32]), passport: crate::scheduler::Passport::default() },
        &mut actions,
    );
    if with_worker {
        let joined = Event::WorkerJoined { worker: crate::ids::WorkerId(2), who, name: String::new(), hello };
        scheduler.handle(Duration::ZERO, joined, &mut actions);
    }
    scheduler
}

fn spec() -> SharedSpec {
    CallSpec { task: crate::ids::TaskId::of("f"), name: "measured::f".into(), options: crate::Options::DEFAULT }.into()
}

fn args(count: u32) -> Args {
    Args { run: Run::checked(count, Lens::Same(8), vec![0; 8 * count as usize].into()).expect("agrees"), holes: Vec::new() }
}

/// What a journal costs, and how long a million calls take to come back.
#[test]
#[ignore = "a measurement: run it in the release profile, with --nocapture"]
fn what_a_journal_costs() {
    const CALLS: u64 = 1_000_000;
    // A client's share of memory is not what is measured.
    let config =
        |journal| Config { journal, client_bytes: u64::MAX / 2, credit: 1 << 40, lease: Duration::MAX, ..Config::default() };
    let calls = || (1..=CALLS).map(|seq| FromClient::Call { seq, spec: spec(), args: args(1) });
    let map = || {
        let items = (0..1000).map(|_| FromClient::Items { seq: 1, args: args(8192) });
        std::iter::once(FromClient::Map { seq: 1, spec: spec() }).chain(items)
    };
    println!("a map of {} items, alone: {:?}", 1000 * 8192, drive(&mut joined(config(false), true), None, map()));
    println!("{CALLS} calls that are done, alone: {:?}", drive(&mut joined(config(false), true), None, calls()));
    for (name, with_worker) in [("done", true), ("pending", false)] {
        let scratch = Scratch::new("journal-costs");
        let journal = Journal::start(Store::open(&scratch.0, CLUSTER).expect("opened"), |_| {}).expect("started");
        println!("{CALLS} calls that are {name}: {:?}", drive(&mut joined(config(true), with_worker), Some(&journal), calls()));
        // What a kill leaves: the system has all that was written.
        let killed = Scratch::new("journal-costs");
        fs::create_dir(&killed.0).expect("made");
        let bytes = fs::copy(scratch.0.join("facts.redb"), killed.0.join("facts.redb")).expect("copied");
        fs::File::open(killed.0.join("facts.redb")).and_then(|file| file.sync_all()).expect("written");
        journal.close();
        let start = Instant::now();
        let store = Store::open(&killed.0, CLUSTER).expect("opened");
        let repaired = start.elapsed();
        drop(store);
        let start = Instant::now();
        let store = Store::open(&scratch.0, CLUSTER).expect("opened");
        let opened = start.elapsed();
        let restored = store.read(|facts| Scheduler::restore(config(true), 2, facts)).expect("restored");
        println!(
            "  {bytes} bytes, opened in {opened:?} or, after a kill, {repaired:?}; restored in {:?}",
            start.elapsed() - opened
        );
        let counts = restored.status().counts;
        assert_eq!(counts.memory + counts.queued, CALLS);
    }
    let scratch = Scratch::new("journal-costs");
    let journal = Journal::start(Store::open(&scratch.0, CLUSTER).expect("opened"), |_| {}).expect("started");
    println!("a map of {} items: {:?}", 1000 * 8192, drive(&mut joined(config(true), true), Some(&journal), map()));
}
