//! Sockets and QUIC parameters, for machines near each other. Must not know: what is sent.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::resets::Resets;

/// A connection without any packet for so long is dead. Packets are sent every [`KEEP_ALIVE`] at the least.
const IDLE_TIMEOUT_MS: u32 = 4000;
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Bytes that a peer may send on one stream before they are read: they fill a 10 Gbit/s path of 6 ms.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Streams that an admitted peer may have open.
const STREAMS: u32 = 256;
/// As the stream's, on all of a connection's streams: as much as all may take, so that blobs that nobody reads never keep the control
/// stream waiting.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * (STREAMS + 1);
/// As above, of peers that have not proved who they are.
const STRANGER_WINDOW_BYTES: u32 = 256 << 10;
/// Asked of the system for each direction; it may give less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Sent at once on a new connection: slow start on a LAN only costs time.
const INITIAL_WINDOW_BYTES: u64 = 256 << 10;
/// Largest datagram on loopback. Ten of them go out in one system call, which takes at most 64 KiB.
const LOOPBACK_DATAGRAM_BYTES: u16 = 6500;
/// Largest datagram elsewhere, if the path lets it through: a jumbo frame's payload.
const LAN_DATAGRAM_BYTES: u16 = 8900;

/// Why connections are closed, for the other side's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// All is said.
    Done = 0,
    /// The peer broke the protocol.
    Protocol = 1,
    /// The peer is not let in, or not any more.
    Refused = 2,
    /// This side is shutting down.
    Shutdown = 3,
    /// The peer does not read what it is sent.
    Stalled = 4,
    /// This side gives the connection up and may come again on another one.
    Again = 5,
}

impl Close {
    /// Closes the connection at once; what was not delivered is lost.
    pub(crate) fn close(self, connection: &Connection, reason: &str) {
        connection.close(self.code(), reason.as_bytes());
    }

    /// Whether the peer has ended the connection for good: it did not break, and the peer will not come again or be there again.
    pub(crate) fn is_final(reason: Option<ConnectionError>) -> bool {
        let Some(ConnectionError::ApplicationClosed(close)) = reason else { return false };
        [Self::Done, Self::Protocol, Self::Refused].into_iter().any(|last| last.code() == close.error_code)
    }

    /// The number on the wire.
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// A UDP endpoint at this address, also a server if `server` is given, and one that [resets](Resets) what it does not know any more if
/// `resets` are.
pub(crate) fn endpoint(
    address: SocketAddr,
    server: Option<&Arc<QuicServerConfig>>,
    resets: Option<&Resets>,
) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(address)?;
    enlarge_buffers(&socket)?;
    let mut config = EndpointConfig::default();
    if let Some(resets) = resets {
        resets.configure(&mut config);
    }
    config.max_udp_payload_size(LAN_DATAGRAM_BYTES).map_err(io::Error::other)?;
    let server = server.map(|crypto| server_config(crypto, address.ip().is_loopback()));
    let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("there is no tokio runtime"))?;
    Endpoint::new(config, server, socket, runtime)
}

/// How a server takes a peer that comes from near (this machine) or far.
pub(crate) fn server_config(crypto: &Arc<QuicServerConfig>, near: bool) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(Arc::clone(crypto) as Arc<_>);
    let mut transport = transport(near);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1)).receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES));
    config.transport_config(Arc::new(transport)).migration(false);
    config
}

/// How a client goes to a peer at that address.
pub(crate) fn client_config(crypto: &Arc<QuicClientConfig>, address: SocketAddr) -> quinn::ClientConfig {
    let mut config = quinn::ClientConfig::new(Arc::clone(crypto) as Arc<_>);
    config.transport_config(Arc::new(transport(address.ip().is_loopback())));
    config
}

/// Gives a peer that has proved who it is the usual room.
pub(crate) fn admit(connection: &Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS));
    connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
}

/// Where to bind a socket that is to reach that address: if it serves as well, only on loopback where that suffices.
pub(crate) fn bind_address(target: SocketAddr, serves: bool) -> SocketAddr {
    let ip: IpAddr = match (target.is_ipv4(), serves && target.ip().is_loopback()) {
        (true, true) => Ipv4Addr::LOCALHOST.into(),
        (true, false) => Ipv4Addr::UNSPECIFIED.into(),
        (false, true) => Ipv6Addr::LOCALHOST.into(),
        (false, false) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

fn transport(near: bool) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(if near { LOOPBACK_DATAGRAM_BYTES } else { LAN_DATAGRAM_BYTES });
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(Duration::from_millis(if near { 1 } else { 50 }))
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion));
    if near {
        transport.initial_mtu(LOOPBACK_DATAGRAM_BYTES);
    }
    transport
}

fn enlarge_buffers(socket: &UdpSocket) -> io::Result<()> {
    let state = quinn::udp::UdpSocketState::new(socket.into())?;
    for set in [quinn::udp::UdpSocketState::set_recv_buffer_size, quinn::udp::UdpSocketState::set_send_buffer_size] {
        if let Err(error) = set(&state, socket.into(), SOCKET_BUFFER_BYTES) {
            tracing::debug!(%error, "socket buffers stay small");
        }
    }
    Ok(())
}
