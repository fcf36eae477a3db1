//! The worker's side of blob streams: who may read and write which value. Must not know: where values are kept.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    blobs::{BlobError, Incoming, MAX_VALUE_BYTES},
    passing::{Arrivals, Entrance, passage},
    peers::Peers,
    tls,
    transport::{self, Close},
    worker::BlobStore,
};
use crate::{
    codec,
    ids::{Hash, Identity, Key},
    wire::blob::{BlobReply, BlobRequest, Grant, Place},
};

/// A peer has to get through its handshake until then.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Values that are handed on at a time while they come in. Others are not: the scheduler has them copied later.
const HANDED_ON: usize = 4;

/// What a worker serves from, and what is coming in.
pub(super) struct Host {
    store: Arc<dyn BlobStore>,
    grant_secret: [u8; 32],
    peers: Arc<Peers>,
    arrivals: Arc<Arrivals>,
    handing_on: Semaphore,
}

impl Host {
    pub(super) fn new(store: Arc<dyn BlobStore>, grant_secret: [u8; 32], peers: Arc<Peers>) -> Self {
        Self { store, grant_secret, peers, arrivals: Arc::default(), handing_on: Semaphore::new(HANDED_ON) }
    }

    /// A value that a peer is giving to this worker, once it is here; `None` if that is not so, or nothing came of it.
    pub(super) async fn given(&self, key: Key, len: u64, hash: Hash) -> Option<Bytes> {
        if !self.arrivals.wait(key, hash).await {
            return None;
        }
        let (bytes, found) = self.store.read(key).await?;
        (bytes.len() as u64 == len && found == hash).then_some(bytes)
    }
}

/// Serves all who come, with grants.
pub(super) async fn serve_endpoint(endpoint: Endpoint, host: Arc<Host>) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let host = Arc::clone(&host);
        connections.spawn(async move {
            let Ok(Ok(connection)) = timeout(HANDSHAKE, incoming).await else { return };
            match tls::bearer(&connection) {
                Some(bearer) => {
                    transport::admit(&connection);
                    serve_connection(connection, host, Some(bearer.identity)).await;
                }
                None => Close::Refused.close(&connection, "the certificate names no peer"),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Serves a connection's blob streams: with grants to a peer of that identity, without to the scheduler.
pub(super) async fn serve_connection(connection: Connection, host: Arc<Host>, peer: Option<Identity>) {
    let mut streams = JoinSet::new();
    while let Ok(incoming) = Incoming::accept(&connection).await {
        let host = Arc::clone(&host);
        streams.spawn(async move {
            if let Err(error) = host.serve(incoming, peer).await {
                tracing::debug!(%error, "a blob stream ended early");
            }
        });
        while streams.try_join_next().is_some() {}
    }
}

impl Host {
    async fn serve(&self, mut incoming: Incoming, peer: Option<Identity>) -> Result<(), BlobError> {
        let request = incoming.request().await?;
        let allowed = |key, grant: Option<Grant>, then: &[Place]| {
            peer.is_none_or(|who| grant.is_some_and(|grant| grant.allows_to_hand_on(&self.grant_secret, key, who, then)))
        };
        match request {
            BlobRequest::Get { key, grant } if !allowed(key, grant, &[]) => incoming.refuse("the grant does not fit").await,
            BlobRequest::Put { key, grant, then, .. } if !allowed(key, grant, &then) => {
                incoming.refuse("the grant does not fit").await
            }
            BlobRequest::Get { key, .. } => match self.store.read(key).await {
                Some((bytes, hash)) => incoming.found(bytes, hash).await,
                None => incoming.reply(&BlobReply::NotFound).await,
            },
            BlobRequest::Put { key, len, hash, then, .. } => self.take(incoming, key, len, hash, &then).await,
            BlobRequest::GetLog(_) if peer.is_some() => incoming.refuse("only the scheduler may ask for that").await,
            BlobRequest::GetLog(query) => {
                let mut bytes = Vec::new();
                match codec::encode_into(&self.store.log(&query), &mut bytes) {
                    Ok(()) => {
                        let hash = Hash::of(&bytes);
                        incoming.found(bytes.into(), hash).await
                    }
                    Err(error) => incoming.refuse(error).await,
                }
            }
            BlobRequest::GetModule { .. } | BlobRequest::PutModule { .. } => {
                incoming.refuse("workers have no modules to give").await
            }
        }
    }

    /// Takes a value, and hands it on while it comes. What becomes of that is the next worker's to say.
    async fn take(&self, mut incoming: Incoming, key: Key, len: u64, hash: Hash, then: &[Place]) -> Result<(), BlobError> {
        let permit = if then.is_empty() { None } else { self.handing_on.try_acquire().ok() };
        let (entrance, exit) = permit.as_ref().map(|_| passage()).unzip();
        let taking = async {
            match self.receive(&mut incoming, key, len, hash, entrance).await {
                Ok(()) => incoming.reply(&BlobReply::Taken).await,
                Err(reason) => incoming.refuse(reason).await,
            }
        };
        let handing_on = async {
            let Some(exit) = exit else { return };
            if let Err(error) = self.peers.hand_on(key, len, hash, then, exit).await {
                tracing::debug!(%key, %error, "not handed on");
            }
        };
        tokio::join!(taking, handing_on).0
    }

    async fn receive(&self, incoming: &mut Incoming, key: Key, len: u64, hash: Hash, on: Option<Entrance>) -> Result<(), String> {
        let _arrival = self.arrivals.begin(key, hash);
        // Given back when the value is held, and counted there, or when it did not come.
        let _room = self.store.reserve(len)?;
        let bytes = incoming.body(len, MAX_VALUE_BYTES, hash, on).await.map_err(|error| error.to_string())?;
        self.store.write(key, bytes, hash)
    }
}
