//! Clients whose connection is gone: what they have stays for a while, and when they return they are told again all that they could
//! have missed. Must not know: connections, or how a client is known again.

use std::{ops::Range, time::Duration};

use super::{Action, Scheduler, entry::Kind, items::State, sharing::Link};
use crate::{
    codec::Span,
    fault::{self, Fault},
    ids::{ClientId, EntryId},
    wire::ToClient,
};

/// No absence is longer, so that its end is a time that clocks have.
pub(super) const LONGEST_ABSENCE: Duration = Duration::from_secs(1 << 32);

impl Scheduler {
    /// Whether a client has joined and not left, with or without a connection.
    #[must_use]
    pub fn knows(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(|client| !client.has_left)
    }

    /// A client's connection is gone: its calls go on.
    pub(super) fn client_lost(&mut self, id: ClientId) {
        let until = self.now.saturating_add(self.config.client_lease.min(LONGEST_ABSENCE));
        if let Some(client) = self.clients.get_mut(&id)
            && client.away_until.is_none()
            && !client.has_left
        {
            client.away_until = Some(until);
            self.away.insert((until, id));
        }
    }

    /// A client is here again.
    pub(super) fn client_returned(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.has_left) else { return };
        if let Some(until) = client.away_until.take() {
            self.away.remove(&(until, id));
        }
        let total = client.granted;
        self.tell_client(id, ToClient::Credit { total });
        let all = EntryId { client: id, seq: 0 }..=EntryId { client: id, seq: u64::MAX };
        let ids: Vec<_> = self.entries.range(all).map(|(&id, _)| id).collect();
        ids.into_iter().filter(|_| !fault::is(Fault::ReturnUnreported)).for_each(|id| self.report_again(id));
        let links = self.clients.get(&id).map_or_else(Vec::new, |client| client.links.clone().into_iter().collect());
        for (seq, Link { entry, items, .. }) in links {
            let start = items.start;
            self.report(entry, items, EntryId { client: id, seq }, start);
        }
    }

    /// Those who have not returned in time have left.
    pub(super) fn expire_absences(&mut self) {
        while let Some(&(until, id)) = self.away.first()
            && until <= self.now
        {
            tracing::info!(client = %id, "a client did not return, what it had is released");
            self.client_left(id);
        }
    }

    /// Tells a client how those of an entry's items ended that are wanted. Uploads it offers itself.
    fn report_again(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get(&id) else { return };
        // What it sent it has.
        let is_sent = matches!(entry.kind, Kind::Data { .. }) && entry.items.count(State::Inline) > 0;
        if !is_sent {
            self.report(id, 0..entry.items.len(), id, 0);
        }
    }

    /// Tells a client how those of an entry's items ended that are wanted. For the client they are those of `mine`, and `start` is its first one.
    pub(super) fn report(&mut self, id: EntryId, items: Range<u64>, mine: EntryId, start: u64) {
        let Some(entry) = self.entries.get(&id) else { return };
        let mut tell = |message| self.out.push(Action::ToClient(mine.client, message));
        let seq = mine.seq;
        let mut stored = Vec::new();
        for segment in entry.items.segments(items).filter(|segment| segment.wanted) {
            let (first, count) = (segment.first - start, segment.count());
            match segment.state {
                State::Inline => {
                    let runs = entry.values.runs(segment.range());
                    runs.for_each(|(first, values)| tell(ToClient::Done { seq, first: first - start, values }));
                }
                State::Failed => entry.errors.range(segment.range()).for_each(|(&index, error)| {
                    tell(ToClient::Failed { seq, index: index - start, error: (**error).clone() });
                }),
                State::Cancelled => tell(ToClient::Cancelled { span: Span { entry: mine, first, count } }),
                State::Stored | State::Final if mine == id => stored.extend(segment.range()),
                State::Stored | State::Final => {
                    // From the scheduler, which knows whose they are: workers know them by another name.
                    for (&index, replicas) in entry.stored.range(segment.range()) {
                        let (index, len, hash) = (index - start, replicas.len, replicas.hash);
                        tell(ToClient::Stored { seq, index, len, hash, places: Vec::new() });
                    }
                }
                _ => {}
            }
        }
        stored.into_iter().for_each(|item| self.tell_stored(id.key(item)));
    }
}
