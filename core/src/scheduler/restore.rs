//! A machine from the facts that a journal kept. Must not know: how they were kept.
//!
//! Facts are not believed: what contradicts itself or the rest is an error, and nothing is allocated that the facts do not have bytes
//! for. What a restart ends is begun anew: items that had not ended are to be computed, whoever was computing them; stored values are
//! away until workers come back with them, and clients until they come back.

use thiserror::Error;

use super::{
    Config, Scheduler,
    away::LONGEST_ABSENCE,
    clients::Client,
    draft::Draft,
    entry::Kind,
    facts::{ClientFact, Fact, NameFact},
    items::{Segment, State},
    machine::Todo,
    sharing::{Link, Name},
};
use crate::ids::{ClientId, EntryId};

/// Starts of a scheduler take so many bits of a run's number.
const EPOCH_BITS: u32 = 24;

/// Why no machine can be made of facts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// A fact belongs to no entry or client, or is not in its place.
    #[error("what is kept of {entry:?} is not in order")]
    Stray {
        /// What it is about.
        entry: EntryId,
    },
    /// Facts contradict each other.
    #[error("what is kept of {entry:?} contradicts itself: {what}")]
    Contradiction {
        /// What they are about.
        entry: EntryId,
        /// How.
        what: &'static str,
    },
}

impl Scheduler {
    /// The machine as it was when these were all the facts, in the order of their rows; less workers and what they were doing. `epoch`
    /// counts the starts from the same journal, from 1, so that no run is taken for one of an earlier start.
    ///
    /// # Errors
    /// [`RestoreError`] when the facts are not those of any machine.
    pub fn restore(config: Config, epoch: u32, facts: impl IntoIterator<Item = Fact>) -> Result<Self, RestoreError> {
        let mut scheduler = Self::new(config);
        scheduler.next_run = (u64::from(epoch) << (u64::BITS - EPOCH_BITS)) | 1;
        let mut draft = None::<Draft>;
        for fact in facts {
            let id = fact.entry();
            match fact {
                Fact::Client(fact) => {
                    scheduler.finish(draft.take())?;
                    scheduler.restore_client(fact)?;
                }
                Fact::Entry(head) => {
                    let last = draft.as_ref().map(|draft| draft.head.entry);
                    scheduler.finish(draft.take())?;
                    if last.is_some_and(|last| last >= id) || !scheduler.clients.contains_key(&id.client) {
                        return Err(RestoreError::Stray { entry: id });
                    }
                    draft = Some(Draft::new(head));
                }
                other => match &mut draft {
                    Some(draft) if draft.head.entry == id => draft.add(other),
                    _ => return Err(RestoreError::Stray { entry: id }),
                },
            }
        }
        scheduler.finish(draft)?;
        scheduler.restore_order()?;
        scheduler.restore_sharing()?;
        scheduler.resume();
        Ok(scheduler)
    }

    /// Clients that are expected to come back, and those of which something is still wanted, by number.
    pub fn clients(&self) -> impl Iterator<Item = ClientFact> + '_ {
        self.clients.iter().map(|(&id, client)| client.fact(id))
    }

    fn restore_client(&mut self, fact: ClientFact) -> Result<(), RestoreError> {
        let id = fact.client;
        if self.clients.last_key_value().is_some_and(|(&last, _)| last >= id) {
            return Err(RestoreError::Stray { entry: EntryId { client: id, seq: 0 } });
        }
        self.client_joined(id, fact.who, fact.module, fact.passport);
        if let Some(client) = self.clients.get_mut(&id) {
            (client.last_seq, client.applied, client.has_left) = (fact.last_seq, fact.applied, fact.has_left);
            // Nothing is owed to it: what is held back of its credit, if anything is, it gets a little early.
            (client.sent, client.granted) = (fact.sent, self.config.credit.saturating_add(fact.sent));
            client.is_restored = true;
            if !fact.has_left {
                let until = self.config.clients_return.min(LONGEST_ABSENCE);
                client.away_until = Some(until);
                self.away.insert((until, id));
            }
        }
        Ok(())
    }

    /// Puts an entry in its place.
    fn finish(&mut self, draft: Option<Draft>) -> Result<(), RestoreError> {
        let Some(draft) = draft else { return Ok(()) };
        let id = draft.head.entry;
        let contradiction = |what| RestoreError::Contradiction { entry: id, what };
        if self.newest_entry(id.client).is_none_or(|newest| newest < id.seq) {
            return Err(contradiction("it is later than its client's latest"));
        }
        if let Kind::Call(spec) | Kind::Map(spec) = &draft.head.kind
            && spec.options.requires.fault().is_some()
        {
            return Err(contradiction("its requirements"));
        }
        for (_, args) in &draft.args {
            self.check_args(id, args, true).map_err(|_| contradiction("its arguments"))?;
        }
        let (mut entry, names) = draft.build().map_err(contradiction)?;
        if entry.is_over() {
            return Ok(());
        }
        entry.shape = self.enter_shape(id.client, id.seq, &entry.kind).map_err(|_| contradiction("its requirements"))?;
        for &item in entry.rare.stored.keys() {
            self.absences.await_of_anyone(id.key(item), self.config.workers_return);
        }
        for (&item, oddity) in entry.rare.oddities.iter() {
            for death in &oddity.deaths {
                self.absences.accused.entry(death.process).or_default().push(id.key(item));
            }
        }
        for NameFact { name, kind, first, end } in names {
            if self.names.insert(name, Name { entry: id, items: first..end, kind }).is_some() {
                return Err(contradiction("its names"));
            }
        }
        if let Some(client) = self.clients.get_mut(&id.client) {
            client.held = client.held.saturating_add(entry.held());
            if let Some(sharing) = &entry.rare.sharing {
                client.names += sharing.names.len() as u32;
            }
            if entry.spec().is_some() && entry.items.count(State::Away) + entry.items.count(State::Dormant) > 0 {
                client.lineage.insert(id.seq);
            }
        }
        self.entries.insert(id, Box::new(entry));
        Ok(())
    }

    /// All entries are there: each has a place of its own in the order of arrival, and further ones come after them.
    fn restore_order(&mut self) -> Result<(), RestoreError> {
        let mut arrivals: Vec<_> = self.entries.iter().map(|(id, entry)| (entry.arrival, id)).collect();
        arrivals.sort_unstable();
        let shared = arrivals.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1);
        let last = arrivals.last().copied();
        let beyond = last.filter(|&(arrival, _)| arrival > u64::MAX / 2).map(|(_, id)| id);
        if let Some(entry) = shared.or(beyond) {
            return Err(RestoreError::Contradiction { entry, what: "its place in the order of arrival" });
        }
        self.next_arrival = last.map_or(0, |(arrival, _)| arrival + 1);
        Ok(())
    }

    /// All entries are there: who took something up has it, and nothing is wanted that nobody wants.
    fn restore_sharing(&mut self) -> Result<(), RestoreError> {
        for (id, entry) in self.entries.iter() {
            let contradiction = |what| RestoreError::Contradiction { entry: id, what };
            let has_left = self.clients.get(&id.client).is_some_and(|client| client.has_left);
            let all = || entry.items.segments(entry.items.base()..entry.items.len());
            let Some(sharing) = &entry.rare.sharing else {
                if has_left && all().any(|segment| segment.wanted) {
                    return Err(contradiction("it is wanted by a client that has left"));
                }
                continue;
            };
            for (&(client, seq), items) in &sharing.takers {
                let is_entry = self.entries.contains_key(&EntryId { client, seq });
                let taker = self.clients.get_mut(&client).filter(|client| !client.has_left && client.last_seq >= Some(seq));
                let link = Link { entry: id, items: items.clone(), misses: 0 };
                if is_entry || taker.is_none_or(|taker| taker.links.insert(seq, link).is_some()) {
                    return Err(contradiction("who took it up"));
                }
            }
            for segment in all() {
                let wanted = |item| {
                    let by_client = !sharing.released.contains(item);
                    (by_client && has_left, by_client || sharing.wants(item, segment.state))
                };
                if !segment.range().all(|item| wanted(item) == (false, segment.wanted)) {
                    return Err(contradiction("who wants it"));
                }
            }
        }
        Ok(())
    }

    /// All entries are there: those that read others' values are joined to them, and what is to be computed is begun.
    fn resume(&mut self) {
        let mut with_holes = Vec::new();
        for (id, entry) in self.entries.iter() {
            let chunks = entry.args.iter().filter(|chunk| !chunk.holes.is_empty());
            with_holes.extend(chunks.map(|chunk| (id, chunk.first)));
        }
        with_holes.into_iter().for_each(|(id, first)| self.add_edges(id, first));
        let ids: Vec<_> = self.entries.iter().map(|(id, _)| id).collect();
        for id in ids {
            let Some(entry) = self.entries.get(&id) else { continue };
            let waiting: Vec<_> =
                entry.items.segments(0..entry.items.len()).filter(|segment| segment.state == State::Waiting).collect();
            let unwanted = |segment: &Segment| !segment.wanted && segment.state != State::Released;
            let may_go: Vec<_> = entry.items.segments(0..entry.items.len()).filter(unwanted).collect();
            waiting.into_iter().for_each(|segment| self.begin(id, segment.range(), State::Waiting));
            self.todo.extend(may_go.into_iter().map(|segment| Todo::Free(id, segment.range())));
        }
        let is_over = |(id, client): &(&ClientId, &Client)| client.has_left && !self.entries.has_any(**id);
        let over: Vec<_> = self.clients.iter().filter(is_over).map(|(&id, _)| id).collect();
        for id in over {
            self.clients.remove(&id);
            self.entries.forget_client(id);
            self.ledger.drop_client(id);
        }
        self.settle();
        // Nobody is here yet who could be told.
        self.out.clear();
        self.frees.clear();
        self.credit.look_at_all(self.now);
    }
}

impl Fact {
    /// The entry that it is about; of a client, one before all of its own.
    fn entry(&self) -> EntryId {
        match self {
            Self::Client(fact) => EntryId { client: fact.client, seq: 0 },
            Self::Entry(fact) => fact.entry,
            Self::Sharing(fact) => fact.entry,
            Self::States(fact) => fact.entry,
            Self::Values { entry, .. } | Self::Error { entry, .. } | Self::Args { entry, .. } => *entry,
            Self::Stored { key, .. } => key.entry,
        }
    }
}
