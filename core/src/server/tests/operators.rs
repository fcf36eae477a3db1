//! Operators: what they see, and what they and others may not.

use super::*;
use crate::{
    abi,
    codec::{Args, RunBuilder},
    ids::{ClientId, TaskId, WorkerId},
    net::{
        BlobError, Operator, OperatorError, blobs,
        control::{read_message, write_message},
        join::{self, Approached, Greeted},
    },
    wire::{
        CallSpec, Hello, LogStream, MAX_FRAME, PROTOCOL,
        blob::BlobRequest,
        operator::{FromOperator, Logs, OperatorRefusal, REQUEST_BYTES, Status, ToOperator},
    },
};

type Answer = Result<ToOperator, OperatorRefusal>;

/// With workers that send no heartbeats.
fn real() -> SchedulerServer {
    let mut settings = ServerSettings::new("127.0.0.1:0".parse().expect("an address"), Ca::in_memory().expect("a CA"));
    settings.config.lease = Duration::from_secs(600);
    SchedulerServer::start(settings).expect("started")
}

/// An operator's connection without the code that makes operators well-behaved.
async fn greet(server: &SchedulerServer, role: Role, hello: impl FnOnce(Hello) -> Hello) -> Result<Greeted, ConnectError> {
    let usual = Hello {
        protocol: PROTOCOL,
        abi: abi::VERSION,
        name: String::new(),
        worker: None,
        module: None,
        session: None,
        operator: true,
    };
    let hello = hello(usual);
    join::enter(&pass(server, role), |_| Ok(hello.clone())).await
}

#[test]
fn operators_and_clients_see_how_things_stand() {
    let server = real();
    let client = TestClient::connect(&server);
    let (worker, _store) = runtime().block_on(async { join_worker(&server).await });
    for role in [Role::Operator, Role::Client] {
        let address = server.local_addr().to_string();
        let mut operator = Operator::connect(&address, &server.token(role).to_string()).expect("connected");
        assert_eq!(operator.version(), env!("CARGO_PKG_VERSION"));
        let Status { workers, clients, .. } = operator.status().expect("answered");
        assert_eq!(operator.status().expect("answered again").clients, clients);
        assert_eq!((workers[0].id, workers[0].name.as_str(), workers[0].memory), (worker.id, "test", 1 << 30));
        assert_eq!((clients[0].id, clients[0].name.as_str()), (client.connected.client, "test"));
        assert!(workers[0].address.is_some_and(|address| address.ip().is_loopback()));
        assert_eq!((workers.len(), clients.len()), (1, 1), "an operator takes no seat");
    }
    assert_ne!(worker.id, WorkerId(0));
    let error = Operator::connect(&server.local_addr().to_string(), &server.token(Role::Worker).to_string()).expect_err("no");
    assert!(matches!(error, ConnectError::Token { .. }), "{error}");
}

#[test]
fn operators_are_nothing_else_and_workers_no_operators() {
    let (server, fake) = serve();
    runtime().block_on(async {
        let as_client = |hello| Hello { operator: false, module: Some(Hash([0; 32])), ..hello };
        let error = greet(&server, Role::Operator, as_client).await.err().expect("not let in");
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("role")), "{error}");
        let error = greet(&server, Role::Worker, |hello| hello).await.err().expect("not let in");
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("role")), "{error}");
        let error = greet(&server, Role::Operator, |hello| Hello { protocol: 99, ..hello }).await.err().expect("not let in");
        assert!(matches!(error, ConnectError::Version { .. }), "{error}");
        greet(&server, Role::Operator, |hello| Hello { abi: 99, ..hello }).await.expect("it runs no guests");
    });
    assert!(!fake.happened(|event| matches!(event, Event::ClientJoined { .. } | Event::WorkerJoined { .. })));
}

#[test]
fn malformed_requests_are_answered_and_end_the_connection() {
    let (server, _fake) = serve();
    runtime().block_on(async {
        for bytes in [&[1, 0, 0, 0, 99][..], &[2, 0, 0, 0, 0, 0], &(REQUEST_BYTES as u32 + 1).to_le_bytes()] {
            let mut intruder = greet(&server, Role::Operator, |hello| hello).await.expect("let in");
            intruder.send.write_all(bytes).await.expect("written");
            let answer: Answer = read_message(&mut intruder.recv, MAX_FRAME).await.expect("answered");
            assert!(matches!(answer, Err(OperatorRefusal::Malformed { .. })), "{answer:?}");
            intruder.approached.connection.closed().await;
        }
        let mut operator = greet(&server, Role::Operator, |hello| hello).await.expect("let in");
        write_message(&mut operator.send, &FromOperator::Status).await.expect("written");
        let answer: Answer = read_message(&mut operator.recv, MAX_FRAME).await.expect("answered");
        assert!(matches!(answer, Ok(ToOperator::Status(_))), "{answer:?}");
    });
}

#[test]
fn a_client_may_ask_for_the_status_and_nothing_else() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    let span = Span { entry: client.key(1).entry, first: 0, count: u64::MAX };
    runtime().block_on(async {
        let mut curious = greet(&server, Role::Client, |hello| hello).await.expect("let in");
        let logs = FromOperator::Logs { worker: None, span: None, limit: 10, after: Vec::new() };
        let tasks = [FromOperator::Tasks { limit: 1 }, FromOperator::Failures { limit: 1 }];
        for request in tasks.into_iter().chain([FromOperator::Cancel { span }, logs]) {
            write_message(&mut curious.send, &request).await.expect("written");
            let answer: Answer = read_message(&mut curious.recv, MAX_FRAME).await.expect("answered");
            assert_eq!(answer, Err(OperatorRefusal::Role), "{request:?}");
        }
        write_message(&mut curious.send, &FromOperator::Status).await.expect("written");
        let answer: Answer = read_message(&mut curious.recv, MAX_FRAME).await.expect("answered");
        assert!(matches!(answer, Ok(ToOperator::Status(_))), "{answer:?}");
    });
    assert!(!fake.happened(|event| matches!(event, Event::Cancel(_))));
    client.ping(1);
}

#[test]
fn an_operator_cancels_a_call() {
    let server = real();
    let client = TestClient::connect(&server);
    let mut operator = operator(&server);
    let spec = || CallSpec { task: TaskId(1), name: "nap".to_owned(), options: crate::Options::DEFAULT }.into();
    client.send(FromClient::Map { seq: 1, spec: spec() });
    let mut run = RunBuilder::default();
    (0..3).for_each(|_| run.push(b"x").expect("short"));
    client.send(FromClient::Items { seq: 1, args: Args { run: run.take(), holes: Vec::new() } });
    client.send(FromClient::Close { seq: 1 });
    client.ping_until_counted(&span_of(&client, 1, 0, 3), 3);
    let Tasks { entries, more } = operator.tasks(10).expect("answered");
    assert_eq!((entries.len(), more, &*entries[0].task, entries[0].counts.queued), (1, 0, "nap", 3));
    assert_eq!(operator.status().expect("answered").waits[0].items, 3, "there is no worker");
    assert_eq!(operator.cancel(span_of(&client, 1, 1, 1)), Ok(1));
    assert_eq!(operator.cancel(span_of(&client, 1, 0, u64::MAX)), Ok(2));
    let refused = operator.cancel(span_of(&client, 2, 0, 1)).expect_err("no such entry");
    assert!(matches!(refused, OperatorError::Refused(OperatorRefusal::UnknownEntry { .. })), "{refused}");
    let refused = operator.cancel(span_of(&client, 1, 3, 1)).expect_err("no such item");
    assert!(matches!(refused, OperatorError::Refused(OperatorRefusal::UnknownItem { items: 3, .. })), "{refused}");
    assert_eq!(operator.failures(10), Ok(Failures::default()), "cancelled is not failed");
}

#[test]
fn lines_of_all_workers_are_merged_and_silent_workers_are_named() {
    let server = real();
    let mut operator = operator(&server);
    let key = EntryId { client: ClientId(7), seq: 1 }.key(0);
    let line = |number, at_ms, text: &str| LogLine { number, at_ms, key, stream: LogStream::Out, text: text.to_owned() };
    // One for each, since one of them is blocked.
    let runtimes = [runtime(), runtime()];
    let join_with = |runtime: &Runtime, store: &Arc<TestStore>| {
        let store = Arc::clone(store) as Arc<dyn BlobStore>;
        runtime.block_on(try_join(&worker_settings(&server), store)).expect("joined")
    };
    let store = |lines: Vec<LogLine>| Arc::new(TestStore { lines, ..TestStore::default() });
    let join = |lines: Vec<LogLine>| join_with(&runtimes[0], &store(lines));
    let (first, second) = (join(vec![line(1, 10, "a"), line(2, 30, "c")]), join(vec![line(5, 20, "b")]));
    let liar = join(vec![line(2, 20, "x"), line(1, 20, "y")]);
    let busy = store(vec![line(1, 40, "z")]);
    let silent = join_with(&runtimes[1], &busy);
    let held_up = busy.values.lock();

    let texts = |logs: &Logs| logs.lines.iter().map(|(worker, line)| format!("{} {}", worker.0, line.text)).collect::<Vec<_>>();
    let logs = operator.logs(None, None, 10, Vec::new()).expect("answered although one does not");
    let (a, b) = (first.id.0, second.id.0);
    assert_eq!(texts(&logs), [format!("{a} a"), format!("{b} b"), format!("{a} c")]);
    let mut unheard: Vec<_> = logs.silent.iter().map(|worker| (worker.id, worker.name.as_str())).collect();
    unheard.sort_unstable();
    assert_eq!(unheard, [(liar.id, "test"), (silent.id, "test")]);
    drop(held_up);

    let logs = operator.logs(Some(first.id), None, 0, Vec::new()).expect("answered");
    assert_eq!((texts(&logs).len(), logs.last), (0, vec![(first.id, 2)]), "how far it is");
    let logs = operator.logs(Some(first.id), None, 1, Vec::new()).expect("answered");
    assert_eq!((texts(&logs), logs.silent.len()), (vec![format!("{a} c")], 0));
    let logs = operator.logs(Some(first.id), None, 10, vec![(first.id, 1)]).expect("answered");
    assert_eq!(texts(&logs), [format!("{a} c")]);
    let other = Some(Span { entry: key.entry, first: 1, count: 1 });
    assert_eq!(operator.logs(Some(first.id), other, 10, Vec::new()), Ok(Logs::default()));
    let refused = operator.logs(Some(WorkerId(99)), None, 10, Vec::new()).expect_err("no such worker");
    assert!(matches!(refused, OperatorError::Refused(OperatorRefusal::UnknownWorker { .. })), "{refused}");
}

#[test]
fn only_the_scheduler_reads_a_workers_lines() {
    let server = real();
    let runtime = runtime();
    let (worker, _store) = runtime.block_on(join_worker(&server));
    runtime.block_on(async {
        let Approached { endpoint, keyring, .. } = join::approach(&pass(&server, Role::Operator)).await.expect("there");
        let address = worker.listen_address().expect("it serves");
        let config = crate::net::tls::main_client(&keyring).expect("a configuration");
        let config = crate::net::transport::client_config(&config, address);
        let connecting = endpoint.connect_with(config, address, crate::net::tls::WORKER_HOST).expect("an address");
        let connection = connecting.await.expect("connected");
        let query = LogQuery { span: None, after: 0, limit: 10 };
        let answer = blobs::get_small(&connection, &BlobRequest::GetLog(query), 1000).await.expect_err("not for others");
        assert!(matches!(&answer, BlobError::Refused { reason } if reason.contains("only the scheduler")), "{answer}");
    });
}

#[test]
fn operators_that_are_too_many_are_turned_away() {
    let (server, _fake) = serve();
    runtime().block_on(async {
        let mut admitted = Vec::new();
        for _ in 0..crate::server::operator::OPERATORS {
            admitted.push(greet(&server, Role::Operator, |hello| hello).await.expect("let in"));
        }
        let error = greet(&server, Role::Operator, |hello| hello).await.err().expect("not let in");
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("as many peers")), "{error}");
        for mut operator in admitted {
            write_message(&mut operator.send, &FromOperator::Status).await.expect("written");
            let answer: Answer = read_message(&mut operator.recv, MAX_FRAME).await.expect("answered");
            assert!(answer.is_ok(), "{answer:?}");
        }
    });
    TestClient::connect(&server).ping(1);
}

fn operator(server: &SchedulerServer) -> Operator {
    Operator::connect(&server.local_addr().to_string(), &server.token(Role::Operator).to_string()).expect("connected")
}

fn span_of(client: &TestClient, seq: u64, first: u64, count: u64) -> Span {
    Span { entry: client.key(seq).entry, first, count }
}

impl TestClient {
    /// Asks until the scheduler counts so many queued items in the span: it has read what was sent before.
    fn ping_until_counted(&self, span: &Span, queued: u64) {
        loop {
            self.send(FromClient::Count { query: 1, spans: vec![*span] });
            match self.next() {
                Got::Message(ToClient::Counts { counts, .. }) if counts.queued == queued => return,
                Got::Message(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
