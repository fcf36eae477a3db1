//! A summary for people. Must not know: how it is shown.

use super::Scheduler;
use crate::{
    ids::{ClientId, WorkerId},
    wire::{Load, StateCounts, Waiting},
};

/// What is going on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The workers, by number.
    pub workers: Vec<WorkerStatus>,
    /// The clients, by number.
    pub clients: Vec<ClientStatus>,
    /// Items in each state, of all clients; entries that are gone are not in it.
    pub counts: StateCounts,
    /// Ready items that no worker has yet, by what they ask for, and why they wait.
    pub queued: Vec<Waiting>,
}

/// A worker, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its number.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// Its processor architecture.
    pub arch: String,
    /// Items that it runs at a time.
    pub slots: u32,
    /// Its labels, by name: its owner's, and those that every worker has.
    pub labels: Vec<(String, String)>,
    /// Its named resources, by name.
    pub resources: Vec<(String, u64)>,
    /// What assignments take of them, by name; those of which nothing is taken are left out.
    pub taken: Vec<(String, u64)>,
    /// Slots that were busy at its last heartbeat.
    pub load: Load,
    /// Assignments that it has.
    pub assignments: u64,
    /// Those of them that were sent ahead of their inputs.
    pub ahead: u64,
    /// Stored values that it has.
    pub values: u64,
    /// Whether it is leaving.
    pub draining: bool,
}

/// A client, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientStatus {
    /// Its number.
    pub id: ClientId,
    /// Its entries: calls, maps and data that are not released.
    pub entries: u64,
    /// Bytes of its arguments and data that are kept here.
    pub held_bytes: u64,
    /// Its items in each state.
    pub counts: StateCounts,
}

impl Scheduler {
    /// A summary for people; costs a walk over all entries.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = Status::default();
        for (&id, worker) in &self.fleet.workers {
            status.workers.push(WorkerStatus {
                id,
                name: worker.name.clone(),
                arch: worker.hello.arch.clone(),
                slots: worker.hello.slots,
                labels: worker.hello.labels.clone(),
                resources: worker.hello.resources.clone(),
                taken: worker.offer.taken().map(|(name, amount)| (name.to_owned(), amount)).collect(),
                load: worker.load,
                assignments: worker.runs.len() as u64,
                ahead: worker.ahead,
                values: worker.holds.len() as u64,
                draining: worker.draining,
            });
        }
        for (&id, client) in &self.clients {
            let counts = StateCounts::default();
            status.clients.push(ClientStatus { id, entries: 0, held_bytes: client.held, counts });
        }
        for (id, entry) in &self.entries {
            let counts = entry.items.state_counts(0..entry.items.len());
            add(&mut status.counts, counts);
            if let Ok(at) = status.clients.binary_search_by_key(&id.client, |client| client.id) {
                status.clients[at].entries += 1;
                add(&mut status.clients[at].counts, counts);
            }
        }
        status.queued = self.all_queued();
        status
    }
}

/// Adds counts up.
pub(super) fn add(sum: &mut StateCounts, more: StateCounts) {
    let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
    add(&mut sum.waiting, more.waiting);
    add(&mut sum.queued, more.queued);
    add(&mut sum.processing, more.processing);
    add(&mut sum.memory, more.memory);
    add(&mut sum.erred, more.erred);
    add(&mut sum.released, more.released);
}
