//! All the chance that there is in a simulation, from one seed. Must not know: what is decided by it.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A small seeded generator.
#[derive(Debug)]
pub(super) struct Rng(Pcg64Mcg);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// A number below `end`, or 0 if that is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// True so many times in a thousand.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of these; there is one.
    pub(super) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// One of these, if there is one.
    pub(super) fn pick<T>(&mut self, all: impl ExactSizeIterator<Item = T>) -> Option<T> {
        let (mut all, at) = (all, self.below(u64::MAX));
        let count = all.len() as u64;
        if count == 0 { None } else { all.nth((at % count) as usize) }
    }

    /// A time within bounds, in microseconds; short ones are likelier.
    pub(super) fn micros(&mut self, least: u64, most: u64) -> Duration {
        let span = most - least + 1;
        let bound = 1 + self.below(span);
        Duration::from_micros(least + self.below(bound))
    }

    /// A time within bounds, in milliseconds; short ones are likelier.
    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        self.micros(least * 1000, most * 1000)
    }
}
