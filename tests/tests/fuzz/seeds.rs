//! Inputs that are well-formed, to begin with: messages of every kind, what strangers say, a module.

use std::time::Duration;

use bytes::Bytes;
use quicsand::{
    Options, abi,
    codec::{self, Args, Hole, Run, RunBuilder, Source, Span},
    ids::{ClientId, EntryId, Hash, Identity, RunId, TaskId, WorkerId},
    scheduler::{Action, Config, Event, Passport, Record, Scheduler},
    wire::{
        CallSpec, FromClient, FromWorker, Hello, JoinRequest, Load, Outcome, PROTOCOL, Proof, Role, Session, SharedSpec, Stored,
        ToClient, ToWorker, WorkerHello,
    },
};
use serde::Serialize;

/// Names and contents.
type Seeds = Vec<(&'static str, Vec<u8>)>;

/// By target.
pub(crate) fn all() -> Vec<(&'static str, Seeds)> {
    vec![
        ("frames", frames()),
        ("handshake", handshake()),
        ("scheduler", scheduler()),
        ("journal", journal()),
        ("module", module()),
        ("values", values()),
    ]
}

const CLIENT: ClientId = ClientId(1);

fn entry(seq: u64) -> EntryId {
    EntryId { client: CLIENT, seq }
}

fn spec() -> SharedSpec {
    CallSpec { task: TaskId(7), name: "inc".into(), options: Options::DEFAULT }.into()
}

fn run(items: &[&[u8]]) -> Run {
    let mut builder = RunBuilder::default();
    items.iter().for_each(|item| builder.push(item).expect("short"));
    builder.take()
}

fn args(items: &[&[u8]], holes: Vec<Hole>) -> Args {
    Args { run: run(items), holes }
}

fn encoded<T: Serialize>(messages: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| codec::encode_into(message, &mut bytes).expect("encoded"));
    bytes
}

/// A graph: a call, one that reads it, a map that reads each and all, and data.
fn said_by_client() -> Vec<FromClient> {
    let same = Hole { first: 0, count: 1, field: 0, source: Source::Same(entry(0).key(0)) };
    let each = Hole { first: 0, count: 2, field: 1, source: Source::Each { entry: entry(2), first: 0 } };
    let list = Hole { first: 0, count: 2, field: 0, source: Source::List(vec![Span { entry: entry(2), first: 0, count: 2 }]) };
    let span = |seq, count| Span { entry: entry(seq), first: 0, count };
    vec![
        FromClient::Call { seq: 0, spec: spec(), args: args(&[&[2]], vec![]) },
        FromClient::Call { seq: 1, spec: spec(), args: args(&[&[]], vec![same]) },
        FromClient::Map { seq: 2, spec: spec() },
        FromClient::Items { seq: 2, args: args(&[&[1], &[2, 0xff], &[3]], vec![]) },
        FromClient::Map { seq: 3, spec: spec() },
        FromClient::Items { seq: 3, args: args(&[&[], &[9]], vec![list, each]) },
        FromClient::Close { seq: 2 },
        FromClient::Close { seq: 3 },
        FromClient::Data { seq: 4, len: 3, hash: Hash::of(b"abc"), bytes: Some(Bytes::from_static(b"abc")) },
        FromClient::Data { seq: 5, len: 1 << 20, hash: Hash::of(b"far"), bytes: None },
        FromClient::UploadFailed { seq: 5 },
        FromClient::Count { query: 1, spans: vec![span(0, 1), span(2, 3)] },
        FromClient::Explain { query: 2, spans: vec![span(1, 1)] },
        FromClient::Cancel { span: span(3, 1) },
        FromClient::Unreachable { seq: 2, index: 1 },
        FromClient::Detach { span: span(1, 1) },
        FromClient::Publish { query: 3, name: "table".into(), kind: "i64".into(), span: span(0, 1) },
        FromClient::LookUp { query: 4, name: "table".into(), kind: "i64".into() },
        FromClient::TakeUp { seq: 6, name: "table".into(), kind: "i64".into(), count: 1 },
        FromClient::Unpublish { name: "table".into() },
        FromClient::Release { span: span(2, 3) },
        FromClient::Bye,
    ]
}

/// What a worker makes of its first runs.
fn said_by_worker() -> Vec<FromWorker> {
    let outcome = |values, stored| Outcome { first: 0, values, stored, errors: vec![], dropped: vec![] };
    let stored = Stored { item: 0, len: 1 << 20, hash: Hash::of(b"far") };
    let ms = std::time::Duration::from_millis(1);
    vec![
        FromWorker::Heartbeat(Load::default()),
        FromWorker::Started { run: RunId(1) },
        FromWorker::Finished { run: RunId(1), outcome: outcome(run(&[&[4]]), vec![]), elapsed: ms },
        FromWorker::Started { run: RunId(2) },
        FromWorker::Finished { run: RunId(2), outcome: outcome(run(&[&[]]), vec![stored]), elapsed: ms },
        FromWorker::Returned { run: RunId(3), missing: vec![entry(0).key(0)] },
        FromWorker::Divided { run: RunId(4), count: 2 },
        FromWorker::Holds { key: entry(5).key(0), len: 1 << 20, hash: Hash::of(b"far") },
        FromWorker::Registered,
        FromWorker::Unreplicated { key: entry(5).key(0) },
        FromWorker::Draining,
    ]
}

fn frames() -> Seeds {
    let cancelled = Span { entry: entry(3), first: 0, count: 2 };
    let to_client = [
        ToClient::Done { seq: 0, first: 0, values: run(&[&[4], &[5, 6]]) },
        ToClient::Stored { seq: 1, index: 0, len: 9, hash: Hash::of(b"9"), places: vec![] },
        ToClient::Cancelled { span: cancelled },
        ToClient::Lost { seq: 1, index: 0 },
        ToClient::Upload { seq: 5, route: Vec::new() },
        ToClient::Credit { total: 1 << 20 },
        ToClient::Refused { reason: "no".into() },
    ];
    let to_worker = [
        ToWorker::Cancel { run: RunId(1), first: 0, count: 2 },
        ToWorker::Recall { run: RunId(2) },
        ToWorker::Free { spans: vec![cancelled] },
        ToWorker::Replicate { key: entry(5).key(0), len: 9, hash: Hash::of(b"9"), places: vec![] },
        ToWorker::Drain,
        ToWorker::Leave,
    ];
    vec![
        ("from-client", encoded(&said_by_client())),
        ("from-worker", encoded(&said_by_worker())),
        ("to-client", encoded(&to_client)),
        ("to-worker", encoded(&to_worker)),
    ]
}

fn handshake() -> Seeds {
    let session = Session { secret: [2; 16], client: None };
    let hello = |worker, module: Option<Hash>, operator| Hello {
        protocol: PROTOCOL,
        abi: abi::VERSION,
        name: "me".into(),
        worker,
        module,
        session: module.map(|_| session),
        operator,
    };
    let works = WorkerHello {
        slots: 2,
        memory: 1 << 30,
        arch: "x86_64".into(),
        listen: Some(([127, 0, 0, 1], 7448).into()),
        grant_secret: [3; 32],
        labels: vec![("zone".into(), "a".into())],
        resources: vec![("gpu".into(), 1)],
        incarnation: 1,
        keeps: 0,
    };
    let asks = |proof| JoinRequest { protocol: PROTOCOL, role: Role::Client, proof, csr: b"0 is no request".to_vec() };
    let token = format!("quicsand1{}", "A".repeat(92));
    vec![
        ("client", encoded(&[hello(None, Some(Hash::of(b"module")), false)])),
        ("worker", encoded(&[hello(Some(works), None, false)])),
        ("operator", encoded(&[hello(None, None, true)])),
        ("join-by-token", encoded(&[asks(Proof::Token([5; 32]))])),
        ("join-by-certificate", encoded(&[asks(Proof::Certificate)])),
        ("token", token.into_bytes()),
    ]
}

/// Who speaks, and what: a client's graph and what becomes of it.
fn scheduler() -> Seeds {
    let client =
        |messages: &[FromClient]| messages.iter().flat_map(|said| [vec![1], encoded(&[said])].concat()).collect::<Vec<u8>>();
    let worker =
        |messages: &[FromWorker]| messages.iter().flat_map(|said| [vec![3], encoded(&[said])].concat()).collect::<Vec<u8>>();
    let (said, done) = (said_by_client(), said_by_worker());
    let (submitted, managed) = said.split_at(10);
    vec![
        ("graph", client(submitted)),
        ("graph-done", [client(submitted), worker(&done)].concat()),
        (
            "graph-managed",
            [client(submitted), worker(&done[..3]), client(managed), vec![0xff, 0xff], worker(&done[3..])].concat(),
        ),
        ("worker-alone", worker(&done)),
    ]
}

/// What a scheduler says to a journal of a client's graph, with and without what becomes of it.
fn journal() -> Seeds {
    let kept = |with_worker: bool| {
        let mut scheduler = Scheduler::new(Config { journal: true, ..Config::default() });
        let (client, worker, mut actions) = (ClientId(1), WorkerId(3), Vec::new());
        let (who, module, passport) = (Identity([1; 16]), Hash([7; 32]), Passport { secret: [9; 16], name: "a".into() });
        let mut events = vec![Event::ClientJoined { client, who, module, passport }];
        events.extend(said_by_client().into_iter().take(10).map(|message| Event::FromClient(client, message)));
        if with_worker {
            events.extend(said_by_worker().into_iter().map(|message| Event::FromWorker(worker, message)));
        }
        let span = Span { entry: entry(1), first: 0, count: 1 };
        events.push(Event::FromClient(client, FromClient::Detach { span }));
        events.push(Event::FromClient(client, FromClient::Publish { query: 1, name: "a".into(), kind: "b".into(), span }));
        events.into_iter().for_each(|event| scheduler.handle(Duration::from_millis(1), event, &mut actions));
        let records =
            actions.into_iter().filter_map(|action| if let Action::Record(records) = action { Some(records) } else { None });
        let facts = records.flatten().filter_map(|record| if let Record::Put(fact) = record { Some(fact) } else { None });
        let mut bytes = Vec::new();
        for fact in facts {
            let mut encoded = Vec::new();
            fact.encode_into(&mut encoded).expect("encodes");
            bytes.extend(u16::try_from(encoded.len()).expect("short").to_le_bytes());
            bytes.extend(encoded);
        }
        bytes
    };
    vec![("graph", kept(false)), ("graph-done", kept(true))]
}

fn module() -> Seeds {
    let text = |text: &str| wat::parse_str(text).expect("a module");
    let memory = r#"(memory (export "memory") 1) (func (export "f") (result i32) (i32.const 1))"#;
    // The list of tasks, of one that has no export.
    let listed = r#"(@custom "quicsand" "\30\00\00\00\01\00\00\00\01\00\00\00\00\00\00\00\02\00\00\00\00\00\00\00\03\00\00\00inc\03\00\00\00sig\02\00\00\00e1\00\00")"#;
    vec![
        ("empty", text("(module)")),
        ("no-tasks", text(&format!("(module {memory})"))),
        ("listed", text(&format!("(module {memory} {listed})"))),
        ("imports", text(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#)),
        ("table", text("(module (table 100 funcref) (func $f) (elem (i32.const 0) $f))")),
        ("loop", text("(module (func (export \"run\") (loop (br 0))))")),
        ("not-wasm", b"\x7fELF".to_vec()),
    ]
}

/// Lists in each of their forms.
fn values() -> Seeds {
    fn form<T: Serialize>(list: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_value(list, &mut bytes).expect("encoded");
        bytes
    }
    let wide = |shift: u32| (0..70).map(|x: i64| (x - 35) << shift).collect::<Vec<_>>();
    vec![
        ("floats", form(&vec![1.5_f64, f64::NAN, -0.0])),
        ("small-integers", form(&vec![1_i64, -2, 1 << 40])),
        ("packed-in-one-byte", form(&wide(0))),
        ("packed-in-four-bytes", form(&wide(20))),
        ("packed-in-eight-bytes", form(&wide(50))),
        ("rows", form(&vec![wide(0), wide(10), vec![7]])),
    ]
}
