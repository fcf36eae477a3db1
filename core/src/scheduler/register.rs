//! New items: their arguments are checked, their holes become edges, and they wait, queue, or fail at once. Must not know: where
//! items run.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{
    Scheduler,
    chunks::HoleEdges,
    edges::Edge,
    entry::{Cause, Entry},
    items::State,
    refusal::Refusal,
};
use crate::{
    TaskError, TaskErrorKind,
    codec::{Args, Source, Span},
    ids::{EntryId, Key},
};

/// Values that one field of an item may name: those of all fields are counted in 32 bits.
pub(super) const MAX_INPUTS: u64 = 1 << 28;

/// What a span of keys has for an item that names it.
#[derive(Debug, Default)]
pub(super) struct Supply {
    /// Values that are to come.
    pub(super) missing: u64,
    /// Why one will not.
    pub(super) cause: Option<Cause>,
    /// Items to compute again first.
    pub(super) dormant: Vec<Range<u64>>,
}

impl Scheduler {
    /// Whether a client may send these arguments for its entry: what they read exists, and is not the entry itself. Once they have been
    /// taken in, they may read what the client took up of others (`is_resolved`).
    pub(super) fn check_args(&self, id: EntryId, args: &Args, is_resolved: bool) -> Result<(), Refusal> {
        let seq = id.seq;
        let newest = self.newest_entry(id.client);
        let overflows = args.holes.iter().any(|hole| matches!(hole.source, Source::Same(key) if key.index == u64::MAX));
        if overflows || !args.is_valid() {
            return Err(Refusal::Arguments { seq });
        }
        for hole in &args.holes {
            for span in spans_of(&hole.source, 0..u64::from(hole.count)) {
                let is_allowed = match span.entry.client == id.client {
                    true => span.entry != id && Some(span.entry.seq) <= newest,
                    false => is_resolved,
                };
                if !is_allowed {
                    return Err(Refusal::ForeignKey { seq, key: span.entry.key(span.first) });
                }
            }
            if let Source::List(spans) = &hole.source
                && spans.iter().fold(0, |sum: u64, span| sum.saturating_add(span.count)) > MAX_INPUTS
            {
                return Err(Refusal::TooManyInputs { seq });
            }
        }
        Ok(())
    }

    /// Appends items to an entry. The arguments were checked.
    pub(super) fn add_items(&mut self, id: EntryId, args: Args) {
        let count = u64::from(args.count());
        if count == 0 {
            return;
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let cost = args.cost() + entry.own_cost();
        self.credit.charge(self.clients.get_mut(&id.client), cost, true, self.now);
        let first = entry.items.len();
        entry.items.push(count, State::Waiting);
        self.ledger.touch_entry(id, entry);
        self.ledger.put_args(id, first, &args);
        let has_holes = !args.holes.is_empty();
        entry.args.push(first, args);
        let (range, is_cancelled) = (first..first + count, entry.is_cancelled);
        if !has_holes {
            self.shift(id, range, State::Waiting, State::Queued);
        } else {
            self.add_edges(id, first);
            self.begin(id, range, State::Waiting);
            self.waiting.push_back(id);
        }
        if is_cancelled {
            self.cancel_pending(&Span { entry: id, first, count });
        }
    }

    /// Makes an edge of each span that the holes of the arguments from item `first` name.
    pub(super) fn add_edges(&mut self, id: EntryId, first: u64) {
        let Some(entry) = self.entries.get(&id) else { return };
        let Some(chunk) = entry.chunk_of(first) else { return };
        let mut ids = HoleEdges::new();
        for (at, hole) in chunk.holes.iter().enumerate() {
            let start = first + u64::from(hole.first);
            let consumers = start..start + u64::from(hole.count);
            let (holding, active) = entry.consumers(&consumers);
            if holding == 0 {
                continue;
            }
            for span in spans_of(&hole.source, 0..u64::from(hole.count)) {
                let edge = Edge {
                    producer: span.entry,
                    producers: span.first..span.first + span.count,
                    consumer: id,
                    consumers: consumers.clone(),
                    each: matches!(hole.source, Source::Each { .. }),
                    holding,
                    active,
                };
                let is_empty = edge.producers.is_empty() || edge.consumers.is_empty();
                // What is gone has no edge: the items fail.
                if !is_empty && self.entries.contains_key(&edge.producer) {
                    ids.push((at as u32, self.edges.insert(edge)));
                }
            }
        }
        for &(_, edge_id) in &ids {
            let producer = self.edges.get(edge_id).and_then(|edge| self.entries.get_mut(&edge.producer));
            if let Some(producer) = producer {
                producer.edges.insert(edge_id, &self.edges);
            }
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.args.set_edges(first, ids);
    }

    /// Items that are to be computed, for the first time or again, from state `from`: what they miss is counted, and they wait, are
    /// queued, or fail. Inputs that are not there any more are computed again too, as deep as it takes.
    pub(super) fn begin(&mut self, id: EntryId, range: Range<u64>, from: State) {
        let (mut first, mut stack) = (Some((id, range, from)), VecDeque::new());
        while let Some((id, range, from)) = first.take().or_else(|| stack.pop_front()) {
            if range.end - range.start == 1 {
                self.begin_one(id, range.start, from, &mut stack);
            } else {
                for part in self.begin_parts(id, range.clone(), from, &mut stack) {
                    self.shift(id, part, State::Waiting, State::Queued);
                }
            }
            if from != State::Waiting {
                self.leave_to_runs(id, range);
            }
        }
    }

    /// As [`begin`](Self::begin), for one item, which is what all calls are: it takes no lists.
    fn begin_one(&mut self, id: EntryId, item: u64, from: State, stack: &mut VecDeque<(EntryId, Range<u64>, State)>) {
        if self.entries.get(&id).and_then(|entry| entry.items.state(item)) != Some(from) {
            return;
        }
        if from != State::Waiting {
            self.shift(id, item..item + 1, from, State::Waiting);
        }
        let (mut missing, mut cause) = (0, None);
        let Some(entry) = self.entries.get(&id) else { return };
        let Some(chunk) = entry.chunk_of(item) else { return };
        for hole in chunk.holes {
            let first = chunk.first + u64::from(hole.first);
            if item < first || item - first >= u64::from(hole.count) {
                continue;
            }
            for span in spans_of(&hole.source, item - first..item - first + 1) {
                let supply = self.supply(&span);
                stack.extend(supply.dormant.into_iter().map(|range| (span.entry, range, State::Dormant)));
                missing = u32::saturating_add(missing, supply.missing as u32);
                cause = cause.or(supply.cause);
            }
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.items.set_missing(item, missing);
        if let Some(cause) = cause {
            let segment = entry.items.segment(item, item + 1);
            self.end_badly(id, segment, &cause, false);
        } else if missing == 0 {
            self.shift(id, item..item + 1, State::Waiting, State::Queued);
        }
    }

    /// Items that are computed again while a run of them is still out, which was told to stop when they came back: its answer, whatever it
    /// is, decides what becomes of them.
    fn leave_to_runs(&mut self, id: EntryId, range: Range<u64>) {
        let Some(entry) = self.entries.get(&id).filter(|entry| !entry.runs.is_empty()) else { return };
        let runs = entry.runs.around(&range).filter_map(|(first, run)| {
            let run = self.runs.get(&run)?;
            Some(range.start.max(first)..range.end.min(run.first + u64::from(run.count)))
        });
        let again: Vec<_> = runs
            .filter(|part| part.start < part.end)
            .flat_map(|part| entry.items.segments(part))
            .filter(|segment| matches!(segment.state, State::Waiting | State::Queued))
            .collect();
        again.into_iter().for_each(|segment| self.shift(id, segment.range(), segment.state, State::Processing));
    }

    /// Counts what the items miss; gives the ranges that miss nothing. All are waiting then, or failed.
    fn begin_parts(
        &mut self,
        id: EntryId,
        range: Range<u64>,
        from: State,
        stack: &mut VecDeque<(EntryId, Range<u64>, State)>,
    ) -> Vec<Range<u64>> {
        // An item can be named by several dormant or new ones: whoever comes first begins it.
        let Some(entry) = self.entries.get(&id) else { return Vec::new() };
        let begins: Vec<_> = entry.items.segments(range).filter(|segment| segment.state == from).collect();
        let mut ready = Vec::new();
        for segment in begins {
            if from != State::Waiting {
                self.shift(id, segment.range(), from, State::Waiting);
            }
            let (missing, causes) = self.survey(id, segment.range(), stack);
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            for (item, missing) in segment.range().zip(&missing) {
                entry.items.set_missing(item, *missing);
            }
            for (range, cause) in causes {
                let waiting: Vec<_> = self.entries.get(&id).map_or_else(Vec::new, |entry| {
                    entry.items.segments(range).filter(|segment| segment.state == State::Waiting).collect()
                });
                waiting.into_iter().for_each(|segment| self.end_badly(id, segment, &cause, false));
            }
            let Some(entry) = self.entries.get(&id) else { continue };
            let waiting: Vec<_> =
                entry.items.segments(segment.range()).filter(|segment| segment.state == State::Waiting).collect();
            for segment in waiting {
                ready.extend(
                    entry.split_by_missing(segment.range()).into_iter().filter(|(_, ready)| *ready).map(|(part, _)| part),
                );
            }
        }
        ready
    }

    /// For items of one chunk of states: how many values each misses, and which of them cannot run, and why.
    fn survey(
        &self,
        id: EntryId,
        range: Range<u64>,
        stack: &mut VecDeque<(EntryId, Range<u64>, State)>,
    ) -> (Vec<u32>, Vec<(Range<u64>, Cause)>) {
        let mut missing = vec![0_u32; (range.end - range.start) as usize];
        let mut causes = Vec::new();
        let Some(entry) = self.entries.get(&id) else { return (missing, causes) };
        let mut at = range.start;
        while at < range.end {
            let Some(chunk) = entry.chunk_of(at) else { break };
            let end = range.end.min(chunk.range().end);
            for hole in chunk.holes {
                let hole_first = chunk.first + u64::from(hole.first);
                let (start, end) = (at.max(hole_first), end.min(hole_first + u64::from(hole.count)));
                if start >= end {
                    continue;
                }
                for span in spans_of(&hole.source, start - hole_first..end - hole_first) {
                    if matches!(hole.source, Source::Each { .. }) {
                        self.survey_each(&span, start, &range, &mut missing, &mut causes, stack);
                        continue;
                    }
                    let supply = self.supply(&span);
                    stack.extend(supply.dormant.into_iter().map(|range| (span.entry, range, State::Dormant)));
                    let part = (start - range.start) as usize..(end - range.start) as usize;
                    missing[part].iter_mut().for_each(|sum| *sum = sum.saturating_add(supply.missing as u32));
                    causes.extend(supply.cause.map(|cause| (start..end, cause)));
                }
            }
            at = end;
        }
        (missing, causes)
    }

    /// As [`survey`](Self::survey), for items from `start` that read one value of the span each.
    fn survey_each(
        &self,
        span: &Span,
        start: u64,
        range: &Range<u64>,
        missing: &mut [u32],
        causes: &mut Vec<(Range<u64>, Cause)>,
        stack: &mut VecDeque<(EntryId, Range<u64>, State)>,
    ) {
        let known = self.entries.get(&span.entry);
        let mut at = span.first;
        let end = span.first + span.count;
        while at < end {
            let piece = match known {
                Some(entry) if at < entry.items.len() => {
                    let segment = entry.items.segment(at, end);
                    // Items that erred have a cause each.
                    if entry.cause(at).is_some() { at..at + 1 } else { segment.range() }
                }
                _ => at..end,
            };
            let supply = self.supply(&Span { entry: span.entry, first: piece.start, count: piece.end - piece.start });
            stack.extend(supply.dormant.into_iter().map(|range| (span.entry, range, State::Dormant)));
            let items = start + (piece.start - span.first)..start + (piece.end - span.first);
            if supply.missing > 0 {
                let part = (items.start - range.start) as usize..(items.end - range.start) as usize;
                missing[part].iter_mut().for_each(|sum| *sum = sum.saturating_add(1));
            }
            causes.extend(supply.cause.map(|cause| (items, cause)));
            at = piece.end;
        }
    }

    /// What a span of keys has for whoever reads all of it.
    pub(super) fn supply(&self, span: &Span) -> Supply {
        let mut supply = Supply::default();
        if span.count == 0 {
            return supply;
        }
        let end = span.first + span.count;
        let Some(entry) = self.entries.get(&span.entry) else {
            supply.cause = Some(self.no_such_item(span.entry.key(span.first)));
            return supply;
        };
        for segment in entry.items.segments(span.first..end) {
            match segment.state {
                State::Inline | State::Stored | State::Final => {}
                State::Waiting | State::Resting | State::Queued | State::Processing | State::Uploading => {
                    supply.missing += segment.count();
                }
                State::Away | State::FinalAway => supply.missing += segment.count(),
                State::Dormant => {
                    supply.missing += segment.count();
                    supply.dormant.push(segment.range());
                }
                State::Failed | State::Cancelled => supply.cause = supply.cause.or_else(|| entry.cause(segment.first)),
                State::Released => {
                    supply.cause = supply.cause.or_else(|| Some(self.no_such_item(span.entry.key(segment.first))));
                }
            }
        }
        let absent = end.saturating_sub(span.first.max(entry.items.len()));
        if entry.open {
            supply.missing += absent;
        } else if absent > 0 {
            supply.cause = supply.cause.or_else(|| Some(self.no_such_item(span.entry.key(span.first.max(entry.items.len())))));
        }
        supply
    }

    /// Why an item that names such a key cannot run.
    pub(super) fn no_such_item(&self, key: Key) -> Cause {
        let entry = self.entries.get(&key.entry);
        let message = match entry {
            Some(entry) if key.index >= entry.items.len() => {
                format!("{key} is asked for, but its map ended with {} items", entry.items.len())
            }
            _ => format!("{key} is asked for, but was released"),
        };
        let name = entry.map_or("unknown", |entry| entry.name());
        Cause::Failed(Arc::new(TaskError::new(TaskErrorKind::DataLost, name, key, message)))
    }
}

impl Entry {
    /// How many of these items keep their arguments, and how many of those need values now.
    fn consumers(&self, items: &Range<u64>) -> (u32, u32) {
        let count = |is: fn(State) -> bool| {
            self.items.segments(items.clone()).filter(|segment| is(segment.state)).map(|segment| segment.count() as u32).sum()
        };
        (count(State::is_holding), count(State::is_active))
    }
}

/// The spans that items `part` (counted from the hole's first) read; of one value an item, those of all of them.
pub(super) fn spans_of(source: &Source, part: Range<u64>) -> impl Iterator<Item = Span> + '_ {
    let (one, list) = match source {
        Source::Same(key) => (Some(Span { entry: key.entry, first: key.index, count: 1 }), &[][..]),
        Source::Each { entry, first } => {
            (Some(Span { entry: *entry, first: first + part.start, count: part.end - part.start }), &[][..])
        }
        Source::List(spans) => (None, &spans[..]),
    };
    one.into_iter().chain(list.iter().filter(|span| span.count > 0).copied())
}
