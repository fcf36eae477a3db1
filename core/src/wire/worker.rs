//! Between scheduler and worker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SharedSpec, blob::Place};
use crate::{
    TaskError,
    codec::{Args, Run, Span},
    ids::{EntryId, Hash, Key, RunId},
};

/// Consecutive items of one entry, to be run in order on one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Names this try.
    pub run: RunId,
    /// What to call.
    pub spec: SharedSpec,
    /// The module that has the task.
    pub module: Hash,
    /// The entry.
    pub entry: EntryId,
    /// Index of the first item.
    pub first: u64,
    /// The items' arguments; their holes name keys that `inputs` covers.
    pub args: Args,
    /// Where the holes' values are.
    pub inputs: Vec<Input>,
}

/// Where the values of consecutive keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The first key.
    pub key: Key,
    /// Number of consecutive keys; 1 unless they are inline.
    pub count: u64,
    /// Where.
    pub place: InputPlace,
}

/// Where an input is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputPlace {
    /// Here.
    Inline(Run),
    /// A blob, to be fetched unless the worker has it already: from these workers, or from the scheduler.
    Blob {
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
        /// Workers that have it, best first.
        places: Vec<Place>,
    },
    /// The result of a run that this worker was given earlier: this call was sent ahead of its input.
    Ahead,
}

/// A message to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Run this.
    Assign(Assignment),
    /// These items of a run are not wanted any more: drop them, stop one that is running. The run itself is answered by
    /// [`FromWorker::Finished`] as ever.
    Cancel {
        /// The run.
        run: RunId,
        /// First item, counted from the run's first.
        first: u32,
        /// Number of items.
        count: u32,
    },
    /// Others should have it. Give the run back by [`FromWorker::Returned`], or if it has started, half of its items that have not, by
    /// [`FromWorker::Divided`]. A run that is at its last item has no answer.
    Recall {
        /// The run.
        run: RunId,
    },
    /// Forget these values.
    Free {
        /// Whose.
        spans: Vec<Span>,
    },
    /// Get a copy of this value, and say so by [`FromWorker::Holds`], or by [`FromWorker::Unreplicated`].
    Replicate {
        /// Its key.
        key: Key,
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
        /// Workers that have it, best first.
        places: Vec<Place>,
    },
    /// Finish what is running, return the rest, and leave when told to ([`ToWorker::Leave`]).
    Drain,
    /// Others have what only this worker had, as far as they could take it: it leaves once nothing runs.
    Leave,
    /// The worker broke the protocol or lost its right to be here; the connection ends after this.
    Refused {
        /// What it did.
        reason: String,
    },
}

/// An item that did not end well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError {
    /// The item, counted from the run's first.
    pub item: u32,
    /// What happened; its `key`, `task` and `attempts` are filled in by the scheduler.
    pub error: TaskError,
}

/// A result that stays on the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The item, counted from the run's first.
    pub item: u32,
    /// Length of the encoding in bytes.
    pub len: u64,
    /// Hash of the encoding.
    pub hash: Hash,
}

/// How consecutive items of a run ended. An item that is neither in `stored`, nor in `errors`, nor in `dropped` has its result in
/// `values`; the others have an empty place there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The first item, counted from the run's first.
    pub first: u32,
    /// One value an item.
    pub values: Run,
    /// Results too large to ride along, by ascending item.
    pub stored: Vec<Stored>,
    /// Items that failed, by ascending item.
    pub errors: Vec<ItemError>,
    /// Items that were cancelled, by ascending item.
    pub dropped: Vec<u32>,
}

/// What a worker has to spare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Bytes of values that it holds.
    pub held_bytes: u64,
    /// Bytes of memory that its process uses.
    pub used_bytes: u64,
    /// Slots that are busy.
    pub busy: u32,
    /// Whether memory is short for now, which will end by itself: it had better get no more work until then.
    pub pressed: bool,
}

/// A worker's message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The run's first item is running, or about to.
    Started {
        /// The run.
        run: RunId,
    },
    /// Items of a run ended, in order and without gaps from one message to the next. With the run's last item the run is over, and
    /// its slot is free.
    Finished {
        /// The run.
        run: RunId,
        /// How they ended.
        outcome: Outcome,
        /// Compute time that they took together.
        elapsed: Duration,
    },
    /// A run that had not started, given back; nothing of it was done.
    Returned {
        /// The run.
        run: RunId,
        /// Why, unless it was recalled or the worker drains: inputs that could not be had.
        missing: Vec<Key>,
    },
    /// A run that has started and was asked back has only so many items from now on. None of the others has started, or will.
    Divided {
        /// The run.
        run: RunId,
        /// Number of items that are left in it, from its first; at least 1.
        count: u32,
    },
    /// The worker has a copy of this value now.
    Holds {
        /// Its key.
        key: Key,
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
    },
    /// All values that the worker had when it joined are named: whatever else it may have had is gone.
    Registered,
    /// A copy that was asked for ([`ToWorker::Replicate`]) could not be had, or there is no room for it.
    Unreplicated {
        /// Its key.
        key: Key,
    },
    /// Alive, and how it is.
    Heartbeat(Load),
    /// The worker takes no more work, will return what it has not started, finish what it has, and leave when it is told that its
    /// values are in others' hands ([`ToWorker::Leave`]).
    Draining,
}
