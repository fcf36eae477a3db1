//! Arguments that are kept only because a stored result could be lost and computed again: which of them go when they are too many.
//! Must not know: how results are lost, or computed again.

use std::ops::Range;

use super::{
    Scheduler,
    items::{Segment, State},
};
use crate::ids::{ClientId, EntryId};

/// Arguments that nothing but a loss would need.
struct Kept {
    entry: EntryId,
    items: Range<u64>,
    bytes: u64,
}

impl Scheduler {
    /// A call's result is stored while its arguments are kept.
    pub(super) fn note_lineage(&mut self, id: EntryId) {
        let Some(client) = self.clients.get_mut(&id.client) else { return };
        client.lineage.insert(id.seq);
        // If it fills its share, whether something can go is decided there.
        self.credit.note(client, self.now);
    }

    /// Where arguments that only a loss would need fill most of a client's share, lets them go, those of the oldest entries first, until there
    /// is room again: the client would otherwise wait for ever, unless it releases results. Those results are final: once lost, they are
    /// not computed again. Arguments of calls that have not ended fill the share in passing, and cost no result anything.
    pub(super) fn shed_lineage(&mut self, full: Vec<ClientId>) {
        for client in full {
            let kept = self.kept_for_loss(client);
            if kept.iter().map(|kept| kept.bytes).sum::<u64>() < self.config.client_bytes / 2 {
                continue;
            }
            for Kept { entry: id, items, .. } in kept {
                if self.clients.get(&client).is_none_or(|client| client.held <= self.config.client_bytes / 4 * 3) {
                    break;
                }
                let Some(entry) = self.entries.get(&id) else { continue };
                let stored: Vec<Segment> = entry.items.segments(items).filter(|segment| segment.state == State::Stored).collect();
                for segment in stored {
                    self.shift(id, segment.range(), State::Stored, State::Final);
                }
                // What these needed may go, too, and make room.
                self.settle();
            }
        }
    }

    /// Chunks of a client's arguments that only a loss would need, by age.
    fn kept_for_loss(&mut self, id: ClientId) -> Vec<Kept> {
        let Some(client) = self.clients.get_mut(&id) else { return Vec::new() };
        let entries = &self.entries;
        client.lineage.retain(|&seq| {
            let entry = entries.get(&EntryId { client: id, seq });
            entry.is_some_and(|entry| entry.items.count(State::Stored) + entry.items.count(State::Dormant) > 0)
        });
        let mut kept = Vec::new();
        for &seq in &client.lineage {
            let id = EntryId { client: id, seq };
            let Some(entry) = self.entries.get(&id) else { continue };
            for chunk in entry.args.iter().filter(|chunk| chunk.holding > 0) {
                let segments = entry.items.segments(chunk.range());
                let idle = segments.filter(|segment| matches!(segment.state, State::Stored | State::Dormant));
                if idle.map(|segment| segment.count()).sum::<u64>() == chunk.holding {
                    kept.push(Kept { entry: id, items: chunk.range(), bytes: chunk.cost() + entry.own_cost() });
                }
            }
        }
        kept
    }
}
