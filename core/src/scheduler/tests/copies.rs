//! Examples: copies of data, draining workers that hand over what they have, and workers that are short of memory.

use std::time::Duration;

use super::lab::{Lab, identity, key, same, span, spec};
use crate::{
    TaskErrorKind,
    ids::{Hash, WorkerId},
    scheduler::{Config, Departure, Location},
    wire::{FromClient, FromWorker, Load, ToClient, ToWorker},
};

const HASH: Hash = Hash([1; 32]);
const LEN: u64 = 100_000;

/// Uploads data to worker 1, which must be here.
fn scatter(lab: &mut Lab, seq: u64, len: u64) {
    lab.client(FromClient::Data { seq, len, hash: HASH, bytes: None });
    lab.worker(1, FromWorker::Holds { key: key(seq, 0), len, hash: HASH });
    lab.told();
}

/// The values that workers were asked to get, with the number of places.
fn copies(lab: &mut Lab) -> Vec<(u64, u64, usize)> {
    let ordered = lab.ordered().into_iter().filter_map(|(worker, message)| match message {
        ToWorker::Replicate { key, places, .. } => Some((worker, key.entry.seq, places.len())),
        _ => None,
    });
    ordered.collect()
}

fn copied(lab: &mut Lab, worker: u64, seq: u64) {
    lab.worker(worker, FromWorker::Holds { key: key(seq, 0), len: LEN, hash: HASH });
}

#[test]
fn data_goes_through_one_worker_to_the_next_who_is_asked_for_a_copy_first() {
    let mut lab = Lab::new();
    (1..=4).for_each(|worker| lab.join(worker, 1));
    for (seq, long) in [(1, 1 << 20), (2, 1 << 30)] {
        lab.client(FromClient::Data { seq, len: long, hash: HASH, bytes: None });
    }
    let told = lab.told();
    let [ToClient::Upload { route, .. }, ToClient::Upload { route: alone, .. }] = &told[..] else { panic!("{told:?}") };
    let [first, second] = &route[..] else { panic!("{route:?}") };
    assert_eq!((first.worker, second.worker), (WorkerId(1), WorkerId(2)));
    let (rest, of_client) = (&route[1..], identity(100));
    assert!(first.grant.allows_to_hand_on(&[1; 32], key(1, 0), of_client, rest));
    assert!(!first.grant.allows(&[1; 32], key(1, 0), of_client), "only with where it goes on to");
    assert!(second.grant.allows(&[2; 32], key(1, 0), identity(1)) && !second.grant.allows(&[2; 32], key(1, 0), of_client));
    assert_eq!(alone.len(), 1, "it is too long for two");
    // Others hold less by now.
    lab.worker(2, FromWorker::Heartbeat(Load { held_bytes: 1 << 40, ..Load::default() }));
    lab.worker(1, FromWorker::Holds { key: key(1, 0), len: 1 << 20, hash: HASH });
    assert_eq!(copies(&mut lab), [(2, 1, 1)]);
    lab.worker(2, FromWorker::Holds { key: key(1, 0), len: 1 << 20, hash: HASH });
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Workers(vec![WorkerId(1), WorkerId(2)]));
}

#[test]
fn data_has_two_copies_as_soon_as_there_are_two_workers() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    scatter(&mut lab, 1, LEN);
    scatter(&mut lab, 2, 1 << 30);
    assert!(copies(&mut lab).is_empty());
    lab.join(2, 1);
    assert_eq!(copies(&mut lab), [(2, 1, 1)], "but not of what is long");
    copied(&mut lab, 2, 1);
    lab.join(3, 1);
    assert!(copies(&mut lab).is_empty(), "two are enough");
    lab.depart(1, Departure::Died);
    assert_eq!(copies(&mut lab), [(3, 1, 1)], "one is gone");
    let told = lab.told();
    let [ToClient::Failed { seq: 2, error, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(error.kind, TaskErrorKind::DataLost);
    assert!(error.message.contains("1073741824 bytes") && error.message.contains("it was on w1 (died)"), "{}", error.message);
    copied(&mut lab, 3, 1);
    lab.release(1, 0, 1);
    let spans = vec![span(1, 0, 1)];
    assert_eq!(lab.ordered(), [(2, ToWorker::Free { spans: spans.clone() }), (3, ToWorker::Free { spans })]);
    lab.release(2, 0, 1);
    assert!(lab.is_empty());
}

#[test]
fn a_copy_that_fails_is_asked_of_another() {
    let mut lab = Lab::new();
    (1..=3).for_each(|worker| lab.join(worker, 1));
    scatter(&mut lab, 1, LEN);
    assert_eq!(copies(&mut lab), [(2, 1, 1)]);
    lab.worker(2, FromWorker::Unreplicated { key: key(1, 0) });
    assert_eq!(copies(&mut lab), [(3, 1, 1)]);
    lab.worker(3, FromWorker::Unreplicated { key: key(1, 0) });
    lab.worker(3, FromWorker::Unreplicated { key: key(9, 0) });
    assert!(copies(&mut lab).is_empty(), "nobody is left to ask");
    lab.join(4, 1);
    assert_eq!(copies(&mut lab), [(4, 1, 1)]);
    lab.depart(4, Departure::Lost);
    lab.release(1, 0, 1);
    lab.take();
    assert!(lab.is_empty());
}

fn stored(lab: &mut Lab, seq: u64, worker: u64) {
    lab.call(seq, Vec::new());
    let (taker, assignment) = lab.assignment();
    assert_eq!(taker, worker);
    lab.finish_stored(worker, assignment.run);
    lab.told();
}

#[test]
fn a_draining_worker_hands_over_and_leaves() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, 1);
    lab.call(2, Vec::new());
    let (_, running) = lab.assignment();
    lab.start(1, running.run);
    lab.join(2, 1);
    lab.worker(1, FromWorker::Draining);
    assert_eq!(copies(&mut lab), [(2, 1, 1)]);
    lab.finish_stored(1, running.run);
    assert_eq!(copies(&mut lab), [(2, 2, 1)], "this one too");
    copied(&mut lab, 2, 1);
    assert!(lab.ordered().is_empty(), "one is still coming");
    copied(&mut lab, 2, 2);
    assert_eq!(lab.ordered(), [(1, ToWorker::Leave)]);
    lab.told();
    lab.depart(1, Departure::Left);
    assert!(lab.take().is_empty(), "nothing is lost");
}

#[test]
fn a_draining_worker_does_not_stay_for_nobody_or_for_ever() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, 1);
    lab.worker(1, FromWorker::Draining);
    assert_eq!(lab.ordered(), [(1, ToWorker::Leave)], "there is nobody to take it");

    let mut lab = Lab::with(Config { hand_over: Duration::from_secs(2), ..Config::default() });
    lab.join(1, 1);
    stored(&mut lab, 1, 1);
    lab.join(2, 1);
    lab.worker(1, FromWorker::Draining);
    assert_eq!(copies(&mut lab), [(2, 1, 1)]);
    lab.wait_with(Duration::from_millis(1900), &[1, 2]);
    assert!(lab.ordered().is_empty());
    lab.wait_with(Duration::from_millis(100), &[1, 2]);
    assert_eq!(lab.ordered(), [(1, ToWorker::Leave)]);
}

fn pressed(lab: &mut Lab, worker: u64, pressed: bool) {
    lab.worker(worker, FromWorker::Heartbeat(Load { pressed, ..Load::default() }));
}

#[test]
fn a_worker_that_is_short_of_memory_gets_only_what_nobody_else_can_do() {
    let mut lab = Lab::new();
    let takers = |lab: &mut Lab| lab.assigned().into_iter().map(|(worker, _)| worker).collect::<Vec<_>>();
    lab.join(1, 1);
    lab.join(2, 1);
    for seq in 1..=4 {
        lab.call(seq, Vec::new());
    }
    let sent: Vec<_> = lab.assigned().into_iter().filter(|(worker, _)| *worker == 1).map(|(_, assignment)| assignment).collect();
    assert_eq!(sent.len(), 2);
    lab.start(1, sent[0].run);
    pressed(&mut lab, 1, true);
    assert_eq!(lab.ordered(), [(1, ToWorker::Recall { run: sent[1].run })], "the other worker is not idle, but can run it");
    lab.worker(1, FromWorker::Returned { run: sent[1].run, missing: Vec::new() });
    assert!(takers(&mut lab).is_empty(), "one thing at a time");
    lab.finish(1, &sent[0]);
    assert_eq!(takers(&mut lab), [1], "the other one has no room");
    lab.join(3, 2);
    lab.take();
    for seq in 5..=6 {
        lab.call(seq, Vec::new());
    }
    assert_eq!(takers(&mut lab), [3, 3]);
    assert!(lab.scheduler.status().workers[0].load.pressed);
    for seq in 7..=9 {
        lab.call(seq, Vec::new());
    }
    let before = takers(&mut lab);
    assert!(!before.contains(&1), "{before:?}");
    for worker in [2, 3] {
        lab.worker(worker, FromWorker::Draining);
    }
    pressed(&mut lab, 1, false);
    lab.take();
    for seq in 10..=12 {
        lab.call(seq, Vec::new());
    }
    assert_eq!(takers(&mut lab), [1, 1, 1], "it takes more than one thing again");
}

#[test]
fn the_only_worker_goes_on_when_it_is_short_of_memory() {
    let mut lab = Lab::new();
    lab.join(1, 4);
    pressed(&mut lab, 1, true);
    for seq in 1..=3 {
        lab.call(seq, Vec::new());
    }
    assert!(lab.why(3)[0].1.contains("short of memory"));
    for _ in 1..=3 {
        let (_, assignment) = lab.assignment();
        lab.finish(1, &assignment);
    }
    assert!(lab.assigned().is_empty());
}

#[test]
fn a_call_that_rests_needs_its_inputs_when_it_wakes() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, 1);
    let mut spec = spec("f");
    spec.make_mut().options.retries = 1;
    lab.client(FromClient::Call { seq: 2, spec, args: super::lab::args(1, vec![same(1, 0)]) });
    let (_, assignment) = lab.assignment();
    lab.fail(1, assignment.run);
    assert!(lab.why(2)[0].1.contains("tried again"));
    lab.depart(1, Departure::Lost);
    lab.join(2, 1);
    lab.wait_with(Duration::from_millis(100), &[2]);
    assert!(lab.assigned().is_empty() && lab.why(2)[0].1.contains("not there yet"));
    lab.client(FromClient::Cancel { span: span(2, 0, 1) });
    lab.release(2, 0, 1);
    lab.release(1, 0, 1);
    assert!(lab.is_empty());
}
