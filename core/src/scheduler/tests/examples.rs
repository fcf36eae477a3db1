//! Examples: graphs, batches, placement, calls sent ahead, taking back, releasing.

use std::time::Duration;

use bytes::Bytes;

use super::lab::{CLIENT, Lab, args, entry, hole, key, same, span, spec, values};
use crate::{
    TaskErrorKind,
    codec::{Args, Hole, Run, Source},
    ids::Hash,
    scheduler::{Action, Config, Event, Location},
    wire::{Assignment, ENTRY_COST, FromClient, FromWorker, ITEM_COST, InputPlace, StateCounts, ToClient, ToWorker},
};

#[test]
fn a_call_runs_and_is_told_once() {
    let mut lab = Lab::new();
    lab.call(1, Vec::new());
    assert!(lab.assigned().is_empty());
    lab.join(1, 1);
    let (worker, assignment) = lab.assignment();
    assert_eq!((worker, assignment.entry, assignment.first), (1, entry(1), 0));
    lab.start(1, assignment.run);
    lab.finish(1, &assignment);
    assert_eq!(lab.told(), [ToClient::Done { seq: 1, first: 0, values: values(1) }]);
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Inline("x".into()));
    lab.finish(1, &assignment);
    assert!(lab.told().is_empty(), "an answer of a run that is over");
    lab.release(1, 0, 1);
    assert!(lab.is_empty());
}

#[test]
fn a_map_runs_in_growing_batches_and_comes_back_in_ranges() {
    let mut lab = Lab::with(Config { pipeline: 1, ..Config::default() });
    lab.join(1, 1);
    lab.map(1, 5000);
    let batches = lab.finish_all(|count| Duration::from_micros(u64::from(count)));
    let mut next = 0;
    for (batch, told) in batches.iter().zip(lab.told()) {
        let count = batch.args.count();
        assert_eq!(batch.first, next);
        assert_eq!(told, ToClient::Done { seq: 1, first: next, values: values(count) });
        next += u64::from(count);
    }
    assert_eq!(next, 5000);
    let sizes: Vec<_> = batches.iter().map(|batch| batch.args.count()).collect();
    let mut largest = 1;
    for &size in &sizes {
        assert!(size <= largest * 8, "{sizes:?}");
        largest = largest.max(size);
    }
    assert!(sizes.len() < 40 && largest > 500, "{sizes:?}");
}

#[test]
fn holes_wait_for_their_values_and_get_them_inline() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.map(1, 4);
    let each = Hole { first: 0, count: 3, field: 0, source: Source::Each { entry: entry(1), first: 1 } };
    let list = Hole { first: 0, count: 3, field: 1, source: Source::List(vec![span(1, 0, 2)]) };
    lab.client(FromClient::Map { seq: 2, spec: spec("g") });
    lab.client(FromClient::Items { seq: 2, args: args(3, vec![each, list]) });
    lab.client(FromClient::Count { query: 5, spans: vec![span(2, 0, 3)] });
    let counts = StateCounts { waiting: 3, ..StateCounts::default() };
    assert_eq!(lab.told(), [ToClient::Counts { query: 5, counts }]);
    let batches = lab.finish_all(|_| Duration::from_millis(1));
    let (mut each, mut list) = (Vec::new(), 0);
    for batch in batches.iter().filter(|batch| batch.entry == entry(2)) {
        for input in &batch.inputs {
            assert!(matches!(&input.place, InputPlace::Inline(run) if u64::from(run.count()) == input.count));
            list += u64::from(input.key.index < 2);
            each.extend(input.key.index..input.key.index + input.count);
        }
    }
    each.sort_unstable();
    each.dedup();
    assert_eq!(each, [0, 1, 2, 3]);
    assert!(list > 0);
    assert_eq!(lab.scheduler.status().counts.memory, 7);
    lab.client(FromClient::Close { seq: 2 });
    lab.release(2, 0, 3);
    lab.release(1, 0, 4);
    assert!(lab.is_empty());
}

#[test]
fn released_inputs_live_as_long_as_dependents_need_them() {
    let mut lab = Lab::new();
    lab.call(1, Vec::new());
    lab.call(2, vec![same(1, 0)]);
    lab.release(1, 0, 1);
    lab.join(1, 1);
    let all = lab.assigned();
    assert_eq!(all.len(), 2, "the second goes ahead");
    assert_eq!(all[1].1.inputs[0].place, InputPlace::Ahead);
    lab.finish(1, &all[0].1);
    assert!(lab.told().is_empty(), "not wanted");
    lab.finish(1, &all[1].1);
    assert_eq!(lab.told(), [ToClient::Done { seq: 2, first: 0, values: values(1) }]);
    assert_eq!(lab.scheduler.entries.len(), 1);
    lab.release(2, 0, 1);
    assert!(lab.is_empty());
}

#[test]
fn unfinished_items_that_are_released_are_cancelled() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    let (_, assignment) = lab.assignment();
    lab.start(1, assignment.run);
    lab.release(1, 0, 1);
    assert_eq!(lab.ordered(), [(1, ToWorker::Cancel { run: assignment.run, first: 0, count: 1 })]);
    assert!(lab.told().is_empty() && lab.scheduler.entries.is_empty());
    assert_eq!(lab.scheduler.status().workers[0].assignments, 1, "the slot is busy until the worker answers");
    lab.finish(1, &assignment);
    assert!(lab.told().is_empty() && lab.is_empty());
}

#[test]
fn cancelling_cancels_dependents_and_stops_the_worker() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    lab.call(2, vec![same(1, 0)]);
    let runs: Vec<_> = lab.assigned().into_iter().map(|(_, assignment)| assignment.run).collect();
    lab.client(FromClient::Cancel { span: span(1, 0, 1) });
    let cancelled = |seq| ToClient::Cancelled { span: span(seq, 0, 1) };
    assert_eq!(lab.told(), [cancelled(1), cancelled(2)]);
    let cancel = |run| (1, ToWorker::Cancel { run, first: 0, count: 1 });
    assert_eq!(lab.ordered(), [cancel(runs[0]), cancel(runs[1])]);
    lab.client(FromClient::Call { seq: 3, spec: spec("f"), args: args(1, vec![same(2, 0)]) });
    assert_eq!(lab.told(), [cancelled(3)], "what depends on it later, too");
}

#[test]
fn a_chain_goes_ahead_as_far_as_the_bound() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.join(2, 1);
    lab.call(1, Vec::new());
    for seq in 2..=1000 {
        lab.call(seq, vec![same(seq - 1, 0)]);
    }
    let mut sent = lab.assigned();
    assert_eq!(sent.len(), 257);
    assert!(sent.iter().all(|(worker, _)| *worker == sent[0].0), "all on one worker");
    let worker = sent[0].0;
    let mut at = 0;
    while at < sent.len() {
        lab.finish(worker, &sent[at].1.clone());
        sent.extend(lab.assigned());
        at += 1;
        assert!(sent.len() >= 1000.min(at + 257), "the pipe is kept full");
    }
    assert_eq!(sent.len(), 1000);
    assert_eq!(lab.told().len(), 1000);
}

#[test]
fn what_was_missing_once_is_not_sent_ahead_again() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    lab.call(2, vec![same(1, 0)]);
    let sent = lab.assigned();
    lab.worker(1, FromWorker::Returned { run: sent[1].1.run, missing: vec![key(1, 0)] });
    assert!(lab.assigned().is_empty());
    lab.finish(1, &sent[0].1);
    let (_, again) = lab.assignment();
    assert!(matches!(again.inputs[0].place, InputPlace::Inline(_)));
    lab.finish(1, &again);
    assert_eq!(lab.told().len(), 2);
}

#[test]
fn idle_workers_get_what_others_have_not_started() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    for seq in 1..=2 {
        lab.call(seq, Vec::new());
    }
    let sent = lab.assigned();
    assert_eq!(sent.len(), 2, "one running, one queued");
    lab.start(1, sent[0].1.run);
    lab.join(2, 1);
    assert_eq!(lab.ordered(), [(1, ToWorker::Recall { run: sent[1].1.run })]);
    lab.worker(1, FromWorker::Returned { run: sent[1].1.run, missing: Vec::new() });
    let (worker, again) = lab.assignment();
    assert_eq!((worker, again.entry), (2, entry(2)));
}

/// A worker with three calls queued, each of which should take so long.
fn queued(item: Duration) -> (Lab, Vec<Assignment>) {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.map(1, 1);
    let (_, first) = lab.assignment();
    lab.worker(1, FromWorker::Finished { run: first.run, outcome: super::lab::outcome(0, values(1)), elapsed: item });
    for seq in 2..=4 {
        lab.call(seq, Vec::new());
    }
    let sent = lab.assigned().into_iter().map(|(_, assignment)| assignment).collect();
    (lab, sent)
}

#[test]
fn queues_move_at_once_unless_they_are_soon_through() {
    let (mut lab, sent) = queued(Duration::from_millis(4));
    lab.start(1, sent[0].run);
    lab.join(2, 1);
    assert_eq!(lab.ordered(), [(1, ToWorker::Recall { run: sent[2].run })]);
    // What runs counts as a whole until it ends: here it should be nearly through, and so should the last call.
    let (mut lab, sent) = queued(Duration::from_micros(900));
    lab.start(1, sent[0].run);
    lab.wait(Duration::from_millis(1));
    lab.join(2, 1);
    assert_eq!(lab.ordered(), []);
}

#[test]
fn queues_behind_a_slow_item_move_after_a_while() {
    let (mut lab, sent) = queued(Duration::from_micros(1));
    lab.join(2, 1);
    assert!(lab.assigned().is_empty() && lab.ordered().is_empty(), "they seem short");
    lab.wait(Config::default().batch_time);
    assert_eq!(lab.ordered(), [(1, ToWorker::Recall { run: sent[2].run })]);
}

#[test]
fn higher_priority_goes_first_then_arrival() {
    let mut lab = Lab::with(Config { pipeline: 1, ..Config::default() });
    for (seq, priority) in [(1, 0), (2, 5), (3, -1), (4, 5)] {
        let mut spec = spec("f");
        spec.make_mut().options.priority = priority;
        lab.client(FromClient::Call { seq, spec, args: args(1, Vec::new()) });
    }
    lab.join(1, 1);
    let order: Vec<_> = lab.finish_all(|_| Duration::from_secs(1)).iter().map(|batch| batch.entry.seq).collect();
    assert_eq!(order, [2, 4, 1, 3]);
}

#[test]
fn a_sliding_map_needs_bounded_memory() {
    let mut lab = Lab::with(Config { pipeline: 1, ..Config::default() });
    lab.join(1, 1);
    lab.client(FromClient::Map { seq: 1, spec: spec("f") });
    for round in 0..200_u64 {
        lab.client(FromClient::Items { seq: 1, args: args(100, Vec::new()) });
        lab.finish_all(|_| Duration::from_millis(1));
        lab.release(1, round * 100, 100);
        let entry = lab.scheduler.entries.get(&entry(1)).expect("here");
        assert!(entry.open && entry.items.chunk_count() <= 1 && entry.args.is_empty() && entry.values.live() == 0);
    }
    assert_eq!(lab.scheduler.status().clients[0].held_bytes, ENTRY_COST, "it is open");
    lab.client(FromClient::Close { seq: 1 });
    assert!(lab.is_empty());
}

#[test]
fn an_open_map_is_closed_when_all_of_it_is_released() {
    let mut lab = Lab::new();
    lab.client(FromClient::Map { seq: 1, spec: spec("f") });
    lab.client(FromClient::Items { seq: 1, args: args(10, Vec::new()) });
    lab.release(1, 0, u64::MAX);
    assert!(lab.is_empty());
    lab.client(FromClient::Items { seq: 1, args: args(10, Vec::new()) });
    lab.client(FromClient::Close { seq: 1 });
    assert!(lab.is_empty() && lab.told().is_empty(), "what was on its way is no offence");
}

#[test]
fn items_that_never_come_fail_their_dependents() {
    let mut lab = Lab::new();
    lab.client(FromClient::Map { seq: 1, spec: spec("f") });
    lab.call(2, vec![hole(Source::List(vec![span(1, 0, 3)]))]);
    lab.client(FromClient::Items { seq: 1, args: args(2, Vec::new()) });
    assert!(lab.told().is_empty());
    lab.client(FromClient::Close { seq: 1 });
    let told = lab.told();
    assert!(matches!(&told[..], [ToClient::Failed { seq: 2, error, .. }] if error.key == key(1, 2)), "{told:?}");
}

#[test]
fn a_client_that_leaves_takes_everything_along() {
    let mut lab = Lab::new();
    lab.join(1, 2);
    lab.map(1, 10);
    lab.call(2, vec![same(1, 3)]);
    let sent = lab.assigned();
    lab.event(Event::ClientLeft { client: CLIENT });
    let cancels = lab.ordered();
    assert_eq!(cancels.len(), sent.len());
    for (worker, assignment) in sent {
        lab.finish(worker, &assignment);
    }
    assert!(lab.is_empty() && lab.scheduler.status().clients.is_empty());
}

#[test]
fn credit_comes_back_in_lumps_and_is_held_back_by_what_is_kept() {
    // Of arguments of one byte each.
    let cost = |items: u64| items * (1 + ITEM_COST);
    let mut lab = Lab::with(Config { client_bytes: cost(3000), credit: cost(8000), ..Config::default() });
    let mut granted = cost(8000);
    let mut credits = |lab: &mut Lab| -> u64 {
        let totals = lab.take().into_iter().filter_map(|action| match action {
            Action::ToClient(_, ToClient::Credit { total }) => Some(total),
            _ => None,
        });
        let before = granted;
        granted = totals.max().unwrap_or(before);
        granted - before
    };
    lab.map(1, 500);
    assert_eq!(credits(&mut lab), 0, "too little to mention");
    lab.now = lab.scheduler.next_deadline().expect("later");
    lab.event(Event::Tick);
    assert_eq!(credits(&mut lab), ENTRY_COST + cost(500));
    lab.map(2, 5000);
    lab.now += Duration::from_secs(1);
    lab.event(Event::Tick);
    assert_eq!(credits(&mut lab), 0, "kept for the client: more than its share");
    assert_eq!(lab.scheduler.next_deadline(), None);
    lab.release(2, 0, 5000);
    assert_eq!(credits(&mut lab), cost(2500), "as much as there is room for, since 500 are kept");
    lab.release(1, 0, 500);
    assert_eq!(credits(&mut lab), ENTRY_COST + cost(2500));
}

#[test]
fn what_is_empty_costs_credit_until_it_is_over() {
    let mut lab = Lab::with(Config { client_bytes: 10 * ENTRY_COST, ..Config::default() });
    let held = |lab: &Lab| lab.scheduler.status().clients[0].held_bytes;
    let owed = |lab: &Lab| lab.scheduler.clients[&CLIENT].owed;
    let empty = || Args { run: Run::single(Bytes::new()).expect("short"), holes: Vec::new() };
    for seq in 1..=10 {
        lab.client(FromClient::Map { seq, spec: spec("f") });
    }
    assert_eq!((held(&lab), owed(&lab)), (10 * ENTRY_COST, 10 * ENTRY_COST));
    lab.wait(Duration::from_secs(1));
    assert_eq!(owed(&lab), 10 * ENTRY_COST, "its share is full of them");
    lab.client(FromClient::Close { seq: 1 });
    lab.client(FromClient::Release { span: span(2, 0, 1) });
    assert_eq!(held(&lab), 8 * ENTRY_COST);
    for seq in 3..=10 {
        lab.client(FromClient::Close { seq });
    }
    for seq in 11..=20 {
        lab.client(FromClient::Call { seq, spec: spec("f"), args: empty() });
    }
    assert_eq!(held(&lab), 10 * (ENTRY_COST + ITEM_COST));
    let (len, hash) = (100_000, Hash([1; 32]));
    lab.client(FromClient::Data { seq: 21, len, hash, bytes: None });
    assert_eq!(held(&lab), 11 * ENTRY_COST + 10 * ITEM_COST);
    lab.event(Event::Held { key: key(21, 0), len, hash });
    assert_eq!(held(&lab), 10 * (ENTRY_COST + ITEM_COST), "it is where it takes up room");
    lab.client(FromClient::Data { seq: 22, len: 1, hash, bytes: Some("a".into()) });
    lab.join(1, 1);
    lab.finish_all(|_| Duration::from_micros(1));
    assert_eq!(held(&lab), ENTRY_COST + 1, "of calls that have ended no arguments are kept");
    lab.wait(Duration::from_secs(1));
    assert_eq!(owed(&lab), 0);
    (11..=22).for_each(|seq| lab.release(seq, 0, 1));
    assert!(lab.is_empty());
}

#[test]
fn arguments_kept_for_a_loss_give_way_to_new_ones() {
    let mut lab = Lab::with(Config { client_bytes: 15 * (ENTRY_COST + ITEM_COST + 1), ..Config::default() });
    lab.join(1, 1);
    (1..=40).for_each(|seq| lab.call(seq, Vec::new()));
    let mut left = lab.assigned();
    while let Some((worker, assignment)) = left.pop() {
        lab.start(worker, assignment.run);
        lab.finish_stored(worker, assignment.run);
        left.extend(lab.assigned());
    }
    lab.take();
    lab.now = lab.scheduler.next_deadline().expect("credit is due");
    lab.event(Event::Tick);
    let gave = |action: &Action| matches!(action, Action::ToClient(_, ToClient::Credit { .. }));
    assert!(lab.take().iter().any(gave), "the client can go on");
    lab.leave(1);
    let told = lab.told();
    let lost = |seq: u64| {
        told.iter().any(|message| match message {
            ToClient::Failed { seq: failed, error, .. } => *failed == seq && error.kind == TaskErrorKind::DataLost,
            _ => false,
        })
    };
    let again = |seq: u64| told.contains(&ToClient::Lost { seq, index: 0 });
    assert!(lost(2) && again(40), "the oldest arguments go first");
    assert!((1..=40).all(|seq| lost(seq) != again(seq)), "each is one or the other");
    (1..=40).for_each(|seq| lab.release(seq, 0, 1));
    assert!(lab.is_empty());
}
