//! Arguments of consecutive items: inline bytes, and holes where the value of another key belongs.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Run;
use crate::ids::{EntryId, Key};

/// The arguments of consecutive items of a call or map. An item's inline bytes are the concatenated encodings of its argument
/// fields, less those fields that are holes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Args {
    /// One tuple an item.
    pub run: Run,
    /// Holes, sorted by first item, then field.
    pub holes: Vec<Hole>,
}

/// The same field of consecutive items, to be read from other keys' values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The first item, counted from the start of the [`Args`].
    pub first: u32,
    /// Number of items.
    pub count: u32,
    /// The field of the argument tuple, from 0. The item's inline bytes have nothing of it.
    pub field: u32,
    /// What belongs there.
    pub source: Source,
}

/// Where a hole's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// One value, for each of the items.
    Same(Key),
    /// A value an item: the hole's k-th item takes index `first + k` of `entry`.
    Each {
        /// The entry.
        entry: EntryId,
        /// The first item's index in it.
        first: u64,
    },
    /// A `Vec<T>` of all these values, for each of the items.
    List(Vec<Span>),
}

/// Consecutive items of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The entry.
    pub entry: EntryId,
    /// The first item.
    pub first: u64,
    /// Number of items.
    pub count: u64,
}

impl Hole {
    /// The spans of keys that any item reads here.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        match &self.source {
            Source::Same(key) => vec![Span { entry: key.entry, first: key.index, count: 1 }],
            Source::Each { entry, first } => vec![Span { entry: *entry, first: *first, count: u64::from(self.count) }],
            Source::List(spans) => spans.clone(),
        }
    }
}

impl Args {
    /// Number of items.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.run.count()
    }

    /// Whether what a peer sent agrees with itself: lengths, the holes' items, and spans that do not overflow.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let spans_end = |span: Span| span.first.checked_add(span.count).is_some();
        self.run.is_valid()
            && self.holes.iter().all(|hole| {
                hole.first.checked_add(hole.count).is_some_and(|end| end <= self.count())
                    && match &hole.source {
                        Source::Same(_) => true,
                        Source::Each { first, .. } => first.checked_add(u64::from(hole.count)).is_some(),
                        Source::List(spans) => spans.iter().copied().all(spans_end),
                    }
            })
    }

    /// Items `range`, sharing their bytes.
    ///
    /// # Panics
    /// If `range` goes past the end.
    #[must_use]
    pub fn slice(&self, range: Range<u32>) -> Self {
        let holes = self.holes.iter().filter_map(|hole| hole.slice(&range)).collect();
        Self { run: self.run.slice(range), holes }
    }
}

impl Hole {
    fn slice(&self, range: &Range<u32>) -> Option<Self> {
        let start = self.first.max(range.start);
        let end = (self.first + self.count).min(range.end);
        (start < end).then(|| Self {
            first: start - range.start,
            count: end - start,
            field: self.field,
            source: match &self.source {
                Source::Each { entry, first } => Source::Each { entry: *entry, first: first + u64::from(start - self.first) },
                same => same.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::RunBuilder, ids::ClientId};

    const ENTRY: EntryId = EntryId { client: ClientId(1), seq: 7 };

    fn args(count: u32, holes: Vec<Hole>) -> Args {
        let mut builder = RunBuilder::default();
        for i in 0..count {
            builder.push(&[i as u8]).expect("short");
        }
        Args { run: builder.take(), holes }
    }

    #[test]
    fn slicing_moves_the_holes() {
        let each = Hole { first: 2, count: 6, field: 1, source: Source::Each { entry: ENTRY, first: 10 } };
        let same = Hole { first: 0, count: 2, field: 0, source: Source::Same(ENTRY.key(3)) };
        let sliced = args(10, vec![same, each]).slice(4..9);
        assert_eq!(sliced.count(), 5);
        assert_eq!(sliced.holes, [Hole { first: 0, count: 4, field: 1, source: Source::Each { entry: ENTRY, first: 12 } }]);
        assert_eq!(sliced.holes[0].spans(), [Span { entry: ENTRY, first: 12, count: 4 }]);
    }

    #[test]
    fn contradictions_are_refused() {
        let past_the_end = Hole { first: 1, count: 2, field: 0, source: Source::Same(ENTRY.key(0)) };
        assert!(!args(2, vec![past_the_end]).is_valid());
        let overflow = Hole { first: 0, count: 2, field: 0, source: Source::Each { entry: ENTRY, first: u64::MAX } };
        assert!(!args(2, vec![overflow]).is_valid());
    }
}
