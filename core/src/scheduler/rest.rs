//! Items that rest: they are tried again after a while. Must not know: why they failed.

use std::time::Duration;

use super::{Scheduler, items::State};
use crate::ids::Key;

impl Scheduler {
    /// Has an item that could run, or waits, rest until then.
    pub(super) fn rest(&mut self, key: Key, until: Duration) {
        let Some(entry) = self.entries.get(&key.entry) else { return };
        let Some(from @ (State::Waiting | State::Queued)) = entry.items.state(key.index) else { return };
        self.shift(key.entry, key.index..key.index + 1, from, State::Resting);
        if let Some(entry) = self.entries.get_mut(&key.entry) {
            entry.rare.resting.insert(key.index, until);
            self.rests.insert((until, key));
        }
    }

    /// The pause before an item is tried again that failed so often.
    pub(super) fn retry_pause(&self, attempts: u32) -> Duration {
        let doubled = self.config.retry_delay.saturating_mul(1 << attempts.saturating_sub(1).min(30));
        doubled.min(self.config.longest_retry_delay)
    }

    /// Ends the rests that are over.
    pub(super) fn wake_rested(&mut self) {
        while let Some(&(until, key)) = self.rests.first()
            && until <= self.now
        {
            self.end_rest(key);
        }
    }

    /// Has an item run again, once its inputs are there, unless it must not.
    pub(super) fn end_rest(&mut self, key: Key) {
        let is_resting = |entry: &super::entry::Entry| entry.items.state(key.index) == Some(State::Resting);
        if !self.entries.get(&key.entry).is_some_and(is_resting) || self.is_guilty(key) {
            return;
        }
        let Some(entry) = self.entries.get(&key.entry) else { return };
        let to = if entry.items.missing(key.index) == 0 { State::Queued } else { State::Waiting };
        self.shift(key.entry, key.index..key.index + 1, State::Resting, to);
    }
}
