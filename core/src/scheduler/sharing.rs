//! What is kept though the client that made it does not want it, or has left: detached calls, published results, and what other clients
//! took up of those under numbers of their own. Must not know: connections, workers.
//!
//! An item is wanted as long as its client wants it, a name stands for it, another client has taken it up, or it is detached and has not
//! ended. A client that has left stays in the books, silent, as long as anything of it is wanted or needed.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::{
    Action, Scheduler,
    entry::{Cause, Entry},
    items::{Segment, State},
    machine::Todo,
    ranges::Ranges,
    refusal::Refusal,
};
use crate::{
    PublishError, TaskError, TaskErrorKind,
    codec::{Args, Source, Span},
    ids::{ClientId, EntryId, Key},
    wire::ToClient,
};

/// Names that a client may have published at a time.
const MAX_NAMES: u32 = 1024;
/// Bytes of a name.
const NAME_BYTES: usize = 256;
/// Results that a client may have taken up at a time: whatever becomes of one is told to all who have.
pub(super) const MAX_LINKS: usize = 1 << 16;
/// Names that are told to one who asks for another one.
const TOLD_NAMES: usize = 20;

/// Who wants items of an entry besides its client.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Items that its client does not want any more.
    pub(super) released: Ranges,
    /// Items that are to run to their end.
    pub(super) detached: Ranges,
    pub(super) names: BTreeMap<String, Range<u64>>,
    /// Other clients, with their own number for these items.
    pub(super) takers: BTreeMap<(ClientId, u64), Range<u64>>,
}

impl Sharing {
    /// Whether somebody else wants an item that is in such a state.
    pub(super) fn wants(&self, item: u64, state: State) -> bool {
        self.names.values().chain(self.takers.values()).any(|items| items.contains(&item))
            || (state.is_pending() && self.detached.contains(item))
    }
}

/// A published result.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) entry: EntryId,
    pub(super) items: Range<u64>,
    /// What it is for the program that published it.
    pub(super) kind: String,
}

/// What a client took up: items of another one's entry, or of its own.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) entry: EntryId,
    pub(super) items: Range<u64>,
    /// How often values of it could not be fetched that cannot be computed again.
    pub(super) misses: u32,
}

impl Scheduler {
    /// These items are to run to their end whatever their client does.
    pub(super) fn detach(&mut self, span: &Span) {
        let Some(entry) = self.entries.get_mut(&span.entry) else { return };
        let items = span.first..span.first + span.count;
        // What was released before stays so, and what has ended would be detached anew if it had to be computed again.
        let segments = entry.items.segments(items);
        let wanted: Vec<_> = segments.filter(|segment| segment.wanted && segment.state.is_pending()).collect();
        for segment in wanted {
            entry.share().detached.insert(segment.range());
            self.ledger.touch_sharing(span.entry, entry);
            self.ledger.touch(span.entry, entry.items.base(), &segment.range());
        }
    }

    /// Items have ended: with that, being detached is over for them.
    pub(super) fn ended(&mut self, id: EntryId, items: Range<u64>) {
        if let Some(sharing) = self.entries.get_mut(&id).and_then(|entry| entry.rare.sharing.as_mut()) {
            sharing.detached.remove(items.clone());
            self.unwant(id, items);
        }
    }

    /// Gives a client's items a name; gives their number.
    pub(super) fn publish(&mut self, client: ClientId, name: String, kind: String, span: &Span) -> Result<u64, PublishError> {
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            return Err(PublishError::Name { bytes: NAME_BYTES as u64 });
        }
        let span = self.origin_of(span);
        let items = span.first..span.first + span.count;
        match self.names.get(&name) {
            // Asked again, since the answer was lost.
            Some(known) if (known.entry, &known.items, &known.kind) == (span.entry, &items, &kind) => return Ok(span.count),
            Some(_) => return Err(PublishError::Taken { name }),
            None => {}
        }
        let Some(owner) = self.clients.get_mut(&span.entry.client).filter(|owner| owner.names < MAX_NAMES) else {
            return Err(PublishError::TooMany { limit: MAX_NAMES.into() });
        };
        let entry = self.entries.get_mut(&span.entry).filter(|entry| items.end <= entry.items.len());
        let Some(entry) = entry.filter(|entry| entry.items.segments(items.clone()).all(|segment| segment.wanted)) else {
            return Err(PublishError::Released { name });
        };
        owner.names += 1;
        entry.share().names.insert(name.clone(), items.clone());
        self.ledger.touch_sharing(span.entry, entry);
        tracing::debug!(%client, name, "published");
        self.names.insert(name, Name { entry: span.entry, items, kind });
        Ok(span.count)
    }

    /// A name stands for nothing any more.
    pub(super) fn unpublish(&mut self, name: &str) {
        let Some(Name { entry: id, items, .. }) = self.names.remove(name) else { return };
        if let Some(client) = self.clients.get_mut(&id.client) {
            client.names -= 1;
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.share().names.remove(name);
            self.ledger.touch_sharing(id, entry);
        }
        self.unwant(id, items);
    }

    /// How many items a name stands for, for whoever takes them to be of this kind.
    pub(super) fn look_up(&self, name: &str, kind: &str) -> Result<u64, PublishError> {
        let Some(known) = self.names.get(name) else {
            let names: Vec<_> = self.names.keys().take(TOLD_NAMES).cloned().collect();
            let more = (self.names.len() - names.len()) as u64;
            return Err(PublishError::Unknown { name: name.to_owned(), names, more });
        };
        if known.kind != kind {
            return Err(PublishError::Type { name: name.to_owned(), published: known.kind.clone(), asked: kind.to_owned() });
        }
        Ok(known.items.end - known.items.start)
    }

    /// A client takes up what it found under a name, as entry `seq` of its own. If that has changed since, so many items are cancelled.
    pub(super) fn take_up(&mut self, client: ClientId, seq: u64, name: &str, kind: &str, count: u64) -> Result<(), Refusal> {
        self.ascend(client, seq)?;
        if self.clients.get(&client).is_some_and(|client| client.links.len() >= MAX_LINKS) {
            return Err(Refusal::Links { seq });
        }
        let mine = EntryId { client, seq };
        let known = self.names.get(name).filter(|known| known.kind == kind && known.items.end - known.items.start == count);
        let Some(&Name { entry: id, ref items, .. }) = known else {
            self.tell_client(client, ToClient::Cancelled { span: Span { entry: mine, first: 0, count } });
            return Ok(());
        };
        let items = items.clone();
        if let Some(client) = self.clients.get_mut(&client) {
            client.links.insert(seq, Link { entry: id, items: items.clone(), misses: 0 });
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.share().takers.insert((client, seq), items.clone());
            self.ledger.touch_sharing(id, entry);
        }
        self.report_taken_up(mine);
        Ok(())
    }

    /// A client does not want what it took up any more.
    pub(super) fn let_go(&mut self, client: ClientId, seq: u64) {
        let Some(link) = self.clients.get_mut(&client).and_then(|client| client.links.remove(&seq)) else { return };
        if let Some(entry) = self.entries.get_mut(&link.entry) {
            entry.share().takers.remove(&(client, seq));
            self.ledger.touch_sharing(link.entry, entry);
        }
        self.unwant(link.entry, link.items);
    }

    /// Releases those of the items whose client does not want them and nobody else does.
    pub(super) fn unwant(&mut self, id: EntryId, items: Range<u64>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (base, len) = (entry.items.base(), entry.items.len());
        self.ledger.touch(id, base, &(items.start.max(base)..items.end.min(len)));
        let Some(sharing) = &entry.rare.sharing else {
            entry.items.unwant(items.clone());
            return self.todo.push_back(Todo::Free(id, items));
        };
        let mut gone = Ranges::default();
        for segment in entry.items.segments(items).filter(|segment| segment.wanted) {
            for item in segment.range() {
                if sharing.released.contains(item) && !sharing.wants(item, segment.state) {
                    gone.insert(item..item + 1);
                }
            }
        }
        for items in gone.iter() {
            entry.items.unwant(items.clone());
            self.todo.push_back(Todo::Free(id, items));
        }
        // Even if nothing goes now, it may be over.
        self.todo.push_back(Todo::Free(id, 0..0));
    }

    /// What others know under numbers of their own has ended: they are told too.
    pub(super) fn tell_takers(&mut self, id: EntryId, range: &Range<u64>) {
        let Some(sharing) = self.entries.get(&id).and_then(|entry| entry.rare.sharing.as_ref()) else { return };
        let takers: Vec<_> =
            sharing.takers.iter().map(|(&(client, seq), items)| (EntryId { client, seq }, items.clone())).collect();
        for (mine, items) in takers {
            let (start, end) = (range.start.max(items.start), range.end.min(items.end));
            if start < end {
                self.report(id, start..end, mine, items.start, &mut { u64::MAX });
            }
        }
    }

    /// A stored value that others know is gone.
    pub(super) fn tell_takers_lost(&mut self, key: Key) {
        let Some(sharing) = self.entries.get(&key.entry).and_then(|entry| entry.rare.sharing.as_ref()) else { return };
        for (&(client, seq), items) in sharing.takers.iter().filter(|(_, items)| items.contains(&key.index)) {
            self.out.push(Action::ToClient(client, ToClient::Lost { seq, index: key.index - items.start }));
        }
    }

    /// Whose value a key is: its own, or that of the item which its client took up under it.
    #[must_use]
    pub fn origin(&self, key: Key) -> Key {
        let span = self.origin_of(&Span { entry: key.entry, first: key.index, count: 1 });
        span.entry.key(span.first)
    }

    /// As [`Scheduler::origin`], of items that lie in one entry.
    pub(super) fn origin_of(&self, span: &Span) -> Span {
        let link = self.clients.get(&span.entry.client).and_then(|client| client.links.get(&span.entry.seq));
        match link {
            Some(Link { entry, items, .. }) if span.first.saturating_add(span.count) <= items.end - items.start => {
                Span { entry: *entry, first: items.start + span.first, count: span.count }
            }
            _ => *span,
        }
    }

    /// Has holes that name what a client took up read the items themselves.
    pub(super) fn resolve_links(&self, client: ClientId, args: &mut Args) {
        if self.clients.get(&client).is_none_or(|client| client.links.is_empty()) {
            return;
        }
        for hole in &mut args.holes {
            match &mut hole.source {
                Source::Same(key) => *key = self.origin(*key),
                Source::Each { entry, first } => {
                    let span = self.origin_of(&Span { entry: *entry, first: *first, count: hole.count.into() });
                    (*entry, *first) = (span.entry, span.first);
                }
                Source::List(spans) => spans.iter_mut().for_each(|span| *span = self.origin_of(span)),
            }
        }
    }

    /// A client leaves that has shared something: it keeps what others want of it, and is forgotten when that is nothing.
    pub(super) fn leave_behind(&mut self, id: ClientId, ids: Vec<EntryId>) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.has_left = true;
        }
        self.ledger.touch_client(id);
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.open {
                entry.is_abandoned = true;
                self.close_map(id);
            }
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let len = entry.items.len();
            let uploading: Vec<Segment> =
                entry.items.segments(0..len).filter(|segment| segment.state == State::Uploading).collect();
            if let Some(sharing) = &mut entry.rare.sharing {
                sharing.released.insert(0..len);
            }
            for segment in uploading {
                let message = "the client that has this data left before it was uploaded";
                let error = TaskError::new(TaskErrorKind::DataLost, "scatter", id.key(segment.first), message);
                self.end_badly(id, segment, &Cause::Failed(Arc::new(error)), false);
            }
            self.unwant(id, 0..len);
        }
    }

    /// Takes back all that a client has shared, as far as nobody has taken it up.
    pub(super) fn withdraw(&mut self, id: ClientId) {
        let names: Vec<_> = self.names.iter().filter(|(_, name)| name.entry.client == id).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.unpublish(name));
        let mut detached = Vec::new();
        for (id, entry) in self.entries.of_mut(id) {
            if let Some(sharing) = &mut entry.rare.sharing {
                sharing.detached = Ranges::default();
                self.ledger.touch(id, entry.items.base(), &(entry.items.base()..entry.items.len()));
                detached.push((id, entry.items.len()));
            }
        }
        detached.into_iter().for_each(|(id, len)| self.unwant(id, 0..len));
    }
}

impl Entry {
    fn share(&mut self) -> &mut Sharing {
        let items = &self.items;
        self.rare.sharing.get_or_insert_with(|| {
            let mut sharing = Box::<Sharing>::default();
            let segments = items.segments(0..items.len());
            segments.filter(|segment| !segment.wanted).for_each(|segment| sharing.released.insert(segment.range()));
            sharing
        })
    }
}
