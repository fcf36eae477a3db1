//! A run's inputs: the values for its holes, as they become known. Owns: their lookup and how they fill the holes. Must not know:
//! where values come from.

use super::{Input, InputPlace, blob::Place};
use crate::{
    codec::{Args, Hole, Lens, Run, Source, Span, encode_into},
    ids::{Hash, Key},
};
use bytes::Bytes;

/// The value of one field of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The item, counted from the run's first.
    pub item: u32,
    /// The field of its argument tuple.
    pub field: u32,
    /// The field's encoding.
    pub value: Bytes,
}

/// What is known of an input's value.
#[derive(Clone, Debug)]
enum Slot {
    /// Nothing yet.
    Pending,
    /// The values of consecutive keys.
    Known(Run),
}

/// An input that is not in the assignment.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The result of an earlier run here.
    Ahead(Key),
    /// A blob.
    Blob {
        /// The value.
        key: Key,
        /// Length in bytes.
        len: u64,
        /// Hash.
        hash: Hash,
        /// Who serves it; nobody but the scheduler if empty.
        places: Vec<Place>,
    },
}

/// The values that a run's holes name.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// By ascending keys, which are different.
    slots: Vec<(Key, Slot)>,
}

impl Inputs {
    /// The inputs of `args`, and those of them that are yet to be had; `None` if lengths or numbers contradict each other or a hole
    /// names a key that is not among `inputs`.
    pub fn new(args: &Args, inputs: Vec<Input>) -> Option<(Self, Vec<Wanted>)> {
        let mut slots = Vec::with_capacity(inputs.len());
        let mut wanted = Vec::new();
        for Input { key, count, place } in inputs {
            let slot = match place {
                InputPlace::Inline(run) => {
                    if !run.is_valid() || u64::from(run.count()) != count || key.index.checked_add(count).is_none() {
                        return None;
                    }
                    Slot::Known(run)
                }
                _ if count != 1 => return None,
                InputPlace::Blob { len, hash, places } => {
                    wanted.push(Wanted::Blob { key, len, hash, places });
                    Slot::Pending
                }
                InputPlace::Ahead => {
                    wanted.push(Wanted::Ahead(key));
                    Slot::Pending
                }
            };
            slots.push((key, slot));
        }
        slots.sort_unstable_by_key(|(key, _)| *key);
        if slots.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let inputs = Self { slots };
        let covered = args.is_valid() && args.holes.iter().flat_map(Hole::spans).all(|span| inputs.covers(span));
        covered.then_some((inputs, wanted))
    }

    /// The value of `key` became known.
    pub fn fill(&mut self, key: Key, value: Bytes) {
        if let (Some(run), Ok(at)) = (Run::single(value), self.slots.binary_search_by_key(&key, |(key, _)| *key)) {
            self.slots[at].1 = Slot::Known(run);
        }
    }

    /// Every hole's value, by item, then field; `None` while one is not known.
    pub fn fill_holes(&self, args: &Args) -> Option<Vec<Filled>> {
        let mut filled = Vec::new();
        for hole in &args.holes {
            let items = hole.first..hole.first.checked_add(hole.count)?;
            let mut put = |item, value| filled.push(Filled { item, field: hole.field, value });
            match &hole.source {
                Source::Same(key) => {
                    let mut same = Bytes::new();
                    self.visit(Span { entry: key.entry, first: key.index, count: 1 }, |value| same = value)?;
                    items.for_each(|item| put(item, same.clone()));
                }
                Source::Each { entry, first } => {
                    let mut item = hole.first;
                    self.visit(Span { entry: *entry, first: *first, count: u64::from(hole.count) }, |value| {
                        put(item, value);
                        item += 1;
                    })?;
                }
                Source::List(spans) => {
                    let list = self.list(spans)?;
                    items.for_each(|item| put(item, list.clone()));
                }
            }
        }
        filled.sort_by_key(|value| (value.item, value.field));
        Some(filled)
    }

    /// The encoding of a `Vec` of these keys' values: their number, then the values.
    fn list(&self, spans: &[Span]) -> Option<Bytes> {
        let count: u64 = spans.iter().map(|span| span.count).sum();
        let mut list = Vec::new();
        encode_into(&count, &mut list).ok()?;
        for &span in spans {
            self.visit(span, |value| list.extend_from_slice(&value))?;
        }
        Some(list.into())
    }

    /// Calls `f` with the value of each key of `span`, in order; `None` if one is not known.
    fn visit(&self, span: Span, mut f: impl FnMut(Bytes)) -> Option<()> {
        self.pieces(span, |slot, skip, take| {
            let Slot::Known(run) = slot else { return None };
            let run = run.slice(skip..skip + take);
            let mut at = 0;
            for i in 0..take as usize {
                let len = match run.lens() {
                    Lens::Same(len) => *len as usize,
                    Lens::Each(lens) => lens[i] as usize,
                };
                f(run.bytes().slice(at..at + len));
                at += len;
            }
            Some(())
        })
    }

    fn covers(&self, span: Span) -> bool {
        self.pieces(span, |_, _, _| Some(())).is_some()
    }

    /// Calls `f` with each input that has a part of `span`, in order, and with that part: where in it, how many. `None` if `f` gave it,
    /// or nothing covers some key.
    fn pieces(&self, span: Span, mut f: impl FnMut(&Slot, u32, u32) -> Option<()>) -> Option<()> {
        let (mut at, end) = (span.first, span.first.checked_add(span.count)?);
        while at < end {
            let key = span.entry.key(at);
            let (start, slot) = self.slots[..self.slots.partition_point(|(other, _)| *other <= key)].last()?;
            if start.entry != span.entry {
                return None;
            }
            let count = match slot {
                Slot::Pending => 1,
                Slot::Known(run) => run.count(),
            };
            let skip = u32::try_from(at - start.index).ok().filter(|&skip| skip < count)?;
            let take = (end - at).min(u64::from(count - skip)) as u32;
            f(slot, skip, take)?;
            at += u64::from(take);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::RunBuilder,
        ids::{ClientId, EntryId},
    };

    const ENTRY: EntryId = EntryId { client: ClientId(1), seq: 7 };

    fn run_of(items: &[&[u8]]) -> Run {
        let mut builder = RunBuilder::default();
        items.iter().for_each(|item| builder.push(item).expect("short"));
        builder.take()
    }

    fn inline(first: u64, items: &[&[u8]]) -> Input {
        Input { key: ENTRY.key(first), count: items.len() as u64, place: InputPlace::Inline(run_of(items)) }
    }

    fn ahead(index: u64) -> Input {
        Input { key: ENTRY.key(index), count: 1, place: InputPlace::Ahead }
    }

    fn hole(first: u32, count: u32, field: u32, source: Source) -> Hole {
        Hole { first, count, field, source }
    }

    #[test]
    fn holes_are_filled_by_item_then_field() {
        let list = Source::List(vec![Span { entry: ENTRY, first: 3, count: 2 }, Span { entry: ENTRY, first: 0, count: 1 }]);
        let args = Args {
            run: run_of(&[b"", b"", b""]),
            holes: vec![
                hole(0, 1, 2, list),
                hole(0, 3, 0, Source::Same(ENTRY.key(4))),
                hole(1, 2, 1, Source::Each { entry: ENTRY, first: 3 }),
            ],
        };
        let (mut inputs, wanted) =
            Inputs::new(&args, vec![inline(0, &[b"a", b"bb"]), inline(2, &[b"", b"d"]), ahead(4)]).expect("covered");
        assert!(matches!(wanted[..], [Wanted::Ahead(key)] if key == ENTRY.key(4)));
        assert_eq!(inputs.fill_holes(&args), None);
        inputs.fill(ENTRY.key(4), Bytes::from_static(b"e"));
        let filled: Vec<_> = inputs.fill_holes(&args).expect("known").into_iter().map(|f| (f.item, f.field, f.value)).collect();
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(
            filled,
            [
                (0, 0, bytes("e")),
                (0, 2, bytes("\x03dea")),
                (1, 0, bytes("e")),
                (1, 1, bytes("d")),
                (2, 0, bytes("e")),
                (2, 1, bytes("e"))
            ]
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let args = |source| Args { run: run_of(&[b""]), holes: vec![hole(0, 1, 0, source)] };
        let same = args(Source::Same(ENTRY.key(1)));
        assert!(Inputs::new(&same, vec![]).is_none(), "not covered");
        assert!(Inputs::new(&same, vec![inline(0, &[b"a"])]).is_none(), "not covered");
        assert!(Inputs::new(&same, vec![inline(0, &[b"a", b"b"])]).is_some());
        assert!(Inputs::new(&same, vec![ahead(1), ahead(1)]).is_none(), "twice");
        let miscounted = Input { count: 2, ..inline(1, &[b"a"]) };
        assert!(Inputs::new(&same, vec![miscounted]).is_none(), "count");
        let many = Input { count: 2, ..ahead(1) };
        assert!(Inputs::new(&same, vec![many]).is_none(), "one key only");
        let list = args(Source::List(vec![Span { entry: ENTRY, first: 0, count: u64::MAX }]));
        assert!(Inputs::new(&list, vec![inline(0, &[b"a"])]).is_none(), "not covered");
    }
}
