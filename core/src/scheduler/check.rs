//! Every invariant, asserted. Must not know: how they are kept.
//!
//! | state | arguments | value | run | misses |
//! | --- | --- | --- | --- | --- |
//! | waiting | kept | | | some |
//! | resting | kept | | | any |
//! | queued | kept | | | none |
//! | processing | kept | | one | some only if ahead, or if an input was lost meanwhile |
//! | inline | gone | here | | |
//! | stored | kept | on workers or in the shell | | |
//! | final | gone | on workers or in the shell | | |
//! | away | kept | on workers that are away | | |
//! | final, away | gone | on workers that are away | | |
//! | dormant | kept | gone | | |
//! | uploading | | on its way | | |
//! | failed, cancelled | gone | an error, if failed | | |
//! | released | gone | gone | | |

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Scheduler,
    clients::Client,
    entry::{Entry, Kind, queue_key},
    fleet::{Run, Worker},
    items::{STATES, State},
    lifecycle::Need,
    register::spans_of,
    shapes::PLAIN,
};
use crate::{
    codec::{Source, Span},
    ids::{EntryId, WorkerId},
};

impl Scheduler {
    /// Asserts every invariant. Walks over everything: for tests, after each event.
    ///
    /// # Panics
    /// When an invariant does not hold: a defect of the scheduler, whatever its peers did.
    pub fn check(&self) {
        assert!(
            self.todo.is_empty()
                && self.frees.is_empty()
                && self.assigned.is_empty()
                && self.waiting.is_empty()
                && self.unranked.is_none()
                && self.out.is_empty(),
            "work is left over"
        );
        self.check_shapes();
        let mut held = BTreeMap::new();
        for (id, entry) in self.entries.iter() {
            *held.entry(id.client).or_insert(0) += self.check_entry(id, entry);
        }
        for (id, client) in &self.clients {
            assert_eq!(client.held, held.remove(id).unwrap_or(0), "bytes held for client {id}");
            assert_eq!(client.granted + client.owed, self.config.credit + client.sent, "credit of client {id}");
            assert!(client.away_until.is_none_or(|until| self.away.contains(&(until, *id))), "client {id} is away for ever");
        }
        assert!(held.is_empty(), "entries of clients that are gone");
        assert!(self.entries.clients().all(|id| self.clients.contains_key(&id)), "tables of clients that are gone");
        let is_away = |id| self.clients.get(id).is_some_and(|client| client.away_until.is_some());
        assert!(self.away.iter().all(|(_, id)| is_away(id)), "clients are away that are not");
        self.check_sharing();
        self.check_edges();
        self.check_runs();
        self.check_workers();
    }

    /// An item is wanted by its client or somebody else, and both sides of every sharing know each other.
    fn check_sharing(&self) {
        let mut names = BTreeMap::<_, u32>::new();
        for (name, known) in &self.names {
            let sharing = self.entries.get(&known.entry).and_then(|entry| entry.rare.sharing.as_ref());
            assert_eq!(sharing.and_then(|sharing| sharing.names.get(name)), Some(&known.items), "`{name}` stands for nothing");
            *names.entry(known.entry.client).or_default() += 1;
        }
        for (&client, Client { links, names: count, has_left, .. }) in &self.clients {
            assert_eq!(*count, names.remove(&client).unwrap_or(0), "names of client {client}");
            assert!(!has_left || links.is_empty(), "client {client} has left and keeps what it took up");
            for (&seq, link) in links {
                let sharing = self.entries.get(&link.entry).and_then(|entry| entry.rare.sharing.as_ref());
                assert_eq!(
                    sharing.and_then(|sharing| sharing.takers.get(&(client, seq))),
                    Some(&link.items),
                    "link {seq} of {client}"
                );
            }
            assert!(!has_left || self.entries.has_any(client), "client {client} has left and nothing is left");
        }
        for (id, entry) in self.entries.iter() {
            let has_left = self.clients.get(&id.client).is_some_and(|client| client.has_left);
            let Some(sharing) = &entry.rare.sharing else {
                let wanted = entry.items.segments(0..entry.items.len()).any(|segment| segment.wanted);
                assert!(!has_left || !wanted, "{id:?} is wanted by a client that has left");
                continue;
            };
            assert!(sharing.names.keys().all(|name| self.names.contains_key(name)), "{id:?} has names that stand for nothing");
            for (client, seq) in sharing.takers.keys() {
                assert!(self.clients.get(client).is_some_and(|client| client.links.contains_key(seq)), "{id:?} was let go");
            }
            for segment in entry.items.segments(0..entry.items.len()) {
                for item in segment.range() {
                    let by_client = !sharing.released.contains(item);
                    assert!(!has_left || !by_client, "{:?} is wanted by a client that has left", id.key(item));
                    let wanted = by_client || sharing.wants(item, segment.state);
                    assert_eq!(segment.wanted, wanted, "{:?} {:?}: wanted?", id.key(item), segment.state);
                }
            }
        }
    }

    fn check_shapes(&self) {
        let (mut of_shapes, mut of_clients) = (BTreeMap::new(), BTreeMap::<_, BTreeMap<_, u64>>::new());
        for (id, entry) in self.entries.iter() {
            let (count, ready) = of_shapes.entry(entry.shape).or_insert((0, BTreeSet::new()));
            *count += 1;
            if !entry.ready.is_empty() {
                ready.insert(queue_key(id, entry));
            }
            if entry.shape != PLAIN {
                *of_clients.entry(id.client).or_default().entry(entry.shape).or_default() += 1;
            }
        }
        let workers = self.fleet.workers.iter().filter(|(_, worker)| !worker.draining);
        self.shapes.check(&of_shapes, &workers.map(|(&id, worker)| (id, &worker.offer)).collect::<Vec<_>>());
        for (id, client) in &self.clients {
            assert_eq!(client.shapes, of_clients.remove(id).unwrap_or_default(), "shapes of client {id}");
        }
        // Whoever is stuck, or has not been looked at, has no worker that could take it.
        for (shape, _) in self.shapes.iter().filter(|(_, shape)| shape.is_ready()) {
            let idle = self.fleet.workers.iter().find(|(id, worker)| {
                worker.has_room() && worker.wants_any(self.config.pipeline) && self.can_run(**id, shape, true)
            });
            assert!(idle.is_none(), "items of shape {shape} are ready, a worker can run them, and they are not brought together");
        }
    }

    /// Gives what is kept of the entry at its client's cost.
    fn check_entry(&self, id: EntryId, entry: &Entry) -> u64 {
        assert!(!entry.is_over(), "{id:?} is over and still here");
        let len = entry.items.len();
        let (mut made, mut counts) = (0, [0_u64; STATES.len()]);
        for segment in entry.items.segments(0..len) {
            counts[segment.state as usize] += segment.count();
            for item in segment.range() {
                let key = id.key(item);
                let state = segment.state;
                assert_eq!(entry.ready.contains(item), state == State::Queued, "{key} {state:?}: in the queue?");
                assert_eq!(
                    entry.rare.stored.contains_key(&item),
                    state.is_stored() || state.is_away(),
                    "{key} {state:?}: stored?"
                );
                let rest = entry.rare.resting.get(&item).filter(|until| self.rests.contains(&(**until, key)));
                assert_eq!(rest.is_some(), state == State::Resting, "{key} {state:?}: rests?");
                assert_eq!(entry.rare.errors.contains_key(&item), state == State::Failed, "{key} {state:?}: error?");
                assert_eq!(entry.values.get(item).is_some() && state == State::Inline, state == State::Inline, "{key}: value?");
                made += u64::from(state == State::Inline);
                assert_eq!(entry.run_of(item).is_some(), state == State::Processing, "{key} {state:?}: in a run?");
                if state.is_active() {
                    self.check_missing(id, entry, item, state);
                }
                if state.is_holding() && entry.spec().is_some() {
                    assert!(entry.chunk_of(item).is_some_and(|chunk| chunk.holding > 0), "{key} {state:?}: arguments?");
                }
                if !segment.wanted && state != State::Released {
                    let need = self.needs(id, item..item + 1)[0].1;
                    let over = matches!(state, State::Failed | State::Cancelled);
                    let kept =
                        need == Need::Value || need == Need::Lineage && (over || matches!(state, State::Dormant | State::Inline));
                    let irretrievable = matches!(entry.kind, Kind::Data(_)) || matches!(state, State::Final | State::FinalAway);
                    let data = irretrievable && need == Need::Lineage;
                    assert!(kept || data || (need == Need::Lineage && state.is_pending()), "{key} {state:?} is kept for nothing");
                }
                if state == State::Dormant {
                    assert!(!segment.wanted, "{key} is wanted and dormant");
                }
            }
        }
        let lineage = self.clients.get(&id.client).is_some_and(|client| client.lineage.contains(&id.seq));
        let recomputable = entry.spec().is_some() && entry.items.count(State::Stored) > 0;
        assert!(lineage || !recomputable, "{id:?} has arguments that could go");
        assert_eq!(entry.values.live(), made, "{id:?}: values");
        for (state, count) in counts.into_iter().enumerate() {
            assert_eq!(count, entry.items.state_number(state), "{id:?}: count of state {state}");
        }
        for chunk in entry.args.iter() {
            let segments = entry.items.segments(chunk.range());
            let holding: u64 = segments.filter(|segment| segment.state.is_holding()).map(|segment| segment.count()).sum();
            assert_eq!(holding, chunk.holding, "{id:?}: arguments from {}", chunk.first);
            assert_eq!(chunk.cost() == 0, holding == 0, "{id:?}: arguments kept for nothing");
        }
        let taker = entry.rare.taker;
        assert!(taker.is_none() || entry.items.count(State::Uploading) > 0, "{id:?} is uploaded, and its taker is known");
        let known = |worker| self.fleet.workers.get(&worker).is_some_and(|worker| worker.uploads.contains(&id));
        assert!(taker.is_none_or(known), "{id:?} is on its way to a worker that does not know");
        for item in entry.rare.oddities.keys().copied().chain(entry.rare.suspects.iter().flatten()) {
            let state = entry.items.state(item);
            assert!(
                state.is_some_and(|state| state.is_active() || state.is_stored() || state.is_away()),
                "{:?} is odd and settled",
                id.key(item)
            );
        }
        entry.held()
    }

    fn check_missing(&self, id: EntryId, entry: &Entry, item: u64, state: State) {
        let Some(chunk) = entry.chunk_of(item) else { panic!("{:?} has no arguments", id.key(item)) };
        let at = item - chunk.first;
        let mut missing = 0;
        for hole in chunk.holes {
            let first = u64::from(hole.first);
            if at < first || at >= first + u64::from(hole.count) {
                continue;
            }
            for span in spans_of(&hole.source, at - first..at - first + 1) {
                let made = |key: Span| {
                    let entry = self.entries.get(&key.entry);
                    entry.map_or(0, |entry| {
                        let segments = entry.items.segments(key.first..key.first + key.count);
                        let here = segments.filter(|segment| segment.state.is_made()).map(|segment| segment.count());
                        here.sum::<u64>()
                    })
                };
                missing += span.count - made(span);
            }
        }
        let key = id.key(item);
        assert_eq!(u64::from(entry.items.missing(item)), missing, "{key} {state:?}: missing values");
        match state {
            State::Queued => assert_eq!(missing, 0, "{key} is queued and misses values"),
            State::Waiting => assert_ne!(missing, 0, "{key} waits for nothing"),
            _ => {}
        }
    }

    fn check_edges(&self) {
        let mut named = BTreeSet::new();
        for (id, entry) in self.entries.iter() {
            for chunk in entry.args.iter() {
                for &(hole, edge_id) in chunk.edges {
                    assert!(named.insert(edge_id), "edge {edge_id} has two holes");
                    let Some(edge) = self.edges.get(edge_id) else { panic!("edge {edge_id} of {id:?} does not exist") };
                    let hole = &chunk.holes[hole as usize];
                    let start = chunk.first + u64::from(hole.first);
                    assert_eq!((edge.consumer, edge.consumers.clone()), (id, start..start + u64::from(hole.count)));
                    assert_eq!(edge.each, matches!(hole.source, Source::Each { .. }));
                    let count = |is: fn(State) -> bool| -> u64 {
                        let segments = entry.items.segments(edge.consumers.clone());
                        segments.filter(|segment| is(segment.state)).map(|segment| segment.count()).sum()
                    };
                    assert_eq!(u64::from(edge.holding), count(State::is_holding), "edge {edge_id}: holding");
                    assert_eq!(u64::from(edge.active), count(State::is_active), "edge {edge_id}: active");
                    if let Some(producer) = self.entries.get(&edge.producer) {
                        let found = producer.edges.of(edge.producers.clone(), &self.edges).any(|(id, _)| id == edge_id);
                        assert!(found, "edge {edge_id} is not found on {:?}", edge.producer);
                    }
                }
            }
        }
        assert!(self.edges.iter().all(|(id, _)| named.contains(&id)), "edges without holes");
    }

    fn check_runs(&self) {
        for (&id, run) in &self.runs {
            assert!(run.done < run.count, "run {id} is over");
            assert!(
                self.fleet.workers.get(&run.worker).is_some_and(|worker| worker.runs.contains(&id)),
                "run {id} is not its worker's"
            );
            if let Some(entry) = self.entries.get(&run.entry) {
                let first = run.first + u64::from(run.done);
                assert_eq!(entry.runs.before(first), Some((first, id)), "run {id} is not its entry's");
            }
            if run.ahead
                && let Some(entry) = self.entries.get(&run.entry)
                && entry.items.state(run.first) == Some(State::Processing)
            {
                assert_ne!(entry.items.missing(run.first), 0, "run {id} is ahead of nothing");
            }
        }
        for (id, entry) in self.entries.iter() {
            let mut end = 0;
            for (first, run_id) in entry.runs.iter() {
                let Some(run) = self.runs.get(&run_id) else { panic!("{id:?} has run {run_id}, which does not exist") };
                assert!(run.entry == id && first >= end, "runs of {id:?} overlap at {first}");
                end = run.first + u64::from(run.count);
            }
        }
        let divisible = self.runs.iter().filter(|(_, run)| run.is_divisible()).count() as u64;
        assert_eq!(self.fleet.divisible, divisible, "runs that could be asked for a part of them");
        assert!(self.recalled.iter().all(|id| self.runs.contains_key(id)), "recalled runs that are over");
    }

    /// What a worker has is never promised twice.
    fn check_resources(&self, id: WorkerId, worker: &Worker, runs: &[&Run]) {
        let mut taken = BTreeMap::<_, u64>::new();
        for run in runs {
            for (name, amount) in run.takes.iter().flat_map(|takes| takes.resources()) {
                *taken.entry(name).or_default() += amount;
            }
            if let Some(entry) = self.entries.get(&run.entry)
                && let Some(spec) = entry.spec()
            {
                let requires = &spec.options.requires;
                assert!(worker.offer.has(requires), "worker {id} has a run that asks for {requires}");
                assert_eq!(run.takes.is_some(), requires.resources().len() > 0, "a run that asks for {requires} takes nothing");
            }
        }
        for (name, amount) in &taken {
            assert!(*amount <= worker.offer.total(name), "worker {id}: {amount} of {name} are taken");
        }
        assert_eq!(worker.offer.taken().collect::<BTreeMap<_, _>>(), taken, "worker {id}: resources");
    }

    fn check_workers(&self) {
        let fleet = &self.fleet;
        let (mut slots, mut spare, mut crowded, mut eager) = (0, 0, 0, 0);
        for (&id, worker) in &fleet.workers {
            let runs: Vec<_> = worker.runs.iter().filter_map(|run| self.runs.get(run)).collect();
            assert_eq!(runs.len(), worker.runs.len(), "worker {id} has runs that are over");
            assert_eq!(worker.ahead, runs.iter().filter(|run| run.ahead).count() as u64, "worker {id}: ahead");
            assert_eq!(worker.suspects as usize, runs.iter().filter(|run| run.suspect).count(), "worker {id}: suspects");
            assert!(worker.suspects <= 1, "worker {id} runs two suspects");
            let load: u64 = runs.iter().filter(|run| !run.ahead).map(|run| run.nanos()).sum();
            assert_eq!(worker.load_nanos, load, "worker {id}: load");
            self.check_resources(id, worker, &runs);
            for key in &worker.holds {
                let replicas = self.entries.get(&key.entry).and_then(|entry| entry.rare.stored.get(&key.index));
                assert!(replicas.is_some_and(|replicas| replicas.workers.contains(&id)), "worker {id} holds {key} in vain");
            }
            for upload in &worker.uploads {
                let is_coming = self.entries.get(upload).is_some_and(|entry| entry.rare.taker == Some(id));
                assert!(is_coming, "worker {id} waits for {upload:?} in vain");
            }
            slots += if worker.draining { 0 } else { worker.slots() };
            assert!(!worker.takes_work() || worker.leave_by.is_none(), "worker {id} stays and is to leave");
            assert_eq!(fleet.draining.contains(&id), worker.draining, "worker {id}: draining");
            for key in &worker.handing {
                let coming =
                    self.entries.get(&key.entry).and_then(|entry| entry.rare.stored.get(&key.index)).map(|all| &all.coming);
                assert!(worker.draining && worker.holds.contains(key), "worker {id} hands over {key}, which it does not have");
                assert!(coming.is_some_and(|coming| !coming.is_empty()), "worker {id} waits for nobody to take {key}");
            }
            for key in &worker.copies {
                let coming =
                    self.entries.get(&key.entry).and_then(|entry| entry.rare.stored.get(&key.index)).map(|all| &all.coming);
                assert!(coming.is_some_and(|coming| coming.contains(&id)), "worker {id} gets {key} for nobody");
            }
            let is_eligible = worker.takes_work() && !worker.load.pressed;
            let idle = worker.slots().checked_sub(worker.active()).filter(|idle| is_eligible && *idle > 0);
            assert_eq!(worker.spare_slots(), idle, "worker {id}: spare");
            spare += u64::from(idle.is_some());
            let surplus = worker.active().checked_sub(worker.slots()).filter(|surplus| is_eligible && *surplus > 0);
            assert_eq!(worker.surplus(), surplus, "worker {id}: crowded");
            crowded += u64::from(surplus.is_some());
            eager += u64::from(is_eligible && worker.wants_any(self.config.pipeline));
        }
        let counts = (fleet.slots, fleet.spare, fleet.crowded, fleet.eager);
        assert_eq!((slots, spare, crowded, eager), counts, "slots; spare, crowded and eager workers");
        let is_stored =
            |key: &crate::ids::Key| self.entries.get(&key.entry).is_some_and(|entry| entry.rare.stored.contains_key(&key.index));
        for (process, key) in self.absences.iter() {
            let replicas = self.entries.get(&key.entry).and_then(|entry| entry.rare.stored.get(&key.index));
            assert!(replicas.is_some_and(|replicas| replicas.away.contains(&process)), "{key} is awaited in vain");
        }
        assert!(self.thin.iter().all(is_stored), "values that are gone have too few copies");
        let rests: usize = self.entries.iter().map(|(_, entry)| entry.rare.resting.len()).sum();
        assert_eq!(rests, self.rests.len(), "rests");
        let mut free: Vec<_> = fleet.workers.iter().filter_map(|(&id, worker)| Some((worker.room()?, id))).collect();
        free.sort_unstable();
        assert!(fleet.free.in_order().eq(free.iter().map(|(_, id)| *id)), "the order of those with room");
        for (id, entry) in self.entries.iter() {
            for (&item, replicas) in entry.rare.stored.iter() {
                let key = id.key(item);
                let is_here = replicas.held || !replicas.workers.is_empty();
                assert!(is_here || !replicas.away.is_empty(), "{key} is stored nowhere");
                assert_eq!(is_here, entry.items.state(item).is_some_and(State::is_stored), "{key} is away?");
                assert!(replicas.away.iter().all(|&process| self.absences.is_awaited(process, key)), "{key} is not awaited");
                let gets = |id| fleet.workers.get(id).is_some_and(|worker: &Worker| worker.copies.contains(&key));
                assert!(replicas.coming.iter().all(gets), "{key} comes to nobody");
                for worker in &replicas.workers {
                    let holds = fleet.workers.get(worker).is_some_and(|worker| worker.holds.contains(&id.key(item)));
                    assert!(holds, "worker {worker} does not hold {}", id.key(item));
                }
            }
        }
    }
}
