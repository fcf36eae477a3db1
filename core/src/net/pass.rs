//! What a peer gets in with: a token, a certificate that it got by one, or both. Owns: which of them is used, when the certificate is due
//! to be renewed, and what is kept for the next run. Must not know: connections.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    Token,
    identity::Credentials,
    kept::{self, Drawer, Kept},
    tls::Keyring,
    token::read_token,
};
use crate::{
    ConnectError,
    ids::TokenId,
    wire::{JoinReply, Role},
};

/// What a peer gets in with, for as long as it lives: over several connections, and certificates.
pub(crate) struct Pass {
    /// The scheduler's `HOST:PORT`.
    pub(crate) address: String,
    /// What the peer is.
    pub(crate) role: Role,
    token: Option<Token>,
    /// Where certificates are kept; `None` for nowhere.
    state: Option<PathBuf>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    certificate: Option<Certificate>,
    drawer: Option<Drawer>,
}

struct Certificate {
    keyring: Arc<Keyring>,
    /// The token that it came by.
    token: TokenId,
    ends: SystemTime,
    lifetime: Duration,
}

impl Pass {
    /// With a token for one of these roles, or what an earlier run kept, or both.
    ///
    /// # Errors
    /// When the token is none, or for another role; without a token, when not exactly one kept certificate fits the address.
    pub(crate) fn new(
        address: &str,
        roles: &[Role],
        token: Option<&str>,
        state: Option<PathBuf>,
        now: SystemTime,
    ) -> Result<Self, ConnectError> {
        let token = token.map(|token| read_token(token, roles)).transpose()?;
        // Without a token, the first one is meant.
        let role = token.as_ref().map(|token| token.role).or_else(|| roles.first().copied()).unwrap_or(Role::Client);
        let (kept, drawer) = match (&token, &state) {
            (Some(token), Some(state)) => kept::find(state, token, now),
            (Some(_), None) => (None, None),
            (None, state) => {
                let mut all = state.as_deref().map_or_else(Vec::new, |state| kept::find_all(state, address, role, now));
                match (all.pop(), all.len()) {
                    (Some((kept, drawer)), 0) => (Some(kept), Some(drawer)),
                    (Some(_), others) => {
                        let reason = format!("none was given, and {} certificates of earlier runs fit {address}", others + 1);
                        return Err(ConnectError::Token { reason });
                    }
                    (None, _) => {
                        let reason = format!("none was given, and no earlier run has left a certificate for {address}");
                        return Err(ConnectError::Token { reason });
                    }
                }
            }
        };
        let certificate = kept.and_then(|kept| {
            // It was found to be good when it was read.
            let keyring = Arc::new(Keyring::new(kept.credentials().ok()?).ok()?);
            Some(Certificate { keyring, token: kept.token, ends: kept.ends(), lifetime: kept.lifetime() })
        });
        let held = Mutex::new(Held { certificate, drawer });
        Ok(Self { address: address.to_owned(), role, token, state, held })
    }

    /// The certificate in hand, if it is still good.
    pub(crate) fn keyring(&self, now: SystemTime) -> Option<Arc<Keyring>> {
        let held = self.held.lock();
        held.certificate.as_ref().filter(|certificate| certificate.ends > now).map(|certificate| Arc::clone(&certificate.keyring))
    }

    /// The token to get one with.
    ///
    /// # Errors
    /// When there is none: there was a kept certificate, and it is of no use any more.
    pub(crate) fn token(&self) -> Result<&Token, ConnectError> {
        let reason = || "none was given, and the certificate of an earlier run is not good any more".to_owned();
        self.token.as_ref().ok_or_else(|| ConnectError::Token { reason: reason() })
    }

    /// Takes the first certificate that the token got, and keeps it if that is worth it.
    pub(crate) fn receive(
        &self,
        token: &Token,
        ca: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        reply: JoinReply,
        now: SystemTime,
    ) -> Result<Arc<Keyring>, rustls::Error> {
        let (lifetime, keep) = (lifetime(&reply), reply.keep);
        let credentials = Credentials { certificate: CertificateDer::from(reply.certificate), key, ca };
        let keyring = Arc::new(Keyring::new(credentials.clone())?);
        let mut held = self.held.lock();
        let certificate = Certificate { keyring: Arc::clone(&keyring), token: token.id(), ends: now + lifetime, lifetime };
        if keep {
            self.keep(&mut held.drawer, &certificate, &credentials);
        }
        held.certificate = Some(certificate);
        Ok(keyring)
    }

    /// Puts a renewed certificate in the place of the one that it was asked for with.
    pub(crate) fn renew(
        &self,
        keyring: &Arc<Keyring>,
        key: PrivateKeyDer<'static>,
        reply: JoinReply,
        now: SystemTime,
    ) -> Result<(), rustls::Error> {
        let (lifetime, keep) = (lifetime(&reply), reply.keep);
        let ca = keyring.ca().clone();
        let credentials = Credentials { certificate: CertificateDer::from(reply.certificate), key, ca };
        keyring.replace(credentials.certificate.clone(), credentials.key.clone_key())?;
        let mut held = self.held.lock();
        let Held { certificate, drawer } = &mut *held;
        if let Some(certificate) = certificate.as_mut().filter(|certificate| Arc::ptr_eq(&certificate.keyring, keyring)) {
            (certificate.ends, certificate.lifetime) = (now + lifetime, lifetime);
            if keep {
                self.keep(drawer, certificate, &credentials);
            }
        }
        Ok(())
    }

    /// Has a certificate that the scheduler does not accept used no more; `false` if there is nothing else to try.
    pub(crate) fn discard(&self) -> bool {
        self.held.lock().certificate.take().is_some() && self.token.is_some()
    }

    /// How long the certificate need not be renewed yet: two thirds of its life. `None` if there is none.
    pub(crate) fn renewal(&self, now: SystemTime) -> Option<Duration> {
        let held = self.held.lock();
        let certificate = held.certificate.as_ref()?;
        let left = certificate.ends.duration_since(now).unwrap_or_default();
        Some(left.saturating_sub(certificate.lifetime / 3))
    }

    fn keep(&self, drawer: &mut Option<Drawer>, certificate: &Certificate, credentials: &Credentials) {
        let Some(state) = &self.state else { return };
        let Certificate { token, ends, lifetime, .. } = certificate;
        let kept = Kept::new(&self.address, self.role, *token, credentials, *ends, *lifetime);
        match kept::put(state, &kept, drawer.take()) {
            Ok(used) => *drawer = Some(used),
            Err(error) => tracing::warn!(%error, state = %state.display(), "the certificate is not kept for the next run"),
        }
    }
}

/// How long a certificate is good; so bounded that it can be added to the time.
fn lifetime(reply: &JoinReply) -> Duration {
    Duration::from_secs(reply.valid_s.min(1 << 32))
}
