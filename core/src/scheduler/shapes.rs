//! Shapes: distinct sets of requirements, each with a queue of its own, so that what no worker can take now holds up nobody else.
//! Owns: which entries of a shape have ready items, which workers can run it, and which shapes are worth a look. Must not know: how
//! busy workers are, and what a run is.
//!
//! A shape for which no worker was found is *stuck*: nobody looks at its entries again before a worker that can run it has room, or
//! enough of its resources, again. So an event costs nothing for what is stuck, however many entries that is, and little for each stuck
//! shape that its worker could run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{entry::QueueKey, lanes::Lanes, offer::Offer};
use crate::{DEFAULT_MEMORY, Options, ids::WorkerId, requirements::Requirements};

/// Names a shape while it exists.
pub(super) type ShapeId = u32;

/// Bytes that a task can address: nobody can give more.
const ADDRESSABLE: u64 = 4 << 30;
/// Wishes for memory are alike if they are so close.
const MEMORY_STEP: u64 = 256 << 20;

/// The shape of what every worker can run. It is always there.
pub(super) const PLAIN: ShapeId = 0;

/// Calls that ask for the same.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) requires: Arc<Requirements>,
    /// Bytes of memory for which it looks for a worker that can give them; 0 if any will do.
    memory: u64,
    /// Entries of this shape.
    entries: u64,
    /// Those that have ready items.
    ready: Lanes,
    /// Workers that have what it asks for, though it may be taken now; of the plain shape none are listed.
    fits: BTreeSet<WorkerId>,
    /// Those of them that can give it the memory.
    roomy: BTreeSet<WorkerId>,
    /// Its first ready entry, as the table of heads has it.
    head: Option<QueueKey>,
    stuck: bool,
    /// Whether it was said that nobody can run it.
    is_told: bool,
}

/// All shapes.
#[derive(Debug)]
pub(super) struct Shapes {
    shapes: BTreeMap<ShapeId, Shape>,
    /// By what they ask for, and by wished memory.
    known: BTreeMap<Arc<Requirements>, BTreeMap<u64, ShapeId>>,
    next: ShapeId,
    /// The first ready entry of every shape that is not stuck, in order. There are few shapes, and nearly every event changes one of these.
    heads: Vec<(QueueKey, ShapeId)>,
    stuck: BTreeSet<ShapeId>,
    /// Whether a shape may have become one that nobody can run.
    is_doubtful: bool,
}

impl Default for Shapes {
    fn default() -> Self {
        Self {
            shapes: BTreeMap::from([(PLAIN, Shape::default())]),
            known: BTreeMap::new(),
            next: PLAIN + 1,
            heads: Vec::new(),
            stuck: BTreeSet::new(),
            is_doubtful: false,
        }
    }
}

impl Shape {
    /// The workers that can run it: where some can give the memory that it wishes, only those. It is a wish, so where none can, it is
    /// no matter.
    pub(super) fn workers(&self) -> &BTreeSet<WorkerId> {
        if self.roomy.is_empty() { &self.fits } else { &self.roomy }
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn takes_resources(&self) -> bool {
        self.requires.resources().len() > 0
    }

    fn add_worker(&mut self, worker: WorkerId, offer: &Offer) {
        if offer.has(&self.requires) {
            self.fits.insert(worker);
            self.is_told = false;
            if self.memory > 0 && offer.memory >= self.memory {
                self.roomy.insert(worker);
            }
        }
    }
}

impl Shapes {
    /// The shape of calls with these options, if it is known; that of most calls is.
    pub(super) fn find(&self, options: &Options) -> Option<ShapeId> {
        let memory = wished_memory(options);
        if memory == 0 && options.requires.is_empty() {
            return Some(PLAIN);
        }
        self.known.get(&options.requires)?.get(&memory).copied()
    }

    /// A new shape, which these workers are looked at for.
    pub(super) fn add<'a>(&mut self, options: &Options, workers: impl Iterator<Item = (WorkerId, &'a Offer)>) -> ShapeId {
        while self.next == PLAIN || self.shapes.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        let requires = Arc::new(options.requires.clone());
        let mut shape = Shape { requires: Arc::clone(&requires), memory: wished_memory(options), ..Shape::default() };
        workers.for_each(|(worker, offer)| shape.add_worker(worker, offer));
        self.known.entry(requires).or_default().insert(shape.memory, id);
        self.shapes.insert(id, shape);
        id
    }

    /// Counts an entry of a shape.
    pub(super) fn enter(&mut self, id: ShapeId) {
        if let Some(shape) = self.shapes.get_mut(&id) {
            shape.entries += 1;
        }
    }

    /// An entry is gone, and the shape with the last one.
    pub(super) fn leave(&mut self, id: ShapeId, key: &QueueKey) {
        self.remove(id, key);
        let Some(shape) = self.shapes.get_mut(&id) else { return };
        shape.entries -= 1;
        if shape.entries == 0 && id != PLAIN {
            if let Some(alike) = self.known.get_mut(&shape.requires) {
                alike.remove(&shape.memory);
                if alike.is_empty() {
                    self.known.remove(&shape.requires);
                }
            }
            self.stuck.remove(&id);
            self.shapes.remove(&id);
        }
    }

    /// What runs of a shape take of a worker, if anything.
    pub(super) fn takes(&self, id: ShapeId) -> Option<Arc<Requirements>> {
        if id == PLAIN {
            return None;
        }
        let shape = self.shapes.get(&id).filter(|shape| shape.takes_resources())?;
        Some(Arc::clone(&shape.requires))
    }

    pub(super) fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ShapeId, &Shape)> {
        self.shapes.iter().map(|(&id, shape)| (id, shape))
    }

    /// An entry has ready items.
    pub(super) fn insert(&mut self, id: ShapeId, key: QueueKey) {
        let Some(shape) = self.shapes.get_mut(&id) else { return };
        shape.ready.insert(key);
        self.is_doubtful |= id != PLAIN && shape.fits.is_empty() && !shape.is_told;
        self.refresh(id);
    }

    /// An entry has no ready items.
    pub(super) fn remove(&mut self, id: ShapeId, key: &QueueKey) {
        if let Some(shape) = self.shapes.get_mut(&id)
            && shape.ready.remove(key)
        {
            self.refresh(id);
        }
    }

    /// Whether nothing is ready that a worker could have room for.
    pub(super) fn is_idle(&self) -> bool {
        self.heads.is_empty()
    }

    /// The next ready entry after this one, of the shapes that are not stuck.
    pub(super) fn next(&self, after: Option<QueueKey>) -> Option<(QueueKey, ShapeId)> {
        let Some(after) = after else { return self.heads.first().copied() };
        let later = |id: ShapeId| self.shapes.get(&id)?.ready.after(after).map(|key| (key, id));
        self.heads.iter().filter_map(|&(_, id)| later(id)).min()
    }

    /// No worker can take any of this shape now.
    pub(super) fn stick(&mut self, id: ShapeId) {
        if let Some(shape) = self.shapes.get_mut(&id) {
            shape.stuck = true;
            self.stuck.insert(id);
            self.refresh(id);
        }
    }

    /// A worker has room, or more of a resource, again: what it can run now is worth a look.
    pub(super) fn unstick(&mut self, worker: WorkerId, offer: &Offer) {
        let free = |id: &ShapeId| {
            self.shapes.get(id).is_some_and(|shape| shape.workers().contains(&worker) && offer.has_free(&shape.requires))
        };
        let freed: Vec<_> = self.stuck.iter().copied().filter(free).collect();
        freed.into_iter().for_each(|id| self.loosen(id));
    }

    pub(super) fn add_worker(&mut self, worker: WorkerId, offer: &Offer) {
        for (_, shape) in self.shapes.range_mut(PLAIN + 1..) {
            shape.add_worker(worker, offer);
        }
        self.is_doubtful = true;
        self.unstick(worker, offer);
    }

    /// A worker is gone, or takes no more work.
    pub(super) fn remove_worker(&mut self, worker: WorkerId) {
        let mut widened = Vec::new();
        for (&id, shape) in self.shapes.range_mut(PLAIN + 1..) {
            shape.fits.remove(&worker);
            if shape.roomy.remove(&worker) && shape.roomy.is_empty() {
                widened.push(id);
            }
        }
        self.is_doubtful = true;
        widened.into_iter().for_each(|id| self.loosen(id));
    }

    /// Shapes with ready items that no worker can run, each once until one can.
    pub(super) fn take_hopeless(&mut self) -> Vec<ShapeId> {
        if !std::mem::take(&mut self.is_doubtful) {
            return Vec::new();
        }
        let hopeless = |shape: &Shape| shape.is_ready() && shape.fits.is_empty() && !shape.is_told;
        let found = self.shapes.range_mut(PLAIN + 1..).filter(|(_, shape)| hopeless(shape));
        let told = found.map(|(&id, shape)| {
            shape.is_told = true;
            id
        });
        told.collect()
    }

    fn loosen(&mut self, id: ShapeId) {
        if let Some(shape) = self.shapes.get_mut(&id) {
            shape.stuck = false;
            self.stuck.remove(&id);
            self.refresh(id);
        }
    }

    /// Puts a shape's first ready entry where it belongs in the table of heads.
    fn refresh(&mut self, id: ShapeId) {
        let Some(shape) = self.shapes.get_mut(&id) else { return };
        let head = if shape.stuck { None } else { shape.ready.first() };
        let old = std::mem::replace(&mut shape.head, head);
        if old != head {
            self.move_head(old.map(|old| (old, id)), head.map(|head| (head, id)));
        }
    }

    /// Takes one out of the table of heads, and puts one in.
    fn move_head(&mut self, old: Option<(QueueKey, ShapeId)>, new: Option<(QueueKey, ShapeId)>) {
        let heads = &mut self.heads;
        let from = old.and_then(|old| heads.binary_search(&old).ok());
        let to = new.map(|new| (heads.partition_point(|head| *head < new), new));
        match (from, to) {
            (Some(from), Some((to, new))) if to <= from => {
                heads[to..=from].rotate_right(1);
                heads[to] = new;
            }
            (Some(from), Some((to, new))) => {
                heads[from..to].rotate_left(1);
                heads[to - 1] = new;
            }
            (Some(from), None) => drop(heads.remove(from)),
            (None, Some((to, new))) => heads.insert(to, new),
            (None, None) => {}
        }
    }

    /// Asserts that the tables agree with each other, and with what is so: the shapes' entries, how many and which of them are ready,
    /// and the workers that take work.
    pub(super) fn check(&self, entries: &BTreeMap<ShapeId, (u64, BTreeSet<QueueKey>)>, workers: &[(WorkerId, &Offer)]) {
        let nothing = (0, BTreeSet::new());
        for (id, shape) in &self.shapes {
            let (count, ready) = entries.get(id).unwrap_or(&nothing);
            assert_eq!(shape.entries, *count, "shape {id}: entries");
            assert!(shape.ready.iter().eq(ready.iter().copied()), "shape {id}: the queue is out of step");
            assert!(*count > 0 || *id == PLAIN, "shape {id} is kept for nothing");
            let head = ready.first().copied().filter(|_| !shape.stuck);
            assert_eq!(shape.head, head, "shape {id}: head");
            assert!(head.is_none_or(|head| self.heads.binary_search(&(head, *id)).is_ok()), "shape {id} is overlooked");
            assert_eq!(self.stuck.contains(id), shape.stuck, "shape {id}: stuck?");
            if *id == PLAIN {
                continue;
            }
            let known = self.known.get(&shape.requires).and_then(|alike| alike.get(&shape.memory));
            assert_eq!(known, Some(id), "shape {id} is not found");
            let mut expected = Shape { requires: Arc::clone(&shape.requires), memory: shape.memory, ..Shape::default() };
            workers.iter().for_each(|(worker, offer)| expected.add_worker(*worker, offer));
            assert_eq!((&shape.fits, &shape.roomy), (&expected.fits, &expected.roomy), "shape {id}: workers");
        }
        assert_eq!(self.heads.len(), self.shapes.values().filter(|shape| shape.head.is_some()).count(), "heads of nothing");
        assert!(entries.keys().all(|id| self.shapes.contains_key(id)), "entries without a shape");
        let known: usize = self.known.values().map(BTreeMap::len).sum();
        assert_eq!(known + 1, self.shapes.len(), "shapes that are gone are known");
    }
}

/// Every call wishes for some memory; only one that wishes for more than it is given unasked looks for a worker that has it. In steps,
/// so that there are few different wishes.
fn wished_memory(options: &Options) -> u64 {
    let wish = options.memory.min(ADDRESSABLE).next_multiple_of(MEMORY_STEP);
    if options.memory > DEFAULT_MEMORY { wish } else { 0 }
}
