//! End to end: the same program in its own process, natively, and over real QUIC in real sandboxes. Every test in `both` runs both ways
//! and wants equal results; `fleet` has what only a fleet can do,
//! `owner` what a worker's owner says of it, `sessions` what becomes of clients that are cut off or leave.

mod both;
mod fleet;
mod owner;
mod requires;
// It looks on from outside, through a network.
#[cfg(not(target_family = "wasm"))]
mod sessions;
mod tasks;

use std::sync::OnceLock;

use quicsand::Client;
use quicsand_worker::LocalCluster;

static MODULE: quicsand::Module = quicsand::embed!();

/// One cluster for all tests: scheduler and two sandboxed workers over loopback QUIC.
fn cluster() -> &'static LocalCluster {
    static CLUSTER: OnceLock<LocalCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        LocalCluster::builder().workers(2).slots(2).module(MODULE).start().expect("the cluster starts; was the set-up run?")
    })
}

fn fleet() -> Client {
    cluster().client().expect("the client is let in")
}

/// Runs a test in-process, sequentially in this thread, and on the fleet.
fn every_way(test: impl Fn(&Client)) {
    test(&Client::local());
    test(&Client::local().sequential());
    test(&fleet());
}
