//! How a peer gets in: address, token, certificate, greeting. Must not know: what it does inside.

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig};
use rustls::pki_types::PrivateKeyDer;
use tokio::time::{sleep, timeout};

use super::{
    control::{self, ControlError, read_message, write_message},
    identity,
    pass::Pass,
    tls::{self, Keyring},
    transport::{self, Close},
};
use crate::{
    ConnectError,
    ids::Hash,
    wire::{Hello, HelloError, JoinReply, JoinRequest, PROTOCOL, Proof, Role, Welcome},
};

/// Nobody answers if nobody has until then.
const CONNECT: Duration = Duration::from_secs(5);
/// The other side's time for a greeting, once connected.
const GREETING: Duration = Duration::from_secs(10);
/// Pauses before a certificate is asked for again, the first and the longest one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_SLEEP: Duration = Duration::from_secs(300);
/// Greetings are small.
const FRAME_LIMIT: usize = 64 << 10;

/// Where the scheduler is: as given, and resolved.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) text: String,
    pub(crate) socket: SocketAddr,
}

/// A peer that is connected, and certified.
pub(crate) struct Approached {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: Address,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) connection: Connection,
}

/// A peer that is in.
pub(crate) struct Greeted {
    pub(crate) approached: Approached,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) welcome: Welcome,
}

/// Finds the scheduler, gets a certificate there unless there is a good one, and says hello. `hello` is asked for once the certificate is
/// in hand, and again if the scheduler does not accept it and there is a token to get another one with.
pub(crate) async fn enter(
    pass: &Pass,
    mut hello: impl FnMut(&Approached) -> Result<Hello, ConnectError>,
) -> Result<Greeted, ConnectError> {
    let had_certificate = pass.keyring(SystemTime::now()).is_some();
    let entered = try_to_enter(pass, &mut hello).await;
    match entered {
        Err(ConnectError::CertificateRefused { reason, .. } | ConnectError::Certificate { reason, .. })
            if had_certificate && pass.discard() =>
        {
            tracing::info!(reason, "the certificate is of no use any more, joining with the token");
            try_to_enter(pass, &mut hello).await
        }
        other => other,
    }
}

async fn try_to_enter(
    pass: &Pass,
    hello: &mut impl FnMut(&Approached) -> Result<Hello, ConnectError>,
) -> Result<Greeted, ConnectError> {
    let approached = approach(pass).await?;
    let hello = hello(&approached)?;
    greet(approached, pass.role, &hello).await
}

/// Finds the scheduler and connects to it with the certificate that there is, or else gets one first.
pub(crate) async fn approach(pass: &Pass) -> Result<Approached, ConnectError> {
    let mut candidates: Vec<SocketAddr> = resolve(&pass.address).await?;
    candidates.sort_by_key(|address| !address.is_ipv4());
    candidates.dedup();
    let patience = CONNECT / u32::try_from(candidates.len().clamp(1, 3)).unwrap_or(1);
    let mut failure = None;
    for socket in candidates {
        let address = Address { text: pass.address.clone(), socket };
        match approach_at(address, pass, patience).await {
            Ok(approached) => return Ok(approached),
            Err(error @ ConnectError::Unreachable { .. }) => failure = failure.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| bad_address(&pass.address, "it resolves to nothing")))
}

async fn approach_at(address: Address, pass: &Pass, patience: Duration) -> Result<Approached, ConnectError> {
    // A client may have to reach workers anywhere; a worker also serves on this socket.
    let bind = transport::bind_address(address.socket, pass.role == Role::Worker);
    let endpoint = transport::endpoint(bind, None, None).map_err(start_failed)?;
    let keyring = match pass.keyring(SystemTime::now()) {
        Some(keyring) => keyring,
        None => join(pass, &endpoint, &address, patience).await?,
    };
    let config = tls::main_client(&keyring).map_err(start_failed)?;
    let connection = connect(&endpoint, &address, &config, patience).await?;
    Ok(Approached { endpoint, address, keyring, connection })
}

/// Says hello, and hears whether the peer is let in.
pub(crate) async fn greet(approached: Approached, role: Role, hello: &Hello) -> Result<Greeted, ConnectError> {
    let Approached { connection, address, .. } = &approached;
    let greeting = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| ControlError::Lost(error.to_string()))?;
        control::prioritise(&send);
        write_message(&mut send, hello).await?;
        let answer: Result<Welcome, HelloError> = read_message(&mut recv, FRAME_LIMIT).await?;
        Ok((send, recv, answer))
    };
    let (send, recv, answer) = answered(connection, address, greeting).await?;
    match answer {
        Ok(welcome) => Ok(Greeted { approached, send, recv, welcome }),
        Err(error) => {
            Close::Done.close(connection, "");
            Err(refused(address, role, error))
        }
    }
}

/// Renews the certificate whenever it is due, for as long as the future is polled or until that is of no use. New connections then show
/// the new one; those that there are stay.
pub(crate) async fn keep_certified(pass: &Pass, endpoint: &Endpoint, address: &Address, keyring: &Arc<Keyring>) {
    let mut pause = FIRST_RETRY;
    while let Some(due) = pass.renewal(SystemTime::now()) {
        if !due.is_zero() {
            // Looked at again now and then: a machine that sleeps stops this clock, but not the certificate's.
            sleep(due.min(LONGEST_SLEEP)).await;
            continue;
        }
        match renew(pass, endpoint, address, keyring).await {
            Ok(()) => {
                tracing::debug!("the certificate is renewed");
                pause = FIRST_RETRY;
            }
            Err(error @ (ConnectError::Revoked { .. } | ConnectError::Version { .. })) => {
                return tracing::warn!(%error, "the certificate is not renewed");
            }
            Err(error) => {
                tracing::warn!(%error, "the certificate could not be renewed, trying again later");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_SLEEP);
            }
        }
    }
}

/// Gets another certificate with the present one.
pub(crate) async fn renew(
    pass: &Pass,
    endpoint: &Endpoint,
    address: &Address,
    keyring: &Arc<Keyring>,
) -> Result<(), ConnectError> {
    let config = tls::renewal_client(keyring).map_err(start_failed)?;
    let connection = connect(endpoint, address, &config, CONNECT).await?;
    let (key, reply) = ask(&connection, address, pass.role, Proof::Certificate).await?;
    pass.renew(keyring, key, reply, SystemTime::now()).map_err(|error| certificate_error(address, error))
}

/// What a `Welcome` of the wrong kind comes to.
pub(crate) fn wrong_welcome(address: &Address) -> ConnectError {
    ConnectError::Refused { address: address.text.clone(), reason: "it answered with another role's welcome".to_owned() }
}

/// An error of this machine rather than of the network.
pub(crate) fn start_failed(error: impl ToString) -> ConnectError {
    ConnectError::Start { what: "the network transport".to_owned(), reason: error.to_string() }
}

async fn resolve(text: &str) -> Result<Vec<SocketAddr>, ConnectError> {
    let has_port =
        text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if !has_port {
        return Err(bad_address(text, "it has no port"));
    }
    match timeout(CONNECT, tokio::net::lookup_host(text)).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(bad_address(text, error)),
        Err(_) => Err(bad_address(text, "the name service does not answer")),
    }
}

/// Gets the first certificate.
async fn join(pass: &Pass, endpoint: &Endpoint, address: &Address, patience: Duration) -> Result<Arc<Keyring>, ConnectError> {
    let token = pass.token()?;
    let config = tls::join_client(token.fingerprint).map_err(start_failed)?;
    let connection = connect(endpoint, address, &config, patience).await?;
    let ca = tls::certificates(&connection).into_iter().find(|certificate| Hash::of(certificate) == token.fingerprint);
    let (key, reply) = ask(&connection, address, token.role, Proof::Token(token.secret)).await?;
    let ca = ca.ok_or_else(|| certificate_error(address, "it did not show the CA"))?;
    pass.receive(token, ca, key, reply, SystemTime::now()).map_err(|error| certificate_error(address, error))
}

/// Asks for a certificate, for a new key.
async fn ask(
    connection: &Connection,
    address: &Address,
    role: Role,
    proof: Proof,
) -> Result<(PrivateKeyDer<'static>, JoinReply), ConnectError> {
    let (key, csr) = identity::new_request().map_err(start_failed)?;
    let request = JoinRequest { protocol: PROTOCOL, role, proof, csr };
    let asking = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| ControlError::Lost(error.to_string()))?;
        write_message(&mut send, &request).await?;
        let answer: Result<JoinReply, HelloError> = read_message(&mut recv, FRAME_LIMIT).await?;
        Ok(answer)
    };
    let answer = answered(connection, address, asking).await?;
    Close::Done.close(connection, "");
    Ok((PrivateKeyDer::from(key), answer.map_err(|error| refused(address, role, error))?))
}

async fn connect(
    endpoint: &Endpoint,
    address: &Address,
    config: &Arc<QuicClientConfig>,
    patience: Duration,
) -> Result<Connection, ConnectError> {
    let config = transport::client_config(config, address.socket);
    let connecting =
        endpoint.connect_with(config, address.socket, tls::SCHEDULER_HOST).map_err(|error| bad_address(&address.text, error))?;
    match timeout(patience, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(connection_failed(address, &error)),
        Err(_) => Err(unreachable(address, format!("no answer within {} s", patience.as_secs_f32()))),
    }
}

/// Runs a greeting; when it fails, the reason that the connection was closed for says more than the stream's.
async fn answered<T>(
    connection: &Connection,
    address: &Address,
    greeting: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ConnectError> {
    let failure = match timeout(GREETING, greeting).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer the greeting".to_owned(),
    };
    match connection.close_reason() {
        Some(reason) => Err(connection_failed(address, &reason)),
        None => {
            Close::Protocol.close(connection, "");
            Err(ConnectError::Refused { address: address.text.clone(), reason: failure })
        }
    }
}

fn connection_failed(address: &Address, error: &ConnectionError) -> ConnectError {
    match error {
        ConnectionError::TransportError(error) if is_tls(error.code) => certificate_error(address, &error.reason),
        ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            ConnectError::CertificateRefused { address: address.text.clone(), reason }
        }
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            ConnectError::Refused { address: address.text.clone(), reason }
        }
        other => unreachable(address, other),
    }
}

/// Whether a QUIC error code is a TLS alert.
fn is_tls(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

fn refused(address: &Address, role: Role, error: HelloError) -> ConnectError {
    match error {
        HelloError::Version { ours, theirs } => {
            ConnectError::Version { address: address.text.clone(), ours: theirs, theirs: ours }
        }
        HelloError::Token(why) => ConnectError::TokenRefused { address: address.text.clone(), why },
        HelloError::Forgotten => ConnectError::Forgotten { address: address.text.clone() },
        HelloError::Revoked => ConnectError::Revoked { address: address.text.clone(), role: identity::role_name(role) },
        other => ConnectError::Refused { address: address.text.clone(), reason: other.to_string() },
    }
}

fn bad_address(address: &str, reason: impl ToString) -> ConnectError {
    ConnectError::Address { address: address.to_owned(), reason: reason.to_string() }
}

fn unreachable(address: &Address, reason: impl ToString) -> ConnectError {
    ConnectError::Unreachable { address: address.text.clone(), reason: reason.to_string() }
}

fn certificate_error(address: &Address, reason: impl ToString) -> ConnectError {
    ConnectError::Certificate { address: address.text.clone(), reason: reason.to_string() }
}
