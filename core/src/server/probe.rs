//! Whether the process at the other end of a silent connection is gone, as far as that can be found out: on this machine, a port that
//! nobody has answers that it is closed. Must not know: what is concluded from that.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use quinn::Connection;
use tokio::{net::UdpSocket, time::timeout};

/// The answer of a closed port comes at once; a socket that is there says nothing.
const ANSWER: Duration = Duration::from_millis(50);

/// Whether nobody has the peer's port any more. False where that cannot be known.
pub(super) async fn is_gone(connection: &Connection) -> bool {
    let peer = connection.remote_address();
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let own = connection.local_ip().map(|ip| ip.to_canonical());
    is_here(peer.ip(), own) && is_closed(peer).await
}

/// Whether an address is one of this machine's. Elsewhere a packet filter may answer in a machine's place.
fn is_here(peer: IpAddr, own: Option<IpAddr>) -> bool {
    peer.is_loopback() || own == Some(peer)
}

async fn is_closed(peer: SocketAddr) -> bool {
    let asking = async {
        let any: IpAddr = if peer.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(peer).await?;
        // No QUIC packet: whoever gets it drops it.
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 1]).await
    };
    let answer: Result<io::Result<usize>, _> = timeout(ANSWER, asking).await;
    matches!(answer, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_nobody_has_is_closed() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = socket.local_addr().expect("an address");
        assert!(!is_closed(address).await, "somebody has it");
        drop(socket);
        assert!(is_closed(address).await);
    }

    #[test]
    fn only_this_machines_ports_say_anything() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(is_here(ip("127.0.0.1"), None));
        assert!(is_here(ip("10.0.0.7"), Some(ip("10.0.0.7"))));
        assert!(!is_here(ip("10.0.0.8"), Some(ip("10.0.0.7"))));
    }
}
