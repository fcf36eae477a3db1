//! Which worker gets a batch: one that has what is asked for, and room; then where the inputs are, then the least loaded. Must not
//! know: what is sent.
//!
//! Bounded: of calls that ask for nothing, only the least loaded worker and the holders of the first few inputs are compared, however large
//! the fleet. For what asks for resources, those who have room are looked through, in order of load, until one has enough.

use std::collections::BTreeMap;

use super::{
    Scheduler,
    chunks::Chunk,
    entry::Entry,
    fleet::Worker,
    items::State,
    register::spans_of,
    shapes::{PLAIN, Shape, ShapeId},
};
use crate::{codec::Source, ids::WorkerId, wire::RUN_BYTES};

/// Estimated time to move a byte between workers: 250 MB/s.
const BYTE_NANOS: u64 = 4;
/// Where a shape's workers are a smaller part of the fleet than this, they are looked at themselves rather than those with room.
const RARE: usize = 8;
/// Stored inputs of a batch's first item that are looked at; and workers with room, for one that has fewer runs than it should.
const LOOKED_AT: usize = 32;

impl Scheduler {
    /// Whether a worker has what a shape asks for, now; room for more is another matter. What must run alone goes where no other such
    /// item runs, so that one bad call does not blame another.
    pub(super) fn can_run(&self, id: WorkerId, shape: ShapeId, suspect: bool) -> bool {
        let Some(worker) = self.fleet.workers.get(&id).filter(|worker| !suspect || worker.suspects == 0) else { return false };
        let fits = |shape: &Shape| shape.workers().contains(&id) && worker.offer.has_free(&shape.requires);
        shape == PLAIN || self.shapes.get(shape).is_some_and(fits)
    }

    /// The least loaded of the workers that have room for a shape's items.
    pub(super) fn least_loaded(&self, shape: ShapeId, suspect: bool) -> Option<WorkerId> {
        let free = &self.fleet.free;
        let fits = |id: WorkerId| self.can_run(id, shape, suspect);
        let few = self.shapes.get(shape).filter(|_| shape != PLAIN).map(Shape::workers);
        match few.filter(|few| few.len() < free.len() / RARE) {
            Some(few) => {
                let room = |&id: &WorkerId| Some((self.fleet.workers.get(&id)?.room()?, id));
                few.iter().filter_map(room).filter(|(_, id)| fits(*id)).min().map(|(_, id)| id)
            }
            // Nobody of those with room is turned down.
            None if shape == PLAIN && !suspect => free.first(),
            None => free.in_order().find(|id| fits(*id)),
        }
    }

    /// Whether a worker has fewer runs than it should have, however short they are.
    pub(super) fn wants_any(&self, id: WorkerId) -> bool {
        self.fleet.workers.get(&id).is_some_and(|worker| worker.wants_any(self.config.pipeline))
    }

    /// The least loaded of the workers that have fewer runs than they should have, for items of a shape. It need not be the least loaded one:
    /// many short runs are less than one long one.
    pub(super) fn eager(&self, shape: ShapeId) -> Option<WorkerId> {
        if self.fleet.eager == 0 {
            return None;
        }
        self.fleet.free.in_order().take(LOOKED_AT).find(|&id| self.wants_any(id) && self.can_run(id, shape, false))
    }

    /// The worker for a batch that begins with this item, of that chunk; `None` if nobody who can run it has room.
    pub(super) fn choose_worker(&self, entry: &Entry, chunk: &Chunk<'_>, item: u64, suspect: bool) -> Option<WorkerId> {
        let least = self.least_loaded(entry.shape, suspect)?;
        if entry.rare.oddities.get(&item).is_some_and(|oddity| oddity.not_local) {
            return Some(least);
        }
        let (local, total) = self.local_bytes(chunk, item);
        let delay = |id| self.fleet.workers.get(&id).and_then(Worker::delay);
        let mut best = (delay(least)?.saturating_add(total.saturating_mul(BYTE_NANOS)), least);
        for (id, bytes) in local {
            let Some(delay) = delay(id).filter(|_| !self.is_pressed(id)) else { continue };
            let cost = delay.saturating_add((total - bytes).saturating_mul(BYTE_NANOS));
            if (cost, id) < best && self.can_run(id, entry.shape, suspect) {
                best = (cost, id);
            }
        }
        Some(best.1)
    }

    /// Whether a worker's memory is so short that it gets something only if nobody else can.
    fn is_pressed(&self, id: WorkerId) -> bool {
        self.fleet.workers.get(&id).is_some_and(|worker| worker.load.pressed)
    }

    /// Bytes of the item's stored inputs on each worker that has any, and in all.
    fn local_bytes(&self, chunk: &Chunk<'_>, item: u64) -> (BTreeMap<WorkerId, u64>, u64) {
        let (mut local, mut total) = (BTreeMap::new(), 0_u64);
        let mut left = LOOKED_AT;
        for span in chunk.inputs_of(item..item + 1) {
            let Some(producer) = self.entries.get(&span.entry).filter(|producer| !producer.rare.stored.is_empty()) else {
                continue;
            };
            for (_, replicas) in producer.rare.stored.range(span.first..span.first + span.count).take(left) {
                left -= 1;
                total = total.saturating_add(replicas.len);
                for &worker in &replicas.workers {
                    let sum: &mut u64 = local.entry(worker).or_default();
                    *sum = sum.saturating_add(replicas.len);
                }
            }
        }
        (local, total)
    }

    /// Where a batch from `first` with at most `count` items of a chunk ends: shorter when its bytes would be too many for a message, or when
    /// the next item's own input is on another worker.
    pub(super) fn trim_batch(&self, chunk: &Chunk<'_>, first: u64, count: u64, worker: WorkerId) -> u64 {
        let mut count = count.max(1);
        let start = first - chunk.first;
        for hole in chunk.holes {
            let Source::Each { .. } = hole.source else { continue };
            let hole_first = u64::from(hole.first);
            let (from, to) = (start.max(hole_first), (start + count).min(hole_first + u64::from(hole.count)));
            if from >= to {
                continue;
            }
            for span in spans_of(&hole.source, from - hole_first..to - hole_first) {
                let Some(producer) = self.entries.get(&span.entry).filter(|producer| !producer.rare.stored.is_empty()) else {
                    continue;
                };
                let stored = producer.rare.stored.range(span.first..span.first + span.count);
                let foreign = stored.into_iter().find(|(_, replicas)| !replicas.held && !replicas.workers.contains(&worker));
                if let Some((&index, _)) = foreign {
                    count = count.min((from + (index - span.first) - start).max(1));
                }
            }
        }
        while count > 1 {
            let bytes = self.batch_bytes(chunk, first, count);
            if bytes <= RUN_BYTES as u64 {
                break;
            }
            count = (count * RUN_BYTES as u64 / bytes).clamp(1, count - 1);
        }
        first + count
    }

    /// Bytes that the arguments and inline inputs of a batch of several items have; what all of them share is not counted.
    fn batch_bytes(&self, chunk: &Chunk<'_>, first: u64, count: u64) -> u64 {
        let start = first - chunk.first;
        let mut bytes = chunk.len_of(start as u32..(start + count) as u32) as u64;
        for hole in chunk.holes {
            let hole_first = u64::from(hole.first);
            let (from, to) = (start.max(hole_first), (start + count).min(hole_first + u64::from(hole.count)));
            let is_shared = !matches!(hole.source, Source::Each { .. }) && to.saturating_sub(from) == count;
            if from >= to || is_shared {
                continue;
            }
            for span in spans_of(&hole.source, from - hole_first..to - hole_first) {
                let Some(producer) = self.entries.get(&span.entry) else { continue };
                let inline = producer.items.segments(span.first..span.first + span.count);
                for segment in inline.filter(|segment| segment.state == State::Inline) {
                    bytes += producer.values.runs(segment.range()).map(|(_, run)| run.bytes().len() as u64).sum::<u64>();
                }
            }
        }
        bytes
    }
}
