//! Keys and what certificates say about their owners. Must not know: connections, and who issues certificates.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SignatureAlgorithm};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    der::{BIT_STRING, Der, INTEGER, OCTET_STRING, OID},
    tls,
};
use crate::{ids::Identity, wire::Role};

/// Everything before the 65 bytes of an uncompressed point in a P-256 key's `SubjectPublicKeyInfo`.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00,
];
/// `2.5.29.17`: subject alternative names.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
/// A URI among them.
const URI: u8 = 0x86;

/// Everybody's.
pub(crate) const ROLES: [Role; 3] = [Role::Client, Role::Worker, Role::Operator];

/// A key, its certificate, and the CA that both sides trust.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) ca: CertificateDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { certificate: self.certificate.clone(), key: self.key.clone_key(), ca: self.ca.clone() }
    }
}

/// Whom a certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) role: Role,
    pub(crate) identity: Identity,
}

impl Bearer {
    /// The name that goes into the certificate.
    pub(crate) fn uri(&self) -> String {
        format!("quicsand://{}/{}", role_name(self.role), self.identity)
    }

    /// Whom a certificate names; to be asked of one whose signature was checked. `None` if it names no role.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let mut tbs = Der(certificate).sequence()?.sequence()?;
        let extensions = tbs.find(|element| element.tag == 0xa3)?.content;
        for extension in Der(extensions).sequence()? {
            let mut fields = Der(extension.content);
            if fields.expect(OID)?.content == SUBJECT_ALT_NAME {
                let value = fields.find(|element| element.tag == OCTET_STRING)?.content;
                return Der(value).sequence()?.filter(|name| name.tag == URI).find_map(|name| Self::parse(name.content));
            }
        }
        None
    }

    fn parse(uri: &[u8]) -> Option<Self> {
        let (role, hex) = std::str::from_utf8(uri).ok()?.strip_prefix("quicsand://")?.split_once('/')?;
        let role = ROLES.into_iter().find(|&known| role_name(known) == role)?;
        Some(Self { role, identity: hex.parse().ok()? })
    }
}

/// The role's name in certificates and messages.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Worker => "worker",
        Role::Operator => "operator",
    }
}

/// A new key and a request to certify it.
pub(crate) fn new_request() -> Result<(KeyPair, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?.der().to_vec();
    Ok((key, csr))
}

/// The public key that a request is for.
pub(crate) struct RequestedKey {
    point: Vec<u8>,
}

impl RequestedKey {
    /// Reads a PKCS #10 request, of which only the key matters, and checks that the requester has the private key too.
    pub(crate) fn of(csr: &[u8]) -> Option<Self> {
        let mut request = Der(csr).sequence()?;
        let info = request.next()?;
        let mut fields = Der(info.whole).sequence()?;
        fields.expect(INTEGER)?;
        fields.sequence()?;
        let point = fields.next()?.whole.strip_prefix(&P256_PREFIX)?;
        request.sequence()?;
        let signature = request.expect(BIT_STRING)?.content.strip_prefix(&[0])?;
        tls::verify_p256(point, info.whole, signature).then(|| Self { point: point.to_vec() })
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_prove_possession_of_their_key() {
        let (key, csr) = new_request().expect("made");
        assert_eq!(RequestedKey::of(&csr).expect("good").point, key.public_key_raw());
        for i in 0..csr.len() {
            let mut bad = csr.clone();
            bad[i] ^= 1;
            let taken = RequestedKey::of(&bad).is_some();
            // The outer algorithm field is not looked at: the key's type decides.
            assert!(!taken || i > csr.len() - 90, "byte {i} does not count");
            assert!(RequestedKey::of(&csr[..i]).is_none(), "{i} bytes");
        }
    }
}
