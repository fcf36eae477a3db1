//! What the client's bookkeeping asks of whatever carries its messages: a network connection, or a scheduler in this process.

use bytes::Bytes;

use crate::{
    codec::Encoded,
    ids::{Hash, Key},
    wire::{FromClient, ToClient, blob::Place},
};

/// Carries messages to the scheduler. Nothing here blocks on the network: bounds are kept by credit, above.
pub(crate) trait Backend: Send + Sync {
    /// Sends messages, in order.
    fn send(&self, messages: &mut dyn Iterator<Item = FromClient>);

    /// Uploads data that the scheduler asked for, to the first of these workers, which hands it on to the others, or to the scheduler if
    /// there are none. When that worker does not take it, the backend says [`FromClient::UploadFailed`].
    fn upload(&self, key: Key, data: Encoded, hash: Hash, route: Vec<Place>);

    /// Fetches a stored value from the first place that has it, the scheduler last, checks length and hash, and hands it to
    /// [`Inbox::fetched`]; `None` if none had it.
    fn fetch(&self, key: Key, len: u64, hash: Hash, places: Vec<Place>);

    /// Says [`FromClient::Bye`], waits briefly until it is written, and releases threads and sockets. Idempotent.
    fn close(&self);
}

/// Takes what the backend receives. Called from the backend's threads, one at a time; never blocks for long.
pub(crate) trait Inbox: Send + Sync {
    /// Messages of the scheduler, in order; drained.
    fn receive(&self, messages: &mut Vec<ToClient>);

    /// The end of a [`Backend::fetch`].
    fn fetched(&self, key: Key, bytes: Option<Bytes>);

    /// The connection broke, there is another one, and the scheduler goes on with this client. What it says comes after this.
    fn returned(&self);

    /// The connection broke, and the scheduler does not know this client any more: every unresolved call fails.
    fn forgotten(&self);

    /// The connection ended and will not come back: every unresolved call fails with this reason.
    fn disconnected(&self, reason: &str);
}
