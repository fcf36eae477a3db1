//! A short-lived list that is mostly of one thing, and takes nothing of the heap then. Must not know: of what.

use std::{iter::Chain, option, vec};

/// Things in the order in which they came.
#[derive(Debug)]
pub(super) struct Handful<T> {
    first: Option<T>,
    more: Vec<T>,
}

impl<T> Default for Handful<T> {
    fn default() -> Self {
        Self { first: None, more: Vec::new() }
    }
}

impl<T> Handful<T> {
    pub(super) fn push(&mut self, thing: T) {
        match self.first {
            None => self.first = Some(thing),
            Some(_) => self.more.push(thing),
        }
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut T> {
        self.more.last_mut().or(self.first.as_mut())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.more)
    }
}

impl<T> Extend<T> for Handful<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, things: I) {
        things.into_iter().for_each(|thing| self.push(thing));
    }
}

impl<T> FromIterator<T> for Handful<T> {
    fn from_iter<I: IntoIterator<Item = T>>(things: I) -> Self {
        let mut all = Self::default();
        all.extend(things);
        all
    }
}

impl<T> IntoIterator for Handful<T> {
    type Item = T;
    type IntoIter = Chain<option::IntoIter<T>, vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_stay_in_order() {
        for count in 0..4 {
            let mut all: Handful<u32> = (0..count).collect();
            assert_eq!((all.len(), all.last_mut().copied()), (count as usize, count.checked_sub(1)));
            assert_eq!(all.more.capacity() > 0, count > 1);
            assert!(all.iter().copied().eq(0..count));
            assert!(all.into_iter().eq(0..count));
        }
    }
}
