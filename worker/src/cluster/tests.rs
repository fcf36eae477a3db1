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
