//! Calls and results that outlive their client, and what other clients take up of them.

use super::lab::*;
use crate::{
    PublishError, TaskErrorKind,
    codec::{Source, Span},
    ids::{ClientId, EntryId, Hash, Key},
    scheduler::{Action, Event, Location},
    wire::{FromClient, FromWorker, ToClient},
};

const OTHER: ClientId = ClientId(2);

/// A lab with a worker and a second client.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.event(Event::ClientJoined {
        client: OTHER,
        who: identity(101),
        module: Hash([8; 32]),
        passport: crate::scheduler::Passport::default(),
    });
    lab
}

fn other(lab: &mut Lab, message: FromClient) {
    lab.event(Event::FromClient(OTHER, message));
}

fn leave(lab: &mut Lab) {
    lab.event(Event::ClientLeft { client: CLIENT });
}

fn publish(lab: &mut Lab, name: &str, span: Span) -> Result<u64, PublishError> {
    lab.told();
    lab.client(FromClient::Publish { query: 1, name: name.into(), kind: "i64".into(), span });
    answer(lab)
}

fn look_up(lab: &mut Lab, name: &str, kind: &str) -> Result<u64, PublishError> {
    lab.told();
    other(lab, FromClient::LookUp { query: 1, name: name.into(), kind: kind.into() });
    answer(lab)
}

fn answer(lab: &mut Lab) -> Result<u64, PublishError> {
    match lab.told().pop() {
        Some(ToClient::Named { query: 1, items }) => items,
        told => panic!("{told:?}"),
    }
}

fn take_up(lab: &mut Lab, seq: u64, name: &str, count: u64) {
    lab.told();
    other(lab, FromClient::TakeUp { seq, name: name.into(), kind: "i64".into(), count });
}

/// Whoever cannot fetch what somebody else sent does without it, and nobody else notices.
#[test]
fn what_one_taker_cannot_fetch_others_keep() {
    let mut lab = lab();
    lab.client(FromClient::Data { seq: 1, len: 9, hash: Hash([1; 32]), bytes: None });
    lab.worker(1, FromWorker::Holds { key: key(1, 0), len: 9, hash: Hash([1; 32]) });
    assert_eq!(publish(&mut lab, "data", span(1, 0, 1)), Ok(1));
    take_up(&mut lab, 1, "data", 1);
    assert!(matches!(told_other(&mut lab)[..], [ToClient::Stored { seq: 1, .. }]));
    for last in [false, false, true] {
        other(&mut lab, FromClient::Unreachable { seq: 1, index: 0 });
        match &told_other(&mut lab)[..] {
            [ToClient::Stored { seq: 1, .. }] if !last => {}
            [ToClient::Failed { seq: 1, index: 0, error }] if last => assert_eq!(error.kind, TaskErrorKind::DataLost),
            told => panic!("{told:?}"),
        }
    }
    assert_eq!(lab.told(), []);
    take_up(&mut lab, 2, "data", 1);
    assert!(matches!(told_other(&mut lab)[..], [ToClient::Stored { seq: 2, .. }]));
    assert!(matches!(lab.scheduler.locate(key(1, 0)), Location::Workers(_)));
}

fn unpublish(lab: &mut Lab, name: &str) {
    other(lab, FromClient::Unpublish { name: name.into() });
}

/// What the second client was told since the last look.
fn told_other(lab: &mut Lab) -> Vec<ToClient> {
    let (told, rest) = lab.take().into_iter().partition(|action| matches!(action, Action::ToClient(OTHER, _)));
    lab.actions = rest;
    let messages = Vec::into_iter(told).filter_map(|action| match action {
        Action::ToClient(_, ToClient::Credit { .. }) => None,
        Action::ToClient(_, message) => Some(message),
        _ => None,
    });
    messages.collect()
}

fn theirs(seq: u64) -> EntryId {
    EntryId { client: OTHER, seq }
}

fn done(seq: u64, first: u64, count: u32) -> ToClient {
    ToClient::Done { seq, first, values: values(count) }
}

#[test]
fn a_detached_call_runs_to_its_end_with_what_it_needs() {
    let mut lab = lab();
    lab.call(1, Vec::new());
    lab.call(2, vec![same(1, 0)]);
    lab.call(3, Vec::new());
    lab.client(FromClient::Detach { span: span(2, 0, 1) });
    let mut todo = lab.assigned();
    leave(&mut lab);
    assert!(!lab.scheduler.knows(CLIENT) && !lab.take().contains(&Action::ForgetClient(CLIENT)));
    assert_eq!(lab.scheduler.entries.iter().map(|(id, _)| id.seq).collect::<Vec<_>>(), [1, 2], "the third is nobody's");
    let mut next = 0;
    while let Some((worker, assignment)) = todo.get(next).cloned() {
        lab.finish(worker, &assignment);
        todo.extend(lab.assigned());
        next += 1;
    }
    assert!(lab.take().contains(&Action::ForgetClient(CLIENT)), "nothing of it is left");
    assert!(lab.scheduler.entries.is_empty());
}

#[test]
fn a_detached_call_outlives_its_futures() {
    let mut lab = lab();
    lab.call(1, Vec::new());
    lab.client(FromClient::Detach { span: span(1, 0, 1) });
    lab.release(1, 0, 1);
    let (worker, assignment) = lab.assignment();
    lab.finish(worker, &assignment);
    assert!(lab.is_empty(), "and its result is nobody's");
}

#[test]
fn what_is_published_is_there_for_others_when_its_client_has_left() {
    let mut lab = lab();
    lab.map(1, 5);
    assert_eq!(publish(&mut lab, "five", span(1, 1, 3)), Ok(3));
    assert_eq!(publish(&mut lab, "five", span(1, 1, 3)), Ok(3), "asked again");
    leave(&mut lab);
    assert_eq!(look_up(&mut lab, "five", "i64"), Ok(3));
    take_up(&mut lab, 7, "five", 3);
    lab.finish_all(|_| std::time::Duration::from_millis(1));
    let told = told_other(&mut lab);
    let items: u32 =
        told.iter().map(|message| if let ToClient::Done { seq: 7, values, .. } = message { values.count() } else { 0 }).sum();
    assert_eq!(items, 3, "{told:?}");
    // Another one comes when all is done.
    take_up(&mut lab, 8, "five", 3);
    assert!(told_other(&mut lab).iter().all(|message| matches!(message, ToClient::Done { seq: 8, first: 0..3, .. })));
    assert_eq!(lab.scheduler.locate(theirs(8).key(2)), lab.scheduler.locate(key(1, 3)));
    unpublish(&mut lab, "five");
    assert!(matches!(look_up(&mut lab, "five", "i64"), Err(PublishError::Unknown { .. })));
    assert!(matches!(lab.scheduler.locate(theirs(8).key(2)), Location::Inline(_)), "it is kept for those who have it");
    for seq in [7, 8] {
        other(&mut lab, FromClient::Release { span: Span { entry: theirs(seq), first: 0, count: 3 } });
    }
    assert!(lab.scheduler.entries.is_empty() && lab.take().contains(&Action::ForgetClient(CLIENT)));
}

#[test]
fn what_was_taken_up_is_an_argument_as_any_other() {
    let mut lab = lab();
    lab.map(1, 4);
    publish(&mut lab, "four", span(1, 0, 4)).expect("published");
    take_up(&mut lab, 1, "four", 4);
    let key_of = |index| Key { entry: theirs(1), index };
    let holes = [
        Source::Same(key_of(2)),
        Source::Each { entry: theirs(1), first: 3 },
        Source::List(vec![Span { entry: theirs(1), first: 1, count: 3 }]),
    ];
    for (seq, source) in (2..).zip(holes) {
        other(&mut lab, FromClient::Call { seq, spec: spec("g"), args: args(1, vec![hole(source)]) });
    }
    // Neither its client nor the name nor the other's future is needed for what has been submitted.
    other(&mut lab, FromClient::Release { span: Span { entry: theirs(1), first: 0, count: 4 } });
    leave(&mut lab);
    unpublish(&mut lab, "four");
    lab.finish_all(|_| std::time::Duration::from_millis(1));
    let told = told_other(&mut lab);
    assert!((2..=4).all(|seq| told.contains(&done(seq, 0, 1))), "{told:?}");
    assert!(!lab.scheduler.entries.has_any(CLIENT));
    other(&mut lab, FromClient::Bye);
    assert!(lab.scheduler.entries.is_empty());
}

#[test]
fn one_that_took_something_up_and_left_needs_it_no_more() {
    let mut lab = lab();
    lab.call(1, Vec::new());
    publish(&mut lab, "one", span(1, 0, 1)).expect("published");
    take_up(&mut lab, 1, "one", 1);
    other(&mut lab, FromClient::Call { seq: 2, spec: spec("g"), args: args(1, vec![hole(Source::Same(theirs(1).key(0)))]) });
    unpublish(&mut lab, "one");
    lab.release(1, 0, 1);
    assert_eq!(lab.scheduler.entries.len(), 2);
    other(&mut lab, FromClient::Bye);
    assert!(lab.scheduler.entries.is_empty());
}

#[test]
fn failures_losses_and_returns_are_told_to_whoever_took_up() {
    let mut lab = lab();
    lab.call(1, Vec::new());
    lab.call(2, Vec::new());
    publish(&mut lab, "stored", span(1, 0, 1)).expect("published");
    publish(&mut lab, "fails", span(2, 0, 1)).expect("published");
    take_up(&mut lab, 1, "stored", 1);
    take_up(&mut lab, 2, "fails", 1);
    for (worker, assignment) in lab.assigned() {
        lab.start(worker, assignment.run);
        if assignment.entry.seq == 1 { lab.finish_stored(worker, assignment.run) } else { lab.fail(worker, assignment.run) }
    }
    let told = told_other(&mut lab);
    assert!(
        matches!(&told[..], [ToClient::Stored { seq: 1, index: 0, places, .. }, ToClient::Failed { seq: 2, .. }] if places.is_empty())
    );
    assert_eq!(lab.scheduler.origin(theirs(1).key(0)), key(1, 0), "workers know it by that name");
    lab.event(Event::ClientLost { client: OTHER });
    lab.event(Event::ClientReturned { client: OTHER });
    assert_eq!(told_other(&mut lab), told);
    lab.leave(1);
    assert!(told_other(&mut lab).contains(&ToClient::Lost { seq: 1, index: 0 }));
    leave(&mut lab);
    lab.join(2, 1);
    lab.finish_all(|_| std::time::Duration::from_millis(1));
    assert!(told_other(&mut lab).contains(&done(1, 0, 1)), "computed again though its client has left");
}

#[test]
fn names_are_checked() {
    let mut lab = lab();
    lab.map(1, 2);
    publish(&mut lab, "taken", span(1, 0, 1)).expect("published");
    let long = "n".repeat(257);
    for (name, span, expected) in [
        ("", span(1, 0, 1), PublishError::Name { bytes: 256 }),
        (long.as_str(), span(1, 0, 1), PublishError::Name { bytes: 256 }),
        ("a\nb", span(1, 0, 1), PublishError::Name { bytes: 256 }),
        ("taken", span(1, 1, 1), PublishError::Taken { name: "taken".into() }),
        ("more", span(1, 1, 2), PublishError::Released { name: "more".into() }),
    ] {
        assert_eq!(publish(&mut lab, name, span), Err(expected), "{name}");
    }
    let type_error = PublishError::Type { name: "taken".into(), published: "i64".into(), asked: "f64".into() };
    assert_eq!(look_up(&mut lab, "taken", "f64"), Err(type_error));
    let unknown = PublishError::Unknown { name: "other".into(), names: vec!["taken".into()], more: 0 };
    assert_eq!(look_up(&mut lab, "other", "i64"), Err(unknown));
    take_up(&mut lab, 1, "other", 1);
    let cancelled = ToClient::Cancelled { span: Span { entry: theirs(1), first: 0, count: 1 } };
    assert_eq!(told_other(&mut lab), [cancelled], "it was there when it was looked up");
    for number in 2..=1024 {
        publish(&mut lab, &number.to_string(), span(1, 0, 1)).expect("published");
    }
    assert_eq!(publish(&mut lab, "1025", span(1, 0, 1)), Err(PublishError::TooMany { limit: 1024 }));
    unpublish(&mut lab, "1000");
    publish(&mut lab, "1025", span(1, 0, 1)).expect("there is room again");
    unpublish(&mut lab, "1001");
    lab.release(1, 1, 1);
    assert_eq!(publish(&mut lab, "1000", span(1, 1, 1)), Err(PublishError::Released { name: "1000".into() }));
}

#[test]
fn nobody_takes_up_without_end() {
    let mut lab = Lab::new();
    lab.client(FromClient::Data { seq: 0, len: 1, hash: Hash([1; 32]), bytes: Some("x".into()) });
    publish(&mut lab, "one", span(0, 0, 1)).expect("published");
    // Without the check of everything after each event, which would take its time.
    let mut actions = Vec::new();
    for seq in 1..=1 + (1 << 16) {
        let message = FromClient::TakeUp { seq, name: "one".into(), kind: "i64".into(), count: 1 };
        lab.scheduler.handle(lab.now, Event::FromClient(CLIENT, message), &mut actions);
    }
    assert!(actions.contains(&Action::DisconnectClient(CLIENT)));
    assert!(lab.scheduler.entries.is_empty(), "a client's links to itself keep nothing");
}

#[test]
fn data_that_is_not_uploaded_goes_with_its_client() {
    let mut lab = lab();
    lab.client(FromClient::Data { seq: 1, len: 100_000, hash: Hash([1; 32]), bytes: None });
    lab.call(2, vec![same(1, 0)]);
    publish(&mut lab, "never", span(2, 0, 1)).expect("published");
    take_up(&mut lab, 1, "never", 1);
    leave(&mut lab);
    let told = told_other(&mut lab);
    assert!(
        matches!(&told[..], [ToClient::Failed { seq: 1, error, .. }] if error.message.contains("left before it was uploaded"))
    );
}

#[test]
fn a_revoked_clients_names_are_taken_back() {
    let mut lab = lab();
    lab.call(1, Vec::new());
    lab.call(2, Vec::new());
    publish(&mut lab, "bad", span(1, 0, 1)).expect("published");
    lab.client(FromClient::Detach { span: span(2, 0, 1) });
    lab.event(Event::ClientRevoked { client: CLIENT });
    assert!(lab.scheduler.entries.is_empty() && lab.take().contains(&Action::ForgetClient(CLIENT)));
}
