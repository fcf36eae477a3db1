//! Examples: workers that do not have what they say, and values that cannot be read.

use super::{
    lab::{CLIENT, Lab, entry, identity, key, same, values},
    play::Play,
};
use crate::{
    TaskErrorKind,
    ids::{ClientId, Hash, Key, WorkerId},
    scheduler::{
        Action, Event,
        unread::{MAX_UNREAD, MAX_UNSERVED},
    },
    wire::{FromClient, FromWorker, ToClient, ToWorker},
};

const HASH: Hash = Hash([1; 32]);
const LEN: u64 = 100_000;

impl Play {
    /// Whether an item's value may be unreadable once more without failing it. Data would be lost at once.
    pub(super) fn may_be_unread(&self, key: Key) -> bool {
        let key = self.scheduler.origin(key);
        let oddity = self.scheduler.entries.get(&key.entry).and_then(|entry| entry.rare.oddities.get(&key.index));
        !self.graph.data.contains_key(&key) && oddity.is_none_or(|oddity| oddity.unread.len() + 1 < MAX_UNREAD)
    }

    /// A worker does not have something that it said it has; the last time, it is sent away.
    pub(super) fn unserved(&mut self, worker: WorkerId, b: u32) {
        let claims = self.scheduler.fleet.workers.get(&worker).expect("here");
        let Some(&key) = claims.holds.iter().nth(b as usize % claims.holds.len().max(1)) else { return };
        let Some((len, hash)) = self.scheduler.measure(key).filter(|_| self.may_be_unread(key)) else { return };
        let is_last = claims.unserved + 1 == MAX_UNSERVED;
        self.graph.deaths |= self.graph.sheds || is_last;
        if is_last {
            self.workers.remove(&worker);
        }
        self.event(Event::Unserved { worker, key, len, hash });
    }
}

impl Lab {
    /// The shell asked a worker for an entry's value, in vain.
    fn unserved(&mut self, worker: u64, seq: u64) {
        self.event(Event::Unserved { worker: WorkerId(worker), key: key(seq, 0), len: LEN, hash: HASH });
    }

    /// The one assignment is answered with a stored result; gives its worker.
    fn store_one(&mut self) -> u64 {
        let (worker, assignment) = self.assignment();
        self.finish_stored(worker, assignment.run);
        worker
    }

    fn is_sent_away(&self, worker: u64) -> bool {
        self.actions.contains(&Action::DisconnectWorker(WorkerId(worker)))
    }
}

#[test]
fn a_worker_that_does_not_serve_what_it_claims_is_sent_away() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    for count in 1..=5 {
        assert_eq!(lab.store_one(), 1);
        lab.take();
        lab.unserved(1, 1);
        assert_eq!(lab.is_sent_away(1), count == 5);
    }
    let reason = lab.ordered().into_iter().find_map(|(_, message)| match message {
        ToWorker::Refused { reason } => Some(reason),
        _ => None,
    });
    assert_eq!(
        reason.as_deref(),
        Some("it claims values that it does not serve, 5 of them so far: it lies, or its memory or disk is damaged")
    );
    lab.join(2, 1);
    let (worker, assignment) = lab.assignment();
    lab.take();
    lab.finish(worker, &assignment);
    assert_eq!((worker, lab.told()), (2, vec![ToClient::Done { seq: 1, first: 0, values: values(1) }]));
}

#[test]
fn a_value_that_is_nowhere_is_computed_again_at_once_and_not_for_ever() {
    let mut lab = Lab::new();
    (1..=3).for_each(|worker| lab.join(worker, 1));
    lab.call(1, Vec::new());
    let mut history = Vec::new();
    for round in 1..=6 {
        let worker = lab.store_one();
        lab.take();
        lab.unserved(worker, 1);
        history.push(format!("w{worker}"));
        // So that the next one is somebody else.
        lab.worker(worker, FromWorker::Draining);
        lab.join(10 * round + worker, 1);
    }
    let told = lab.told();
    let failed = told.iter().find_map(|message| match message {
        ToClient::Failed { seq: 1, index: 0, error } => Some(error),
        _ => None,
    });
    let error = failed.unwrap_or_else(|| panic!("{told:?}"));
    assert_eq!(error.kind, TaskErrorKind::DataLost);
    assert!(error.message.ends_with(&format!("it was on {}", history.join(", then on "))), "{}", error.message);
    assert!(lab.scheduler.runs.is_empty());
    lab.release(1, 0, 1);
    assert!(lab.is_empty());
}

#[test]
fn what_readers_say_costs_no_worker_its_place_and_ends() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    lab.call(2, vec![same(1, 0)]);
    for round in 1..=6 {
        let (_, assignment) = lab.assigned().remove(0);
        assert_eq!(assignment.entry, entry(1));
        lab.finish_stored(1, assignment.run);
        lab.take();
        for _ in 0..3 {
            lab.client(FromClient::Unreachable { seq: 1, index: 0 });
        }
        assert!(!lab.is_sent_away(1));
        let failed = lab.actions.iter().any(|action| matches!(action, Action::ToClient(_, ToClient::Failed { seq: 1, .. })));
        assert_eq!(failed, round == 6);
    }
    let told = lab.told();
    let dependent = |message: &ToClient| matches!(message, ToClient::Failed { seq: 2, error, .. } if error.key == key(1, 0));
    assert!(told.iter().any(dependent), "{told:?}");
}

#[test]
fn a_late_answer_blames_nobody() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    lab.store_one();
    lab.take();
    let (worker, other) = (WorkerId(1), Hash([2; 32]));
    lab.event(Event::Unserved { worker, key: key(1, 0), len: LEN, hash: other });
    lab.event(Event::Unserved { worker: WorkerId(7), key: key(1, 0), len: LEN, hash: HASH });
    assert_eq!(lab.take(), []);
    lab.release(1, 0, 1);
    lab.take();
    (0..10).for_each(|_| lab.unserved(1, 1));
    assert_eq!(lab.take(), []);
}

#[test]
fn a_copy_that_is_not_there_is_no_loss() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    lab.store_one();
    lab.join(2, 1);
    lab.worker(2, FromWorker::Holds { key: key(1, 0), len: LEN, hash: HASH });
    lab.take();
    lab.unserved(1, 1);
    assert_eq!(lab.told(), []);
    assert_eq!(lab.scheduler.locate(key(1, 0)), crate::scheduler::Location::Workers(vec![WorkerId(2)]));
    assert!(lab.assigned().is_empty());
}

#[test]
fn lost_data_says_who_did_not_have_it() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.client(FromClient::Data { seq: 1, len: LEN, hash: HASH, bytes: None });
    lab.worker(1, FromWorker::Holds { key: key(1, 0), len: LEN, hash: HASH });
    lab.take();
    lab.unserved(1, 1);
    let told = lab.told();
    let [ToClient::Failed { error, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(error.message.ends_with("is gone: it was on w1 (does not have it any more)"), "{}", error.message);
}

#[test]
fn who_took_a_result_up_cannot_fail_it_for_others() {
    let mut lab = Lab::new();
    lab.join(1, 1);
    lab.call(1, Vec::new());
    lab.store_one();
    let (name, kind, span) = ("n".to_owned(), String::new(), super::lab::span(1, 0, 1));
    lab.client(FromClient::Publish { query: 1, name: name.clone(), kind: kind.clone(), span });
    let taker = ClientId(2);
    let passport = crate::scheduler::Passport::default();
    lab.event(Event::ClientJoined { client: taker, who: identity(101), module: Hash([7; 32]), passport });
    lab.event(Event::FromClient(taker, FromClient::TakeUp { seq: 1, name, kind, count: 1 }));
    lab.take();
    for _ in 0..5 {
        (0..3).for_each(|_| lab.event(Event::FromClient(taker, FromClient::Unreachable { seq: 1, index: 0 })));
        lab.store_one();
    }
    lab.take();
    (0..3).for_each(|_| lab.event(Event::FromClient(taker, FromClient::Unreachable { seq: 1, index: 0 })));
    let actions = lab.take();
    let failed =
        |to| move |action: &Action| matches!(action, Action::ToClient(client, ToClient::Failed { seq: 1, .. }) if *client == to);
    assert!(actions.iter().any(failed(taker)) && !actions.iter().any(failed(CLIENT)), "{actions:?}");
    assert!(lab.assigned().is_empty(), "it is still there");
}
