//! Examples: labels, resources and wishes for memory; queues that wait and hold up nobody; reasons.

use std::time::Duration;

use super::lab::{CLIENT, Lab, args, entry, requirements, same, span, spec, spec_for};
use crate::{
    ids::WorkerId,
    scheduler::{Action, Config, Event},
    wire::{FromClient, FromWorker, ToClient, ToWorker},
};

/// The workers and entries of the assignments since the last look.
fn placed(lab: &mut Lab) -> Vec<(u64, u64)> {
    lab.assigned().into_iter().map(|(worker, assignment)| (worker, assignment.entry.seq)).collect()
}

#[test]
fn a_call_goes_where_its_labels_are() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "zone=a");
    lab.join_with(2, 1, "zone=b cpu.avx2=yes");
    lab.call_for(1, "zone=b", Vec::new());
    lab.call_for(2, "cpu.avx2=yes zone=b", Vec::new());
    lab.call_for(3, "zone=a", Vec::new());
    assert_eq!(placed(&mut lab), [(2, 1), (2, 2), (1, 3)]);
}

#[test]
fn what_nobody_can_run_waits_and_holds_up_nobody() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "zone=a gpu=1");
    for seq in (1..300).step_by(3) {
        lab.call_for(seq, "zone=b", Vec::new());
        lab.call_for(seq + 1, "gpu=2", Vec::new());
        lab.call_for(seq + 2, "zone=a gpu=1 tpu=1", Vec::new());
    }
    lab.call_for(301, "zone=a gpu=1", Vec::new());
    lab.call(302, Vec::new());
    assert_eq!(placed(&mut lab), [(1, 301), (1, 302)]);
    assert_eq!(lab.why(1), [(1, "no worker has zone=b".into())]);
    assert_eq!(lab.why(2), [(1, "no worker has gpu=2, the most is gpu=1".into())]);
    assert_eq!(lab.why(3), [(1, "no worker has tpu".into())]);
    let status = lab.scheduler.status();
    let queued: Vec<_> = status.waits.iter().map(|all| (all.items, all.requires.to_string())).collect();
    assert_eq!(queued, [(100, "zone=b".into()), (100, "gpu=2".into()), (100, "zone=a, gpu=1, tpu=1".into())]);
    lab.join_with(2, 1, "zone=b gpu=2");
    assert_eq!(placed(&mut lab), [(2, 1), (2, 2)], "one of each, in their order");
    assert_eq!(lab.why(4), [(1, "the only worker that can run it is busy".into())]);
    lab.release(1, 0, 1);
    for seq in 2..=302 {
        lab.release(seq, 0, 1);
    }
    assert!(lab.scheduler.entries.is_empty() && lab.scheduler.status().waits.is_empty());
    assert_eq!(lab.scheduler.shapes.iter().count(), 1, "no shape outlives its entries");
}

#[test]
fn an_assignment_takes_its_resources_from_beginning_to_end() {
    let mut lab = Lab::new();
    lab.join_with(1, 4, "gpu=3");
    for seq in 1..=5 {
        lab.call_for(seq, "gpu=1", Vec::new());
    }
    let first = lab.assigned();
    assert_eq!(first.len(), 3, "eight would fit into the slots' queues");
    assert_eq!(lab.scheduler.status().workers[0].taken, [("gpu".to_owned(), 3)]);
    assert_eq!(lab.why(5), [(1, "1 worker has gpu, all of it is in use".into())]);
    lab.start(1, first[0].1.run);
    assert!(lab.assigned().is_empty());
    lab.finish(1, &first[0].1);
    assert_eq!(placed(&mut lab), [(1, 4)]);
    lab.call_for(6, "gpu=2", Vec::new());
    lab.finish(1, &first[1].1);
    assert_eq!(placed(&mut lab), [(1, 5)], "the larger one waits, and the others do not wait for it");
    assert_eq!(lab.why(6), [(1, "1 worker has gpu, all of it is in use".into())]);
    lab.finish(1, &first[2].1);
    assert_eq!(lab.why(6), [(1, "1 worker has gpu, of which 2 is asked for and at most 1 free".into())]);
}

#[test]
fn a_map_takes_its_resources_once_a_batch() {
    let mut lab = Lab::new();
    lab.join_with(1, 8, "gpu=2");
    lab.client(FromClient::Map { seq: 1, spec: spec_for("gpu=1") });
    lab.client(FromClient::Items { seq: 1, args: args(500, Vec::new()) });
    lab.client(FromClient::Close { seq: 1 });
    assert_eq!(lab.scheduler.runs.len(), 2);
    let batches = lab.finish_all(|count| Duration::from_micros(u64::from(count)));
    assert_eq!(batches.iter().map(|batch| batch.args.count()).sum::<u32>(), 500);
    assert!(batches.len() < 100, "{}", batches.len());
}

#[test]
fn a_client_that_leaves_gives_resources_back_when_the_worker_says_so() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "gpu=1");
    lab.call_for(1, "gpu=1", Vec::new());
    let (_, assignment) = lab.assignment();
    lab.start(1, assignment.run);
    lab.release(1, 0, 1);
    assert!(lab.scheduler.entries.is_empty());
    lab.call_for(2, "gpu=1", Vec::new());
    assert!(lab.assigned().is_empty(), "the worker is still at it");
    lab.finish(1, &assignment);
    assert_eq!(placed(&mut lab), [(1, 2)]);
    lab.event(Event::ClientLeft { client: CLIENT });
    lab.leave(1);
}

#[test]
fn a_dead_workers_calls_go_to_another_that_fits() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "zone=a gpu=1");
    lab.join_with(2, 1, "zone=b gpu=1");
    lab.join_with(3, 1, "zone=a gpu=1");
    lab.call_for(1, "zone=a gpu=1", Vec::new());
    lab.call_for(2, "zone=a gpu=1", Vec::new());
    assert_eq!(placed(&mut lab), [(1, 1), (3, 2)]);
    lab.leave(1);
    assert!(lab.assigned().is_empty(), "the other gpu of the zone is in use");
    lab.leave(3);
    assert_eq!(lab.why(1), [(1, "no worker has zone=a".into())]);
    lab.join_with(4, 2, "zone=a gpu=2");
    assert_eq!(placed(&mut lab), [(4, 1), (4, 2)]);
}

#[test]
fn a_worker_that_drains_is_not_counted_on() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "zone=a");
    lab.worker(1, FromWorker::Draining);
    lab.call_for(1, "zone=a", Vec::new());
    assert_eq!(lab.why(1), [(1, "no worker is here".into())]);
    lab.join(2, 1);
    assert_eq!(lab.why(1), [(1, "no worker has zone=a".into())]);
}

#[test]
fn what_two_workers_have_apart_nobody_has() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "zone=a gpu=1");
    lab.join_with(2, 1, "zone=b tpu=1");
    lab.call_for(1, "zone=a tpu=1", Vec::new());
    assert_eq!(lab.why(1), [(1, "no worker has all of zone=a, tpu=1".into())]);
    lab.call(2, vec![same(1, 0)]);
    assert_eq!(lab.why(2), [(1, "results of other calls that they read are not there yet".into())]);
}

#[test]
fn calls_are_sent_ahead_only_to_workers_that_fit_and_without_resources() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "zone=a gpu=2");
    lab.call_for(1, "zone=a", Vec::new());
    lab.call_for(2, "zone=a", vec![same(1, 0)]);
    lab.call_for(3, "zone=b", vec![same(1, 0)]);
    lab.call_for(4, "gpu=1", vec![same(1, 0)]);
    lab.call(5, vec![same(1, 0)]);
    let sent = lab.assigned();
    assert_eq!(sent.iter().map(|(_, assignment)| assignment.entry.seq).collect::<Vec<_>>(), [1, 2, 5]);
    lab.finish(1, &sent[0].1);
    lab.finish(1, &sent[1].1);
    assert_eq!(placed(&mut lab), [(1, 4)]);
    assert_eq!(lab.why(3), [(1, "no worker has zone=b".into())]);
}

#[test]
fn only_what_an_idle_worker_can_run_is_taken_back() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "zone=a");
    for seq in 1..=2 {
        lab.call_for(seq, "zone=a", Vec::new());
    }
    let first = lab.assigned();
    lab.start(1, first[0].1.run);
    lab.join_with(2, 1, "zone=b");
    lab.now += Duration::from_secs(1);
    lab.event(Event::Tick);
    assert!(lab.ordered().is_empty(), "the idle one could not run it");
    // What waits for nobody who is here is no reason to leave a slot idle.
    lab.call_for(3, "zone=c", Vec::new());
    lab.join_with(3, 1, "zone=a");
    lab.now += Duration::from_secs(1);
    lab.event(Event::Tick);
    let recalled = first[1].1.run;
    assert_eq!(lab.ordered(), [(1, ToWorker::Recall { run: recalled })]);
    lab.worker(1, FromWorker::Returned { run: recalled, missing: Vec::new() });
    assert_eq!(placed(&mut lab), [(3, 2)]);
}

#[test]
fn a_large_wish_for_memory_looks_for_a_large_worker_but_never_waits_for_one() {
    let mut lab = Lab::new();
    lab.join_with(1, 1, "");
    let mut wish = spec("f");
    wish.make_mut().options.memory = 4 << 30;
    let call = |seq| FromClient::Call { seq, spec: wish.clone(), args: args(1, Vec::new()) };
    lab.client(call(1));
    assert_eq!(placed(&mut lab), [(1, 1)], "the smaller of wish and cap holds");
    let (who, mut hello) = (super::lab::identity(2), hello_of(&lab, 1));
    hello.memory = 4 << 30;
    lab.event(Event::WorkerJoined { worker: WorkerId(2), who, name: "w2".into(), hello });
    for seq in 2..=4 {
        lab.client(call(seq));
    }
    assert_eq!(placed(&mut lab), [(2, 2), (2, 3)]);
    assert_eq!(lab.why(4), [(1, "the only worker that can run it is busy".into())]);
    lab.leave(2);
    lab.join_with(3, 4, "");
    assert_eq!(placed(&mut lab), [(1, 2), (3, 3), (3, 4)], "with the large one gone, any will do");
}

fn hello_of(lab: &Lab, worker: u64) -> crate::wire::WorkerHello {
    lab.scheduler.fleet.workers.get(&WorkerId(worker)).expect("here").hello.clone()
}

#[test]
fn suspects_run_alone_where_they_fit() {
    let mut lab = Lab::with(Config { max_deaths: 10, ..Config::default() });
    lab.join_with(1, 1, "zone=a");
    lab.client(FromClient::Map { seq: 1, spec: spec_for("zone=a") });
    lab.client(FromClient::Items { seq: 1, args: args(2, Vec::new()) });
    let (_, assignment) = lab.assigned().remove(0);
    lab.start(1, assignment.run);
    lab.join(2, 1);
    lab.leave(1);
    assert!(lab.assigned().is_empty());
    lab.join_with(3, 1, "zone=a");
    assert_eq!(lab.assigned().len(), 2);
    assert!(lab.scheduler.runs.values().any(|run| run.suspect && run.worker == WorkerId(3)));
}

#[test]
fn different_requirements_are_bounded() {
    let mut lab = Lab::new();
    for amount in 1..=1024 {
        lab.call_for(amount, &format!("gpu={amount}"), Vec::new());
    }
    lab.call_for(1025, "gpu=1024", Vec::new());
    lab.call(1026, Vec::new());
    assert!(lab.told().is_empty());
    lab.call_for(1027, "gpu=1025", Vec::new());
    assert!(matches!(&lab.told()[..], [ToClient::Refused { reason }] if reason.contains("different sets of requirements")));
    assert!(lab.take().contains(&Action::DisconnectClient(CLIENT)));
    assert_eq!(lab.scheduler.shapes.iter().count(), 1);
}

#[test]
fn strangers_are_not_explained() {
    let mut lab = Lab::new();
    lab.call(1, Vec::new());
    let mut foreign = span(1, 0, 1);
    foreign.entry.client.0 = 77;
    lab.client(FromClient::Explain { query: 1, spans: vec![foreign] });
    assert!(matches!(&lab.told()[..], [ToClient::Refused { .. }]));
    assert_eq!(requirements("zone=a gpu=1").to_string(), "zone=a, gpu=1");
    assert!(!lab.scheduler.entries.contains_key(&entry(1)));
}
