//! Worker processes around the real state machine: sessions with the scheduler, and slots that run items for a while. A process
//! outlives its sessions. Must not know: what the scheduler does.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use bytes::Bytes;
use quicsand::{
    TaskError,
    codec::{Run, RunBuilder, Source},
    ids::{Hash, Identity, Key, RunId, WorkerId},
    requirements::Requirements,
    wire::{FromWorker, ItemError, ToWorker, WorkerHello},
};
use quicsand_worker::state::{Action, Ended, Event, Kept, Work, Worker};

use super::{
    blobs::{Asker, Fetch},
    disk::Disk,
    hub::general,
    network::{Down, LinkId, Process, Up},
    program::{compute, decode, decode_list, encode, list},
    world::{BAD_MODULE, Due, World},
};

/// The longest that a stopped item goes on.
const STOPS_WITHIN: u64 = 5000;

/// What kinds of workers have. Each thing that calls ask for is had by one of them.
pub(super) const KINDS: [&str; 4] = ["", "zone=a", "zone=b gpu=2", "zone=a gpu=1 disk=10"];

/// A worker's process.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    pub(super) who: Identity,
    /// Which of [`KINDS`] it is.
    kind: usize,
    pub(super) offer: Requirements,
    pub(super) slots: u32,
    pub(super) listens: bool,
    pub(super) secret: [u8; 32],
    pub(super) frozen_until: Duration,
    /// Peers do not reach it until then; the scheduler does.
    pub(super) shut_until: Duration,
    pub(super) session: Option<Session>,
    pub(super) sessions: u64,
    /// What it kept of earlier sessions.
    kept: Kept,
    pub(super) disk: Disk,
    /// An operator revoked it: it is refused, rightly.
    pub(super) is_revoked: bool,
    /// Its owner wants it to leave.
    pub(super) is_leaving: bool,
}

/// One registration.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) link: LinkId,
    /// Since the welcome.
    pub(super) member: Option<(WorkerId, Worker)>,
    pub(super) slots: BTreeMap<u32, Execution>,
}

/// A run on a slot.
#[derive(Debug)]
pub(super) struct Execution {
    work: Box<Work>,
    /// When each item begins and ends.
    times: Vec<(Duration, Duration)>,
    dropped: BTreeSet<u32>,
    /// Items whose end was told.
    told: u32,
    /// Since when nothing was told.
    silent: Duration,
    began: Duration,
    /// Another one whenever the plan changes.
    turn: u64,
}

impl WorkerProcess {
    /// Its number at the scheduler, while it is welcome.
    pub(super) fn id(&self) -> Option<WorkerId> {
        self.session.as_ref()?.member.as_ref().map(|(id, _)| *id)
    }

    pub(super) fn machine(&self) -> Option<&Worker> {
        self.session.as_ref()?.member.as_ref().map(|(_, machine)| machine)
    }

    pub(super) fn machine_mut(&mut self) -> Option<&mut Worker> {
        self.session.as_mut()?.member.as_mut().map(|(_, machine)| machine)
    }

    pub(super) fn files(&self) -> usize {
        self.disk.files()
    }

    pub(super) fn is_frozen(&self, now: Duration) -> bool {
        self.frozen_until > now
    }

    pub(super) fn is_shut(&self, now: Duration) -> bool {
        self.shut_until > now
    }
}

impl World {
    /// A new process, which joins at once.
    pub(super) fn spawn_worker(&mut self, kind: usize) -> u32 {
        let pid = self.next_pid;
        self.next_pid += 1;
        let mut who = [0; 16];
        who[..4].copy_from_slice(&pid.to_le_bytes());
        let mut offer = Requirements::NONE;
        for (name, value) in KINDS[kind].split_whitespace().filter_map(|pair| pair.split_once('=')) {
            match value.parse() {
                Ok(amount) => offer.set_resource(name, amount),
                Err(_) => offer.set_label(name, value),
            }
        }
        let process = WorkerProcess {
            who: Identity(who),
            kind,
            offer,
            slots: 1 + self.rng.below(3) as u32,
            listens: self.rng.chance(800),
            secret: [pid as u8; 32],
            frozen_until: Duration::ZERO,
            shut_until: Duration::ZERO,
            session: None,
            sessions: 0,
            kept: Kept::default(),
            disk: Disk::default(),
            is_revoked: false,
            is_leaving: false,
        };
        self.workers.insert(pid, process);
        self.schedule(self.now, Due::Join(pid));
        pid
    }

    /// A process connects and says what it has.
    pub(super) fn join(&mut self, pid: u32) {
        if self.workers.get(&pid).is_none_or(|process| process.session.is_some() || process.is_leaving) {
            return;
        }
        let link = self.connect(Process::Worker(pid));
        let Some(process) = self.workers.get_mut(&pid) else { return };
        process.sessions += 1;
        process.session = Some(Session { number: process.sessions, link, member: None, slots: BTreeMap::new() });
        let hello = WorkerHello {
            slots: process.slots,
            memory: u64::from(process.slots) << 30,
            arch: "sim".into(),
            listen: process.listens.then(|| ([127, 0, 0, 1], 1).into()),
            grant_secret: process.secret,
            labels: process.offer.labels().map(|(name, value)| (name.into(), value.into())).collect(),
            resources: process.offer.resources().map(|(name, amount)| (name.into(), amount)).collect(),
            incarnation: incarnation(pid),
            keeps: process.kept.count(),
        };
        let who = process.who;
        self.send_up(link, Up::WorkerHello { who, hello: Box::new(hello) });
    }

    /// Something arrived at a worker's end of a link.
    pub(super) fn worker_received(&mut self, pid: u32, link: LinkId, down: Down) {
        let Some(process) = self.workers.get_mut(&pid) else { return };
        let Some(session) = process.session.as_mut().filter(|session| session.link == link) else { return };
        match down {
            Down::WorkerWelcome { id } => {
                let kept = std::mem::take(&mut process.kept);
                let (number, count) = (session.number, kept.count());
                session.member = Some((id, Worker::new(process.slots, format!("w{id}"), self.settings.budget, kept)));
                self.story.note(self.now, || general(format!("process {pid} is worker {id} and kept {count} values")));
                self.worker_event(pid, Event::Joined);
                self.heartbeat(pid, number);
            }
            Down::Worker(messages) => {
                for message in messages {
                    if let ToWorker::Refused { reason } = &message {
                        self.worker_refused(pid, reason);
                    }
                    self.worker_event(pid, Event::Message(message));
                }
            }
            Down::End => self.session_lost(pid, link),
            Down::ClientWelcome { .. } | Down::ClientBack { .. } | Down::Forgotten | Down::Client(_) => {
                panic!("a worker got what is for clients")
            }
        }
    }

    /// A process is shown the door: revoked, or because too much was damaged on its disk. Of such a one another is started in its place.
    fn worker_refused(&mut self, pid: u32, reason: &str) {
        let Some(process) = self.workers.get_mut(&pid) else { return };
        let (kind, is_damaged) = (process.kind, reason.contains("does not serve"));
        process.is_revoked |= is_damaged;
        assert!(process.is_revoked, "worker process {pid} was refused: {reason}");
        if is_damaged {
            self.spawn_worker(kind);
        }
    }

    /// A process sees that its connection is gone, and joins again after a while.
    pub(super) fn session_lost(&mut self, pid: u32, link: LinkId) {
        let is_current =
            self.workers.get(&pid).and_then(|process| process.session.as_ref()).is_some_and(|session| session.link == link);
        if !is_current {
            return;
        }
        self.story.note(self.now, || general(format!("process {pid} sees that its connection is gone")));
        self.drop_session(pid);
        let is_over = self.workers.get(&pid).is_some_and(|process| process.is_revoked || process.is_leaving);
        if is_over {
            self.workers.remove(&pid);
        } else {
            let at = self.now + self.rng.millis(1, 1500);
            self.schedule(at, Due::Join(pid));
        }
    }

    /// A session is over. What it held is kept, but perhaps nobody waits for it.
    fn drop_session(&mut self, pid: u32) {
        let Some(session) = self.workers.get_mut(&pid).and_then(|process| process.session.take()) else { return };
        if let Some((_, mut machine)) = session.member {
            self.settle_disk(pid, &mut machine);
            let keys = self.graph.items.keys().chain(self.graph.data.keys());
            let lost: Vec<Key> = keys.filter(|&&key| machine.held(key).is_some()).copied().collect();
            lost.into_iter().for_each(|key| *self.troubles.missed.entry(key).or_default() += 1);
            if let Some(process) = self.workers.get_mut(&pid) {
                process.kept = machine.take_kept();
            }
        }
    }

    /// The process dies, and another one is started in its place after a while.
    pub(super) fn worker_dies(&mut self, pid: u32) {
        let Some(process) = self.workers.get(&pid) else { return };
        let kind = process.kind;
        self.story.note(self.now, || general(format!("process {pid} dies")));
        let link = process.session.as_ref().map(|session| session.link);
        self.drop_session(pid);
        self.workers.remove(&pid);
        if let Some(link) = link {
            self.vanish(link);
        }
        if self.rng.chance(300) {
            // Whoever started it says so.
            let at = self.now + self.rng.millis(0, 2000);
            self.schedule(at, Due::DeathKnown(incarnation(pid)));
        }
        let at = self.now + self.rng.millis(1, 3000);
        self.schedule(at, Due::Spawn(kind));
    }

    pub(super) fn heartbeat(&mut self, pid: u32, number: u64) {
        if self.is_session(pid, number) {
            let at = self.now + self.settings.config.lease / 5;
            self.schedule(at, Due::Heartbeat { pid, session: number });
            self.worker_event(pid, Event::Tick { used_bytes: 0 });
        }
    }

    pub(super) fn is_session(&self, pid: u32, number: u64) -> bool {
        self.workers.get(&pid).and_then(|process| process.session.as_ref()).is_some_and(|session| session.number == number)
    }

    /// A client left data here.
    pub(super) fn written(&mut self, pid: u32, key: Key, hash: Hash, bytes: Bytes) {
        self.worker_event(pid, Event::Written { key, hash, bytes });
    }

    /// Has the real state machine handle an event, checks it, and carries its actions out.
    pub(super) fn worker_event(&mut self, pid: u32, event: Event) {
        let Some(process) = self.workers.get_mut(&pid) else { return };
        let Some(session) = &mut process.session else { return };
        let Some((id, machine)) = &mut session.member else { return };
        let mut actions = Vec::new();
        machine.handle(event, &mut actions);
        machine.check();
        self.events += 1;
        let (number, link, who, id) = (session.number, session.link, process.who, *id);
        let asker = Asker { process: Process::Worker(pid), session: number };
        let (mut messages, mut departure) = (Vec::new(), None);
        for action in actions {
            let Some(action) = self.disk_job(pid, action) else { continue };
            match action {
                Action::Send(message) => messages.push(message),
                Action::FetchModule(hash) => {
                    let at = self.now + self.rng.millis(1, 40);
                    self.schedule(at, Due::Module { pid, session: number, hash });
                }
                Action::ForgetModule(_) => {}
                Action::FetchBlob { key, len, hash, places } => {
                    self.start_fetch(Fetch { asker, who, link, key, len, hash, places, next: 0 });
                }
                Action::Execute { slot, work } => self.execute(pid, number, slot, work),
                Action::Stop { slot, first, count } => self.stop(pid, number, slot, first, count),
                Action::Divide { slot } => self.ask_to_divide(pid, number, slot),
                Action::Leave(reason) => departure = Some(reason),
                Action::Spill { .. } | Action::Load { .. } | Action::Unlink { .. } => panic!("the disk does not take {action:?}"),
            }
        }
        if !messages.is_empty() {
            self.send_up(link, Up::Worker(messages));
        }
        if let Some(reason) = departure {
            let is_revoked = self.workers.get(&pid).is_some_and(|process| process.is_revoked);
            assert!(reason.is_none() || is_revoked, "worker {id} left: {reason:?}");
            self.story.note(self.now, || general(format!("process {pid}, worker {id}, leaves")));
            self.send_up(link, Up::End);
            self.drop_session(pid);
            self.workers.remove(&pid);
        }
    }

    pub(super) fn module_came(&mut self, pid: u32, hash: Hash) {
        let event = if hash == BAD_MODULE {
            Event::ModuleRefused { hash, reason: "it is no module".into() }
        } else {
            Event::ModuleReady(hash)
        };
        self.worker_event(pid, event);
    }

    fn execute(&mut self, pid: u32, number: u64, slot: u32, work: Box<Work>) {
        let Some(process) = self.workers.get(&pid) else { return };
        let requires = &work.spec.options.requires;
        let has_label = |(name, value): (&str, &str)| process.offer.labels().any(|(n, v)| (n, v) == (name, value));
        assert!(requires.labels().all(has_label), "run {} asks for {requires}, which process {pid} does not have", work.run);
        if let Some(session) = &process.session {
            for (name, total) in process.offer.resources() {
                let of = |work: &Work| {
                    work.spec.options.requires.resources().filter(|(n, _)| *n == name).map(|(_, amount)| amount).sum::<u64>()
                };
                let taken: u64 = session.slots.values().map(|execution| of(&execution.work)).sum();
                assert!(taken + of(&work) <= total, "run {} takes more of {name} than process {pid} has left", work.run);
            }
        }
        let dropped: BTreeSet<u32> = work.cancelled.iter().cloned().flatten().collect();
        self.turns += 1;
        let mut execution =
            Execution { times: Vec::new(), dropped, told: 0, silent: self.now, began: self.now, turn: self.turns, work };
        let mut at = self.now;
        for item in 0..execution.work.args.count() {
            let time = match self.graph.items.get(&execution.key(item)).filter(|_| !execution.dropped.contains(&item)) {
                Some(item) => item.nature.time,
                None => Duration::ZERO,
            };
            execution.times.push((at, at + time));
            at += time;
        }
        if execution.times.len() > 1 && self.rng.chance(300) {
            let after = self.rng.micros(0, 1 + (at - self.now).as_micros() as u64);
            self.schedule(self.now + after, Due::Part { pid, session: number, slot, run: execution.work.run });
        }
        self.plan(pid, number, slot, &execution);
        if let Some(session) = self.workers.get_mut(&pid).and_then(|process| process.session.as_mut()) {
            assert!(session.slots.insert(slot, execution).is_none(), "process {pid} runs two runs on slot {slot}");
        }
    }

    /// Schedules what comes of an execution as it is planned now: its end, or that of the process.
    fn plan(&mut self, pid: u32, session: u64, slot: u32, execution: &Execution) {
        let turn = execution.turn;
        for (item, &(start, end)) in execution.times.iter().enumerate() {
            let key = execution.key(item as u32);
            let kills = self.graph.items.get(&key).map_or(0, |item| item.nature.kills);
            let killed = self.tries.get(&key).map_or(0, |tries| tries.kills);
            if killed < kills && !execution.dropped.contains(&(item as u32)) && end > self.now {
                let at = (start + (end - start) / 2).max(self.now);
                return self.schedule(at, Due::Kill { pid, session, slot, turn, key });
            }
        }
        let end = execution.times.last().map_or(self.now, |(_, end)| *end);
        self.schedule(end.max(self.now), Due::RunEnds { pid, session, slot, turn });
    }

    fn stop(&mut self, pid: u32, number: u64, slot: u32, first: u32, count: u32) {
        let grace = self.rng.micros(0, STOPS_WITHIN);
        let Some(session) = self.workers.get_mut(&pid).and_then(|process| process.session.as_mut()) else { return };
        let Some(mut execution) = session.slots.remove(&slot) else { return };
        let mut end_before = execution.began;
        for (item, (start, end)) in execution.times.iter_mut().enumerate() {
            let item = item as u32;
            let time = *end - *start;
            let (began, is_over) = (*start <= self.now, *end <= self.now);
            if !is_over && item >= first && item - first < count && execution.dropped.insert(item) {
                let stopped = if began { (self.now + grace).min(*end) } else { end_before };
                (*start, *end) = if began { (*start, stopped) } else { (end_before, end_before) };
            } else if !began {
                (*start, *end) = (end_before, end_before + time);
            }
            end_before = *end;
        }
        self.turns += 1;
        execution.turn = self.turns;
        self.plan(pid, number, slot, &execution);
        if let Some(session) = self.workers.get_mut(&pid).and_then(|process| process.session.as_mut()) {
            session.slots.insert(slot, execution);
        }
    }

    /// A slot tells what it has finished of its run, if it is still at it.
    pub(super) fn tell_part(&mut self, pid: u32, number: u64, slot: u32, run: RunId) {
        let Some(session) = self.workers.get_mut(&pid).and_then(|process| process.session.as_mut()) else { return };
        if session.number != number || session.slots.get(&slot).is_none_or(|execution| execution.work.run != run) {
            return;
        }
        let Some(mut execution) = session.slots.remove(&slot) else { return };
        let finished = execution.times.partition_point(|(_, end)| *end <= self.now).min(execution.times.len() - 1) as u32;
        let ended = (finished > execution.told).then(|| self.outcome(&execution, execution.told..finished));
        if ended.is_some() {
            (execution.told, execution.silent) = (finished, self.now);
        }
        if let Some(session) = self.workers.get_mut(&pid).and_then(|process| process.session.as_mut()) {
            session.slots.insert(slot, execution);
        }
        if let Some(ended) = ended {
            self.worker_event(pid, Event::Part { run, ended });
        }
    }

    fn ask_to_divide(&mut self, pid: u32, number: u64, slot: u32) {
        let session = self.workers.get(&pid).and_then(|process| process.session.as_ref());
        if let Some(execution) = session.and_then(|session| session.slots.get(&slot)) {
            let run = execution.work.run;
            let at = self.now + self.rng.micros(0, STOPS_WITHIN);
            self.schedule(at, Due::Divide { pid, session: number, slot, run });
        }
    }

    /// A slot gives up half of what its run has not begun, if it is still at it.
    pub(super) fn divide(&mut self, pid: u32, number: u64, slot: u32, run: RunId) {
        let Some(session) = self.workers.get_mut(&pid).and_then(|process| process.session.as_mut()) else { return };
        if session.number != number {
            return;
        }
        let Some(execution) = session.slots.get_mut(&slot).filter(|execution| execution.work.run == run) else { return };
        let (now, count) = (self.now, execution.times.len());
        let begun = execution.times.partition_point(|(start, _)| *start <= now).max(execution.told as usize + 1);
        if begun >= count {
            return;
        }
        let count = begun + (count - begun) / 2;
        execution.times.truncate(count);
        execution.dropped.retain(|item| (*item as usize) < count);
        self.turns += 1;
        execution.turn = self.turns;
        let Some(execution) = session.slots.remove(&slot) else { return };
        self.plan(pid, number, slot, &execution);
        if let Some(session) = self.workers.get_mut(&pid).and_then(|process| process.session.as_mut()) {
            session.slots.insert(slot, execution);
        }
        self.worker_event(pid, Event::Divided { run, count: count as u32 });
    }

    fn execution(&self, pid: u32, number: u64, slot: u32, turn: u64) -> Option<&Execution> {
        let session = self.workers.get(&pid)?.session.as_ref().filter(|session| session.number == number)?;
        session.slots.get(&slot).filter(|execution| execution.turn == turn)
    }

    /// An item takes its worker with it.
    pub(super) fn kill(&mut self, pid: u32, number: u64, slot: u32, turn: u64, key: Key) {
        if self.execution(pid, number, slot, turn).is_some() {
            self.tries.entry(key).or_default().kills += 1;
            self.story.note(self.now, || general(format!("{key} kills process {pid}")));
            self.worker_dies(pid);
        }
    }

    /// A run is through.
    pub(super) fn run_ends(&mut self, pid: u32, number: u64, slot: u32, turn: u64) {
        if self.execution(pid, number, slot, turn).is_none() {
            return;
        }
        let session = self.workers.get_mut(&pid).and_then(|process| process.session.as_mut());
        let Some(execution) = session.and_then(|session| session.slots.remove(&slot)) else { return };
        let run = execution.work.run;
        let ended = self.outcome(&execution, execution.told..execution.times.len() as u32);
        self.worker_event(pid, Event::RunEnded { run, ended });
    }

    fn outcome(&mut self, execution: &Execution, items: Range<u32>) -> Ended {
        let Execution { work, dropped, .. } = execution;
        let Some(filled) = work.inputs.fill_holes(&work.args) else { panic!("run {} started without its inputs", work.run) };
        let mut fields = vec![Vec::new(); work.args.count() as usize];
        for value in filled {
            let is_list = work.args.holes.iter().any(|hole| {
                hole.field == value.field
                    && (hole.first..hole.first + hole.count).contains(&value.item)
                    && matches!(hole.source, Source::List(_))
            });
            let number = match is_list {
                true => decode_list(&value.value).map(|values| list(&values)),
                false => decode(&value.value).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number),
            };
            let Some(number) = number else { panic!("run {} was given an input that is no value", work.run) };
            fields[value.item as usize].push(number);
        }
        let (mut builder, mut single, mut errors) = (RunBuilder::default(), None, Vec::new());
        let mut work_done = 0;
        for (item, inline) in work.args.run.iter().enumerate().take(items.end as usize).skip(items.start as usize) {
            let (item, key) = (item as u32, execution.key(item as u32));
            let plan = self.graph.items.get(&key);
            let Some(plan) = plan.filter(|_| !dropped.contains(&item)) else {
                builder.push(&[]).unwrap_or_default();
                continue;
            };
            work_done += 1;
            let tries = self.tries.entry(key).or_default();
            if tries.fails < plan.nature.fails {
                tries.fails = tries.fails.saturating_add(1);
                let error = TaskError::new(plan.nature.kind.clone(), "", Key { index: 99, ..key }, "as planned");
                errors.push(ItemError { item, error });
                builder.push(&[]).unwrap_or_default();
                continue;
            }
            let number = i64::from_le_bytes(inline.try_into().unwrap_or_default());
            let value = encode(compute(number, &fields[item as usize]), plan.nature.padding);
            if work.args.count() == 1 {
                single = Run::single(value);
            } else {
                builder.push(&value).unwrap_or_default();
            }
        }
        self.computed += work_done;
        let values = single.unwrap_or_else(|| builder.take());
        let dropped = dropped.range(items.clone()).copied().collect();
        Ended::from(items.start, values, errors, dropped, self.now - execution.silent)
    }

    /// The runs that a process executes, for complaints.
    pub(super) fn executing(&self, pid: u32) -> Vec<RunId> {
        let session = self.workers.get(&pid).and_then(|process| process.session.as_ref());
        session.map_or_else(Vec::new, |session| session.slots.values().map(|execution| execution.work.run).collect())
    }

    /// The answer to a fetch.
    pub(super) fn worker_fetched(&mut self, pid: u32, key: Key, hash: Hash, bytes: Option<Bytes>) {
        let event = match bytes {
            Some(bytes) => Event::BlobArrived { key, hash, bytes },
            None => Event::BlobMissing { key, hash },
        };
        self.worker_event(pid, event);
    }
}

/// The number of a process, which no other one has.
fn incarnation(pid: u32) -> u64 {
    0x1ca2_0000_0000 + u64::from(pid)
}

impl Execution {
    fn key(&self, item: u32) -> Key {
        self.work.entry.key(self.work.first + u64::from(item))
    }
}

/// Whether a message says nothing but that somebody lives.
pub(super) fn is_heartbeat(messages: &[FromWorker]) -> bool {
    messages.iter().all(|message| matches!(message, FromWorker::Heartbeat(_)))
}
