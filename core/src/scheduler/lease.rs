//! Silence: when a worker counts as gone, and when only the scheduler itself was away. Must not know: what follows for its runs.

use std::time::Duration;

use super::{Action, Scheduler, refusal::Refusal};

/// Leases are looked at so many times in the length of one: a pulse by which the scheduler notices its own absences, too.
const PULSES: u32 = 8;
/// Of a lease, the tenths after which a silent worker's process is looked for.
const PROBE_TENTHS: u32 = 3;
/// Of a lease, the part by which a look may be late without being taken for an absence.
const LATE_PART: u32 = 10;

impl Scheduler {
    /// If this side did not look when it should have, because it was stopped or starved, every worker is given the time that was
    /// missed: what they said meanwhile is still to be read.
    pub(super) fn excuse_own_sleep(&mut self) {
        let Some(check) = self.lease_check else { return };
        let late = self.now.saturating_sub(check);
        if late < self.config.lease / LATE_PART {
            return;
        }
        let now = self.now;
        self.fleet.workers.values_mut().for_each(|worker| worker.heard = (worker.heard + late).min(now));
        self.absences.postpone(late);
        self.lease_check = Some(now);
    }

    /// A worker that joined is to be looked at.
    pub(super) fn watch_leases(&mut self) {
        if self.lease_check.is_none() {
            self.lease_check = self.next_pulse();
        }
    }

    /// Cuts off the workers of which nothing was heard for too long, and has those looked for that begin to be silent.
    pub(super) fn expire_leases(&mut self) {
        if self.lease_check.is_none_or(|check| self.now < check) {
            return;
        }
        let (now, lease) = (self.now, self.config.lease);
        let mut silent = Vec::new();
        for (&id, worker) in self.fleet.workers.iter_mut() {
            let silence = now.saturating_sub(worker.heard);
            if silence >= lease {
                silent.push(id);
            } else if silence >= lease / 10 * PROBE_TENTHS && !worker.probed {
                worker.probed = true;
                self.out.push(Action::Probe(id));
            }
        }
        for id in silent {
            self.refuse_worker(id, &Refusal::Silent);
        }
        self.lease_check = self.next_pulse();
    }

    /// `None` while nobody is here, and for leases that never end.
    fn next_pulse(&self) -> Option<Duration> {
        let lease = self.config.lease;
        let ends = self.fleet.workers.values().map(|worker| worker.heard.checked_add(lease));
        let first_end = ends.min().flatten()?;
        Some(first_end.min(self.now + lease / PULSES))
    }
}
