//! Examples: stored values, data, replicas, loss and lineage.

use super::lab::{Lab, args, entry, identity, key, same, span, spec, values};
use crate::{
    TaskErrorKind,
    codec::{Hole, Source},
    ids::{Hash, WorkerId},
    scheduler::{Action, Event, Location},
    wire::{FromClient, FromWorker, InputPlace, ToClient, ToWorker, blob::Grant},
};

const HASH: Hash = Hash([1; 32]);
const LEN: u64 = 100_000;

/// A call whose result is stored on the worker.
fn stored(lab: &mut Lab, seq: u64, holes: Vec<crate::codec::Hole>) -> u64 {
    lab.call(seq, holes);
    let (worker, assignment) = lab.assignment();
    lab.finish_stored(worker, assignment.run);
    worker
}

#[test]
fn stored_results_carry_places_with_grants() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, Vec::new());
    let told = lab.told();
    let [ToClient::Stored { seq: 1, index: 0, len: LEN, hash: HASH, places }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(places.len(), 1);
    assert!(places[0].grant.allows(&[1; 32], key(1, 0), identity(100)));
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Workers(vec![WorkerId(1)]));
    lab.release(1, 0, 1);
    assert_eq!(lab.ordered(), [(1, ToWorker::Free { spans: vec![span(1, 0, 1)] })]);
    assert!(lab.is_empty());
}

#[test]
fn workers_may_read_what_they_have_to_do_with() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    for seq in 1..=3 {
        stored(&mut lab, seq, Vec::new());
    }
    let may = |lab: &Lab, seq| lab.scheduler.may_read(WorkerId(1), key(seq, 0));
    lab.call(4, vec![same(1, 0)]);
    let (worker, assignment) = lab.assignment();
    assert_eq!([may(&lab, 1), may(&lab, 2)], [true, false]);
    lab.finish(worker, &assignment);
    assert!(!may(&lab, 1), "it is done with it");
    let list = Hole { first: 0, count: 1, field: 0, source: Source::List(vec![span(2, 0, 1), span(3, 0, 1)]) };
    lab.call(5, vec![list]);
    assert_eq!([may(&lab, 1), may(&lab, 2), may(&lab, 3)], [false, true, true]);
    let each = Hole { first: 0, count: 1, field: 0, source: Source::Each { entry: entry(1), first: 0 } };
    lab.call(6, vec![each]);
    assert!(may(&lab, 1) && !lab.scheduler.may_read(WorkerId(2), key(1, 0)));
}

#[test]
fn work_goes_where_its_inputs_are() {
    let mut lab = Lab::new();
    lab.join(1, 4);
    lab.join(2, 4);
    let home = stored(&mut lab, 1, Vec::new());
    for seq in 2..=4 {
        lab.call(seq, vec![same(1, 0)]);
        assert_eq!(lab.assignment().0, home);
    }
}

#[test]
fn inputs_elsewhere_come_with_grants_for_the_receiver() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, Vec::new());
    lab.worker(1, FromWorker::Draining);
    lab.join(2, 1);
    lab.call(2, vec![same(1, 0)]);
    let (worker, assignment) = lab.assignment();
    assert_eq!(worker, 2);
    let InputPlace::Blob { len: LEN, places, .. } = &assignment.inputs[0].place else { panic!("{assignment:?}") };
    assert_eq!(places[0].grant, Grant::issue(&[1; 32], key(1, 0), identity(2)));
    lab.worker(2, FromWorker::Holds { key: key(1, 0), len: LEN, hash: HASH });
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Workers(vec![WorkerId(1), WorkerId(2)]));
    lab.told();
    lab.leave(1);
    assert!(lab.told().is_empty(), "a replica is left");
}

#[test]
fn false_replicas_are_refused() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.join(2, 1);
    stored(&mut lab, 1, Vec::new());
    lab.take();
    for (key, len, hash) in
        [(key(1, 0), LEN, Hash([9; 32])), (key(1, 0), 1, HASH), (key(1, 1), LEN, HASH), (key(8, 0), LEN, HASH)]
    {
        lab.worker(2, FromWorker::Holds { key, len, hash });
        let spans = vec![span(key.entry.seq, key.index, 1)];
        assert_eq!(lab.ordered(), [(2, ToWorker::Free { spans })]);
    }
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Workers(vec![WorkerId(1)]));
}

#[test]
fn lost_results_are_computed_again_as_deep_as_needed() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, Vec::new());
    stored(&mut lab, 2, vec![same(1, 0)]);
    lab.take();
    lab.release(1, 0, 1);
    assert_eq!(lab.ordered(), [(1, ToWorker::Free { spans: vec![span(1, 0, 1)] })], "its value goes, its arguments stay");
    assert_eq!(lab.scheduler.status().clients[0].entries, 2);
    lab.leave(1);
    assert_eq!(lab.told(), [ToClient::Lost { seq: 2, index: 0 }]);
    lab.join(2, 1);
    let sent = lab.assigned();
    assert_eq!(sent.iter().map(|(_, assignment)| assignment.entry).collect::<Vec<_>>(), [entry(1), entry(2)]);
    lab.finish(2, &sent[0].1);
    lab.finish(2, &sent[1].1);
    assert_eq!(lab.told(), [ToClient::Done { seq: 2, first: 0, values: values(1) }]);
    assert_eq!(lab.scheduler.status().clients[0].entries, 1, "nothing can be lost any more");
    lab.release(2, 0, 1);
    assert!(lab.is_empty());
}

#[test]
fn a_lost_input_makes_dependents_wait_again() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, Vec::new());
    lab.worker(1, FromWorker::Draining);
    lab.call(2, vec![same(1, 0)]);
    lab.leave(1);
    lab.join(2, 1);
    let sent = lab.assigned();
    assert_eq!((sent[0].1.entry, &sent[1].1.inputs[0].place), (entry(1), &InputPlace::Ahead));
    lab.finish_stored(2, sent[0].1.run);
    lab.finish(2, &sent[1].1);
    assert!(lab.told().iter().any(|message| matches!(message, ToClient::Done { seq: 2, .. })));
}

fn upload(lab: &mut Lab, seq: u64) -> Option<u64> {
    lab.client(FromClient::Data { seq, len: LEN, hash: HASH, bytes: None });
    match &lab.told()[..] {
        [ToClient::Upload { route, .. }] => route.first().map(|place| place.worker.0),
        told => panic!("{told:?}"),
    }
}

#[test]
fn data_goes_to_workers_in_turn_and_dies_with_them() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.join(2, 1);
    let places: Vec<_> = (1..=4).map(|seq| upload(&mut lab, seq)).collect();
    assert_eq!(places, [Some(1), Some(2), Some(1), Some(2)]);
    lab.call(5, vec![same(1, 0)]);
    assert!(lab.assigned().is_empty(), "not there yet");
    lab.worker(1, FromWorker::Holds { key: key(1, 0), len: LEN, hash: HASH });
    assert_eq!(lab.assignment().0, 1);
    lab.take();
    lab.leave(1);
    let told = lab.told();
    let lost = |message: &ToClient, seq| matches!(message, ToClient::Failed { seq: s, error, .. } if *s == seq && error.kind == TaskErrorKind::DataLost && error.key == key(1, 0));
    let asked = |message: &ToClient, seq| matches!(message, ToClient::Upload { seq: s, route } if *s == seq && matches!(&route[..], [place] if place.worker == WorkerId(2)));
    assert!(told.len() == 3 && asked(&told[0], 3) && lost(&told[1], 1) && lost(&told[2], 5), "{told:?}");
}

#[test]
fn what_is_lost_late_fails_for_the_first_cause() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    assert_eq!(upload(&mut lab, 1), Some(1));
    lab.worker(1, FromWorker::Holds { key: key(1, 0), len: LEN, hash: HASH });
    stored(&mut lab, 2, vec![same(1, 0)]);
    lab.join(2, 1);
    lab.worker(1, FromWorker::Draining);
    assert_eq!(stored(&mut lab, 3, vec![same(2, 0)]), 2);
    lab.call(4, vec![same(2, 0)]);
    for seq in [1, 2] {
        lab.release(seq, 0, 1);
    }
    lab.take();
    let failed = |told: &[ToClient]| match told {
        [.., ToClient::Failed { seq, error, .. }] => (*seq, error.kind.clone(), error.key),
        told => panic!("{told:?}"),
    };
    lab.leave(1);
    assert_eq!(failed(&lab.told()), (4, TaskErrorKind::DataLost, key(1, 0)), "it needs the second, which needs the data");
    lab.leave(2);
    assert_eq!(failed(&lab.told()), (3, TaskErrorKind::DataLost, key(1, 0)), "though nobody needed the second in between");
    lab.release(3, 0, 1);
    lab.release(4, 0, 1);
    assert!(lab.is_empty());
}

#[test]
fn a_client_that_lets_go_of_data_hears_when_nobody_asks_for_it_again() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    for seq in [1, 2, 3] {
        assert_eq!(upload(&mut lab, seq), Some(1));
    }
    lab.call(4, vec![same(2, 0)]);
    lab.release(1, 0, 1);
    assert_eq!(lab.told(), [ToClient::Taken { seq: 1 }]);
    lab.release(2, 0, 1);
    assert_eq!(lab.told(), [], "a call reads it");
    lab.leave(1);
    let again = |seq| ToClient::Upload { seq, route: Vec::new() };
    assert_eq!(lab.told(), [again(2), again(3)], "its taker is gone");
    lab.event(Event::Held { key: key(2, 0), len: LEN, hash: HASH });
    assert_eq!(lab.told(), [ToClient::Taken { seq: 2 }]);
}

#[test]
fn data_that_no_worker_takes_is_kept_by_the_shell() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    assert_eq!(upload(&mut lab, 1), Some(1));
    lab.client(FromClient::UploadFailed { seq: 1 });
    assert_eq!(lab.told(), [ToClient::Upload { seq: 1, route: Vec::new() }]);
    lab.event(Event::Held { key: key(1, 0), len: LEN, hash: HASH });
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Held);
    lab.call(2, vec![same(1, 0)]);
    let (_, assignment) = lab.assignment();
    let InputPlace::Blob { places, .. } = &assignment.inputs[0].place else { panic!("{assignment:?}") };
    assert!(places.is_empty(), "from the scheduler");
    lab.finish(1, &assignment);
    lab.take();
    lab.release(1, 0, 1);
    assert_eq!(lab.take(), [Action::Drop(span(1, 0, 1))]);
    lab.event(Event::Held { key: key(1, 0), len: LEN, hash: HASH });
    assert_eq!(lab.take(), [Action::Drop(span(1, 0, 1))], "too late");
}

#[test]
fn small_data_is_there_at_once() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.client(FromClient::Data { seq: 1, len: 3, hash: HASH, bytes: Some("abc".into()) });
    lab.client(FromClient::Map { seq: 2, spec: spec("f") });
    let hole = crate::codec::Hole { first: 0, count: 2, field: 0, source: crate::codec::Source::Same(key(1, 0)) };
    lab.client(FromClient::Items { seq: 2, args: args(2, vec![hole]) });
    let sent = lab.assigned();
    assert!(
        sent.iter()
            .all(|(_, assignment)| matches!(&assignment.inputs[0].place, InputPlace::Inline(run) if &run.bytes()[..] == b"abc"))
    );
    lab.client(FromClient::Close { seq: 2 });
    lab.release(1, 0, 1);
    lab.release(2, 0, 2);
    for (_, assignment) in sent {
        lab.finish(1, &assignment);
    }
    assert!(lab.is_empty());
}

#[test]
fn unreachable_values_are_named_again_and_then_computed_again() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, Vec::new());
    lab.take();
    for _ in 0..2 {
        lab.client(FromClient::Unreachable { seq: 1, index: 0 });
        assert!(matches!(&lab.told()[..], [ToClient::Stored { .. }]));
    }
    lab.client(FromClient::Unreachable { seq: 1, index: 0 });
    assert_eq!(lab.told(), [ToClient::Lost { seq: 1, index: 0 }]);
    let (_, again) = lab.assignment();
    lab.finish(1, &again);
    assert_eq!(lab.told(), [ToClient::Done { seq: 1, first: 0, values: values(1) }]);
}

#[test]
fn inputs_that_cannot_be_had_are_relayed_then_computed_again() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    stored(&mut lab, 1, Vec::new());
    lab.worker(1, FromWorker::Draining);
    lab.join(2, 1);
    lab.call(2, vec![same(1, 0)]);
    for relayed in [false, true] {
        let (_, assignment) = lab.assignment();
        let InputPlace::Blob { places, .. } = &assignment.inputs[0].place else { panic!("{assignment:?}") };
        assert_eq!(places.is_empty(), relayed);
        lab.worker(2, FromWorker::Returned { run: assignment.run, missing: vec![key(1, 0)] });
    }
    let sent = lab.assigned();
    assert_eq!(sent[0].1.entry, entry(1));
}
