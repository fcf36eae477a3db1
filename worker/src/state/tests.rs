//! The worker's state machine, driven by hand.

use std::time::Duration;

use bytes::Bytes;
use quicsand::{
    Options, TaskErrorKind,
    codec::{Args, Hole, Run, RunBuilder, Source, Span},
    ids::{ClientId, EntryId, Hash, Key, RunId, TaskId},
    wire::{Assignment, CallSpec, FromWorker, INLINE_BYTES, Input, InputPlace, ItemError, Outcome, ToWorker},
};

use super::*;

const MODULE: Hash = Hash([7; 32]);

/// A worker and what it did since the last look.
pub(super) struct Rig {
    pub(super) worker: Worker,
    actions: Vec<Action>,
}

impl Rig {
    /// With its module at hand if `ready`.
    fn new(slots: u32, ready: bool) -> Self {
        let mut rig = Self { worker: Worker::new(slots, "w".into(), Budget::MUCH, Kept::default()), actions: Vec::new() };
        if ready {
            rig.worker.modules.ready(MODULE);
        }
        rig
    }

    fn handle(&mut self, event: Event) -> String {
        self.worker.handle(event, &mut self.actions);
        self.worker.check();
        self.actions.drain(..).map(|action| told(&action)).collect::<Vec<_>>().join(", ")
    }

    fn assign(&mut self, run: u64, key: Key, count: u32, inputs: Vec<Input>) -> String {
        self.handle(Event::Message(ToWorker::Assign(assignment(run, key, count, inputs))))
    }

    fn say(&mut self, message: ToWorker) -> String {
        self.handle(Event::Message(message))
    }

    fn ended(&mut self, run: u64, values: Run) -> String {
        self.handle(Event::RunEnded { run: RunId(run), ended: Ended::new(values, vec![], vec![], Duration::ZERO) })
    }

    fn failed(&mut self, run: u64) -> String {
        let key = key(1, 0);
        let ended = Ended::failed("t", key.entry, 0, 0..1, "w", &TaskErrorKind::Panicked, "oh");
        self.handle(Event::RunEnded { run: RunId(run), ended })
    }
}

pub(super) fn key(seq: u64, index: u64) -> Key {
    EntryId { client: ClientId(1), seq }.key(index)
}

/// A run of `count` items from `key` on; each takes every input as a field.
pub(super) fn assignment(run: u64, key: Key, count: u32, inputs: Vec<Input>) -> Assignment {
    let hole = |(field, input): (usize, &Input)| Hole { first: 0, count, field: field as u32, source: Source::Same(input.key) };
    let args = Args { run: values(count, 1), holes: inputs.iter().enumerate().map(hole).collect() };
    let spec = CallSpec { task: TaskId(1), name: "t".into(), options: Options::DEFAULT }.into();
    Assignment { run: RunId(run), spec, module: MODULE, entry: key.entry, first: key.index, args, inputs }
}

pub(super) fn values(count: u32, len: usize) -> Run {
    let mut builder = RunBuilder::default();
    (0..count).for_each(|_| builder.push(&vec![1; len]).expect("short"));
    builder.take()
}

pub(super) fn ahead(key: Key) -> Input {
    Input { key, count: 1, place: InputPlace::Ahead }
}

pub(super) fn blob(key: Key) -> Input {
    let bytes = blob_bytes();
    Input { key, count: 1, place: InputPlace::Blob { len: bytes.len() as u64, hash: Hash::of(&bytes), places: vec![] } }
}

pub(super) fn blob_bytes() -> Bytes {
    Bytes::from_static(b"blob")
}

fn told(action: &Action) -> String {
    match action {
        Action::Send(FromWorker::Started { run }) => format!("started {run}"),
        Action::Send(FromWorker::Finished { run, outcome, .. }) => format!("finished {run} {}", items(outcome)),
        Action::Send(FromWorker::Returned { run, missing }) => format!("returned {run} {missing:?}"),
        Action::Send(FromWorker::Divided { run, count }) => format!("divided {run} {count}"),
        Action::Send(FromWorker::Holds { key, .. }) => format!("holds {key}"),
        Action::Send(FromWorker::Heartbeat(load)) => {
            format!("heartbeat {} {}{}", load.held_bytes, load.busy, if load.pressed { " pressed" } else { "" })
        }
        Action::Send(FromWorker::Registered) => "registered".into(),
        Action::Send(FromWorker::Unreplicated { key }) => format!("no copy {key}"),
        Action::Send(FromWorker::Draining) => "draining".into(),
        Action::FetchModule(_) => "module".into(),
        Action::ForgetModule(_) => "forget".into(),
        Action::FetchBlob { key, .. } => format!("blob {key}"),
        Action::Spill { file, .. } => format!("spill {file}"),
        Action::Load { file, .. } => format!("load {file}"),
        Action::Unlink { file } => format!("unlink {file}"),
        Action::Execute { slot, work } => format!("run {} on {slot}", work.run),
        Action::Stop { slot, first, count } => format!("stop {slot} {first}+{count}"),
        Action::Divide { slot } => format!("divide {slot}"),
        Action::Leave(reason) => format!("leave {}", reason.as_deref().unwrap_or("well")),
    }
}

/// `v` a value, `s` stored, `e` an error, `d` dropped; one letter an item.
fn items(outcome: &Outcome) -> String {
    let letter = |item: u32| match item {
        _ if outcome.stored.iter().any(|stored| stored.item == item) => 's',
        _ if outcome.errors.iter().any(|error| error.item == item) => 'e',
        _ if outcome.dropped.contains(&item) => 'd',
        _ => 'v',
    };
    (outcome.first..outcome.first + outcome.values.count()).map(letter).collect()
}

#[test]
fn runs_go_in_order_of_arrival_on_the_warmest_slot() {
    let mut rig = Rig::new(2, true);
    assert_eq!(rig.assign(1, key(1, 0), 2, vec![]), "started 1, run 1 on 0");
    assert_eq!(rig.assign(2, key(1, 2), 2, vec![]), "started 2, run 2 on 1");
    assert_eq!(rig.assign(3, key(1, 4), 1, vec![]), "");
    assert_eq!(rig.assign(4, key(1, 5), 1, vec![]), "");
    assert_eq!(rig.ended(2, values(2, 1)), "finished 2 vv, started 3, run 3 on 1");
    assert_eq!(rig.ended(3, values(1, 1)), "finished 3 v, started 4, run 4 on 1");
    assert_eq!(rig.handle(Event::Tick { used_bytes: 1 }), "heartbeat 0 2");
}

#[test]
fn modules_and_blobs_are_fetched_once() {
    let mut rig = Rig::new(1, false);
    assert_eq!(rig.assign(1, key(5, 0), 1, vec![blob(key(2, 0))]), format!("module, blob {}", key(2, 0)));
    assert_eq!(rig.assign(2, key(5, 1), 1, vec![blob(key(2, 0))]), "");
    assert_eq!(rig.handle(Event::ModuleReady(MODULE)), "");
    let hash = Hash::of(&blob_bytes());
    let told = rig.handle(Event::BlobArrived { key: key(2, 0), hash, bytes: blob_bytes() });
    assert_eq!(told, format!("holds {}, started 1, run 1 on 0", key(2, 0)));
    assert_eq!(rig.ended(1, values(1, 1)), "finished 1 v, started 2, run 2 on 0");
    assert_eq!(rig.assign(3, key(5, 2), 1, vec![blob(key(2, 0))]), "", "held: nothing is fetched");
    let span = Span { entry: key(2, 0).entry, first: 0, count: 1 };
    assert_eq!(rig.say(ToWorker::Free { spans: vec![span] }), "");
    assert_eq!(rig.assign(4, key(5, 3), 1, vec![blob(key(2, 0))]), format!("blob {}", key(2, 0)));
    assert_eq!(rig.say(ToWorker::Free { spans: vec![span] }), "");
    assert_eq!(rig.handle(Event::BlobArrived { key: key(2, 0), hash, bytes: blob_bytes() }), "", "freed on its way");
    assert_eq!(rig.worker.held_bytes(), 0);
    assert_eq!(rig.ended(2, values(1, 1)), "finished 2 v, started 3, run 3 on 0");
    assert_eq!(rig.ended(3, values(1, 1)), "finished 3 v, started 4, run 4 on 0");
}

#[test]
fn what_cannot_be_had_is_told() {
    let mut rig = Rig::new(1, false);
    rig.assign(1, key(5, 0), 3, vec![blob(key(2, 0))]);
    rig.assign(2, key(5, 3), 2, vec![]);
    let hash = Hash::of(&blob_bytes());
    assert_eq!(rig.handle(Event::BlobMissing { key: key(2, 0), hash }), format!("returned 1 [{}]", key(2, 0)));
    assert_eq!(rig.handle(Event::ModuleMissing { hash: MODULE, reason: "gone".into() }), "finished 2 ee");
    assert_eq!(rig.assign(3, key(5, 5), 1, vec![]), "module", "a later run tries again");
    assert_eq!(rig.handle(Event::ModuleRefused { hash: MODULE, reason: "no wasm".into() }), "finished 3 e");
    rig.worker.handle(Event::Message(ToWorker::Assign(assignment(4, key(5, 6), 1, vec![]))), &mut rig.actions);
    let [Action::Send(FromWorker::Finished { outcome, .. })] = &rig.actions[..] else { panic!("{:?}", rig.actions) };
    let ItemError { item: 0, error } = &outcome.errors[0] else { panic!("item") };
    assert_eq!((&error.kind, &*error.message, error.key, &*error.worker), (&TaskErrorKind::Module, "no wasm", key(5, 6), "w"));
}

#[test]
fn calls_sent_ahead_run_when_their_input_appears() {
    let mut rig = Rig::new(1, true);
    rig.assign(1, key(1, 0), 4, vec![]);
    assert_eq!(rig.assign(2, key(2, 0), 1, vec![ahead(key(1, 2))]), "");
    assert_eq!(rig.assign(3, key(3, 0), 1, vec![ahead(key(2, 0))]), "");
    assert_eq!(rig.ended(1, values(4, 1)), "finished 1 vvvv, started 2, run 2 on 0");
    assert_eq!(rig.ended(2, values(1, INLINE_BYTES + 1)), "finished 2 s, started 3, run 3 on 0");
    let held = rig.worker.held(key(2, 0));
    assert!(matches!(held, Some(Held::Here { bytes, .. }) if bytes.len() == INLINE_BYTES + 1));
    assert_eq!(rig.ended(3, values(1, 1)), "finished 3 v");
    assert_eq!(rig.assign(4, key(4, 0), 1, vec![ahead(key(3, 0))]), "started 4, run 4 on 0", "a recent result");
    assert_eq!(
        rig.assign(5, key(5, 0), 1, vec![ahead(key(1, 2)), ahead(key(9, 9))]),
        format!("returned 5 [{}, {}]", key(1, 2), key(9, 9))
    );
}

#[test]
fn a_chain_falls_with_its_first_link() {
    let chain = |rig: &mut Rig| {
        rig.assign(1, key(1, 0), 1, vec![]);
        rig.assign(2, key(2, 0), 1, vec![ahead(key(1, 0))]);
        rig.assign(3, key(3, 0), 1, vec![ahead(key(2, 0)), ahead(key(1, 0))]);
    };
    let fallen = format!("returned 2 [{}], returned 3 [{}]", key(1, 0), key(2, 0));
    let mut rig = Rig::new(1, true);
    chain(&mut rig);
    assert_eq!(rig.failed(1), format!("finished 1 e, {fallen}"));
    let mut rig = Rig::new(1, true);
    rig.assign(9, key(9, 0), 1, vec![]);
    chain(&mut rig);
    assert_eq!(rig.say(ToWorker::Recall { run: RunId(1) }), format!("returned 1 [], {fallen}"));
    chain(&mut rig);
    assert_eq!(rig.say(ToWorker::Cancel { run: RunId(1), first: 0, count: 1 }), format!("finished 1 d, {fallen}"));
}

#[test]
fn cancelling_drops_what_has_not_started_and_stops_what_runs() {
    let mut rig = Rig::new(1, true);
    rig.assign(1, key(1, 0), 10, vec![]);
    rig.assign(2, key(2, 0), 4, vec![]);
    let cancel = |run, first, count| ToWorker::Cancel { run: RunId(run), first, count };
    assert_eq!(rig.say(cancel(1, 3, 2)), "stop 0 3+2");
    assert_eq!(rig.say(cancel(1, 8, u32::MAX)), "stop 0 8+2");
    assert_eq!(rig.say(cancel(2, 1, 2)), "");
    assert_eq!(rig.say(cancel(7, 0, 1)), "", "long over");
    rig.worker.handle(Event::RunEnded { run: RunId(1), ended: Ended::dropped(10) }, &mut rig.actions);
    let Some(Action::Execute { work, .. }) = rig.actions.last() else { panic!("{:?}", rig.actions) };
    assert_eq!(work.cancelled.iter().flat_map(Clone::clone).collect::<Vec<_>>(), [1, 2]);
    rig.actions.clear();
    rig.assign(3, key(3, 0), 2, vec![]);
    assert_eq!(rig.say(cancel(3, 1, 1)), "");
    assert_eq!(rig.say(cancel(3, 0, 1)), "finished 3 dd");
}

#[test]
fn what_runs_is_divided_and_what_waits_for_the_rest_goes_with_it() {
    let mut rig = Rig::new(1, true);
    let recall = || ToWorker::Recall { run: RunId(1) };
    let divided = |run, count| Event::Divided { run: RunId(run), count };
    rig.assign(1, key(1, 0), 10, vec![]);
    rig.assign(2, key(2, 0), 1, vec![ahead(key(1, 3))]);
    rig.assign(3, key(3, 0), 1, vec![ahead(key(1, 7)), ahead(key(1, 3))]);
    rig.assign(4, key(4, 0), 1, vec![ahead(key(3, 0))]);
    assert_eq!(rig.say(recall()), "divide 0");
    let fallen = format!("returned 3 [{}], returned 4 [{}]", key(1, 7), key(3, 0));
    assert_eq!(rig.handle(divided(1, 6)), format!("divided 1 6, {fallen}"));
    assert_eq!(rig.say(ToWorker::Cancel { run: RunId(1), first: 5, count: 5 }), "stop 0 5+1");
    for nonsense in [divided(1, 0), divided(1, 6), divided(2, 1), divided(9, 1)] {
        assert_eq!(rig.handle(nonsense), "");
    }
    assert_eq!(rig.say(recall()), "divide 0", "as often as somebody is idle");
    assert_eq!(rig.handle(divided(1, 4)), "divided 1 4");
    assert_eq!(rig.ended(1, values(4, 1)), "finished 1 vvvv, started 2, run 2 on 0");
    assert_eq!(rig.handle(divided(1, 2)), "", "it is over");
}

#[test]
fn parts_are_told_kept_and_handed_on() {
    let mut rig = Rig::new(2, true);
    let part =
        |run, first, values| Event::Part { run: RunId(run), ended: Ended::from(first, values, vec![], vec![], Duration::ZERO) };
    rig.assign(1, key(1, 0), 10, vec![]);
    rig.assign(2, key(2, 0), 1, vec![ahead(key(1, 3))]);
    rig.assign(3, key(3, 0), 1, vec![ahead(key(1, 4))]);
    assert_eq!(rig.handle(part(1, 0, values(4, 1))), "finished 1 vvvv, started 2, run 2 on 1");
    for nonsense in [part(1, 0, values(5, 1)), part(1, 4, values(6, 1)), part(3, 0, values(1, 1)), part(9, 0, values(1, 1))] {
        assert_eq!(rig.handle(nonsense), "");
    }
    assert_eq!(rig.handle(Event::Divided { run: RunId(1), count: 4 }), "", "there must be something left");
    let missed = |run: u64, key: Key| format!("returned {run} [{key}]");
    assert_eq!(rig.assign(4, key(4, 0), 1, vec![ahead(key(1, 2))]), missed(4, key(1, 2)), "the scheduler has it by now");
    rig.ended(2, values(1, 1));
    let large = part(1, 4, values(1, INLINE_BYTES + 1));
    assert_eq!(rig.handle(large), "finished 1 s, started 3, run 3 on 1");
    assert_eq!(rig.worker.held_bytes(), INLINE_BYTES as u64 + 1);
    assert_eq!(rig.handle(Event::Divided { run: RunId(1), count: 6 }), "divided 1 6");
    let ended = Ended::from(5, values(1, 1), vec![], vec![], Duration::ZERO);
    assert_eq!(rig.handle(Event::RunEnded { run: RunId(1), ended }), "finished 1 v");
}

#[test]
fn draining_returns_what_has_not_started_and_finishes_what_runs() {
    let mut rig = Rig::new(1, true);
    rig.assign(1, key(1, 0), 1, vec![]);
    rig.assign(2, key(2, 0), 1, vec![ahead(key(1, 0))]);
    rig.assign(3, key(3, 0), 1, vec![ahead(key(2, 0))]);
    rig.assign(4, key(3, 0), 1, vec![]);
    let told = rig.handle(Event::Drain);
    assert_eq!(told, format!("draining, returned 2 [], returned 3 [{}], returned 4 []", key(2, 0)));
    assert_eq!(rig.handle(Event::Drain), "");
    assert_eq!(rig.assign(5, key(5, 0), 1, vec![]), "returned 5 []");
    assert_eq!(rig.say(ToWorker::Leave), "", "something runs");
    assert_eq!(rig.ended(1, values(1, 1)), "finished 1 v, leave well");
    assert_eq!(rig.handle(Event::Drain), "");
    assert_eq!(Rig::new(1, true).say(ToWorker::Drain), "", "it may have what others need");
    assert_eq!(Rig::new(1, true).say(ToWorker::Leave), "leave well");
}

fn copy_of(key: Key) -> ToWorker {
    let bytes = blob_bytes();
    ToWorker::Replicate { key, len: bytes.len() as u64, hash: Hash::of(&bytes), places: vec![] }
}

#[test]
fn copies_are_fetched_once_and_answered() {
    let mut rig = Rig::new(1, true);
    let (wanted, hash) = (key(1, 0), Hash::of(&blob_bytes()));
    assert_eq!(rig.say(copy_of(wanted)), format!("blob {wanted}"));
    assert_eq!(rig.assign(1, key(2, 0), 1, vec![blob(wanted)]), "", "it is coming already");
    let told = rig.handle(Event::BlobArrived { key: wanted, hash, bytes: blob_bytes() });
    assert_eq!(told, format!("holds {wanted}, started 1, run 1 on 0"));
    assert_eq!(rig.say(copy_of(wanted)), format!("holds {wanted}"), "it is here");
    let other = key(1, 1);
    assert_eq!(rig.say(copy_of(other)), format!("blob {other}"));
    assert_eq!(rig.handle(Event::BlobMissing { key: other, hash }), format!("no copy {other}"));
    let large = ToWorker::Replicate { key: other, len: u64::MAX, hash, places: vec![] };
    assert_eq!(rig.say(large), format!("no copy {other}"), "there is no room");
    rig.handle(Event::Drain);
    assert_eq!(rig.say(copy_of(other)), format!("no copy {other}"), "it is leaving");
}

#[test]
fn what_is_held_outlives_a_connection_and_is_named_at_the_next() {
    let mut rig = Rig::new(1, true);
    rig.assign(1, key(1, 0), 1, vec![]);
    rig.ended(1, values(1, INLINE_BYTES + 1));
    rig.assign(2, key(1, 1), 1, vec![]);
    rig.ended(2, values(1, 1));
    assert!(rig.worker.store.recent(key(1, 1)).is_some(), "recent");
    let kept = rig.worker.take_kept();
    assert_eq!(kept.count(), 1);
    let mut again = Worker::new(1, "w".into(), Budget::MUCH, kept);
    assert!(again.held(key(1, 0)).is_some() && again.store.recent(key(1, 1)).is_none());
    let mut actions = Vec::new();
    again.handle(Event::Joined, &mut actions);
    again.check();
    assert_eq!(actions.iter().map(told).collect::<Vec<_>>(), [format!("holds {}", key(1, 0)), "registered".into()]);
    let mut fresh = Rig::new(1, true);
    assert_eq!(fresh.handle(Event::Joined), "", "nothing to name");
}

#[test]
fn nonsense_ends_the_registration() {
    let mut rig = Rig::new(1, true);
    rig.assign(1, key(1, 0), 3, vec![]);
    let mut bad = assignment(2, key(2, 0), 1, vec![ahead(key(1, 0))]);
    bad.inputs.clear();
    let told = rig.say(ToWorker::Assign(bad));
    assert_eq!(told, "stop 0 0+3, leave the scheduler sent an assignment that contradicts itself, run 2");
    assert_eq!(rig.say(ToWorker::Refused { reason: "late".into() }), "");
    let bad = [assignment(1, key(1, 0), 0, vec![]), assignment(1, key(1, u64::MAX), 2, vec![])];
    for bad in bad {
        assert!(Rig::new(1, true).say(ToWorker::Assign(bad)).starts_with("leave the scheduler"));
    }
    assert_eq!(Rig::new(1, true).say(ToWorker::Refused { reason: "why".into() }), "leave why");
}

#[test]
fn idle_modules_go_when_there_are_many() {
    let mut rig = Rig::new(1, true);
    rig.assign(1, key(1, 0), 1, vec![]);
    let told: Vec<_> =
        (0..70).map(|i| rig.handle(Event::ModuleReady(Hash([i + 100; 32])))).filter(|told| !told.is_empty()).collect();
    assert_eq!(told, ["forget"; 7]);
    assert!(rig.worker.modules.is_ready(MODULE), "it is in use");
}

/// With room for two large results in memory and two on disk.
fn small(slots: u32) -> Rig {
    let large = (INLINE_BYTES + 1) as u64;
    let mut rig = Rig::new(slots, true);
    rig.worker = Worker::new(slots, "w".into(), Budget { memory: 2 * large, disk: 2 * large, process: 1000 }, Kept::default());
    rig.worker.modules.ready(MODULE);
    rig
}

fn large() -> Run {
    values(1, INLINE_BYTES + 1)
}

#[test]
fn large_results_go_to_disk_and_come_back_for_runs() {
    let mut rig = small(1);
    for run in 0..3 {
        rig.assign(run, key(run, 0), 1, vec![]);
    }
    assert_eq!(rig.ended(0, large()), "finished 0 s, started 1, run 1 on 0");
    assert_eq!(rig.ended(1, large()), "finished 1 s, started 2, run 2 on 0");
    assert_eq!(rig.ended(2, large()), "finished 2 s, spill 0");
    assert_eq!(rig.handle(Event::Spilled { file: 0 }), "");
    assert!(matches!(rig.worker.held(key(0, 0)), Some(Held::OnDisk { file: 0, .. })));
    assert_eq!(rig.assign(3, key(3, 0), 1, vec![ahead(key(0, 0))]), "load 0");
    let bytes = large().get(0);
    assert_eq!(rig.handle(Event::Loaded { file: 0, bytes }), "started 3, run 3 on 0, spill 1");
    assert!(matches!(rig.worker.held(key(0, 0)), Some(Held::Here { .. })));
}

#[test]
fn a_damaged_file_is_told_as_missing() {
    let mut rig = small(1);
    for run in 0..3 {
        rig.assign(run, key(run, 0), 1, vec![]);
        rig.ended(run, large());
    }
    rig.handle(Event::Spilled { file: 0 });
    assert_eq!(rig.assign(3, key(3, 0), 1, vec![ahead(key(0, 0))]), "load 0");
    let told = rig.handle(Event::Loaded { file: 0, bytes: None });
    assert_eq!(told, format!("unlink 0, returned 3 [{}]", key(0, 0)));
    assert_eq!(rig.worker.held(key(0, 0)), None);
    assert_eq!(rig.assign(4, key(3, 0), 1, vec![ahead(key(0, 0))]), format!("returned 4 [{}]", key(0, 0)));
}

#[test]
fn a_result_that_fits_nowhere_fails_and_names_the_caps() {
    let mut rig = small(1);
    for run in 0..4 {
        rig.assign(run, key(run, 0), 1, vec![]);
        assert!(rig.ended(run, large()).starts_with(&format!("finished {run} s")));
    }
    rig.assign(4, key(4, 0), 3, vec![]);
    rig.assign(5, key(5, 0), 1, vec![ahead(key(4, 1))]);
    let mut mixed = RunBuilder::default();
    [1, INLINE_BYTES + 1, 1].into_iter().for_each(|len| mixed.push(&vec![1; len]).expect("short"));
    rig.worker.handle(
        Event::RunEnded { run: RunId(4), ended: Ended::new(mixed.take(), vec![], vec![], Duration::ZERO) },
        &mut rig.actions,
    );
    rig.worker.check();
    let Action::Send(FromWorker::Finished { outcome, .. }) = &rig.actions[0] else { panic!("{:?}", rig.actions) };
    assert_eq!(items(outcome), "vev");
    let error = &outcome.errors[0].error;
    assert_eq!((&error.kind, error.key), (&TaskErrorKind::Worker, key(4, 1)));
    assert!(error.message.contains("(--hold-limit)") && error.message.contains("(--spill-limit)"), "{}", error.message);
    assert_eq!(told(&rig.actions[1]), format!("returned 5 [{}]", key(4, 1)));
}

#[test]
fn inputs_come_as_there_is_room_the_oldest_first() {
    let mut rig = small(2);
    let wants = |index: u64| {
        let place = InputPlace::Blob { len: (INLINE_BYTES + 1) as u64, hash: Hash([index as u8; 32]), places: vec![] };
        Input { key: key(9, index), count: 1, place }
    };
    let arrive = |index: u64| Event::BlobArrived {
        key: key(9, index),
        hash: Hash([index as u8; 32]),
        bytes: large().get(0).expect("a value"),
    };
    assert_eq!(rig.assign(0, key(0, 0), 1, vec![wants(0)]), format!("blob {}", key(9, 0)));
    assert_eq!(rig.assign(1, key(1, 0), 1, vec![wants(1)]), format!("blob {}", key(9, 1)));
    assert_eq!(rig.assign(2, key(2, 0), 1, vec![wants(2), wants(3), wants(4)]), "", "no room");
    assert_eq!(rig.assign(3, key(3, 0), 1, vec![wants(0)]), "", "is under way");
    let told = rig.handle(arrive(0));
    assert_eq!(told, format!("holds {}, started 0, run 0 on 0, started 3, run 3 on 1", key(9, 0)));
    assert_eq!(rig.handle(arrive(1)), format!("holds {}", key(9, 1)));
    assert_eq!(rig.ended(0, values(1, 1)), "finished 0 v, started 1, run 1 on 0");
    assert_eq!(rig.ended(3, values(1, 1)), format!("finished 3 v, blob {}", key(9, 2)), "its input is not used any more");
    assert_eq!(rig.ended(1, values(1, 1)), format!("finished 1 v, blob {}", key(9, 3)));
    let told = rig.handle(arrive(2));
    assert_eq!(told, format!("holds {}, spill 0", key(9, 2)));
    let told = rig.handle(arrive(3));
    assert_eq!(told, format!("holds {}, spill 1, blob {}", key(9, 3), key(9, 4)), "nothing else could make room");
}

#[test]
fn a_worker_is_pressed_while_that_ends_by_itself() {
    let mut rig = small(2);
    let tick = |used_bytes| Event::Tick { used_bytes };
    let held = 4 * (INLINE_BYTES + 1);
    for run in 0..4 {
        rig.assign(run, key(run, 0), 1, vec![]);
        rig.ended(run, large());
    }
    assert_eq!(rig.handle(tick(0)), format!("heartbeat {held} 0 pressed"), "two values are on their way to disk");
    rig.handle(Event::Spilled { file: 0 });
    assert_eq!(rig.handle(tick(0)), format!("heartbeat {held} 0 pressed"));
    rig.handle(Event::Spilled { file: 1 });
    assert_eq!(rig.handle(tick(0)), format!("heartbeat {held} 0"), "full, but nothing will change that");
    assert_eq!(rig.handle(tick(5000)), format!("heartbeat {held} 0"), "nothing runs");
    rig.assign(5, key(5, 0), 1, vec![]);
    assert_eq!(rig.handle(tick(900)), format!("heartbeat {held} 1"));
    assert_eq!(rig.handle(tick(1001)), format!("heartbeat {held} 1 pressed"));
    assert_eq!(rig.handle(tick(900)), format!("heartbeat {held} 1 pressed"), "not yet below the lower mark");
    assert_eq!(rig.handle(tick(800)), format!("heartbeat {held} 1"));
}

#[test]
fn inputs_leave_memory_when_another_one_turns_out_to_be_gone() {
    let mut rig = Rig::new(1, true);
    let budget = Budget { memory: 3, disk: 100, process: u64::MAX };
    rig.worker = Worker::new(1, "w".into(), budget, Kept::default());
    rig.worker.modules.ready(MODULE);
    let hash = Hash::of(&blob_bytes());
    for (file, index) in [0, 1].into_iter().enumerate() {
        let told = rig.handle(Event::Written { key: key(2, index), hash, bytes: blob_bytes() });
        assert_eq!(told, format!("holds {}, spill {file}", key(2, index)));
        rig.handle(Event::Spilled { file: file as u64 });
    }
    assert_eq!(rig.assign(1, key(5, 0), 1, vec![blob(key(2, 0)), blob(key(2, 1))]), "load 0", "both have no room");
    assert_eq!(rig.assign(2, key(5, 1), 1, vec![]), "started 2, run 2 on 0");
    assert_eq!(rig.handle(Event::Loaded { file: 0, bytes: Some(blob_bytes()) }), "");
    assert_eq!(rig.handle(Event::Damaged { file: 1 }), "unlink 1");
    assert_eq!(rig.ended(2, values(1, 1)), format!("finished 2 v, returned 1 [{}]", key(2, 1)));
    assert!(matches!(rig.worker.held(key(2, 0)), Some(Held::OnDisk { file: 0, .. })));
}
