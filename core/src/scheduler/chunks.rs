//! Arguments of an entry's items, in the chunks in which they came, each kept until none of its items needs it. Must not know: whose they
//! are, and what they read.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use smallvec::SmallVec;

use super::edges::EdgeId;
use crate::{
    codec::{Args, Hole, Run},
    wire::args_cost,
};

/// A single item's arguments of at most so many bytes need nothing of the heap.
const SHORT: usize = 22;

/// Edges of the holes, by the hole's position.
pub(super) type HoleEdges = SmallVec<[(u32, EdgeId); 1]>;

/// All chunks of an entry. The first one has items that keep their arguments, if there is any; later ones need not.
#[derive(Debug, Default)]
pub(super) enum Chunks {
    #[default]
    None,
    /// Of item 0 alone, which is all that a call has.
    Short {
        len: u8,
        bytes: [u8; SHORT],
        /// What most calls do not have.
        reads: Option<Box<Reads>>,
    },
    /// By first item.
    #[expect(clippy::box_collection, reason = "a pointer is smaller than a queue's head, and most entries are calls")]
    Many(Box<VecDeque<Whole>>),
}

#[derive(Debug)]
pub(super) struct Reads {
    holes: Vec<Hole>,
    edges: HoleEdges,
}

#[derive(Debug)]
pub(super) struct Whole {
    first: u64,
    count: u32,
    /// Items whose arguments are kept.
    holding: u32,
    /// Emptied once nobody holds it.
    args: Args,
    edges: HoleEdges,
}

/// Arguments of consecutive items, as they came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) first: u64,
    pub(super) count: u64,
    /// Items whose arguments are kept.
    pub(super) holding: u64,
    /// Emptied once nobody holds it.
    pub(super) holes: &'a [Hole],
    pub(super) edges: &'a [(u32, EdgeId)],
    form: Form<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Short(&'a [u8]),
    Whole(&'a Args),
}

impl Chunk<'_> {
    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.first + self.count
    }

    /// The arguments of items `part`, counted from the chunk's first.
    pub(super) fn args(&self, part: Range<u32>) -> Args {
        match self.form {
            Form::Whole(args) if part == (0..args.count()) => args.clone(),
            Form::Whole(args) => args.slice(part),
            Form::Short(bytes) => {
                // It is as short as can be.
                let run = Run::single(Bytes::copy_from_slice(bytes)).unwrap_or_default();
                Args { run, holes: self.holes.to_vec() }
            }
        }
    }

    /// Bytes of the arguments of items `part`, counted from the chunk's first.
    pub(super) fn len_of(&self, part: Range<u32>) -> usize {
        match self.form {
            Form::Whole(args) => args.run.len_of(part),
            Form::Short(bytes) => bytes.len(),
        }
    }

    /// What they cost their client as long as any of them is kept, beside the entry.
    pub(super) fn cost(&self) -> u64 {
        match self.form {
            Form::Whole(args) => args.cost(),
            Form::Short(bytes) => args_cost(bytes.len(), 1, self.holes),
        }
    }
}

impl Whole {
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    fn view(&self) -> Chunk<'_> {
        Chunk {
            first: self.first,
            count: self.count.into(),
            holding: self.holding.into(),
            holes: &self.args.holes,
            edges: &self.edges,
            form: Form::Whole(&self.args),
        }
    }

    fn part(&self, items: &Range<u64>) -> Range<u64> {
        items.start.max(self.first)..items.end.min(self.end())
    }
}

impl Chunks {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Appends the arguments of items from number `first`, all of which keep them.
    pub(super) fn push(&mut self, first: u64, args: Args) {
        let run_len = args.run.bytes().len();
        if self.is_empty() && first == 0 && args.count() == 1 && run_len <= SHORT {
            let mut bytes = [0; SHORT];
            bytes[..run_len].copy_from_slice(args.run.bytes());
            let reads = (!args.holes.is_empty()).then(|| Box::new(Reads { holes: args.holes, edges: HoleEdges::new() }));
            *self = Self::Short { len: run_len as u8, bytes, reads };
            return;
        }
        let mut many = match std::mem::take(self) {
            Self::Many(many) => many,
            few => Box::new(few.widened()),
        };
        let count = args.count();
        many.push_back(Whole { first, count, holding: count, args, edges: HoleEdges::new() });
        *self = Self::Many(many);
    }

    /// What is there, at most one chunk, with room for another one.
    fn widened(&self) -> VecDeque<Whole> {
        let mut many = VecDeque::with_capacity(1);
        many.extend(self.short().map(|chunk| {
            let (args, edges) = (chunk.args(0..1), chunk.edges.into());
            Whole { first: 0, count: 1, holding: 1, args, edges }
        }));
        many
    }

    /// The chunk that has an item.
    pub(super) fn get(&self, item: u64) -> Option<Chunk<'_>> {
        match self {
            Self::Many(many) => {
                let at = place_of(many, item);
                many.get(at).filter(|chunk| chunk.first <= item).map(Whole::view)
            }
            _ => self.short().filter(|_| item == 0),
        }
    }

    fn short(&self) -> Option<Chunk<'_>> {
        let Self::Short { len, bytes, reads } = self else { return None };
        let (holes, edges) = reads.as_ref().map_or((&[][..], &[][..]), |reads| (&reads.holes, &reads.edges));
        let form = Form::Short(bytes.get(..usize::from(*len)).unwrap_or_default());
        Some(Chunk { first: 0, count: 1, holding: 1, holes, edges, form })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Chunk<'_>> {
        let many = if let Self::Many(many) = self { Some(many.iter().map(Whole::view)) } else { None };
        self.short().into_iter().chain(many.into_iter().flatten())
    }

    /// Those from the one that has an item, or the next one.
    pub(super) fn iter_from(&self, item: u64) -> impl Iterator<Item = Chunk<'_>> {
        let many = if let Self::Many(many) = self {
            let from = place_of(many, item);
            Some(many.range(from..).map(Whole::view))
        } else {
            None
        };
        self.short().filter(|_| item == 0).into_iter().chain(many.into_iter().flatten())
    }

    /// Notes the edges of the chunk that has an item.
    pub(super) fn set_edges(&mut self, item: u64, found: HoleEdges) {
        match self {
            Self::Many(many) => {
                let at = place_of(many, item);
                if let Some(chunk) = many.get_mut(at) {
                    chunk.edges = found;
                }
            }
            Self::Short { reads: Some(reads), .. } => reads.edges = found,
            _ => {}
        }
    }

    /// Has the edges of chunks looked through that have any of `items`: those items, the chunk's first, its holes and edges are told.
    pub(super) fn each_edges(&mut self, items: &Range<u64>, mut work: impl FnMut(Range<u64>, u64, &[Hole], &mut HoleEdges)) {
        match self {
            Self::Many(many) => {
                let from = place_of(many, items.start);
                for chunk in many.range_mut(from..).take_while(|chunk| chunk.first < items.end) {
                    work(chunk.part(items), chunk.first, &chunk.args.holes, &mut chunk.edges);
                }
            }
            Self::Short { reads: Some(reads), .. } if items.start == 0 => work(0..1, 0, &reads.holes, &mut reads.edges),
            _ => {}
        }
    }

    /// These items, which kept their arguments, do not need them any more. `gone` is told the first items of chunks of which nothing is
    /// kept now, and what they cost.
    pub(super) fn let_go(&mut self, items: &Range<u64>, mut gone: impl FnMut(u64, u64)) {
        let Self::Many(many) = self else {
            if let Some(chunk) = self.get(items.start) {
                gone(0, chunk.cost());
                *self = Self::None;
            }
            return;
        };
        let from = place_of(many, items.start);
        for chunk in many.range_mut(from..).take_while(|chunk| chunk.first < items.end) {
            let part = chunk.part(items);
            chunk.holding -= (part.end - part.start) as u32;
            if chunk.holding == 0 {
                gone(chunk.first, chunk.args.cost());
                chunk.args = Args::default();
            }
        }
        while many.front().is_some_and(|chunk| chunk.holding == 0) {
            many.pop_front();
        }
        if many.is_empty() {
            *self = Self::None;
        }
    }

    /// Of each chunk only so many items, counted by `count`, keep their arguments; chunks of which none does are forgotten.
    pub(super) fn keep(&mut self, mut count: impl FnMut(Range<u64>) -> u64) {
        if let Self::Many(many) = self {
            many.iter_mut().for_each(|chunk| chunk.holding = count(chunk.first..chunk.end()) as u32);
            many.retain(|chunk| chunk.holding > 0);
        }
        let is_gone = match self {
            Self::Many(many) => many.is_empty(),
            _ => self.short().is_some_and(|chunk| count(chunk.range()) == 0),
        };
        if is_gone {
            *self = Self::None;
        }
    }
}

/// The place of the chunk that has an item, or of the next one. Where all are as long as the first, it is found at once.
fn place_of(many: &VecDeque<Whole>, item: u64) -> usize {
    let guess = many.front().and_then(|front| item.checked_sub(front.first)?.checked_div(front.count.into()));
    let guess = guess.map_or(0, |guess| guess as usize);
    match many.get(guess) {
        Some(chunk) if chunk.first <= item && item < chunk.end() => guess,
        _ => many.partition_point(|chunk| chunk.end() <= item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::{RunBuilder, Source},
        ids::{ClientId, EntryId},
    };

    fn args(items: &[&[u8]], holes: usize) -> Args {
        let mut builder = RunBuilder::default();
        items.iter().for_each(|item| builder.push(item).expect("short"));
        let source = Source::Same(EntryId { client: ClientId(1), seq: 1 }.key(0));
        Args { run: builder.take(), holes: vec![Hole { first: 0, count: 1, field: 0, source }; holes] }
    }

    /// However long it is, and whether others follow: a call's arguments come back as they came.
    #[test]
    fn arguments_come_back() {
        let long = [7; SHORT + 1];
        for given in [args(&[b"abc"], 0), args(&[b""], 1), args(&[&long[..SHORT]], 2), args(&[&long], 1)] {
            let mut chunks = Chunks::default();
            chunks.push(0, given.clone());
            chunks.set_edges(0, smallvec::smallvec![(0, 7)]);
            assert_eq!(matches!(chunks, Chunks::Short { .. }), given.run.bytes().len() <= SHORT);
            for is_alone in [true, false] {
                let chunk = chunks.get(0).expect("here");
                assert_eq!((chunk.args(0..1), chunk.len_of(0..1)), (given.clone(), given.run.bytes().len()));
                assert_eq!((chunk.cost(), chunk.range()), (given.cost(), 0..1));
                assert_eq!(chunk.edges.is_empty(), given.holes.is_empty() && given.run.bytes().len() <= SHORT);
                assert_eq!(chunks.iter().count(), if is_alone { 1 } else { 2 });
                chunks.push(if is_alone { 1 } else { 3 }, args(&[b"xx", b"yz"], 0));
            }
            assert_eq!(chunks.get(2).map(|chunk| chunk.args(1..2)), Some(args(&[b"yz"], 0)));
            let mut gone = Vec::new();
            chunks.let_go(&(0..2), |first, cost| gone.push((first, cost)));
            assert_eq!(gone, [(0, given.cost())]);
            assert_eq!(chunks.get(2).map(|chunk| chunk.holding), Some(1));
            chunks.let_go(&(2..5), |first, _| gone.push((first, 0)));
            assert!(chunks.is_empty() && gone.len() == 3);
        }
    }
}
