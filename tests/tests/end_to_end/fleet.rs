//! What only a fleet can do: limits, dead workers, joining, bad modules.

use quicsand::{Client, ConnectError, Error, Module, TaskErrorKind};
use quicsand_worker::LocalCluster;

use crate::{MODULE, cluster, fleet, tasks::*};

fn task_error<T: std::fmt::Debug>(result: quicsand::Result<T>) -> std::sync::Arc<quicsand::TaskError> {
    match result {
        Err(Error::Task(error)) => error,
        other => panic!("expected a task's error, got {other:?}"),
    }
}

#[test]
fn a_runaway_loop_is_stopped_and_its_neighbours_finish() {
    let client = fleet();
    let futures = client.map(spin, (0..64).map(|i| i == 13));
    for (i, result) in client.gather_all(&futures).into_iter().enumerate() {
        match result {
            Ok(turns) => assert_eq!((i == 13, turns), (false, 0)),
            other => {
                let error = task_error(other);
                assert_eq!((i, error.kind.clone()), (13, TaskErrorKind::TimeLimit { limit_ms: 100 }), "{error}");
            }
        }
    }
}

#[test]
fn memory_is_limited() {
    let client = fleet();
    assert_eq!(client.submit(hog, 8).result().expect("fits"), 8 << 20);
    let error = task_error(client.submit(hog, 100).result());
    let TaskErrorKind::MemoryLimit { limit, peak } = error.kind else { panic!("{error}") };
    assert_eq!(limit, 32 << 20);
    assert!(peak > limit);
    assert_eq!(client.submit(hog, 8).result().expect("the worker lives on"), 8 << 20);
}

#[test]
fn deep_recursion_is_an_error() {
    let client = fleet();
    assert_eq!(client.submit(dive, 100).result().expect("is shallow"), 100);
    let error = task_error(client.submit(dive, 10_000_000).result());
    assert_eq!(error.kind, TaskErrorKind::Trapped, "{error}");
}

#[test]
fn numbers_too_large_for_the_guest_name_the_argument() {
    let error = task_error(fleet().submit(greet, ("x", 1_usize << 40)).result());
    assert_eq!(error.kind, TaskErrorKind::Argument { name: "times".into() }, "{error}");
}

#[test]
fn a_dead_workers_calls_run_elsewhere() {
    let mut cluster = LocalCluster::builder().workers(2).slots(1).module(MODULE).start().expect("starts");
    let client = cluster.client().expect("is let in");
    let large = client.map(repeat, (0..8_u8).map(|byte| (byte, 200_000)));
    client.progress(&large);
    let naps = client.map(sleep, (0..40).map(|_| 20));
    naps.get(0).expect("there").result().expect("runs");
    cluster.kill_worker(0);
    assert!(client.gather(&naps).expect("all run").into_iter().all(|ms| ms == 20));
    let chunks = client.gather(&large).expect("lost results are computed again");
    assert!(chunks.iter().zip(0..).all(|(chunk, byte)| chunk.len() == 200_000 && chunk[0] == byte));
}

#[test]
fn several_clients_share_a_fleet() {
    let clients: Vec<_> = (0..4).map(|_| fleet()).collect();
    let futures: Vec<_> = clients.iter().map(|client| client.map(inc, 0..1000)).collect();
    for (client, futures) in clients.iter().zip(&futures) {
        assert!(client.gather(futures).expect("all run").into_iter().eq(1..=1000));
    }
}

fn connect_error(result: quicsand::Result<Client>) -> std::sync::Arc<ConnectError> {
    match result {
        Err(Error::Connect(error)) => error,
        other => panic!("expected an error of connecting, got {other:?}"),
    }
}

fn builder() -> quicsand::ClientBuilder {
    let cluster = cluster();
    let token = cluster.token(quicsand::wire::Role::Client);
    Client::builder().address(cluster.address()).token(token).module(MODULE)
}

#[test]
fn bad_addresses_and_tokens_are_told_apart() {
    builder().connect().expect("all is well");
    let error = connect_error(builder().address("nowhere").connect());
    assert!(matches!(*error, ConnectError::Address { .. }), "{error}");
    let error = connect_error(builder().address("127.0.0.1:1").connect());
    assert!(matches!(*error, ConnectError::Unreachable { .. }), "{error}");
    let error = connect_error(builder().token("qs1-nonsense").connect());
    assert!(matches!(*error, ConnectError::Token { .. }), "{error}");
    let worker = cluster().token(quicsand::wire::Role::Worker).to_owned();
    let error = connect_error(builder().token(&worker).connect());
    assert!(matches!(*error, ConnectError::Token { .. }), "{error}");
    let other = LocalCluster::builder().workers(1).module(MODULE).start().expect("starts");
    let foreign = other.token(quicsand::wire::Role::Client).to_owned();
    let error = connect_error(builder().token(&foreign).connect());
    assert!(matches!(*error, ConnectError::Certificate { .. }), "{error}");
}

#[test]
fn modules_that_are_none_are_refused() {
    let error = connect_error(builder().module(Module::embedded(b"\x7fELF")).connect());
    assert!(matches!(*error, ConnectError::BadModule { .. }), "{error}");
    let error = connect_error(builder().module(Module::missing("there is no toolchain")).connect());
    assert!(error.to_string().contains("there is no toolchain"), "{error}");
    let empty = Module::embedded(b"\0asm\x01\0\0\0\x00\x09\x08quicsand");
    let client = builder().module(empty).connect().expect("a module without tasks is a module");
    let Err(Error::Connect(error)) = client.submit(inc, 1).result() else { panic!("ran") };
    assert!(matches!(*error, ConnectError::ForeignModule { .. }), "{error}");
}

#[test]
fn a_module_of_other_sources_is_refused() {
    use quicsand::Task;
    let mut wasm = MODULE.wasm().expect("embedded").to_vec();
    let info = inc::info();
    let id = info.id.0.to_le_bytes();
    let section = quicsand::manifest::section(&wasm).expect("a list of tasks");
    let start = section.as_ptr() as usize - wasm.as_ptr() as usize;
    let at = section.windows(8).position(|bytes| bytes == id).expect("the task is in the module's list");
    let stamp = start + at + 8;
    assert_eq!(wasm[stamp..stamp + 8], info.stamp.to_le_bytes());
    wasm[stamp] ^= 1;
    let client = builder().module(Module::embedded(wasm.leak())).connect().expect("it is a module");
    let Err(Error::Connect(error)) = client.submit(inc, 1).result() else { panic!("ran") };
    assert!(matches!(&*error, ConnectError::ForeignModule { task, .. } if task == "inc"), "{error}");
    assert_eq!(client.submit(add, (1, 1)).result().expect("is what the program means"), 2);
}

#[test]
fn a_cluster_ends_although_calls_are_running_and_queued() {
    let cluster = LocalCluster::builder().workers(1).module(MODULE).start().expect("starts");
    let client = cluster.client().expect("is let in");
    let calls: Vec<_> = (0..5).map(|_| client.submit(sleep, 3_600_000)).collect();
    while calls[0].status() != quicsand::Status::Processing {
        std::thread::yield_now();
    }
    drop(cluster);
    let ended = client.gather_all(calls);
    assert!(ended.iter().all(|result| matches!(result, Err(Error::Disconnected { .. }))), "{ended:?}");
}

#[test]
fn what_has_finished_in_a_batch_is_told_while_a_slow_call_runs() {
    let client = fleet();
    let slow = [700, 3000, 3002];
    let naps = client.map(sleep, (0..4000).map(|item| if slow.contains(&item) { 3_600_000 } else { 0 }));
    for item in (0..4000).filter(|item| !slow.contains(item)) {
        assert_eq!(naps.get(item).expect("there").result().expect("runs"), 0);
    }
    naps.cancel();
    assert!(slow.into_iter().all(|item| naps.get(item).is_some_and(|one| one.result().is_err())));
}
