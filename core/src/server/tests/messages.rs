//! Messages both ways, and ends of connections.

use std::net::UdpSocket;

use super::*;
use crate::wire::Load;

#[test]
fn a_client_and_a_worker_talk_to_the_machine() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    assert_eq!(client.connected.credit, crate::scheduler::Config::default().credit);
    (0..100).for_each(|query| client.ping(query));
    runtime().block_on(async {
        let (mut link, _) = join_worker(&server).await;
        link.sender().send([FromWorker::Heartbeat(Load::default())]).expect("short");
        assert_eq!(link.recv().await.expect("connected"), Some(vec![ToWorker::Drain]));
        link.sender().send((0..10_000).map(|_| FromWorker::Draining)).expect("short");
        let id = link.id;
        link.close().await;
        tokio::task::block_in_place(|| fake.wait_for(|event| matches!(event, Event::WorkerLeft { worker, .. } if *worker == id)));
    });
    let drained = |event: &&Event| matches!(event, Event::FromWorker(_, FromWorker::Draining));
    assert_eq!(fake.seen.0.lock().events.iter().filter(drained).count(), 10_000, "what was sent before closing arrives");
    fake.wait_for(|event| matches!(event, Event::Tick));
}

#[test]
fn batches_keep_their_order() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    for batch in 0..100 {
        let messages = (0..1000).map(|i| FromClient::UploadFailed { seq: batch * 1000 + i });
        client.connected.backend.send(&mut messages.into_iter());
    }
    client.ping(1);
    let seen = fake.seen.0.lock();
    let seqs = seen.events.iter().filter_map(|event| match event {
        Event::FromClient(_, FromClient::UploadFailed { seq }) => Some(*seq),
        _ => None,
    });
    assert!(seqs.eq(0..100_000));
}

#[test]
fn a_client_that_closes_says_bye_and_leaves() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    let id = client.connected.client;
    client.connected.backend.close();
    client.connected.backend.close();
    fake.wait_for(|event| matches!(event, Event::FromClient(client, FromClient::Bye) if *client == id));
    fake.wait_for(|event| matches!(event, Event::ClientLeft { client } if *client == id));
}

#[test]
fn a_dismissed_client_reads_the_last_words() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    client.send(FromClient::Close { seq: 0 });
    assert!(matches!(client.next(), Got::Message(ToClient::Refused { .. })));
    assert!(matches!(client.next(), Got::Disconnected(_)));
    fake.wait_for(|event| matches!(event, Event::ClientLeft { .. }));
}

#[test]
fn a_server_that_ends_tells_everybody_and_frees_its_port() {
    let (server, _fake) = serve();
    let client = TestClient::connect(&server);
    let runtime = runtime();
    let (mut link, _) = runtime.block_on(join_worker(&server));
    let address = server.local_addr();
    server.shutdown();
    UdpSocket::bind(address).expect("the port is free");
    match client.next() {
        Got::Disconnected(reason) => assert!(reason.contains("shutting down"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let error = runtime.block_on(link.recv()).expect_err("gone");
    assert!(error.reason.contains("shutting down"), "{error}");
    // Fetching goes on to fail rather than to hang.
    client.connected.backend.fetch(client.key(1), 1, Hash::of(b"x"), Vec::new());
    assert!(matches!(client.next(), Got::Fetched(_, None)));
}

#[test]
fn a_broken_worker_link_is_noticed() {
    let (server, fake) = serve();
    let runtime = runtime();
    let (link, _) = runtime.block_on(join_worker(&server));
    let id = link.id;
    drop(link);
    drop(runtime);
    fake.wait_for(|event| matches!(event, Event::WorkerLeft { worker, .. } if *worker == id));
}
