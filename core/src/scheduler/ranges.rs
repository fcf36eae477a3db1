//! A set of item numbers, kept as disjoint ranges. Must not know: what the items are.

use std::{collections::BTreeMap, ops::Range};

/// Item numbers; costs memory per gap, not per item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    /// First to end; neither overlapping nor touching.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(&first, &end)| first..end)
    }

    pub(super) fn contains(&self, item: u64) -> bool {
        self.ends.range(..=item).next_back().is_some_and(|(_, &end)| item < end)
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut first, mut end) = (range.start, range.end);
        if let Some((&before, before_end)) = self.ends.range_mut(..=first).next_back()
            && *before_end >= first
        {
            if *before_end >= end {
                return;
            }
            first = before;
        }
        while let Some((&next, &next_end)) = self.ends.range(first..=end).next() {
            end = end.max(next_end);
            self.ends.remove(&next);
        }
        self.ends.insert(first, end);
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&first, &end)) = self.ends.range(..range.end).next_back() {
            if end <= range.start {
                return;
            }
            self.ends.remove(&first);
            if range.end < end {
                self.ends.insert(range.end, end);
            }
            if first < range.start {
                self.ends.insert(first, range.start);
                return;
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
                match other.ends.range(..=at).next_back() {
                    Some((_, &end)) if at < end => {
                        if inside {
                            return Some((at..end.min(range.end), true));
                        }
                        at = end;
                    }
                    _ => {
                        let end = other.ends.range(at..).next().map_or(range.end, |(&first, _)| first.min(range.end));
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
        fn behaves_like_a_set(steps in proptest::collection::vec((0_u64..40, 0_u64..10, proptest::bool::ANY), 0..60)) {
            let (mut ranges, mut model) = (Ranges::default(), std::collections::BTreeSet::new());
            for (first, count, insert) in steps {
                if insert {
                    ranges.insert(first..first + count);
                    model.extend(first..first + count);
                } else {
                    ranges.remove(first..first + count);
                    (first..first + count).for_each(|item| { model.remove(&item); });
                }
                assert!(ranges.iter().flatten().eq(model.iter().copied()));
                assert!((0..60).all(|item| ranges.contains(item) == model.contains(&item)));
                let mut ends = ranges.iter().peekable();
                while let Some(range) = ends.next() {
                    assert!(ends.peek().is_none_or(|next| range.end < next.start));
                }
            }
        }
    }
}
