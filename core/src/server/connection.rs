//! One connection, from its first packet to its end: handshake, joining or greeting, messages. Must not know: what messages do.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use quinn::{Connection, RecvStream, SendStream, ServerConfig, crypto::rustls::QuicServerConfig};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    blobs,
    hub::{Hub, Peer, Seat},
    operator::{self, OPERATORS},
    sessions::Session,
};
use crate::{
    abi,
    ids::{ClientId, Hash, WorkerId},
    net::{
        Ca,
        control::{self, ControlError, Inlet, Outbox, decode_one, read_frame, write_message},
        identity::{Bearer, role_name},
        tls,
        transport::{self, Close},
    },
    requirements::{name_fault, value_fault},
    scheduler::Event,
    wire::{
        self, FromClient, FromWorker, Hello, HelloError, JoinReply, JoinRequest, PROTOCOL, Proof, Role, ToClient, ToWorker,
        Validate, Welcome, WorkerHello,
    },
};

/// A peer has to get through handshake and greeting until then.
const GREETING: Duration = Duration::from_secs(10);
/// Of a join request: a signing request is a few hundred bytes.
const JOIN_LIMIT: usize = 16 << 10;
/// Of a hello: labels can be many.
const HELLO_LIMIT: usize = 64 << 10;
/// Of a peer's name: it is shown to people.
const NAME_LIMIT: usize = 256;
/// Labels and resources of a worker.
const LABELS: usize = 256;

/// Lets peers in.
pub(super) struct Gate {
    hub: Arc<Hub>,
    near: Arc<ServerConfig>,
    far: Arc<ServerConfig>,
    operators: Arc<Semaphore>,
    /// Clients that ask how things stand.
    onlookers: Arc<Semaphore>,
}

/// A peer that has said an acceptable hello.
struct Guest {
    bearer: Bearer,
    hello: Hello,
    send: SendStream,
    recv: RecvStream,
}

impl Gate {
    pub(super) fn new(crypto: &Arc<QuicServerConfig>, hub: &Arc<Hub>) -> Self {
        let config = |near| Arc::new(transport::server_config(crypto, near));
        Self {
            hub: Arc::clone(hub),
            near: config(true),
            far: config(false),
            operators: Arc::new(Semaphore::new(OPERATORS)),
            onlookers: Arc::new(Semaphore::new(OPERATORS)),
        }
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Sees a connection through to its end. The permit is given back once the peer is no stranger any more.
    pub(super) async fn receive(self: Arc<Self>, incoming: quinn::Incoming, permit: OwnedSemaphorePermit) {
        let from = canonical(incoming.remote_address());
        let config = if from.ip().is_loopback() { &self.near } else { &self.far };
        let handshake = async { incoming.accept_with(Arc::clone(config))?.await };
        let connection = match timeout(GREETING, handshake).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::warn!(%from, %error, "a handshake failed"),
            Err(_) => return tracing::warn!(%from, "a handshake took too long"),
        };
        if tls::alpn(&connection).as_deref() == Some(tls::ALPN_JOIN) {
            return self.join(&connection, from).await;
        }
        match timeout(GREETING, self.greet(&connection)).await {
            Ok(Ok(Ok(guest))) => {
                drop(permit);
                // An operator needs no more room than a stranger has.
                if !guest.hello.operator {
                    transport::admit(&connection);
                }
                self.host(connection, from, guest).await;
            }
            Ok(Ok(Err(error))) => {
                tracing::warn!(%from, %error, "a peer is not let in");
                control::part(&connection, Close::Refused, &error.to_string()).await;
            }
            Ok(Err(error)) => {
                tracing::warn!(%from, %error, "a greeting failed");
                Close::Protocol.close(&connection, &error.to_string());
            }
            Err(_) => Close::Protocol.close(&connection, "the greeting took too long"),
        }
    }

    /// Answers one request for a certificate.
    async fn join(&self, connection: &Connection, from: SocketAddr) {
        let answering = async {
            let (mut send, mut recv) = accept(connection).await?;
            let frame = read_frame(&mut recv, JOIN_LIMIT).await?;
            let (hub, bearer) = (Arc::clone(&self.hub), tls::bearer(connection));
            // The disk may take its time.
            let certified = tokio::task::spawn_blocking(move || certify(hub.ca(), &frame, bearer, SystemTime::now()));
            let certified = certified.await.unwrap_or_else(|error| Err(HelloError::Unable { reason: error.to_string() }));
            let answer = certified.map(|(bearer, reply)| {
                let (role, identity, renewed) = (role_name(bearer.role), bearer.identity, tls::bearer(connection).is_some());
                tracing::debug!(%from, role, %identity, renewed, "a peer has its certificate");
                reply
            });
            if let Err(error) = &answer {
                tracing::warn!(%from, %error, "a peer gets no certificate");
            }
            reply(&mut send, &answer).await
        };
        match timeout(GREETING, answering).await {
            Ok(Ok(())) => control::part(connection, Close::Done, "").await,
            Ok(Err(error)) => {
                tracing::warn!(%from, %error, "a join request failed");
                Close::Protocol.close(connection, &error.to_string());
            }
            Err(_) => Close::Protocol.close(connection, "the join request took too long"),
        }
    }

    /// Reads a hello. A peer that is refused is told so.
    async fn greet(&self, connection: &Connection) -> Result<Result<Guest, HelloError>, ControlError> {
        let (mut send, mut recv) = accept(connection).await?;
        control::prioritise(&send);
        let frame = read_frame(&mut recv, HELLO_LIMIT).await?;
        let checked = check_hello(&frame, tls::bearer(connection));
        let checked = checked.and_then(|(bearer, hello)| match self.hub.ca().is_revoked(bearer.identity) {
            true => Err(HelloError::Revoked),
            false => Ok((bearer, hello)),
        });
        Ok(match checked {
            Ok((bearer, hello)) => Ok(Guest { bearer, hello, send, recv }),
            Err(error) => {
                reply(&mut send, &Err::<Welcome, _>(error.clone())).await?;
                Err(error)
            }
        })
    }

    async fn host(&self, connection: Connection, from: SocketAddr, guest: Guest) {
        let Guest { bearer, hello, send, recv } = guest;
        if hello.operator {
            // Of their own, so that no client keeps operators out.
            let places = if bearer.role == Role::Operator { &self.operators } else { &self.onlookers };
            let Ok(_place) = places.try_acquire() else { return turn_away(&connection, from, send).await };
            tracing::debug!(%from, role = ?bearer.role, "an operator is here");
            return operator::attend(Arc::clone(&self.hub), &connection, bearer.role, send, recv).await;
        }
        if let (Some(claim @ wire::Session { client: Some(_), .. }), Some(module)) = (hello.session, hello.module) {
            let guest = Guest { bearer, hello, send, recv };
            return self.host_again(connection, from, guest, &claim, module).await;
        }
        let Some(number) = self.hub.number() else { return turn_away(&connection, from, send).await };
        let name = hello.name;
        match (hello.worker, hello.module.zip(hello.session.map(|session| session.secret))) {
            (Some(mut worker), _) => {
                let id = WorkerId(number);
                tracing::info!(worker = %id, %from, name, slots = worker.slots, "a worker is here");
                reachable(&mut worker, from);
                let welcome = Welcome::Worker { id, heartbeat_ms: self.hub.heartbeat().as_millis() as u64 };
                let joined = Event::WorkerJoined { worker: id, who: bearer.identity, name: name.clone(), hello: worker };
                let event = move |message: FromWorker| Event::FromWorker(id, message);
                let refusal = |reason| ToWorker::Refused { reason };
                let outbox = Outbox::new();
                let seat = Seat { who: bearer.identity, name, outbox: outbox.clone(), connection: connection.clone() };
                self.hub.seat(Peer::Worker(id), seat, joined);
                self.attend(Peer::Worker(id), connection, outbox, send, recv, welcome, event, refusal).await;
                tracing::info!(worker = %id, "a worker is gone");
            }
            (None, Some((module, secret))) => {
                let id = ClientId(number);
                tracing::info!(client = %id, %from, name, ?module, "a client is here");
                let outbox = Outbox::new();
                let seat =
                    Seat { who: bearer.identity, name: name.clone(), outbox: outbox.clone(), connection: connection.clone() };
                let module_wanted = self.hub.seat_client(id, seat, Session::new(bearer.identity, secret, name, module));
                // A client that was let in is known again, whatever happens to this process.
                self.hub.flushed().await;
                let welcome = Welcome::Client { id, credit: self.hub.credit(), applied: None, module_wanted };
                self.attend_client(id, connection, outbox, send, recv, welcome).await;
            }
            // `check_hello` lets no such hello of another role through.
            (None, None) => Close::Protocol.close(&connection, "neither client nor worker"),
        }
    }

    /// Lets a client go on that was here before.
    async fn host_again(&self, connection: Connection, from: SocketAddr, guest: Guest, claim: &wire::Session, module: Hash) {
        let Guest { bearer, hello, mut send, recv } = guest;
        let outbox = Outbox::new();
        let seat =
            || Seat { who: bearer.identity, name: hello.name.clone(), outbox: outbox.clone(), connection: connection.clone() };
        let Some((id, applied)) = self.hub.seat_again(bearer.identity, claim, seat) else {
            tracing::warn!(%from, name = hello.name, "a client that wants to go on is not known");
            // If it does not take the answer, it is gone, which is as well.
            let _ = timeout(GREETING, reply(&mut send, &Err::<Welcome, _>(HelloError::Forgotten))).await;
            return control::part(&connection, Close::Refused, "the client is not known").await;
        };
        tracing::info!(client = %id, %from, name = hello.name, "a client is here again");
        // It forgets what it hears was taken in.
        self.hub.flushed().await;
        let module_wanted = self.hub.modules.is_wanted(module);
        let welcome = Welcome::Client { id, credit: self.hub.credit(), applied: Some(applied), module_wanted };
        self.attend_client(id, connection, outbox, send, recv, welcome).await;
    }

    async fn attend_client(
        &self,
        id: ClientId,
        connection: Connection,
        outbox: Outbox,
        send: SendStream,
        recv: RecvStream,
        welcome: Welcome,
    ) {
        let event = move |message: FromClient| Event::FromClient(id, message);
        let refusal = |reason| ToClient::Refused { reason };
        self.attend(Peer::Client(id), connection, outbox, send, recv, welcome, event, refusal).await;
        tracing::info!(client = %id, "a client's connection is gone");
    }

    #[allow(clippy::too_many_arguments, reason = "one call of two, which differ in all of these")]
    async fn attend<M: DeserializeOwned + Validate, R: Serialize>(
        &self,
        peer: Peer,
        connection: Connection,
        outbox: Outbox,
        mut send: SendStream,
        recv: RecvStream,
        welcome: Welcome,
        event: impl Fn(M) -> Event,
        refusal: impl Fn(String) -> R,
    ) {
        // What is said to it meanwhile comes after the welcome.
        if write_message(&mut send, &Ok::<_, HelloError>(welcome)).await.is_err() {
            return self.hub.leave(peer, &outbox, false);
        }
        let streams = tokio::spawn(blobs::serve(Arc::clone(&self.hub), connection.clone(), peer));
        let writer = tokio::spawn(write(outbox.clone(), send, connection.clone()));
        let ended = self.listen(peer, &outbox, Inlet::new(recv), event).await;
        // Who says farewell, or breaks the protocol, does not come back.
        let is_farewell = match &ended {
            Ok(()) => true,
            Err(error) => error.is_violation() || Close::is_final(connection.close_reason()),
        };
        self.hub.leave(peer, &outbox, is_farewell);
        match ended {
            Ok(()) => Close::Done.close(&connection, ""),
            Err(error) if error.is_violation() => {
                tracing::warn!(?peer, %error, "a peer broke the protocol");
                // A message of one sentence fits.
                let _ = outbox.push(&refusal(error.to_string()));
                outbox.finish();
            }
            Err(error) => {
                tracing::debug!(?peer, %error, "a connection broke");
                outbox.finish();
            }
        }
        // Neither outlives the connection, which the writer ends at the latest.
        let _ = writer.await;
        let _ = streams.await;
    }

    async fn listen<M: DeserializeOwned + Validate>(
        &self,
        peer: Peer,
        outbox: &Outbox,
        mut inlet: Inlet,
        event: impl Fn(M) -> Event,
    ) -> Result<(), ControlError> {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                more = inlet.read(&mut batch) => {
                    if !more? {
                        return Ok(());
                    }
                    self.hub.room_to_record().await;
                    self.hub.feed(peer, outbox, batch.drain(..).map(&event));
                }
                () = outbox.room() => self.hub.has_room(peer, outbox),
            }
        }
    }
}

/// Answers a request for a certificate: for a token, or for the certificate that the peer showed.
pub(super) fn certify(ca: &Ca, frame: &[u8], shown: Option<Bearer>, now: SystemTime) -> Result<(Bearer, JoinReply), HelloError> {
    check_version(frame)?;
    let JoinRequest { role, proof, csr, .. } = decode_one(frame).map_err(malformed)?;
    match proof {
        Proof::Token(secret) => ca.certify(role, &secret, &csr, now),
        Proof::Certificate => {
            let bearer = shown.filter(|bearer| bearer.role == role).ok_or(HelloError::Role)?;
            Ok((bearer, ca.renew(bearer, &csr, now)?))
        }
    }
}

/// Says that there are too many peers.
async fn turn_away(connection: &Connection, from: SocketAddr, mut send: SendStream) {
    tracing::warn!(%from, "a peer is refused: there are too many");
    // If it does not take the answer, it is gone, which is as well.
    let _ = timeout(GREETING, reply(&mut send, &Err::<Welcome, _>(HelloError::Full))).await;
    control::part(connection, Close::Refused, "full").await;
}

/// Writes to the end, and then ends the connection if the peer does not.
async fn write(outbox: Outbox, send: SendStream, connection: Connection) {
    match outbox.write_to(send).await {
        Ok(()) => control::part(&connection, Close::Done, "").await,
        Err(error) => Close::Stalled.close(&connection, &error.to_string()),
    }
}

async fn accept(connection: &Connection) -> Result<(SendStream, RecvStream), ControlError> {
    connection.accept_bi().await.map_err(|error| ControlError::Lost(error.to_string()))
}

/// Says the last thing on a stream.
async fn reply<T: Serialize>(send: &mut SendStream, answer: &T) -> Result<(), ControlError> {
    write_message(send, answer).await?;
    // An error means that it has ended already.
    let _ = send.finish();
    Ok(())
}

/// The version comes first in whatever a peer says first, in all versions.
fn check_version(frame: &[u8]) -> Result<(), HelloError> {
    let (theirs, _) = postcard::take_from_bytes::<u32>(frame).map_err(|error| malformed(error.to_string()))?;
    if theirs == PROTOCOL { Ok(()) } else { Err(HelloError::Version { ours: PROTOCOL, theirs }) }
}

pub(super) fn check_hello(frame: &[u8], bearer: Option<Bearer>) -> Result<(Bearer, Hello), HelloError> {
    check_version(frame)?;
    let hello: Hello = decode_one(frame).map_err(malformed)?;
    let bearer = bearer.ok_or(HelloError::Role)?;
    if hello.name.len() > NAME_LIMIT {
        return Err(malformed("a name of more than 256 bytes"));
    }
    match (bearer.role, &hello.worker, hello.module) {
        // Neither builds nor runs a module, so that its ABI does not matter.
        (Role::Operator | Role::Client, None, _) if hello.operator => return Ok((bearer, hello)),
        _ if hello.operator => return Err(HelloError::Role),
        (Role::Operator, _, _) | (Role::Client, Some(_), _) | (Role::Worker, None, _) => return Err(HelloError::Role),
        (Role::Client, None, None) => return Err(malformed("a client without a module")),
        (Role::Client, None, Some(_)) if hello.session.is_none() => return Err(malformed("a client without a session")),
        (Role::Worker, Some(worker), _) if worker.slots == 0 => return Err(malformed("a worker without slots")),
        (Role::Worker, Some(WorkerHello { labels, resources, .. }), _) => {
            if labels.len() + resources.len() > LABELS {
                return Err(malformed("more than 256 labels and resources"));
            }
            let names = labels.iter().map(|(name, _)| name).chain(resources.iter().map(|(name, _)| name));
            let fault = names.into_iter().find_map(|name| name_fault(name));
            // They are shown to people, who must see one line.
            if let Some(fault) = fault.or_else(|| labels.iter().find_map(|(_, value)| value_fault(value))) {
                return Err(malformed(fault));
            }
        }
        (Role::Client, None, Some(_)) => {}
    }
    if hello.abi != abi::VERSION {
        return Err(HelloError::Abi { ours: abi::VERSION, theirs: hello.abi });
    }
    Ok((bearer, hello))
}

fn malformed(reason: impl ToString) -> HelloError {
    HelloError::Malformed { reason: reason.to_string() }
}

/// An IPv4 peer of an IPv6 socket is an IPv4 peer, to others too.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A worker that serves on all interfaces cannot know which one others see.
fn reachable(worker: &mut WorkerHello, from: SocketAddr) {
    if let Some(listen) = &mut worker.listen
        && listen.ip().is_unspecified()
    {
        listen.set_ip(from.ip());
    }
}
