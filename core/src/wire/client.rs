//! Between client and scheduler.

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::blob::Place;
use crate::{
    Options, PublishError, Requirements, TaskError,
    codec::{Args, Run, Span},
    ids::{Hash, TaskId},
};

/// What a call or map is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSpec {
    /// The task.
    pub task: TaskId,
    /// Its name, for errors and logs.
    pub name: String,
    /// Its limits.
    pub options: Options,
}

/// A [`CallSpec`] that many calls have in common: a clone shares it. On the wire it is the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSpec(Arc<CallSpec>);

impl From<CallSpec> for SharedSpec {
    fn from(spec: CallSpec) -> Self {
        Self(Arc::new(spec))
    }
}

impl SharedSpec {
    /// The spec, for changing it: of this one alone, others that share it keep what they have.
    pub fn make_mut(&mut self) -> &mut CallSpec {
        Arc::make_mut(&mut self.0)
    }
}

impl Deref for SharedSpec {
    type Target = CallSpec;

    fn deref(&self) -> &CallSpec {
        &self.0
    }
}

impl Serialize for SharedSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CallSpec::deserialize(deserializer).map(Self::from)
    }
}

/// A client's message. A client's messages are numbered from 1, over all its connections, without a number in any of them:
/// [`ToClient::Applied`] and [`super::Welcome::Client`] say how many were taken in. `seq` numbers the client's entries and must ascend from one [`Call`](FromClient::Call),
/// [`Map`](FromClient::Map) or [`Data`](FromClient::Data) to the next. Holes may name only keys of other entries that this client has
/// made by then: those of a map's items also entries that are later than the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// A new entry of one item.
    Call {
        /// Its number.
        seq: u64,
        /// What to call.
        spec: SharedSpec,
        /// One item's arguments.
        args: Args,
    },
    /// A new entry whose items follow.
    Map {
        /// Its number.
        seq: u64,
        /// What to call.
        spec: SharedSpec,
    },
    /// The next items of an open map.
    Items {
        /// The map.
        seq: u64,
        /// Their arguments.
        args: Args,
    },
    /// No more items will come.
    Close {
        /// The map.
        seq: u64,
    },
    /// A new entry of one item that is a value, not a call.
    Data {
        /// Its number.
        seq: u64,
        /// Length of the encoding in bytes.
        len: u64,
        /// Hash of the encoding.
        hash: Hash,
        /// The encoding; `None` when it is to be uploaded as a blob to where [`ToClient::Upload`] says.
        bytes: Option<Bytes>,
    },
    /// Where the data was uploaded to did not take it: name the scheduler itself next.
    UploadFailed {
        /// The entry.
        seq: u64,
    },
    /// These items' results are not wanted any more by the client; what is unfinished and has no dependents is cancelled.
    /// An open map whose every item is released is closed.
    Release {
        /// The items.
        span: Span,
    },
    /// These items are to be stopped; they and their dependents fail as cancelled.
    Cancel {
        /// The items.
        span: Span,
    },
    /// A stored result could not be fetched from any of its places.
    Unreachable {
        /// Its entry.
        seq: u64,
        /// Its index.
        index: u64,
    },
    /// How many of these items are in each state?
    Count {
        /// Chosen by the client, returned in [`ToClient::Counts`].
        query: u64,
        /// The items.
        spans: Vec<Span>,
    },
    /// Which of these items wait, and why?
    Explain {
        /// Chosen by the client, returned in [`ToClient::Explained`].
        query: u64,
        /// The items.
        spans: Vec<Span>,
    },
    /// The client, which has returned, still keeps this data for an upload: [`ToClient::Upload`] or [`ToClient::Taken`] is the answer.
    Offer {
        /// The entry.
        seq: u64,
    },
    /// These items are to run to their end even if the client leaves.
    Detach {
        /// The items.
        span: Span,
    },
    /// These items are to be had by any client under a name, and kept until that is taken back.
    Publish {
        /// Chosen by the client, returned in [`ToClient::Named`].
        query: u64,
        /// The name.
        name: String,
        /// What they are for the program, which asks for the same to get them.
        kind: String,
        /// The items.
        span: Span,
    },
    /// A name is to stand for nothing any more.
    Unpublish {
        /// The name.
        name: String,
    },
    /// What is published under this name?
    LookUp {
        /// Chosen by the client, returned in [`ToClient::Named`].
        query: u64,
        /// The name.
        name: String,
        /// What it should be.
        kind: String,
    },
    /// A new entry: the items that are published under this name.
    TakeUp {
        /// Its number.
        seq: u64,
        /// The name.
        name: String,
        /// What they should be.
        kind: String,
        /// How many there should be; if there are not any more, so many are cancelled.
        count: u64,
    },
    /// The client is leaving: forget everything that is its own.
    Bye,
}

/// Number of items in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCounts {
    /// Wait for the results of other calls.
    pub waiting: u64,
    /// Could run; no worker has them yet.
    pub queued: u64,
    /// Assigned to a worker.
    pub processing: u64,
    /// Finished, the result is held.
    pub memory: u64,
    /// Failed or cancelled.
    pub erred: u64,
    /// Not wanted any more.
    pub released: u64,
}

/// Calls that are alike in what they ask for, and wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// How many.
    pub items: u64,
    /// What they ask of a worker; nothing where they wait for other calls, whatever they ask for.
    pub requires: Requirements,
    /// Why they wait, for people: `no worker has zone=a`.
    pub why: String,
}

/// A message to a client. An item is reported once as done, stored, failed or cancelled, and then again only after
/// [`ToClient::Lost`], or when the client returns on another connection: it may have missed anything then, and is told of it in portions, while it hears
/// what is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// Consecutive items finished; here are their results.
    Done {
        /// Their entry.
        seq: u64,
        /// The first one's index.
        first: u64,
        /// The results.
        values: Run,
    },
    /// An item finished; its result is too large to ride along.
    Stored {
        /// Its entry.
        seq: u64,
        /// Its index.
        index: u64,
        /// Length of the encoding in bytes.
        len: u64,
        /// Hash of the encoding.
        hash: Hash,
        /// Who serves it, best first. The scheduler serves it too.
        places: Vec<Place>,
    },
    /// An item failed, or one that it depends on did.
    Failed {
        /// Its entry.
        seq: u64,
        /// Its index.
        index: u64,
        /// Why.
        error: TaskError,
    },
    /// Consecutive items were cancelled.
    Cancelled {
        /// The items.
        span: Span,
    },
    /// A stored result is gone with its worker and is being computed again.
    Lost {
        /// Its entry.
        seq: u64,
        /// Its index.
        index: u64,
    },
    /// Upload this data as a blob to a worker, or to the scheduler.
    Upload {
        /// The entry.
        seq: u64,
        /// Where to, and where that worker hands it on to, each to the next; empty for the scheduler.
        route: Vec<Place>,
    },
    /// The data is not needed for an upload any more: it was uploaded, or nobody wants it.
    Taken {
        /// The entry.
        seq: u64,
    },
    /// So many bytes of arguments may be sent in the life of the client, those included that were sent (see
    /// [`super::Welcome::Client`]). A total, so that none is lost with a message, and none counts twice.
    Credit {
        /// Bytes.
        total: u64,
    },
    /// So many of the client's messages were taken in, and need not be kept for another connection. Said now and then.
    Applied {
        /// How many, of all.
        messages: u64,
    },
    /// The answer to [`FromClient::Count`].
    Counts {
        /// The client's number.
        query: u64,
        /// How many are in each state.
        counts: StateCounts,
    },
    /// The answer to [`FromClient::Publish`] and [`FromClient::LookUp`].
    Named {
        /// The client's number.
        query: u64,
        /// How many items the name stands for.
        items: Result<u64, PublishError>,
    },
    /// The answer to [`FromClient::Explain`].
    Explained {
        /// The client's number.
        query: u64,
        /// Those that wait, by what they ask for; a bounded number of kinds.
        waiting: Vec<Waiting>,
    },
    /// The client broke the protocol or lost its right to be here; the connection ends after this.
    Refused {
        /// What it did.
        reason: String,
    },
}
