//! A byte for each of a few thousand items, which are mostly alike over long stretches. Must not know: what the bytes mean.

use std::ops::Range;

/// Stretches of one list: beyond that, a byte an item is smaller, or at least as fast.
const MOST: usize = 64;

/// Bytes by item, from 0. As long as few neighbours differ, they cost the same however many they are, and so does every change.
#[derive(Debug)]
pub(super) enum Stretches {
    /// Where each stretch ends and its byte. Neighbours differ, and none is empty.
    Few(Vec<(u32, u8)>),
    Each(Vec<u8>),
}

impl Default for Stretches {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Stretches {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.last().map_or(0, |(end, _)| *end as usize),
            Self::Each(bytes) => bytes.len(),
        }
    }

    /// Appends items that have the same byte.
    pub(super) fn push(&mut self, count: usize, byte: u8) {
        let end = self.len() + count;
        match self {
            Self::Each(bytes) => bytes.resize(end, byte),
            Self::Few(list) => match list.last_mut() {
                Some((last, same)) if *same == byte => *last = end as u32,
                _ => {
                    list.push((end as u32, byte));
                    self.spread();
                }
            },
        }
    }

    /// The byte of item `first`, and where the items end that have the same, but not beyond `end`; `None` if there is no such item.
    pub(super) fn alike(&self, first: usize, end: usize) -> Option<(u8, usize)> {
        match self {
            Self::Few(list) => {
                let &(last, byte) = list.get(place_of(list, first))?;
                Some((byte, end.min(last as usize)))
            }
            Self::Each(bytes) => {
                let rest = bytes.get(first..end.min(bytes.len()))?;
                let &byte = rest.first()?;
                Some((byte, first + count_alike(rest, byte)))
            }
        }
    }

    /// Changes the bytes of items, all of which are there.
    pub(super) fn change(&mut self, items: Range<usize>, new: impl Fn(u8) -> u8) {
        if items.is_empty() {
            return;
        }
        match self {
            Self::Each(bytes) => bytes.get_mut(items).unwrap_or_default().iter_mut().for_each(|byte| *byte = new(*byte)),
            Self::Few(list) => {
                let first = split(list, items.start);
                let after = split(list, items.end);
                list.get_mut(first..after).unwrap_or_default().iter_mut().for_each(|(_, byte)| *byte = new(*byte));
                list.dedup_by(|later, earlier| {
                    let are_alike = later.1 == earlier.1;
                    if are_alike {
                        earlier.0 = later.0;
                    }
                    are_alike
                });
                self.spread();
            }
        }
    }

    /// If the stretches are too many, from here on each item has a byte.
    fn spread(&mut self) {
        let Self::Few(list) = self else { return };
        if list.len() > MOST {
            let mut bytes = Vec::new();
            list.iter().for_each(|&(end, byte)| bytes.resize(end as usize, byte));
            *self = Self::Each(bytes);
        }
    }
}

/// The place of the stretch that has an item.
fn place_of(list: &[(u32, u8)], item: usize) -> usize {
    list.iter().position(|(end, _)| item < *end as usize).unwrap_or(list.len())
}

/// Has a stretch begin at an item; gives its place.
fn split(list: &mut Vec<(u32, u8)>, item: usize) -> usize {
    let at = place_of(list, item);
    let start = at.checked_sub(1).and_then(|before| list.get(before)).map_or(0, |(end, _)| *end as usize);
    match list.get(at) {
        Some(&(_, byte)) if start < item => {
            list.insert(at, (item as u32, byte));
            at + 1
        }
        _ => at,
    }
}

/// How many of the first ones are this byte. Blocks of them are compared at a time, which takes a few instructions.
fn count_alike(bytes: &[u8], byte: u8) -> usize {
    const BLOCK: usize = 64;
    let blocks =
        bytes.chunks_exact(BLOCK).take_while(|block| block.iter().fold(0, |differs, other| differs | (other ^ byte)) == 0);
    let alike = blocks.count() * BLOCK;
    alike + bytes[alike..].iter().take_while(|&&other| other == byte).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn behave_like_a_list(steps in proptest::collection::vec((0_u8..4, 0_usize..400, 1_usize..40, 0_u8..3), 0..200)) {
            let (mut stretches, mut model) = (Stretches::default(), Vec::<u8>::new());
            for (what, first, count, byte) in steps {
                if what == 0 {
                    stretches.push(count, byte);
                    model.resize(model.len() + count, byte);
                } else {
                    let items = first.min(model.len())..(first + count).min(model.len());
                    stretches.change(items.clone(), |old| old & 4 | byte);
                    model[items].iter_mut().for_each(|old| *old = *old & 4 | byte);
                }
                assert_eq!(stretches.len(), model.len());
                let (mut at, mut found) = (0, Vec::new());
                while let Some((byte, end)) = stretches.alike(at, model.len()) {
                    assert!(end > at && model.get(end).is_none_or(|next| *next != byte));
                    found.resize(end, byte);
                    at = end;
                }
                assert_eq!(found, model);
                if let Stretches::Few(list) = &stretches {
                    assert!(list.len() <= MOST);
                }
                let end = (first + count).min(model.len());
                let limited = stretches.alike(first, end);
                assert_eq!(limited.is_some(), first < end);
                assert!(limited.is_none_or(|(byte, until)| until <= end && model[first..until].iter().all(|other| *other == byte)));
            }
        }
    }
}
