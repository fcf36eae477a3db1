//! Clusters start, lose workers, and leave nothing behind.

use super::*;

#[test]
fn a_cluster_starts_and_ends() {
    let mut cluster = LocalCluster::builder().workers(2).memory(1 << 30).start().expect("starts");
    assert!(cluster.address().starts_with("127.0.0.1:"));
    assert_ne!(cluster.token(Role::Worker), cluster.token(Role::Client));
    cluster.kill_worker(0);
    cluster.kill_worker(0);
    cluster.kill_worker(7);
}

#[test]
fn workers_of_several_kinds_have_what_was_said() {
    let builder = LocalCluster::builder().memory(1 << 30).kind(WorkerKind::new(2).label("zone", "a"));
    let mut cluster = builder.kind(WorkerKind::new(1).resource("gpu", 1).slots(2)).start().expect("starts");
    cluster.add_workers(&WorkerKind::new(1).label("zone", "b")).expect("join");
    let mut refused = |kind: WorkerKind, part: &str| {
        let error = cluster.add_workers(&kind).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(WorkerKind::new(1).label("arch", "z80"), "every worker sets this label itself");
    refused(WorkerKind::new(1).label("my zone", "a"), "letters, digits");
    refused(WorkerKind::new(1).resource("", 1), "letters, digits");
    (0..4).for_each(|index| cluster.kill_worker(index));
}

#[test]
fn a_worker_without_a_scheduler_says_so() {
    let cluster = LocalCluster::new(0).expect("starts");
    let start = |address: &str, role| {
        let settings = crate::WorkerSettings::new(address, cluster.token(role));
        crate::WorkerServer::start(&settings).expect_err("nobody to join")
    };
    assert!(matches!(start(cluster.address(), Role::Client), ConnectError::Token { .. }));
    assert!(matches!(start("nowhere", Role::Worker), ConnectError::Address { .. }));
    let address = cluster.address().to_owned();
    let worker = crate::WorkerServer::start(&crate::WorkerSettings::new(&address, cluster.token(Role::Worker))).expect("joins");
    worker.drain();
    worker.wait().expect("leaves well");
}
