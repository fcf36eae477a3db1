//! Clients whose connection breaks, and who return or do not.

use std::time::Duration;

use super::lab::*;
use crate::{
    ids::{Hash, WorkerId},
    scheduler::{Action, Config, Event, Location},
    wire::{ENTRY_COST, FromClient, FromWorker, ITEM_COST, ToClient},
};

const LOST: Event = Event::ClientLost { client: CLIENT };
const RETURNED: Event = Event::ClientReturned { client: CLIENT };

#[test]
fn calls_go_on_while_their_client_is_away_and_it_is_told_when_it_returns() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.map(1, 3);
    lab.call(2, Vec::new());
    lab.call(3, Vec::new());
    lab.call(4, vec![same(3, 0)]);
    lab.call(5, Vec::new());
    lab.client(FromClient::Cancel { span: span(5, 0, 1) });
    lab.event(LOST);
    let mut todo = lab.assigned();
    while let Some((worker, assignment)) = todo.pop() {
        lab.start(worker, assignment.run);
        match assignment.entry.seq {
            2 => lab.finish_stored(worker, assignment.run),
            3 => lab.fail(worker, assignment.run),
            _ => lab.finish(worker, &assignment),
        }
        todo.extend(lab.assigned());
    }
    lab.release(1, 1, 1);
    lab.take();
    lab.event(RETURNED);
    let told = lab.told();
    let done: Vec<_> = told
        .iter()
        .filter_map(|message| match message {
            ToClient::Done { seq: 1, first, values } => Some((*first, values.count())),
            _ => None,
        })
        .collect();
    assert_eq!(done, [(0, 1), (2, 1)], "what is wanted of the map");
    assert!(told.iter().any(|message| matches!(message, ToClient::Stored { seq: 2, index: 0, .. })));
    let failed = |entry: u64| told.iter().any(|message| matches!(message, ToClient::Failed { seq, .. } if *seq == entry));
    assert!(failed(3) && failed(4));
    assert!(told.contains(&ToClient::Cancelled { span: span(5, 0, 1) }));
    assert_eq!(told.len(), 6);
    (1..=5).for_each(|seq| lab.release(seq, 0, 3));
    assert!(lab.is_empty());
}

#[test]
fn one_that_stays_away_has_left() {
    let mut lab = Lab::with(Config { client_lease: Duration::from_secs(10), ..Config::default() });
    lab.join(1, 1);
    lab.map(1, 100);
    lab.event(LOST);
    lab.now += Duration::from_secs(4);
    // A second report of it does not begin a new absence.
    lab.event(LOST);
    lab.now += Duration::from_secs(5);
    lab.event(Event::Tick);
    assert!(lab.scheduler.knows(CLIENT));
    lab.take();
    lab.now += Duration::from_secs(1);
    assert!(lab.scheduler.next_deadline().is_some_and(|deadline| deadline <= lab.now));
    lab.event(Event::Tick);
    assert!(lab.take().contains(&Action::ForgetClient(CLIENT)));
    assert!(!lab.scheduler.knows(CLIENT) && lab.scheduler.entries.is_empty());
    lab.event(RETURNED);
    assert_eq!(lab.take(), [], "it is not known any more");
}

#[test]
fn one_that_returns_in_time_may_stay() {
    let mut lab = Lab::with(Config { client_lease: Duration::from_secs(10), ..Config::default() });
    lab.map(1, 1);
    lab.event(LOST);
    lab.now += Duration::from_secs(9);
    lab.event(RETURNED);
    lab.now += Duration::from_secs(100);
    lab.event(Event::Tick);
    assert!(lab.scheduler.knows(CLIENT));
    lab.event(LOST);
    lab.now += Duration::from_secs(9);
    lab.event(Event::Tick);
    assert!(lab.scheduler.knows(CLIENT), "each absence has its own time");
}

#[test]
fn credit_is_the_same_after_any_number_of_absences() {
    let mut lab = Lab::with(Config { credit: 1000, ..Config::default() });
    let (mut granted, sent) = (1000, ENTRY_COST + 300 * (1 + ITEM_COST));
    for round in 1..=20_u64 {
        lab.map(round, 300);
        lab.event(LOST);
        // Given to nobody.
        lab.now += Duration::from_secs(1);
        lab.event(Event::Tick);
        lab.take();
        lab.event(RETURNED);
        let totals = lab.take().into_iter().filter_map(|action| match action {
            Action::ToClient(_, ToClient::Credit { total }) => Some(total),
            _ => None,
        });
        granted = totals.last().expect("it is told");
        assert_eq!(granted - sent * round, 1000, "what it may send now");
    }
    assert_eq!(granted, 1000 + 20 * sent);
}

#[test]
fn uploads_are_taken_up_again() {
    let mut lab = Lab::new();
    let data = |seq| FromClient::Data { seq, len: 100_000, hash: Hash([1; 32]), bytes: None };
    lab.client(data(1));
    lab.client(data(2));
    lab.client(data(3));
    lab.event(LOST);
    lab.event(Event::Held { key: key(2, 0), len: 100_000, hash: Hash([1; 32]) });
    lab.take();
    lab.event(RETURNED);
    lab.release(3, 0, 1);
    lab.take();
    (1..=3).for_each(|seq| lab.client(FromClient::Offer { seq }));
    let told = lab.told();
    assert_eq!(told, [ToClient::Upload { seq: 1, route: Vec::new() }, ToClient::Taken { seq: 2 }, ToClient::Taken { seq: 3 }]);
    assert_eq!(lab.scheduler.locate(key(2, 0)), Location::Held);
    // A worker that has it already makes the second upload unnecessary.
    lab.join(1, 1);
    lab.worker(1, FromWorker::Holds { key: key(1, 0), len: 100_000, hash: Hash([1; 32]) });
    assert!(lab.told().contains(&ToClient::Taken { seq: 1 }));
    assert_eq!(lab.scheduler.locate(key(1, 0)), Location::Workers(vec![WorkerId(1)]));
}

#[test]
fn an_offer_of_what_never_was_is_refused() {
    let mut lab = Lab::new();
    lab.client(FromClient::Offer { seq: 9 });
    assert!(lab.take().contains(&Action::DisconnectClient(CLIENT)));
}

#[test]
fn a_client_that_returns_is_told_in_portions() {
    let mut lab = Lab::with(Config { report_bytes: 1000, ..Config::default() });
    lab.join(1, 1);
    lab.map(1, 40);
    lab.finish_all(|_| Duration::from_millis(1));
    for seq in 2..=40 {
        lab.call(seq, Vec::new());
        let (worker, assignment) = lab.assignment();
        match seq % 3 {
            0 => lab.finish(worker, &assignment),
            1 => lab.finish_stored(worker, assignment.run),
            _ => lab.fail(worker, assignment.run),
        }
    }
    lab.call(41, Vec::new());
    let (worker, last) = lab.assignment();
    let all: Vec<_> = lab.told();
    lab.event(LOST);
    lab.event(RETURNED);
    let mut again = Vec::new();
    let mut portions = 0;
    while lab.actions.contains(&Action::AwaitRoom(CLIENT)) {
        portions += 1;
        if portions == 3 {
            lab.client(FromClient::Call { seq: 42, spec: spec("f"), args: args(1, Vec::new()) });
            // What is new is told of at once.
            lab.finish(worker, &last);
            assert!(matches!(lab.told().last(), Some(ToClient::Done { seq: 41, .. })));
        } else {
            let told = lab.told();
            assert!(told.len() <= 8, "{told:?}");
            again.extend(told);
        }
        lab.take();
        lab.event(Event::ClientHasRoom { client: CLIENT });
    }
    assert!(portions >= 5, "{portions}");
    again.extend(lab.told());
    let (third, missing): (Vec<_>, Vec<_>) = all.iter().partition(|message| again.contains(message));
    assert!(third.len() > 25 && missing.len() <= 8, "{missing:?}");
    lab.event(Event::ClientHasRoom { client: CLIENT });
    assert_eq!(lab.told(), [], "that was all");

    // An absence begins anew.
    lab.event(LOST);
    lab.event(RETURNED);
    lab.take();
    lab.event(LOST);
    lab.event(Event::ClientHasRoom { client: CLIENT });
    assert_eq!(lab.take(), []);
}

#[test]
fn one_long_map_is_told_in_portions() {
    let mut lab = Lab::with(Config { report_bytes: 1000, ..Config::default() });
    lab.join(1, 1);
    lab.map(1, 5000);
    lab.finish_all(|_| Duration::from_millis(1));
    lab.told();
    lab.event(LOST);
    lab.event(RETURNED);
    let (mut items, mut portions) = (0, 1);
    loop {
        let awaits = lab.actions.contains(&Action::AwaitRoom(CLIENT));
        for message in lab.told() {
            let ToClient::Done { seq: 1, first, values } = message else { panic!("{message:?}") };
            assert_eq!(first, items);
            items += u64::from(values.count());
        }
        if !awaits {
            break;
        }
        lab.take();
        portions += 1;
        lab.event(Event::ClientHasRoom { client: CLIENT });
    }
    assert!(items == 5000 && portions > 2, "{items} items in {portions} portions");
}
