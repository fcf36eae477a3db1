//! The states of an entry's items, in chunks, of which fully released ones are dropped. Must not know: why an item is in a state.

use std::{collections::VecDeque, ops::Range};

use super::stretches::Stretches;
use crate::wire::StateCounts;

/// Items in a chunk.
pub(super) const CHUNK: u64 = 4096;
/// Bit of a state's byte: the client does not want the result any more.
const UNWANTED: u8 = 0x10;

/// An item's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// Values of its holes are missing.
    Waiting,
    /// Could run, later: it is tried again after a while.
    Resting,
    /// Could run.
    Queued,
    /// In a run.
    Processing,
    /// Done, its value is in the scheduler; its arguments are gone.
    Inline,
    /// Done, its value is on workers or in the shell's keeping; its arguments are kept.
    Stored,
    /// As stored, but its arguments are gone, since too many were kept: it cannot be computed again.
    Final,
    /// As stored, but nobody who has it is here; some are awaited.
    Away,
    /// As final, and as away.
    FinalAway,
    /// Done and not wanted, but what was made of it is stored, and could need it again: its arguments are kept, its value is not.
    Dormant,
    /// Data that is being uploaded.
    Uploading,
    /// Failed.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Nobody wants it; nothing of it is left.
    Released,
}

pub(super) const STATES: [State; 14] = [
    State::Waiting,
    State::Resting,
    State::Queued,
    State::Processing,
    State::Inline,
    State::Stored,
    State::Final,
    State::Away,
    State::FinalAway,
    State::Dormant,
    State::Uploading,
    State::Failed,
    State::Cancelled,
    State::Released,
];

impl State {
    /// Whether it needs the values of its holes.
    pub(super) fn is_active(self) -> bool {
        matches!(self, Self::Waiting | Self::Resting | Self::Queued | Self::Processing)
    }

    /// Whether its arguments are kept.
    pub(super) fn is_holding(self) -> bool {
        self.is_active() || matches!(self, Self::Stored | Self::Away | Self::Dormant)
    }

    /// Whether its value is there to be read.
    pub(super) fn is_made(self) -> bool {
        self == Self::Inline || self.is_stored()
    }

    /// Whether its value is on workers or in the shell's keeping.
    pub(super) fn is_stored(self) -> bool {
        matches!(self, Self::Stored | Self::Final)
    }

    /// Whether its value is where nobody can read it, for the time being.
    pub(super) fn is_away(self) -> bool {
        matches!(self, Self::Away | Self::FinalAway)
    }

    /// Whether it can still become made or erred.
    pub(super) fn is_pending(self) -> bool {
        self.is_active() || self == Self::Uploading
    }
}

/// Consecutive items that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) state: State,
    pub(super) wanted: bool,
}

impl Segment {
    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.end
    }

    pub(super) fn count(&self) -> u64 {
        self.end - self.first
    }
}

/// The states of all items of an entry. A single item, as a call has it, takes nothing of the heap.
#[derive(Debug)]
pub(super) enum Items {
    /// No item, or one.
    One {
        is_there: bool,
        /// Its state, as in a chunk.
        byte: u8,
        /// Values that it misses.
        missing: u32,
    },
    Many(Box<Many>),
}

impl Default for Items {
    fn default() -> Self {
        Self::One { is_there: false, byte: 0, missing: 0 }
    }
}

impl Items {
    /// Items of which the first ones, a multiple of [`CHUNK`], are released and forgotten.
    pub(super) fn after(base: u64) -> Self {
        if base == 0 { Self::default() } else { Self::Many(Box::new(Many::after(base))) }
    }

    /// Items before this one are released and forgotten.
    pub(super) fn base(&self) -> u64 {
        if let Self::Many(many) = self { many.base } else { 0 }
    }

    /// Number of items so far.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::One { is_there, .. } => u64::from(*is_there),
            Self::Many(many) => many.len,
        }
    }

    pub(super) fn count(&self, state: State) -> u64 {
        self.state_number(state as usize)
    }

    /// Number of items in the state of this number.
    pub(super) fn state_number(&self, state: usize) -> u64 {
        match self {
            Self::One { is_there, byte, .. } => u64::from(*is_there && usize::from(byte & !UNWANTED) == state),
            Self::Many(many) => many.counts.get(state).copied().unwrap_or(0),
        }
    }

    pub(super) fn are_released(&self) -> bool {
        self.count(State::Released) == self.len()
    }

    /// Number of chunks in memory.
    #[cfg(test)]
    pub(super) fn chunk_count(&self) -> usize {
        if let Self::Many(many) = self { many.chunks.len() } else { 0 }
    }

    /// Appends items.
    pub(super) fn push(&mut self, count: u64, state: State) {
        match self {
            Self::Many(many) => many.push(count, state),
            Self::One { is_there, byte, .. } if !*is_there && count == 1 => (*is_there, *byte) = (true, state as u8),
            Self::One { is_there, byte, missing } => {
                let mut many = Many::default();
                if *is_there {
                    many.push(1, state_of(*byte));
                    many.set_missing(0, *missing);
                    if *byte & UNWANTED != 0 {
                        many.unwant(0..1);
                    }
                }
                many.push(count, state);
                *self = Self::Many(Box::new(many));
            }
        }
    }

    /// The state of an item; `None` if it is not there yet.
    pub(super) fn state(&self, item: u64) -> Option<State> {
        (item < self.len()).then(|| self.segment(item, item + 1).state)
    }

    /// Whether the client wants the result of an item.
    pub(super) fn is_wanted(&self, item: u64) -> bool {
        item < self.len() && self.segment(item, item + 1).wanted
    }

    /// The longest run of items from `first` that are alike, end before `end`, and lie in one chunk. `first` must exist.
    pub(super) fn segment(&self, first: u64, end: u64) -> Segment {
        match self {
            Self::One { byte, .. } if first == 0 => {
                Segment { first, end: end.min(1), state: state_of(*byte), wanted: byte & UNWANTED == 0 }
            }
            Self::One { .. } => Segment { first, end, state: State::Released, wanted: false },
            Self::Many(many) => many.segment(first, end),
        }
    }

    /// All segments of the items of `range` that exist.
    pub(super) fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let mut at = range.start;
        let end = range.end.min(self.len());
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let segment = self.segment(at, end);
                at = segment.end;
                segment
            })
        })
    }

    /// Moves items, all in state `from`, to another state.
    pub(super) fn set(&mut self, range: Range<u64>, from: State, to: State) {
        match self {
            Self::Many(many) => many.set(range, from, to),
            Self::One { byte, .. } if range == (0..1) => {
                debug_assert_eq!(*byte & !UNWANTED, from as u8);
                *byte = *byte & UNWANTED | to as u8;
            }
            Self::One { .. } => debug_assert!(range.is_empty(), "items {range:?} of one"),
        }
    }

    /// Marks items as not wanted by the client any more.
    pub(super) fn unwant(&mut self, range: Range<u64>) {
        match self {
            Self::Many(many) => many.unwant(range),
            Self::One { is_there, byte, .. } => {
                if *is_there && range.contains(&0) {
                    *byte |= UNWANTED;
                }
            }
        }
    }

    /// Number of values that an item misses. Kept for active items only.
    pub(super) fn missing(&self, item: u64) -> u32 {
        match self {
            Self::Many(many) => many.missing(item),
            Self::One { missing, .. } => {
                if item == 0 {
                    *missing
                } else {
                    0
                }
            }
        }
    }

    pub(super) fn set_missing(&mut self, item: u64, missing: u32) {
        match self {
            Self::Many(many) => many.set_missing(item, missing),
            Self::One { missing: place, .. } => {
                if item == 0 {
                    *place = missing;
                }
            }
        }
    }

    /// How many of some are in one state.
    pub(super) fn count_among(&self, range: Range<u64>, state: State) -> u64 {
        if self.count(state) == 0 {
            return 0;
        }
        self.segments(range).filter(|segment| segment.state == state).map(|segment| segment.count()).sum()
    }

    /// How many are in each state, of all or of some.
    pub(super) fn state_counts(&self, range: Range<u64>) -> StateCounts {
        if range.start == 0
            && range.end >= self.len()
            && let Self::Many(many) = self
        {
            return counts_of(&many.counts);
        }
        let mut counts = [0; STATES.len()];
        for segment in self.segments(range) {
            counts[segment.state as usize] += segment.count();
        }
        counts_of(&counts)
    }
}

fn state_of(byte: u8) -> State {
    STATES.get(usize::from(byte & !UNWANTED)).copied().unwrap_or(State::Released)
}

/// Items of which there may be many.
#[derive(Debug, Default)]
pub(super) struct Many {
    /// Items before this one are released and forgotten. A multiple of [`CHUNK`].
    base: u64,
    len: u64,
    chunks: VecDeque<Chunk>,
    counts: [u64; STATES.len()],
}

#[derive(Debug, Default)]
struct Chunk {
    /// Empty once all are released.
    states: Stretches,
    /// Missing values of each item; empty while nobody misses any.
    missing: Vec<u32>,
    /// Items that are not released.
    live: u32,
}

impl Many {
    fn after(base: u64) -> Self {
        let mut items = Self { base, len: base, ..Self::default() };
        items.counts[State::Released as usize] = base;
        items
    }

    fn push(&mut self, count: u64, state: State) {
        self.counts[state as usize] += count;
        let mut left = count;
        while left > 0 {
            let offset = self.len % CHUNK;
            if offset == 0 {
                if self.chunks.is_empty() {
                    self.base = self.len;
                    self.chunks.reserve_exact(1);
                }
                self.chunks.push_back(Chunk::default());
            }
            let more = left.min(CHUNK - offset);
            if let Some(chunk) = self.chunks.back_mut() {
                chunk.states.push(more as usize, state as u8);
                chunk.live += more as u32;
            }
            self.len += more;
            left -= more;
        }
    }

    fn segment(&self, first: u64, end: u64) -> Segment {
        let end = end.min(self.len);
        let released = |end| Segment { first, end, state: State::Released, wanted: false };
        if first < self.base {
            return released(end.min(self.base));
        }
        let at = ((first - self.base) / CHUNK) as usize;
        let end = end.min(self.base + (at as u64 + 1) * CHUNK);
        let offset = (first % CHUNK) as usize;
        let alike = self.chunks.get(at).and_then(|chunk| chunk.states.alike(offset, offset + (end - first) as usize));
        let Some((byte, alike_end)) = alike else { return released(end) };
        Segment { first, end: first + (alike_end - offset) as u64, state: state_of(byte), wanted: byte & UNWANTED == 0 }
    }

    fn set(&mut self, range: Range<u64>, from: State, to: State) {
        let count = range.end - range.start;
        self.counts[from as usize] -= count;
        self.counts[to as usize] += count;
        self.each_chunk(range, |chunk, part| {
            chunk.states.change(part.clone(), |byte| {
                debug_assert_eq!(byte & !UNWANTED, from as u8);
                byte & UNWANTED | to as u8
            });
            if to == State::Released {
                chunk.live -= part.len() as u32;
                if chunk.live == 0 && chunk.states.len() as u64 == CHUNK {
                    *chunk = Chunk::default();
                }
            }
        });
        while self.base + CHUNK <= self.len && self.chunks.front().is_some_and(|chunk| chunk.live == 0) {
            self.chunks.pop_front();
            self.base += CHUNK;
        }
    }

    fn unwant(&mut self, range: Range<u64>) {
        let range = range.start.max(self.base)..range.end.min(self.len);
        self.each_chunk(range, |chunk, part| {
            if part.end <= chunk.states.len() {
                chunk.states.change(part, |byte| byte | UNWANTED);
            }
        });
    }

    fn missing(&self, item: u64) -> u32 {
        if item < self.base {
            return 0;
        }
        let chunk = self.chunks.get(((item - self.base) / CHUNK) as usize);
        chunk.and_then(|chunk| chunk.missing.get((item % CHUNK) as usize)).copied().unwrap_or(0)
    }

    fn set_missing(&mut self, item: u64, missing: u32) {
        if item < self.base {
            return;
        }
        let Some(chunk) = self.chunks.get_mut(((item - self.base) / CHUNK) as usize) else { return };
        let offset = (item % CHUNK) as usize;
        if offset >= chunk.missing.len() {
            if missing == 0 {
                return;
            }
            chunk.missing.resize(chunk.states.len(), 0);
        }
        if let Some(place) = chunk.missing.get_mut(offset) {
            *place = missing;
        }
    }

    fn each_chunk(&mut self, range: Range<u64>, mut work: impl FnMut(&mut Chunk, Range<usize>)) {
        let mut at = range.start;
        while at < range.end {
            let number = (at - self.base) / CHUNK;
            let start = self.base + number * CHUNK;
            let end = range.end.min(start + CHUNK);
            if let Some(chunk) = self.chunks.get_mut(number as usize) {
                work(chunk, (at - start) as usize..(end - start) as usize);
            }
            at = end;
        }
    }
}

fn counts_of(counts: &[u64; STATES.len()]) -> StateCounts {
    let of = |state: State| counts[state as usize];
    StateCounts {
        waiting: of(State::Waiting) + of(State::Uploading),
        queued: of(State::Queued) + of(State::Resting),
        processing: of(State::Processing),
        memory: [State::Inline, State::Stored, State::Final, State::Away, State::FinalAway].into_iter().map(of).sum(),
        erred: of(State::Failed) + of(State::Cancelled),
        released: of(State::Dormant) + of(State::Released),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_numbered_in_order() {
        assert!(STATES.iter().enumerate().all(|(i, &state)| state as usize == i));
    }

    #[test]
    fn released_chunks_go() {
        let mut items = Items::default();
        for round in 0..100 {
            items.push(5000, State::Queued);
            let first = round * 5000;
            items.set(first..first + 5000, State::Queued, State::Released);
            assert!(items.chunk_count() <= 2);
        }
        assert_eq!(items.state(17), Some(State::Released));
        assert_eq!(items.state(500_000), None);
        assert_eq!(items.state_counts(10..20).released, 10);
        assert!(items.are_released());
    }

    #[test]
    fn segments_are_alike() {
        let mut items = Items::default();
        items.push(10, State::Queued);
        items.set(3..5, State::Queued, State::Failed);
        items.unwant(4..7);
        let segments: Vec<_> = items.segments(0..99).map(|s| (s.range(), s.state, s.wanted)).collect();
        let (queued, failed) = (State::Queued, State::Failed);
        assert_eq!(
            segments,
            [(0..3, queued, true), (3..4, failed, true), (4..5, failed, false), (5..7, queued, false), (7..10, queued, true)]
        );
    }

    #[test]
    fn missing_values_are_counted_sparsely() {
        let mut items = Items::default();
        items.push(2, State::Waiting);
        items.set_missing(1, 7);
        items.push(3, State::Waiting);
        items.set_missing(4, 1);
        assert_eq!((0..5).map(|item| items.missing(item)).collect::<Vec<_>>(), [0, 7, 0, 0, 1]);
    }
}
