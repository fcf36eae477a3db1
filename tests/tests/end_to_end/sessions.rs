//! Clients that are cut off and come back, and results that outlive their client.

use std::{
    thread,
    time::{Duration, Instant},
};

use quicsand::{
    Client, Error, PublishError,
    net::Operator,
    wire::{Role, operator::Presence},
};
use quicsand_tests::relay::Relay;
use quicsand_worker::LocalCluster;

use crate::{MODULE, cluster, every_way, fleet, tasks::*};

/// A client of the cluster that reaches it by a way that can be cut.
fn cut_off(cluster: &LocalCluster) -> (Client, Relay) {
    let relay = Relay::new(cluster.address().parse().expect("an address"), 1).expect("a socket");
    let (address, token) = (relay.address().to_string(), cluster.token(Role::Client));
    let client = Client::builder().address(&address).token(token).module(MODULE).connect().expect("let in");
    (client, relay)
}

/// Waits until the scheduler misses a client.
fn wait_until_missed(cluster: &LocalCluster) {
    let mut operator = Operator::connect(cluster.address(), cluster.token(Role::Client)).expect("let in");
    let began = Instant::now();
    while operator.status().expect("answered").clients.iter().all(|client| client.presence != Presence::Away) {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not missed");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_is_cut_off_goes_on_where_it_was() {
    let (client, relay) = cut_off(cluster());
    let large = client.scatter(vec![7_u8; 3 << 20]);
    let stored = client.map(repeat, (0..8_u8).map(|byte| (byte, 200_000)));
    client.progress(&stored);
    let naps = client.map(sleep, (0..40).map(|_| 20));
    let streamed = thread::scope(|scope| {
        let streaming = scope.spawn(|| client.batched_map(inc, 0..2_000_000).collect::<quicsand::Result<Vec<_>>>());
        naps.get(0).expect("there").result().expect("runs");
        relay.cut(true);
        let late = client.map(inc, 0..1000);
        let after = client.submit(length, &large);
        wait_until_missed(cluster());
        relay.cut(false);
        assert_eq!(after.result().expect("runs"), 3 << 20);
        assert!(client.gather(late).expect("all run").into_iter().eq(1..=1000));
        streaming.join().expect("no panic")
    });
    assert!(streamed.expect("all run").into_iter().eq(1..=2_000_000));
    assert!(client.gather(&naps).expect("all run").into_iter().all(|ms| ms == 20));
    let chunks = client.gather(&stored).expect("they can still be fetched");
    assert!(chunks.iter().zip(0..).all(|(chunk, byte)| chunk.len() == 200_000 && chunk[0] == byte));
    assert_eq!(client.counts(&(naps, stored)).expect("answered").memory, 48);
}

#[test]
fn a_client_that_may_not_wait_fails_at_once() {
    let cluster = LocalCluster::builder().workers(1).module(MODULE).start().expect("starts");
    let relay = Relay::new(cluster.address().parse().expect("an address"), 1).expect("a socket");
    let (address, token) = (relay.address().to_string(), cluster.token(Role::Client));
    let client = Client::builder().address(&address).token(token).module(MODULE).reconnect_for(Duration::ZERO);
    let client = client.connect().expect("let in");
    let slept = client.submit(sleep, 60_000);
    relay.cut(true);
    assert!(matches!(slept.result(), Err(Error::Disconnected { .. })));
}

#[test]
fn what_is_published_is_had_by_name_and_type() {
    every_way(|client| {
        client.publish("two", &client.submit(inc, 1)).expect("published");
        client.publish("many", &client.map(inc, 0..1000)).expect("published");
        client.publish("large", &client.scatter(vec![7_u8; 300_000])).expect("published");
        let two = client.published::<i64>("two").expect("there");
        assert_eq!(client.submit(inc, &two).result().expect("an argument"), 3);
        assert_eq!(two.result().expect("a result"), 2);
        let many = client.published_many::<i64>("many").expect("there");
        assert!(client.gather(&many).expect("all of it").into_iter().eq(1..=1000));
        let large = client.published::<Vec<u8>>("large").expect("there");
        assert_eq!(client.submit(length, &large).result().expect("an argument"), 300_000);
        assert_eq!(large.result().expect("a result").len(), 300_000);
        let taken = client.publish("two", &client.submit(inc, 5));
        assert!(matches!(taken, Err(Error::Publish(PublishError::Taken { .. }))), "{taken:?}");
        let wrong = client.published::<u8>("two");
        assert!(matches!(wrong, Err(Error::Publish(PublishError::Type { .. }))), "{wrong:?}");
        ["two", "many", "large"].into_iter().for_each(|name| client.unpublish(name));
        let gone = client.published::<i64>("two");
        assert!(matches!(gone, Err(Error::Publish(PublishError::Unknown { .. }))), "{gone:?}");
        assert_eq!(two.result().expect("whoever has it keeps it"), 2);
    });
}

#[test]
fn what_is_published_outlives_its_client() {
    let first = fleet();
    let large = first.scatter(vec![7_u8; 300_000]);
    first.publish("left: slow", &first.submit(sleep, 300)).expect("published");
    first.publish("left: stored", &first.map(repeat, (0..4_u8).map(|byte| (byte, 200_000)))).expect("published");
    first.publish("left: size", &first.submit(length, &large)).expect("published");
    drop((large, first));
    let second = fleet();
    let slow = second.published::<u64>("left: slow").expect("there");
    let stored = second.published_many::<Vec<u8>>("left: stored").expect("there");
    assert_eq!(second.published::<usize>("left: size").expect("there").result().expect("runs"), 300_000);
    let sizes = second.map(length, &stored);
    assert_eq!(second.gather(&sizes).expect("arguments"), [200_000; 4]);
    assert!(second.gather(&stored).expect("fetched").iter().zip(0..).all(|(chunk, byte)| chunk[0] == byte));
    assert_eq!(slow.result().expect("it ran on"), 300);
    ["left: slow", "left: stored", "left: size"].into_iter().for_each(|name| second.unpublish(name));
}
