//! What clients say. Must not know: workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Action, Scheduler,
    away::CatchUp,
    entry::{Cause, Datum, Entry, Kind},
    facts::Passport,
    items::{Segment, State},
    machine::Todo,
    refusal::Refusal,
    shapes::{PLAIN, ShapeId},
    sharing::Link,
};
use crate::{
    codec::{Run, Span},
    fault::{self, Fault},
    ids::{ClientId, EntryId, Hash, Identity, TaskId},
    wire::{ENTRY_COST, FromClient, SharedSpec, StateCounts, ToClient},
};

/// Different sets of requirements that a client's entries may have at a time: each is a queue, and what looks at all queues has an end.
pub(super) const MAX_SHAPES: usize = 1024;
/// Specs that are remembered of a client.
const MAX_SPECS: usize = 64;

/// A client that has not left.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) who: Identity,
    pub(super) module: Hash,
    /// For the shell.
    pub(super) passport: Passport,
    /// Its messages that were taken in, over all its connections.
    pub(super) applied: u64,
    /// It was here before a restart.
    pub(super) is_restored: bool,
    pub(super) last_seq: Option<u64>,
    /// Specs of its calls, by task: calls that are alike share one.
    pub(super) specs: BTreeMap<TaskId, SharedSpec>,
    /// What its entries ask of workers, with the number of entries; those that ask for nothing are left out.
    pub(super) shapes: BTreeMap<ShapeId, u64>,
    /// What is kept of it, in bytes, as its messages cost.
    pub(super) held: u64,
    /// What it may send in its life, as all of these.
    pub(super) granted: u64,
    /// What it sent in its life: more than granted after a message that was larger than what was left.
    pub(super) sent: u64,
    /// What it sent and did not get credit for.
    pub(super) owed: u64,
    /// What it took up of published results, by its own numbers.
    pub(super) links: BTreeMap<u64, Link>,
    /// Names that stand for its items.
    pub(super) names: u32,
    /// It is here only for what it has shared.
    pub(super) has_left: bool,
    /// Until when it may return, if its connection is gone.
    pub(super) away_until: Option<Duration>,
    /// What it is still to be told of, of what it could have missed.
    pub(super) catch_up: Option<CatchUp>,
    /// Its entries that have, or had, stored results whose arguments are kept.
    pub(super) lineage: BTreeSet<u64>,
}

impl Client {
    /// An entry of that shape is gone.
    pub(super) fn leave_shape(&mut self, shape: ShapeId) {
        if let Some(count) = self.shapes.get_mut(&shape) {
            *count -= 1;
            if *count == 0 {
                self.shapes.remove(&shape);
            }
        }
    }
}

impl Scheduler {
    pub(super) fn client_joined(&mut self, id: ClientId, who: Identity, module: Hash, passport: Passport) {
        self.ledger.touch_client(id);
        self.clients.entry(id).or_insert(Client {
            who,
            module,
            passport,
            applied: 0,
            is_restored: false,
            last_seq: None,
            specs: BTreeMap::new(),
            shapes: BTreeMap::new(),
            held: 0,
            granted: self.config.credit,
            sent: 0,
            owed: 0,
            links: BTreeMap::new(),
            names: 0,
            has_left: false,
            away_until: None,
            catch_up: None,
            lineage: BTreeSet::new(),
        });
    }

    /// Forgets a client and all that is its own, except what others want of it.
    pub(super) fn client_left(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.has_left) else { return };
        if let Some(until) = client.away_until.take() {
            self.away.remove(&(until, id));
        }
        client.catch_up = None;
        let links: Vec<u64> = client.links.keys().copied().collect();
        self.free_strays(id, u64::MAX);
        links.into_iter().for_each(|seq| self.let_go(id, seq));
        let ids: Vec<_> = self.entries.of(id, 0..=u64::MAX).map(|(id, _)| id).collect();
        if self.entries.of(id, 0..=u64::MAX).any(|(_, entry)| entry.rare.sharing.is_some()) {
            return self.leave_behind(id, ids);
        }
        // Nobody else's entries name its keys.
        self.clients.remove(&id);
        self.out.push(Action::ForgetClient(id));
        for &id in &ids {
            self.stop_runs(id, 0..u64::MAX);
            let stored: Vec<u64> =
                self.entries.get(&id).map_or_else(Vec::new, |entry| entry.rare.stored.keys().copied().collect());
            stored.into_iter().for_each(|item| self.free_replicas(id, item, true));
        }
        for id in ids {
            let Some(entry) = self.drop_entry(id) else { continue };
            for (_, edge_id) in entry.args.iter().flat_map(|chunk| chunk.edges) {
                let Some(edge) = self.edges.remove(*edge_id) else { continue };
                // What it took up of others.
                if let Some(producer) = self.entries.get_mut(&edge.producer) {
                    producer.edges.remove(*edge_id, &edge);
                    self.todo.push_back(Todo::Free(edge.producer, edge.producers));
                }
            }
        }
        self.entries.forget_client(id);
        self.ledger.drop_client(id);
    }

    pub(super) fn client_said(&mut self, id: ClientId, message: FromClient) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.has_left) else { return };
        client.applied += 1;
        self.ledger.touch_client(id);
        if let Err(refusal) = self.obey(id, message) {
            self.refuse_client(id, &refusal);
        }
    }

    /// Says why, and ends it.
    pub(super) fn refuse_client(&mut self, id: ClientId, refusal: &Refusal) {
        self.tell_client(id, ToClient::Refused { reason: refusal.to_string() });
        self.out.push(Action::DisconnectClient(id));
        // Whoever breaks the rules shares nothing.
        self.withdraw(id);
        self.client_left(id);
    }

    fn obey(&mut self, client: ClientId, message: FromClient) -> Result<(), Refusal> {
        self.check_credit(client, &message)?;
        let entry_id = |seq| EntryId { client, seq };
        match message {
            FromClient::Call { seq, spec, mut args } => {
                if args.count() != 1 {
                    return Err(Refusal::CallItems { seq, count: args.count() });
                }
                self.check_args(entry_id(seq), &args, false)?;
                self.resolve_links(client, &mut args);
                let spec = self.shared_spec(client, spec);
                self.add_entry(client, seq, Kind::Call(spec), false)?;
                self.add_items(entry_id(seq), args);
                Ok(())
            }
            FromClient::Map { seq, spec } => {
                self.add_entry(client, seq, Kind::Map(spec), true)?;
                self.charge(client, ENTRY_COST, true);
                Ok(())
            }
            FromClient::Items { seq, mut args } => {
                self.check_args(entry_id(seq), &args, false)?;
                self.resolve_links(client, &mut args);
                match self.entries.get(&entry_id(seq)) {
                    Some(entry) if entry.open => self.add_items(entry_id(seq), args),
                    Some(entry) if !entry.is_abandoned => return Err(Refusal::NotOpen { seq }),
                    // Released while these were on their way: they were sent, so they are credited.
                    _ => {
                        self.known(client, seq)?;
                        self.charge(client, args.cost(), false);
                    }
                }
                Ok(())
            }
            FromClient::Close { seq } => {
                match self.entries.get(&entry_id(seq)) {
                    Some(entry) if entry.open => self.close_map(entry_id(seq)),
                    Some(entry) if !entry.is_abandoned => return Err(Refusal::NotOpen { seq }),
                    _ => self.known(client, seq)?,
                }
                Ok(())
            }
            FromClient::Data { seq, len, hash, bytes } => {
                self.add_entry(client, seq, Kind::Data(Box::new(Datum { len, hash })), false)?;
                match bytes {
                    Some(bytes) if bytes.len() as u64 != len => {
                        Err(Refusal::DataLength { seq, announced: len, actual: bytes.len() as u64 })
                    }
                    Some(bytes) => {
                        self.charge(client, len + ENTRY_COST, true);
                        let Some(entry) = self.entries.get_mut(&entry_id(seq)) else { return Ok(()) };
                        entry.items.push(1, State::Inline);
                        // Longer than a run can be: no message carries that.
                        let run = Run::single(bytes).ok_or(Refusal::DataLength { seq, announced: len, actual: len })?;
                        self.ledger.touch(entry_id(seq), 0, &(0..1));
                        self.ledger.put_values(entry_id(seq), 0, &run);
                        entry.values.insert(0, run);
                        Ok(())
                    }
                    None => {
                        self.charge(client, ENTRY_COST, true);
                        if let Some(entry) = self.entries.get_mut(&entry_id(seq)) {
                            entry.items.push(1, State::Uploading);
                            self.ledger.touch(entry_id(seq), 0, &(0..1));
                        }
                        self.ask_for_upload(entry_id(seq), true);
                        Ok(())
                    }
                }
            }
            FromClient::UploadFailed { seq } => {
                let is_awaited = self.entries.get(&entry_id(seq)).is_some_and(|entry| entry.items.count(State::Uploading) > 0);
                if is_awaited && !fault::is(Fault::UploadForgotten) {
                    self.ask_for_upload(entry_id(seq), false);
                }
                Ok(())
            }
            FromClient::Offer { seq } => {
                self.known(client, seq)?;
                match self.entries.get(&entry_id(seq)).is_some_and(|entry| entry.items.count(State::Uploading) > 0) {
                    true if fault::is(Fault::OfferUnanswered) => {}
                    true => self.ask_for_upload(entry_id(seq), true),
                    false => self.say_taken(entry_id(seq)),
                }
                Ok(())
            }
            FromClient::Release { span } => self.release(client, span),
            FromClient::Cancel { span } => self.cancel(client, span),
            FromClient::Unreachable { seq, index } => {
                self.known(client, seq)?;
                self.unreachable(entry_id(seq).key(index));
                Ok(())
            }
            FromClient::Count { query, spans } => {
                let mut counts = StateCounts::default();
                for span in spans {
                    self.own(client, &span)?;
                    self.count(&self.origin_of(&span), &mut counts);
                }
                self.tell_client(client, ToClient::Counts { query, counts });
                Ok(())
            }
            FromClient::Explain { query, spans } => {
                spans.iter().try_for_each(|span| self.own(client, span))?;
                let spans: Vec<_> = spans.iter().map(|span| self.origin_of(span)).collect();
                let waiting = self.explain(&spans);
                self.tell_client(client, ToClient::Explained { query, waiting });
                Ok(())
            }
            FromClient::Detach { span } => {
                self.own(client, &span)?;
                self.detach(&span);
                Ok(())
            }
            FromClient::Publish { query, name, kind, span } => {
                self.own(client, &span)?;
                let items = self.publish(client, name, kind, &span);
                self.tell_client(client, ToClient::Named { query, items });
                Ok(())
            }
            FromClient::Unpublish { name } => {
                self.unpublish(&name);
                Ok(())
            }
            FromClient::LookUp { query, name, kind } => {
                let items = self.look_up(&name, &kind);
                self.tell_client(client, ToClient::Named { query, items });
                Ok(())
            }
            FromClient::TakeUp { seq, name, kind, count } => self.take_up(client, seq, &name, &kind, count),
            FromClient::Bye => {
                self.client_left(client);
                Ok(())
            }
        }
    }

    /// The number of a client's latest entry.
    pub(super) fn newest_entry(&self, client: ClientId) -> Option<u64> {
        self.clients.get(&client)?.last_seq
    }

    /// A call's spec, as an earlier call of the same task has it if that one is the same.
    fn shared_spec(&mut self, client: ClientId, spec: SharedSpec) -> SharedSpec {
        let Some(client) = self.clients.get_mut(&client) else { return spec };
        if let Some(known) = client.specs.get(&spec.task)
            && *known == spec
        {
            return known.clone();
        }
        if client.specs.len() >= MAX_SPECS {
            client.specs.clear();
        }
        client.specs.insert(spec.task, spec.clone());
        spec
    }

    fn add_entry(&mut self, client: ClientId, seq: u64, kind: Kind, open: bool) -> Result<(), Refusal> {
        self.ascend(client, seq)?;
        let shape = self.enter_shape(client, seq, &kind)?;
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        let (id, entry) = (EntryId { client, seq }, Entry::new(kind, shape, arrival, self.now, open));
        self.ledger.touch_entry(id, &entry);
        self.entries.insert(id, Box::new(entry));
        Ok(())
    }

    /// A client's next number.
    pub(super) fn ascend(&mut self, client: ClientId, seq: u64) -> Result<(), Refusal> {
        if let Some(client) = self.clients.get_mut(&client) {
            if client.last_seq.is_some_and(|last| seq <= last) {
                return Err(Refusal::Sequence { seq });
            }
            client.last_seq = Some(seq);
        }
        self.free_strays(client, seq);
        Ok(())
    }

    /// The shape of a new entry.
    pub(super) fn enter_shape(&mut self, client: ClientId, seq: u64, kind: &Kind) -> Result<ShapeId, Refusal> {
        let options = match kind {
            Kind::Call(spec) | Kind::Map(spec) => Some(&spec.options),
            Kind::Data(_) => None,
        };
        let known = options.map_or(Some(PLAIN), |options| self.shapes.find(options));
        if let Some(client) = self.clients.get(&client)
            && known.is_none_or(|shape| shape != PLAIN && !client.shapes.contains_key(&shape))
            && client.shapes.len() >= MAX_SHAPES
        {
            return Err(Refusal::Requirements { seq });
        }
        let shape = match (known, options) {
            (Some(shape), _) => shape,
            (None, Some(options)) => {
                let workers = self.fleet.workers.iter().filter(|(_, worker)| !worker.draining);
                self.shapes.add(options, workers.map(|(&id, worker)| (id, &worker.offer)))
            }
            (None, None) => PLAIN,
        };
        self.shapes.enter(shape);
        if let Some(client) = self.clients.get_mut(&client).filter(|_| shape != PLAIN) {
            *client.shapes.entry(shape).or_default() += 1;
        }
        Ok(shape)
    }

    /// No more items will come: what waits for one that did not come fails.
    pub(super) fn close_map(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if std::mem::take(&mut entry.open) {
            self.credit.give_back(self.clients.get_mut(&id.client), ENTRY_COST, self.now);
        }
        self.ledger.touch_entry(id, entry);
        let len = entry.items.len();
        for (consumer, consumers, _) in self.hits(id, &(len..u64::MAX)) {
            let Some(entry) = self.entries.get(&consumer) else { continue };
            let active: Vec<_> = entry.items.segments(consumers).filter(|segment| segment.state.is_active()).collect();
            let cause = self.no_such_item(id.key(len));
            for segment in active {
                self.end_badly(consumer, segment, &cause, true);
            }
        }
        self.todo.push_back(Todo::Free(id, 0..0));
    }

    /// Whether a client made this entry at some time.
    pub(super) fn known(&self, client: ClientId, seq: u64) -> Result<(), Refusal> {
        match self.clients.get(&client).and_then(|client| client.last_seq) {
            Some(last) if seq <= last => Ok(()),
            _ => Err(Refusal::UnknownEntry { seq }),
        }
    }

    fn own(&self, client: ClientId, span: &Span) -> Result<(), Refusal> {
        if span.entry.client != client || span.first.checked_add(span.count).is_none() {
            return Err(Refusal::ForeignSpan { client: span.entry.client.0 });
        }
        self.known(client, span.entry.seq)
    }

    fn release(&mut self, client: ClientId, span: Span) -> Result<(), Refusal> {
        self.own(client, &span)?;
        let link = self.clients.get(&client).and_then(|client| client.links.get(&span.entry.seq));
        if let Some(link) = link {
            // All or nothing: handles on what was taken up go together.
            if span.first == 0 && span.count >= link.items.end - link.items.start {
                self.let_go(client, span.entry.seq);
            }
            return Ok(());
        }
        let Some(entry) = self.entries.get_mut(&span.entry) else { return Ok(()) };
        let (end, len) = (span.first + span.count, entry.items.len());
        if let Some(sharing) = &mut entry.rare.sharing {
            sharing.released.insert(span.first..end);
            let base = entry.items.base();
            self.ledger.touch(span.entry, base, &(span.first.max(base)..end.min(len)));
            self.unwant(span.entry, span.first..end);
            return Ok(());
        }
        entry.items.unwant(span.first..end);
        self.ledger.touch(span.entry, entry.items.base(), &(span.first.max(entry.items.base())..end.min(len)));
        if entry.open && end > len && entry.items.segments(0..len).all(|segment| !segment.wanted) {
            entry.is_abandoned = true;
            self.close_map(span.entry);
        }
        self.todo.push_back(Todo::Free(span.entry, span.first..end));
        Ok(())
    }

    fn cancel(&mut self, client: ClientId, span: Span) -> Result<(), Refusal> {
        self.own(client, &span)?;
        self.cancel_pending(&span);
        Ok(())
    }

    pub(super) fn cancel_for_operator(&mut self, span: Span) {
        if let Some(entry) = self.entries.get_mut(&span.entry) {
            entry.is_cancelled |= span.first == 0 && span.count == u64::MAX;
            self.ledger.touch_entry(span.entry, entry);
        }
        self.cancel_pending(&span);
    }

    pub(super) fn cancel_pending(&mut self, span: &Span) {
        let Some(entry) = self.entries.get(&span.entry) else { return };
        let items = span.first..span.first.saturating_add(span.count);
        let pending: Vec<Segment> = entry.items.segments(items).filter(|segment| segment.state.is_pending()).collect();
        for segment in pending {
            self.end_badly(span.entry, segment, &Cause::Cancelled, true);
        }
    }

    fn count(&self, span: &Span, counts: &mut StateCounts) {
        let Some(entry) = self.entries.get(&span.entry) else {
            counts.released = counts.released.saturating_add(span.count);
            return;
        };
        super::status::add(counts, entry.items.state_counts(span.first..span.first + span.count));
    }
}
