//! Blob streams that peers open to the scheduler: modules, data that no worker took, values relayed from workers. Must not know:
//! what is in any of them.

use std::sync::Arc;

use quinn::Connection;
use tokio::task::JoinSet;

use super::hub::{Hub, Peer, Source, Stored};
use crate::{
    ids::{Hash, Key},
    net::blobs::{BlobError, Incoming, MAX_MODULE_BYTES, MAX_VALUE_BYTES, STALL, ask},
    wire::blob::{BlobReply, BlobRequest},
};

/// What every WebAssembly binary begins with.
const WASM_MAGIC: &[u8] = b"\0asm";

/// Serves a peer's blob streams until its connection ends.
pub(super) async fn serve(hub: Arc<Hub>, connection: Connection, peer: Peer) {
    let mut streams = JoinSet::new();
    while let Ok(incoming) = Incoming::accept(&connection).await {
        let hub = Arc::clone(&hub);
        streams.spawn(async move {
            if let Err(error) = serve_one(&hub, incoming, peer).await {
                tracing::debug!(?peer, %error, "a blob stream ended early");
            }
        });
        while streams.try_join_next().is_some() {}
    }
}

async fn serve_one(hub: &Hub, mut incoming: Incoming, peer: Peer) -> Result<(), BlobError> {
    match (incoming.request().await?, peer) {
        (BlobRequest::Get { key, .. }, Peer::Client(client)) if key.entry.client != client => {
            incoming.refuse("the value is another client's").await
        }
        (BlobRequest::Get { key, .. }, _) => send_value(hub, incoming, key, peer).await,
        (BlobRequest::Put { key, len, hash, .. }, Peer::Client(client)) if key.entry.client == client => {
            let taken = take_data(hub, &mut incoming, key, len, hash, peer).await;
            answer(incoming, taken).await
        }
        (BlobRequest::GetModule { hash }, Peer::Worker(_)) => match hub.modules.get(hash).await {
            Some(bytes) => incoming.found(bytes, hash).await,
            None => incoming.reply(&BlobReply::NotFound).await,
        },
        (BlobRequest::PutModule { hash, len }, Peer::Client(_)) => {
            let taken = take_module(hub, &mut incoming, len, hash).await;
            answer(incoming, taken).await
        }
        (BlobRequest::Put { .. } | BlobRequest::GetModule { .. } | BlobRequest::PutModule { .. } | BlobRequest::GetLog(_), _) => {
            incoming.refuse("this peer has no right to that").await
        }
    }
}

async fn send_value(hub: &Hub, incoming: Incoming, key: Key, peer: Peer) -> Result<(), BlobError> {
    let (value, workers) = match hub.find(key, peer) {
        Source::Here(bytes, hash) => {
            let hash = hash.unwrap_or_else(|| Hash::of(&bytes));
            return incoming.found(bytes, hash).await;
        }
        Source::Workers(value, workers) => (value, workers),
        Source::Nowhere => return incoming.reply(&BlobReply::NotFound).await,
    };
    let Stored { key, len, hash } = value;
    for (worker, connection) in workers {
        let asked = ask(&connection, &BlobRequest::Get { key, grant: None }, STALL).await;
        let found = asked.and_then(|answer| match (answer.len, answer.hash) == (len, hash) {
            true => Ok(answer),
            false => Err(BlobError::Corrupt),
        });
        let error = match found {
            Ok(answer) => match incoming.relay(answer).await {
                Err(BlobError::Corrupt) => {
                    hub.unserved(worker, value);
                    return Err(BlobError::Corrupt);
                }
                relayed => return relayed,
            },
            Err(error) => error,
        };
        tracing::debug!(%key, %worker, %error, "a worker did not give a value that it has");
        // A worker that answers late, or whose connection broke, says nothing of what it has.
        if !matches!(error, BlobError::Stalled | BlobError::Lost { .. }) {
            hub.unserved(worker, value);
        }
    }
    incoming.reply(&BlobReply::NotFound).await
}

async fn take_data(hub: &Hub, incoming: &mut Incoming, key: Key, len: u64, hash: Hash, peer: Peer) -> Result<(), String> {
    let room = hub.room.reserve(len, 0);
    let room =
        room.ok_or_else(|| format!("the scheduler keeps at most {} bytes of data, and has no room for it", hub.room.limit()))?;
    let bytes = incoming.body(len, MAX_VALUE_BYTES, hash, None).await.map_err(|error| error.to_string())?;
    hub.hold(peer, key, bytes, hash, room);
    // The client forgets it when it is taken.
    hub.flushed().await;
    Ok(())
}

async fn take_module(hub: &Hub, incoming: &mut Incoming, len: u64, hash: Hash) -> Result<(), String> {
    let room = hub.modules.room.reserve(len, 0).ok_or("the scheduler has no room for more modules; try again later")?;
    let bytes = incoming.body(len, MAX_MODULE_BYTES, hash, None).await.map_err(|error| error.to_string())?;
    if !bytes.starts_with(WASM_MAGIC) {
        return Err("it is no WebAssembly: it does not begin with \\0asm".to_owned());
    }
    hub.put_module(hash, bytes, room)
}

async fn answer(incoming: Incoming, taken: Result<(), String>) -> Result<(), BlobError> {
    match taken {
        Ok(()) => incoming.reply(&BlobReply::Taken).await,
        Err(reason) => incoming.refuse(reason).await,
    }
}
