//! The cluster's certificate authority: its key, its tokens' secrets, the certificates that it signs. Must not know: connections.
//!
//! On disk it is a directory of `ca.pem` (public), `ca-key.pem`, `client.token` and `worker.token` (readable by their owner only).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    Token,
    identity::{Bearer, Credentials, RequestedKey, role_name},
    tls,
};
use crate::{
    ConnectError,
    ids::{Hash, Identity},
    wire::Role,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A joiner's certificate. Established connections outlive it; whoever connects anew joins again.
const PEER_VALIDITY: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The CA's own, and the scheduler's, whose key lives no longer than its process.
const CA_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);

/// A cluster's certificate authority.
pub struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    client_secret: [u8; 32],
    worker_secret: [u8; 32],
}

/// What goes to disk.
struct Pems {
    certificate: String,
    key: String,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Ca {
    /// A new one that lives no longer than this value.
    ///
    /// # Errors
    /// [`ConnectError::Start`] when the system gives no randomness.
    pub fn in_memory() -> Result<Self, ConnectError> {
        Ok(Self::generate().map_err(|error| failed("the cluster's CA", error))?.0)
    }

    /// The one of that directory; a new one, saved there, if there is none.
    ///
    /// # Errors
    /// [`ConnectError::Start`] when the directory cannot be read or written, or what is in it is damaged.
    pub fn load_or_create(directory: &Path) -> Result<Self, ConnectError> {
        let what = || format!("the cluster's CA in {}", directory.display());
        if directory.join("ca.pem").exists() {
            return Self::load(directory).map_err(|reason| ConnectError::Start { what: what(), reason });
        }
        let (ca, pems) = Self::generate().map_err(|error| failed(what(), error))?;
        ca.save(directory, &pems).map_err(|error| failed(what(), error))?;
        Ok(ca)
    }

    /// What a peer needs to join.
    #[must_use]
    pub fn token(&self, role: Role) -> Token {
        Token { role, fingerprint: self.fingerprint(), secret: *self.secret(role) }
    }

    /// Whether a token of that role has this secret; takes the same time whatever the answer.
    pub(crate) fn admits(&self, role: Role, secret: &[u8; 32]) -> bool {
        blake3::Hash::from(*self.secret(role)) == blake3::Hash::from(*secret)
    }

    /// Signs a certificate with a new identity for the key of a signing request; `None` if the request is not sound.
    pub(crate) fn certify(&self, role: Role, csr: &[u8]) -> Option<CertificateDer<'static>> {
        let key = RequestedKey::of(csr)?;
        let bearer = Bearer { role, identity: Identity(tls::random()?) };
        self.sign(&key, tls::role_host(role), Some(bearer.uri()), PEER_VALIDITY).ok()
    }

    /// A new key and certificate for the scheduler itself.
    pub(crate) fn scheduler_credentials(&self) -> Result<Credentials, ConnectError> {
        let signed = KeyPair::generate().and_then(|key| Ok((self.sign(&key, tls::SCHEDULER_HOST, None, CA_VALIDITY)?, key)));
        let (certificate, key) = signed.map_err(|error| failed("the scheduler's certificate", error))?;
        Ok(Credentials { certificate, key: PrivateKeyDer::from(key), ca: self.certificate.clone() })
    }

    fn secret(&self, role: Role) -> &[u8; 32] {
        match role {
            Role::Client => &self.client_secret,
            Role::Worker => &self.worker_secret,
        }
    }

    fn fingerprint(&self) -> Hash {
        Hash::of(&self.certificate)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        host: &str,
        uri: Option<String>,
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
        set_validity(&mut params, validity);
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }

    fn generate() -> Result<(Self, Pems), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = ca_params();
        set_validity(&mut params, CA_VALIDITY);
        let signed = params.self_signed(&key)?;
        let pems = Pems { certificate: signed.pem(), key: key.serialize_pem() };
        let certificate = signed.der().clone();
        let secret = || tls::random().ok_or(rcgen::Error::RingUnspecified);
        let ca = Self { certificate, issuer: Issuer::new(params, key), client_secret: secret()?, worker_secret: secret()? };
        Ok((ca, pems))
    }

    fn load(directory: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let certificate = CertificateDer::from_pem_slice(read("ca.pem")?.as_bytes())
            .map_err(|error| format!("ca.pem is damaged: {error}; remove the directory to make a new cluster"))?;
        let key = KeyPair::from_pem(&read("ca-key.pem")?).map_err(|error| format!("ca-key.pem is damaged: {error}"))?;
        let fingerprint = Hash::of(&certificate);
        let secret = |role: Role| {
            let name = token_file(role);
            let token: Token = read(&name)?.parse().map_err(|error| format!("{name} is damaged: {error}"))?;
            (token.role == role && token.fingerprint == fingerprint)
                .then_some(token.secret)
                .ok_or_else(|| format!("{name} belongs to another cluster than ca.pem"))
        };
        let (client_secret, worker_secret) = (secret(Role::Client)?, secret(Role::Worker)?);
        let ca = Self { certificate, issuer: Issuer::new(ca_params(), key), client_secret, worker_secret };
        // A key that is not the certificate's would sign what nobody accepts: better to say so now.
        let credentials = ca.scheduler_credentials().map_err(|error| error.to_string())?;
        tls::verify_server(&credentials.ca, &credentials.certificate, tls::SCHEDULER_HOST)
            .map_err(|error| format!("ca-key.pem does not belong to ca.pem: {error}"))?;
        Ok(ca)
    }

    fn save(&self, directory: &Path, pems: &Pems) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        write_private(&directory.join("ca-key.pem"), &pems.key)?;
        for role in [Role::Client, Role::Worker] {
            write_private(&directory.join(token_file(role)), &format!("{}\n", self.token(role)))?;
        }
        // Last: a directory with a `ca.pem` is complete.
        write_private(&directory.join("ca.pem"), &pems.certificate)
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
fn set_validity(params: &mut CertificateParams, validity: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + validity;
}

fn token_file(role: Role) -> String {
    format!("{}.token", role_name(role))
}

fn failed(what: impl Into<String>, error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Start { what: what.into(), reason: error.to_string() }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
