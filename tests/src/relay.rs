//! A way that can be cut: carries datagrams between peers and a server. Must not know: what is in them.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How often a thread that carries nothing looks whether it should end.
const LOOK: Duration = Duration::from_millis(20);

/// Whoever sends to its address talks to the server, unless it is cut. Ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    is_cut: AtomicBool,
    is_over: AtomicBool,
}

impl Relay {
    /// A way to that server on this machine.
    ///
    /// # Errors
    /// When the system has no socket to give.
    pub fn to(server: SocketAddr) -> io::Result<Self> {
        let socket = Arc::new(socket()?);
        let relay = Self { address: socket.local_addr()?, state: Arc::default() };
        let state = Arc::clone(&relay.state);
        thread::spawn(move || {
            let mut ways = HashMap::new();
            state.carry(&Arc::clone(&socket), |datagram, from| {
                if !ways.contains_key(&from)
                    && let Ok(way) = self::socket()
                {
                    let way = Arc::new(way);
                    let (back, state, socket) = (Arc::clone(&way), Arc::clone(&state), Arc::clone(&socket));
                    // What cannot be sent is lost, as datagrams are.
                    thread::spawn(move || state.carry(&back, |datagram, _| drop(socket.send_to(datagram, from))));
                    ways.insert(from, way);
                }
                if let Some(way) = ways.get(&from) {
                    drop(way.send_to(datagram, server));
                }
            });
        });
        Ok(relay)
    }

    /// Where peers are to go.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Loses everything from now on, or nothing any more.
    pub fn cut(&self, is_cut: bool) {
        self.state.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn carry(&self, from: &UdpSocket, mut pass: impl FnMut(&[u8], SocketAddr)) {
        let mut buffer = vec![0; 1 << 16];
        while !self.is_over.load(Ordering::SeqCst) {
            if let Ok((len, peer)) = from.recv_from(&mut buffer)
                && !self.is_cut.load(Ordering::SeqCst)
            {
                pass(&buffer[..len], peer);
            }
        }
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}
