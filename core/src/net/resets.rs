//! How the peers of a scheduler that was killed hear so from the next one: packets of connections that it does not know are answered by
//! a stateless reset (RFC 9000, 10.3). Must not know: connections.
//!
//! A connection's ids, which the scheduler draws, are random bytes and a tag, so that nobody else can make one that is answered; an id's
//! reset token, which only the connection's peer is told, is a hash of it. Both are keyed with the cluster's secrets, which outlive the
//! process. Ids are long enough never to be drawn again: nobody has the token of another's connection.

use std::{sync::Arc, time::Duration};

use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};
use quinn_proto::{InvalidCid, RandomConnectionIdGenerator};

use super::Ca;

/// Random bytes of a connection's id.
const NONCE: usize = 8;
/// Bytes of its tag.
const TAG: usize = 4;
/// No more often is a packet answered by a reset: as many peers as a scheduler usually takes hear within a second. A reset is shorter than
/// the packet, so that it is of no use for flooding others.
const INTERVAL: Duration = Duration::from_micros(100);

/// What the scheduler's connections can be reset with, by it and by those that come after it.
#[derive(Clone)]
pub(crate) struct Resets {
    id_key: [u8; 32],
    token_key: [u8; 32],
}

impl Resets {
    pub(crate) fn new(ca: &Ca) -> Self {
        Self { id_key: ca.secret("connection ids"), token_key: ca.secret("reset tokens") }
    }

    /// Has an endpoint draw such ids, and answer what it does not know any more.
    pub(super) fn configure(&self, config: &mut EndpointConfig) {
        let id_key = self.id_key;
        config
            .reset_key(Arc::new(TokenKey(self.token_key)))
            .cid_generator(move || Box::new(Ids::new(id_key)))
            .min_reset_interval(INTERVAL);
    }
}

/// Draws connections' ids.
struct Ids {
    key: [u8; 32],
    nonces: RandomConnectionIdGenerator,
}

impl Ids {
    fn new(key: [u8; 32]) -> Self {
        Self { key, nonces: RandomConnectionIdGenerator::new(NONCE) }
    }

    fn tag(&self, nonce: &[u8]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&blake3::keyed_hash(&self.key, nonce).as_bytes()[..TAG]);
        tag
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let nonce = self.nonces.generate_cid();
        let mut id = [0; NONCE + TAG];
        id[..NONCE].copy_from_slice(&nonce);
        id[NONCE..].copy_from_slice(&self.tag(&nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let sound = id.split_last_chunk().is_some_and(|(nonce, tag)| *tag == self.tag(nonce));
        if sound { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        NONCE + TAG
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Makes reset tokens, of which 16 bytes are used.
struct TokenKey([u8; 32]);

impl HmacKey for TokenKey {
    fn sign(&self, id: &[u8], token: &mut [u8]) {
        token.copy_from_slice(blake3::keyed_hash(&self.0, id).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, id: &[u8], token: &[u8]) -> Result<(), CryptoError> {
        // In constant time.
        if blake3::keyed_hash(&self.0, id) == *token { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_knows_its_ids_again_and_nobody_elses() {
        let (ca, other) = (Ca::in_memory().expect("a CA"), Ca::in_memory().expect("a CA"));
        let ids = |ca| Ids::new(Resets::new(ca).id_key);
        let id = ids(&ca).generate_cid();
        assert!(ids(&ca).validate(&id).is_ok());
        assert!(ids(&other).validate(&id).is_err());
        for at in 0..id.len() {
            let mut forged = id.to_vec();
            forged[at] ^= 1;
            assert!(ids(&ca).validate(&ConnectionId::new(&forged)).is_err(), "byte {at}");
            assert!(ids(&ca).validate(&ConnectionId::new(&id[..at])).is_err(), "{at} bytes");
        }
        assert_ne!(ids(&ca).generate_cid(), id);
    }

    #[test]
    fn a_reset_token_is_one_clusters_and_one_ids() {
        let (ca, other) = (Ca::in_memory().expect("a CA"), Ca::in_memory().expect("a CA"));
        let key = |ca| TokenKey(Resets::new(ca).token_key);
        let token = |ca, id: &[u8]| {
            let mut token = vec![0; key(ca).signature_len()];
            key(ca).sign(id, &mut token);
            token
        };
        assert_eq!(token(&ca, b"one"), token(&ca, b"one"));
        assert_ne!(token(&ca, b"one"), token(&ca, b"two"));
        assert_ne!(token(&ca, b"one"), token(&other, b"one"));
        assert!(key(&ca).verify(b"one", &token(&ca, b"one")).is_ok());
        assert!(key(&ca).verify(b"two", &token(&ca, b"one")).is_err());
    }
}
