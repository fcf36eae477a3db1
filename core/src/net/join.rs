//! How a peer gets in: address, token, certificate, greeting. Must not know: what it does inside.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

use super::{
    Token,
    control::{self, ControlError, read_message, write_message},
    identity::{self, Credentials},
    tls,
    transport::{self, Close},
};
use crate::{
    ConnectError,
    ids::Hash,
    wire::{Hello, HelloError, JoinReply, JoinRequest, PROTOCOL, Role, Welcome},
};

/// Nobody answers if nobody has until then.
const CONNECT: Duration = Duration::from_secs(5);
/// The other side's time for a greeting, once connected.
const GREETING: Duration = Duration::from_secs(10);
/// Greetings are small.
const FRAME_LIMIT: usize = 64 << 10;

/// Where the scheduler is: as given, and resolved.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) text: String,
    pub(crate) socket: SocketAddr,
}

/// A peer that is in.
pub(crate) struct Greeted {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) welcome: Welcome,
}

/// Finds the scheduler and gets a certificate there. The endpoint is to be used again.
pub(crate) async fn join(text: &str, token: &Token) -> Result<(Endpoint, Address, Credentials), ConnectError> {
    let mut candidates: Vec<SocketAddr> = resolve(text).await?;
    candidates.sort_by_key(|address| !address.is_ipv4());
    candidates.dedup();
    let patience = CONNECT / u32::try_from(candidates.len().clamp(1, 3)).unwrap_or(1);
    let mut failure = None;
    for socket in candidates {
        let address = Address { text: text.to_owned(), socket };
        match join_at(&address, token, patience).await {
            Ok((endpoint, credentials)) => return Ok((endpoint, address, credentials)),
            Err(error @ ConnectError::Unreachable { .. }) => failure = failure.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| bad_address(text, "it resolves to nothing")))
}

/// Connects as a certified peer and says hello.
pub(crate) async fn greet(
    endpoint: &Endpoint,
    address: &Address,
    credentials: &Credentials,
    hello: &Hello,
) -> Result<Greeted, ConnectError> {
    let config = tls::main_client(credentials).map_err(start_failed)?;
    let connection = connect(endpoint, address, &config, CONNECT).await?;
    let greeting = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| ControlError::Lost(error.to_string()))?;
        control::prioritise(&send);
        write_message(&mut send, hello).await?;
        let answer: Result<Welcome, HelloError> = read_message(&mut recv, FRAME_LIMIT).await?;
        Ok((send, recv, answer))
    };
    let (send, recv, answer) = answered(&connection, address, greeting).await?;
    match answer {
        Ok(welcome) => Ok(Greeted { endpoint: endpoint.clone(), connection, send, recv, welcome }),
        Err(error) => {
            Close::Done.close(&connection, "");
            Err(refused(address, error))
        }
    }
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

async fn join_at(address: &Address, token: &Token, patience: Duration) -> Result<(Endpoint, Credentials), ConnectError> {
    // A client may have to reach workers anywhere; a worker also serves on this socket.
    let bind = transport::bind_address(address.socket, token.role == Role::Worker);
    let endpoint = transport::endpoint(bind, None).map_err(start_failed)?;
    let config = tls::join_client(token.fingerprint).map_err(start_failed)?;
    let (key, csr) = identity::new_request().map_err(start_failed)?;
    let connection = connect(&endpoint, address, &config, patience).await?;
    let ca = tls::certificates(&connection).into_iter().find(|certificate| Hash::of(certificate) == token.fingerprint);
    let request = JoinRequest { protocol: PROTOCOL, role: token.role, secret: token.secret, csr };
    let asking = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| ControlError::Lost(error.to_string()))?;
        write_message(&mut send, &request).await?;
        let answer: Result<JoinReply, HelloError> = read_message(&mut recv, FRAME_LIMIT).await?;
        Ok(answer)
    };
    let answer = answered(&connection, address, asking).await?;
    Close::Done.close(&connection, "");
    let reply = answer.map_err(|error| refused(address, error))?;
    let ca = ca.ok_or_else(|| certificate_error(address, "it did not show the CA"))?;
    let certificate = CertificateDer::from(reply.certificate);
    Ok((endpoint, Credentials { certificate, key: PrivateKeyDer::from(key), ca }))
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
            let said = String::from_utf8_lossy(&close.reason);
            ConnectError::Refused {
                address: address.text.clone(),
                reason: format!("it does not accept the certificate ({said})"),
            }
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

fn refused(address: &Address, error: HelloError) -> ConnectError {
    match error {
        HelloError::Version { ours, theirs } => {
            ConnectError::Version { address: address.text.clone(), ours: theirs, theirs: ours }
        }
        HelloError::Token => ConnectError::Token { reason: format!("the scheduler at {} does not know it", address.text) },
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
