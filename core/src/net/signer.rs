//! The cluster's key and certificate, and what they sign. Must not know: who may have a certificate, and connections.
//!
//! On disk it is `ca.pem` (public) and `ca-key.pem`, in the cluster's state directory.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    files,
    identity::{Bearer, Credentials, RequestedKey},
    tls,
};
use crate::{ConnectError, ids::Hash};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The CA's own, and the scheduler's, whose key lives no longer than its process.
const CA_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca-key.pem";

/// Signs certificates that the whole cluster trusts.
pub(super) struct Signer {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What goes to disk.
pub(super) struct Pems {
    certificate: String,
    key: String,
}

impl Signer {
    /// A new one.
    pub(super) fn generate() -> Result<(Self, Pems), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = ca_params();
        set_validity(&mut params, SystemTime::now(), CA_VALIDITY);
        let signed = params.self_signed(&key)?;
        let pems = Pems { certificate: signed.pem(), key: key.serialize_pem() };
        let certificate = signed.der().clone();
        Ok((Self { certificate, issuer: Issuer::new(params, key) }, pems))
    }

    /// Whether one was saved in that directory; or what is wrong there. A key without its certificate is not overwritten: the cluster would
    /// be another one, and nobody would know why.
    pub(super) fn is_in(directory: &Path) -> Result<bool, String> {
        let is_there = |name: &str| {
            let path = directory.join(name);
            path.try_exists().map_err(|error| format!("{}: {error}", path.display()))
        };
        match (is_there(CERTIFICATE)?, is_there(KEY)?) {
            (false, true) => {
                Err("ca-key.pem is there and ca.pem is not; restore it, or remove the directory to make a new cluster".to_owned())
            }
            (complete, _) => Ok(complete),
        }
    }

    /// The one that was saved in that directory; or what is wrong with it.
    pub(super) fn load(directory: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let certificate = CertificateDer::from_pem_slice(read(CERTIFICATE)?.as_bytes())
            .map_err(|error| format!("ca.pem is damaged: {error}; remove the directory to make a new cluster"))?;
        let key = KeyPair::from_pem(&read(KEY)?).map_err(|error| format!("ca-key.pem is damaged: {error}"))?;
        let signer = Self { certificate, issuer: Issuer::new(ca_params(), key) };
        // A key that is not the certificate's would sign what nobody accepts: better to say so now.
        let credentials = signer.scheduler_credentials().map_err(|error| error.to_string())?;
        tls::verify_server(&credentials.ca, &credentials.certificate, tls::SCHEDULER_HOST)
            .map_err(|error| format!("ca-key.pem does not belong to ca.pem: {error}"))?;
        Ok(signer)
    }

    /// Saves it. To be done last: a directory with a certificate is complete.
    pub(super) fn save(directory: &Path, pems: &Pems) -> std::io::Result<()> {
        files::write(&directory.join(KEY), pems.key.as_bytes())?;
        files::write(&directory.join(CERTIFICATE), pems.certificate.as_bytes())
    }

    /// BLAKE3 hash of the CA's certificate.
    pub(super) fn fingerprint(&self) -> Hash {
        Hash::of(&self.certificate)
    }

    /// A secret for this purpose, from which neither the key nor another secret can be told.
    pub(super) fn secret(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(&format!("quicsand 1 {purpose}"), self.issuer.key().serialized_der())
    }

    /// Signs a certificate for the key of a signing request, good from now on (and a day back, since not all clocks are right).
    pub(super) fn certify(
        &self,
        bearer: Bearer,
        key: &RequestedKey,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        self.sign(key, tls::role_host(bearer.role), Some(bearer.uri()), now, lifetime)
    }

    /// A new key and certificate for the scheduler itself.
    pub(super) fn scheduler_credentials(&self) -> Result<Credentials, ConnectError> {
        let signed = KeyPair::generate()
            .and_then(|key| Ok((self.sign(&key, tls::SCHEDULER_HOST, None, SystemTime::now(), CA_VALIDITY)?, key)));
        let (certificate, key) = signed
            .map_err(|error| ConnectError::Start { what: "the scheduler's certificate".to_owned(), reason: error.to_string() })?;
        Ok(Credentials { certificate, key: PrivateKeyDer::from(key), ca: self.certificate.clone() })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        host: &str,
        uri: Option<String>,
        now: SystemTime,
        validity: Duration,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.distinguished_name = named(host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, validity);
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("quicsand cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From a day ago, since not all clocks are right.
fn set_validity(params: &mut CertificateParams, now: SystemTime, validity: Duration) {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + validity;
}
