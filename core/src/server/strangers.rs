//! What those can have parsed who have not proved anything yet, in one call, for fuzzers. Must not know: sockets.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;

use super::connection::{certify, check_hello};
use crate::{
    ids::Identity,
    net::{
        Ca, Token,
        identity::{Bearer, ROLES},
    },
};

/// Has these bytes read as everything that a stranger sends or shows: a hello, a request to join (by token or certificate), a certificate, a
/// token. A certificate is signed for a stranger only if the request carries the secret of a token. No input panics.
///
/// # Panics
/// When a stranger got in.
pub fn listen(bytes: &[u8]) {
    static CA: OnceLock<Ca> = OnceLock::new();
    let ca = CA.get_or_init(|| Ca::in_memory().expect("the system gives randomness"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
    assert!(check_hello(bytes, None).is_err(), "no certificate, and let in");
    let bearers = ROLES.map(|role| Bearer { role, identity: Identity([7; 16]) });
    for bearer in bearers {
        if let Ok((found, hello)) = check_hello(bytes, Some(bearer)) {
            assert_eq!(found, bearer, "a certificate has one role");
            assert!(hello.worker.is_none() || bearer.role == crate::wire::Role::Worker, "a {:?} works", bearer.role);
        }
    }
    assert!(certify(ca, bytes, None, now).is_err(), "no secret, and certified");
    for bearer in bearers {
        if let Ok((renewed, _)) = certify(ca, bytes, Some(bearer), now) {
            assert_eq!(renewed, bearer, "renewed as somebody else");
        }
    }
    let _ = Bearer::of(&CertificateDer::from(bytes));
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = text.parse::<Token>()
    {
        assert_eq!(token.to_string(), text.trim(), "a token has one form");
    }
}
