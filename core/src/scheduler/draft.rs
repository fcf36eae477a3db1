//! An entry from its facts: what contradicts itself is refused, and nothing is allocated that the facts do not have bytes for. Must not
//! know: other entries, and clients.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::{
    absence::ANYONE,
    blame::Death,
    entry::{Entry, Kind, Oddity, Replicas},
    facts::{DETACHED, DeathFact, EntryFact, Fact, HistoryFact, NameFact, RELEASED, SharingFact, Standing, StatesFact, WANTED},
    items::{CHUNK, Items, State},
};
use crate::{
    TaskError,
    codec::{Args, Run},
    ids::Hash,
    wire::RUN_ITEMS,
};

/// The facts of an entry.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) head: EntryFact,
    sharing: Option<SharingFact>,
    states: Vec<StatesFact>,
    histories: Vec<HistoryFact>,
    values: Vec<(u64, Run)>,
    stored: BTreeMap<u64, (u64, Hash)>,
    errors: Vec<(Range<u64>, Arc<TaskError>)>,
    pub(super) args: Vec<(u64, Args)>,
}

impl Draft {
    pub(super) fn new(head: EntryFact) -> Self {
        Self {
            head,
            sharing: None,
            states: Vec::new(),
            histories: Vec::new(),
            values: Vec::new(),
            stored: BTreeMap::new(),
            errors: Vec::new(),
            args: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, fact: Fact) {
        match fact {
            Fact::Sharing(fact) => self.sharing = Some(fact),
            Fact::States(fact) => self.states.push(fact),
            Fact::Values { first, values, .. } => self.values.push((first, values)),
            Fact::Stored { key, len, hash } => drop(self.stored.insert(key.index, (len, hash))),
            Fact::Error { first, count, error, .. } => self.errors.push((first..first.saturating_add(count), Arc::new(error))),
            Fact::Args { first, args, .. } => self.args.push((first, args)),
            // They begin something new.
            Fact::Client(_) | Fact::Entry(_) => {}
        }
    }

    /// The entry, or what contradicts what.
    pub(super) fn build(mut self) -> Result<(Entry, Vec<NameFact>), &'static str> {
        let EntryFact { kind, arrival, open, is_abandoned, is_cancelled, base, len, .. } = self.head.clone();
        require(base.is_multiple_of(CHUNK) && base <= len, "its number of items")?;
        require(matches!(kind, Kind::Map(_)) || (len == 1 && !open), "its number of items")?;
        // Shape and birth are the machine's to say.
        let mut entry = Entry::new(kind, super::shapes::PLAIN, arrival, std::time::Duration::ZERO, open);
        (entry.is_abandoned, entry.is_cancelled) = (is_abandoned, is_cancelled);
        entry.rare.sharing = self.sharing.is_some().then(Box::default);
        self.build_args(&mut entry)?;
        self.build_states(&mut entry)?;
        self.build_results(&mut entry)?;
        let items = &entry.items;
        entry.args.keep(|range| {
            let holding = items.segments(range).filter(|segment| segment.state.is_holding());
            holding.map(|segment| segment.count()).sum()
        });
        self.build_histories(&mut entry)?;
        let names = self.build_sharing(&mut entry)?;
        Ok((entry, names))
    }

    fn build_args(&mut self, entry: &mut Entry) -> Result<(), &'static str> {
        let mut end = 0;
        for (first, args) in std::mem::take(&mut self.args) {
            let count = u64::from(args.count());
            require(entry.spec().is_some() && count > 0 && count as usize <= RUN_ITEMS, "its arguments")?;
            require(first >= end && first.checked_add(count).is_some_and(|end| end <= self.head.len), "its arguments")?;
            end = first + count;
            entry.args.push(first, args);
        }
        Ok(())
    }

    fn build_states(&mut self, entry: &mut Entry) -> Result<(), &'static str> {
        let EntryFact { base, len, .. } = self.head;
        entry.items = Items::after(base);
        for fact in std::mem::take(&mut self.states) {
            let start = fact.block.checked_mul(CHUNK).filter(|start| *start >= entry.items.len() && *start < len);
            let start = start.ok_or("its states")?;
            let end = len.min(start.saturating_add(CHUNK));
            push(entry, start, Standing::Pending, WANTED)?;
            for (count, standing, wants) in fact.stretches {
                let to = entry.items.len() + u64::from(count);
                require(count > 0 && to <= end, "its states")?;
                push(entry, to, standing, wants)?;
            }
            push(entry, end, Standing::Pending, WANTED)?;
            self.histories.extend(fact.histories);
        }
        push(entry, len, Standing::Pending, WANTED)
    }

    fn build_results(&mut self, entry: &mut Entry) -> Result<(), &'static str> {
        let (mut end, mut live_sum) = (0, 0);
        for (first, run) in std::mem::take(&mut self.values) {
            let count = u64::from(run.count());
            require(run.is_valid() && count > 0 && first >= end, "its values")?;
            end = first.checked_add(count).filter(|end| *end <= entry.items.len()).ok_or("its values")?;
            let segments = entry.items.segments(first..end);
            let live: u64 = segments.filter(|segment| segment.state == State::Inline).map(|segment| segment.count()).sum();
            live_sum += live;
            if let Kind::Data(datum) = &entry.kind {
                require(run.bytes().len() as u64 == datum.len, "its length")?;
            }
            if live > 0 {
                entry.values.restore(first, run, live as u32);
            }
        }
        require(live_sum == entry.items.count(State::Inline), "its values")?;
        let is_away = |item: &u64| entry.items.state(*item).is_some_and(State::is_away);
        require(self.stored.keys().all(is_away), "its stored values")?;
        let stored = entry.items.count(State::Away) + entry.items.count(State::FinalAway);
        require(stored == self.stored.len() as u64, "its stored values")?;
        let replicas = |(len, hash)| Replicas::awaited(len, hash, ANYONE);
        entry.rare.stored = std::mem::take(&mut self.stored).into_iter().map(|(item, value)| (item, replicas(value))).collect();
        for (range, error) in std::mem::take(&mut self.errors) {
            for segment in entry.items.segments(range).filter(|segment| segment.state == State::Failed) {
                entry.rare.errors.extend(segment.range().map(|item| (item, error.clone())));
            }
        }
        require(entry.rare.errors.len() as u64 == entry.items.count(State::Failed), "its errors")
    }

    fn build_histories(&self, entry: &mut Entry) -> Result<(), &'static str> {
        for history in &self.histories {
            let state = entry.items.state(history.item).ok_or("its history")?;
            if state.is_active() {
                let oddity = Oddity {
                    attempts: history.attempts,
                    deaths: history.deaths.iter().map(death).collect(),
                    ..Oddity::default()
                };
                if !oddity.deaths.is_empty() {
                    entry.rare.suspects.insert(history.item..history.item + 1);
                }
                entry.rare.oddities.insert(history.item, oddity);
            }
        }
        Ok(())
    }
    /// Gives the names, which are the machine's to keep.
    fn build_sharing(&mut self, entry: &mut Entry) -> Result<Vec<NameFact>, &'static str> {
        let (Some(fact), Some(sharing)) = (self.sharing.take(), &mut entry.rare.sharing) else { return Ok(Vec::new()) };
        let len = entry.items.len();
        let fits = |first: u64, end: u64| first < end && end <= len;
        sharing.released.insert(0..self.head.base);
        for name in &fact.names {
            require(fits(name.first, name.end), "its names")?;
            sharing.names.insert(name.name.clone(), name.first..name.end);
        }
        require(sharing.names.len() == fact.names.len(), "its names")?;
        for taker in &fact.takers {
            require(fits(taker.first, taker.end), "who took it up")?;
            sharing.takers.insert((taker.client, taker.seq), taker.first..taker.end);
        }
        Ok(fact.names)
    }
}

impl Entry {
    /// Whether the arguments of all of these items are there.
    fn has_args(&self, items: Range<u64>) -> bool {
        let mut at = items.start;
        for chunk in self.args.iter_from(at) {
            if chunk.first > at || at >= items.end {
                break;
            }
            at = chunk.range().end;
        }
        at >= items.end
    }
}

/// Appends items up to number `to`, all alike.
fn push(entry: &mut Entry, to: u64, standing: Standing, wants: u8) -> Result<(), &'static str> {
    let wanted = wants & WANTED != 0;
    let items = entry.items.len()..to;
    if items.is_empty() {
        return Ok(());
    }
    let (state, is_data) = (standing.state(), entry.spec().is_none());
    let fits = match state {
        State::Uploading => is_data,
        State::FinalAway => !is_data,
        State::Dormant => !is_data && !wanted,
        _ => true,
    };
    require(fits && (!is_data || !state.is_active()), "its states")?;
    // Before anything is allocated for them.
    require(is_data || !state.is_holding() || entry.has_args(items.clone()), "its arguments")?;
    entry.items.push(items.end - items.start, State::Waiting);
    if state != State::Waiting {
        entry.items.set(items.clone(), State::Waiting, state);
    }
    if let Some(sharing) = &mut entry.rare.sharing {
        // What is not wanted at all was released before anybody shared it, perhaps.
        if wants & RELEASED != 0 || !wanted {
            sharing.released.insert(items.clone());
        }
        if wants & DETACHED != 0 {
            sharing.detached.insert(items.clone());
        }
    }
    if !wanted || state == State::Released {
        entry.items.unwant(items);
    }
    Ok(())
}

fn death(fact: &DeathFact) -> Death {
    Death { worker: fact.worker.clone(), process: (fact.who, fact.incarnation), departure: fact.departure }
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
