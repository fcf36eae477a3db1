//! The worker's state machine under random events: it stays consistent, answers every run once, and comes to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use proptest::prelude::*;
use quicsand::{
    codec::Span,
    ids::{Hash, Key, RunId},
    wire::{FromWorker, INLINE_BYTES, ToWorker},
};

use super::{
    tests::{ahead, assignment, blob, blob_bytes, key, values},
    *,
};

/// What the outside does next; indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Assign { seq: u64, first: u64, count: u32, module: u8, aheads: Vec<(u64, u64)>, blobs: Vec<u64> },
    Module { at: usize, how: u8 },
    Blob { at: usize, found: bool },
    Write { at: usize, works: bool },
    Read { at: usize, works: bool },
    Served { seq: u64, index: u64, damaged: bool },
    End { at: usize, how: u8 },
    Cancel { run: u64, first: u32, count: u32 },
    Recall { run: u64 },
    Divide { at: usize, count: u32 },
    Part { at: usize, count: u32, how: u8 },
    Free { seq: u64, first: u64, count: u64 },
    Written { seq: u64 },
    Replicate { seq: u64 },
    Rejoin,
    Tick,
    Drain,
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    let assign = (
        0..4_u64,
        0..6_u64,
        1..5_u32,
        0..3_u8,
        prop::collection::btree_set((0..4_u64, 0..8_u64), 0..3),
        prop::collection::btree_set(0..3_u64, 0..2),
    )
        .prop_map(|(seq, first, count, module, aheads, blobs)| Step::Assign {
            seq,
            first,
            count,
            module,
            aheads: aheads.into_iter().collect(),
            blobs: blobs.into_iter().collect(),
        });
    prop_oneof![
        30 => assign,
        8 => (any::<usize>(), 0..8_u8).prop_map(|(at, how)| Step::Module { at, how }),
        10 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, found)| Step::Blob { at, found }),
        10 => (any::<usize>(), prop::bool::weighted(0.99)).prop_map(|(at, works)| Step::Write { at, works }),
        10 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, works)| Step::Read { at, works }),
        4 => (0..8_u64, 0..8_u64, prop::bool::weighted(0.2)).prop_map(|(seq, index, damaged)| Step::Served { seq, index, damaged }),
        25 => (any::<usize>(), 0..5_u8).prop_map(|(at, how)| Step::End { at, how }),
        6 => (0..60_u64, 0..5_u32, 1..6_u32).prop_map(|(run, first, count)| Step::Cancel { run, first, count }),
        4 => (0..60_u64).prop_map(|run| Step::Recall { run }),
        4 => (any::<usize>(), 0..6_u32).prop_map(|(at, count)| Step::Divide { at, count }),
        6 => (any::<usize>(), 0..4_u32, 0..5_u8).prop_map(|(at, count, how)| Step::Part { at, count, how }),
        4 => (0..8_u64, 0..8_u64, 0..8_u64).prop_map(|(seq, first, count)| Step::Free { seq, first, count }),
        2 => (5..8_u64).prop_map(|seq| Step::Written { seq }),
        2 => (5..8_u64).prop_map(|seq| Step::Replicate { seq }),
        1 => Just(Step::Rejoin),
        1 => Just(Step::Tick),
        1 => Just(Step::Leave),
        1 => Just(Step::Drain),
    ]
}

/// Room for three large values in memory, and five on disk.
const BUDGET: Budget = Budget { memory: 3 * (INLINE_BYTES as u64 + 1), disk: 5 * (INLINE_BYTES as u64 + 1), process: 100 };

/// The outside: what it has asked for, and what it is owed.
struct World {
    worker: Worker,
    runs: u64,
    /// Runs without a last answer: their number of items, and how many of these are told.
    open: BTreeMap<RunId, (u32, u32)>,
    started: BTreeSet<RunId>,
    /// What executes, by slot: which of its items are not told.
    slots: BTreeMap<u32, (RunId, Range<u32>)>,
    modules: Vec<Hash>,
    blobs: Vec<(Key, Hash)>,
    /// Files: what was written to them, if that is done.
    disk: BTreeMap<u64, Option<Bytes>>,
    writes: Vec<(u64, Bytes)>,
    reads: Vec<u64>,
    left: bool,
}

impl World {
    fn new(slots: u32) -> Self {
        Self {
            worker: Worker::new(slots, "w".into(), BUDGET, Kept::default()),
            runs: 0,
            open: BTreeMap::new(),
            started: BTreeSet::new(),
            slots: BTreeMap::new(),
            modules: Vec::new(),
            blobs: Vec::new(),
            disk: BTreeMap::new(),
            writes: Vec::new(),
            reads: Vec::new(),
            left: false,
        }
    }

    fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.worker.handle(event, &mut actions);
        self.worker.check();
        actions.into_iter().for_each(|action| self.act(action));
    }

    fn act(&mut self, action: Action) {
        let is_disk = matches!(action, Action::Spill { .. } | Action::Load { .. } | Action::Unlink { .. });
        assert!(!self.left || is_disk || matches!(action, Action::Send(_)), "after leaving: {action:?}");
        match action {
            Action::Send(FromWorker::Started { run }) => {
                assert!(self.open.contains_key(&run) && self.started.insert(run), "{run} starts once");
            }
            Action::Send(FromWorker::Finished { run, outcome, .. }) => {
                let (count, told) = self.open.get_mut(&run).expect("an open run");
                assert_eq!(outcome.first, *told, "in order, without gaps");
                *told += outcome.values.count();
                assert!(*told <= *count);
                if told == count {
                    self.open.remove(&run);
                }
            }
            Action::Send(FromWorker::Returned { run, .. }) => {
                assert!(self.open.remove(&run).is_some() && !self.started.contains(&run), "{run} is returned once, unstarted");
            }
            Action::Send(FromWorker::Divided { run, count }) => {
                let (before, told) = self.open.get_mut(&run).expect("an open run");
                assert!(self.started.contains(&run) && *told < count && count < *before, "{run} becomes shorter");
                *before = count;
            }
            Action::Send(_) | Action::ForgetModule(_) => {}
            Action::FetchModule(hash) => {
                assert!(!self.modules.contains(&hash), "fetched once");
                self.modules.push(hash);
            }
            Action::FetchBlob { key, hash, .. } => {
                assert!(!self.blobs.contains(&(key, hash)), "fetched once");
                self.blobs.push((key, hash));
            }
            Action::Spill { file, bytes } => {
                assert!(self.disk.insert(file, None).is_none(), "a file is written once");
                self.writes.push((file, bytes));
            }
            Action::Load { file, len, .. } => {
                let bytes = self.disk.get(&file).and_then(Option::as_ref).expect("a file that is written");
                assert!(bytes.len() as u64 == len && !self.reads.contains(&file), "read once at a time");
                self.reads.push(file);
            }
            Action::Unlink { file } => {
                assert!(self.disk.remove(&file).is_some_and(|bytes| bytes.is_some()), "not before it is written");
                assert!(!self.reads.contains(&file), "not while it is read");
            }
            Action::Execute { slot, work } => {
                assert!(self.started.contains(&work.run));
                assert!(work.inputs.fill_holes(&work.args).is_some(), "every input is there");
                assert!(self.slots.insert(slot, (work.run, 0..work.args.count())).is_none(), "the slot is free");
            }
            Action::Divide { slot } => assert!(self.slots.contains_key(&slot)),
            Action::Stop { slot, .. } => assert!(self.slots.contains_key(&slot)),
            Action::Leave(reason) => {
                assert_eq!(reason, None);
                assert!(self.open.is_empty() && self.slots.is_empty(), "nothing is left behind");
                self.left = true;
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Assign { seq, first, count, module, aheads, blobs } => {
                let own = |(s, index): (u64, u64)| (s, index) != (seq, first);
                let inputs = aheads.into_iter().filter(|&at| own(at)).map(|(seq, index)| ahead(key(seq, index)));
                let inputs = inputs.chain(blobs.into_iter().map(|index| blob(key(5 + index, 0)))).collect();
                let run = self.runs;
                self.runs += 1;
                self.open.insert(RunId(run), (count, 0));
                let mut assignment = assignment(run, key(seq, first), count, inputs);
                assignment.module = Hash([module; 32]);
                self.handle(Event::Message(ToWorker::Assign(assignment)));
            }
            Step::Module { at, how } => self.module(at, how),
            Step::Blob { at, found } => self.blob(at, found),
            Step::Write { at, works } => self.write(at, works),
            Step::Read { at, works } => self.read(at, works),
            Step::Served { seq, index, damaged } => self.serve(key(seq, index), damaged),
            Step::End { at, how } => self.end(at, how),
            Step::Cancel { run, first, count } => self.handle(Event::Message(ToWorker::Cancel { run: RunId(run), first, count })),
            Step::Recall { run } => self.handle(Event::Message(ToWorker::Recall { run: RunId(run) })),
            Step::Divide { at, count } => self.divide(at, count),
            Step::Part { at, count, how } => self.part(at, count, how),
            Step::Free { seq, first, count } => {
                let spans = vec![Span { entry: key(seq, 0).entry, first, count }];
                self.handle(Event::Message(ToWorker::Free { spans }));
            }
            Step::Written { seq } => {
                let bytes = blob_bytes();
                self.handle(Event::Written { key: key(seq, 0), hash: Hash::of(&bytes), bytes });
            }
            Step::Replicate { seq } => {
                let bytes = blob_bytes();
                let (len, hash) = (bytes.len() as u64, Hash::of(&bytes));
                self.handle(Event::Message(ToWorker::Replicate { key: key(seq, 0), len, hash, places: vec![] }));
            }
            Step::Rejoin => self.rejoin(),
            Step::Leave => self.handle(Event::Message(ToWorker::Leave)),
            Step::Tick => self.handle(Event::Tick { used_bytes: 0 }),
            Step::Drain => self.handle(Event::Drain),
        }
    }

    /// The connection is gone, and a new registration begins with what was held.
    fn rejoin(&mut self) {
        if self.left {
            return;
        }
        while !(self.writes.is_empty() && self.reads.is_empty()) {
            self.write(0, true);
            self.read(0, true);
        }
        assert!(self.worker.is_disk_still());
        let held = self.worker.held_bytes();
        let kept = self.worker.take_kept();
        let (slots, named) = (self.worker.slots, kept.count());
        let (runs, disk) = (self.runs, std::mem::take(&mut self.disk));
        *self = Self { worker: Worker::new(slots, "w".into(), BUDGET, kept), runs, disk, ..Self::new(slots) };
        assert_eq!(self.worker.held_bytes(), held);
        let mut actions = Vec::new();
        self.worker.handle(Event::Joined, &mut actions);
        self.worker.check();
        let holds = actions.iter().filter(|action| matches!(action, Action::Send(FromWorker::Holds { .. }))).count() as u64;
        // Inputs of runs that are over may leave memory then.
        let last_said = actions.iter().rev().find(|action| matches!(action, Action::Send(_)));
        let ends = matches!(last_said, Some(Action::Send(FromWorker::Registered)));
        assert_eq!((holds, ends), (named, named > 0));
    }

    /// A slot ends its run early, or says nonsense.
    fn divide(&mut self, at: usize, count: u32) {
        let at = at % self.slots.len().max(1);
        let Some((run, items)) = self.slots.values_mut().nth(at) else { return };
        let run = *run;
        if (items.start + 1..items.end).contains(&count) {
            items.end = count;
        }
        self.handle(Event::Divided { run, count });
    }

    fn module(&mut self, at: usize, how: u8) {
        if !self.modules.is_empty() {
            let hash = self.modules.swap_remove(at % self.modules.len());
            let reason = "no".to_owned();
            self.handle(match how {
                0 => Event::ModuleRefused { hash, reason },
                1 => Event::ModuleMissing { hash, reason },
                _ => Event::ModuleReady(hash),
            });
        }
    }

    fn blob(&mut self, at: usize, found: bool) {
        if !self.blobs.is_empty() {
            let (key, hash) = self.blobs.swap_remove(at % self.blobs.len());
            self.handle(match found {
                true => Event::BlobArrived { key, hash, bytes: blob_bytes() },
                false => Event::BlobMissing { key, hash },
            });
        }
    }

    fn write(&mut self, at: usize, works: bool) {
        if !self.writes.is_empty() {
            let (file, bytes) = self.writes.swap_remove(at % self.writes.len());
            if works {
                self.disk.insert(file, Some(bytes));
                self.handle(Event::Spilled { file });
            } else {
                self.disk.remove(&file);
                self.handle(Event::NotSpilled { file });
            }
        }
    }

    fn read(&mut self, at: usize, works: bool) {
        if !self.reads.is_empty() {
            let file = self.reads.swap_remove(at % self.reads.len());
            let bytes = self.disk[&file].clone().filter(|_| works);
            self.handle(Event::Loaded { file, bytes });
        }
    }

    /// A peer asks for a value.
    fn serve(&mut self, key: Key, damaged: bool) {
        if let Some(Held::OnDisk { file, len, .. }) = self.worker.held(key) {
            let bytes = self.disk[&file].as_ref().expect("what is not in memory is written");
            assert_eq!(bytes.len() as u64, len);
            if damaged {
                self.handle(Event::Damaged { file });
            }
        }
    }

    fn end(&mut self, at: usize, how: u8) {
        let Some(slot) = self.slots.keys().nth(at % self.slots.len().max(1)).copied() else { return };
        let Some((run, items)) = self.slots.remove(&slot) else { return };
        self.handle(Event::RunEnded { run, ended: ended(items, how) });
    }

    /// A slot tells some of its items, or nonsense.
    fn part(&mut self, at: usize, count: u32, how: u8) {
        let at = at % self.slots.len().max(1);
        let Some((run, items)) = self.slots.values_mut().nth(at) else { return };
        let (run, part) = (*run, items.start..items.start + count);
        if part.end < items.end {
            items.start = part.end;
        }
        self.handle(Event::Part { run, ended: ended(part, how) });
    }

    /// Answers all that is asked until nothing is.
    fn settle(&mut self) {
        let is_quiet = |world: &Self| {
            let disk = world.writes.is_empty() && world.reads.is_empty();
            disk && world.modules.is_empty() && world.blobs.is_empty() && world.slots.is_empty()
        };
        while !is_quiet(self) {
            self.write(0, true);
            self.read(0, true);
            self.module(0, 2);
            self.blob(0, true);
            self.end(0, 4);
        }
    }
}

/// How these items of a run ended.
fn ended(items: Range<u32>, how: u8) -> Ended {
    let (first, count) = (items.start, items.end - items.start);
    match how {
        0 => Ended::from(first, values(count, 0), vec![], items.collect(), Duration::ZERO),
        1 => Ended::failed("t", key(0, 0).entry, 0, items, "w", &quicsand::TaskErrorKind::Panicked, "oh"),
        2 => Ended::from(first, values(count, INLINE_BYTES + 1), vec![], vec![], Duration::ZERO),
        _ => Ended::from(first, values(count, 1), vec![], vec![], Duration::ZERO),
    }
}

proptest! {
    #[test]
    fn every_run_is_answered_once(slots in 1..4_u32, steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(slots);
        for step in steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(world.open.is_empty(), "unanswered: {:?}", world.open);
        for seq in 0..8 {
            let spans = vec![Span { entry: key(seq, 0).entry, first: 0, count: u64::MAX }];
            world.handle(Event::Message(ToWorker::Free { spans }));
        }
        world.settle();
        prop_assert_eq!((world.worker.held_bytes(), world.disk.len()), (0, 0), "what is freed leaves no file");
        world.handle(Event::Drain);
        prop_assert!(world.open.is_empty());
        world.handle(Event::Message(ToWorker::Leave));
        prop_assert!(world.left);
    }
}
