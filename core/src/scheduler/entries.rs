//! All entries, by client and number. Must not know: what becomes of them.

use std::ops::RangeInclusive;

use super::{ascending::Ascending, entry::Entry};
use crate::ids::{ClientId, EntryId};

/// Clients number their entries in ascending order.
#[derive(Debug, Default)]
pub(super) struct Entries {
    clients: Ascending<ClientId, Ascending<u64, Box<Entry>>>,
}

impl Entries {
    #[inline]
    pub(super) fn get(&self, id: &EntryId) -> Option<&Entry> {
        self.clients.get(&id.client)?.get(&id.seq).map(|entry| &**entry)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: &EntryId) -> Option<&mut Entry> {
        self.clients.get_mut(&id.client)?.get_mut(&id.seq).map(|entry| &mut **entry)
    }

    pub(super) fn contains_key(&self, id: &EntryId) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn insert(&mut self, id: EntryId, entry: Box<Entry>) {
        if !self.clients.contains_key(&id.client) {
            self.clients.insert(id.client, Ascending::default());
        }
        if let Some(entries) = self.clients.get_mut(&id.client) {
            entries.insert(id.seq, entry);
        }
    }

    pub(super) fn remove(&mut self, id: &EntryId) -> Option<Box<Entry>> {
        self.clients.get_mut(&id.client)?.remove(&id.seq)
    }

    /// A client is gone, and no entry of it is left.
    pub(super) fn forget_client(&mut self, client: ClientId) {
        if self.clients.get(&client).is_some_and(Ascending::is_empty) {
            self.clients.remove(&client);
        }
    }

    /// The clients that have, or had, entries.
    pub(super) fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.clients.keys().copied()
    }

    /// Those of a client, by number.
    pub(super) fn of(&self, client: ClientId, numbers: RangeInclusive<u64>) -> impl Iterator<Item = (EntryId, &Entry)> {
        let entries = self.clients.get(&client).into_iter().flat_map(move |entries| entries.range(numbers.clone()));
        entries.map(move |(&seq, entry)| (EntryId { client, seq }, &**entry))
    }

    pub(super) fn has_any(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(|entries| !entries.is_empty())
    }

    pub(super) fn of_mut(&mut self, client: ClientId) -> impl Iterator<Item = (EntryId, &mut Entry)> {
        let entries = self.clients.get_mut(&client).into_iter().flat_map(Ascending::iter_mut);
        entries.map(move |(&seq, entry)| (EntryId { client, seq }, &mut **entry))
    }

    pub(super) fn len(&self) -> usize {
        self.clients.values().map(Ascending::len).sum()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (EntryId, &Entry)> {
        self.clients
            .iter()
            .flat_map(|(&client, entries)| entries.iter().map(move |(&seq, entry)| (EntryId { client, seq }, &**entry)))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
