//! A whole fleet on this machine: scheduler and workers over loopback QUIC, in this process and as processes of the command.

use std::time::{Duration, Instant};

use quicsand::{Client, Module, task};
use quicsand_worker::{LocalCluster, WorkerKind};

const MODULE: Module = quicsand::embed!();

#[task]
fn inc(x: i64) -> i64 {
    x + 1
}

#[task]
fn sum(xs: &[i64]) -> i64 {
    xs.iter().sum()
}

#[task]
fn picky(x: i64) -> i64 {
    assert!(x != 3, "no threes");
    x
}

#[task]
fn fill(len: u64, byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(len).expect("short")]
}

#[task]
fn total(bytes: Vec<u8>) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte)).sum()
}

#[task]
fn spin() -> u64 {
    let mut x = 1_u64;
    loop {
        x = std::hint::black_box(x.wrapping_mul(3));
        if x == 0 {
            return x;
        }
    }
}

fn cluster(processes: bool) -> LocalCluster {
    let builder = LocalCluster::builder().workers(2).memory(2 << 30).module(MODULE);
    let builder = if processes { builder.processes().command(env!("CARGO_BIN_EXE_quicsand")) } else { builder };
    builder.start().expect("a cluster")
}

fn exercise(client: &Client) {
    let many = client.map(inc, 0..1000);
    let all = client.submit(sum, &many);
    assert_eq!(client.gather(&many).expect("numbers"), (1..=1000).collect::<Vec<i64>>());
    assert_eq!(all.result().expect("a sum"), 500_500);
    let mut x = client.submit(inc, 0);
    for _ in 0..20 {
        x = client.submit(inc, &x);
    }
    assert_eq!(x.result().expect("a number"), 21);
    let large = client.submit(fill, (3_u64 << 20, 1_u8));
    let totals = client.map(total, [&large, &large]);
    assert_eq!(client.gather(&totals).expect("numbers"), [3 << 20; 2]);
    assert_eq!(large.result().expect("bytes").len(), 3 << 20);
    let data = client.scatter(vec![2_u8; 1 << 20]);
    assert_eq!(client.submit(total, &data).result().expect("a number"), 2 << 20);
    let results = client.gather_all(client.map(picky, 0..6));
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false, true, true]);
    let error = results[3].as_ref().expect_err("a three").to_string();
    assert!(error.contains("task `picky`, item 3, panicked: no threes (at "), "{error}");
}

#[test]
fn a_fleet_in_this_process_computes() {
    let cluster = cluster(false);
    exercise(&cluster.client().expect("a client"));
}

#[test]
fn a_fleet_of_processes_computes() {
    let cluster = cluster(true);
    exercise(&cluster.client().expect("a client"));
}

#[test]
fn processes_have_labels_and_resources() {
    let builder = LocalCluster::builder().memory(1 << 30).module(MODULE).processes().command(env!("CARGO_BIN_EXE_quicsand"));
    let cluster = builder.kind(WorkerKind::new(1).label("zone", "a b").resource("gpu", 1)).start().expect("a cluster");
    let client = cluster.client().expect("a client");
    let far = client.task(inc).require_label("zone", "c").submit(1);
    let near = client.task(inc).require_label("zone", "a b").require_resource("gpu", 1).map(0..10);
    assert_eq!(client.gather(&near).expect("numbers"), (1..=10).collect::<Vec<i64>>());
    assert_eq!(far.why().as_deref(), Some("no worker has zone=c"));
}

#[test]
fn a_runaway_task_is_stopped_and_the_worker_goes_on() {
    let cluster = LocalCluster::builder().module(MODULE).start().expect("a cluster");
    let client = cluster.client().expect("a client");
    let late = client.task(spin).timeout(Duration::from_millis(50)).submit(());
    let error = late.result().expect_err("too late").to_string();
    assert!(error.contains("50 ms"), "{error}");
    let spinning = client.submit(spin, ());
    spinning.cancel();
    assert_eq!(client.submit(inc, 1).result().expect("the slot is free again"), 2);
}

#[test]
fn what_a_dead_worker_ran_runs_elsewhere() {
    for processes in [false, true] {
        let mut cluster = cluster(processes);
        let client = cluster.client().expect("a client");
        let many = client.map(inc, 0..20_000);
        cluster.kill_worker(0);
        assert_eq!(client.gather(&many).expect("numbers"), (1..=20_000).collect::<Vec<i64>>());
    }
}

#[test]
fn a_round_trip_is_quick() {
    let cluster = cluster(false);
    let client = cluster.client().expect("a client");
    let mut times: Vec<Duration> = (0..1000)
        .map(|i| {
            let began = Instant::now();
            assert_eq!(client.submit(inc, i).result().expect("a number"), i + 1);
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("round trip: p50 {:?}, p99 {:?}", times[500], times[990]);
    assert!(times[500] < Duration::from_millis(50), "p50 {:?}", times[500]);
}
