//! What goes wrong: processes die and freeze, links break and stall, operators cancel and revoke. Must not know: what anybody makes of
//! it.

use std::time::Duration;

use quicsand::{codec::Span, ids::EntryId, scheduler::Event};

use super::{
    hub::{Peer, general},
    network::LinkId,
    program::keys_of,
    worker::KINDS,
    world::{Due, World},
};

/// Processes of workers, at most, that mishaps bring about.
const MAX_WORKERS: usize = 6;

impl World {
    pub(super) fn next_mishap(&mut self) {
        if let Some(mean) = self.settings.storm {
            let pause = self.rng.micros(mean.as_micros() as u64 / 4, mean.as_micros() as u64 * 3);
            self.schedule(self.now + pause, Due::Weather);
        }
    }

    /// Something goes wrong.
    pub(super) fn mishap(&mut self) {
        if self.is_mended {
            return;
        }
        self.next_mishap();
        self.mishaps += 1;
        let pids: Vec<u32> = self.workers.keys().copied().collect();
        let Some(pid) = self.rng.pick(pids.into_iter()) else {
            let kind = self.rng.below(KINDS.len() as u64) as usize;
            self.spawn_worker(kind);
            return;
        };
        match self.rng.below(100) {
            0..=14 => self.worker_dies(pid),
            15..=26 => self.lose_link(pid),
            27..=40 => self.stall(pid),
            41..=51 => self.freeze(pid),
            52..=62 => self.shut(pid),
            63..=74 if self.workers.len() < MAX_WORKERS => {
                let kind = self.rng.below(KINDS.len() as u64) as usize;
                self.spawn_worker(kind);
            }
            75..=82 => self.schedule(self.now, Due::Drain(pid)),
            83..=86 => self.client_mishap(),
            87..=95 => self.operator_cancels(),
            96..=97 => self.revoke(pid),
            _ => {}
        }
    }

    fn link_of(&self, pid: u32) -> Option<LinkId> {
        self.workers.get(&pid)?.session.as_ref().map(|session| session.link)
    }

    fn lose_link(&mut self, pid: u32) {
        if let Some(link) = self.link_of(pid) {
            self.story.note(self.now, || general(format!("the connection of process {pid} is lost")));
            self.cut(link);
        }
    }

    fn stall(&mut self, pid: u32) {
        let time = self.rng.millis(1, 4000);
        if let Some(link) = self.link_of(pid) {
            self.story.note(self.now, || general(format!("nothing gets from or to process {pid} for {time:?}")));
            self.block(link, time);
            if self.rng.chance(200) {
                self.cut(link);
            }
        }
    }

    fn freeze(&mut self, pid: u32) {
        let until = self.now + self.rng.millis(1, 8000);
        self.story.note(self.now, || general(format!("process {pid} is frozen until {until:?}")));
        if let Some(process) = self.workers.get_mut(&pid) {
            process.frozen_until = process.frozen_until.max(until);
            self.put_off(until, |_, worker| worker == Some(pid));
        }
    }

    fn shut(&mut self, pid: u32) {
        let until = self.now + self.rng.millis(1, 4000);
        self.story.note(self.now, || general(format!("peers do not reach process {pid} until {until:?}")));
        if let Some(process) = self.workers.get_mut(&pid) {
            process.shut_until = process.shut_until.max(until);
        }
    }

    /// A worker's owner wants it to leave in good order.
    pub(super) fn drain(&mut self, pid: u32) {
        self.story.note(self.now, || general(format!("the owner of process {pid} has it leave")));
        let Some(process) = self.workers.get_mut(&pid) else { return };
        process.is_leaving = true;
        if process.machine().is_some() {
            self.worker_event(pid, quicsand_worker::state::Event::Drain);
        } else {
            let link = process.session.as_ref().map(|session| session.link);
            self.workers.remove(&pid);
            link.into_iter().for_each(|link| self.vanish(link));
        }
    }

    fn client_mishap(&mut self) {
        let pids: Vec<u32> = self.clients.iter().filter(|(_, process)| process.is_here()).map(|(&pid, _)| pid).collect();
        let Some(pid) = self.rng.pick(pids.into_iter()) else { return };
        let Some(link) = self.clients.get(&pid).map(|process| process.link) else { return };
        match self.rng.below(10) {
            0 | 8 | 9 => {
                self.story.note(self.now, || general(format!("the connection of client process {pid} is lost")));
                self.cut(link);
            }
            1 => {
                self.story.note(self.now, || general(format!("client process {pid} leaves")));
                self.client_leaves(pid);
                self.new_client();
            }
            _ => {
                let time = self.rng.millis(1, 3000);
                self.story.note(self.now, || general(format!("nothing gets from or to client process {pid} for {time:?}")));
                self.block(link, time);
            }
        }
    }

    /// A client's connection breaks in a moment.
    pub(super) fn lose_client_soon(&mut self, pid: u32) {
        if let Some(link) = self.clients.get(&pid).map(|process| process.link) {
            let at = self.now + self.rng.micros(0, 6000);
            self.schedule(at, Due::Cut(link));
        }
    }

    /// An operator cancels some of an entry's items, or all of it, to come or not.
    fn operator_cancels(&mut self) {
        let entries: Vec<EntryId> = {
            let mut entries: Vec<EntryId> = self.graph.items.keys().map(|key| key.entry).collect();
            entries.dedup();
            entries
        };
        if !self.rng.chance(200) {
            return;
        }
        let Some(entry) = self.rng.pick(entries.into_iter()) else { return };
        let span = if self.rng.chance(300) {
            self.troubles.cancelled_whole.insert(entry);
            Span { entry, first: 0, count: u64::MAX }
        } else {
            let span = Span { entry, first: self.rng.below(8), count: 1 + self.rng.below(4) };
            self.troubles.cancelled.extend(keys_of(&span));
            span
        };
        self.story.note(self.now, || super::story::Told {
            text: format!("an operator cancels {span:?}"),
            spans: vec![span],
            ..super::story::Told::default()
        });
        self.hub_event(Event::Cancel(span));
    }

    fn revoke(&mut self, pid: u32) {
        let Some(process) = self.workers.get_mut(&pid) else { return };
        let Some(worker) = process.id() else { return };
        if self.hub.seats.contains_key(&Peer::Worker(worker)) {
            process.is_revoked = true;
            self.story.note(self.now, || general(format!("an operator revokes worker {worker}")));
            self.hub_event(Event::WorkerRevoked { worker });
        }
    }

    /// No more mishaps; whatever calls can ask for is there.
    pub(super) fn mend(&mut self) {
        self.is_mended = true;
        self.story.note(self.now, || general("all is well from here on".to_owned()));
        for kind in 0..KINDS.len() {
            self.spawn_worker(kind);
        }
        let rest = Duration::from_millis(self.rng.below(50));
        self.schedule(self.now + rest, Due::HubTick);
    }
}
