//! Examples: runs that are under way give a part of what they have to idle slots.

use std::time::Duration;

use super::lab::{Lab, key, outcome, span, values};
use crate::{
    ids::{RunId, WorkerId},
    scheduler::{Action, Config},
    wire::{Assignment, FromWorker, ToClient, ToWorker},
};

/// Worker 1 with a run under way, of several items which should take so long each, and worker 2, which has been idle since.
fn under_way(item: Duration) -> (Lab, Assignment) {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.map(1, 1);
    let (_, first) = lab.assignment();
    lab.worker(1, FromWorker::Finished { run: first.run, outcome: outcome(0, values(1)), elapsed: item });
    lab.map(2, 12);
    let sent = lab.assigned();
    let (_, long) = sent[0].clone();
    lab.start(1, long.run);
    let mut rest = sent[1..].to_vec();
    while let Some((worker, assignment)) = rest.pop() {
        lab.finish(worker, &assignment);
        rest.extend(lab.assigned());
    }
    lab.told();
    lab.join(2, 1);
    (lab, long)
}

/// The same, once the run is late.
fn late(item: Duration) -> (Lab, Assignment) {
    let (mut lab, long) = under_way(item);
    lab.wait(2 * Config::default().batch_time);
    assert!(lab.ordered().is_empty(), "it is not late yet");
    lab.wait(item);
    assert_eq!(lab.ordered(), [recall(long.run)]);
    (lab, long)
}

fn recall(run: RunId) -> (u64, ToWorker) {
    (1, ToWorker::Recall { run })
}

fn divide(lab: &mut Lab, run: RunId, count: u32) {
    lab.worker(1, FromWorker::Divided { run, count });
}

#[test]
fn half_of_a_late_run_goes_to_an_idle_worker() {
    let (mut lab, long) = late(Duration::from_millis(4));
    let count = long.args.count();
    assert!(count > 2, "{count}");
    lab.wait(Duration::from_millis(8));
    assert_eq!(lab.ordered(), [], "asked once");
    divide(&mut lab, long.run, 2);
    let rest = lab.assigned();
    assert!(rest.iter().all(|(worker, _)| *worker == 2), "{rest:?}");
    assert!(rest.iter().map(|(_, rest)| rest.first).eq(2..u64::from(count)), "one after the other, since they seem long");
    lab.finish_part(1, long.run, 0, 2);
    rest.into_iter().for_each(|(worker, rest)| lab.finish(worker, &rest));
    let done: u32 = lab.told().iter().map(|told| if let ToClient::Done { values, .. } = told { values.count() } else { 0 }).sum();
    assert_eq!(done, count);
    lab.release(1, 0, 1);
    lab.release(2, 0, 12);
    assert!(lab.is_empty());
}

#[test]
fn a_run_is_asked_again_while_there_is_something_to_get() {
    let (mut lab, long) = late(Duration::from_millis(4));
    divide(&mut lab, long.run, 3);
    lab.finish_all(|_| Duration::from_millis(1));
    lab.wait(Duration::from_millis(4));
    assert_eq!(lab.ordered(), [recall(long.run)]);
    divide(&mut lab, long.run, 1);
    let rest = lab.finish_all(|_| Duration::from_millis(1));
    assert_eq!(rest.iter().map(|rest| rest.first).min(), Some(1));
    lab.wait(Duration::from_secs(1));
    assert!(lab.ordered().is_empty(), "one item is not divided");
}

#[test]
fn what_was_asked_for_as_a_whole_may_have_started_meanwhile() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.map(1, 1);
    let (_, first) = lab.assignment();
    lab.worker(1, FromWorker::Finished { run: first.run, outcome: outcome(0, values(1)), elapsed: Duration::from_millis(4) });
    lab.map(2, 40);
    let at_first: Vec<_> = lab.assigned().into_iter().map(|(_, assignment)| assignment).collect();
    let [runs, waits] = &at_first[..] else { panic!("{at_first:?}") };
    lab.start(1, runs.run);
    lab.join(2, 1);
    lab.finish_all(|count| count * Duration::from_millis(4));
    lab.wait(Duration::from_millis(8));
    assert!(waits.args.count() > 1);
    assert!(lab.scheduler.recalled.contains(&waits.run));
    lab.finish(1, runs);
    lab.start(1, waits.run);
    lab.wait(Duration::from_millis(200));
    assert!(lab.ordered().is_empty(), "one question, one answer");
    divide(&mut lab, waits.run, 1);
    assert_eq!(lab.assigned().first().map(|(worker, rest)| (*worker, rest.first)), Some((2, waits.first + 1)));
}

#[test]
fn what_is_cancelled_of_the_rest_is_not_run() {
    let (mut lab, long) = late(Duration::from_millis(4));
    lab.client(crate::wire::FromClient::Cancel { span: span(2, 1, 11) });
    lab.take();
    divide(&mut lab, long.run, 1);
    assert!(lab.assigned().is_empty());
    lab.finish_part(1, long.run, 0, 1);
    assert!(matches!(&lab.told()[..], [ToClient::Done { seq: 2, first: 0, .. }]));
}

#[test]
fn a_rest_is_lost_with_no_worker() {
    let (mut lab, long) = late(Duration::from_millis(4));
    divide(&mut lab, long.run, 1);
    lab.take();
    lab.leave(1);
    lab.leave(2);
    lab.join(3, 1);
    let firsts: Vec<_> = lab.finish_all(|_| Duration::from_millis(1)).iter().map(|assignment| assignment.first).collect();
    assert!(firsts.contains(&key(2, 0).index) && firsts.contains(&1), "{firsts:?}");
}

#[test]
fn nonsense_is_refused() {
    let refused = |lab: &mut Lab| lab.take().contains(&Action::DisconnectWorker(WorkerId(1)));
    for count in [0, 4, u32::MAX] {
        let (mut lab, long) = late(Duration::from_millis(4));
        divide(&mut lab, long.run, count);
        assert!(refused(&mut lab), "{count} of {}", long.args.count());
    }
    let (mut lab, long) = under_way(Duration::from_millis(4));
    divide(&mut lab, long.run, 1);
    assert!(refused(&mut lab), "unasked");
    let (mut lab, _) = late(Duration::from_millis(4));
    divide(&mut lab, RunId(77), 1);
    assert!(!refused(&mut lab), "over, perhaps");
}
