//! TLS configurations: who must prove what to whom. Always TLS 1.3 with the ring provider, never the process's default; no 0-RTT, no
//! resumption.
//!
//! | connection | client shows | server shows |
//! | --- | --- | --- |
//! | join (`quicsand-join/1`), with a token | nothing | a certificate for [`SCHEDULER_HOST`], and the CA whose fingerprint the token names |
//! | join, with a certificate | a certificate of the CA | a certificate of the CA for [`SCHEDULER_HOST`] |
//! | main (`quicsand/1`), to the scheduler | a certificate of the CA | a certificate of the CA for [`SCHEDULER_HOST`] |
//! | main, to a worker | a certificate of the CA | a certificate of the CA for [`WORKER_HOST`] |

use std::sync::Arc;

use parking_lot::RwLock;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::identity::{Bearer, Credentials};
use crate::{ids::Hash, wire::Role};

/// The join protocol. Its version changes only if the TLS part does: everything else has `PROTOCOL`.
pub(crate) const ALPN_JOIN: &[u8] = b"quicsand-join/1";
/// Everything else.
pub(crate) const ALPN_MAIN: &[u8] = b"quicsand/1";
/// The scheduler's name in its certificate, wherever it runs.
pub(crate) const SCHEDULER_HOST: &str = "scheduler.quicsand";
/// Every worker's.
pub(crate) const WORKER_HOST: &str = "worker.quicsand";
const CLIENT_HOST: &str = "client.quicsand";
const OPERATOR_HOST: &str = "operator.quicsand";

/// The name in a peer's certificate that its role has.
pub(crate) fn role_host(role: Role) -> &'static str {
    match role {
        Role::Client => CLIENT_HOST,
        Role::Worker => WORKER_HOST,
        Role::Operator => OPERATOR_HOST,
    }
}

/// Fresh random bytes; `None` if the system has none to give.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    provider().secure_random.fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether the owner of this P-256 key signed the message (with SHA-256).
pub(crate) fn verify_p256(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let algorithms = provider().signature_verification_algorithms;
    let schemes = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256);
    schemes
        .flat_map(|(_, algorithms)| algorithms.iter())
        .any(|algorithm| algorithm.verify_signature(point, message, signature).is_ok())
}

/// Checks that the CA signed this server's certificate, for this name.
pub(crate) fn verify_server(ca: &CertificateDer<'_>, certificate: &CertificateDer<'_>, host: &'static str) -> Result<(), Error> {
    let host = ServerName::try_from(host).map_err(|error| Error::General(error.to_string()))?;
    web_pki(ca)?.verify_server_cert(certificate, &[], &host, &[], UnixTime::now()).map(|_| ())
}

/// For asking to be certified: trusts the CA with that fingerprint.
pub(crate) fn join_client(fingerprint: Hash) -> Result<Arc<QuicClientConfig>, Error> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { fingerprint, provider: provider() }))
        .with_no_client_auth();
    quic_client(config, ALPN_JOIN)
}

/// For asking for another certificate: trusts the cluster's CA, and shows the present one.
pub(crate) fn renewal_client(keyring: &Arc<Keyring>) -> Result<Arc<QuicClientConfig>, Error> {
    certified_client(keyring, ALPN_JOIN)
}

/// For a certified peer: trusts the cluster's CA, and shows whatever certificate it has at the time.
pub(crate) fn main_client(keyring: &Arc<Keyring>) -> Result<Arc<QuicClientConfig>, Error> {
    certified_client(keyring, ALPN_MAIN)
}

fn certified_client(keyring: &Arc<Keyring>, alpn: &[u8]) -> Result<Arc<QuicClientConfig>, Error> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(&keyring.ca)?)
        .with_client_cert_resolver(Arc::clone(keyring) as Arc<_>);
    quic_client(config, alpn)
}

/// For the scheduler: certified peers, and such as want to be.
pub(crate) fn scheduler_server(credentials: &Credentials) -> Result<Arc<QuicServerConfig>, Error> {
    let verifier =
        client_verifier(&credentials.ca)?.allow_unauthenticated().build().map_err(|error| Error::General(error.to_string()))?;
    let chain = vec![credentials.certificate.clone(), credentials.ca.clone()];
    let shown = CertifiedKey::from_der(chain, credentials.key.clone_key(), &provider())?;
    let shown = SingleCertAndKey::from(shown);
    quic_server(Arc::new(shown), verifier, &[ALPN_MAIN, ALPN_JOIN])
}

/// For a worker, who shows whatever certificate it has at the time: certified peers only.
pub(crate) fn worker_server(keyring: &Arc<Keyring>) -> Result<Arc<QuicServerConfig>, Error> {
    let verifier = client_verifier(&keyring.ca)?.build().map_err(|error| Error::General(error.to_string()))?;
    quic_server(Arc::clone(keyring) as Arc<_>, verifier, &[ALPN_MAIN])
}

/// The certificate that a peer shows, as client and server. Configurations made with it show the new one once it is
/// [replaced](Keyring::replace), to new connections; those that there are stay as they are.
pub(crate) struct Keyring {
    ca: CertificateDer<'static>,
    shown: RwLock<Arc<CertifiedKey>>,
}

impl Keyring {
    /// Fails if the key is not the certificate's.
    pub(crate) fn new(credentials: Credentials) -> Result<Self, Error> {
        let Credentials { certificate, key, ca } = credentials;
        Ok(Self { ca, shown: RwLock::new(certified(certificate, key)?) })
    }

    /// Shows another certificate from now on.
    pub(crate) fn replace(&self, certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Result<(), Error> {
        *self.shown.write() = certified(certificate, key)?;
        Ok(())
    }

    /// The cluster's.
    pub(crate) fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// The one that is shown now.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.shown.read().cert.first().cloned()
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("bearer", &self.certificate().and_then(|shown| Bearer::of(&shown)))
            .finish_non_exhaustive()
    }
}

impl ResolvesClientCert for Keyring {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Keyring {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read()))
    }
}

fn certified(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Result<Arc<CertifiedKey>, Error> {
    CertifiedKey::from_der(vec![certificate], key, &provider()).map(Arc::new)
}

/// What an established connection is for.
pub(crate) fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// The certificates that the peer showed; its own first.
pub(crate) fn certificates(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    identity.map_or_else(Vec::new, |certificates| *certificates)
}

/// Whom an established connection's certificate names.
pub(crate) fn bearer(connection: &quinn::Connection) -> Option<Bearer> {
    Bearer::of(certificates(connection).first()?)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn roots(ca: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    Ok(Arc::new(roots))
}

fn web_pki(ca: &CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(roots(ca)?, provider()).build().map_err(|error| Error::General(error.to_string()))
}

fn client_verifier(ca: &CertificateDer<'_>) -> Result<rustls::server::ClientCertVerifierBuilder, Error> {
    let none: [DistinguishedName; 0] = [];
    Ok(WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider()).add_root_hint_subjects(none))
}

fn quic_client(mut config: rustls::ClientConfig, alpn: &[u8]) -> Result<Arc<QuicClientConfig>, Error> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map(Arc::new).map_err(|error| Error::General(error.to_string()))
}

fn quic_server(
    shown: Arc<dyn ResolvesServerCert>,
    verifier: Arc<dyn ClientCertVerifier>,
    alpn: &[&[u8]],
) -> Result<Arc<QuicServerConfig>, Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map(Arc::new).map_err(|error| Error::General(error.to_string()))
}

/// Trusts a server that shows the CA with this fingerprint and a certificate that this CA signed.
#[derive(Debug)]
struct Pinned {
    fingerprint: Hash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| Hash::of(certificate) == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        web_pki(ca)?.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
