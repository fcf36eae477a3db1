//! The bookkeeping by itself: messages in, and what it knows then.

use super::*;
use crate::codec::RunBuilder;

fn run(values: &[&[u8]]) -> Run {
    let mut builder = RunBuilder::default();
    for value in values {
        builder.push(value).expect("short");
    }
    builder.take()
}

fn receive(book: &mut Bookkeeping, message: ToClient) -> Vec<Touched> {
    let mut touched = Vec::new();
    book.receive(message, &mut touched);
    touched
}

#[test]
fn blocks_arrive_in_any_order() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let seq = book.open(4);
    receive(&mut book, ToClient::Done { seq, first: 2, values: run(&[b"c", b"d"]) });
    assert!(matches!(book.look(seq, 0), Known::Pending));
    receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a", b"b"]) });
    assert!(matches!(book.look(seq, 3), Known::Value(value) if value == "d"));
    assert_eq!(book.resolved(seq), 4);
    assert_eq!(book.block_at(seq, 1).map(|run| run.count()), Some(1));
}

#[test]
fn a_second_report_is_not_believed() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let seq = book.open(2);
    receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a"]) });
    let span = book.span(seq, 0..2);
    receive(&mut book, ToClient::Cancelled { span });
    receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"x", b"y"]) });
    assert!(matches!(book.look(seq, 0), Known::Value(value) if value == "a"));
    assert!(matches!(book.look(seq, 1), Known::Failed(Error::Cancelled { .. })));
    assert_eq!(book.resolved(seq), 2);
}

#[test]
fn what_is_reported_again_fills_the_gaps() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let seq = book.open(8);
    let stored = |index| ToClient::Stored { seq, index, len: 1, hash: Hash([0; 32]), places: Vec::new() };
    receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a"]) });
    receive(&mut book, ToClient::Done { seq, first: 3, values: run(&[b"d"]) });
    receive(&mut book, stored(5));
    receive(&mut book, stored(7));
    assert!(book.begin_fetch(seq, 7).is_some());
    // The connection broke, one value was computed again, and all is said again.
    receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"A", b"b", b"c", b"D", b"e", b"f"]) });
    receive(&mut book, stored(7));
    assert!(book.begin_fetch(seq, 7).is_none(), "it is being fetched");
    let known = (0..6).map(|index| match book.look(seq, index) {
        Known::Value(value) => value,
        other => panic!("{index}: {other:?}"),
    });
    assert_eq!(known.collect::<Vec<_>>(), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(book.resolved(seq), 7);
}

#[test]
fn what_was_forgotten_is_not_taken_again() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let seq = book.open(3);
    receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a", b"b"]) });
    book.forget_before(seq, 2);
    let error = crate::TaskError::new(crate::TaskErrorKind::Returned, "f", book.id(seq).key(0), "no");
    receive(&mut book, ToClient::Failed { seq, index: 0, error });
    receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a", b"b", b"c"]) });
    assert!(matches!((book.look(seq, 1), book.look(seq, 2)), (Known::Pending, Known::Value(value)) if value == "c"));
    assert_eq!(book.resolved(seq), 3);
}

#[test]
fn unanswered_queries_are_repeated() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let (query, asked) = book.ask(|query| FromClient::Count { query, spans: Vec::new() });
    assert_eq!(book.repeat(), [asked]);
    let counts = |waiting| ToClient::Counts { query, counts: StateCounts { waiting, ..StateCounts::default() } };
    receive(&mut book, counts(1));
    receive(&mut book, counts(2));
    assert_eq!(book.repeat(), []);
    assert!(matches!(book.take_answer(query), Some(Answer::Counts(StateCounts { waiting: 1, .. }))));
    receive(&mut book, counts(3));
    assert!(book.take_answer(query).is_none());
}

#[test]
fn a_lost_value_is_pending_again() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let seq = book.open(1);
    let stored = ToClient::Stored { seq, index: 0, len: 9, hash: Hash([0; 32]), places: Vec::new() };
    receive(&mut book, stored.clone());
    assert!(book.begin_fetch(seq, 0).is_some());
    assert!(book.begin_fetch(seq, 0).is_none(), "fetched once");
    book.fetched(book.id(seq).key(0), None);
    assert_eq!(book.resolved(seq), 0);
    receive(&mut book, stored);
    receive(&mut book, ToClient::Lost { seq, index: 0 });
    assert!(matches!(book.look(seq, 0), Known::Pending));
}

#[test]
fn a_stored_value_that_is_gone_for_good_is_an_error() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let seq = book.open(1);
    receive(&mut book, ToClient::Stored { seq, index: 0, len: 9, hash: Hash([0; 32]), places: Vec::new() });
    let error = crate::TaskError::new(crate::TaskErrorKind::DataLost, "f", book.id(seq).key(0), "gone");
    receive(&mut book, ToClient::Failed { seq, index: 0, error });
    assert!(matches!(book.look(seq, 0), Known::Failed(Error::Task(_))));
    assert_eq!(book.resolved(seq), 1);
}

#[test]
fn forgotten_entries_and_strangers_are_ignored() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let seq = book.open(1);
    let huge = Span { entry: book.id(seq), first: 0, count: u64::MAX };
    receive(&mut book, ToClient::Cancelled { span: huge });
    assert_eq!(book.resolved(seq), 1);
    assert_eq!(book.forget(seq), Some(1));
    assert!(receive(&mut book, ToClient::Done { seq, first: 0, values: run(&[b"a"]) }).is_empty());
    assert!(matches!(book.look(seq, 0), Known::Failed(Error::Closed)));
}

#[test]
fn data_that_is_let_go_early_is_still_uploaded() {
    let mut book = Bookkeeping::new(ClientId(1), 0);
    let upload = |seq| ToClient::Upload { seq, route: Vec::new() };
    let seq = book.open(1);
    book.keep_data(seq, Bytes::from_static(b"data").into(), Hash([1; 32]));
    book.forget(seq);
    for _ in 0..2 {
        assert_eq!(book.repeat(), [FromClient::Offer { seq }]);
        assert!(
            matches!(&receive(&mut book, upload(seq))[..], [Touched::Upload { data, .. }] if data.clone().into_bytes() == "data")
        );
    }
    receive(&mut book, ToClient::Taken { seq });
    assert_eq!(book.repeat(), []);
    assert!(matches!(&receive(&mut book, upload(seq))[..], [Touched::Gone(_)]), "it is not kept for ever");
}

#[test]
fn small_data_leaves_room_for_calls() {
    let mut book = Bookkeeping::new(ClientId(1), u64::MAX);
    let most = INLINE_DATA - ENTRY_COST;
    assert!(book.take_inline(most));
    let seq = book.open_inline(most);
    assert!(!book.take_inline(0) && book.take_credit(1));
    book.forget(seq);
    assert!(book.take_inline(1));
}

#[test]
fn credit_is_spent_and_returned() {
    let mut book = Bookkeeping::new(ClientId(1), 10);
    assert!(book.take_credit(7));
    assert!(!book.take_credit(4));
    receive(&mut book, ToClient::Credit { total: 11 });
    assert!(book.take_credit(4));
    receive(&mut book, ToClient::Credit { total: 11 });
    receive(&mut book, ToClient::Credit { total: 10 });
    assert!(!book.take_credit(1), "what was said before counts once");
}

#[test]
fn what_costs_more_than_there_can_be_waits_for_all_of_it() {
    let mut book = Bookkeeping::new(ClientId(1), 10);
    assert!(book.take_credit(1));
    assert!(!book.take_credit(25));
    receive(&mut book, ToClient::Credit { total: 11 });
    assert!(book.take_credit(25));
    receive(&mut book, ToClient::Credit { total: 20 });
    assert!(!book.take_credit(1), "it is overdrawn");
    receive(&mut book, ToClient::Credit { total: 36 });
    assert!(book.take_credit(10) && !book.take_credit(1));
}
