//! What the random plays compare with: what every item is to become, told from the graph alone; and workers that compute it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::play::Told;
use crate::{
    TaskError, TaskErrorKind,
    codec::{Hole, Run, RunBuilder, Source, Span},
    ids::{Hash, Identity, Key, RunId},
    scheduler::register::spans_of,
    wire::{Assignment, FromWorker, InputPlace, ItemError, Outcome, Stored, ToWorker, WorkerHello},
};

/// A client's share that a few calls fill.
pub(super) const SMALL_SHARE: u64 = 2000;

/// What an item is, as its arguments' bytes say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nature {
    /// Its result stays on the worker.
    pub(super) stored: bool,
    /// It always fails.
    pub(super) fails: bool,
    /// It fails the first time that it runs on each of the first workers.
    pub(super) hiccups: bool,
}

impl Nature {
    pub(super) fn of(inline: &[u8]) -> Self {
        let bits = inline.first().copied().unwrap_or(0);
        Self { stored: bits % 4 == 1, fails: bits > 245, hiccups: bits % 16 == 7 }
    }
}

/// The value of an item: a function of its bytes and its inputs'.
pub(super) fn compute(inline: &[u8], inputs: impl Iterator<Item = Bytes>) -> Bytes {
    let mut text = inline.to_vec();
    inputs.for_each(|input| text.extend_from_slice(&input));
    Bytes::copy_from_slice(&Hash::of(&text).0[..6])
}

/// An item as it was sent.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) inline: Bytes,
    pub(super) inputs: Vec<Span>,
}

/// What may become of an item.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    pub(super) value: Option<Bytes>,
    pub(super) causes: BTreeSet<Key>,
    pub(super) may_be_cancelled: bool,
    /// It needs data that could be lost, or an item that never came.
    pub(super) may_lack: bool,
}

impl Fate {
    /// Whether a client may be told this of it.
    pub(super) fn allows(&self, told: &Told) -> bool {
        match told {
            Told::Done(value) => self.value.as_ref() == Some(value),
            Told::Stored(hash) => self.value.as_ref().is_some_and(|value| Hash::of(value) == *hash),
            Told::Failed(_, TaskErrorKind::DataLost) => self.may_lack,
            Told::Failed(key, _) => self.causes.contains(key),
            Told::Cancelled => self.may_be_cancelled,
        }
    }
}

/// The graph, as it was sent.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) items: BTreeMap<Key, Item>,
    pub(super) data: BTreeMap<Key, Bytes>,
    pub(super) cancelled: BTreeSet<Key>,
    /// Data can be lost only when workers die.
    pub(super) deaths: bool,
    /// So can results, whose arguments may be let go.
    pub(super) sheds: bool,
}

impl Graph {
    /// What may become of every item.
    pub(super) fn fates(&self) -> BTreeMap<Key, Fate> {
        let mut fates: BTreeMap<Key, Fate> = BTreeMap::new();
        for (&key, bytes) in &self.data {
            let fate = Fate { value: Some(bytes.clone()), may_lack: self.deaths, ..Fate::default() };
            fates.insert(key, Fate { may_be_cancelled: self.cancelled.contains(&key), ..fate });
        }
        // Items name earlier entries only.
        for (&key, item) in &self.items {
            let mut fate = Fate { may_be_cancelled: self.cancelled.contains(&key), ..Fate::default() };
            let mut inputs = Vec::new();
            let mut complete = true;
            for input in item.inputs.iter().flat_map(|span| (span.first..span.first + span.count).map(|i| span.entry.key(i))) {
                let Some(input) = fates.get(&input) else {
                    (complete, fate.may_lack) = (false, true);
                    continue;
                };
                fate.causes.extend(&input.causes);
                fate.may_be_cancelled |= input.may_be_cancelled;
                fate.may_lack |= input.may_lack;
                complete &= input.value.is_some();
                inputs.extend(input.value.clone());
            }
            if Nature::of(&item.inline).fails && complete {
                fate.causes.insert(key);
            } else if complete {
                fate.value = Some(compute(&item.inline, inputs.into_iter()));
                fate.may_lack |= self.deaths && self.sheds;
            }
            fates.insert(key, fate);
        }
        fates
    }
}

/// A run on a worker.
#[derive(Debug)]
struct Task {
    assignment: Assignment,
    done: u32,
    /// Items that are run here: all, or those that are left after a division.
    count: u32,
    dropped: BTreeSet<u32>,
    inputs: Option<BTreeMap<Key, Bytes>>,
}

/// A worker that computes.
#[derive(Debug)]
pub(super) struct FakeWorker {
    pub(super) who: Identity,
    pub(super) hello: WorkerHello,
    /// Told to it, not yet read.
    pub(super) incoming: VecDeque<ToWorker>,
    tasks: Vec<Task>,
    /// Values that it stored and that the scheduler knows of.
    pub(super) stored: BTreeMap<Key, Bytes>,
    /// Small results that it happens to remember.
    recent: BTreeMap<Key, Bytes>,
    pub(super) draining: bool,
    /// It was told to go.
    pub(super) may_leave: bool,
    /// Values that it is to get a copy of.
    copies: Vec<(Key, InputPlace)>,
    /// Items that had their hiccup.
    hiccuped: BTreeSet<Key>,
}

impl FakeWorker {
    pub(super) fn new(who: Identity, hello: WorkerHello) -> Self {
        Self {
            who,
            hello,
            incoming: VecDeque::new(),
            tasks: Vec::new(),
            stored: BTreeMap::new(),
            recent: BTreeMap::new(),
            draining: false,
            may_leave: false,
            copies: Vec::new(),
            hiccuped: BTreeSet::new(),
        }
    }

    /// It joins again, with what it stored and nothing else; gives what it says first.
    pub(super) fn return_again(&mut self) -> Vec<FromWorker> {
        self.incoming.clear();
        self.tasks.clear();
        self.recent.clear();
        self.copies.clear();
        self.hello.keeps = self.stored.len() as u64;
        let holds =
            self.stored.iter().map(|(&key, bytes)| FromWorker::Holds { key, len: bytes.len() as u64, hash: Hash::of(bytes) });
        holds.chain([FromWorker::Registered]).collect()
    }

    /// Whether it has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.copies.is_empty() && self.incoming.is_empty()
    }

    /// Reads the oldest message.
    pub(super) fn read(&mut self) -> Option<FromWorker> {
        match self.incoming.pop_front()? {
            ToWorker::Assign(assignment) if self.draining => {
                return Some(FromWorker::Returned { run: assignment.run, missing: Vec::new() });
            }
            ToWorker::Assign(assignment) => {
                let count = assignment.args.count();
                self.tasks.push(Task { assignment, done: 0, count, dropped: BTreeSet::new(), inputs: None });
            }
            ToWorker::Cancel { run, first, count } => {
                if let Some(task) = self.task(run) {
                    task.dropped.extend((first..first + count).filter(|item| *item >= task.done));
                }
            }
            ToWorker::Recall { run } => {
                let at = self.tasks.iter().position(|task| task.assignment.run == run)?;
                if self.tasks[at].inputs.is_none() {
                    self.tasks.remove(at);
                    return Some(FromWorker::Returned { run, missing: Vec::new() });
                }
                let Task { done, count, .. } = &mut self.tasks[at];
                let left = *count - *done - 1;
                if left > 0 {
                    *count = *done + 1 + left / 2;
                    return Some(FromWorker::Divided { run, count: *count });
                }
            }
            ToWorker::Free { spans } => {
                for key in spans.iter().flat_map(|span| (span.first..span.first + span.count).map(|i| span.entry.key(i))) {
                    self.stored.remove(&key);
                    self.recent.remove(&key);
                }
            }
            ToWorker::Drain => self.draining = true,
            ToWorker::Leave => self.may_leave = true,
            ToWorker::Replicate { key, len, hash, places } => self.copies.push((key, InputPlace::Blob { len, hash, places })),
            ToWorker::Refused { reason } => panic!("a model worker was refused: {reason}"),
        }
        None
    }

    /// Begins to drain: what has not started is returned.
    pub(super) fn drain(&mut self) -> Vec<FromWorker> {
        self.draining = true;
        let (kept, back) = std::mem::take(&mut self.tasks).into_iter().partition(|task| task.inputs.is_some());
        self.tasks = kept;
        let back = Vec::into_iter(back).map(|task: Task| FromWorker::Returned { run: task.assignment.run, missing: Vec::new() });
        std::iter::once(FromWorker::Draining).chain(back).collect()
    }

    /// Starts or goes on with a run, by at most `count` items. `fetch` gets a stored value from elsewhere.
    pub(super) fn work(&mut self, pick: usize, count: u32, fetch: impl Fn(&InputPlace, Key) -> Option<Bytes>) -> Vec<FromWorker> {
        let mut said = Vec::new();
        for (key, place) in std::mem::take(&mut self.copies) {
            let InputPlace::Blob { len, hash, .. } = place else { continue };
            let found = self.stored.get(&key).cloned().or_else(|| fetch(&place, key)).filter(|value| Hash::of(value) == hash);
            said.push(match found {
                Some(value) => {
                    self.stored.insert(key, value);
                    FromWorker::Holds { key, len, hash }
                }
                None => FromWorker::Unreplicated { key },
            });
        }
        if self.tasks.is_empty() {
            return said;
        }
        let at = pick % self.tasks.len();
        if self.tasks[at].inputs.is_none() {
            if self.tasks.iter().filter(|task| task.inputs.is_some()).count() >= self.hello.slots as usize {
                return said;
            }
            match self.gather(at, fetch, &mut said) {
                Err(missing) if missing.is_empty() => return said,
                Err(missing) => {
                    let task = self.tasks.remove(at);
                    said.push(FromWorker::Returned { run: task.assignment.run, missing });
                    return said;
                }
                Ok(inputs) => self.tasks[at].inputs = Some(inputs),
            }
            said.push(FromWorker::Started { run: self.tasks[at].assignment.run });
        }
        if count == 0 {
            return said;
        }
        let (run, outcome, over) = self.finish(at, count);
        said.push(FromWorker::Finished { run, outcome, elapsed: std::time::Duration::from_micros(300 * u64::from(count)) });
        if over {
            self.tasks.remove(at);
        }
        said
    }

    fn task(&mut self, run: RunId) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.assignment.run == run)
    }

    /// The values of a run's inputs, or what is missing; nothing if it is still to come.
    fn gather(
        &mut self,
        at: usize,
        fetch: impl Fn(&InputPlace, Key) -> Option<Bytes>,
        said: &mut Vec<FromWorker>,
    ) -> Result<BTreeMap<Key, Bytes>, Vec<Key>> {
        let mut values = BTreeMap::new();
        let mut missing = Vec::new();
        let mut waits = false;
        for input in self.tasks[at].assignment.inputs.clone() {
            match &input.place {
                InputPlace::Inline(run) => {
                    assert_eq!(input.count, u64::from(run.count()));
                    let keys = (0..).map(|i| input.key.entry.key(input.key.index + i));
                    values.extend(keys.zip(run.iter().map(Bytes::copy_from_slice)));
                }
                InputPlace::Ahead => match self.recent.get(&input.key).or_else(|| self.stored.get(&input.key)) {
                    Some(value) => {
                        values.insert(input.key, value.clone());
                    }
                    None if self.tasks.iter().any(|task| task.has(input.key)) => waits = true,
                    None => missing.push(input.key),
                },
                place @ InputPlace::Blob { len, hash, .. } => {
                    let here = self.stored.get(&input.key).cloned();
                    match here.clone().or_else(|| fetch(place, input.key)) {
                        Some(value) => {
                            assert_eq!((*len, *hash), (value.len() as u64, Hash::of(&value)));
                            if here.is_none() {
                                said.push(FromWorker::Holds { key: input.key, len: *len, hash: *hash });
                                self.stored.insert(input.key, value.clone());
                            }
                            values.insert(input.key, value);
                        }
                        None => missing.push(input.key),
                    }
                }
            }
        }
        if waits || !missing.is_empty() { Err(missing) } else { Ok(values) }
    }

    fn finish(&mut self, at: usize, count: u32) -> (RunId, Outcome, bool) {
        let task = &mut self.tasks[at];
        let assignment = &task.assignment;
        let end = (task.done + count).min(task.count);
        let mut values = RunBuilder::default();
        let mut outcome =
            Outcome { first: task.done, values: Run::default(), stored: Vec::new(), errors: Vec::new(), dropped: Vec::new() };
        for item in task.done..end {
            let key = assignment.entry.key(assignment.first + u64::from(item));
            let inline = assignment.args.run.get(item).expect("within");
            let nature = Nature::of(&inline);
            let mut value = Bytes::new();
            if task.dropped.contains(&item) {
                outcome.dropped.push(item);
            } else if nature.fails || (nature.hiccups && self.who.0[0] <= 4 && self.hiccuped.insert(key)) {
                let error = TaskError::new(TaskErrorKind::Returned, "", Key { index: 99, ..key }, "no");
                outcome.errors.push(ItemError { item, error });
            } else {
                let inputs = inputs_of(&assignment.args.holes, item);
                let given = task.inputs.as_ref().expect("started");
                let inputs = inputs.iter().flat_map(|span| (span.first..span.first + span.count).map(|i| span.entry.key(i)));
                let result = compute(&inline, inputs.map(|key| given[&key].clone()));
                if nature.stored {
                    outcome.stored.push(Stored { item, len: result.len() as u64, hash: Hash::of(&result) });
                    self.stored.insert(key, result);
                } else {
                    self.recent.insert(key, result.clone());
                    value = result;
                }
            }
            values.push(&value).expect("short");
        }
        outcome.values = values.take();
        task.done = end;
        (task.assignment.run, outcome, end == task.count)
    }
}

impl Task {
    /// Whether it computes a key.
    fn has(&self, key: Key) -> bool {
        self.assignment.entry == key.entry && key.index.wrapping_sub(self.assignment.first) < u64::from(self.count)
    }
}

/// What an item reads, in the order of its holes.
pub(super) fn inputs_of(holes: &[Hole], item: u32) -> Vec<Span> {
    holes
        .iter()
        .filter(|hole| (hole.first..hole.first + hole.count).contains(&item))
        .flat_map(|hole| {
            let at = u64::from(item - hole.first);
            spans_of(&hole.source, at..at + 1)
        })
        .collect()
}

/// A source of the kind and extent that the numbers say.
pub(super) fn source_of(kind: u32, key: Key, count: u64, of_items: u64) -> Source {
    match kind % 3 {
        0 => Source::Same(key),
        1 => Source::Each { entry: key.entry, first: key.index.min(count.saturating_sub(of_items)) },
        _ => Source::List(vec![
            Span { entry: key.entry, first: key.index, count: count.saturating_sub(key.index).clamp(1, 5) },
            Span { entry: key.entry, first: 0, count: 1 },
        ]),
    }
}

#[test]
fn natures_are_mixed() {
    let natures: Vec<_> = (0..=255).map(|byte| Nature::of(&[byte])).collect();
    assert!(natures.iter().any(|nature| nature.fails) && natures.iter().any(|nature| nature.stored && !nature.fails));
}
