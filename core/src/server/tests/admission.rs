//! Who gets in, and what those hear who do not.

use std::{net::UdpSocket, time::Instant};

use super::*;
use crate::{
    TokenRefusal, abi,
    net::{Token, join},
    wire::{Hello, PROTOCOL, WorkerHello},
};

fn failure(server: &SchedulerServer, token: &str) -> ConnectError {
    TestClient::try_connect(server, token).err().expect("not let in")
}

#[test]
fn bad_tokens_are_told_apart() {
    let (server, fake) = serve();
    let token = server.token(Role::Client);
    assert!(matches!(failure(&server, ""), ConnectError::Token { .. }));
    assert!(matches!(failure(&server, &server.token(Role::Worker).to_string()), ConnectError::Token { .. }));
    let wrong_secret = Token { secret: [1; 32], ..token.clone() };
    let error = failure(&server, &wrong_secret.to_string());
    assert!(matches!(error, ConnectError::TokenRefused { why: TokenRefusal::Unknown, .. }), "{error}");
    let wrong_role = Token { role: Role::Worker, ..token.clone() };
    let error = runtime().block_on(async {
        let settings = WorkerSettings { token: Some(wrong_role.to_string()), ..worker_settings(&server) };
        try_join(&settings, Arc::new(TestStore::default())).await.err().expect("not let in")
    });
    assert!(matches!(error, ConnectError::TokenRefused { why: TokenRefusal::Unknown, .. }), "{error}");
    let wrong_ca = Ca::in_memory().expect("a CA").token(Role::Client);
    let error = failure(&server, &wrong_ca.to_string());
    assert!(matches!(error, ConnectError::Certificate { .. }), "{error}");
    assert!(!fake.happened(|event| matches!(event, Event::ClientJoined { .. } | Event::WorkerJoined { .. })));
    TestClient::connect(&server).ping(1);
}

#[test]
fn roles_and_versions_are_checked_at_the_greeting() {
    let (server, fake) = serve();
    let hello = Hello {
        protocol: PROTOCOL,
        abi: abi::VERSION,
        name: String::new(),
        worker: None,
        module: Some(Hash([0; 32])),
        session: session(),
        operator: false,
    };
    let greet = |role, hello: Hello| {
        runtime().block_on(async { join::enter(&pass(&server, role), |_| Ok(hello.clone())).await.err().expect("not let in") })
    };
    let error = greet(Role::Worker, hello.clone());
    assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("role")), "{error}");
    let error = greet(Role::Client, Hello { protocol: 99, ..hello.clone() });
    assert!(matches!(error, ConnectError::Version { ours: 99, theirs: PROTOCOL, .. }), "{error}");
    let error = greet(Role::Client, Hello { abi: 99, ..hello.clone() });
    assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("ABI version 99")), "{error}");
    let error = greet(Role::Client, Hello { session: None, ..hello.clone() });
    assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("without a session")), "{error}");
    let error = greet(Role::Client, Hello { module: None, ..hello });
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    assert!(!fake.happened(|event| matches!(event, Event::ClientJoined { .. } | Event::WorkerJoined { .. })));
}

#[test]
fn a_worker_of_another_version_hears_both_and_one_that_is_malformed_what_is_wrong() {
    let (server, fake) = serve();
    let offer = WorkerHello { slots: 1, memory: 1 << 30, arch: "x86_64".to_owned(), ..WorkerHello::default() };
    let greet = |protocol: u32, offer: WorkerHello| {
        let hello = Hello {
            protocol,
            abi: abi::VERSION,
            name: String::new(),
            worker: Some(offer),
            module: None,
            session: None,
            operator: false,
        };
        let entering = async { join::enter(&pass(&server, Role::Worker), |_| Ok(hello.clone())).await };
        runtime().block_on(entering).err().expect("not let in")
    };
    let error = greet(99, offer.clone());
    assert!(matches!(error, ConnectError::Version { ours: 99, theirs: PROTOCOL, .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("version 99 ") && message.contains(&format!("version {PROTOCOL} ")), "{message}");
    let check = |offer: WorkerHello, part: &str| {
        let error = greet(PROTOCOL, offer);
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains(part)), "{error}");
    };
    check(WorkerHello { slots: 0, ..offer.clone() }, "without slots");
    check(WorkerHello { labels: vec![("zone".into(), "\x1b[2J".into())], ..offer.clone() }, "value of a label");
    check(WorkerHello { resources: vec![("big gpu".into(), 1)], ..offer }, "name of a label or resource");
    assert!(!fake.happened(|event| matches!(event, Event::WorkerJoined { .. })));
}

#[test]
fn a_module_that_is_none_is_refused() {
    let (server, _fake) = serve();
    let (address, token) = (server.local_addr().to_string(), server.token(Role::Client).to_string());
    let error = TestClient::connect_to(&address, &token, b"#!/bin/sh").err().expect("not let in");
    assert!(matches!(&error, ConnectError::BadModule { reason } if reason.contains("WebAssembly")), "{error}");
}

#[test]
fn addresses_that_lead_nowhere() {
    let token = Ca::in_memory().expect("a CA").token(Role::Client).to_string();
    for address in ["", "localhost", "localhost:", ":80", "localhost:http", "127.0.0.1:0", "no such host:1", "1.2.3.4:99999"] {
        let error = TestClient::connect_to(address, &token, b"").err().expect("no way");
        assert!(matches!(error, ConnectError::Address { .. }), "{address}: {error}");
    }
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let start = Instant::now();
    let error = TestClient::connect_to(&silent.local_addr().expect("bound").to_string(), &token, b"").err().expect("no way");
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_port_in_use_is_said_to_be() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let settings = ServerSettings::new(taken.local_addr().expect("bound"), Ca::in_memory().expect("a CA"));
    let error = SchedulerServer::start(settings).expect_err("taken").to_string();
    assert!(error.contains("the port is in use"), "{error}");
}

#[test]
fn too_many_peers_are_turned_away() {
    let mut settings = ServerSettings::new("127.0.0.1:0".parse().expect("an address"), Ca::in_memory().expect("a CA"));
    settings.max_peers = 1;
    let server = SchedulerServer::start_with(settings, Box::new(Fake::default()), |_| Ok(())).expect("started");
    let first = TestClient::connect(&server);
    let error = failure(&server, &server.token(Role::Client).to_string());
    assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("as many peers")), "{error}");
    first.ping(1);
}
