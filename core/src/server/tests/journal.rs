//! A scheduler that is started again on its journal: what it knows, and how it ends when the journal fails.

use std::{fs, path::Path};

use super::*;
use crate::{
    Options,
    codec::{Args, Run},
    ids::TaskId,
    net::files::Scratch,
    wire::CallSpec,
};

fn start(directory: &Path) -> Result<SchedulerServer, ConnectError> {
    let ca = Ca::load_or_create(&directory.join("state"))?;
    let mut settings = ServerSettings::new("127.0.0.1:0".parse().expect("an address"), ca);
    settings.journal = Some(directory.join("journal"));
    SchedulerServer::start(settings)
}

fn call(seq: u64) -> FromClient {
    let spec = CallSpec { task: TaskId::of("f"), name: "f".into(), options: Options::DEFAULT }.into();
    let run = Run::single(Bytes::from_static(b"x")).expect("short");
    FromClient::Call { seq, spec, args: Args { run, holes: Vec::new() } }
}

/// Waits until the scheduler has seen all that the client sent.
fn settle(client: &TestClient) {
    client.send(FromClient::Count { query: 99, spans: Vec::new() });
    while !matches!(client.next(), Got::Message(ToClient::Counts { query: 99, .. })) {}
}

#[test]
fn what_was_pending_is_pending_after_a_restart() {
    let scratch = Scratch::new("restarts");
    let server = start(&scratch.0).expect("started");
    let client = TestClient::connect(&server);
    (1..=10).for_each(|seq| client.send(call(seq)));
    let large = Bytes::from(vec![7; 100_000]);
    let data = FromClient::Data { seq: 11, len: 100_000, hash: Hash::of(&large), bytes: None };
    client.send(data);
    client.connected.backend.upload(client.key(11), large.clone().into(), Hash::of(&large), Vec::new());
    while !matches!(client.next(), Got::Message(ToClient::Stored { seq: 11, .. })) {}
    settle(&client);
    let id = client.connected.client;
    server.shutdown();
    drop(server);
    let server = start(&scratch.0).expect("started again");
    let status = server.status();
    assert_eq!(status.clients.iter().map(|client| (client.id, client.entries)).collect::<Vec<_>>(), [(id, 11)]);
    assert_eq!((status.counts.queued, status.counts.memory), (10, 1));
    // The data is here, not only known.
    assert!(
        matches!(server.hub.find(client.key(11), super::super::hub::Peer::Client(id)), super::super::hub::Source::Here(bytes, _) if bytes == large)
    );
    assert!(status.modules.iter().any(|module| module.hash == Hash::of(b"\0asm module")));
    let other = TestClient::connect(&server);
    assert!(other.connected.client.0 > id.0, "numbers are not used again");
}

#[test]
fn a_client_that_said_farewell_leaves_nothing_behind() {
    let scratch = Scratch::new("farewells");
    let server = start(&scratch.0).expect("started");
    let client = TestClient::connect(&server);
    client.send(call(1));
    settle(&client);
    drop(client);
    let begun = std::time::Instant::now();
    while !server.status().clients.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "it does not leave");
        std::thread::yield_now();
    }
    server.shutdown();
    drop(server);
    let status = start(&scratch.0).expect("started again").status();
    assert!(status.clients.is_empty() && status.modules.is_empty(), "{status:?}");
}

#[test]
fn a_scheduler_ends_when_its_journal_fails() {
    let scratch = Scratch::new("failures");
    let server = start(&scratch.0).expect("started");
    let (sender, told) = mpsc::channel();
    server.on_failure(move |error| drop(sender.send(error)));
    fs::remove_dir_all(scratch.0.join("journal/large")).expect("there");
    // Its module is to be written there.
    let client = TestClient::connect(&server);
    let error = told.recv_timeout(PATIENCE).expect("told");
    assert!(matches!(&error, ConnectError::Journal { .. }), "{error}");
    assert!(error.to_string().contains("see that the disk works"), "{error}");
    while !matches!(client.next(), Got::Disconnected(_)) {}
    let (sender, told) = mpsc::channel();
    server.on_failure(move |error| drop(sender.send(error)));
    assert!(told.try_recv().is_ok(), "who asks late is told, too");
}

#[test]
fn a_journal_of_another_cluster_is_refused() {
    let scratch = Scratch::new("clusters");
    drop(start(&scratch.0).expect("started"));
    fs::remove_dir_all(scratch.0.join("state")).expect("there");
    let error = start(&scratch.0).expect_err("refused").to_string();
    assert!(error.contains("belongs to another cluster") && error.contains("--state"), "{error}");
}
