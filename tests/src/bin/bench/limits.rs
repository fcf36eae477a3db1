//! What this machine can do at best: quinn alone, copying, waking. Owns: the bare connection that it is measured on. Its windows and datagrams
//! are as large as quicsand's: a limit has to be the best that can be had.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use rustls::{RootCertStore, pki_types::PrivateKeyDer};
use tokio::runtime::{Builder, Runtime};

/// Round trips, and bytes of one.
const TRIPS: usize = 2_000;
const TRIP_BYTES: usize = 64;
/// Bytes on a stream.
const BULK_BYTES: usize = 256 << 20;
const COPIED_BYTES: usize = 64 << 20;
const WINDOW_BYTES: u32 = 64 << 20;
const DATAGRAM_BYTES: u16 = 6500;
const WAKES: usize = 500;

/// A connection over the loopback whose other end, in a thread of its own, sends back what it gets, or counts it.
struct Bare {
    runtime: Runtime,
    connection: Connection,
    server: Option<thread::JoinHandle<Result<()>>>,
}

impl Bare {
    fn new() -> Result<Self> {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).map_err(|error| anyhow!(error))?;
        let mut server = ServerConfig::with_single_cert(vec![pair.cert.der().clone()], key)?;
        server.transport_config(transport());
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone())?;
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
        client.transport_config(transport());

        let (tell, told) = mpsc::channel();
        let server = thread::spawn(move || -> Result<()> {
            runtime()?.block_on(async {
                let endpoint = endpoint(Some(server))?;
                tell.send(endpoint.local_addr()?)?;
                serve(&endpoint).await
            })
        });
        let address = told.recv().context("the bare server did not start")?;
        let runtime = runtime()?;
        let connection = runtime.block_on(async {
            let connecting = endpoint(None)?.connect_with(client, address, "localhost")?;
            anyhow::Ok(connecting.await?)
        })?;
        Ok(Self { runtime, connection, server: Some(server) })
    }

    /// Microseconds of a round trip, median.
    fn roundtrip_us(&self) -> Result<f64> {
        self.runtime.block_on(async {
            let (mut send, mut receive) = self.connection.open_bi().await?;
            let mut times = Vec::with_capacity(TRIPS);
            let mut message = [7; TRIP_BYTES];
            for _ in 0..TRIPS {
                let start = Instant::now();
                send.write_all(&message).await?;
                receive.read_exact(&mut message).await?;
                times.push(start.elapsed());
            }
            send.finish()?;
            times.sort();
            Ok(times[TRIPS / 2].as_secs_f64() * 1e6)
        })
    }

    /// Megabytes a second on one stream, until the other end has all.
    fn bulk_mb_s(&self) -> Result<f64> {
        self.runtime.block_on(async {
            let chunk = bytes::Bytes::from(black_box(vec![7; 1 << 20]));
            let (mut send, mut receive) = self.connection.open_bi().await?;
            let start = Instant::now();
            send.write_all(&[0; TRIP_BYTES]).await?;
            for _ in 0..BULK_BYTES / chunk.len() {
                send.write_chunk(chunk.clone()).await?;
            }
            send.finish()?;
            let received = receive.read_to_end(8).await?;
            let elapsed = start.elapsed();
            ensure!(received == (BULK_BYTES as u64).to_le_bytes(), "bytes were lost");
            Ok(BULK_BYTES as f64 / 1e6 / elapsed.as_secs_f64())
        })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"");
        // The close has to go out.
        let _ =
            self.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await });
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// Answers the first message of a stream and those that follow; if the first one is all zeroes, counts what follows.
async fn serve(endpoint: &Endpoint) -> Result<()> {
    let connection = endpoint.accept().await.context("no one came")?.await?;
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let mut message = [0; TRIP_BYTES];
        receive.read_exact(&mut message).await?;
        if message == [0; TRIP_BYTES] {
            let mut count = 0;
            while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
                count += chunk.bytes.len() as u64;
            }
            send.write_all(&count.to_le_bytes()).await?;
            send.finish()?;
            continue;
        }
        loop {
            send.write_all(&message).await?;
            if receive.read_exact(&mut message).await.is_err() {
                break;
            }
        }
    }
    Ok(())
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .initial_rtt(Duration::from_millis(1))
        .initial_mtu(DATAGRAM_BYTES);
    Arc::new(transport)
}

fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = std::net::UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_BYTES)?;
    let runtime = quinn::default_runtime().context("there is no runtime")?;
    Ok(Endpoint::new(config, server, socket, runtime)?)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Microseconds of a round trip of 64 bytes, and megabytes a second on one stream.
pub(crate) fn quinn() -> Result<(f64, f64)> {
    let bare = Bare::new()?;
    Ok((bare.roundtrip_us()?, bare.bulk_mb_s()?))
}

/// Megabytes a second of copying in one thread.
pub(crate) fn memcpy_mb_s() -> f64 {
    let from = black_box(vec![7_u8; COPIED_BYTES]);
    let mut to = vec![0_u8; COPIED_BYTES];
    let start = Instant::now();
    for _ in 0..8 {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    }
    (8 * COPIED_BYTES) as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// Microseconds from waking a thread that sleeps to its running: half of a there and back.
pub(crate) fn wake_us() -> Result<f64> {
    let (there, asked) = mpsc::sync_channel::<()>(1);
    let (back, answered) = mpsc::sync_channel::<()>(1);
    let other = thread::spawn(move || while asked.recv().is_ok() && back.send(()).is_ok() {});
    let mut times = Vec::with_capacity(WAKES);
    for _ in 0..WAKES {
        // Long enough for the other one to fall asleep.
        thread::sleep(Duration::from_micros(200));
        let start = Instant::now();
        there.send(())?;
        answered.recv()?;
        times.push(start.elapsed());
    }
    drop(there);
    other.join().map_err(|_| anyhow!("the thread that was woken panicked"))?;
    times.sort();
    Ok(times[WAKES / 2].as_secs_f64() * 1e6 / 2.0)
}
