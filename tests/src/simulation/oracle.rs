//! What must be true of a whole run: every call ends as the plan allows, in time, and nothing is left in the end. Must not know: how it
//! comes about.

use std::time::Duration;

use quicsand::ids::{EntryId, Key};

use super::{
    client::Job,
    program::Ending,
    world::{Due, World},
};

/// So long nothing may happen but heartbeats before whoever still waits is said to wait for ever. More than any lease or pause.
const QUIET: Duration = Duration::from_secs(40);
/// Events of a run after which it is said to go on for ever.
const MAX_EVENTS: u64 = 60_000;

impl World {
    /// Plays from the beginning to the end.
    ///
    /// # Panics
    /// When something is not as it must be.
    pub(super) fn run(&mut self) {
        let busy = |world: &Self| world.clients.values().any(|process| process.is_here() && process.steps_left > 0);
        while busy(self) && self.now < Duration::from_secs(60) {
            self.advance();
        }
        self.clients.values_mut().for_each(|process| process.steps_left = 0);
        self.mend();
        self.rest("programs wait for credit", |world| {
            world.here().into_iter().all(|pid| world.clients[&pid].member.is_some() && world.clients[&pid].jobs.is_empty())
        });
        self.end_windows();
        self.rest("calls have not ended", |world| world.pending().is_empty());
        self.compare();
        self.release_all();
        self.rest("something is left", |world| world.leftovers().is_empty());
        self.part();
        self.rest("somebody is left", |world| {
            world.hub.seats.is_empty() && world.workers.is_empty() && world.hub.sessions.is_empty()
        });
    }

    /// The clients of whom anybody expects something.
    fn here(&self) -> Vec<u32> {
        self.clients.iter().filter(|(_, process)| process.is_here()).map(|(&pid, _)| pid).collect()
    }

    /// Lets everything happen until it is done, or nothing happens any more.
    fn rest(&mut self, complaint: &str, mut is_done: impl FnMut(&mut Self) -> bool) {
        let (mut quiet_since, start) = (None, self.events);
        loop {
            if self.busy == 0 {
                if is_done(self) && self.busy == 0 {
                    return;
                }
                let since = *quiet_since.get_or_insert(self.now);
                if self.busy == 0 && self.now - since > QUIET {
                    let pending = self.pending();
                    let (leftovers, blocked) = (self.leftovers(), self.blocked_clients());
                    panic!("{complaint}, and nothing happens any more: {pending:?} {leftovers:?} {blocked:?}");
                }
            } else {
                quiet_since = None;
            }
            if self.events - start > MAX_EVENTS {
                let pending = self.pending();
                panic!("{complaint}, and it goes on for ever: {pending:?} {:?}", self.leftovers());
            }
            self.advance();
        }
    }

    fn blocked_clients(&self) -> Vec<String> {
        let blocked = self.clients.iter().filter(|(_, process)| process.is_here() && !process.jobs.is_empty());
        blocked.map(|(pid, process)| format!("client process {pid} waits for credit for {}", process.jobs.len())).collect()
    }

    /// Windows end: in the middle, or with what has been drawn.
    fn end_windows(&mut self) {
        for pid in self.here() {
            let seqs: Vec<u64> = self.clients[&pid].windows.iter().map(|window| window.seq).collect();
            for seq in seqs {
                if self.rng.chance(500) {
                    self.leave_window(pid, seq);
                    continue;
                }
                let Some(process) = self.clients.get_mut(&pid) else { continue };
                if process.handles.get_mut(&seq).is_some_and(|handle| !std::mem::replace(&mut handle.is_whole, true)) {
                    process.jobs.push_back(Job::Close { seq });
                    self.pump(pid);
                }
            }
            self.advance_windows(pid);
        }
    }

    /// The items that clients hold and that were not given back in part.
    fn held_keys(&self, pid: u32) -> Vec<Key> {
        let Some(process) = self.clients.get(&pid) else { return Vec::new() };
        let Some((id, _)) = &process.member else { return Vec::new() };
        let items = process.handles.iter().flat_map(|(&seq, handle)| {
            let window = process.windows.iter().find(|window| window.seq == seq);
            (window.map_or(0, |window| window.released)..handle.count).map(move |index| EntryId { client: *id, seq }.key(index))
        });
        items.collect()
    }

    /// Items that have not ended, or whose value is not here yet; asks for it.
    fn pending(&mut self) -> Vec<Key> {
        let mut pending = Vec::new();
        for pid in self.here() {
            let keys = self.held_keys(pid);
            pending.extend(keys.into_iter().filter(|&key| self.look(pid, key).is_none()));
        }
        pending
    }

    /// Every ending is one that the plan allows.
    fn compare(&mut self) {
        let fates = self.graph.fates(&self.troubles);
        let mut endings: Vec<(Key, Ending)> = Vec::new();
        for pid in self.clients.keys().copied().collect::<Vec<_>>() {
            if let Some(process) = self.clients.get_mut(&pid) {
                endings.append(&mut process.seen);
            }
        }
        for pid in self.here() {
            for key in self.held_keys(pid) {
                let Some(ending) = self.look(pid, key) else { panic!("{key} has not ended") };
                endings.push((key, ending));
            }
        }
        for (key, ending) in endings {
            let Some(fate) = fates.get(&key) else { panic!("{key} ended, and was never sent") };
            if let Err(complaint) = self.graph.judge(key, fate, &ending, &self.troubles) {
                panic!("{complaint}");
            }
        }
        for pid in self.here() {
            assert!(
                self.clients[&pid].queries.is_empty(),
                "client process {pid} got no answer to {:?}",
                self.clients[&pid].queries
            );
        }
    }

    fn release_all(&mut self) {
        for pid in self.here() {
            let seqs: Vec<u64> = self.clients[&pid].handles.keys().copied().collect();
            for seq in seqs {
                self.leave_window(pid, seq);
            }
        }
    }

    /// What should not be there when nobody holds anything.
    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let status = self.hub.scheduler.status();
        left.extend(status.waits.iter().map(|waits| format!("{} items ask for {}: {}", waits.items, waits.requires, waits.why)));
        let counts = status.counts;
        for (what, count) in [
            ("waiting", counts.waiting),
            ("queued", counts.queued),
            ("processing", counts.processing),
            ("in memory", counts.memory),
            ("erred", counts.erred),
        ] {
            if count > 0 {
                left.push(format!("{count} items {what}"));
            }
        }
        for client in status.clients.iter().filter(|client| client.entries > 0 || client.held_bytes > 0) {
            left.push(format!("client {} has {} entries, {} bytes", client.id, client.entries, client.held_bytes));
        }
        for worker in
            status.workers.iter().filter(|worker| worker.assignments > 0 || worker.values > 0 || !worker.taken.is_empty())
        {
            left.push(format!(
                "worker {} has {} runs and {} values for the scheduler, and {:?} is taken",
                worker.id, worker.assignments, worker.values, worker.taken
            ));
        }
        left.extend(self.hub.held.keys().map(|key| format!("{key} is kept by the scheduler's shell")));
        left.extend(self.hub.runs().into_iter().map(|run| format!("run {run} is out")));
        for (&pid, process) in &self.workers {
            let held = process.machine().map_or(0, |machine| machine.held_bytes());
            if held > 0 || process.files() > 0 {
                left.push(format!("process {pid} holds {held} bytes and has {} files", process.files()));
            }
            left.extend(self.executing(pid).into_iter().map(|run| format!("process {pid} executes run {run}")));
        }
        left
    }

    /// All leave in good order.
    fn part(&mut self) {
        for pid in self.here() {
            self.client_leaves(pid);
        }
        for pid in self.workers.keys().copied().collect::<Vec<_>>() {
            self.schedule(self.now, Due::Drain(pid));
        }
    }
}
