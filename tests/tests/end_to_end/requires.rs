//! Labels and resources, over real workers: where calls run, how many at a time, what they wait for.

use std::collections::BTreeSet;

use quicsand::{Client, Error, Status};
use quicsand_worker::{LocalCluster, WorkerKind};

use crate::{MODULE, tasks::*};

/// Two workers in zone a, local-0 and local-1; one in zone b with more slots than graphics cards, local-2.
fn mixed() -> (LocalCluster, Client) {
    let zone_a = WorkerKind::new(2).label("zone", "a");
    let zone_b = WorkerKind::new(1).label("zone", "b").resource("gpu", 2).slots(4);
    let cluster = LocalCluster::builder().kind(zone_a).kind(zone_b).module(MODULE).start().expect("starts");
    let client = cluster.client().expect("is let in");
    (cluster, client)
}

/// Where calls that fail ran.
fn workers(results: Vec<quicsand::Result<()>>) -> BTreeSet<String> {
    let worker = |result| match result {
        Err(Error::Task(error)) => error.worker.clone(),
        other => panic!("expected a task's error, got {other:?}"),
    };
    results.into_iter().map(worker).map(|worker| worker.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn calls_run_where_what_they_ask_for_is() {
    let (_cluster, client) = mixed();
    let found = |name: &str, value: &str| {
        let futures = client.task(tell_worker).require_label(name, value).map(0..200);
        workers(client.gather_all(&futures))
    };
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(found("zone", "b"), set(&["local-2"]));
    assert!(found("zone", "a").is_subset(&set(&["local-0", "local-1"])));
    assert!(found("arch", std::env::consts::ARCH).is_subset(&set(&["local-0", "local-1", "local-2"])));
    let with_gpu = client.task(tell_worker).require_resource("gpu", 2).map(0..50);
    assert_eq!(workers(client.gather_all(&with_gpu)), set(&["local-2"]));
}

#[test]
fn no_more_is_taken_than_there_is() {
    let (_cluster, client) = mixed();
    let singles: Vec<_> = (0..12).map(|_| client.submit(hold_gpu, 5)).collect();
    let many = client.map(hold_gpu, (0..40).map(|_| 1));
    let whole = client.task(hold_gpu).require_resource("gpu", 2).submit(5);
    let beside = client.map(inc, 0..100);
    assert_eq!(client.gather(&beside).expect("need nothing").len(), 100);
    let (mut times, many, whole) = client.gather((singles, many, whole)).expect("all run");
    times.extend(many);
    let at_once = |start: u64, end: u64| times.iter().filter(|(other, _)| (start..end).contains(other)).count();
    for &(start, _) in &times {
        let running = times.iter().filter(|&&(first, last)| first <= start && start < last).count();
        assert!(running <= 2, "{running} ran at once, of two cards");
    }
    assert_eq!(at_once(whole.0, whole.1), 0, "something began beside what takes both");
}

#[test]
fn what_nobody_has_is_waited_for_and_told() {
    let (mut cluster, client) = mixed();
    let lonely = client.task(inc).require_label("zone", "c").submit(1);
    let greedy = client.task(inc).require_resource("gpu", 3).map(0..10);
    let after = client.submit(inc, &lonely);
    assert_eq!(client.gather(client.map(inc, 0..1000)).expect("nobody is held up").len(), 1000);
    assert_eq!(lonely.status(), Status::Queued);
    assert_eq!(lonely.why().as_deref(), Some("no worker has zone=c"));
    assert_eq!(after.why().as_deref(), Some("results of other calls that they read are not there yet"));
    let why = client.why(&(&lonely, &greedy)).expect("is told");
    let why: Vec<_> = why.iter().map(|all| format!("{} want {}: {}", all.items, all.requires, all.why)).collect();
    assert_eq!(why, ["1 want zone=c: no worker has zone=c", "10 want gpu=3: no worker has gpu=3, the most is gpu=2"]);
    cluster.add_workers(&WorkerKind::new(1).label("zone", "c")).expect("joins");
    assert_eq!(client.gather((&lonely, &after)).expect("runs"), (2, 3));
    assert_eq!(lonely.why(), None);
    cluster.add_workers(&WorkerKind::new(1).resource("gpu", 3)).expect("joins");
    assert_eq!(client.gather(&greedy).expect("runs").len(), 10);
}

#[test]
fn in_this_process_everything_is_there() {
    for client in [Client::local(), Client::local().sequential()] {
        let held = client.task(hold_gpu).require_label("zone", "nowhere").require_resource("gpu", 1 << 40).submit(0);
        assert!(held.result().is_ok());
        assert_eq!(held.why(), None);
    }
}

#[test]
fn what_cannot_be_asked_for_fails_the_call() {
    let (_cluster, fleet) = mixed();
    for client in [Client::local(), fleet] {
        let error = client.task(inc).require_label("my zone", "a").submit(1).result().expect_err("no name");
        assert!(error.to_string().contains("what the call requires: the name of a label or resource has"), "{error}");
        let error = client.task(inc).require_label("zone", "").map(0..3).get(0).expect("there").result().expect_err("no value");
        assert!(matches!(error, Error::Connect(_)), "{error}");
        let many = (0..40).fold(client.task(inc), |call, i| call.require_resource(format!("r{i}"), 1));
        assert!(many.submit(1).result().expect_err("too many").to_string().contains("more than 32"));
        assert_eq!(
            client.task(inc).require_resource("gpu", 5).require_resource("gpu", 0).submit(1).result().expect("asks none"),
            2
        );
    }
}
