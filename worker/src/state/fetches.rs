//! Inputs on their way: what is fetched or read back, for which runs, and what waits until there is room for it. Must not know: how much
//! room there is, or whether a run is still there.

use std::collections::{BTreeMap, BTreeSet};

use quicsand::{
    codec::Span,
    ids::{Hash, Key, RunId},
    wire::blob::Place,
};

/// Inputs by key and hash.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    fetches: BTreeMap<(Key, Hash), Fetch>,
    /// Those that have not begun, the oldest run's first.
    queue: BTreeSet<(u64, Key, Hash)>,
    bytes: u64,
}

/// An input that will come, and the runs that wait for it.
#[derive(Debug)]
struct Fetch {
    len: u64,
    /// Where from; `None` once it is under way.
    source: Option<Source>,
    /// When the first of its runs arrived.
    arrival: u64,
    /// May name runs that are gone.
    waiters: Vec<RunId>,
    /// It was freed meanwhile: the waiters get it, but it is not held.
    is_freed: bool,
    /// The scheduler wants a copy of it here.
    is_copy: bool,
}

/// What became of an input.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) waiters: Vec<RunId>,
    pub(super) is_freed: bool,
    /// The scheduler, which wanted a copy, is to hear how it ended.
    pub(super) is_copy: bool,
}

/// Where an input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// With these workers, or the scheduler.
    Network(Vec<Place>),
    /// In this file.
    File(u64),
}

/// The next input to begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) key: Key,
    pub(super) hash: Hash,
    pub(super) len: u64,
}

impl Fetches {
    /// A run that arrived then wants an input.
    pub(super) fn want(&mut self, (key, hash): (Key, Hash), len: u64, source: Source, run: RunId, arrival: u64) {
        let fetch = self.fetches.entry((key, hash)).or_insert_with(|| {
            self.queue.insert((arrival, key, hash));
            Fetch { len, source: Some(source), arrival, waiters: Vec::new(), is_freed: false, is_copy: false }
        });
        fetch.waiters.push(run);
        fetch.is_freed = false;
    }

    /// The scheduler wants a copy; runs go first.
    pub(super) fn want_copy(&mut self, (key, hash): (Key, Hash), len: u64, places: Vec<Place>) {
        let arrival = u64::MAX;
        let fetch = self.fetches.entry((key, hash)).or_insert_with(|| {
            self.queue.insert((arrival, key, hash));
            let source = Some(Source::Network(places));
            Fetch { len, source, arrival, waiters: Vec::new(), is_freed: false, is_copy: true }
        });
        (fetch.is_copy, fetch.is_freed) = (true, false);
    }

    /// What to begin with next.
    pub(super) fn next(&self) -> Option<Next> {
        let &(_, key, hash) = self.queue.first()?;
        self.fetches.get(&(key, hash)).map(|fetch| Next { key, hash, len: fetch.len })
    }

    /// Whether one of those runs waits for it, or the scheduler does.
    pub(super) fn is_wanted(&self, next: Next, is_there: impl Fn(&RunId) -> bool) -> bool {
        self.fetches.get(&(next.key, next.hash)).is_some_and(|fetch| fetch.is_copy || fetch.waiters.iter().any(is_there))
    }

    /// It begins; gives where from.
    pub(super) fn begin(&mut self, next: Next) -> Option<Source> {
        let fetch = self.fetches.get_mut(&(next.key, next.hash))?;
        self.queue.remove(&(fetch.arrival, next.key, next.hash));
        let source = fetch.source.take()?;
        self.bytes += fetch.len;
        Some(source)
    }

    /// It came, will not come, or is not wanted.
    pub(super) fn end(&mut self, key: Key, hash: Hash) -> Ended {
        let Some(Fetch { len, source, arrival, waiters, is_freed, is_copy }) = self.fetches.remove(&(key, hash)) else {
            return Ended::default();
        };
        match source {
            Some(_) => drop(self.queue.remove(&(arrival, key, hash))),
            None => self.bytes -= len,
        }
        Ended { waiters, is_freed, is_copy }
    }

    /// Bytes that are under way.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether something is under way.
    pub(super) fn is_any_under_way(&self) -> bool {
        self.queue.len() < self.fetches.len()
    }

    /// Values are not to be held any more.
    pub(super) fn free(&mut self, span: Span) {
        let within = |key: &Key| key.entry == span.entry && key.index >= span.first && key.index - span.first < span.count;
        let freed = self.fetches.iter_mut().filter(|((key, _), _)| within(key));
        freed.for_each(|(_, fetch)| (fetch.is_freed, fetch.is_copy) = (true, false));
    }

    /// How often a run waits for something.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn waits(&self, run: RunId) -> usize {
        self.fetches.values().flat_map(|fetch| &fetch.waiters).filter(|&&waiter| waiter == run).count()
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn check(&self) {
        let queued = self.fetches.iter().filter(|(_, fetch)| fetch.source.is_some());
        assert_eq!(self.queue, queued.map(|(&(key, hash), fetch)| (fetch.arrival, key, hash)).collect());
        let under_way = self.fetches.values().filter(|fetch| fetch.source.is_none());
        assert_eq!(self.bytes, under_way.map(|fetch| fetch.len).sum::<u64>());
    }
}
