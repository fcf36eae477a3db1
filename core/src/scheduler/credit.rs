//! Clients' credit: what they may send, what is kept of them, and when they are told of more. Must not know: what it was that they sent.

use std::time::Duration;

use super::{Action, Config, Scheduler, clients::Client, refusal::Refusal};
use crate::{
    fault::{self, Fault},
    ids::ClientId,
    wire::{FromClient, ToClient},
};

/// Small credits wait so long for more.
const CREDIT_DELAY: Duration = Duration::from_millis(10);
/// A client is refused when it sends on although it overdrew its credit by more than so many bytes.
const CREDIT_TOLERANCE: u64 = 8 << 20;
/// A client that was there before a restart may have been told of more credit than the journal knows: by so many bytes at most, since no
/// more wait to be written.
const FORGOTTEN_CREDIT: u64 = 256 << 20;

/// When clients' credit is worth a look: most events change it by next to nothing.
#[derive(Debug)]
pub(super) struct CreditWatch {
    /// When small credits are due.
    due: Option<Duration>,
    /// Whether somebody is owed much, or fills its share.
    is_urgent: bool,
    /// Bytes beyond which credit does not wait.
    small: u64,
    /// Bytes that may be kept of a client before its credit is held back.
    share: u64,
}

impl CreditWatch {
    pub(super) fn new(config: &Config) -> Self {
        Self { due: None, is_urgent: false, small: config.credit / 8, share: config.client_bytes }
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Any client may be owed something.
    pub(super) fn look_at_all(&mut self, now: Duration) {
        self.due = Some(now + CREDIT_DELAY);
    }

    /// What a client is owed, or how much is kept of it, has changed.
    pub(super) fn note(&mut self, client: &Client, now: Duration) {
        if client.owed > 0 {
            self.due.get_or_insert(now + CREDIT_DELAY);
            self.is_urgent |= client.credit_due(self.share) > self.small || client.is_full(self.share);
        }
    }

    /// A client sent something of that cost, which is kept or not.
    pub(super) fn charge(&mut self, client: Option<&mut Client>, cost: u64, keep: bool, now: Duration) {
        if let Some(client) = client {
            client.sent = client.sent.saturating_add(cost);
            client.owed += cost;
            if keep {
                client.held += cost;
            }
            self.note(client, now);
        }
    }

    /// The client's bytes are no longer kept: credit that was held back for them may be due.
    pub(super) fn give_back(&mut self, client: Option<&mut Client>, bytes: u64, now: Duration) {
        if let Some(client) = client {
            client.held -= bytes;
            self.note(client, now);
        }
    }
}

impl Client {
    /// Whether what is kept of it holds its credit back.
    pub(super) fn is_full(&self, client_bytes: u64) -> bool {
        self.owed > 0 && self.held >= client_bytes
    }

    /// What it could be given now.
    fn credit_due(&self, client_bytes: u64) -> u64 {
        self.owed.min(client_bytes.saturating_sub(self.held))
    }
}

impl Scheduler {
    /// Whether a client may send on.
    pub(super) fn check_credit(&self, id: ClientId, message: &FromClient) -> Result<(), Refusal> {
        use FromClient::{Call, Data, Items, Map};
        let Some(client) =
            self.clients.get(&id).filter(|_| matches!(message, Call { .. } | Map { .. } | Items { .. } | Data { .. }))
        else {
            return Ok(());
        };
        let overdrawn = client.sent.saturating_sub(client.granted);
        let tolerance = CREDIT_TOLERANCE + if client.is_restored { FORGOTTEN_CREDIT } else { 0 };
        if overdrawn > tolerance { Err(Refusal::Credit { bytes: overdrawn }) } else { Ok(()) }
    }

    /// Takes into account what a client sent, and what is kept of that.
    pub(super) fn charge(&mut self, id: ClientId, cost: u64, keep: bool) {
        self.credit.charge(self.clients.get_mut(&id), cost, keep, self.now);
    }

    /// Gives credit back: large amounts at once, small ones after a while, none while a client's arguments fill its share.
    pub(super) fn give_credit(&mut self) {
        let Some(due) = self.credit.due else { return };
        let is_due = due <= self.now;
        if !is_due && !self.credit.is_urgent {
            return;
        }
        self.credit.is_urgent = false;
        let share = self.credit.share;
        let mut rest = false;
        let mut full = Vec::new();
        for (&id, client) in &mut self.clients {
            let bytes = client.credit_due(share);
            if bytes > 0 && (is_due || bytes > self.credit.small) {
                client.owed -= bytes;
                client.granted = client.granted.saturating_add(bytes);
                if bytes > self.config.credit / 4 || !fault::is(Fault::CreditLost) {
                    self.out.push(Action::ToClient(id, ToClient::Credit { total: client.granted }));
                }
            }
            if client.is_full(share) && !client.lineage.is_empty() {
                full.push(id);
            }
            // What is owed to a client that fills its share is looked at again when some of it is given back.
            rest |= client.owed > 0 && client.held < share;
        }
        self.credit.due = rest.then(|| if is_due { self.now + CREDIT_DELAY } else { due });
        self.shed_lineage(full);
    }
}
