//! Examples: failures, retries, deaths, poison, and peers that break the protocol.

use std::time::Duration;

use bytes::Bytes;

use super::lab::{CLIENT, Lab, args, entry, hole, key, same, span, spec, values};
use crate::{
    TaskErrorKind,
    codec::{Args, Run, Source, Span},
    ids::{ClientId, EntryId, RunId, WorkerId},
    scheduler::{Action, Config, Departure, Event},
    wire::{FromClient, FromWorker, Outcome, ToClient, ToWorker},
};

#[test]
fn dependents_fail_with_the_first_cause() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    for seq in 2..=20_000 {
        lab.client(FromClient::Call { seq, spec: spec("f"), args: args(1, vec![same(seq - 1, 0)]) });
        if seq > 300 {
            // Checking a long chain after each link takes too long.
            for seq in seq + 1..=20_000 {
                let call = FromClient::Call { seq, spec: spec("f"), args: args(1, vec![same(seq - 1, 0)]) };
                lab.scheduler.handle(lab.now, Event::FromClient(CLIENT, call), &mut lab.actions);
            }
            break;
        }
    }
    let (_, first) = lab.assigned().remove(0);
    lab.fail(1, first.run);
    let told = lab.told();
    assert_eq!(told.len(), 20_000);
    for message in told {
        let ToClient::Failed { error, .. } = message else { panic!("{message:?}") };
        assert_eq!((error.key, error.kind, &*error.task), (key(1, 0), TaskErrorKind::Panicked, "f"));
    }
}

#[test]
fn failures_are_retried_as_often_as_asked() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    let mut spec = spec("f");
    spec.make_mut().options.retries = 2;
    lab.client(FromClient::Call { seq: 1, spec, args: args(1, Vec::new()) });
    for pause_ms in [50, 100] {
        let (_, assignment) = lab.assignment();
        lab.fail(1, assignment.run);
        assert!(lab.told().is_empty());
        assert_eq!(lab.why(1)[0].0, 1, "it rests");
        lab.wait_with(Duration::from_millis(pause_ms - 1), &[1]);
        assert!(lab.assigned().is_empty(), "not yet");
        lab.wait_with(Duration::from_millis(1), &[1]);
    }
    let (_, assignment) = lab.assignment();
    lab.fail(1, assignment.run);
    let told = lab.told();
    assert!(matches!(&told[..], [ToClient::Failed { error, .. }] if error.attempts == 3), "{told:?}");
    lab.release(1, 0, 1);
    assert!(lab.is_empty());
}

#[test]
fn what_ran_on_a_dead_worker_runs_alone_elsewhere() {
    let mut lab = Lab::with(Config { pipeline: 1, ..Config::default() });
    lab.join(1, 1);
    lab.map(1, 100);
    let (_, one) = lab.assignment();
    let outcome = super::lab::outcome(0, values(1));
    lab.worker(1, FromWorker::Finished { run: one.run, outcome, elapsed: Duration::from_micros(200) });
    let (_, batch) = lab.assigned().remove(0);
    assert!(batch.args.count() > 4);
    lab.start(1, batch.run);
    lab.finish_part(1, batch.run, 0, 2);
    lab.leave(1);
    lab.join(2, 4);
    let suspects = u64::from(batch.args.count()) - 2;
    let sent: Vec<_> = lab.assigned().into_iter().filter(|(worker, _)| *worker == 2).collect();
    let alone = sent.iter().filter(|(_, assignment)| assignment.first < batch.first + 2 + suspects).collect::<Vec<_>>();
    assert_eq!(alone.len(), 1, "one suspect at a time on a worker");
    assert_eq!((alone[0].1.first, alone[0].1.args.count()), (batch.first + 2, 1));
    assert!(sent.len() > 1, "others run beside it");
}

#[test]
fn poison_is_found_by_deaths_alone() {
    let mut lab = Lab::with(Config { pipeline: 1, ..Config::default() });
    lab.call(1, Vec::new());
    for worker in 1..=3 {
        lab.join(worker, 1);
        let (_, assignment) = lab.assignment();
        lab.start(worker, assignment.run);
        lab.leave(worker);
    }
    let told = lab.told();
    let [ToClient::Failed { error, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(error.kind, TaskErrorKind::Poisonous { deaths: 3 });
    let history = "it ran alone on w1 (its process died), then on w2 (its process died), then on w3 (its process died)";
    assert_eq!(error.message, history);
}

#[test]
fn a_revoked_workers_work_goes_elsewhere_at_once_and_is_not_blamed() {
    let mut lab = Lab::with(Config { max_deaths: 1, ..Config::default() });
    lab.call(1, Vec::new());
    lab.join(1, 1);
    let (_, assignment) = lab.assignment();
    lab.start(1, assignment.run);
    lab.join(2, 1);
    lab.event(Event::WorkerRevoked { worker: WorkerId(1) });
    let actions = lab.take();
    let told = |action: &Action| matches!(action, Action::ToWorker(WorkerId(1), ToWorker::Refused { reason }) if reason.contains("revoked"));
    assert!(actions.iter().any(told), "{actions:?}");
    assert!(actions.contains(&Action::DisconnectWorker(WorkerId(1))));
    let elsewhere = |action: &Action| matches!(action, Action::ToWorker(WorkerId(2), ToWorker::Assign(_)));
    assert!(actions.iter().any(elsewhere), "{actions:?}");
    lab.event(Event::WorkerRevoked { worker: WorkerId(1) });
    lab.leave(1);
}

#[test]
fn drains_cut_offs_and_what_had_not_started_never_count() {
    let mut lab = Lab::with(Config { pipeline: 1, max_deaths: 1, ..Config::default() });
    lab.call(1, Vec::new());
    lab.join(1, 1);
    let (_, assignment) = lab.assignment();
    lab.leave(1);
    lab.join(2, 1);
    let (_, again) = lab.assignment();
    assert!(again.run > assignment.run);
    lab.start(2, again.run);
    lab.wait(Duration::from_secs(1));
    assert!(lab.take().contains(&Action::DisconnectWorker(WorkerId(2))), "its lease is over");
    lab.rejoin(22, 2, 1, 0);
    let (_, again) = lab.assignment();
    lab.start(22, again.run);
    lab.depart(22, Departure::Left);
    lab.join(3, 1);
    let (_, again) = lab.assignment();
    lab.start(3, again.run);
    lab.worker(3, FromWorker::Draining);
    lab.leave(3);
    lab.join(4, 1);
    let (_, again) = lab.assignment();
    lab.finish(4, &again);
    assert_eq!(lab.told(), [ToClient::Done { seq: 1, first: 0, values: values(1) }]);
}

#[test]
fn a_draining_worker_gets_nothing_more() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.worker(1, FromWorker::Draining);
    lab.call(1, Vec::new());
    assert!(lab.assigned().is_empty());
    lab.join(2, 1);
    assert_eq!(lab.assignment().0, 2);
}

#[test]
fn silence_is_measured_from_the_last_word() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    for _ in 0..5 {
        lab.wait(Duration::from_millis(900));
        lab.worker(1, FromWorker::Heartbeat(Default::default()));
    }
    assert_eq!(lab.scheduler.status().workers.len(), 1);
    assert!(lab.scheduler.next_deadline().is_some_and(|deadline| deadline > lab.now));
}

/// Each is refused, alone.
#[test]
fn clients_that_break_the_protocol_are_refused() {
    let call = |seq, args| FromClient::Call { seq, spec: spec("f"), args };
    let other = EntryId { client: ClientId(2), seq: 1 };
    let same_of = |key| hole(Source::Same(key));
    let mut overlong = args(1, vec![hole(Source::Same(key(1, 0)))]);
    overlong.holes[0].count = 9;
    let offences = [
        ("ascend", call(1, args(1, Vec::new()))),
        ("one item", call(2, args(2, Vec::new()))),
        ("earlier entry", call(2, args(1, vec![same_of(other.key(0))]))),
        ("earlier entry", call(2, args(1, vec![same(2, 0)]))),
        ("earlier entry", call(2, args(1, vec![same(77, 0)]))),
        ("contradict", call(2, args(1, vec![same_of(key(1, u64::MAX))]))),
        ("contradict", call(2, args(1, vec![hole(Source::List(vec![span(1, 5, u64::MAX)]))]))),
        ("contradict", call(2, overlong)),
        ("more than", call(2, args(1, vec![hole(Source::List(vec![span(1, 0, 1 << 40)]))]))),
        ("not an open map", FromClient::Items { seq: 1, args: args(1, Vec::new()) }),
        ("not an open map", FromClient::Close { seq: 1 }),
        ("never made", FromClient::Close { seq: 9 }),
        ("never made", FromClient::Unreachable { seq: 9, index: 0 }),
        ("never made", FromClient::Release { span: span(9, 0, 1) }),
        ("another", FromClient::Release { span: Span { entry: other, first: 0, count: 1 } }),
        ("another", FromClient::Cancel { span: span(1, 2, u64::MAX) }),
        ("another", FromClient::Count { query: 0, spans: vec![Span { entry: other, first: 0, count: 1 }] }),
        ("bytes long", FromClient::Data { seq: 2, len: 9, hash: crate::ids::Hash([0; 32]), bytes: Some("x".into()) }),
    ];
    for (reason, offence) in offences {
        let mut lab = Lab::new();
        lab.event(Event::ClientJoined {
            client: ClientId(2),
            who: super::lab::identity(101),
            module: crate::ids::Hash([8; 32]),
            passport: crate::scheduler::Passport::default(),
        });
        lab.event(Event::FromClient(ClientId(2), call(1, args(1, Vec::new()))));
        lab.call(1, Vec::new());
        lab.client(offence.clone());
        let actions = lab.take();
        let refused = actions.iter().find_map(|action| match action {
            Action::ToClient(CLIENT, ToClient::Refused { reason }) => Some(reason.clone()),
            _ => None,
        });
        assert!(refused.as_ref().is_some_and(|text| text.contains(reason)), "{offence:?}: {refused:?}");
        assert!(actions.contains(&Action::DisconnectClient(CLIENT)));
        assert_eq!(lab.scheduler.status().clients.len(), 1);
        lab.client(FromClient::Bye);
        lab.join(1, 1);
        let (_, assignment) = lab.assignment();
        assert_eq!(assignment.entry, other, "the others go on");
    }
}

#[test]
fn workers_that_break_the_protocol_are_refused() {
    type Offence = fn(RunId, RunId) -> FromWorker;
    let offences: [(&str, Offence); 6] = [
        ("contradicts", |run, _| finish(run, super::lab::outcome(1, values(1)))),
        ("contradicts", |run, _| finish(run, super::lab::outcome(0, values(0)))),
        ("contradicts", |run, _| finish(run, super::lab::outcome(0, values(2)))),
        ("contradicts", |run, _| finish(run, Outcome { dropped: vec![0, 0], ..super::lab::outcome(0, values(1)) })),
        ("contradicts", |run, _| finish(run, Outcome { dropped: vec![7], ..super::lab::outcome(0, values(1)) })),
        ("another worker", |_, other| FromWorker::Started { run: other }),
    ];
    for (reason, offence) in offences {
        let mut lab = Lab::with(Config { pipeline: 1, ..Config::default() });
        lab.join(1, 1);
        lab.join(2, 1);
        lab.call(1, Vec::new());
        lab.call(2, Vec::new());
        let sent = lab.assigned();
        lab.worker(sent[0].0, offence(sent[0].1.run, sent[1].1.run));
        let actions = lab.take();
        assert!(
            actions
                .iter()
                .any(|action| matches!(action, Action::ToWorker(_, ToWorker::Refused { reason: text }) if text.contains(reason))),
            "{actions:?}"
        );
        assert!(actions.contains(&Action::DisconnectWorker(WorkerId(sent[0].0))));
        lab.finish(sent[1].0, &sent[1].1);
        let (_, again) = lab.assignment();
        assert_eq!(again.entry, entry(1));
        lab.finish(sent[1].0, &again);
        assert_eq!(lab.told().len(), 2);
    }
}

fn finish(run: RunId, outcome: Outcome) -> FromWorker {
    FromWorker::Finished { run, outcome, elapsed: Duration::ZERO }
}

#[test]
fn a_started_run_cannot_be_returned() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    let (_, assignment) = lab.assignment();
    lab.start(1, assignment.run);
    lab.worker(1, FromWorker::Returned { run: assignment.run, missing: Vec::new() });
    assert!(lab.take().contains(&Action::DisconnectWorker(WorkerId(1))));
}

#[test]
fn overdrawn_credit_is_refused() {
    let mut lab = Lab::with(Config { credit: 1000, client_bytes: 0, ..Config::default() });
    let data =
        |seq| FromClient::Data { seq, len: 16 << 20, hash: crate::ids::Hash([0; 32]), bytes: Some(vec![0; 16 << 20].into()) };
    lab.client(data(1));
    assert!(lab.told().is_empty(), "one message may be larger");
    lab.client(data(2));
    assert!(matches!(&lab.told()[..], [ToClient::Refused { .. }]));
}

#[test]
fn a_call_whose_message_would_be_too_long_fails_alone() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    let args = Args { run: Run::single(vec![0; 32 << 20].into()).expect("short"), holes: Vec::new() };
    lab.client(FromClient::Call { seq: 2, spec: spec("f"), args });
    let told = lab.told();
    let [ToClient::Failed { seq: 2, error, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(error.message.contains("scatter what is large"), "{error}");
    lab.call(3, Vec::new());
    assert_eq!(lab.assigned().len(), 1, "the worker goes on");
}

#[test]
fn what_a_leaving_worker_drops_runs_elsewhere() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    let (_, dropped) = lab.assignment();
    let empty = Run::single(Bytes::new()).expect("short");
    let nothing = Outcome { dropped: vec![0], ..super::lab::outcome(0, empty) };
    lab.worker(1, FromWorker::Finished { run: dropped.run, outcome: nothing, elapsed: Duration::ZERO });
    assert!(lab.told().is_empty(), "nobody cancelled it");
    let (_, again) = lab.assignment();
    assert_ne!(again.run, dropped.run);
    lab.finish(1, &again);
    assert!(matches!(&lab.told()[..], [ToClient::Done { first: 0, .. }]));
}

#[test]
fn a_call_that_reads_too_many_small_values_fails_alone() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    let bytes = Bytes::from(vec![0; 60_000]);
    for seq in 1..=600 {
        let hash = crate::ids::Hash::of(&bytes);
        lab.client(FromClient::Data { seq, len: 60_000, hash, bytes: Some(bytes.clone()) });
    }
    let _ = lab.take();
    let list = Source::List((1..=600).map(|seq| Span { entry: entry(seq), first: 0, count: 1 }).collect());
    lab.client(FromClient::Call { seq: 601, spec: spec("sum"), args: args(1, vec![hole(list)]) });
    let told = lab.told();
    let [ToClient::Failed { seq: 601, error, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(error.message.contains("gather them"), "{error}");
}
