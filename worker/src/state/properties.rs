//! The worker's state machine under random events: it stays consistent, answers every run once, and comes to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    End { at: usize, how: u8 },
    Cancel { run: u64, first: u32, count: u32 },
    Recall { run: u64 },
    Free { seq: u64, first: u64, count: u64 },
    Written { seq: u64 },
    Tick,
    Drain,
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
        25 => (any::<usize>(), 0..5_u8).prop_map(|(at, how)| Step::End { at, how }),
        6 => (0..60_u64, 0..5_u32, 1..6_u32).prop_map(|(run, first, count)| Step::Cancel { run, first, count }),
        4 => (0..60_u64).prop_map(|run| Step::Recall { run }),
        4 => (0..8_u64, 0..8_u64, 0..8_u64).prop_map(|(seq, first, count)| Step::Free { seq, first, count }),
        2 => (5..8_u64).prop_map(|seq| Step::Written { seq }),
        1 => Just(Step::Tick),
        1 => Just(Step::Drain),
    ]
}

/// The outside: what it has asked for, and what it is owed.
struct World {
    worker: Worker,
    runs: u64,
    /// Runs without a last answer: their number of items, and how many of these are told.
    open: BTreeMap<RunId, (u32, u32)>,
    started: BTreeSet<RunId>,
    /// What executes, by slot.
    slots: BTreeMap<u32, (RunId, u32)>,
    modules: Vec<Hash>,
    blobs: Vec<(Key, Hash)>,
    left: bool,
}

impl World {
    fn new(slots: u32) -> Self {
        Self {
            worker: Worker::new(slots, "w".into()),
            runs: 0,
            open: BTreeMap::new(),
            started: BTreeSet::new(),
            slots: BTreeMap::new(),
            modules: Vec::new(),
            blobs: Vec::new(),
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
        assert!(!self.left || matches!(action, Action::Send(_)), "after leaving: {action:?}");
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
            Action::Send(_) | Action::ForgetModule(_) => {}
            Action::FetchModule(hash) => {
                assert!(!self.modules.contains(&hash), "fetched once");
                self.modules.push(hash);
            }
            Action::FetchBlob { key, hash, .. } => {
                assert!(!self.blobs.contains(&(key, hash)), "fetched once");
                self.blobs.push((key, hash));
            }
            Action::Execute { slot, work } => {
                assert!(self.started.contains(&work.run));
                assert!(work.inputs.fill_holes(&work.args).is_some(), "every input is there");
                assert!(self.slots.insert(slot, (work.run, work.args.count())).is_none(), "the slot is free");
            }
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
            Step::End { at, how } => self.end(at, how),
            Step::Cancel { run, first, count } => self.handle(Event::Message(ToWorker::Cancel { run: RunId(run), first, count })),
            Step::Recall { run } => self.handle(Event::Message(ToWorker::Recall { run: RunId(run) })),
            Step::Free { seq, first, count } => {
                let spans = vec![Span { entry: key(seq, 0).entry, first, count }];
                self.handle(Event::Message(ToWorker::Free { spans }));
            }
            Step::Written { seq } => {
                let bytes = blob_bytes();
                self.handle(Event::Written { key: key(seq, 0), hash: Hash::of(&bytes), bytes });
            }
            Step::Tick => self.handle(Event::Tick { used_bytes: 0 }),
            Step::Drain => self.handle(Event::Drain),
        }
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

    fn end(&mut self, at: usize, how: u8) {
        let Some(slot) = self.slots.keys().nth(at % self.slots.len().max(1)).copied() else { return };
        let Some((run, count)) = self.slots.remove(&slot) else { return };
        let ended = match how {
            0 => Ended::dropped(count),
            1 => Ended::failed("t", key(0, 0).entry, 0, count, "w", &quicsand::TaskErrorKind::Panicked, "oh"),
            2 => Ended::new(values(count, INLINE_BYTES + 1), vec![], vec![], Duration::ZERO),
            _ => Ended::new(values(count, 1), vec![], vec![], Duration::ZERO),
        };
        self.handle(Event::RunEnded { run, ended });
    }

    /// Answers all that is asked until nothing is.
    fn settle(&mut self) {
        while !(self.modules.is_empty() && self.blobs.is_empty() && self.slots.is_empty()) {
            self.module(0, 2);
            self.blob(0, true);
            self.end(0, 4);
        }
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
        world.handle(Event::Drain);
        prop_assert!(world.left);
    }
}
