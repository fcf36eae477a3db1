//! Tables by item that most entries have nothing in, or one thing: they cost next to no memory then. Must not know: what is in them.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut, Range},
};

use super::ascending::Ascending;

/// A tree that is but a pointer while it is empty. What only reads it sees a tree.
#[expect(clippy::box_collection, reason = "a pointer is smaller than a tree's head, and most are empty")]
#[derive(Debug)]
pub(super) struct Sparse<V>(Option<Box<BTreeMap<u64, V>>>);

impl<V> Default for Sparse<V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V> Sparse<V> {
    pub(super) const NONE: Self = Self(None);

    pub(super) fn get_mut(&mut self, item: &u64) -> Option<&mut V> {
        self.0.as_mut()?.get_mut(item)
    }

    pub(super) fn remove(&mut self, item: &u64) -> Option<V> {
        let tree = self.0.as_mut()?;
        let removed = tree.remove(item);
        if tree.is_empty() {
            self.0 = None;
        }
        removed
    }
}

impl<V> FromIterator<(u64, V)> for Sparse<V> {
    fn from_iter<I: IntoIterator<Item = (u64, V)>>(items: I) -> Self {
        let tree: BTreeMap<_, _> = items.into_iter().collect();
        Self((!tree.is_empty()).then(|| Box::new(tree)))
    }
}

impl<V> Deref for Sparse<V> {
    type Target = BTreeMap<u64, V>;

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Some(tree) => tree,
            None => const { &BTreeMap::new() },
        }
    }
}

/// For what adds to it.
impl<V> DerefMut for Sparse<V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.get_or_insert_default()
    }
}

/// Things by item, of which there is mostly one, or new ones belong behind the others.
#[derive(Debug, Default)]
pub(super) enum Few<V> {
    #[default]
    None,
    /// Of an item whose number takes 32 bits at most.
    One(u32, V),
    /// At least two, or one of a higher number.
    Many(Box<Ascending<u64, V>>),
}

impl<V: Copy> Few<V> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn insert(&mut self, item: u64, value: V) {
        match self {
            Self::None => *self = Self::single(item, value),
            Self::One(one, there) if u64::from(*one) == item => *there = value,
            Self::One(one, there) => *self = Self::Many(Box::new([((*one).into(), *there), (item, value)].into_iter().collect())),
            Self::Many(table) => {
                table.insert(item, value);
            }
        }
    }

    pub(super) fn remove(&mut self, item: u64) {
        match self {
            Self::One(one, _) if u64::from(*one) == item => *self = Self::None,
            Self::None | Self::One(..) => {}
            Self::Many(table) => {
                table.remove(&item);
                if table.len() < 2 {
                    *self = table.first().map_or(Self::None, |(&one, &value)| Self::single(one, value));
                }
            }
        }
    }

    fn single(item: u64, value: V) -> Self {
        match u32::try_from(item) {
            Ok(item) => Self::One(item, value),
            Err(_) => Self::Many(Box::new([(item, value)].into_iter().collect())),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, V)> + '_ {
        self.range(0..u64::MAX)
    }

    /// The last one at an item or before it.
    pub(super) fn before(&self, item: u64) -> Option<(u64, V)> {
        match self {
            Self::One(one, value) if u64::from(*one) <= item => Some(((*one).into(), *value)),
            Self::None | Self::One(..) => None,
            Self::Many(table) => table.before(item).map(|(&at, &value)| (at, value)),
        }
    }

    /// Those of consecutive items that begin before `items` but may reach into them, and those that begin there.
    pub(super) fn around(&self, items: &Range<u64>) -> impl Iterator<Item = (u64, V)> + '_ {
        let after = items.start + 1..items.end.max(items.start + 1);
        self.before(items.start).into_iter().chain(self.range(after))
    }

    fn range(&self, items: Range<u64>) -> impl Iterator<Item = (u64, V)> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one, value) => (Some(((*one).into(), *value)).filter(|(one, _)| items.contains(one)), None),
            Self::Many(table) => (None, items.end.checked_sub(1).map(|last| table.range(items.start..=last))),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(&at, &value)| (at, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn few_are_as_many(
            steps in proptest::collection::vec((0_u64..6, 0_u8..4), 0..40),
            base in proptest::sample::select(vec![0, (1_u64 << 32) - 3]),
        ) {
            let (mut few, mut model) = (Few::default(), BTreeMap::new());
            for (item, what) in steps {
                let item = base + item;
                if what == 0 {
                    few.remove(item);
                    model.remove(&item);
                } else {
                    few.insert(item, what);
                    model.insert(item, what);
                }
                assert!(few.iter().eq(model.iter().map(|(&at, &value)| (at, value))));
                assert_eq!(few.is_empty(), model.is_empty());
                assert_eq!(matches!(few, Few::Many(_)), model.len() > 1 || model.keys().any(|&item| item > u32::MAX.into()));
                for item in base..base + 7 {
                    assert_eq!(few.before(item), model.range(..=item).next_back().map(|(&at, &value)| (at, value)));
                }
            }
        }
    }

    #[test]
    fn an_empty_table_is_a_pointer() {
        let mut sparse = Sparse::default();
        assert_eq!(sparse.len(), 0);
        sparse.insert(3, 'c');
        assert_eq!(sparse.get(&3), Some(&'c'));
        assert_eq!(sparse.remove(&3), Some('c'));
        assert!(sparse.0.is_none());
        assert_eq!(sparse.remove(&3), None);
        assert!(Sparse::from_iter([(7, 'd'); 0]).0.is_none());
        assert_eq!(size_of_val(&sparse), size_of::<usize>());
    }
}
