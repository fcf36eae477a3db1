//! A packed run: the encodings of consecutive items, back to back, with their lengths.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How long the items of a run are, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lens {
    /// All alike.
    Same(u32),
    /// One length an item.
    Each(Vec<u32>),
}

/// Encodings of `count` consecutive items. Cloning and slicing share the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    count: u32,
    lens: Lens,
    bytes: Bytes,
}

impl Default for Run {
    fn default() -> Self {
        Self { count: 0, lens: Lens::Same(0), bytes: Bytes::new() }
    }
}

impl Run {
    /// A run of one item.
    #[must_use]
    pub fn single(bytes: Bytes) -> Option<Self> {
        Some(Self { count: 1, lens: Lens::Same(u32::try_from(bytes.len()).ok()?), bytes })
    }

    /// A run of what a peer or guest sent; `None` if lengths, count and bytes contradict each other.
    #[must_use]
    pub fn checked(count: u32, lens: Lens, bytes: Bytes) -> Option<Self> {
        let run = Self { count, lens, bytes };
        run.is_valid().then_some(run)
    }

    /// Whether lengths, count and bytes agree. True of every run built here; to be asked once of every run that a peer sent.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        match &self.lens {
            Lens::Same(len) => u64::from(self.count) * u64::from(*len) == self.bytes.len() as u64,
            Lens::Each(lens) => {
                lens.len() == self.count as usize
                    && lens.iter().map(|&len| u64::from(len)).sum::<u64>() == self.bytes.len() as u64
            }
        }
    }

    /// Number of items.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The items' lengths.
    #[must_use]
    pub fn lens(&self) -> &Lens {
        &self.lens
    }

    /// All items' bytes, back to back.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes of item `index`, if there is one. Costs a walk over the lengths before it.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Bytes> {
        (index < self.count).then(|| {
            let range = self.byte_range(index..index + 1);
            self.bytes.slice(range)
        })
    }

    /// The length in bytes of item `index`, if there is one.
    #[must_use]
    pub fn len_at(&self, index: u32) -> Option<usize> {
        (index < self.count).then(|| self.item_len(index as usize))
    }

    /// The length in bytes of items `range` together, which must lie within the run.
    ///
    /// # Panics
    /// If `range` goes past the end.
    #[must_use]
    pub fn len_of(&self, range: Range<u32>) -> usize {
        match &self.lens {
            Lens::Same(len) => range.len() * *len as usize,
            Lens::Each(lens) => total(&lens[range.start as usize..range.end as usize]),
        }
    }

    /// Items `range`, which must lie within the run, sharing its bytes.
    ///
    /// # Panics
    /// If `range` goes past the end.
    #[must_use]
    pub fn slice(&self, range: Range<u32>) -> Self {
        let bytes = self.bytes.slice(self.byte_range(range.clone()));
        let lens = match &self.lens {
            Lens::Same(len) => Lens::Same(*len),
            Lens::Each(lens) => Lens::Each(lens[range.start as usize..range.end as usize].to_vec()),
        };
        Self { count: range.end - range.start, lens, bytes }
    }

    /// Each item's bytes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        (0..self.count as usize).map(move |i| {
            let (item, tail) = rest.split_at(self.item_len(i));
            rest = tail;
            item
        })
    }

    fn item_len(&self, index: usize) -> usize {
        match &self.lens {
            Lens::Same(len) => *len as usize,
            Lens::Each(lens) => lens[index] as usize,
        }
    }

    fn byte_range(&self, range: Range<u32>) -> Range<usize> {
        match &self.lens {
            Lens::Same(len) => range.start as usize * *len as usize..range.end as usize * *len as usize,
            Lens::Each(lens) => {
                let start = total(&lens[..range.start as usize]);
                start..start + total(&lens[range.start as usize..range.end as usize])
            }
        }
    }
}

fn total(lens: &[u32]) -> usize {
    lens.iter().map(|&len| len as usize).sum()
}

/// Collects items into a [`Run`].
#[derive(Debug, Default)]
pub struct RunBuilder {
    lens: Vec<u32>,
    bytes: Vec<u8>,
}

impl RunBuilder {
    /// Where an item's encoding is to be appended; [`RunBuilder::end_item`] closes it.
    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Closes the item that began where the last one ended. `start` is the buffer's length before it.
    ///
    /// # Errors
    /// With the item's length, when it is 4 GiB or more; the item is taken off again.
    #[inline]
    pub fn end_item(&mut self, start: usize) -> Result<(), usize> {
        let len = self.bytes.len() - start;
        match u32::try_from(len) {
            Ok(len) => self.lens.push(len),
            Err(_) => {
                self.bytes.truncate(start);
                return Err(len);
            }
        }
        Ok(())
    }

    /// Appends one finished item of less than 4 GiB.
    ///
    /// # Errors
    /// As [`RunBuilder::end_item`].
    pub fn push(&mut self, item: &[u8]) -> Result<(), usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(item);
        self.end_item(start)
    }

    /// Number of items so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lens.len()
    }

    /// Number of bytes so far.
    #[inline]
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the run out and starts anew.
    pub fn take(&mut self) -> Run {
        let lens = std::mem::take(&mut self.lens);
        let count = lens.len() as u32;
        let lens = match lens.first() {
            Some(&first) if lens.iter().all(|&len| len == first) => Lens::Same(first),
            None => Lens::Same(0),
            Some(_) => Lens::Each(lens),
        };
        Run { count, lens, bytes: Bytes::from(std::mem::take(&mut self.bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(items: &[&[u8]]) -> Run {
        let mut builder = RunBuilder::default();
        for item in items {
            builder.push(item).expect("short");
        }
        builder.take()
    }

    #[test]
    fn items_come_back() {
        let run = run_of(&[b"a", b"", b"ccc"]);
        assert_eq!(run.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"ccc"]);
        assert_eq!(run.get(2).as_deref(), Some(&b"ccc"[..]));
        assert_eq!(run.get(3), None);
        assert!(run.is_valid());
    }

    #[test]
    fn slices_share_bytes() {
        let whole = run_of(&[b"a", b"bb", b"ccc", b"d"]);
        let run = whole.slice(1..3);
        assert_eq!((whole.len_of(1..3), run.bytes().len()), (5, 5));
        assert_eq!(run.iter().collect::<Vec<_>>(), [&b"bb"[..], b"ccc"]);
        assert_eq!(run_of(&[b"aa", b"bb"]).slice(1..2).lens(), &Lens::Same(2));
        assert_eq!(run.slice(1..1).count(), 0);
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(Run::checked(2, Lens::Same(3), Bytes::from_static(b"12345")), None);
        assert_eq!(Run::checked(2, Lens::Each(vec![1]), Bytes::from_static(b"1")), None);
        assert_eq!(Run::checked(u32::MAX, Lens::Same(u32::MAX), Bytes::new()), None);
    }
}
