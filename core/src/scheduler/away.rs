//! Clients whose connection is gone: what they have stays for a while, and when they return they are told again all that they could
//! have missed. Must not know: connections, or how a client is known again.

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use super::{Action, Scheduler, entry::Kind, items::State, sharing::Link};
use crate::{
    codec::Span,
    fault::{self, Fault},
    ids::{ClientId, EntryId},
    wire::ToClient,
};

/// What a message is taken to have beside its contents.
const MESSAGE_BYTES: u64 = 128;
/// No absence is longer, so that its end is a time that clocks have.
pub(super) const LONGEST_ABSENCE: Duration = Duration::from_secs(1 << 32);

/// What a client is still to be told of: by its own numbers of entries, which are those of links, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct CatchUp {
    /// The next entry, and its next item as the client counts them.
    seq: u64,
    item: u64,
    /// The last entry.
    last: u64,
}

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
            (client.away_until, client.catch_up) = (Some(until), None);
            self.away.insert((until, id));
        }
    }

    /// A client is here again.
    pub(super) fn client_returned(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.has_left) else { return };
        if let Some(until) = client.away_until.take() {
            self.away.remove(&(until, id));
        }
        client.catch_up = client.last_seq.map(|last| CatchUp { seq: 0, item: 0, last });
        let total = client.granted;
        self.tell_client(id, ToClient::Credit { total });
        self.report_more(id);
    }

    /// Tells a client that has returned the next portion of what it could have missed: all at once could be more than is kept for a peer,
    /// which it would be cut off for, however often it comes.
    pub(super) fn report_more(&mut self, id: ClientId) {
        let catch_up = self.clients.get_mut(&id).and_then(|client| client.catch_up.take());
        let Some(CatchUp { mut seq, mut item, last }) = catch_up else { return };
        let mut room = self.config.report_bytes.max(1);
        while let Some((mine, link)) = self.next_of(id, seq..=last) {
            if mine.seq != seq {
                (seq, item) = (mine.seq, 0);
            }
            let left = match link {
                Some(Link { entry, items, .. }) => {
                    self.report(entry, items.start + item..items.end, mine, items.start, &mut room)
                }
                None if fault::is(Fault::ReturnUnreported) => None,
                None => self.report_again(mine, item, &mut room),
            };
            if let Some(next) = left {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.catch_up = Some(CatchUp { seq, item: next, last });
                }
                return self.out.push(Action::AwaitRoom(id));
            }
            if seq == last {
                return;
            }
            (seq, item) = (seq + 1, 0);
        }
    }

    /// Tells a client what it took up just now, after what it is still to be told, if anything.
    pub(super) fn report_taken_up(&mut self, mine: EntryId) {
        let Some(client) = self.clients.get_mut(&mine.client) else { return };
        match &mut client.catch_up {
            Some(catch_up) => catch_up.last = mine.seq,
            none => {
                *none = Some(CatchUp { seq: mine.seq, item: 0, last: mine.seq });
                self.report_more(mine.client);
            }
        }
    }

    /// The first of a client's entries of these numbers, and what it stands for if that was taken up.
    fn next_of(&self, id: ClientId, seqs: RangeInclusive<u64>) -> Option<(EntryId, Option<Link>)> {
        let own = self.entries.of(id, seqs.clone()).next().map(|(id, _)| id);
        let link = self.clients.get(&id)?.links.range(seqs).next();
        match (own, link) {
            (Some(own), Some((&seq, _))) if own.seq < seq => Some((own, None)),
            (_, Some((&seq, link))) => Some((EntryId { client: id, seq }, Some(link.clone()))),
            (own, None) => own.map(|own| (own, None)),
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

    /// Tells a client how those of an entry's items from `item` ended that are wanted. Uploads it offers itself.
    fn report_again(&mut self, id: EntryId, item: u64, room: &mut u64) -> Option<u64> {
        let entry = self.entries.get(&id)?;
        // What it sent it has.
        let is_sent = matches!(entry.kind, Kind::Data(_)) && entry.items.count(State::Inline) > 0;
        if is_sent { None } else { self.report(id, item..entry.items.len(), id, 0, room) }
    }

    /// Tells a client how those of an entry's items ended that are wanted, until there is no more `room`, in bytes. For the client they are
    /// those of `mine`, and `start` is its first one. Gives the item, as the client counts, that is next if there was not enough room.
    pub(super) fn report(&mut self, id: EntryId, items: Range<u64>, mine: EntryId, start: u64, room: &mut u64) -> Option<u64> {
        let entry = self.entries.get(&id)?;
        let seq = mine.seq;
        // Own stored items, whose places are found last.
        let (mut stored, mut left) = (Vec::new(), None);
        let mut tell = |end: u64, bytes: u64, message: Option<ToClient>| {
            self.out.extend(message.map(|message| Action::ToClient(mine.client, message)));
            *room = room.saturating_sub(bytes.saturating_add(MESSAGE_BYTES));
            left = (*room == 0).then_some(end - start);
            left.is_none()
        };
        for segment in entry.items.segments(items).filter(|segment| segment.wanted) {
            let (first, count) = (segment.first - start, segment.count());
            let goes_on = match segment.state {
                State::Inline => entry.values.runs(segment.range()).all(|(first, values)| {
                    let (end, bytes) = (first + u64::from(values.count()), values.bytes().len() as u64);
                    tell(end, bytes, Some(ToClient::Done { seq, first: first - start, values }))
                }),
                State::Failed => entry.rare.errors.range(segment.range()).all(|(&index, error)| {
                    let bytes = error.message.len() + error.backtrace.len() + error.log.len();
                    let error = (**error).clone();
                    tell(index + 1, bytes as u64, Some(ToClient::Failed { seq, index: index - start, error }))
                }),
                State::Cancelled => {
                    let span = Span { entry: mine, first, count };
                    tell(segment.end, 0, Some(ToClient::Cancelled { span }))
                }
                State::Stored | State::Final if mine == id => segment.range().all(|item| {
                    stored.push(item);
                    tell(item + 1, 0, None)
                }),
                // From the scheduler, which knows whose they are: workers know them by another name.
                State::Stored | State::Final => entry.rare.stored.range(segment.range()).all(|(&index, replicas)| {
                    let (len, hash) = (replicas.len, replicas.hash);
                    tell(index + 1, 0, Some(ToClient::Stored { seq, index: index - start, len, hash, places: Vec::new() }))
                }),
                _ => true,
            };
            if !goes_on {
                break;
            }
        }
        stored.into_iter().for_each(|item| self.tell_stored(id.key(item)));
        left
    }
}
