//! What operators see, and cancel.

use std::time::Duration;

use super::lab::{CLIENT, Lab, args, entry, key, same, span, spec};
use crate::{
    TaskErrorKind,
    codec::Span,
    ids::WorkerId,
    scheduler::Event,
    wire::{
        FromClient, ToClient, ToWorker,
        operator::{EntryKind, OperatorRefusal},
    },
};

/// All of an entry, to come or not.
fn whole(seq: u64) -> Span {
    Span { entry: entry(seq), first: 0, count: u64::MAX }
}

#[test]
fn what_is_under_way_is_listed_first() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    let (_, first) = lab.assignment();
    lab.finish(1, &first);
    lab.call(2, Vec::new());
    let (_, second) = lab.assignment();
    lab.fail(1, second.run);
    lab.now = Duration::from_secs(2);
    lab.map(3, 10);
    lab.client(FromClient::Map { seq: 4, spec: spec("g") });
    let now = Duration::from_secs(4);
    let tasks = lab.scheduler.tasks(now, 10);
    let listed: Vec<_> = tasks.entries.iter().map(|entry| (entry.id.seq, entry.kind, &*entry.task, entry.age_ms)).collect();
    let (map, open) = (EntryKind::Map { open: false }, EntryKind::Map { open: true });
    assert_eq!(
        listed,
        [(3, map, "f", 2000), (4, open, "g", 2000), (2, EntryKind::Call, "f", 4000), (1, EntryKind::Call, "f", 4000),]
    );
    assert_eq!(tasks.entries[0].workers, [WorkerId(1)]);
    assert_eq!((tasks.entries[2].counts.erred, tasks.entries[3].counts.memory, tasks.more), (1, 1, 0));
    let tasks = lab.scheduler.tasks(now, 3);
    assert_eq!((tasks.entries.len(), tasks.more), (3, 1));
    assert_eq!(lab.scheduler.tasks(now, 0).more, 4);
}

#[test]
fn failures_are_remembered_when_their_client_is_gone() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    lab.call(2, vec![same(1, 0)]);
    lab.call(3, vec![same(2, 0)]);
    let (_, assignment) = lab.assigned().remove(0);
    lab.now = Duration::from_secs(1);
    lab.fail(1, assignment.run);
    lab.event(Event::ClientLeft { client: CLIENT });
    let failures = lab.scheduler.failures(Duration::from_secs(4), 10);
    assert_eq!((failures.failures.len(), failures.more), (1, 0), "dependents failed for another's sake: {failures:?}");
    let failure = &failures.failures[0];
    assert_eq!((failure.key, failure.items, &*failure.task, failure.ago_ms), (key(1, 0), 1, "f", 3000));
    assert_eq!((&failure.kind, &*failure.message), (&TaskErrorKind::Panicked, "boom"));
}

#[test]
fn as_many_failures_are_remembered_as_there_is_room_for() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    for seq in 1..=1002 {
        lab.call(seq, Vec::new());
        let (_, assignment) = lab.assignment();
        lab.fail(1, assignment.run);
        lab.take();
    }
    let failures = lab.scheduler.failures(Duration::ZERO, 2);
    let keys: Vec<_> = failures.failures.iter().map(|failure| failure.key.entry.seq).collect();
    assert_eq!((keys, failures.more), (vec![1002, 1001], 998));
}

#[test]
fn an_operator_cancels_what_has_not_ended() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.map(1, 3);
    lab.call(2, vec![same(1, 2)]);
    let (_, running) = lab.assigned().remove(0);
    assert_eq!((running.first, running.args.count()), (0, 1));
    lab.start(1, running.run);
    assert_eq!(lab.scheduler.pending(&whole(1)), Ok(3));
    lab.take();
    lab.event(Event::Cancel(whole(1)));
    assert_eq!(lab.scheduler.pending(&whole(1)), Ok(0));
    let stops = lab.ordered().iter().filter(|(_, message)| matches!(message, ToWorker::Cancel { .. })).count();
    assert!(stops > 0, "what runs is stopped");
    let cancelled: u64 = lab
        .told()
        .iter()
        .map(|message| match message {
            ToClient::Cancelled { span } => span.count,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(cancelled, 4, "with what needs them");
    lab.event(Event::Cancel(whole(1)));
    assert!(lab.told().is_empty());
}

#[test]
fn what_comes_later_is_cancelled_with_an_open_map() {
    let mut lab = Lab::new();
    lab.client(FromClient::Map { seq: 1, spec: spec("f") });
    lab.call(2, Vec::new());
    lab.event(Event::Cancel(whole(1)));
    lab.client(FromClient::Items { seq: 1, args: args(5, Vec::new()) });
    lab.client(FromClient::Map { seq: 3, spec: spec("f") });
    lab.event(Event::Cancel(whole(3)));
    lab.client(FromClient::Items { seq: 3, args: args(1, vec![same(2, 0)]) });
    let cancelled = |seq, count| ToClient::Cancelled { span: span(seq, 0, count) };
    assert_eq!(lab.told(), [cancelled(1, 5), cancelled(3, 1)]);
    lab.join(1, 1);
    assert_eq!(lab.assignment().1.entry, entry(2), "nothing of it runs");
}

#[test]
fn what_is_not_there_cannot_be_cancelled() {
    let mut lab = Lab::new();
    lab.map(1, 3);
    assert_eq!(lab.scheduler.pending(&span(1, 2, 1)), Ok(1));
    assert_eq!(lab.scheduler.pending(&span(1, 3, 1)), Err(OperatorRefusal::UnknownItem { key: key(1, 3), items: 3 }));
    assert_eq!(lab.scheduler.pending(&whole(2)), Err(OperatorRefusal::UnknownEntry { entry: entry(2) }));
    lab.event(Event::Cancel(whole(2)));
    lab.event(Event::Cancel(Span { entry: entry(1), first: u64::MAX, count: u64::MAX }));
    assert!(lab.told().is_empty());
}
