//! Who needs whose value: an edge stands for a hole of consecutive items, and lies on the entry that the hole names. Must not
//! know: what happens when a value comes.
//!
//! An edge costs the same whether it stands for one item or a million.

use std::{collections::BTreeSet, ops::Range};

use crate::ids::EntryId;

/// Names an edge while it exists.
pub(super) type EdgeId = u32;

/// Edges of an entry are searched one by one up to this many.
const FEW: usize = 8;

/// Items `consumers` of one entry read items `producers` of another.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) producer: EntryId,
    pub(super) producers: Range<u64>,
    pub(super) consumer: EntryId,
    pub(super) consumers: Range<u64>,
    /// Whether each consumer reads one producer, in order; otherwise each reads all.
    pub(super) each: bool,
    /// Consumers that keep their arguments.
    pub(super) holding: u32,
    /// Consumers that need the values now.
    pub(super) active: u32,
}

impl Edge {
    /// The consumers of those of `items` that the edge has, and how many of them each reads.
    pub(super) fn consumers_of(&self, items: &Range<u64>) -> (Range<u64>, u32) {
        let part = self.overlap(items);
        if !self.each {
            return (self.consumers.clone(), (part.end - part.start) as u32);
        }
        let first = self.consumers.start + (part.start - self.producers.start);
        (first..first + (part.end - part.start), 1)
    }

    /// Whether any of `items` is a producer here.
    fn has_any(&self, items: &Range<u64>) -> bool {
        self.producers.start < items.end && self.producers.end > items.start
    }

    /// Those of `items` that are producers here.
    pub(super) fn overlap(&self, items: &Range<u64>) -> Range<u64> {
        let start = items.start.max(self.producers.start);
        start..items.end.min(self.producers.end).max(start)
    }
}

/// All edges.
#[derive(Debug, Default)]
pub(super) struct Edges {
    slots: Vec<Option<Edge>>,
    unused: Vec<EdgeId>,
}

impl Edges {
    pub(super) fn insert(&mut self, edge: Edge) -> EdgeId {
        if let Some(id) = self.unused.pop() {
            self.slots[id as usize] = Some(edge);
            return id;
        }
        self.slots.push(Some(edge));
        (self.slots.len() - 1) as EdgeId
    }

    pub(super) fn get(&self, id: EdgeId) -> Option<&Edge> {
        self.slots.get(id as usize).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: EdgeId) -> Option<&mut Edge> {
        self.slots.get_mut(id as usize).and_then(Option::as_mut)
    }

    pub(super) fn remove(&mut self, id: EdgeId) -> Option<Edge> {
        let edge = self.slots.get_mut(id as usize).and_then(Option::take)?;
        self.unused.push(id);
        if self.unused.len() == self.slots.len() {
            // Nobody names an edge now: give the memory of a large graph back.
            *self = Self::default();
        }
        Some(edge)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EdgeId, &Edge)> {
        self.slots.iter().enumerate().filter_map(|(id, edge)| edge.as_ref().map(|edge| (id as EdgeId, edge)))
    }
}

/// The edges that lie on one entry, found by item.
#[derive(Debug, Default)]
pub(super) enum EdgeIndex {
    #[default]
    None,
    One(EdgeId),
    /// At least two, oldest first.
    #[expect(clippy::box_collection, reason = "a pointer is smaller than a list's head, and most have none or one")]
    Few(Box<Vec<EdgeId>>),
    /// Where there are, or were, more than few.
    Many(Box<Levels>),
}

/// Edges by length: the ones of level `k` have at most `2^k` producers, so that those that reach an item begin close before it.
type Levels = Vec<(u32, BTreeSet<(u64, EdgeId)>)>;

impl EdgeIndex {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn insert(&mut self, id: EdgeId, edges: &Edges) {
        match self {
            Self::None => *self = Self::One(id),
            Self::One(first) => *self = Self::Few(Box::new(vec![*first, id])),
            Self::Few(few) if few.len() < FEW => few.push(id),
            Self::Few(few) => {
                let mut levels = Levels::new();
                few.iter().chain([&id]).for_each(|&id| enter(&mut levels, id, edges));
                *self = Self::Many(Box::new(levels));
            }
            Self::Many(levels) => enter(levels, id, edges),
        }
    }

    /// Takes out an edge that still exists.
    pub(super) fn remove(&mut self, id: EdgeId, edge: &Edge) {
        match self {
            Self::One(one) if *one == id => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Few(few) => {
                few.retain(|&other| other != id);
                if let [one] = few[..] {
                    *self = Self::One(one);
                }
            }
            Self::Many(levels) => {
                if let Ok(at) = levels.binary_search_by_key(&level_of(edge), |(level, _)| *level) {
                    levels[at].1.remove(&(edge.producers.start, id));
                    if levels[at].1.is_empty() {
                        levels.remove(at);
                    }
                }
                if levels.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    /// Has the edges looked at that have any of `items` as a producer, in the order of [`of`](Self::of).
    #[inline]
    pub(super) fn each<'a>(&'a self, items: &Range<u64>, edges: &'a Edges, mut work: impl FnMut(&'a Edge)) {
        if let Self::Many(_) = self {
            return self.of(items.clone(), edges).for_each(|(_, edge)| work(edge));
        }
        for &id in self.few() {
            if let Some(edge) = edges.get(id).filter(|edge| edge.has_any(items)) {
                work(edge);
            }
        }
    }

    /// All edges, unless there may be many.
    fn few(&self) -> &[EdgeId] {
        match self {
            Self::None | Self::Many(_) => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Few(few) => few,
        }
    }

    /// The edges that have any of `items` as a producer, oldest first among few.
    pub(super) fn of<'a>(&'a self, items: Range<u64>, edges: &'a Edges) -> impl Iterator<Item = (EdgeId, &'a Edge)> {
        let (start, end) = (items.start, items.end);
        let levels = if let Self::Many(levels) = self { Some(levels) } else { None };
        let in_levels = levels.into_iter().flat_map(|levels| levels.iter()).flat_map(move |(level, set)| {
            let reach = 1_u64.checked_shl(*level).map_or(0, |reach| start.saturating_sub(reach));
            set.range((reach, 0)..(end, 0)).map(|&(_, id)| id)
        });
        self.few().iter().copied().chain(in_levels).filter_map(move |id| {
            let edge = edges.get(id)?;
            edge.has_any(&items).then_some((id, edge))
        })
    }
}

/// Puts an edge into its level.
fn enter(levels: &mut Levels, id: EdgeId, edges: &Edges) {
    let Some(edge) = edges.get(id) else { return };
    let level = level_of(edge);
    let at = match levels.binary_search_by_key(&level, |(level, _)| *level) {
        Ok(at) => at,
        Err(at) => {
            levels.insert(at, (level, BTreeSet::new()));
            at
        }
    };
    levels[at].1.insert((edge.producers.start, id));
}

fn level_of(edge: &Edge) -> u32 {
    64 - (edge.producers.end - edge.producers.start).saturating_sub(1).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    proptest::proptest! {
        #[test]
        fn every_overlap_is_found(
            spans in proptest::collection::vec((0_u64..200, 1_u64..100), 1..60),
            removed in proptest::collection::vec(0_usize..60, 0..40),
            first in 0_u64..300, count in 1_u64..50,
        ) {
            let entry = EntryId { client: ClientId(1), seq: 1 };
            let (mut edges, mut index) = (Edges::default(), EdgeIndex::default());
            let mut ids: Vec<Option<EdgeId>> = spans.iter().map(|&(start, count)| {
                let id = edges.insert(Edge {
                    producer: entry, producers: start..start + count, consumer: entry, consumers: 0..1, each: false, holding: 1, active: 1,
                });
                index.insert(id, &edges);
                Some(id)
            }).collect();
            for at in removed {
                if let Some(id) = ids.get_mut(at).and_then(Option::take) {
                    let edge = edges.remove(id).expect("there");
                    index.remove(id, &edge);
                }
            }
            let mut found: Vec<_> = index.of(first..first + count, &edges).map(|(id, _)| id).collect();
            found.sort_unstable();
            let mut expected: Vec<_> = spans.iter().zip(&ids)
                .filter_map(|(&(start, n), id)| id.filter(|_| start < first + count && start + n > first)).collect();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
    }
}
