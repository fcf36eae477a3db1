//! Items changing state, and what follows for the items that need them or that they needed. Must not know: messages' forms,
//! workers' load.

use std::{collections::VecDeque, ops::Range};

use smallvec::SmallVec;

use super::{
    Action, Scheduler,
    chunks::HoleEdges,
    edges::{EdgeId, Edges},
    entry::{Cause, Entry, Kind, queue_key},
    facts::{Part, Standing},
    items::{Segment, State},
    machine::Todo,
};
use crate::{
    codec::{Hole, Span},
    fault::{self, Fault},
    ids::EntryId,
    wire::{ENTRY_COST, ToClient, ToWorker},
};

/// What others need of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Nothing,
    /// Its arguments, so that it could be computed again.
    Lineage,
    /// Its value.
    Value,
}

impl Scheduler {
    /// Draws the consequences of what has happened, and theirs.
    pub(super) fn settle(&mut self) {
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Made(id, range) => self.announce_made(id, range),
                Todo::Erred(id, range) => self.announce_erred(id, range),
                Todo::Free(id, range) => self.release_unneeded(id, range),
                Todo::Ended(id, range) => self.ended(id, range),
            }
        }
    }

    /// Moves items that are all in state `from` to state `to`; every change of state goes through here. Keeps the queue, the
    /// arguments and the edges of the items' holes in step.
    pub(super) fn shift(&mut self, id: EntryId, range: Range<u64>, from: State, to: State) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if Standing::of(from) != Standing::of(to) {
            self.ledger.touch(id, entry.items.base(), &range);
        }
        entry.items.set(range.clone(), from, to);
        if from == State::Queued {
            entry.ready.remove(range.clone());
            if entry.ready.is_empty() {
                self.shapes.remove(entry.shape, &queue_key(id, entry));
            }
        }
        if from == State::Resting {
            let ended: Vec<_> = entry.rare.resting.range(range.clone()).map(|(&item, &until)| (item, until)).collect();
            for (item, until) in ended {
                entry.rare.resting.remove(&item);
                self.rests.remove(&(until, id.key(item)));
            }
        }
        if to == State::Queued {
            if entry.ready.is_empty() {
                self.shapes.insert(entry.shape, queue_key(id, entry));
            }
            entry.ready.insert(range.clone());
        }
        if entry.rare.sharing.is_some() && from.is_pending() && !to.is_pending() {
            self.todo.push_back(Todo::Ended(id, range.clone()));
        }
        if from == State::Uploading {
            self.credit.give_back(self.clients.get_mut(&id.client), ENTRY_COST, self.now);
            self.end_upload(id);
            return self.say_taken(id);
        }
        if from.is_active() == to.is_active() && from.is_holding() == to.is_holding() {
            return;
        }
        let mut gone = SmallVec::new();
        // Borrowed apart: the chunks belong to the entry, the edges and the list of things to do do not.
        let (edges, todo) = (&mut self.edges, &mut self.todo);
        entry.args.each_edges(&range, |part, first, holes, of_chunk| {
            shift_edges((&part, first, holes), of_chunk, (from, to), edges, todo, &mut gone);
        });
        if from.is_holding() && !to.is_holding() {
            let own_cost = entry.own_cost();
            entry.args.let_go(&range, |first, cost| {
                self.ledger.drop_row(id, Part::Args, first);
                self.credit.give_back(self.clients.get_mut(&id.client), cost + own_cost, self.now);
            });
        }
        for edge_id in gone {
            if let Some(edge) = self.edges.remove(edge_id)
                && let Some(producer) = self.entries.get_mut(&edge.producer)
            {
                producer.edges.remove(edge_id, &edge);
            }
        }
    }

    /// Ends items that are alike and not settled: with an error or cancelled, told to the client if it wants to know. What runs of
    /// them is stopped if `stop`.
    pub(super) fn end_badly(&mut self, id: EntryId, segment: Segment, cause: &Cause, stop: bool) {
        if stop && segment.state == State::Processing {
            self.stop_runs(id, segment.range());
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.forget_oddities(segment.range());
        let to = match cause {
            Cause::Failed(error) => {
                self.history.record(self.now, id, segment.range(), entry.name(), error);
                self.ledger.put_error(id, &segment.range(), error);
                entry.rare.errors.extend(segment.range().map(|item| (item, error.clone())));
                State::Failed
            }
            Cause::Cancelled => State::Cancelled,
        };
        self.shift(id, segment.range(), segment.state, to);
        self.todo.push_back(Todo::Erred(id, segment.range()));
        if !segment.wanted {
            self.todo.push_back(Todo::Free(id, segment.range()));
            return;
        }
        self.tell_takers(id, &segment.range());
        match cause {
            Cause::Failed(error) => {
                for index in segment.range() {
                    self.tell_client(id.client, ToClient::Failed { seq: id.seq, index, error: (**error).clone() });
                }
            }
            Cause::Cancelled => {
                let span = Span { entry: id, first: segment.first, count: segment.count() };
                match self.out.last_mut() {
                    Some(Action::ToClient(client, ToClient::Cancelled { span: last }))
                        if *client == id.client && last.entry == id && last.first + last.count == span.first =>
                    {
                        last.count += span.count;
                    }
                    _ => self.tell_client(id.client, ToClient::Cancelled { span }),
                }
            }
        }
    }

    /// Tells workers to stop what they have of these items.
    pub(super) fn stop_runs(&mut self, id: EntryId, range: Range<u64>) {
        let Some(entry) = self.entries.get(&id) else { return };
        let stops: Vec<_> = entry
            .runs
            .around(&range)
            .filter_map(|(first, run_id)| {
                let run = self.runs.get(&run_id)?;
                let (start, end) = (range.start.max(first), range.end.min(run.first + u64::from(run.count)));
                (start < end).then(|| {
                    let cancel = ToWorker::Cancel { run: run_id, first: (start - run.first) as u32, count: (end - start) as u32 };
                    (run.worker, cancel)
                })
            })
            .collect();
        for (worker, cancel) in stops {
            self.tell_worker(worker, cancel);
        }
    }

    /// Puts items that were in a run back to where they came from.
    pub(super) fn requeue(&mut self, id: EntryId, range: Range<u64>) {
        let Some(entry) = self.entries.get(&id) else { return };
        let parts: Vec<_> = entry
            .items
            .segments(range)
            .filter(|segment| segment.state == State::Processing)
            .flat_map(|segment| entry.split_by_missing(segment.range()))
            .collect();
        for (part, is_ready) in parts {
            self.shift(id, part.clone(), State::Processing, if is_ready { State::Queued } else { State::Waiting });
            self.recall_dependents(id, part);
        }
    }

    fn announce_made(&mut self, id: EntryId, range: Range<u64>) {
        for (consumer, consumers, times) in self.hits(id, &range) {
            self.arrive(consumer, consumers, times);
        }
    }

    /// Consumers miss `times` values less each.
    fn arrive(&mut self, id: EntryId, range: Range<u64>, times: u32) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (mut ready, mut caught_up) = (SmallVec::<[Range<u64>; 1]>::new(), SmallVec::<[u64; 1]>::new());
        let (mut at, end) = (range.start, range.end.min(entry.items.len()));
        while at < end {
            let segment = entry.items.segment(at, end);
            at = segment.end;
            if !segment.state.is_active() {
                continue;
            }
            for item in segment.range() {
                let missing = entry.items.missing(item);
                debug_assert!(missing >= times, "an item misses what it has");
                entry.items.set_missing(item, missing.saturating_sub(times));
                if missing > times {
                    continue;
                }
                match ready.last_mut() {
                    _ if segment.state == State::Processing => caught_up.push(item),
                    _ if segment.state == State::Resting => {}
                    Some(last) if last.end == item => last.end += 1,
                    _ => ready.push(item..item + 1),
                }
            }
        }
        for part in ready {
            self.shift(id, part, State::Waiting, State::Queued);
        }
        for item in caught_up {
            self.ahead_caught_up(id, item);
        }
    }

    fn announce_erred(&mut self, id: EntryId, range: Range<u64>) {
        if self.entries.get(&id).is_none_or(|entry| entry.edges.is_empty()) {
            return;
        }
        for item in range {
            let Some(cause) = self.entries.get(&id).and_then(|entry| entry.cause(item)) else { continue };
            if fault::is(Fault::CancelNotPassedOn) && matches!(cause, Cause::Cancelled) {
                continue;
            }
            for (consumer, consumers, _) in self.hits(id, &(item..item + 1)) {
                let Some(entry) = self.entries.get(&consumer) else { continue };
                let active: Vec<_> = entry.items.segments(consumers).filter(|segment| segment.state.is_active()).collect();
                for segment in active {
                    self.end_badly(consumer, segment, &cause, true);
                }
            }
        }
    }

    /// Who reads any of these items, an edge each: the consumers, and how many of the items each of them reads.
    pub(super) fn hits(&self, id: EntryId, range: &Range<u64>) -> SmallVec<[(EntryId, Range<u64>, u32); 1]> {
        let mut hits = SmallVec::new();
        if let Some(entry) = self.entries.get(&id) {
            entry.edges.each(range, &self.edges, |edge| {
                let (consumers, times) = edge.consumers_of(range);
                hits.push((edge.consumer, consumers, times));
            });
        }
        hits
    }

    /// Releases those of the items that neither the client nor a dependent needs, and the entry when nothing is left of it.
    fn release_unneeded(&mut self, id: EntryId, range: Range<u64>) {
        let mut at = range.start;
        loop {
            let Some(entry) = self.entries.get(&id) else { return };
            if at >= range.end.min(entry.items.len()) {
                if entry.is_over() {
                    self.drop_entry(id);
                }
                return;
            }
            let segment = entry.items.segment(at, range.end);
            at = segment.end;
            if segment.wanted || segment.state == State::Released {
                continue;
            }
            if entry.edges.is_empty() {
                self.release_part(id, segment.range(), segment.state, Need::Nothing);
            } else {
                for (part, need) in self.needs(id, segment.range()) {
                    self.release_part(id, part, segment.state, need);
                }
            }
        }
    }

    fn release_part(&mut self, id: EntryId, part: Range<u64>, state: State, need: Need) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let is_data = matches!(entry.kind, Kind::Data(_));
        let to = match (state, need) {
            (_, Need::Value) => return,
            (State::Stored, Need::Lineage) if !is_data && fault::is(Fault::LineageDropped) => State::Released,
            (State::Stored | State::Away, Need::Lineage) if !is_data => State::Dormant,
            // What failed stays, too: what was made of it could be lost, and would fail for the same reason.
            (_, Need::Lineage) => return,
            (_, Need::Nothing) => State::Released,
        };
        match state {
            State::Inline => {
                let ledger = &mut self.ledger;
                entry.values.remove(part.clone(), |first| ledger.drop_row(id, Part::Values, first));
                if let Kind::Data(datum) = &entry.kind {
                    self.credit.give_back(self.clients.get_mut(&id.client), datum.len + ENTRY_COST, self.now);
                }
            }
            State::Failed => {
                part.clone().for_each(|item| {
                    entry.rare.errors.remove(&item);
                });
                self.ledger.drop_errors(id, &part);
            }
            State::Processing => self.stop_runs(id, part.clone()),
            State::Stored | State::Final | State::Away | State::FinalAway => {
                part.clone().for_each(|item| self.free_replicas(id, item, true))
            }
            _ => {}
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.forget_oddities(part.clone());
        }
        self.shift(id, part, state, to);
    }

    /// What dependents need of these items, in pieces.
    pub(super) fn needs(&self, id: EntryId, range: Range<u64>) -> Vec<(Range<u64>, Need)> {
        let Some(entry) = self.entries.get(&id) else { return Vec::new() };
        if entry.edges.is_empty() {
            return vec![(range, Need::Nothing)];
        }
        let mut needs = vec![Need::Nothing; (range.end - range.start) as usize];
        let mut raise = |items: Range<u64>, need: Need| {
            let part = (items.start - range.start) as usize..(items.end - range.start) as usize;
            needs[part].iter_mut().for_each(|old| *old = need.max(*old));
        };
        entry.edges.each(&range, &self.edges, |edge| {
            let part = edge.overlap(&range);
            if !edge.each {
                let is_active = edge.active > 0 && !fault::is(Fault::FreedTooEarly);
                return raise(part, if is_active { Need::Value } else { Need::Lineage });
            }
            let Some(consumer) = self.entries.get(&edge.consumer) else { return };
            let (consumers, _) = edge.consumers_of(&range);
            let back = |item: u64| item - edge.consumers.start + edge.producers.start;
            for segment in consumer.items.segments(consumers) {
                if segment.state.is_holding() {
                    let need = if segment.state.is_active() { Need::Value } else { Need::Lineage };
                    raise(back(segment.first)..back(segment.end), need);
                }
            }
        });
        let mut at = range.start;
        let pieces = needs.chunk_by(|a, b| a == b).map(|piece| {
            let first = at;
            at += piece.len() as u64;
            (first..at, piece[0])
        });
        pieces.collect()
    }
}

/// Counts the consumers that stop or begin to need their inputs on the edges of their holes.
fn shift_edges(
    (part, first, holes): (&Range<u64>, u64, &[Hole]),
    of_chunk: &mut HoleEdges,
    (from, to): (State, State),
    edges: &mut Edges,
    todo: &mut VecDeque<Todo>,
    gone: &mut SmallVec<[EdgeId; 1]>,
) {
    of_chunk.retain(|&mut (hole, edge_id)| {
        let (Some(hole), Some(edge)) = (holes.get(hole as usize), edges.get_mut(edge_id)) else { return false };
        let hole_first = first + u64::from(hole.first);
        let (start, end) = (part.start.max(hole_first), part.end.min(hole_first + u64::from(hole.count)));
        if start >= end {
            return true;
        }
        let count = (end - start) as u32;
        match (from.is_active(), to.is_active()) {
            (true, false) => edge.active -= if fault::is(Fault::EdgeMiscounted) { count - 1 } else { count },
            (false, true) => edge.active += count,
            _ => {}
        }
        if from.is_holding() && !to.is_holding() {
            edge.holding -= count;
        }
        if edge.each {
            let back = |item: u64| item - edge.consumers.start + edge.producers.start;
            todo.push_back(Todo::Free(edge.producer, back(start)..back(end)));
        } else if edge.active == 0 {
            todo.push_back(Todo::Free(edge.producer, edge.producers.clone()));
        }
        if edge.holding == 0 {
            gone.push(edge_id);
        }
        edge.holding > 0
    });
}

impl Entry {
    /// Forgets what was unusual about items that are settled.
    pub(super) fn forget_oddities(&mut self, range: Range<u64>) {
        while let Some((&item, _)) = self.rare.oddities.range(range.clone()).next() {
            self.rare.oddities.remove(&item);
        }
        if !self.rare.suspects.is_empty() {
            self.rare.suspects.remove(range);
        }
    }

    /// Pieces of a range of items that miss nothing (`true`) or something.
    pub(super) fn split_by_missing(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let mut pieces = Vec::<(Range<u64>, bool)>::new();
        for item in range {
            let is_ready = self.items.missing(item) == 0;
            match pieces.last_mut() {
                Some((last, ready)) if *ready == is_ready => last.end += 1,
                _ => pieces.push((item..item + 1, is_ready)),
            }
        }
        pieces
    }
}
