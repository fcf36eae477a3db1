//! Clients whose connection breaks, and that go on over another one.

use std::{
    io::{self, BufRead, BufReader, Read},
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use quinn::ConnectionError;

use super::{blobs::big, *};
use crate::{
    abi,
    ids::ClientId,
    net::{
        files::Scratch,
        join::{self, Greeted},
        transport::Close,
    },
    wire::{Hello, PROTOCOL, Welcome},
};

/// Carries datagrams to a server and back, unless it is cut.
struct Relay {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let socket = listening();
        let relay = Self { address: socket.local_addr().expect("bound"), is_cut: Arc::default(), is_over: Arc::default() };
        let (is_cut, is_over) = (Arc::clone(&relay.is_cut), Arc::clone(&relay.is_over));
        thread::spawn(move || {
            let (socket, mut ways) = (Arc::new(socket), HashMap::new());
            carry(&Arc::clone(&socket), &is_cut, &is_over, |datagram, from| {
                let way = ways.entry(from).or_insert_with(|| {
                    let way = Arc::new(listening());
                    let (back, socket) = (Arc::clone(&way), Arc::clone(&socket));
                    let (is_cut, is_over) = (Arc::clone(&is_cut), Arc::clone(&is_over));
                    thread::spawn(move || carry(&back, &is_cut, &is_over, |datagram, _| drop(socket.send_to(datagram, from))));
                    way
                });
                drop(way.send_to(datagram, server));
            });
        });
        relay
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

fn listening() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    socket
}

fn carry(socket: &UdpSocket, is_cut: &AtomicBool, is_over: &AtomicBool, mut pass: impl FnMut(&[u8], SocketAddr)) {
    let mut buffer = vec![0; 65_536];
    while !is_over.load(Ordering::SeqCst) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer)
            && !is_cut.load(Ordering::SeqCst)
        {
            pass(&buffer[..len], from);
        }
    }
}

/// A client that connects again for as long as the tests wait for anything.
fn persistent(server: &SchedulerServer, address: SocketAddr) -> TestClient {
    let (address, token) = (address.to_string(), Some(server.token(Role::Client).to_string()));
    TestClient::enter(&ConnectSettings { address, token, patience: 3 * PATIENCE, ..settings() }, b"\0asm module").expect("let in")
}

/// Numbers in messages that have one, as the machine has seen them.
fn seen(fake: &Fake) -> Vec<u64> {
    let seen = fake.seen.0.lock();
    let numbers = seen.events.iter().filter_map(|event| match event {
        Event::FromClient(_, FromClient::UploadFailed { seq }) => Some(*seq),
        _ => None,
    });
    numbers.collect()
}

fn number(seq: u64) -> FromClient {
    FromClient::UploadFailed { seq }
}

fn lost(event: &Event) -> bool {
    matches!(event, Event::ClientLost { .. })
}

fn returned(event: &Event) -> bool {
    matches!(event, Event::ClientReturned { .. })
}

#[test]
fn what_is_said_while_the_way_is_cut_arrives_once_and_in_order() {
    let (server, fake) = serve();
    let relay = Relay::to(server.local_addr());
    let client = persistent(&server, relay.address);
    let (key, bytes) = (client.key(3), big());
    client.connected.backend.upload(key, bytes.clone().into(), Hash::of(&bytes), Vec::new());
    fake.wait_for(|event| matches!(event, Event::Held { .. }));
    (0..1000).for_each(|seq| client.send(number(seq)));
    client.ping(1);
    relay.cut(true);
    client.connected.backend.fetch(key, bytes.len() as u64, Hash::of(&bytes), Vec::new());
    (1000..200_000).for_each(|seq| client.send(number(seq)));
    fake.wait_for(lost);
    (200_000..200_100).for_each(|seq| client.send(number(seq)));
    relay.cut(false);
    assert!(matches!(client.next(), Got::Returned));
    match client.next() {
        Got::Fetched(fetched, found) => assert!(fetched == key && found == Some(bytes)),
        other => panic!("{other:?}"),
    }
    client.ping(2);
    assert!(seen(&fake).into_iter().eq(0..200_100));
    fake.wait_for(|event| matches!(event, Event::ClientHasRoom { client: id } if *id == client.connected.client));
    assert!(fake.happened(returned) && !fake.happened(|event| matches!(event, Event::ClientLeft { .. })));
}

#[test]
fn a_connection_that_breaks_again_and_again_loses_nothing() {
    let (server, fake) = serve();
    let client = persistent(&server, server.local_addr());
    let cuts = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            for batch in 0..300 {
                client.connected.backend.send(&mut (batch * 700..(batch + 1) * 700).map(number));
                thread::sleep(Duration::from_millis(2));
            }
        });
        let mut cuts = 0;
        while !sending.is_finished() {
            server.hub.cut();
            match client.next() {
                Got::Returned => cuts += 1,
                other => panic!("{other:?}"),
            }
        }
        cuts
    });
    client.ping(1);
    assert!(cuts > 1, "{cuts}");
    let seen = seen(&fake);
    assert!(seen.into_iter().eq(0..210_000));
}

/// Says hello as a client of this identity that says to have been here.
async fn claim(module: Hash, pass: &Pass, secret: [u8; 16], client: Option<ClientId>) -> Result<Greeted, ConnectError> {
    let hello = Hello {
        protocol: PROTOCOL,
        abi: abi::VERSION,
        name: String::new(),
        worker: None,
        module: Some(module),
        session: Some(Session { secret, client }),
        operator: false,
    };
    join::enter(pass, |_| Ok(hello.clone())).await
}

fn welcomed(greeted: &Greeted) -> (ClientId, Option<u64>) {
    match greeted.welcome {
        Welcome::Client { id, applied, .. } => (id, applied),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn only_who_knows_its_secret_takes_a_clients_place() {
    let (server, fake) = serve();
    let (mine, other, module) = (pass(&server, Role::Client), pass(&server, Role::Client), Hash::of(b"m"));
    runtime().block_on(async {
        let first = claim(module, &mine, [7; 16], None).await.expect("let in");
        let (id, applied) = welcomed(&first);
        assert_eq!(applied, None);
        for (pass, secret, id) in [(&mine, [8; 16], id), (&other, [7; 16], id), (&mine, [7; 16], ClientId(id.0 + 1))] {
            let error = claim(module, pass, secret, Some(id)).await.err().expect("not let in");
            assert!(matches!(error, ConnectError::Forgotten { .. }), "{error}");
        }
        assert!(!fake.happened(returned) && first.approached.connection.close_reason().is_none());
        // The scheduler has not noticed that the first connection is of no use any more.
        let second = claim(module, &mine, [7; 16], Some(id)).await.expect("let in");
        assert_eq!(welcomed(&second), (id, Some(0)));
        first.approached.connection.closed().await;
        assert!(fake.happened(returned));
        second.approached.connection.close(Close::Done.code(), b"");
        second.approached.endpoint.wait_idle().await;
    });
    fake.wait_for(|event| matches!(event, Event::ClientLeft { .. }));
    assert!(!fake.happened(lost), "its place was taken, it was not lost");
}

/// Starts a scheduler of the cluster that is kept there.
fn start_in(directory: &Path, listen: &str) -> SchedulerServer {
    let ca = Ca::load_or_create(directory).expect("a CA");
    SchedulerServer::start(ServerSettings::new(listen.parse().expect("an address"), ca)).expect("started")
}

#[test]
fn a_scheduler_that_was_started_anew_does_not_know_its_clients() {
    let directory = Scratch::new("again");
    let server = start_in(&directory.0, "127.0.0.1:0");
    let address = server.local_addr();
    let client = persistent(&server, address);
    // Its directory is free for another one only then.
    drop(server);
    let _server = start_in(&directory.0, &address.to_string());
    assert!(matches!(client.next(), Got::Forgotten));
}

/// Connects to such a scheduler, which is shut down then; gives what the client hears.
fn abandoned(ca: Ca) -> (TestClient, Got) {
    let server = SchedulerServer::start(ServerSettings::new("127.0.0.1:0".parse().expect("an address"), ca)).expect("started");
    let (address, token) = (server.local_addr().to_string(), Some(server.token(Role::Client).to_string()));
    let patience = Duration::from_millis(200);
    let client = TestClient::enter(&ConnectSettings { address, token, patience, ..settings() }, b"\0asm module").expect("let in");
    server.shutdown();
    let heard = client.next();
    (client, heard)
}

#[test]
fn a_scheduler_that_stays_away_is_given_up() {
    let directory = Scratch::new("given-up");
    let (client, heard) = abandoned(Ca::load_or_create(&directory.0).expect("a CA"));
    match heard {
        Got::Disconnected(reason) => assert!(reason.starts_with("for 0.2 s no other could be made"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // Whoever goes on hears so at once.
    client.send(number(1));
    client.connected.backend.fetch(client.key(1), 1, Hash::of(b"x"), Vec::new());
    assert!(matches!(client.next(), Got::Fetched(_, None)));
}

#[test]
fn a_cluster_that_keeps_nothing_is_not_waited_for() {
    match abandoned(Ca::in_memory().expect("a CA")).1 {
        Got::Disconnected(reason) => assert!(reason.contains("the scheduler is shutting down"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// Not a test: the scheduler that is killed.
#[test]
#[ignore = "it serves until it is killed by a_killed_schedulers_peers_hear_so_from_the_next_one"]
fn killed_scheduler() {
    let directory = std::env::var_os("QUICSAND_TEST_STATE").expect("it is started by a test");
    let server = start_in(Path::new(&directory), "127.0.0.1:0");
    println!("listens {}", server.local_addr());
    // It also ends with whoever started it.
    io::stdin().read_to_end(&mut Vec::new()).expect("open");
}

#[test]
fn a_killed_schedulers_peers_hear_so_from_the_next_one() {
    let directory = Scratch::new("killed");
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "server::tests::again::killed_scheduler", "--ignored", "--nocapture"])
        .env("QUICSAND_TEST_STATE", &directory.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.rsplit_once("listens ")?.1.to_owned())).expect("it listens");
    let token = |role| std::fs::read_to_string(directory.0.join(format!("{role}.token"))).expect("there");
    let pass = Pass::new(&address, &[Role::Client], Some(&token("client")), None, SystemTime::now()).expect("a token");
    let settings = worker_settings_at(address.clone(), token("worker"));
    runtime().block_on(async {
        let client = claim(Hash::of(b"m"), &pass, [7; 16], None).await.expect("let in");
        let mut worker = try_join(&settings, Arc::new(TestStore::default())).await.expect("joined");
        child.kill().expect("it ran");
        child.wait().expect("killed");
        let _server = start_in(&directory.0, &address);
        // Without a reset, they would say that nothing was heard.
        assert_eq!(client.approached.connection.closed().await, ConnectionError::Reset);
        let heard = worker.recv().await.expect_err("it is another scheduler");
        assert_eq!(heard.reason, ConnectionError::Reset.to_string());
    });
}
