//! Tables by numbers that are given in ascending order: a client's entries, runs, workers. Must not know: what is in them.
//!
//! Slots lie side by side, by number. From one slot to the next a number grows by one at least, so the distances from the first and the last
//! number are bounds for a number's place: where none are left out, it is found at once, and by bisection otherwise. What is taken out
//! leaves an empty slot, and those are swept away once they are the most.

use std::ops::RangeInclusive;

use crate::ids::{ClientId, RunId, WorkerId};

/// Empty slots that are never worth a sweep.
const FEW: usize = 32;

/// What numbers the things of a table.
pub(super) trait Number: Copy {
    fn number(self) -> u64;
}

impl Number for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl Number for ClientId {
    fn number(self) -> u64 {
        self.0
    }
}

impl Number for RunId {
    fn number(self) -> u64 {
        self.0
    }
}

impl Number for WorkerId {
    fn number(self) -> u64 {
        self.0
    }
}

/// A table that is fast where numbers are dense and new ones are the highest. It is in order, always.
#[derive(Debug)]
pub(super) struct Ascending<K, V> {
    /// By ascending number. The last one is not empty.
    slots: Vec<(K, Option<V>)>,
    /// Empty ones before the first one that is not.
    start: usize,
    /// That one's number.
    first: u64,
    /// Slots that are not empty.
    len: usize,
}

impl<K, V> Default for Ascending<K, V> {
    fn default() -> Self {
        Self { slots: Vec::new(), start: 0, first: 0, len: 0 }
    }
}

type Slots<'a, K, V> = std::slice::Iter<'a, (K, Option<V>)>;
type Full<'a, K, V> = fn(&'a (K, Option<V>)) -> Option<(&'a K, &'a V)>;

impl<'a, K, V> IntoIterator for &'a Ascending<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::FilterMap<Slots<'a, K, V>, Full<'a, K, V>>;

    fn into_iter(self) -> Self::IntoIter {
        self.live().iter().filter_map(full)
    }
}

fn full<K, V>((key, value): &(K, Option<V>)) -> Option<(&K, &V)> {
    value.as_ref().map(|value| (key, value))
}

impl<K, V> Ascending<K, V> {
    /// Slots from the first that is not empty.
    fn live(&self) -> &[(K, Option<V>)] {
        self.slots.get(self.start..).unwrap_or_default()
    }
}

impl<K: Number, V> Ascending<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.slots.get(self.find(key.number())?)?.1.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key.number())?;
        self.slots.get_mut(at)?.1.as_mut()
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts something in, and gives back what was there. Moves all that is behind it, if its number is not the highest so far.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let number = key.number();
        let before = match self.slots.last() {
            Some(last) if number <= last.0.number() => match self.bisect(number) {
                Ok(at) => self.slots.get_mut(at).and_then(|slot| slot.1.replace(value)),
                Err(at) => {
                    // What was moved on by a little leaves its own place empty, just before.
                    match at.checked_sub(1).and_then(|before| self.slots.get_mut(before)) {
                        Some(slot) if slot.1.is_none() && at > self.start => *slot = (key, Some(value)),
                        _ => self.slots.insert(at, (key, Some(value))),
                    }
                    None
                }
            },
            _ => {
                self.slots.push((key, Some(value)));
                None
            }
        };
        self.len += usize::from(before.is_none());
        if self.len == 1 || number < self.first {
            self.first = number;
        }
        before
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key.number())?;
        let value = self.slots.get_mut(at)?.1.take()?;
        self.len -= 1;
        self.tidy(at);
        Some(value)
    }

    pub(super) fn iter(&self) -> <&Self as IntoIterator>::IntoIter {
        self.into_iter()
    }

    /// Those of some numbers.
    pub(super) fn range(&self, numbers: RangeInclusive<u64>) -> impl Iterator<Item = (&K, &V)> {
        let (Ok(start) | Err(start)) = self.bisect(*numbers.start());
        let slots = self.slots.get(start..).unwrap_or_default().iter().filter_map(full);
        slots.take_while(move |(key, _)| key.number() <= *numbers.end())
    }

    /// The last one of this number or a lower one.
    pub(super) fn before(&self, number: u64) -> Option<(&K, &V)> {
        let end = self.bisect(number).map_or_else(|at| at, |at| at + 1);
        self.slots.get(self.start..end)?.iter().rev().find_map(full)
    }

    pub(super) fn first(&self) -> Option<(&K, &V)> {
        self.live().first().and_then(full)
    }

    pub(super) fn last(&self) -> Option<(&K, &V)> {
        self.slots.last().and_then(full)
    }

    pub(super) fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.slots.iter_mut().filter_map(|(key, value)| value.as_mut().map(|value| (&*key, value)))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }

    /// The place of a slot, which may be an empty one.
    #[inline]
    fn find(&self, number: u64) -> Option<usize> {
        let at = self.start.wrapping_add(number.wrapping_sub(self.first) as usize);
        match self.slots.get(at) {
            Some(slot) if slot.0.number() == number => Some(at),
            _ => self.bisect(number).ok(),
        }
    }

    /// The place of a slot, or where one belongs.
    fn bisect(&self, number: u64) -> Result<usize, usize> {
        let at = |place: usize| self.slots.get(place).map_or(u64::MAX, |slot| slot.0.number());
        let Some(last_place) = self.slots.len().checked_sub(1).filter(|_| self.len > 0) else { return Err(self.slots.len()) };
        let last = at(last_place);
        if number > last {
            return Err(last_place + 1);
        }
        let Some(distance) = number.checked_sub(self.first) else { return Err(self.start) };
        let most = |distance: u64| usize::try_from(distance).unwrap_or(usize::MAX);
        let mut start = last_place.saturating_sub(most(last - number)).max(self.start);
        let mut end = last_place.min(self.start.saturating_add(most(distance)));
        // What lies at `end` is not lower; so the number's place is there at most.
        while start < end {
            let middle = start + (end - start) / 2;
            if at(middle) < number { start = middle + 1 } else { end = middle }
        }
        if at(start) == number { Ok(start) } else { Err(start) }
    }

    /// Keeps the bounds after slot `at` was emptied: there are no empty slots at the end, those at the beginning are fewer than half, and
    /// those in all no more than the others.
    fn tidy(&mut self, at: usize) {
        if self.len == 0 {
            self.slots.clear();
            self.start = 0;
            return self.shrink();
        }
        if at == self.start {
            self.skip_empty();
        } else if at + 1 == self.slots.len() {
            self.drop_empty_end();
        }
        if self.start > self.slots.len() / 2 + FEW {
            self.slots.drain(..self.start);
            self.start = 0;
            self.shrink();
        }
        if self.slots.len() - self.start > 2 * self.len + FEW {
            self.slots.retain(|slot| slot.1.is_some());
            self.start = 0;
            self.shrink();
        }
    }

    /// Finds the first slot that is not empty, which there is.
    #[inline]
    fn skip_empty(&mut self) {
        while let Some((key, value)) = self.slots.get(self.start) {
            if value.is_some() {
                self.first = key.number();
                return;
            }
            self.start += 1;
        }
    }

    fn drop_empty_end(&mut self) {
        while self.slots.pop_if(|slot| slot.1.is_none()).is_some() {}
        self.shrink();
    }

    /// Gives memory back.
    fn shrink(&mut self) {
        if self.slots.capacity() > 4 * self.slots.len() + FEW {
            self.slots.shrink_to(2 * self.slots.len());
        }
    }
}

impl<K: Number, V> FromIterator<(K, V)> for Ascending<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(things: I) -> Self {
        let mut table = Self::default();
        things.into_iter().for_each(|(key, value)| drop(table.insert(key, value)));
        table
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    proptest::proptest! {
        #[test]
        fn behaves_like_a_tree(
            steps in proptest::collection::vec((0_u8..8, 0_u64..400), 0..400),
            stride in 1_u64..5,
        ) {
            let (mut table, mut model) = (Ascending::<u64, u64>::default(), BTreeMap::new());
            let mut next = 1;
            for (what, number) in steps {
                match what {
                    0..=2 => {
                        next += if number % 16 == 0 { number } else { stride };
                        assert_eq!(table.insert(next, number), model.insert(next, number));
                    }
                    3 => assert_eq!(table.insert(number, what.into()), model.insert(number, what.into())),
                    4 => assert_eq!(table.remove(&number), model.remove(&number)),
                    _ => {
                        let some = model.keys().copied().nth(number as usize % model.len().max(1)).unwrap_or(7);
                        assert_eq!(table.remove(&some), model.remove(&some));
                    }
                }
                assert!(table.iter().eq(model.iter()));
                assert_eq!((table.len(), table.first(), table.last()), (model.len(), model.first_key_value(), model.last_key_value()));
                assert!(table.live().len() <= 2 * table.len() + FEW);
                assert!(table.start <= table.slots.len() / 2 + FEW);
                assert_eq!(table.live().first().map(|slot| slot.0), table.first().map(|(&key, _)| key));
                for number in [0, 1, number, next / 2, next, next + 1] {
                    assert_eq!(table.get(&number), model.get(&number));
                    assert_eq!(table.before(number), model.range(..=number).next_back());
                    assert!(table.range(number..=next.max(number)).eq(model.range(number..=next.max(number))));
                }
            }
        }
    }
}
