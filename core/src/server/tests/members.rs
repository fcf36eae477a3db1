//! Who may join, who may stay, and what is kept for the next time.

use std::{fs, path::PathBuf};

use super::*;
use crate::{
    TokenRefusal, abi,
    net::{
        Operator, Token,
        files::Scratch,
        identity::{self, Bearer},
        join::{self, Approached},
        tls,
        transport::{self, Close},
    },
    wire::{
        Hello, PROTOCOL,
        members::{TokenRequest, TokenState, WorkerName},
    },
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// With workers that send no heartbeats.
fn real(ca: Ca) -> SchedulerServer {
    let mut settings = ServerSettings::new("127.0.0.1:0".parse().expect("an address"), ca);
    settings.config.lease = Duration::from_secs(600);
    SchedulerServer::start(settings).expect("started")
}

fn request(role: Role, lifetime_s: Option<u64>, once: bool) -> TokenRequest {
    TokenRequest { role, lifetime_s, once, note: String::new() }
}

/// What a client says that never uploads its module.
pub(super) fn hello() -> Hello {
    let module = Some(Hash::of(b"never uploaded"));
    Hello {
        protocol: PROTOCOL,
        abi: abi::VERSION,
        name: String::new(),
        worker: None,
        module,
        session: session(),
        operator: false,
    }
}

fn refusal(server: &SchedulerServer, token: &Token) -> TokenRefusal {
    match TestClient::try_connect(server, &token.to_string()).err() {
        Some(ConnectError::TokenRefused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn bearer(keyring: &tls::Keyring) -> Bearer {
    Bearer::of(&keyring.certificate().expect("shown")).expect("of a peer")
}

/// A pass of a client whose certificate was signed by this CA at that time, and is taken for good whatever it is.
fn certified(server: &SchedulerServer, ca: &Ca, now: SystemTime) -> Pass {
    let pass = pass(server, Role::Client);
    let (key, csr) = identity::new_request().expect("made");
    let (_, reply) = ca.certify(Role::Client, &ca.token(Role::Client).secret, &csr, now).expect("certified");
    let approached = runtime().block_on(join::approach(&pass)).expect("there");
    let shown = approached.keyring.ca().clone();
    pass.receive(&server.token(Role::Client), shown, key.into(), reply, SystemTime::now()).expect("its key");
    pass
}

async fn greet(pass: &Pass) -> Result<join::Greeted, ConnectError> {
    join::greet(join::approach(pass).await?, Role::Client, &hello()).await
}

#[test]
fn a_token_that_is_not_accepted_any_more_says_why() {
    let (server, fake) = serve();
    let (ca, now) = (server.hub.ca(), SystemTime::now());
    let expired = ca.create_token(request(Role::Client, Some(60), false), now - HOUR).expect("made");
    let once = ca.create_token(request(Role::Client, Some(3600), true), now).expect("made");
    let revoked = ca.create_token(request(Role::Client, None, false), now).expect("made");
    assert_eq!(refusal(&server, &expired), TokenRefusal::Expired);
    TestClient::try_connect(&server, &once.to_string()).expect("once").ping(1);
    assert_eq!(refusal(&server, &once), TokenRefusal::Used);
    let client = TestClient::try_connect(&server, &revoked.to_string()).expect("not yet");
    assert_eq!(ca.revoke_tokens(&[revoked.id()], now).expect("done"), []);
    assert_eq!(refusal(&server, &revoked), TokenRefusal::Revoked);
    client.ping(1);
    let unknown = Token { secret: [7; 32], ..revoked };
    assert_eq!(refusal(&server, &unknown), TokenRefusal::Unknown);
    fake.wait_for(|event| matches!(event, Event::ClientJoined { .. }));
}

#[test]
fn two_joiners_cannot_share_one_use() {
    let (server, _fake) = serve();
    let once = server.hub.ca().create_token(request(Role::Client, None, true), SystemTime::now()).expect("made").to_string();
    let joined = std::thread::scope(|scope| {
        let joiners: Vec<_> = (0..4).map(|_| scope.spawn(|| TestClient::try_connect(&server, &once).is_ok())).collect();
        joiners.into_iter().map(|joiner| joiner.join().expect("no panic")).filter(|&joined| joined).count()
    });
    assert_eq!(joined, 1);
}

#[test]
fn nothing_is_said_to_a_server_that_the_token_does_not_name() {
    let (server, _fake) = serve();
    let once = server.hub.ca().create_token(request(Role::Client, None, true), SystemTime::now()).expect("made");
    let (foreign, _) = serve();
    let error = TestClient::try_connect(&foreign, &once.to_string()).err().expect("not let in");
    assert!(matches!(error, ConnectError::Certificate { .. }), "{error}");
    TestClient::try_connect(&server, &once.to_string()).expect("its only use is still there");
}

#[test]
fn a_foreign_or_expired_certificate_is_refused_and_the_token_helps() {
    let (server, fake) = serve();
    let other = Ca::in_memory().expect("a CA");
    let foreign = certified(&server, &other, SystemTime::now());
    let expired = || certified(&server, server.hub.ca(), SystemTime::now() - 3 * DAY);
    let (expired, again) = (expired(), expired());
    runtime().block_on(async {
        for pass in [foreign, expired] {
            let error = greet(&pass).await.err().expect("not let in");
            assert!(matches!(error, ConnectError::CertificateRefused { .. }), "{error}");
            assert!(!fake.happened(|event| matches!(event, Event::ClientJoined { .. })));
            join::approach(&pass).await.expect("the certificate is still in hand");
        }
        join::enter(&again, |_| Ok(hello())).await.expect("the token gets another one");
    });
}

#[test]
fn a_renewed_certificate_has_the_old_ones_identity_and_is_shown_from_then_on() {
    let (server, _fake) = serve();
    let pass = pass(&server, Role::Worker);
    let client = self::pass(&server, Role::Client);
    runtime().block_on(async {
        let Approached { endpoint, address, keyring, .. } = join::approach(&pass).await.expect("there");
        let serving = tls::worker_server(&keyring).expect("configured");
        let serving = transport::endpoint("127.0.0.1:0".parse().expect("an address"), Some(&serving), None).expect("bound");
        let shown = async || {
            let Approached { endpoint, keyring, .. } = join::approach(&client).await.expect("there");
            let to = serving.local_addr().expect("bound");
            let config = transport::client_config(&tls::main_client(&keyring).expect("configured"), to);
            let connecting = endpoint.connect_with(config, to, tls::WORKER_HOST).expect("possible");
            let (connection, accepted) = tokio::join!(connecting, async { serving.accept().await.expect("somebody").await });
            let (connection, _accepted) = (connection.expect("connected"), accepted.expect("accepted"));
            tls::certificates(&connection).first().cloned()
        };
        let (before, first) = (keyring.certificate(), bearer(&keyring));
        assert_eq!(shown().await, before);
        let due = pass.renewal(SystemTime::now()).expect("certified");
        assert!(due > 15 * HOUR && due <= 16 * HOUR, "{due:?}");
        assert_eq!(pass.renewal(SystemTime::now() + 17 * HOUR), Some(Duration::ZERO));
        join::renew(&pass, &endpoint, &address, &keyring).await.expect("renewed");
        assert_eq!(bearer(&keyring), first);
        assert_ne!(keyring.certificate(), before);
        assert_eq!(shown().await, keyring.certificate());
        server.hub.ca().revoke(first.identity, SystemTime::now()).expect("done");
        let error = join::renew(&pass, &endpoint, &address, &keyring).await.expect_err("revoked");
        assert!(matches!(error, ConnectError::Revoked { role: "worker", .. }), "{error}");
    });
}

#[test]
fn nobody_renews_for_another_role_or_without_a_certificate() {
    let (server, _fake) = serve();
    let (ca, now) = (server.hub.ca(), SystemTime::now());
    let (_, csr) = identity::new_request().expect("made");
    let client = self::pass(&server, Role::Client);
    runtime().block_on(async {
        let Approached { endpoint, address, keyring, .. } = join::approach(&client).await.expect("there");
        let worker = self::pass(&server, Role::Worker);
        let error = join::renew(&worker, &endpoint, &address, &keyring).await.expect_err("a client");
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("role")), "{error}");
        let operator = self::pass(&server, Role::Operator);
        let Approached { endpoint, address, keyring, .. } = join::approach(&operator).await.expect("there");
        let error = join::renew(&operator, &endpoint, &address, &keyring).await.expect_err("its token is asked for again");
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("role")), "{error}");
    });
    assert!(ca.certify(Role::Worker, &ca.token(Role::Client).secret, &csr, now).is_err());
    assert!(ca.certify(Role::Client, &ca.token(Role::Client).secret, b"no request", now).is_err());
}

#[test]
fn a_revoked_worker_is_told_and_does_not_come_back() {
    let server = real(Ca::in_memory().expect("a CA"));
    let mut operator = operator(&server);
    let settings = worker_settings(&server);
    let pass = WorkerPass::new(&settings).expect("a token");
    let runtime = runtime();
    let join = |pass: &WorkerPass| runtime.block_on(worker::join(&settings, pass, Arc::new(TestStore::default())));
    let (mut link, other) = (join(&pass).expect("joined"), runtime.block_on(join_worker(&server)).0);
    let status = operator.status().expect("answered");
    let who = status.workers.iter().find(|worker| worker.id == link.id).expect("here").identity;
    assert_eq!(operator.revoke_worker(WorkerName::Number(link.id)).expect("done"), (who, 1));
    match runtime.block_on(link.recv()).expect("the last words") {
        Some(messages) => assert!(matches!(&messages[..], [ToWorker::Refused { reason }] if reason.contains("revoked"))),
        None => panic!("it was not told"),
    }
    assert_eq!(operator.status().expect("answered").workers.iter().map(|worker| worker.id).collect::<Vec<_>>(), [other.id]);
    let error = join(&pass).err().expect("not let in");
    assert!(matches!(error, ConnectError::Revoked { role: "worker", .. }), "{error}");
    assert_eq!(operator.revoke_worker(WorkerName::Identity(who)).expect("again"), (who, 0));
    let error = operator.revoke_worker(WorkerName::Number(link.id)).expect_err("gone").to_string();
    assert!(error.contains("there is no worker"), "{error}");
}

#[test]
fn operators_make_list_and_revoke_tokens_and_clients_do_not() {
    let server = real(Ca::in_memory().expect("a CA"));
    let mut operator = operator(&server);
    let token: Token = operator.create_token(request(Role::Client, Some(60), true)).expect("made").parse().expect("a token");
    let of = |operator: &mut Operator| {
        operator.tokens().expect("listed").into_iter().find(|info| info.id == token.id()).expect("listed")
    };
    assert_eq!((of(&mut operator).state, of(&mut operator).used), (TokenState::Good, 0));
    drop(TestClient::try_connect(&server, &token.to_string()).expect("let in"));
    assert_eq!((of(&mut operator).state, of(&mut operator).used), (TokenState::Used, 1));
    let unknown = "0123456789abcdef".parse().expect("an id");
    assert_eq!(operator.revoke_tokens(vec![token.id(), unknown]).expect("done"), [unknown]);
    assert_eq!(of(&mut operator).state, TokenState::Revoked);
    let long = TokenRequest { note: "x".repeat(1000), ..request(Role::Client, None, false) };
    assert!(operator.create_token(long).expect_err("too long").to_string().contains("at most 200"));
    let (address, token) = (server.local_addr().to_string(), server.token(Role::Client).to_string());
    let mut client = Operator::connect(&address, &token).expect("a client may look on");
    assert!(client.tokens().expect_err("but no more").to_string().contains("operator"));
}

fn operator(server: &SchedulerServer) -> Operator {
    Operator::connect(&server.local_addr().to_string(), &server.token(Role::Operator).to_string()).expect("connected")
}

/// A cluster that keeps its state, and a user's state directory.
fn keeping(lifetime: Duration) -> (SchedulerServer, Scratch, Scratch) {
    let (cluster, user) = (Scratch::new("cluster"), Scratch::new("user"));
    let ca = Ca::load_or_create(&cluster.0).expect("created").with_certificate_lifetime(lifetime);
    let settings = ServerSettings::new("127.0.0.1:0".parse().expect("an address"), ca);
    (SchedulerServer::start_with(settings, Box::new(Fake::default()), |_| Ok(())).expect("started"), cluster, user)
}

fn enter(server: &SchedulerServer, user: &Scratch, token: Option<&Token>) -> Result<TestClient, ConnectError> {
    let (address, token) = (server.local_addr().to_string(), token.map(Token::to_string));
    TestClient::enter(&ConnectSettings { address, token, state: Some(user.0.clone()), ..settings() }, b"\0asm module")
}

fn kept(user: &Scratch) -> Vec<PathBuf> {
    let entries = fs::read_dir(user.0.join("credentials")).into_iter().flatten().map(|entry| entry.expect("listed").path());
    entries.filter(|path| path.extension().is_none()).collect()
}

#[test]
fn a_kept_certificate_does_where_the_token_does_not_any_more() {
    let (server, _cluster, user) = keeping(DAY);
    let once = server.hub.ca().create_token(request(Role::Client, None, true), SystemTime::now()).expect("made");
    let error = enter(&server, &user, None).err().expect("nothing is kept");
    assert!(matches!(&error, ConnectError::Token { reason } if reason.contains("no earlier run")), "{error}");
    enter(&server, &user, Some(&once)).expect("its use").ping(1);
    enter(&server, &user, Some(&once)).expect("by what was kept").ping(1);
    enter(&server, &user, None).expect("without a token").ping(1);
    assert_eq!(refusal(&server, &once), TokenRefusal::Used);
    let [path] = &kept(&user)[..] else { panic!("{:?}", kept(&user)) };
    #[cfg(unix)]
    for (path, expected) in [(path.as_path(), 0o600), (path.parent().expect("in one"), 0o700)] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("there").permissions());
        assert_eq!(mode & 0o777, expected, "{}", path.display());
    }
    enter(&server, &user, Some(&server.token(Role::Client))).expect("another token").ping(1);
    let error = enter(&server, &user, None).err().expect("which one?");
    assert!(matches!(&error, ConnectError::Token { reason } if reason.contains("2 certificates")), "{error}");
}

#[test]
fn what_is_kept_and_of_no_use_is_ignored_and_replaced() {
    let (server, _cluster, user) = keeping(DAY);
    let token = server.token(Role::Client);
    enter(&server, &user, Some(&token)).expect("let in");
    let path = kept(&user).remove(0);
    let good = fs::read(&path).expect("there");
    for damaged in [&b"nonsense"[..], &good[..good.len() - 1], b"", &good] {
        fs::write(&path, damaged).expect("written");
        #[cfg(unix)]
        let exposed = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        #[cfg(unix)]
        fs::set_permissions(&path, exposed).expect("set");
        assert!(enter(&server, &user, None).is_err());
        enter(&server, &user, Some(&token)).expect("by the token");
        enter(&server, &user, None).expect("replaced").ping(1);
    }
    let (other, _cluster, _) = keeping(DAY);
    let error = enter(&other, &user, None).err().expect("another address");
    assert!(matches!(error, ConnectError::Token { .. }), "{error}");
}

#[test]
fn a_cluster_that_keeps_nothing_leaves_nothing_with_its_peers() {
    let (server, _fake) = serve();
    let user = Scratch::new("user");
    enter(&server, &user, Some(&server.token(Role::Client))).expect("let in").ping(1);
    assert!(!user.0.exists());
}

#[test]
fn workers_of_one_machine_keep_a_certificate_each() {
    let (server, _cluster, user) = keeping(DAY);
    let settings = WorkerSettings { state: Some(user.0.clone()), ..worker_settings(&server) };
    let pass = || WorkerPass::new(&settings).expect("a token");
    runtime().block_on(async {
        let join = async |pass: &WorkerPass| worker::join(&settings, pass, Arc::new(TestStore::default())).await.expect("joined");
        let (first, second) = (pass(), pass());
        let (_first, _second) = (join(&first).await, join(&second).await);
        assert_eq!(kept(&user).len(), 2);
        let third = pass();
        join(&third).await;
        assert_eq!(kept(&user).len(), 3);
        drop(third);
        join(&pass()).await;
        assert_eq!(kept(&user).len(), 3, "what is free is used again");
    });
}

#[test]
fn a_certificate_is_renewed_while_its_owner_runs() {
    let (server, _cluster, user) = keeping(Duration::from_secs(2));
    let client = enter(&server, &user, Some(&server.token(Role::Client))).expect("let in");
    let path = kept(&user).remove(0);
    let (first, began) = (fs::read(&path).expect("kept"), std::time::Instant::now());
    while fs::read(&path).expect("kept") == first {
        assert!(began.elapsed() < PATIENCE, "it was not renewed");
        client.ping(1);
    }
}

#[test]
fn a_seat_that_is_taken_while_its_owner_is_revoked_is_given_up() {
    let (server, fake) = serve();
    runtime().block_on(async {
        let pass = pass(&server, Role::Client);
        let greeted = join::enter(&pass, |_| Ok(hello())).await.expect("let in");
        let who = bearer(&greeted.approached.keyring).identity;
        server.hub.ca().revoke(who, SystemTime::now()).expect("done");
        assert_eq!(server.hub.expel(who).len(), 1);
        Close::Done.close(&greeted.approached.connection, "");
        let error = join::enter(&pass, |_| Ok(hello())).await.err().expect("not let in");
        assert!(matches!(error, ConnectError::Revoked { role: "client", .. }), "{error}");
    });
    fake.wait_for(|event| matches!(event, Event::ClientRevoked { .. }));
}
