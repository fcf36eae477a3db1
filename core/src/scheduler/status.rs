//! A summary for people. Must not know: how it is shown.

use super::{Scheduler, clients::Client};
use crate::wire::{
    StateCounts,
    operator::{ClientStatus, Presence, Status, WorkerStatus},
};

impl Scheduler {
    /// A summary for people, without what the shell alone knows: names of clients, addresses, modules. Costs a walk over all entries.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = Status::default();
        for (&id, worker) in &self.fleet.workers {
            status.workers.push(WorkerStatus {
                id,
                identity: worker.who,
                name: worker.name.clone(),
                address: None,
                arch: worker.hello.arch.clone(),
                slots: worker.hello.slots,
                memory: worker.hello.memory,
                taken: worker.offer.taken().map(|(name, amount)| (name.to_owned(), amount)).collect(),
                load: worker.load,
                labels: worker.hello.labels.clone(),
                resources: worker.hello.resources.clone(),
                assignments: worker.runs.len() as u64,
                ahead: worker.ahead,
                values: worker.holds.len() as u64,
                draining: worker.draining,
            });
        }
        for (&id, client) in &self.clients {
            let counts = StateCounts::default();
            status.clients.push(ClientStatus {
                id,
                name: String::new(),
                address: None,
                entries: 0,
                held_bytes: client.held,
                module: client.module,
                presence: match client {
                    Client { has_left: true, .. } => Presence::Left,
                    Client { away_until: Some(_), .. } => Presence::Away,
                    _ => Presence::Here,
                },
                published: client.names,
                counts,
            });
        }
        for (id, entry) in self.entries.iter() {
            let counts = entry.items.state_counts(0..entry.items.len());
            add(&mut status.counts, counts);
            if let Ok(at) = status.clients.binary_search_by_key(&id.client, |client| client.id) {
                status.clients[at].entries += 1;
                add(&mut status.clients[at].counts, counts);
            }
        }
        status.waits = self.all_queued();
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
