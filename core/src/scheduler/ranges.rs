//! A set of item numbers, kept as disjoint ranges. Must not know: what the items are.

use std::{collections::BTreeMap, ops::Range};

/// Item numbers; costs memory per gap, not per item, and none of the heap's without a gap.
#[derive(Clone, Debug)]
pub(super) enum Ranges {
    /// One range, as nearly all are; empty if it ends where it begins.
    One(u32, u32),
    /// First to end; neither overlapping nor touching. More than one, or one whose end takes more than 32 bits.
    #[expect(clippy::box_collection, reason = "a pointer is smaller than a tree's head, and this is rare")]
    Many(Box<BTreeMap<u64, u64>>),
}

impl Default for Ranges {
    fn default() -> Self {
        Self::NONE
    }
}

impl Ranges {
    pub(super) const NONE: Self = Self::One(0, 0);

    /// What is one range, if it is small enough.
    fn one(&self) -> Option<Range<u64>> {
        if let Self::One(first, end) = *self { Some(first.into()..end.into()) } else { None }
    }

    fn of_one(range: Range<u64>) -> Self {
        match (u32::try_from(range.start), u32::try_from(range.end)) {
            (Ok(first), Ok(end)) => Self::One(first, end),
            _ => Self::Many(Box::new(BTreeMap::from([(range.start, range.end)]))),
        }
    }

    fn of_two(one: Range<u64>, other: Range<u64>) -> Self {
        Self::Many(Box::new(BTreeMap::from([(one.start, one.end), (other.start, other.end)])))
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::One(first, end) => first == end,
            Self::Many(ends) => ends.is_empty(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let one = self.one().filter(|range| !range.is_empty());
        let many = if let Self::Many(ends) = self { Some(ends) } else { None };
        one.into_iter().chain(many.into_iter().flat_map(|ends| ends.iter().map(|(&first, &end)| first..end)))
    }

    pub(super) fn contains(&self, item: u64) -> bool {
        self.end_around(item).is_some()
    }

    /// The end of the range that has an item.
    fn end_around(&self, item: u64) -> Option<u64> {
        match self {
            Self::One(first, end) => (u64::from(*first) <= item && item < u64::from(*end)).then_some((*end).into()),
            Self::Many(ends) => ends.range(..=item).next_back().map(|(_, &end)| end).filter(|&end| item < end),
        }
    }

    /// The first of the ranges that begin at an item or after it.
    fn start_after(&self, item: u64) -> Option<u64> {
        match self {
            Self::One(first, end) => (first < end && u64::from(*first) >= item).then_some((*first).into()),
            Self::Many(ends) => ends.range(item..).next().map(|(&first, _)| first),
        }
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut first, mut end) = (range.start, range.end);
        if let Some(one) = self.one() {
            *self = match one.is_empty() {
                true => Self::of_one(range),
                false if one.start <= end && first <= one.end => Self::of_one(first.min(one.start)..end.max(one.end)),
                false => Self::of_two(one, range),
            };
            return;
        }
        let Self::Many(ends) = self else { return };
        if let Some((&before, before_end)) = ends.range_mut(..=first).next_back()
            && *before_end >= first
        {
            if *before_end >= end {
                return;
            }
            first = before;
        }
        while let Some((&next, &next_end)) = ends.range(first..=end).next() {
            end = end.max(next_end);
            ends.remove(&next);
        }
        ends.insert(first, end);
        self.shrink();
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some(one) = self.one() {
            if range.start < one.end && one.start < range.end {
                let (before, after) = (one.start..range.start, range.end..one.end);
                *self = match (before.is_empty(), after.is_empty()) {
                    (false, false) => Self::of_two(before, after),
                    (false, true) => Self::of_one(before),
                    (true, false) => Self::of_one(after),
                    (true, true) => Self::NONE,
                };
            }
            return;
        }
        let Self::Many(ends) = self else { return };
        while let Some((&first, &end)) = ends.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            ends.remove(&first);
            if range.end < end {
                ends.insert(range.end, end);
            }
            if first < range.start {
                ends.insert(first, range.start);
                break;
            }
        }
        self.shrink();
    }

    /// Gives the heap's memory back once there is no gap any more.
    fn shrink(&mut self) {
        if let Self::Many(ends) = self
            && ends.len() < 2
        {
            let (first, end) = ends.first_key_value().map_or((0, 0), |(&first, &end)| (first, end));
            if end <= u32::MAX.into() {
                *self = Self::of_one(first..end);
            }
        }
    }

    /// The first range, as far as it is wholly inside or wholly outside `other`; the flag says which. Ranges inside are passed
    /// over unless `inside` is wanted.
    pub(super) fn first_piece(&self, other: &Self, inside: bool) -> Option<(Range<u64>, bool)> {
        for range in self.iter() {
            if other.is_empty() {
                return Some((range, false));
            }
            let mut at = range.start;
            while at < range.end {
                match other.end_around(at) {
                    Some(end) => {
                        if inside {
                            return Some((at..end.min(range.end), true));
                        }
                        at = end;
                    }
                    None => {
                        let end = other.start_after(at).map_or(range.end, |first| first.min(range.end));
                        return Some((at..end, false));
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl PartialEq for Ranges {
        fn eq(&self, other: &Self) -> bool {
            self.iter().eq(other.iter())
        }
    }

    fn set(ranges: &[Range<u64>]) -> Ranges {
        let mut set = Ranges::default();
        ranges.iter().for_each(|range| set.insert(range.clone()));
        set
    }

    #[test]
    fn ranges_join_and_split() {
        let mut ranges = set(&[0..2, 4..6, 2..4]);
        assert_eq!(ranges, set(&[0..3, 3..6]));
        assert_eq!(ranges.iter().count(), 1);
        ranges.remove(1..3);
        ranges.remove(4..5);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [0..1, 3..4, 5..6]);
        ranges.insert(0..10);
        assert_eq!(ranges, set(&[0..9, 9..10]));
        ranges.remove(0..10);
        assert!(ranges.is_empty() && !ranges.contains(0));
    }

    #[test]
    fn pieces_are_inside_or_outside() {
        let (all, other) = (set(&[0..4, 4..8]), set(&[0..2, 5..6]));
        assert_eq!(all.first_piece(&other, true), Some((0..2, true)));
        assert_eq!(all.first_piece(&other, false), Some((2..5, false)));
        assert_eq!(set(&[0..1, 1..2]).first_piece(&other, false), None);
    }

    proptest::proptest! {
        #[test]
        fn behaves_like_a_set(
            steps in proptest::collection::vec((0_u64..40, 0_u64..10, proptest::bool::ANY), 0..60),
            base in proptest::sample::select(vec![0, (1_u64 << 32) - 20, 1 << 40]),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), std::collections::BTreeSet::new());
            for (first, count, insert) in steps {
                let first = base + first;
                if insert {
                    ranges.insert(first..first + count);
                    model.extend(first..first + count);
                } else {
                    ranges.remove(first..first + count);
                    (first..first + count).for_each(|item| { model.remove(&item); });
                }
                assert!(ranges.iter().flatten().eq(model.iter().copied()));
                assert!((base..base + 60).all(|item| ranges.contains(item) == model.contains(&item)));
                let mut ends = ranges.iter().peekable();
                while let Some(range) = ends.next() {
                    assert!(ends.peek().is_none_or(|next| range.end < next.start));
                }
            }
        }
    }
}
