//! Which modules are at hand. Owns: their states, and which one goes when there are many. Must not know: their code.

use std::collections::BTreeMap;

use quicsand::ids::{Hash, RunId};

/// Number of modules that are kept compiled although nothing uses them.
const KEPT_MODULES: usize = 64;

/// What is known of a module.
#[derive(Debug)]
enum Module {
    /// On its way; these runs wait. May name runs that are gone.
    Fetching(Vec<RunId>),
    /// At hand; so many unfinished runs use it, last at this time.
    Ready { users: u32, used: u64 },
    /// The sandbox does not take it.
    Refused { reason: String, used: u64 },
}

/// What a run finds when it asks for its module.
pub(super) enum Found {
    /// At hand.
    Ready,
    /// On its way already.
    Coming,
    /// To be fetched.
    Unknown,
    /// Useless.
    Refused(String),
}

/// Modules by hash.
#[derive(Debug, Default)]
pub(super) struct Modules {
    modules: BTreeMap<Hash, Module>,
    clock: u64,
}

impl Modules {
    /// A run wants a module. Unless it is refused, the run is its user until [`Modules::release`].
    pub(super) fn want(&mut self, hash: Hash, run: RunId) -> Found {
        self.clock += 1;
        match self.modules.get_mut(&hash) {
            None => {
                self.modules.insert(hash, Module::Fetching(vec![run]));
                Found::Unknown
            }
            Some(Module::Fetching(waiters)) => {
                waiters.push(run);
                Found::Coming
            }
            Some(Module::Ready { users, used }) => {
                *users += 1;
                *used = self.clock;
                Found::Ready
            }
            Some(Module::Refused { reason, used }) => {
                *used = self.clock;
                Found::Refused(reason.clone())
            }
        }
    }

    /// A run is over, or given back.
    pub(super) fn release(&mut self, hash: Hash, run: RunId) {
        match self.modules.get_mut(&hash) {
            Some(Module::Fetching(waiters)) => waiters.retain(|&waiter| waiter != run),
            Some(Module::Ready { users, .. }) => *users = users.saturating_sub(1),
            Some(Module::Refused { .. }) | None => {}
        }
    }

    /// It is at hand; gives the runs that wait for it.
    pub(super) fn ready(&mut self, hash: Hash) -> Vec<RunId> {
        let waiters = self.missing(hash);
        self.modules.insert(hash, Module::Ready { users: waiters.len() as u32, used: self.clock });
        waiters
    }

    /// It is useless; gives the runs that wait for it.
    pub(super) fn refused(&mut self, hash: Hash, reason: String) -> Vec<RunId> {
        let waiters = self.missing(hash);
        self.modules.insert(hash, Module::Refused { reason, used: self.clock });
        waiters
    }

    /// It did not come; gives the runs that wait for it. The next run that wants it has it fetched again.
    pub(super) fn missing(&mut self, hash: Hash) -> Vec<RunId> {
        match self.modules.remove(&hash) {
            Some(Module::Fetching(waiters)) => waiters,
            _ => Vec::new(),
        }
    }

    /// Forgets the module that was not used for the longest time, if there are too many.
    pub(super) fn surplus(&mut self) -> Option<Hash> {
        if self.modules.len() <= KEPT_MODULES {
            return None;
        }
        let idle = self.modules.iter().filter_map(|(&hash, module)| match module {
            Module::Ready { users: 0, used } | Module::Refused { used, .. } => Some((*used, hash)),
            _ => None,
        });
        let (_, hash) = idle.min()?;
        self.modules.remove(&hash);
        Some(hash)
    }

    /// Whether it is at hand.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn is_ready(&self, hash: Hash) -> bool {
        matches!(self.modules.get(&hash), Some(Module::Ready { .. }))
    }

    /// Whether `run` waits for it.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn is_awaited(&self, hash: Hash, run: RunId) -> bool {
        matches!(self.modules.get(&hash), Some(Module::Fetching(waiters)) if waiters.contains(&run))
    }

    /// Number of runs that use modules or wait for them.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn users(&self) -> usize {
        let users = |module: &Module| match module {
            Module::Fetching(waiters) => waiters.len(),
            Module::Ready { users, .. } => *users as usize,
            Module::Refused { .. } => 0,
        };
        self.modules.values().map(users).sum()
    }
}
