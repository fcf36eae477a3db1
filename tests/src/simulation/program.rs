//! What the simulated programs consist of: items that are pure functions of a number and their inputs, what is planned for each, and
//! what a plain sequential run of the same program gives. Must not know: who computes it, when, or how often.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use quicsand::{
    TaskErrorKind,
    codec::{Args, Hole, Source, Span},
    ids::{EntryId, Key},
    wire::INLINE_BYTES,
};

use super::rng::Rng;

/// For ever: tries that fail, workers that are killed.
pub(super) const ALWAYS: u32 = u32::MAX;

/// What is planned for an item.
#[derive(Clone, Debug)]
pub(super) struct Nature {
    /// Bytes of its result beyond the number.
    pub(super) padding: u32,
    /// How long it computes.
    pub(super) time: Duration,
    /// So many of its first tries fail.
    pub(super) fails: u32,
    /// How.
    pub(super) kind: TaskErrorKind,
    /// So many of its first tries kill their worker.
    pub(super) kills: u32,
}

impl Nature {
    /// `rough` items fail and kill; others do neither.
    pub(super) fn draw(rng: &mut Rng, rough: bool) -> Self {
        let padding = match rng.below(100) {
            0..=11 => INLINE_BYTES as u64 + 1 + rng.below(2000),
            12..=20 => rng.below(3000),
            _ => rng.below(20),
        };
        let time = match rng.below(100) {
            0..=59 => rng.micros(20, 900),
            60..=95 => rng.millis(1, 30),
            _ => rng.millis(20, 900),
        };
        let mut nature = Self { padding: padding as u32, time, fails: 0, kind: TaskErrorKind::Returned, kills: 0 };
        if rough {
            (nature.fails, nature.kills) = match rng.below(100) {
                0..=4 => (ALWAYS, 0),
                5..=12 => (1 + rng.below(4) as u32, 0),
                13 => (0, ALWAYS),
                14..=15 => (0, 1 + rng.below(2) as u32),
                _ => (0, 0),
            };
            nature.kind = match rng.below(4) {
                0 => TaskErrorKind::Panicked,
                1 => TaskErrorKind::Trapped,
                2 => TaskErrorKind::TimeLimit { limit_ms: 7 },
                _ => TaskErrorKind::Returned,
            };
        }
        nature
    }
}

/// An item as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its own argument.
    pub(super) number: i64,
    /// What it reads, field by field; the flag says that the field is a list.
    pub(super) fields: Vec<(Vec<Span>, bool)>,
    pub(super) retries: u32,
    pub(super) nature: Nature,
}

impl Item {
    /// Whether its result stays on a worker.
    fn is_long(&self) -> bool {
        self.nature.padding as usize + HEAD > INLINE_BYTES
    }

    fn inputs(&self) -> impl Iterator<Item = Key> {
        self.fields.iter().flat_map(|(spans, _)| spans).flat_map(keys_of)
    }
}

/// All that was sent, by all clients.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) items: BTreeMap<Key, Item>,
    /// Scattered data: the number in it.
    pub(super) data: BTreeMap<Key, i64>,
}

/// What happened to a program from outside, as far as it may show in its results.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Items that somebody asked to be cancelled.
    pub(super) cancelled: BTreeSet<Key>,
    /// Entries that an operator cancelled as a whole, with what is still to come of them.
    pub(super) cancelled_whole: BTreeSet<EntryId>,
    /// How often an item was running alone when its worker was lost.
    pub(super) deaths: BTreeMap<Key, u32>,
    /// Values of which a replica was lost, or that somebody could not fetch, and how often.
    pub(super) missed: BTreeMap<Key, u32>,
    /// Values that are gone for good when they are lost: data, and results whose arguments may be let go.
    pub(super) sheds: bool,
    /// A disk could not be written to: its worker may have no room for a result.
    pub(super) are_disks_full: bool,
    /// Workers that may die while a call runs alone on them.
    pub(super) max_deaths: u32,
}

/// How an item may end.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// Its value, if it can have one.
    pub(super) value: Option<i64>,
    /// Who can fail, of itself and what it reads directly or not.
    pub(super) causes: BTreeSet<Key>,
    pub(super) may_be_cancelled: bool,
}

/// How an item ended for its client.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ending {
    Value(Bytes),
    Failed { key: Key, kind: TaskErrorKind, attempts: u32 },
    Cancelled,
}

/// Misses after which the scheduler gives an item up.
const GIVEN_UP: u32 = 6;
/// As often a result is lost because it could not be read, before its item fails.
const UNREAD: u32 = 6;

impl Graph {
    /// The fates of all items.
    pub(super) fn fates(&self, troubles: &Troubles) -> BTreeMap<Key, Fate> {
        let mut fates: BTreeMap<Key, Fate> = BTreeMap::new();
        // A map's items may read entries that are later than the map: whoever is read goes first.
        let mut stack: Vec<Key> = self.items.keys().chain(self.data.keys()).copied().collect();
        while let Some(&key) = stack.last() {
            let before = stack.len();
            if !fates.contains_key(&key) {
                let inputs = self.items.get(&key).into_iter().flat_map(Item::inputs);
                stack.extend(inputs.filter(|input| !fates.contains_key(input)));
                if stack.len() > before {
                    continue;
                }
                fates.insert(key, self.fate(key, &fates, troubles));
            }
            stack.pop();
        }
        fates
    }

    /// The fate of an item, of which the fates of its inputs are known.
    fn fate(&self, key: Key, fates: &BTreeMap<Key, Fate>, troubles: &Troubles) -> Fate {
        let may_be_cancelled = troubles.cancelled.contains(&key) || troubles.cancelled_whole.contains(&key.entry);
        let mut fate = Fate { may_be_cancelled, ..Fate::default() };
        if self.can_fail(key, troubles) {
            fate.causes.insert(key);
        }
        if let Some(&number) = self.data.get(&key) {
            fate.value = Some(number);
            return fate;
        }
        let Some(item) = self.items.get(&key) else { panic!("{key} is read, and nobody sent it") };
        let mut known = item.nature.fails != ALWAYS && item.nature.kills != ALWAYS;
        let mut inputs = Vec::new();
        for (spans, is_list) in &item.fields {
            let mut values = Vec::new();
            for input in spans.iter().flat_map(keys_of).filter_map(|input| fates.get(&input)) {
                fate.causes.extend(&input.causes);
                fate.may_be_cancelled |= input.may_be_cancelled;
                known &= input.value.is_some();
                values.extend(input.value);
            }
            inputs.push(if *is_list { list(&values) } else { values.first().copied().unwrap_or(0) });
        }
        fate.value = known.then(|| compute(item.number, &inputs));
        fate
    }

    /// Whether an item can fail by itself.
    fn can_fail(&self, key: Key, troubles: &Troubles) -> bool {
        let missed = |key: Key| troubles.missed.get(&key).copied().unwrap_or(0);
        let poisonous = troubles.deaths.get(&key).is_some_and(|&deaths| deaths >= troubles.max_deaths);
        let Some(item) = self.items.get(&key) else { return missed(key) > 0 };
        item.nature.fails > item.retries
            || poisonous
            || (troubles.sheds && missed(key) > 0)
            || missed(key) >= UNREAD
            || (troubles.are_disks_full && item.is_long())
            || self.misses(item, troubles) >= GIVEN_UP
    }

    /// What an item reads, directly or not.
    pub(super) fn ancestors(&self, key: Key) -> BTreeSet<Key> {
        let (mut found, mut stack) = (BTreeSet::new(), vec![key]);
        while let Some(key) = stack.pop() {
            let inputs = self.items.get(&key).into_iter().flat_map(Item::inputs);
            stack.extend(inputs.filter(|&input| found.insert(input)));
        }
        found
    }

    fn misses(&self, item: &Item, troubles: &Troubles) -> u32 {
        item.inputs().map(|key| troubles.missed.get(&key).copied().unwrap_or(0)).sum()
    }

    /// What is wrong with an ending, if anything is.
    pub(super) fn judge(&self, key: Key, fate: &Fate, ending: &Ending, troubles: &Troubles) -> Result<(), String> {
        match ending {
            Ending::Value(bytes) => {
                let got = decode(bytes).map(|(number, _)| number);
                let padding = self.items.get(&key).map(|item| item.nature.padding as usize + HEAD);
                if got != fate.value || got.is_none() || padding.is_some_and(|len| len != bytes.len()) {
                    return Err(format!(
                        "{key} became {got:?} ({} bytes), and a sequential run gives {:?}",
                        bytes.len(),
                        fate.value
                    ));
                }
                Ok(())
            }
            Ending::Cancelled if fate.may_be_cancelled => Ok(()),
            Ending::Cancelled => Err(format!("{key} was cancelled, and nobody asked for that")),
            Ending::Failed { key: origin, kind, attempts } => {
                if !fate.causes.contains(origin) {
                    return Err(format!(
                        "{key} failed as {kind:?} because of {origin}, which could not fail or is nothing that it reads"
                    ));
                }
                let missed = troubles.missed.get(origin).copied().unwrap_or(0);
                let deaths = troubles.deaths.get(origin).copied().unwrap_or(0);
                let item = self.items.get(origin);
                let is_planned = match (kind, item) {
                    (TaskErrorKind::Poisonous { deaths: told }, Some(_)) => {
                        deaths >= troubles.max_deaths && *told == troubles.max_deaths
                    }
                    (TaskErrorKind::DataLost, None) => missed > 0,
                    (TaskErrorKind::DataLost, Some(_)) => (troubles.sheds && missed > 0) || missed >= UNREAD,
                    (TaskErrorKind::Worker, Some(item)) => {
                        (troubles.are_disks_full && item.is_long()) || self.misses(item, troubles) >= GIVEN_UP
                    }
                    (kind, Some(item)) => {
                        *kind == item.nature.kind && item.nature.fails > item.retries && *attempts == item.retries + 1
                    }
                    (_, None) => false,
                };
                let told = || {
                    format!("{key} failed as {kind:?} after {attempts} tries because of {origin}, for which that was not planned")
                };
                if is_planned { Ok(()) } else { Err(told()) }
            }
        }
    }
}

/// The keys of a span.
pub(super) fn keys_of(span: &Span) -> impl Iterator<Item = Key> + use<> {
    let span = *span;
    (span.first..span.first.saturating_add(span.count)).map(move |index| span.entry.key(index))
}

/// What an item of arguments reads, field by field.
pub(super) fn fields_of(args: &Args, item: u32) -> Vec<(Vec<Span>, bool)> {
    let mut holes: Vec<&Hole> = args.holes.iter().filter(|hole| (hole.first..hole.first + hole.count).contains(&item)).collect();
    holes.sort_by_key(|hole| hole.field);
    let fields = holes.into_iter().map(|hole| match &hole.source {
        Source::Same(key) => (vec![Span { entry: key.entry, first: key.index, count: 1 }], false),
        Source::Each { entry, first } => {
            (vec![Span { entry: *entry, first: first + u64::from(item - hole.first), count: 1 }], false)
        }
        Source::List(spans) => (spans.clone(), true),
    });
    fields.collect()
}

/// The task: order matters, so that a value in the wrong place shows.
pub(super) fn compute(number: i64, fields: &[i64]) -> i64 {
    fields.iter().fold(number ^ 0x5a5a, |sum, &field| sum.wrapping_mul(31).wrapping_add(field).rotate_left(7))
}

/// What a list of values counts as.
pub(super) fn list(values: &[i64]) -> i64 {
    values.iter().fold(values.len() as i64, |sum, &value| sum.wrapping_mul(1_000_003).wrapping_add(value))
}

/// Bytes before a value's padding.
const HEAD: usize = 12;

/// A value's encoding: the number, then so many zeros.
pub(super) fn encode(number: i64, padding: u32) -> Bytes {
    let mut bytes = vec![0; HEAD + padding as usize];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..HEAD].copy_from_slice(&padding.to_le_bytes());
    bytes.into()
}

/// The number at the front, and what follows the value.
pub(super) fn decode(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    let (padding, rest) = rest.split_first_chunk::<4>()?;
    let rest = rest.get(u32::from_le_bytes(*padding) as usize..)?;
    Some((i64::from_le_bytes(*number), rest))
}

/// The numbers of an encoded list: how many there are, then the values.
pub(super) fn decode_list(bytes: &[u8]) -> Option<Vec<i64>> {
    let (mut count, mut shift, mut rest) = (0_usize, 0, bytes);
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        count |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let mut values = Vec::new();
    for _ in 0..count {
        let (value, tail) = decode(rest)?;
        values.push(value);
        rest = tail;
    }
    rest.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let (a, b) = (encode(-5, 0), encode(7, 300));
        assert_eq!(decode(&a), Some((-5, &[][..])));
        let mut all = vec![2];
        all.extend_from_slice(&a);
        all.extend_from_slice(&b);
        assert_eq!(decode_list(&all), Some(vec![-5, 7]));
        assert_eq!(decode_list(&all[..all.len() - 1]), None);
        assert_ne!(compute(1, &[2, 3]), compute(1, &[3, 2]));
        assert_ne!(list(&[2, 3]), list(&[3, 2]));
    }
}
