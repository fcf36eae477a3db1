//! Examples: workers that fall silent, lose their connection, and come back; and what they have meanwhile.

use std::time::Duration;

use super::lab::{Lab, identity, key, same, span, values};
use crate::{
    TaskErrorKind,
    ids::{Hash, WorkerId},
    scheduler::{Action, Config, Departure, Event, Location},
    wire::{FromClient, FromWorker, ToClient, ToWorker},
};

const HASH: Hash = Hash([1; 32]);
const LEN: u64 = 100_000;
const GRACE: Duration = Duration::from_secs(5);

fn holds(lab: &mut Lab, worker: u64, seq: u64) {
    lab.worker(worker, FromWorker::Holds { key: key(seq, 0), len: LEN, hash: HASH });
}

/// A worker whose one call's result is stored there, and a second call of which the client wants nothing yet.
fn stored() -> Lab {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    let (_, assignment) = lab.assignment();
    lab.finish_stored(1, assignment.run);
    lab.told();
    lab
}

#[test]
fn what_a_worker_has_is_awaited_and_its_consumers_wait() {
    let mut lab = stored();
    lab.depart(1, Departure::Lost);
    lab.join(2, 1);
    lab.call(2, vec![same(1, 0)]);
    assert!(lab.told().is_empty(), "it is neither lost nor told");
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Nowhere);
    assert!(lab.assigned().is_empty(), "its consumer waits");
    assert!(lab.why(1)[0].1.contains("may come back"));
    lab.client(FromClient::Unreachable { seq: 1, index: 0 });
    assert!(lab.told().is_empty(), "that is known");

    lab.rejoin(11, 1, 1, 1);
    holds(&mut lab, 11, 1);
    let told = lab.told();
    assert!(matches!(&told[..], [ToClient::Stored { seq: 1, places, .. }] if places[0].worker == WorkerId(11)), "{told:?}");
    lab.worker(11, FromWorker::Registered);
    assert_eq!(lab.assignment().1.first, 0, "its consumer runs");
}

#[test]
fn what_does_not_come_back_in_time_is_lost() {
    let mut lab = stored();
    lab.depart(1, Departure::CutOff);
    lab.join(2, 1);
    lab.wait_with(GRACE - Duration::from_millis(200), &[2]);
    assert!(lab.told().is_empty());
    lab.wait_with(Duration::from_millis(200), &[2]);
    assert_eq!(lab.told(), [ToClient::Lost { seq: 1, index: 0 }]);
    assert_eq!(lab.assignment().0, 2, "it is computed again");
}

#[test]
fn what_a_worker_does_not_name_is_lost_at_once_and_what_is_not_expected_is_freed() {
    for keeps in [0, 1] {
        let mut lab = stored();
        lab.depart(1, Departure::Lost);
        lab.rejoin(2, 1, 1, keeps);
        if keeps > 0 {
            lab.worker(2, FromWorker::Holds { key: key(1, 0), len: LEN, hash: Hash([9; 32]) });
            let freed = ToWorker::Free { spans: vec![span(1, 0, 1)] };
            assert_eq!(lab.ordered(), [(2, freed)], "another value of that key; and nothing to do before all is named");
            lab.worker(2, FromWorker::Registered);
        }
        assert_eq!(lab.told(), [ToClient::Lost { seq: 1, index: 0 }]);
        assert_eq!(lab.assignment().0, 2);
    }
}

#[test]
fn the_dead_and_the_drained_are_not_awaited() {
    for departure in [Departure::Died, Departure::Left] {
        let mut lab = stored();
        lab.depart(1, departure);
        assert_eq!(lab.told(), [ToClient::Lost { seq: 1, index: 0 }], "{departure:?}");
    }
    let mut lab = stored();
    lab.depart(1, Departure::Lost);
    assert!(lab.told().is_empty());
    lab.event(Event::WorkerDied { incarnation: 1 });
    assert_eq!(lab.told(), [ToClient::Lost { seq: 1, index: 0 }], "its death became known later");
    lab.event(Event::WorkerDied { incarnation: 1 });
}

#[test]
fn a_value_that_comes_back_late_ends_its_recomputation() {
    let mut lab = stored();
    lab.depart(1, Departure::Lost);
    lab.join(2, 1);
    lab.wait_with(GRACE, &[2]);
    assert_eq!(lab.told(), [ToClient::Lost { seq: 1, index: 0 }]);
    let (_, again) = lab.assignment();
    lab.rejoin(3, 1, 1, 1);
    holds(&mut lab, 3, 1);
    assert_eq!(lab.ordered(), [(2, ToWorker::Cancel { run: again.run, first: 0, count: 1 })]);
    assert!(matches!(&lab.told()[..], [ToClient::Stored { seq: 1, .. }]));
    lab.finish_stored(2, again.run);
    assert_eq!(lab.ordered(), [(2, ToWorker::Free { spans: vec![span(1, 0, 1)] })], "one is enough");
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Workers(vec![WorkerId(3)]));
    lab.release(1, 0, 1);
    lab.worker(3, FromWorker::Registered);
    lab.take();
    assert!(lab.is_empty());
}

#[test]
fn what_is_lost_again_is_left_to_the_run_that_is_still_out() {
    let mut lab = stored();
    lab.depart(1, Departure::Lost);
    lab.join(2, 1);
    lab.wait_with(GRACE, &[2]);
    let (_, again) = lab.assignment();
    lab.rejoin(3, 1, 1, 1);
    holds(&mut lab, 3, 1);
    lab.worker(3, FromWorker::Registered);
    lab.take();
    lab.depart(3, Departure::Died);
    assert_eq!(lab.told(), [ToClient::Lost { seq: 1, index: 0 }]);
    assert!(lab.assigned().is_empty(), "it is still out");
    lab.worker(2, FromWorker::Returned { run: again.run, missing: Vec::new() });
    let (worker, once_more) = lab.assignment();
    assert_eq!(worker, 2);
    lab.finish_stored(2, once_more.run);
    assert!(matches!(&lab.told()[..], [ToClient::Stored { seq: 1, .. }]));
}

#[test]
fn a_value_that_is_released_while_it_is_away_is_forgotten() {
    let mut lab = stored();
    lab.depart(1, Departure::Lost);
    lab.release(1, 0, 1);
    assert!(lab.is_empty());
    lab.rejoin(2, 1, 1, 1);
    holds(&mut lab, 2, 1);
    assert_eq!(lab.ordered(), [(2, ToWorker::Free { spans: vec![span(1, 0, 1)] })]);
}

#[test]
fn a_worker_that_is_back_before_it_was_missed_takes_its_old_place() {
    let mut lab = stored();
    lab.rejoin(2, 1, 1, 1);
    assert!(lab.take().contains(&Action::DisconnectWorker(WorkerId(1))));
    holds(&mut lab, 2, 1);
    lab.worker(2, FromWorker::Registered);
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Workers(vec![WorkerId(2)]));
    assert_eq!(lab.scheduler.status().workers.len(), 1);
    // Another process may call itself the same, but has another certificate.
    let hello = crate::wire::WorkerHello { slots: 1, incarnation: 1, ..crate::wire::WorkerHello::default() };
    lab.event(Event::WorkerJoined { worker: WorkerId(3), who: identity(9), name: "liar".into(), hello });
    assert_eq!(lab.scheduler.status().workers.len(), 2);
}

#[test]
fn late_and_repeated_answers_change_nothing() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    let (_, first) = lab.assignment();
    lab.start(1, first.run);
    lab.depart(1, Departure::Lost);
    lab.rejoin(2, 1, 1, 0);
    let (_, second) = lab.assignment();
    assert!(second.run > first.run);
    // What it had said before its connection broke, or of a run that it was told to forget.
    lab.finish(1, &first);
    lab.finish(2, &first);
    lab.start(2, first.run);
    lab.fail(2, first.run);
    lab.worker(2, FromWorker::Returned { run: first.run, missing: Vec::new() });
    assert!(lab.take().is_empty());
    lab.finish(2, &second);
    assert_eq!(lab.told(), [ToClient::Done { seq: 1, first: 0, values: values(1) }]);
    lab.finish(2, &second);
    lab.fail(2, second.run);
    assert!(lab.take().is_empty(), "it is told once");
}

#[test]
fn silence_is_probed_before_it_ends_the_lease() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.wait(Duration::from_millis(290));
    assert!(lab.take().is_empty());
    lab.wait(Duration::from_millis(160));
    assert_eq!(lab.take(), [Action::Probe(WorkerId(1))]);
    lab.wait(Duration::from_millis(400));
    assert!(lab.take().is_empty(), "once");
    lab.wait(Duration::from_millis(200));
    assert_eq!(lab.take(), [Action::DisconnectWorker(WorkerId(1))]);
    assert_eq!(lab.scheduler.next_deadline(), None, "nobody is left to look at");
}

#[test]
fn a_scheduler_that_slept_cuts_nobody_off_for_it() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.join(2, 1);
    lab.now += Duration::from_secs(60);
    lab.event(Event::Tick);
    assert_eq!(lab.scheduler.status().workers.len(), 2);
    lab.worker(1, FromWorker::Heartbeat(Default::default()));
    lab.wait_with(Duration::from_secs(1), &[1]);
    assert_eq!(lab.scheduler.status().workers.len(), 1, "the other one is silent indeed");
}

/// The call runs alone on each of these, which fall silent.
fn silences(lab: &mut Lab, workers: std::ops::RangeInclusive<u64>) {
    lab.call(1, Vec::new());
    for worker in workers {
        lab.join(worker, 1);
        let (_, assignment) = lab.assignment();
        lab.start(worker, assignment.run);
        lab.depart(worker, Departure::CutOff);
    }
}

#[test]
fn silences_count_until_their_workers_are_back() {
    let mut lab = Lab::new();
    silences(&mut lab, 1..=3);
    lab.join(4, 1);
    assert!(lab.assigned().is_empty(), "it rests: a fourth worker might go the same way");
    assert!(lab.told().is_empty());
    lab.rejoin(12, 2, 1, 0);
    let (_, again) = lab.assignment();
    lab.finish(again_worker(&lab), &again);
    assert_eq!(lab.told(), [ToClient::Done { seq: 1, first: 0, values: values(1) }]);
}

fn again_worker(lab: &Lab) -> u64 {
    let status = lab.scheduler.status();
    status.workers.iter().find(|worker| worker.assignments > 0).expect("one has it").id.0
}

#[test]
fn silences_without_return_make_poison_in_the_end() {
    let mut lab = Lab::new();
    silences(&mut lab, 1..=3);
    lab.join(4, 1);
    lab.wait_with(GRACE, &[4]);
    let told = lab.told();
    let [ToClient::Failed { error, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(error.kind, TaskErrorKind::Poisonous { deaths: 3 });
    assert!(error.message.contains("w2 (it fell silent and did not come back)"), "{}", error.message);
}

#[test]
fn silences_that_were_deaths_make_poison_at_once() {
    let mut lab = Lab::new();
    silences(&mut lab, 1..=3);
    for incarnation in 1..=3 {
        assert!(lab.told().is_empty());
        lab.event(Event::WorkerDied { incarnation });
    }
    let told = lab.told();
    assert!(matches!(&told[..], [ToClient::Failed { error, .. }] if error.message.contains("died")), "{told:?}");
}

#[test]
fn only_what_was_running_is_suspected() {
    let mut lab = Lab::with(Config { pipeline: 2, max_deaths: 1, ..Config::default() });
    lab.join(1, 1);
    lab.call(1, Vec::new());
    lab.call(2, Vec::new());
    let sent = lab.assigned();
    assert_eq!(sent.len(), 2, "one runs, one is queued there");
    lab.start(1, sent[0].1.run);
    lab.leave(1);
    let told = lab.told();
    assert!(matches!(&told[..], [ToClient::Failed { seq: 1, .. }]), "{told:?}");
    lab.join(2, 1);
    let (_, queued) = lab.assignment();
    lab.leave(2);
    assert!(lab.told().is_empty(), "it had not started");
    lab.join(3, 1);
    let (_, again) = lab.assignment();
    assert!(again.run > queued.run);
    lab.finish(3, &again);
    assert_eq!(lab.told().len(), 1);
}
