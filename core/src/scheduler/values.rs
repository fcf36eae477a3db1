//! Results that the scheduler itself holds, in the runs they came in. Must not know: who wants them.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;

use crate::codec::Run;

/// Values of an entry's items. A run is kept until the last of its items is gone. Without any it is but a pointer: most entries wait.
#[derive(Debug, Default)]
pub(super) struct Values(Option<Box<Blocks>>);

#[derive(Debug, Default)]
struct Blocks {
    /// The first block to come, so that a call costs no tree.
    one: Option<(u64, Block)>,
    more: BTreeMap<u64, Block>,
}

#[derive(Debug)]
struct Block {
    run: Run,
    live: u32,
}

impl Values {
    /// Keeps the values of consecutive items, of which none is there yet.
    pub(super) fn insert(&mut self, first: u64, run: Run) {
        let live = run.count();
        self.restore(first, run, live);
    }

    /// Keeps the values of consecutive items, of which only so many are there.
    pub(super) fn restore(&mut self, first: u64, run: Run, live: u32) {
        let block = Block { live, run };
        let blocks = self.0.get_or_insert_default();
        if blocks.one.is_none() {
            blocks.one = Some((first, block));
        } else {
            blocks.more.insert(first, block);
        }
    }

    /// Forgets the values of items that are there. `gone` is told the first items of runs of which nothing is left.
    pub(super) fn remove(&mut self, range: Range<u64>, mut gone: impl FnMut(u64)) {
        let mut at = range.start;
        while at < range.end {
            let Some((first, end)) = self.block_at(at).map(|(first, block)| (first, first + u64::from(block.run.count()))) else {
                return;
            };
            let count = (end.min(range.end) - at) as u32;
            let Some(blocks) = self.0.as_deref_mut() else { return };
            if let Some((_, block)) = blocks.one.as_mut().filter(|(one, _)| *one == first) {
                block.live -= count;
                if block.live == 0 {
                    gone(first);
                    blocks.one = None;
                }
            } else if let Some(block) = blocks.more.get_mut(&first) {
                block.live -= count;
                if block.live == 0 {
                    gone(first);
                    blocks.more.remove(&first);
                }
            }
            at = end;
        }
        if self.0.as_ref().is_some_and(|blocks| blocks.one.is_none() && blocks.more.is_empty()) {
            self.0 = None;
        }
    }

    /// The value of an item.
    pub(super) fn get(&self, item: u64) -> Option<Bytes> {
        self.block_at(item).and_then(|(first, block)| block.run.get((item - first) as u32))
    }

    /// The values of items that are there, in as few runs as they came in.
    pub(super) fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Run)> + '_ {
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let (first, block) = self.block_at(at)?;
            let start = at;
            at = range.end.min(first + u64::from(block.run.count()));
            let part = (start - first) as u32..(at - first) as u32;
            Some((start, if part.len() == block.run.count() as usize { block.run.clone() } else { block.run.slice(part) }))
        })
    }

    /// Number of values, also of items that are gone but share a run with others.
    pub(super) fn live(&self) -> u64 {
        let blocks = self.0.iter().flat_map(|blocks| blocks.one.iter().map(|(_, block)| block).chain(blocks.more.values()));
        blocks.map(|block| u64::from(block.live)).sum()
    }

    fn block_at(&self, item: u64) -> Option<(u64, &Block)> {
        let covers = |first: u64, block: &Block| item >= first && item - first < u64::from(block.run.count());
        let blocks = self.0.as_deref()?;
        blocks.one.as_ref().map(|(first, block)| (*first, block)).filter(|(first, block)| covers(*first, block)).or_else(|| {
            blocks
                .more
                .range(..=item)
                .next_back()
                .map(|(first, block)| (*first, block))
                .filter(|(first, block)| covers(*first, block))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Lens;

    #[test]
    fn blocks_live_as_long_as_their_last_item() {
        let run = |text: &'static str| Run::checked(text.len() as u32, Lens::Same(1), text.into()).expect("agrees");
        let mut values = Values::default();
        values.insert(4, run("efgh"));
        values.insert(0, run("abcd"));
        assert_eq!(values.get(5).as_deref(), Some(&b"f"[..]));
        let runs: Vec<_> = values.runs(2..6).collect();
        assert_eq!(runs, [(2, run("cd")), (4, run("ef"))]);
        let mut gone = Vec::new();
        values.remove(1..7, |first| gone.push(first));
        assert_eq!(gone, []);
        assert_eq!(values.live(), 2);
        values.remove(0..1, |first| gone.push(first));
        assert_eq!(gone, [0]);
        assert_eq!(values.get(2), None);
        values.remove(7..8, |first| gone.push(first));
        assert_eq!(gone, [0, 4]);
        assert_eq!(values.live(), 0);
    }
}
