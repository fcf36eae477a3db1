//! Modules and values: uploaded, relayed, fetched directly, and refused.

use super::*;
use crate::{
    ids::{Identity, WorkerId},
    net::{
        blobs::{self, BlobError, Expected, MAX_VALUE_BYTES},
        control::write_message,
        peers::Peers,
    },
    wire::{
        Hello, PROTOCOL, WorkerHello,
        blob::{BlobRequest, Grant, Place},
    },
};

pub(super) fn big() -> Bytes {
    (0..5_000_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<_>>().into()
}

fn fetch(client: &TestClient, key: Key, bytes: &Bytes, places: Vec<Place>) -> Option<Bytes> {
    client.connected.backend.fetch(key, bytes.len() as u64, Hash::of(bytes), places);
    match client.next() {
        Got::Fetched(fetched, bytes) if fetched == key => bytes,
        other => panic!("{other:?}"),
    }
}

/// Who the fake was told that a client is.
fn identity(fake: &Fake, client: &TestClient) -> Identity {
    let seen = fake.seen.0.lock();
    let mut joined = seen.events.iter().filter_map(|event| match event {
        Event::ClientJoined { client: id, who, .. } if *id == client.connected.client => Some(*who),
        _ => None,
    });
    joined.next().expect("joined")
}

/// What the fake was told of a worker.
fn hello_of(fake: &Fake, worker: WorkerId) -> WorkerHello {
    let seen = fake.seen.0.lock();
    let mut joined = seen.events.iter().filter_map(|event| match event {
        Event::WorkerJoined { worker: id, hello, .. } if *id == worker => Some(hello.clone()),
        _ => None,
    });
    joined.next().expect("joined")
}

#[test]
fn a_worker_gets_the_clients_module() {
    let (server, _fake) = serve();
    let _client = TestClient::connect(&server);
    runtime().block_on(async {
        let (link, _) = join_worker(&server).await;
        let module = link.blobs().get_module(Hash::of(b"\0asm module")).await;
        assert_eq!(module.as_deref(), Ok(&b"\0asm module"[..]));
        assert_eq!(link.blobs().get_module(Hash::of(b"another")).await, Err(BlobError::NotFound));
    });
}

#[test]
fn data_goes_to_the_scheduler_and_to_workers() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    let (key, bytes) = (client.key(3), big());
    client.connected.backend.upload(key, bytes.clone().into(), Hash::of(&bytes), Vec::new());
    fake.wait_for(|event| matches!(event, Event::Held { key: held, len: 5_000_000, .. } if *held == key));
    assert_eq!(fetch(&client, key, &bytes, Vec::new()), Some(bytes.clone()));
    runtime().block_on(async {
        let (link, _) = join_worker(&server).await;
        assert_eq!(link.blobs().get(key, bytes.len() as u64, Hash::of(&bytes), &[]).await, Ok(bytes.clone()));
        fake.seen.0.lock().secrets.insert(key);
        let refused = link.blobs().get(key, bytes.len() as u64, Hash::of(&bytes), &[]).await;
        assert!(refused.is_err(), "it has nothing to do with it");
    });
}

#[test]
fn values_are_relayed_or_fetched_directly() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    let runtime = runtime();
    let (link, store) = runtime.block_on(join_worker(&server));
    let (known, secret, bytes) = (client.key(1), client.key(2), big());
    for key in [known, secret] {
        store.write(key, bytes.clone(), Hash::of(&bytes)).expect("taken");
    }
    link.sender().send([holds(known, &bytes)]).expect("short");
    fake.wait_for(|event| matches!(event, Event::FromWorker(_, FromWorker::Holds { .. })));
    assert_eq!(fetch(&client, known, &bytes, Vec::new()), Some(bytes.clone()), "relayed");

    // The fake has never heard of the other one: only the worker itself can give it.
    let hello = hello_of(&fake, link.id);
    let address = hello.listen.expect("it serves");
    assert_eq!(Some(address), link.listen_address());
    let place = |who| Place { worker: link.id, address, grant: Grant::issue(&hello.grant_secret, secret, who) };
    assert_eq!(fetch(&client, secret, &bytes, Vec::new()), None);
    assert_eq!(fetch(&client, secret, &bytes, vec![place(Identity([0; 16]))]), None, "somebody else's grant");
    let good = place(identity(&fake, &client));
    assert_eq!(fetch(&client, secret, &bytes, vec![good.clone()]), Some(bytes.clone()), "directly");
    // A place that is wrong about the value does not keep it from being found elsewhere.
    store.write(secret, Bytes::from_static(b"other"), Hash::of(b"other")).expect("taken");
    assert_eq!(fetch(&client, secret, &bytes, vec![good]), None);
    let dead = Place { address: "127.0.0.1:1".parse().expect("an address"), ..place(Identity([0; 16])) };
    assert_eq!(fetch(&client, known, &bytes, vec![dead]), Some(bytes.clone()), "relayed when the place is dead");

    // Uploading to the worker, with and without its leave.
    let (key, small) = (client.key(4), Bytes::from_static(b"small"));
    let grant = Grant::issue(&hello.grant_secret, key, identity(&fake, &client));
    let place = Place { worker: link.id, address, grant };
    client.connected.backend.upload(
        key,
        small.clone().into(),
        Hash::of(&small),
        vec![Place { grant: Grant([0; 32]), ..place.clone() }],
    );
    fake.wait_for(|event| matches!(event, Event::FromClient(_, FromClient::UploadFailed { seq: 4 })));
    assert!(!store.values.lock().contains_key(&key));
    client.connected.backend.upload(client.key(4), small.clone().into(), Hash::of(&small), vec![place]);
    client.connected.backend.upload(client.key(5), small.clone().into(), Hash::of(&small), Vec::new());
    fake.wait_for(|event| matches!(event, Event::Held { .. }));
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            while !store.values.lock().contains_key(&key) {
                tokio::task::yield_now().await
            }
        })
        .await
        .expect("taken");
    });
}

#[test]
fn a_worker_that_does_not_have_what_it_says_is_noticed() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    let runtime = runtime();
    let (link, store) = runtime.block_on(join_worker(&server));
    let bytes = big();
    let [absent, other, damaged] = [1, 2, 3].map(|seq| client.key(seq));
    store.write(other, Bytes::from_static(b"other"), Hash::of(b"other")).expect("taken");
    store.write(damaged, bytes.iter().rev().copied().collect(), Hash::of(&bytes)).expect("taken");
    for key in [absent, other, damaged] {
        link.sender().send([holds(key, &bytes)]).expect("short");
        fake.wait_for(|event| matches!(event, Event::FromWorker(_, FromWorker::Holds { key: told, .. }) if *told == key));
        assert_eq!(fetch(&client, key, &bytes, Vec::new()), None);
        fake.wait_for(|event| matches!(event, Event::Unserved { worker, key: told, .. } if (*worker, *told) == (link.id, key)));
    }
}

#[test]
fn what_arrives_is_checked() {
    // What is large is put together on another thread.
    [100_000, 3_000_000].into_iter().for_each(check_arrivals);
}

fn check_arrivals(len: u64) {
    let (server, fake) = serve();
    runtime().block_on(async {
        let module = Some(Hash::of(b"never uploaded"));
        let (abi, name) = (crate::abi::VERSION, String::new());
        let hello = Hello { protocol: PROTOCOL, abi, name, worker: None, module, session: session(), operator: false };
        let greeted = crate::net::join::enter(&pass(&server, Role::Client), |_| Ok(hello.clone())).await.expect("let in");
        let crate::wire::Welcome::Client { id, .. } = greeted.welcome else { panic!("{:?}", greeted.welcome) };
        let crate::net::join::Approached { endpoint, connection, keyring, .. } = greeted.approached;
        let (key, bytes) = (EntryId { client: id, seq: 1 }.key(0), Bytes::from(vec![7; len as usize]));
        let put = |key, len, hash| BlobRequest::Put { key, len, hash, grant: None, then: Vec::new() };
        let refusal = |result: Result<(), BlobError>| match result {
            Err(BlobError::Refused { reason }) => reason,
            other => panic!("{other:?}"),
        };

        let wrong_hash = blobs::put(&connection, &put(key, len, Hash::of(b"other")), bytes.clone().into()).await;
        assert!(refusal(wrong_hash).contains("another hash"));
        let short = blobs::put(&connection, &put(key, len + 1, Hash::of(&bytes)), bytes.clone().into()).await;
        assert!(refusal(short).contains(&format!("{len} bytes came where {}", len + 1)));
        let long = blobs::put(&connection, &put(key, len - 1, Hash::of(&bytes)), bytes.clone().into()).await;
        assert!(refusal(long).contains("another hash"));
        let huge = blobs::put(&connection, &put(key, u64::MAX, Hash::of(&bytes)), bytes.clone().into()).await;
        assert!(refusal(huge).contains("at most"));
        let foreign = EntryId { client: crate::ids::ClientId(77), seq: 1 }.key(0);
        let not_ours = blobs::put(&connection, &put(foreign, len, Hash::of(&bytes)), bytes.clone().into()).await;
        assert!(refusal(not_ours).contains("no right"));
        let unannounced = BlobRequest::PutModule { hash: Hash::of(b"\0asm"), len: 4 };
        assert!(refusal(blobs::put(&connection, &unannounced, Bytes::from_static(b"\0asm").into()).await).contains("announced"));

        // A dropped stream looks finished to whoever reads it; the length tells.
        let (mut send, mut recv) = connection.open_bi().await.expect("opened");
        write_message(&mut send, &put(key, len, Hash::of(&bytes))).await.expect("written");
        send.write_all(&bytes[..bytes.len() / 2]).await.expect("written");
        drop(send);
        let reply = crate::net::control::read_message::<crate::wire::blob::BlobReply>(&mut recv, 4096).await.expect("a reply");
        assert!(matches!(reply, crate::wire::blob::BlobReply::Refused { reason } if reason.contains(&format!("{} bytes came", len / 2))));

        let expected = Expected { len: None, limit: MAX_VALUE_BYTES, hash: Hash::of(&bytes) };
        let got = blobs::get(&connection, &BlobRequest::Get { key: foreign, grant: None }, expected).await;
        assert!(matches!(got, Err(BlobError::Refused { .. })), "{got:?}");
        let got = blobs::get(&connection, &BlobRequest::GetModule { hash: Hash::of(b"x") }, expected).await;
        assert!(matches!(got, Err(BlobError::Refused { .. })), "{got:?}");
        assert!(!fake.happened(|event| matches!(event, Event::Held { .. })));

        blobs::put(&connection, &put(key, len, Hash::of(&bytes)), bytes.clone().into()).await.expect("taken");
        let peers = Peers::new(endpoint, &keyring, connection).expect("configured");
        assert_eq!(peers.fetch(key, len, Hash::of(&bytes), &[]).await, Ok(bytes.clone()));
        let other_length = peers.fetch(key, 5, Hash::of(&bytes), &[]).await;
        assert_eq!(other_length, Err(BlobError::Length { expected: 5, got: len }));
        assert_eq!(peers.fetch(key, len, Hash::of(b"x"), &[]).await, Err(BlobError::Corrupt));
    });
}

#[test]
fn workers_fetch_from_each_other() {
    let (server, fake) = serve();
    let other_cluster = serve().0;
    let client = TestClient::connect(&server);
    let (key, bytes) = (client.key(1), big());
    let hash = Hash::of(&bytes);
    runtime().block_on(async {
        let store = Arc::new(TestStore::default());
        store.write(key, bytes.clone(), hash).expect("taken");
        let listen = Some("127.0.0.1:0".parse().expect("an address"));
        let settings = WorkerSettings { listen, ..worker_settings(&server) };
        let giver = try_join(&settings, store).await.expect("joined");
        let address = giver.listen_address().expect("it serves");
        let taken = WorkerSettings { listen: Some(address), ..settings };
        let error = try_join(&taken, Arc::new(TestStore::default())).await.err().expect("the port is taken");
        assert!(matches!(error, ConnectError::Start { .. }), "{error}");

        let (taker, _) = join_worker(&server).await;
        let who = identity_of_worker(&fake, taker.id);
        let place = Place { worker: giver.id, address, grant: Grant::issue(&hello_of(&fake, giver.id).grant_secret, key, who) };
        let get = async |link: &WorkerLink| link.blobs().get(key, bytes.len() as u64, hash, std::slice::from_ref(&place)).await;
        assert_eq!(get(&taker).await, Ok(bytes.clone()));
        let (stranger, _) = join_worker(&other_cluster).await;
        assert_eq!(get(&stranger).await, Err(BlobError::NotFound), "another cluster's worker gets no connection");
        giver.close().await;
        assert_eq!(get(&taker).await, Err(BlobError::NotFound));
    });
}

fn identity_of_worker(fake: &Fake, worker: WorkerId) -> Identity {
    let seen = fake.seen.0.lock();
    let mut joined = seen.events.iter().filter_map(|event| match event {
        Event::WorkerJoined { worker: id, who, .. } if *id == worker => Some(*who),
        _ => None,
    });
    joined.next().expect("joined")
}

#[test]
fn a_value_is_handed_on_while_it_comes() {
    let (server, fake) = serve();
    let client = TestClient::connect(&server);
    let runtime = runtime();
    let workers = [runtime.block_on(join_worker(&server)), runtime.block_on(join_worker(&server))];
    let [first, second] = [0, 1].map(|at| {
        let (link, _) = &workers[at];
        let hello = hello_of(&fake, link.id);
        (link.id, hello.listen.expect("it serves"), hello.grant_secret)
    });
    let (bytes, of_client, of_first) = (big(), identity(&fake, &client), identity_of_worker(&fake, first.0));
    let route = |key, last_bearer| {
        let (worker, address, secret) = second;
        let last = Place { worker, address, grant: Grant::issue(&secret, key, last_bearer) };
        let (worker, address, secret) = first;
        let grant = Grant::issue_to_hand_on(&secret, key, of_client, std::slice::from_ref(&last));
        vec![Place { worker, address, grant }, last]
    };
    let upload = |key, route| client.connected.backend.upload(key, bytes.clone().into(), Hash::of(&bytes), route);
    let has = |at: usize, key| workers[at].1.values.lock().get(&key) == Some(&(bytes.clone(), Hash::of(&bytes)));
    let wait_for = |at, key| {
        let coming = async {
            while !has(at, key) {
                tokio::task::yield_now().await;
            }
        };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, coming).await.expect("taken") });
    };
    let [through, alone, elsewhere, after] = [1, 2, 3, 4].map(|seq| client.key(seq));
    upload(through, route(through, of_first));
    wait_for(0, through);
    wait_for(1, through);
    // Who is next does not want it: the first one has it all the same.
    upload(alone, route(alone, of_client));
    wait_for(0, alone);
    // A client cannot have a worker go where the scheduler did not say.
    let mut strayed = route(elsewhere, of_first);
    strayed[1].address.set_port(1);
    upload(elsewhere, strayed);
    fake.wait_for(|event| matches!(event, Event::FromClient(_, FromClient::UploadFailed { seq: 3 })));
    upload(after, route(after, of_first));
    wait_for(1, after);
    assert!(!has(1, alone) && !has(0, elsewhere) && !has(1, elsewhere));
}
