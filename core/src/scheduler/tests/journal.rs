//! Random plays in which the scheduler is started again from what its journal has by then, which may be less than was said. What must
//! hold: nothing contradicts what clients were told, everything comes to its end, nothing is lost that was not a worker's alone, and
//! when all is released the journal is empty.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    lab::{self, Lab, args, entry, key, outcome, same, span, spec, values},
    model::SMALL_SHARE,
    play::{Play, Step, Told},
};
use crate::{
    codec::Hole,
    ids::{ClientId, EntryId, Hash, Key},
    scheduler::{Action, Config, Event, Fact, Record, Row, Scheduler, Standing, facts::Part},
    wire::{FromClient, FromWorker, ToClient, ToWorker},
};

/// An event, as far as a restart could undo it.
#[derive(Debug, Default)]
struct Happening {
    said: Option<(ClientId, FromClient)>,
    records: Vec<Record>,
    /// Items that a client was told of, and what it had been told before.
    told: Vec<(Key, Option<Told>)>,
}

/// A journal, and what happened that it does not have yet.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) config: Config,
    image: BTreeMap<Row, Fact>,
    records: u64,
    recent: VecDeque<Happening>,
    starts: u32,
    /// Items of which clients were told what was forgotten then.
    retold: BTreeSet<Key>,
}

/// What a journal does with a record.
pub(super) fn apply(image: &mut BTreeMap<Row, Fact>, record: Record) {
    match record {
        Record::Put(fact) => drop(image.insert(fact.row(), fact)),
        Record::Drop(rows) => {
            let gone: Vec<_> = image.range(rows).map(|(&row, _)| row).collect();
            gone.iter().for_each(|row| drop(image.remove(row)));
        }
        Record::DropErrors(span) => {
            let within = image.range(Row::errors(&span)).filter(|(_, fact)| fact.is_error_within(&span));
            let gone: Vec<_> = within.map(|(&row, _)| row).collect();
            gone.iter().for_each(|row| drop(image.remove(row)));
        }
    }
}

impl Kept {
    pub(super) fn new(config: Config) -> Self {
        Self { config, image: BTreeMap::new(), records: 0, recent: VecDeque::new(), starts: 1, retold: BTreeSet::new() }
    }

    pub(super) fn begin(&mut self, event: &Event) {
        let said = if let Event::FromClient(client, message) = event { Some((*client, message.clone())) } else { None };
        if self.config.journal {
            self.recent.push_back(Happening { said, ..Happening::default() });
        }
    }

    pub(super) fn record(&mut self, records: Vec<Record>) {
        assert!(self.config.journal && !records.is_empty());
        let now = self.recent.back_mut().expect("within an event");
        assert!(now.records.is_empty(), "an event is recorded at once");
        now.records = records;
    }

    /// Notes that a client was told something of an item; whether that is news to it.
    pub(super) fn note_told(&mut self, key: Key, before: Option<&Told>) -> bool {
        if let Some(now) = self.recent.back_mut() {
            now.told.push((key, before.cloned()));
        }
        before.is_none() || !self.retold.contains(&key)
    }

    /// Whether a client was told of an item what was forgotten then: it may hear it again, also that it was lost.
    pub(super) fn was_retold(&self, key: &Key) -> bool {
        self.retold.contains(key)
    }

    pub(super) fn check_empty(&self, clients: usize) {
        assert_eq!(self.image.len(), if self.config.journal { clients } else { 0 }, "{:?}", self.image);
    }

    /// A scheduler from what is kept, and what happened since.
    fn restore(&mut self) -> (Scheduler, VecDeque<Happening>) {
        self.starts += 1;
        self.records = 0;
        let facts = self.image.values().map(|fact| {
            let mut bytes = Vec::new();
            fact.encode_into(&mut bytes).expect("encodes");
            Fact::decode(&bytes).expect("decodes")
        });
        let scheduler = Scheduler::restore(self.config.clone(), self.starts, facts).expect("it was a scheduler's");
        scheduler.check();
        (scheduler, std::mem::take(&mut self.recent))
    }
}

impl Play {
    /// The journal has so many more events.
    pub(super) fn make_durable(&mut self, events: usize) {
        let events = events.min(self.kept.recent.len());
        if events == 0 {
            return;
        }
        for happening in self.kept.recent.drain(..events) {
            self.kept.records += happening.records.len() as u64;
            happening.records.into_iter().for_each(|record| apply(&mut self.kept.image, record));
        }
        self.event(Event::Recorded { records: self.kept.records });
    }

    /// The scheduler is killed and started again. So many workers do not come back, and so many only after clients have spoken. What
    /// was not recorded was also not heard if `unheard`.
    fn restart(&mut self, dead: usize, late: usize, unheard: bool) {
        let is_whole = self.kept.recent.iter().all(|happening| happening.records.is_empty());
        let (scheduler, lost) = self.kept.restore();
        if is_whole {
            assert_alike(&self.scheduler, &scheduler);
        }
        // Times start again with the process.
        self.now = Duration::ZERO;
        self.scheduler = scheduler;
        for (key, before) in lost.iter().rev().flat_map(|happening| happening.told.iter().rev()) {
            match self.clients.get_mut(&key.entry.client) {
                Some(client) if unheard => drop(match before.clone() {
                    Some(before) => client.told.insert(*key, before),
                    None => client.told.remove(key),
                }),
                _ => drop(self.kept.retold.insert(*key)),
            }
        }
        // A client whose arrival was forgotten is not let in as what it was; one whose farewell was does not come.
        let known: Vec<_> = self.scheduler.clients.iter().filter(|(_, client)| !client.has_left).map(|(&id, _)| id).collect();
        self.clients.retain(|client, _| known.contains(client));
        // Nobody hears anything until it is back. Those that were cut off before come later.
        let back: Vec<_> = self.clients.iter().filter(|(_, client)| !client.is_cut).map(|(&id, _)| id).collect();
        self.clients.values_mut().for_each(|client| client.is_cut = true);
        for client in known.into_iter().filter(|client| !self.clients.contains_key(client)).collect::<Vec<_>>() {
            self.event(Event::ClientLeft { client });
        }
        let workers: Vec<_> = std::mem::take(&mut self.workers).into_values().collect();
        self.graph.deaths |= workers.iter().any(|worker| worker.draining);
        self.away.extend(workers.into_iter().filter(|worker| !worker.draining));
        if dead > 0 && !self.away.is_empty() {
            self.graph.deaths = true;
            self.away.truncate(self.away.len().saturating_sub(dead));
        }
        while self.away.len() > late {
            self.worker_returns(0);
        }
        for (key, bytes) in self.held.clone() {
            self.event(Event::Held { key, len: bytes.len() as u64, hash: Hash::of(&bytes) });
        }
        back.iter().for_each(|&client| self.hears_again(client));
        // What was not taken in comes again, in the order in which it was said.
        let mut unheard = BTreeMap::<_, Vec<_>>::new();
        for (client, message) in lost.into_iter().filter_map(|happening| happening.said) {
            let Some(fake) = self.clients.get_mut(&client) else { continue };
            if let FromClient::TakeUp { seq, name, .. } = &message
                && (fake.is_cut || !self.scheduler.names.contains_key(name))
            {
                // Whoever published it is gone with that, or it may be taken back before this is said.
                fake.links.remove(seq);
            }
            match fake.is_cut {
                true => unheard.entry(client).or_default().push(message),
                false => self.event(Event::FromClient(client, message)),
            }
        }
        for (client, messages) in unheard {
            self.clients.get_mut(&client).expect("here").backlog.splice(0..0, messages);
        }
        back.iter().for_each(|&client| self.offers_again(client));
        let names = &self.scheduler.names;
        self.names.retain(|name, _| names.contains_key(name));
        while !self.away.is_empty() && late > 0 {
            self.worker_returns(0);
        }
        while self.clients.len() < 2 {
            self.client_joins();
        }
    }
}

/// Whether two schedulers have the same clients, entries, and items that stand alike.
fn assert_alike(old: &Scheduler, new: &Scheduler) {
    assert!(old.clients().eq(new.clients()));
    let ids = |scheduler: &Scheduler| scheduler.entries.iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(old), ids(new));
    for (id, old_entry) in old.entries.iter() {
        let new_entry = new.entries.get(&id).expect("here");
        let facts = |entry: &crate::scheduler::entry::Entry| {
            (entry.kind.clone(), entry.arrival, entry.open, entry.is_abandoned, entry.is_cancelled, entry.items.len())
        };
        assert_eq!(facts(old_entry), facts(new_entry));
        assert_eq!(*old_entry.rare.errors, *new_entry.rare.errors);
        assert_eq!(
            old_entry.args.iter().map(|chunk| chunk.cost()).sum::<u64>(),
            new_entry.args.iter().map(|chunk| chunk.cost()).sum()
        );
        for item in 0..old_entry.items.len() {
            let stands = |entry: &crate::scheduler::entry::Entry| {
                let standing = entry.items.state(item).map(Standing::of);
                let value = entry.values.get(item).filter(|_| standing == Some(Standing::Inline));
                let stored = entry.rare.stored.get(&item).map(|replicas| (replicas.len, replicas.hash));
                let history = entry.rare.oddities.get(&item).map(|oddity| (oddity.attempts, oddity.deaths.clone()));
                let history = history.filter(|(attempts, deaths)| *attempts > 0 || !deaths.is_empty());
                let sharing = entry.rare.sharing.as_ref();
                let sharing = sharing.map(|sharing| (sharing.released.contains(item), sharing.detached.contains(item)));
                (standing, entry.items.is_wanted(item), value, stored, history, sharing)
            };
            assert_eq!(stands(old_entry), stands(new_entry), "{:?}", id.key(item));
        }
    }
    for (id, client) in &old.clients {
        assert_eq!(client.held, new.clients[id].held);
        let links = |scheduler: &Scheduler| {
            let links = scheduler.clients[id].links.iter();
            links.map(|(&seq, link)| (seq, link.entry, link.items.clone())).collect::<Vec<_>>()
        };
        assert_eq!(links(old), links(new));
    }
    assert_eq!(format!("{:?}", old.names), format!("{:?}", new.names));
}

/// With restarts between the steps; `peaceful` ones lose no worker.
fn play(client_bytes: u64, steps: &[Step], peaceful: bool) {
    let mut play = Play::new(client_bytes, true);
    for &(what, a, b) in steps {
        match b % 31 {
            0 => play.restart(if peaceful { 0 } else { a as usize % 3 }, b as usize / 31 % 3, b / 93 % 2 == 0),
            1 => {
                play.make_durable(usize::MAX);
                play.restart(0, b as usize / 31 % 3, false);
            }
            2..=8 => play.make_durable(a as usize % 16),
            _ if peaceful && [18, 20].contains(&(what % 32)) => {}
            _ => play.step((what, a, b)),
        }
    }
    play.finish();
    play.compare();
    play.compare_links();
    play.release_all();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_restart_changes_no_outcome(steps in proptest::collection::vec(any::<Step>(), 1..150)) {
        play(1 << 30, &steps, false);
    }

    #[test]
    fn arguments_that_were_let_go_stay_so(steps in proptest::collection::vec(any::<Step>(), 1..150)) {
        play(SMALL_SHARE, &steps, false);
    }

    /// When all workers come back, nothing is lost that any of them had, whatever was not recorded yet.
    #[test]
    fn a_restart_alone_loses_nothing(steps in proptest::collection::vec(any::<Step>(), 1..150)) {
        play(1 << 30, &steps, true);
    }

    #[test]
    fn a_restart_alone_loses_nothing_that_is_shared(steps in much_sharing()) {
        play(1 << 30, &steps, true);
    }
}

/// Steps of which many scatter, publish, take up, cannot fetch and restart, which are rare otherwise.
fn much_sharing() -> impl Strategy<Value = Vec<Step>> {
    let what = prop::sample::select(vec![
        0_u8, 4, 6, 10, 11, 11, 12, 13, 14, 15, 15, 16, 17, 19, 21, 22, 22, 26, 26, 26, 26, 26, 27, 27,
    ]);
    let how = (any::<u32>(), 0_u32..6).prop_map(|(b, kind)| match kind {
        0 | 1 => b,
        2 => b / 4 * 4 + 1,
        3 => b / 4 * 4 + 3,
        4 => b / 31 * 31,
        _ => b % 256,
    });
    proptest::collection::vec((what, any::<u32>(), how), 1..60)
}

/// Plays that found something, at their shortest.
#[test]
fn plays_that_failed() {
    // Data was uploaded again to a worker that was about to read that it may forget it.
    let upload_overtakes: [Step; 15] = [
        (0, 1_872_135_791, 1_530_417),
        (32, 3_204_560_869, 5_285_168),
        (96, 2_010_086_075, 15_500_567),
        (96, 23_050_825, 1_903_359_089),
        (36, 3_823_251_107, 4_101_582_729),
        (0, 2_058_005_303, 1_231_002_728),
        (67, 969_111_595, 2_067_103_304),
        (5, 2_534_920_963, 2_083_853_917),
        (139, 2_227_205_431, 1_453_122_439),
        (99, 358_974_721, 3_315_067_613),
        (241, 248_746_319, 3_854_573_757),
        (239, 3_890_411_731, 3_397_860_518),
        (78, 2_654_054_916, 1_803_898_215),
        (71, 3_301_725_817, 3_000_912_856),
        (154, 2_686_051_426, 112_024_548),
    ];
    play(1 << 30, &upload_overtakes, true);
}

#[test]
fn no_two_entries_share_a_place_in_the_order_of_arrival() {
    let mut lab = Lab::with(Config { journal: true, ..Config::default() });
    (1..=3).for_each(|seq| lab.call(seq, Vec::new()));
    let mut image = BTreeMap::new();
    lab.take().into_iter().filter_map(records).flatten().for_each(|record| apply(&mut image, record));
    let restored = |arrival: u64| {
        let mut image = image.clone();
        let Some(Fact::Entry(head)) = image.get_mut(&Row::of(entry(2), Part::Entry, 0)) else { panic!("{image:?}") };
        head.arrival = arrival;
        Scheduler::restore(Config::default(), 2, image.into_values())
    };
    [1, 3].into_iter().for_each(|arrival| restored(arrival).expect("as it was, or last").check());
    assert!([0, 2, u64::MAX].into_iter().all(|arrival| restored(arrival).is_err()));
}

/// Facts that somebody has changed are refused, or make a scheduler that keeps every invariant.
fn restore_changed(steps: &[Step], changes: &[(u32, u32, u8)]) -> bool {
    let mut play = Play::new(1 << 30, true);
    steps.iter().for_each(|&step| play.step(step));
    play.make_durable(usize::MAX);
    let encoded = play.kept.image.values().map(|fact| {
        let mut bytes = Vec::new();
        fact.encode_into(&mut bytes).expect("encodes");
        bytes
    });
    let mut encoded: Vec<_> = encoded.collect();
    for &(which, at, byte) in changes {
        let (which, other) = (which as usize % encoded.len(), at as usize % encoded.len());
        match (byte % 8, encoded[which].len()) {
            (_, 0) => {}
            (0, _) => drop(std::mem::take(&mut encoded[which])),
            (1, _) => encoded.swap(which, other),
            (2, len) => encoded[which].truncate(at as usize % len),
            (_, len) => encoded[which][at as usize % len] ^= 1 << (byte % 8),
        }
    }
    let facts = encoded.iter().filter_map(|bytes| Fact::decode(bytes).ok());
    let Ok(mut scheduler) = Scheduler::restore(play.kept.config.clone(), 2, facts) else { return false };
    scheduler.check();
    let mut actions = Vec::new();
    scheduler.handle(Duration::from_secs(3600), Event::Tick, &mut actions);
    scheduler.check();
    true
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn changed_facts_do_no_harm(
        steps in proptest::collection::vec(any::<Step>(), 1..60),
        changes in proptest::collection::vec(any::<(u32, u32, u8)>(), 1..4),
    ) {
        restore_changed(&steps, &changes);
    }

    #[test]
    fn any_bytes_are_a_fact_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(fact) = Fact::decode(&bytes) {
            drop(Scheduler::restore(Config::default(), 1, [fact]));
        }
    }
}

#[test]
fn values_stay_until_it_is_recorded_that_nobody_needs_them() {
    let mut lab = Lab::with(Config { journal: true, ..Config::default() });
    lab.join(1, 1);
    lab.call(1, Vec::new());
    let (_, assignment) = lab.assignment();
    lab.finish_stored(1, assignment.run);
    lab.call(2, vec![same(1, 0)]);
    let (_, assignment) = lab.assignment();
    lab.finish(1, &assignment);
    let recorded = |lab: &mut Lab| lab.take().into_iter().filter_map(records).flatten().count() as u64;
    let before = recorded(&mut lab);
    lab.release(1, 0, 1);
    let freed = |(_, message): &(u64, ToWorker)| matches!(message, ToWorker::Free { .. });
    assert!(!lab.ordered().iter().any(freed), "a scheduler of before would want it");
    let after = recorded(&mut lab);
    assert!(after > 0);
    lab.event(Event::Recorded { records: before });
    assert!(!lab.ordered().iter().any(freed), "not yet");
    lab.event(Event::Recorded { records: u64::MAX - 1 });
    assert_eq!(lab.ordered().iter().filter(|message| freed(message)).count(), 1);
}

/// Records go with batches, not with items.
#[test]
fn a_map_of_many_items_takes_few_records() {
    let mut lab = Lab::with(Config { journal: true, ..Config::default() });
    lab.join(1, 1);
    let (mut image, mut count, mut batches) = (BTreeMap::new(), 0, 0);
    let items = FromClient::Items { seq: 1, args: args(8192, Vec::new()) };
    let mut said = VecDeque::from([FromClient::Map { seq: 1, spec: spec("f") }]);
    said.extend(std::iter::repeat_n(items, 100));
    said.extend([FromClient::Close { seq: 1 }]);
    while let Some(message) = said.pop_front() {
        let mut events = VecDeque::from([Event::FromClient(lab::CLIENT, message)]);
        while let Some(event) = events.pop_front() {
            // Without the checks, which walk over all items.
            lab.scheduler.handle(lab.now, event, &mut lab.actions);
            for action in lab.take() {
                match action {
                    Action::Record(records) => {
                        count += records.len();
                        records.into_iter().for_each(|record| apply(&mut image, record));
                    }
                    Action::ToWorker(worker, ToWorker::Assign(assignment)) => {
                        batches += 1;
                        let items = assignment.args.count();
                        let (outcome, elapsed) = (outcome(0, values(items)), Duration::from_nanos(200) * items);
                        events
                            .push_back(Event::FromWorker(worker, FromWorker::Finished { run: assignment.run, outcome, elapsed }));
                    }
                    _ => {}
                }
            }
        }
    }
    assert_eq!(lab.scheduler.status().counts.memory, 819_200);
    assert!(count < 8 * (batches + 100) && count < 8192, "{count} records for {batches} batches");
    // A batch's values are apart where a chunk of items ends, and each chunk has a fact of its own.
    assert!(image.len() < batches + 2 * 819_200 / 4096 + 10, "{} facts for {batches} batches", image.len());
    lab.scheduler.handle(
        lab.now,
        Event::FromClient(lab::CLIENT, FromClient::Release { span: span(1, 0, 819_200) }),
        &mut lab.actions,
    );
    lab.take().into_iter().filter_map(records).flatten().for_each(|record| apply(&mut image, record));
    assert_eq!(image.len(), 1, "only the client is left");
}

fn records(action: Action) -> Option<Vec<Record>> {
    if let Action::Record(records) = action { Some(records) } else { None }
}

/// What is away is waited for, and computed again when it does not come.
#[test]
fn values_that_do_not_come_back_are_computed_again() {
    let mut lab = Lab::with(Config { journal: true, ..Config::default() });
    lab.join(1, 1);
    for seq in 1..=2 {
        lab.call(seq, Vec::new());
        let (_, assignment) = lab.assignment();
        lab.finish_stored(1, assignment.run);
    }
    lab.call(3, vec![same(1, 0), Hole { field: 1, ..same(2, 0) }]);
    let old_run = lab.assignment().1.run;
    let mut image = BTreeMap::new();
    lab.take().into_iter().filter_map(records).flatten().for_each(|record| apply(&mut image, record));
    let config = Config { journal: true, lease: Duration::MAX, ahead: 0, ..Config::default() };
    let patience = config.workers_return;
    lab.scheduler = Scheduler::restore(config, 2, image.into_values()).expect("restored");
    lab.join(2, 2);
    assert!(lab.assigned().is_empty(), "nothing is sent after values that are away");
    lab.worker(2, FromWorker::Holds { key: key(1, 0), len: 100_000, hash: Hash([1; 32]) });
    assert!(lab.assigned().is_empty(), "one is still away");
    assert!(lab.told().iter().any(|message| matches!(message, ToClient::Stored { seq: 1, .. })));
    lab.now = patience;
    lab.event(Event::Tick);
    assert!(lab.told().contains(&ToClient::Lost { seq: 2, index: 0 }));
    let (_, again) = lab.assigned().into_iter().find(|(_, assignment)| assignment.entry == entry(2)).expect("computed again");
    assert!(again.run > old_run);
    lab.worker(2, FromWorker::Finished { run: old_run, outcome: outcome(0, values(1)), elapsed: Duration::ZERO });
    lab.finish_stored(2, again.run);
    let (_, last) = lab.assigned().into_iter().find(|(_, assignment)| assignment.entry == entry(3)).expect("ready at last");
    lab.finish(2, &last);
    assert!(lab.told().iter().any(|message| matches!(message, ToClient::Done { seq: 3, .. })));
}

#[test]
fn clients_that_do_not_come_back_are_gone() {
    let mut lab = Lab::with(Config { journal: true, ..Config::default() });
    lab.call(1, Vec::new());
    let mut image = BTreeMap::new();
    lab.take().into_iter().filter_map(records).flatten().for_each(|record| apply(&mut image, record));
    let config = Config { journal: true, ..Config::default() };
    let patience = config.clients_return;
    for returns in [false, true] {
        lab.scheduler = Scheduler::restore(config.clone(), 2, image.values().cloned()).expect("restored");
        lab.now = Duration::ZERO;
        if returns {
            lab.event(Event::ClientReturned { client: lab::CLIENT });
        }
        lab.now = patience;
        lab.event(Event::Tick);
        assert_eq!(lab.scheduler.entries.len(), usize::from(returns));
    }
}

/// A client says again what a restart forgot, and may have its data uploaded to the worker that had it: no word of before may take it away.
#[test]
fn data_stays_where_it_is_uploaded_again() {
    let data = |lab: &mut Lab| lab.client(FromClient::Data { seq: 1, len: 9, hash: Hash([1; 32]), bytes: None });
    let holds = |lab: &mut Lab, worker| lab.worker(worker, FromWorker::Holds { key: key(1, 0), len: 9, hash: Hash([1; 32]) });
    let frees = |lab: &mut Lab| {
        lab.event(Event::Recorded { records: u64::MAX - 1 });
        let told = lab.ordered().into_iter().filter(|(_, message)| matches!(message, ToWorker::Free { .. }));
        told.map(|(worker, _)| worker).collect::<Vec<_>>()
    };
    let config = Config { journal: true, data_copies: 1, ..Config::default() };
    for (taker, says, freed) in [(2, true, vec![]), (3, true, vec![2]), (2, false, vec![2])] {
        let mut lab = Lab::with(config.clone());
        let mut image = BTreeMap::new();
        lab.take().into_iter().filter_map(records).flatten().for_each(|record| apply(&mut image, record));
        lab.join(1, 1);
        data(&mut lab);
        holds(&mut lab, 1);
        lab.take();
        // None of this was recorded.
        lab.scheduler = Scheduler::restore(config.clone(), 2, image.into_values()).expect("restored");
        lab.rejoin(2, 1, 1, 1);
        holds(&mut lab, 2);
        lab.worker(2, FromWorker::Registered);
        assert_eq!(frees(&mut lab), [], "its client may say it again");
        lab.event(Event::ClientReturned { client: lab::CLIENT });
        match says {
            false => lab.event(Event::ClientLeft { client: lab::CLIENT }),
            true => {
                data(&mut lab);
                assert_eq!(frees(&mut lab), [], "it may be on its way there");
                if taker == 3 {
                    lab.join(3, 1);
                }
                holds(&mut lab, taker);
                assert!(lab.told().iter().any(|message| matches!(message, ToClient::Stored { seq: 1, .. })));
            }
        }
        assert_eq!(frees(&mut lab), freed);
    }
}

/// What nobody expected of a worker stays while that worker has something to do that reads the value, which is elsewhere too by then: it may
/// have got that copy before it is told to forget one.
#[test]
fn values_that_are_read_are_not_freed_there() {
    let config = Config { journal: true, data_copies: 1, ..Config::default() };
    let mut lab = Lab::with(config.clone());
    let mut image = BTreeMap::new();
    lab.take().into_iter().filter_map(records).flatten().for_each(|record| apply(&mut image, record));
    lab.scheduler = Scheduler::restore(config, 2, image.into_values()).expect("restored");
    let holds = FromWorker::Holds { key: key(1, 0), len: 9, hash: Hash([1; 32]) };
    lab.rejoin(2, 1, 1, 1);
    lab.worker(2, holds.clone());
    lab.worker(2, FromWorker::Registered);
    lab.event(Event::ClientReturned { client: lab::CLIENT });
    lab.client(FromClient::Data { seq: 1, len: 9, hash: Hash([1; 32]), bytes: None });
    lab.client(FromClient::UploadFailed { seq: 1 });
    lab.event(Event::Held { key: key(1, 0), len: 9, hash: Hash([1; 32]) });
    lab.call(2, vec![same(1, 0)]);
    let (_, assignment) = lab.assignment();
    let freed = |(_, message): &(u64, ToWorker)| matches!(message, ToWorker::Free { .. });
    lab.event(Event::Recorded { records: 1 << 32 });
    assert!(!lab.ordered().iter().any(freed), "it reads it");
    lab.finish(2, &assignment);
    lab.event(Event::Recorded { records: 1 << 33 });
    assert!(lab.ordered().iter().any(freed), "nobody knows of it");
}

#[test]
fn rows_sort_as_their_names_do() {
    let row = |client, seq, part, first| Row::of(EntryId { client: ClientId(client), seq }, part, first);
    let rows = [
        row(1, 0, Part::Client, 0),
        row(1, 0, Part::Entry, 0),
        row(1, 0, Part::Args, u64::MAX),
        row(1, 300, Part::Entry, 0),
        row(1, 300, Part::Values, 255),
        row(1, 300, Part::Values, 256),
        row(256, 0, Part::Client, 0),
    ];
    assert!(rows.is_sorted() && rows.map(Row::to_bytes).is_sorted());
}
