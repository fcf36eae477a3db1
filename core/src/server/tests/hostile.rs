//! Peers that got in and then misbehave: each hears what it did, and nobody else notices.

use super::{blobs::big, *};
use crate::{
    codec::{Args, RunBuilder, Span},
    ids::ClientId,
    net::{
        blobs,
        control::{Inlet, write_message},
        join::{self, Greeted},
    },
    wire::{CallSpec, MAX_FRAME, Welcome, blob::BlobRequest},
};

/// A client that is in, without the code that makes clients well-behaved.
async fn intrude(server: &SchedulerServer) -> Greeted {
    join::enter(&pass(server, Role::Client), |_| Ok(members::hello())).await.expect("let in")
}

/// Has an intruder write these bytes and checks what it hears and that another client goes on.
fn check(bytes: &[u8], complaint: &str) {
    let (server, fake) = serve();
    let bystander = TestClient::connect(&server);
    runtime().block_on(async {
        let mut intruder = intrude(&server).await;
        intruder.send.write_all(bytes).await.expect("written");
        let mut messages = Vec::new();
        let mut inlet = Inlet::new(intruder.recv);
        assert_eq!(inlet.read(&mut messages).await, Ok(true));
        match &messages[..] {
            [ToClient::Refused { reason }] => assert!(reason.contains(complaint), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(inlet.read(&mut messages).await, Ok(false));
        intruder.approached.connection.closed().await;
    });
    fake.wait_for(|event| matches!(event, Event::ClientLeft { .. }));
    let left = |event: &Event| matches!(event, Event::ClientLeft { client } if *client == bystander.connected.client);
    assert!(!fake.happened(left));
    bystander.ping(1);
}

fn framed(message: &FromClient) -> Vec<u8> {
    let (mut frames, mut bytes) = (crate::wire::Frames::default(), Vec::new());
    frames.push(message).expect("fits");
    frames.take_into(&mut bytes);
    bytes
}

#[test]
fn an_oversize_frame() {
    check(&(MAX_FRAME as u32 + 1).to_le_bytes(), "longer than the");
}

#[test]
fn a_malformed_frame() {
    check(&[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "does not read as messages");
}

#[test]
fn contradictory_messages() {
    let spec = CallSpec { task: crate::ids::TaskId(1), name: String::new(), options: crate::Options::DEFAULT }.into();
    let mut two = RunBuilder::default();
    two.push(b"a").expect("short");
    two.push(b"b").expect("short");
    let args = Args { run: two.take(), holes: Vec::new() };
    check(&framed(&FromClient::Call { seq: 0, spec, args }), "other than one item");
    let span = Span { entry: EntryId { client: ClientId(1), seq: 0 }, first: u64::MAX, count: 1 };
    check(&framed(&FromClient::Release { span }), "past the last index");
}

#[test]
fn a_stream_that_ends_within_a_frame() {
    let (server, fake) = serve();
    runtime().block_on(async {
        let mut intruder = intrude(&server).await;
        intruder.send.write_all(&[9, 0, 0, 0, 1]).await.expect("written");
        intruder.send.finish().expect("open");
        intruder.approached.connection.closed().await;
    });
    fake.wait_for(|event| matches!(event, Event::ClientLeft { .. }));
}

#[test]
fn frames_in_any_pieces() {
    let (server, fake) = serve();
    runtime().block_on(async {
        let mut intruder = intrude(&server).await;
        let bytes: Vec<u8> = (0..20).flat_map(|seq| framed(&FromClient::UploadFailed { seq })).collect();
        for byte in bytes {
            intruder.send.write_all(&[byte]).await.expect("written");
            tokio::task::yield_now().await;
        }
        write_message(&mut intruder.send, &FromClient::Count { query: 7, spans: Vec::new() }).await.expect("written");
        let mut messages = Vec::<ToClient>::new();
        assert_eq!(Inlet::new(intruder.recv).read(&mut messages).await, Ok(true));
        assert!(matches!(messages[..], [ToClient::Counts { query: 7, .. }]));
    });
    let failed = |event: &&Event| matches!(event, Event::FromClient(_, FromClient::UploadFailed { .. }));
    assert_eq!(fake.seen.0.lock().events.iter().filter(failed).count(), 20);
}

#[test]
fn values_that_nobody_reads_do_not_hold_up_messages() {
    const STREAMS: u64 = 40;
    let (server, _fake) = serve();
    runtime().block_on(async {
        let mut peer = intrude(&server).await;
        let Welcome::Client { id, .. } = peer.welcome else { panic!("{:?}", peer.welcome) };
        let (key, bytes) = (EntryId { client: id, seq: 1 }.key(0), big());
        let put = BlobRequest::Put { key, len: bytes.len() as u64, hash: Hash::of(&bytes), grant: None, then: Vec::new() };
        blobs::put(&peer.approached.connection, &put, bytes.clone().into()).await.expect("taken");
        let mut answers = Vec::new();
        for _ in 0..STREAMS {
            let get = BlobRequest::Get { key, grant: None };
            answers.push(blobs::ask(&peer.approached.connection, &get, PATIENCE).await.expect("found"));
        }
        let filled = async {
            while peer.approached.connection.stats().udp_rx.bytes < STREAMS * bytes.len() as u64 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, filled).await.expect("all of it is in the receiver's buffers");
        write_message(&mut peer.send, &FromClient::Count { query: 7, spans: Vec::new() }).await.expect("written");
        let mut messages = Vec::<ToClient>::new();
        let mut inlet = Inlet::new(peer.recv);
        assert_eq!(tokio::time::timeout(PATIENCE, inlet.read(&mut messages)).await, Ok(Ok(true)));
    });
}
