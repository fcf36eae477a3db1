//! An entry: a call, a map or data, with everything the scheduler keeps of it. Must not know: other entries, workers' load.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    absence::Process,
    blame::Death,
    chunks::{Chunk, Chunks},
    edges::EdgeIndex,
    fleet::nanos,
    items::{Items, State},
    ranges::Ranges,
    shapes::ShapeId,
    sharing::Sharing,
    sparse::{Few, Sparse},
    values::Values,
};
use crate::{
    TaskError,
    ids::{EntryId, Hash, RunId, WorkerId},
    wire::{ENTRY_COST, SharedSpec},
};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// One call.
    Call(SharedSpec),
    /// Calls of one task.
    Map(SharedSpec),
    /// A value that a client gave.
    Data(Box<Datum>),
}

/// What a client says of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datum {
    /// Length in bytes.
    pub len: u64,
    /// Hash.
    pub hash: Hash,
}

/// A client's entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// What its items ask of a worker.
    pub(super) shape: ShapeId,
    /// Position in the order of arrival.
    pub(super) arrival: u64,
    /// When it came, in nanoseconds.
    born_nanos: u64,
    /// Whether items may still come.
    pub(super) open: bool,
    /// Whether it was closed because all of it, to come or not, was released.
    pub(super) is_abandoned: bool,
    /// Whether an operator cancelled all of it, to come or not.
    pub(super) is_cancelled: bool,
    pub(super) items: Items,
    pub(super) args: Chunks,
    pub(super) ready: Ranges,
    /// Runs by their first unanswered item.
    pub(super) runs: Few<RunId>,
    pub(super) values: Values,
    /// Who needs items of this entry.
    pub(super) edges: EdgeIndex,
    pub(super) rare: Rare,
}

/// What most entries have nothing of. It is but a pointer then, and what only reads it sees empty tables.
#[derive(Debug, Default)]
pub(super) struct Rare(Option<Box<Rarities>>);

#[derive(Debug)]
pub(super) struct Rarities {
    /// Items that were running when their worker died: they run alone.
    pub(super) suspects: Ranges,
    pub(super) stored: Sparse<Replicas>,
    /// When the rest of items ends.
    pub(super) resting: Sparse<Duration>,
    pub(super) errors: Sparse<Arc<TaskError>>,
    /// What is unusual about an item.
    pub(super) oddities: Sparse<Oddity>,
    /// The worker that it is being uploaded to, if it is data and that is a worker.
    pub(super) taker: Option<WorkerId>,
    /// The workers that it was to go to, each handing it on to the next. Where more copies are wanted, they are asked first: it may be
    /// there already.
    pub(super) route: Vec<WorkerId>,
    /// Who else wants them, if anything of it was ever detached or published.
    pub(super) sharing: Option<Box<Sharing>>,
}

impl Rarities {
    const NONE: Self = Self {
        suspects: Ranges::NONE,
        stored: Sparse::NONE,
        resting: Sparse::NONE,
        errors: Sparse::NONE,
        oddities: Sparse::NONE,
        taker: None,
        route: Vec::new(),
        sharing: None,
    };
}

impl Deref for Rare {
    type Target = Rarities;

    fn deref(&self) -> &Rarities {
        match &self.0 {
            Some(rarities) => rarities,
            None => const { &Rarities::NONE },
        }
    }
}

/// For what adds to it, or knows that something is there.
impl DerefMut for Rare {
    fn deref_mut(&mut self) -> &mut Rarities {
        self.0.get_or_insert_with(|| Box::new(Rarities::NONE))
    }
}

/// Where a stored value is.
#[derive(Debug)]
pub(super) struct Replicas {
    pub(super) len: u64,
    pub(super) hash: Hash,
    /// In the order in which they got it.
    pub(super) workers: Vec<WorkerId>,
    /// Whether the shell keeps it.
    pub(super) held: bool,
    /// Processes that are away and have it.
    pub(super) away: Vec<Process>,
    /// Workers that are getting a copy.
    pub(super) coming: Vec<WorkerId>,
    /// Workers that could not get one.
    pub(super) declined: Vec<WorkerId>,
    /// Of data: who had it and is gone, and how they went.
    pub(super) been: Vec<String>,
}

impl Replicas {
    /// On one worker, or in the shell's keeping.
    pub(super) fn on(worker: Option<WorkerId>, len: u64, hash: Hash) -> Self {
        let (away, coming, declined, been) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { len, hash, workers: worker.into_iter().collect(), held: worker.is_none(), away, coming, declined, been }
    }

    /// Awaited.
    pub(super) fn awaited(len: u64, hash: Hash, process: Process) -> Self {
        Self { held: false, away: vec![process], ..Self::on(None, len, hash) }
    }
}

/// An item's history, where it has one.
#[derive(Debug, Default)]
pub(super) struct Oddity {
    /// Tries that failed.
    pub(super) attempts: u32,
    /// Workers that died, or seem to have, while it ran alone on them.
    pub(super) deaths: Vec<Death>,
    /// Length and hash of its stored value, which was lost: whoever still has it may come back with it.
    pub(super) was: Option<(u64, Hash)>,
    /// It was sent ahead of an input that did not appear: it is not sent ahead again.
    pub(super) not_ahead: bool,
    /// It was taken back from where its inputs are: the next worker is the least loaded one.
    pub(super) not_local: bool,
    /// It rests until it is known whether workers that fell silent under it come back.
    pub(super) on_trial: bool,
    /// How often inputs, or its value, could not be had from where they are said to be.
    pub(super) misses: u32,
    /// Where its value was, each time that it was lost because nobody could read it there. Kept while it is stored again.
    pub(super) unread: Vec<String>,
}

impl Entry {
    pub(super) fn new(kind: Kind, shape: ShapeId, arrival: u64, born: Duration, open: bool) -> Self {
        Self {
            kind,
            shape,
            arrival,
            born_nanos: nanos(born),
            open,
            is_abandoned: false,
            is_cancelled: false,
            items: Items::default(),
            args: Chunks::default(),
            ready: Ranges::default(),
            runs: Few::default(),
            values: Values::default(),
            edges: EdgeIndex::default(),
            rare: Rare::default(),
        }
    }

    /// When it came.
    pub(super) fn born(&self) -> Duration {
        Duration::from_nanos(self.born_nanos)
    }

    pub(super) fn spec(&self) -> Option<&SharedSpec> {
        match &self.kind {
            Kind::Call(spec) | Kind::Map(spec) => Some(spec),
            Kind::Data(_) => None,
        }
    }

    pub(super) fn is_call(&self) -> bool {
        matches!(self.kind, Kind::Call(_))
    }

    /// The task's name, or what data is called in errors.
    pub(super) fn name(&self) -> &str {
        self.spec().map_or("scatter", |spec| &spec.name)
    }

    /// What it costs its client itself as long as any of its arguments is kept: a call comes with its arguments and is over with them.
    pub(super) fn own_cost(&self) -> u64 {
        if self.is_call() { ENTRY_COST } else { 0 }
    }

    /// What is kept of it at its client's cost.
    pub(super) fn held(&self) -> u64 {
        let kept = self.args.iter().filter(|chunk| chunk.holding > 0);
        let args: u64 = kept.map(|chunk| chunk.cost() + self.own_cost()).sum();
        args.saturating_add(match &self.kind {
            Kind::Map(_) if self.open => ENTRY_COST,
            Kind::Data(datum) if self.items.count(State::Inline) > 0 => datum.len.saturating_add(ENTRY_COST),
            Kind::Data(_) if self.items.count(State::Uploading) > 0 => ENTRY_COST,
            _ => 0,
        })
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        !self.open && self.items.are_released()
    }

    /// The chunk of arguments that has an item.
    pub(super) fn chunk_of(&self, item: u64) -> Option<Chunk<'_>> {
        self.args.get(item)
    }

    /// The run that has an item, if it is processing, with the run's first unanswered item.
    pub(super) fn run_of(&self, item: u64) -> Option<RunId> {
        if self.items.state(item) != Some(State::Processing) {
            return None;
        }
        self.runs.before(item).map(|(_, run)| run)
    }

    /// How an item that failed or was cancelled ended.
    pub(super) fn cause(&self, item: u64) -> Option<Cause> {
        match self.items.state(item)? {
            State::Failed => self.rare.errors.get(&item).cloned().map(Cause::Failed),
            State::Cancelled => Some(Cause::Cancelled),
            _ => None,
        }
    }
}

/// Why an item ends without a value.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    Failed(Arc<TaskError>),
    Cancelled,
}

/// Where an item of an entry belongs in the queue: higher priority first, then by arrival.
pub(super) type QueueKey = (std::cmp::Reverse<i32>, u64, EntryId);

pub(super) fn queue_key(id: EntryId, entry: &Entry) -> QueueKey {
    (std::cmp::Reverse(entry.spec().map_or(0, |spec| spec.options.priority)), entry.arrival, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be millions of them.
    #[test]
    fn entries_are_small() {
        assert!(size_of::<Entry>() <= 152, "{}", size_of::<Entry>());
    }
}
