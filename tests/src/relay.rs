//! A path between a peer and the scheduler that can be bad: a relay of UDP datagrams that loses, delays or withholds them. Owns: what
//! becomes of each datagram. Must not know: who speaks, and what is said.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// How often a relay looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// A way back that nobody used for so long is forgotten.
const IDLE: Duration = Duration::from_secs(30);
const DATAGRAM_BYTES: usize = 64 << 10;

/// What the path does to datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// Of a hundred datagrams.
    pub lost_percent: u32,
    /// Before each datagram goes on.
    pub delay: Duration,
    /// Nothing gets through.
    pub is_cut: bool,
}

/// Whoever sends to its address, a port of loopback, talks to the server behind it. It ends when dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    weather: Mutex<Weather>,
    random: Mutex<Pcg64Mcg>,
    is_over: AtomicBool,
}

impl Relay {
    /// A way to that server, which loses datagrams as the seed has it.
    ///
    /// # Errors
    /// When the system has no socket or thread to give.
    pub fn new(to: SocketAddr, seed: u64) -> io::Result<Self> {
        let socket = socket()?;
        let address = socket.local_addr()?;
        let random = Mutex::new(Pcg64Mcg::seed_from_u64(seed));
        let shared = Arc::new(Shared { weather: Mutex::default(), random, is_over: AtomicBool::new(false) });
        let relaying = Arc::clone(&shared);
        thread::Builder::new().name("relay".into()).spawn(move || relaying.relay(&socket, to))?;
        Ok(Self { address, shared })
    }

    /// Where peers are to go.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Loses everything from now on, or nothing any more.
    pub fn cut(&self, is_cut: bool) {
        self.set(Weather { is_cut, ..Weather::default() });
    }

    /// What the path is like from now on.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// From peers to the scheduler. Each peer's port has a socket of its own towards the scheduler, by which it is told apart.
    fn relay(self: &Arc<Self>, socket: &UdpSocket, to: SocketAddr) {
        let mut ways = HashMap::<SocketAddr, Way>::new();
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while !self.is_over.load(Ordering::Relaxed) {
            // What was refused was refused to somebody who is gone; a time-out is a look at whether this is over.
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
            if ways.get(&from).is_none_or(Way::is_over) {
                ways.retain(|_, way| !way.is_over());
                // Without a socket to be had, datagrams are lost.
                let Ok(way) = self.open(socket, from, to) else { continue };
                ways.insert(from, way);
            }
            if let Some(way) = ways.get(&from) {
                self.pass(&buffer[..len], &way.late, |bytes| way.socket.send(bytes));
            }
        }
    }

    /// A peer's way to the scheduler, and the thread that serves its way back.
    fn open(self: &Arc<Self>, socket: &UdpSocket, from: SocketAddr, to: SocketAddr) -> io::Result<Way> {
        let way = self::socket()?;
        way.connect(to)?;
        let (out, receiving) = (way.try_clone()?, way.try_clone()?);
        let (back, late_back) = (socket.try_clone()?, socket.try_clone()?);
        let late = postpone(move |bytes| out.send(bytes));
        let late_answers = postpone(move |bytes| late_back.send_to(bytes, from));
        let (shared, lives) = (Arc::clone(self), Arc::new(()));
        let way = Way { socket: way, late, lives: Arc::downgrade(&lives) };
        thread::spawn(move || {
            let _lives = lives;
            let (mut buffer, mut used) = (vec![0; DATAGRAM_BYTES], Instant::now());
            while !shared.is_over.load(Ordering::Relaxed) && used.elapsed() < IDLE {
                if let Ok(len) = receiving.recv(&mut buffer) {
                    used = Instant::now();
                    shared.pass(&buffer[..len], &late_answers, |bytes| back.send_to(bytes, from));
                }
            }
        });
        Ok(way)
    }

    fn pass(&self, bytes: &[u8], late: &Sender<Late>, send: impl Fn(&[u8]) -> io::Result<usize>) {
        let weather = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = weather.lost_percent > 0
            && self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..100) < weather.lost_percent;
        if weather.is_cut || lost {
            return;
        }
        // What cannot be sent or is too late for its thread is lost, as datagrams are.
        if weather.delay.is_zero() {
            let _ = send(bytes);
        } else {
            let _ = late.send(Late { due: Instant::now() + weather.delay, bytes: bytes.into() });
        }
    }
}

/// A peer's way to the scheduler.
struct Way {
    socket: UdpSocket,
    late: Sender<Late>,
    /// For as long as the way back is served.
    lives: Weak<()>,
}

impl Way {
    fn is_over(&self) -> bool {
        self.lives.strong_count() == 0
    }
}

/// A datagram that is not due yet.
struct Late {
    due: Instant,
    bytes: Box<[u8]>,
}

/// A thread that sends datagrams when they are due, until nobody can have it send any.
fn postpone(send: impl Fn(&[u8]) -> io::Result<usize> + Send + 'static) -> Sender<Late> {
    let (late, postponed) = channel::<Late>();
    thread::spawn(move || {
        while let Ok(Late { due, bytes }) = postponed.recv() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // What is refused was refused to somebody who is gone.
            let _ = send(&bytes);
        }
    });
    late
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}
