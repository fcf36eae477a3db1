//! Connections to workers for their blobs: made when first needed, kept, used again. Must not know: what is fetched, or for whom.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, crypto::rustls::QuicClientConfig};
use tokio::time::{Instant, timeout};

use super::{
    blobs::{self, BlobError, Expected, MAX_VALUE_BYTES},
    passing::Exit,
    tls::{self, Keyring},
    transport::{self, Close},
};
use crate::{
    codec::Encoded,
    ids::{Hash, Key},
    wire::blob::{BlobRequest, Place},
};

/// A worker that has not answered by then is taken for unreachable from here.
const CONNECT: Duration = Duration::from_secs(2);
/// For so long nobody tries it again.
const AVOID: Duration = Duration::from_secs(30);

/// Reaches workers directly, and the scheduler over the connection that there is.
pub(crate) struct Peers {
    endpoint: Endpoint,
    config: Arc<QuicClientConfig>,
    scheduler: Connection,
    links: Mutex<HashMap<SocketAddr, Arc<tokio::sync::Mutex<Link>>>>,
}

#[derive(Default)]
enum Link {
    #[default]
    Untried,
    Up(Connection),
    Failed(Instant, String),
}

impl Peers {
    pub(crate) fn new(endpoint: Endpoint, keyring: &Arc<Keyring>, scheduler: Connection) -> Result<Self, rustls::Error> {
        Ok(Self { endpoint, config: tls::main_client(keyring)?, scheduler, links: Mutex::default() })
    }

    /// Fetches a value from the first place that has it, the scheduler last. Length and hash are checked.
    pub(crate) async fn fetch(&self, key: Key, len: u64, hash: Hash, places: &[Place]) -> Result<Bytes, BlobError> {
        let expected = Expected { len: Some(len), limit: MAX_VALUE_BYTES, hash };
        for place in places {
            let request = BlobRequest::Get { key, grant: Some(place.grant) };
            let attempt = async { blobs::get(&self.connection(place.address).await?, &request, expected).await };
            match attempt.await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    tracing::debug!(%key, worker = %place.worker, address = %place.address, %error, "not fetched directly")
                }
            }
        }
        blobs::get(&self.scheduler, &BlobRequest::Get { key, grant: None }, expected).await
    }

    /// Gives a value to the first of these workers, which hands it on to the others, or to the scheduler if there are none.
    pub(crate) async fn upload(&self, key: Key, data: Encoded, hash: Hash, route: &[Place]) -> Result<(), BlobError> {
        let (connection, request) = self.way(key, data.len() as u64, hash, route).await?;
        blobs::put(&connection, &request, data).await
    }

    /// Gives a value that is still coming in to the first of these workers, which hands it on to the others.
    pub(crate) async fn hand_on(&self, key: Key, len: u64, hash: Hash, route: &[Place], coming: Exit) -> Result<(), BlobError> {
        let (connection, request) = self.way(key, len, hash, route).await?;
        blobs::put_coming(&connection, &request, len, coming).await
    }

    /// Where a value begins its route, and what is said there: with the scheduler, if the route is empty.
    async fn way(&self, key: Key, len: u64, hash: Hash, route: &[Place]) -> Result<(Connection, BlobRequest), BlobError> {
        let Some((place, then)) = route.split_first() else {
            return Ok((self.scheduler.clone(), BlobRequest::Put { key, len, hash, grant: None, then: Vec::new() }));
        };
        let request = BlobRequest::Put { key, len, hash, grant: Some(place.grant), then: then.to_vec() };
        Ok((self.connection(place.address).await?, request))
    }

    /// The scheduler's connection.
    pub(crate) fn scheduler(&self) -> &Connection {
        &self.scheduler
    }

    /// Ends all connections of this side's socket.
    pub(crate) fn close(&self) {
        self.endpoint.close(Close::Done.code(), b"the client has left");
    }

    /// The connection to a worker, whose certificate must say that it is one.
    async fn connection(&self, address: SocketAddr) -> Result<Connection, BlobError> {
        let link = Arc::clone(self.links.lock().entry(address).or_default());
        let mut link = link.lock().await;
        match &*link {
            Link::Up(connection) if connection.close_reason().is_none() => return Ok(connection.clone()),
            Link::Failed(at, reason) if at.elapsed() < AVOID => return Err(BlobError::Lost { reason: reason.clone() }),
            _ => {}
        }
        let config = transport::client_config(&self.config, address);
        let connected = match self.endpoint.connect_with(config, address, tls::WORKER_HOST) {
            Ok(connecting) => match timeout(CONNECT, connecting).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        };
        match connected {
            Ok(connection) => {
                *link = Link::Up(connection.clone());
                Ok(connection)
            }
            Err(reason) => {
                *link = Link::Failed(Instant::now(), reason.clone());
                Err(BlobError::Lost { reason })
            }
        }
    }
}
