//! Arguments that are kept only because a stored result could be lost and computed again: which of them go when they are too many.
//! Must not know: how results are lost, or computed again.

use std::ops::Range;

use super::{Scheduler, items::State};
use crate::ids::{ClientId, EntryId};

impl Scheduler {
    /// A call's result is stored while its arguments are kept.
    pub(super) fn note_lineage(&mut self, id: EntryId) {
        let Some(client) = self.clients.get_mut(&id.client) else { return };
        client.lineage.insert(id.seq);
        if client.is_full(self.config.client_bytes) {
            // Whether something can go is decided there.
            self.credit_check.get_or_insert(self.now);
        }
    }

    /// Lets arguments of stored results go, those of the oldest entries first, where they keep a client from sending more: it would wait
    /// for ever if it does not release results. Those results are final: once lost, they are not computed again.
    pub(super) fn shed_lineage(&mut self, full: Vec<ClientId>) {
        let target = self.config.client_bytes / 4 * 3;
        for client in full {
            while let Some(state) = self.clients.get_mut(&client)
                && state.held > target
                && let Some(&seq) = state.lineage.first()
            {
                let id = EntryId { client, seq };
                if let Some(items) = self.first_kept(id) {
                    self.shift(id, items, State::Stored, State::Final);
                } else if let Some(state) = self.clients.get_mut(&client) {
                    state.lineage.remove(&seq);
                }
            }
        }
    }

    /// The first stored items of an entry whose arguments are kept.
    fn first_kept(&self, id: EntryId) -> Option<Range<u64>> {
        let entry = self.entries.get(&id).filter(|entry| entry.items.count(State::Stored) > 0)?;
        let live = entry.args.iter().filter(|chunk| chunk.holding > 0);
        let mut segments = live.flat_map(|chunk| entry.items.segments(chunk.range()));
        segments.find(|segment| segment.state == State::Stored).map(|segment| segment.range())
    }
}
