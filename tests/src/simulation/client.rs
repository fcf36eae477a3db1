//! Client processes around the real bookkeeping: what the library's threads do with it, without threads. Owns: the way of messages in
//! and out, transfers, and the protocol's promise that an item is told once. Must not know: which calls a program makes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quicsand::{
    Error, TaskErrorKind,
    bookkeeping::{Bookkeeping, Known, Touched},
    codec::{Args, Span},
    ids::{ClientId, EntryId, Hash, Identity, Key},
    wire::{ENTRY_COST, FromClient, SharedSpec, ToClient, Validate},
};

use super::{
    blobs::{Asker, Fetch, Giver, Upload},
    hub::general,
    network::{Down, LinkId, Process, Up},
    program::{Ending, Item, fields_of},
    world::{Due, World},
};

/// A handle on an entry: what a program holds.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) count: u64,
    /// Everything that it is to have was sent.
    pub(super) is_whole: bool,
    /// What is left to be sent of it was drawn.
    pub(super) is_window: bool,
}

/// A map whose items are drawn as its results are consumed.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) seq: u64,
    /// Items that are still to be drawn.
    pub(super) left: u32,
    pub(super) consumed: u64,
    pub(super) released: u64,
    pub(super) retries: u32,
}

/// Something to be sent once there is credit for it.
#[derive(Debug)]
pub(super) enum Job {
    Call { spec: SharedSpec, args: Args, item: Item },
    Items { seq: u64, args: Args, items: Vec<Item> },
    Close { seq: u64 },
}

/// What a client was told of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Ended,
    Stored(Hash),
}

/// A client's process.
#[derive(Debug)]
pub(super) struct ClientProcess {
    pub(super) who: Identity,
    pub(super) module: Hash,
    pub(super) link: LinkId,
    /// Since the welcome.
    pub(super) member: Option<(ClientId, Bookkeeping)>,
    /// What it said goes out over its connection.
    pub(super) is_connected: bool,
    /// Messages of which it does not know whether they were taken in, after so many of which it does.
    sent: VecDeque<FromClient>,
    applied: u64,
    pub(super) steps_left: u32,
    /// What the program waits to send; it does nothing else meanwhile.
    pub(super) jobs: VecDeque<Job>,
    pub(super) handles: BTreeMap<u64, Handle>,
    pub(super) windows: Vec<Window>,
    /// Entries of which the program has let go, and of the rest the first items.
    released: BTreeMap<u64, u64>,
    told: BTreeMap<Key, Told>,
    /// What it was told over an earlier connection, and may be told again.
    told_before: BTreeMap<Key, Told>,
    has_returned: bool,
    /// Stored results of which the client said that it cannot get them, and how often: so often they may be told again.
    unreachable: BTreeMap<Key, u32>,
    pub(super) queries: BTreeSet<u64>,
    /// Endings that the program saw before it let go.
    pub(super) seen: Vec<(Key, Ending)>,
    /// The scheduler does not know it any more.
    pub(super) is_over: bool,
    /// It left by itself.
    pub(super) has_left: bool,
    /// Bytes of data that it sent along in messages.
    pub(super) inline: BTreeMap<u64, u64>,
}

impl ClientProcess {
    pub(super) fn book(&mut self) -> Option<&mut Bookkeeping> {
        self.member.as_mut().map(|(_, book)| book)
    }

    /// Whether the program still wants an item.
    fn wants(&self, key: Key) -> bool {
        self.released.get(&key.entry.seq).is_none_or(|&end| key.index >= end)
    }

    /// Whether anybody waits for it to end.
    pub(super) fn is_here(&self) -> bool {
        !self.is_over && !self.has_left
    }
}

impl World {
    /// A new client, which joins at once.
    pub(super) fn spawn_client(&mut self, module: Hash, steps: u32) {
        let pid = self.next_pid;
        self.next_pid += 1;
        let link = self.connect(Process::Client(pid));
        let mut who = [0xcc; 16];
        who[..4].copy_from_slice(&pid.to_le_bytes());
        let process = ClientProcess {
            who: Identity(who),
            module,
            link,
            member: None,
            is_connected: false,
            sent: VecDeque::new(),
            applied: 0,
            steps_left: steps,
            jobs: VecDeque::new(),
            handles: BTreeMap::new(),
            windows: Vec::new(),
            released: BTreeMap::new(),
            told: BTreeMap::new(),
            told_before: BTreeMap::new(),
            has_returned: false,
            unreachable: BTreeMap::new(),
            queries: BTreeSet::new(),
            seen: Vec::new(),
            is_over: false,
            has_left: false,
            inline: BTreeMap::new(),
        };
        self.clients.insert(pid, process);
        self.send_up(link, Up::ClientHello { who: Identity(who), module });
    }

    /// Something arrived at a client's end of a link.
    pub(super) fn client_received(&mut self, pid: u32, link: LinkId, down: Down) {
        let process = self.clients.get_mut(&pid).filter(|process| process.is_here() && process.link == link);
        let Some(process) = process else { return };
        match down {
            Down::ClientWelcome { id, credit } => {
                process.member = Some((id, Bookkeeping::new(id, credit)));
                process.is_connected = true;
                self.story.note(self.now, || general(format!("process {pid} is client {id}")));
                self.schedule(self.now, Due::Step(pid));
            }
            Down::ClientBack { applied } => self.client_goes_on(pid, applied),
            Down::Forgotten => self.client_over(pid),
            Down::Client(messages) => messages.into_iter().for_each(|message| self.client_told(pid, message)),
            Down::End => self.client_lost(pid, link),
            Down::WorkerWelcome { .. } | Down::Worker(_) => panic!("a client got what is for workers"),
        }
    }

    /// A client sees that its connection is gone, and tries to get another one.
    pub(super) fn client_lost(&mut self, pid: u32, link: LinkId) {
        let process = self.clients.get_mut(&pid).filter(|process| process.is_here() && process.link == link);
        let Some(process) = process else { return };
        process.is_connected = false;
        self.story.note(self.now, || general(format!("client process {pid} sees that its connection is gone")));
        if self.clients.get(&pid).is_some_and(|process| process.member.is_none()) {
            return self.client_over(pid);
        }
        // Most come back in time.
        let lease = self.settings.config.client_lease.as_millis() as u64;
        let at = self.now + self.rng.millis(1, lease) / self.rng.of(&[1, 2, 4, 8]);
        self.schedule(at, Due::Rejoin(pid));
    }

    /// A client without a connection makes another one.
    pub(super) fn client_rejoins(&mut self, pid: u32) {
        let Some(process) = self.clients.get(&pid).filter(|process| process.is_here()) else { return };
        let Some((client, _)) = &process.member else { return };
        let client = *client;
        let link = self.connect(Process::Client(pid));
        if let Some(process) = self.clients.get_mut(&pid) {
            process.link = link;
        }
        self.send_up(link, Up::ClientAgain { client });
    }

    /// The scheduler knows it, and took in so many of its messages: it says the rest again.
    fn client_goes_on(&mut self, pid: u32, applied: u64) {
        let Some(process) = self.clients.get_mut(&pid) else { return };
        process.forget_sent(applied);
        (process.is_connected, process.has_returned) = (true, true);
        process.told_before.extend(std::mem::take(&mut process.told));
        let (link, again) = (process.link, process.sent.iter().cloned().collect::<Vec<_>>());
        let repeated = process.book().map(|book| book.repeat()).unwrap_or_default();
        self.story.note(self.now, || general(format!("client process {pid} is back and says {} messages again", again.len())));
        for part in again.chunks(3) {
            self.send_up(link, Up::Client(part.to_vec()));
        }
        repeated.into_iter().for_each(|message| self.say(pid, message));
    }

    /// The scheduler has forgotten it: every call fails.
    fn client_over(&mut self, pid: u32) {
        if let Some(process) = self.clients.get_mut(&pid).filter(|process| process.is_here()) {
            process.is_over = true;
            self.story.note(self.now, || general(format!("client process {pid} was forgotten")));
            if !self.is_mended {
                self.new_client();
            }
        }
    }

    fn client_told(&mut self, pid: u32, message: ToClient) {
        assert_eq!(message.validate(), Ok(()), "the scheduler says what a client does not take");
        let Some(process) = self.clients.get_mut(&pid) else { return };
        process.watch(&message, self.hub.were_away);
        if let ToClient::Applied { messages } = message {
            process.forget_sent(messages);
        }
        let Some((_, book)) = &mut process.member else { return };
        let mut touched = Vec::new();
        self.events += 1;
        book.receive(message, &mut touched);
        for what in touched {
            match what {
                Touched::Items(..) => self.advance_windows(pid),
                Touched::Credit => self.go_on(pid),
                Touched::Query => self.take_answers(pid),
                Touched::Gone(span) => self.say(pid, FromClient::Cancel { span }),
                Touched::Upload { key, data, hash, route } => {
                    let Some(process) = self.clients.get(&pid) else { continue };
                    let (link, who) = (process.link, process.who);
                    let bytes = data.into_bytes();
                    self.start_upload(Upload { from: Giver::Client(pid, link), who, key, bytes, hash, route });
                }
                Touched::Refused(reason) => panic!("client process {pid} was refused: {reason}"),
            }
        }
    }

    fn take_answers(&mut self, pid: u32) {
        let Some(process) = self.clients.get_mut(&pid) else { return };
        let Some((_, book)) = &mut process.member else { return };
        process.queries.retain(|&query| book.take_answer(query).is_none());
    }

    pub(super) fn upload_failed(&mut self, pid: u32, seq: u64) {
        self.say(pid, FromClient::UploadFailed { seq });
    }

    /// Says something to the scheduler, if the client is still there; now, or once it is connected again.
    pub(super) fn say(&mut self, pid: u32, message: FromClient) {
        if let Some(process) = self.clients.get_mut(&pid).filter(|process| process.is_here()) {
            assert_eq!(message.validate(), Ok(()), "client process {pid} says what the scheduler does not take");
            process.sent.push_back(message.clone());
            if process.is_connected {
                let link = process.link;
                self.send_up(link, Up::Client(vec![message]));
            }
        }
    }

    /// Sends what waits, as far as there is credit.
    pub(super) fn pump(&mut self, pid: u32) {
        while let Some(process) = self.clients.get_mut(&pid).filter(|process| process.is_here()) {
            let Some((id, book)) = &mut process.member else { return };
            let cost = match process.jobs.front() {
                None => return,
                Some(Job::Close { .. }) => 0,
                Some(Job::Call { args, .. }) => ENTRY_COST + args.cost(),
                Some(Job::Items { args, .. }) => args.cost(),
            };
            if !book.take_credit(cost) {
                return;
            }
            let message = match process.jobs.pop_front() {
                None => return,
                Some(Job::Close { seq }) => {
                    if let Some(handle) = process.handles.get_mut(&seq) {
                        handle.is_whole = true;
                    }
                    FromClient::Close { seq }
                }
                Some(Job::Call { spec, args, item }) => {
                    let seq = book.open(1);
                    process.handles.insert(seq, Handle { count: 1, is_whole: true, is_window: false });
                    self.graph.items.insert(EntryId { client: *id, seq }.key(0), item);
                    FromClient::Call { seq, spec, args }
                }
                Some(Job::Items { seq, args, items }) => {
                    let first = book.count(seq);
                    book.extend(seq, args.count().into());
                    if let Some(handle) = process.handles.get_mut(&seq) {
                        handle.count += u64::from(args.count());
                    }
                    let entry = EntryId { client: *id, seq };
                    self.graph.items.extend(items.into_iter().zip(first..).map(|(item, index)| (entry.key(index), item)));
                    FromClient::Items { seq, args }
                }
            };
            self.say(pid, message);
        }
    }

    /// What is known of an item; begins to fetch it if it is stored.
    pub(super) fn look(&mut self, pid: u32, key: Key) -> Option<Ending> {
        let process = self.clients.get_mut(&pid)?;
        let (who, link) = (process.who, process.link);
        let book = process.book()?;
        match book.look(key.entry.seq, key.index) {
            Known::Pending => None,
            Known::Value(bytes) => Some(Ending::Value(bytes)),
            Known::Stored(_) => {
                if let Some(remote) = book.begin_fetch(key.entry.seq, key.index) {
                    let asker = Asker { process: Process::Client(pid), session: 0 };
                    let (len, hash, places) = (remote.len, remote.hash, remote.places);
                    self.start_fetch(Fetch { asker, who, link, key, len, hash, places, next: 0 });
                }
                None
            }
            Known::Failed(Error::Task(error)) => {
                Some(Ending::Failed { key: error.key, kind: error.kind.clone(), attempts: error.attempts })
            }
            Known::Failed(Error::Cancelled { .. }) => Some(Ending::Cancelled),
            Known::Failed(error) => panic!("{key} failed as nothing here does: {error}"),
        }
    }

    /// The end of a fetch.
    pub(super) fn client_fetched(&mut self, pid: u32, key: Key, bytes: Option<Bytes>) {
        let Some(process) = self.clients.get_mut(&pid).filter(|process| process.is_here()) else { return };
        let is_unreachable = bytes.is_none();
        let Some(book) = process.book() else { return };
        book.fetched(key, bytes);
        if is_unreachable {
            *process.unreachable.entry(key).or_default() += 1;
            self.say(pid, FromClient::Unreachable { seq: key.entry.seq, index: key.index });
        }
        self.advance_windows(pid);
    }

    /// The last handle on an entry is dropped.
    pub(super) fn drop_handle(&mut self, pid: u32, seq: u64) {
        let Some(process) = self.clients.get_mut(&pid) else { return };
        let Some((id, book)) = &mut process.member else { return };
        let (entry, handle) = (EntryId { client: *id, seq }, process.handles.remove(&seq));
        let from = process.released.get(&seq).copied().unwrap_or(0);
        for index in from..handle.map_or(0, |handle| handle.count) {
            let ending = match book.look(seq, index) {
                Known::Value(bytes) => Ending::Value(bytes),
                Known::Failed(Error::Task(error)) => {
                    Ending::Failed { key: error.key, kind: error.kind.clone(), attempts: error.attempts }
                }
                Known::Failed(Error::Cancelled { .. }) => Ending::Cancelled,
                _ => continue,
            };
            process.seen.push((entry.key(index), ending));
        }
        process.inline.remove(&seq);
        process.released.insert(seq, u64::MAX);
        if let Some(count) = book.forget(seq) {
            let span = Span { entry, first: 0, count };
            self.say(pid, FromClient::Release { span });
        }
    }

    /// Consumes what has come of windows, in order, and gives it back from time to time.
    pub(super) fn advance_windows(&mut self, pid: u32) {
        let count = self.clients.get(&pid).map_or(0, |process| process.windows.len());
        for at in 0..count {
            loop {
                let Some(process) = self.clients.get_mut(&pid).filter(|process| process.is_here()) else { return };
                let Some((id, _)) = &process.member else { return };
                let Some(window) = process.windows.get(at) else { return };
                let key = EntryId { client: *id, seq: window.seq }.key(window.consumed);
                if process.handles.get(&window.seq).is_none_or(|handle| window.consumed >= handle.count) {
                    break;
                }
                let Some(ending) = self.look(pid, key) else { break };
                let Some(process) = self.clients.get_mut(&pid) else { return };
                process.seen.push((key, ending));
                if let Some(window) = process.windows.get_mut(at) {
                    window.consumed += 1;
                }
            }
            self.release_consumed(pid, at);
        }
    }

    fn release_consumed(&mut self, pid: u32, at: usize) {
        let Some(process) = self.clients.get_mut(&pid) else { return };
        let (Some(window), Some((id, book))) = (process.windows.get_mut(at), &mut process.member) else { return };
        if window.consumed - window.released < 6 {
            return;
        }
        let span = Span {
            entry: EntryId { client: *id, seq: window.seq },
            first: window.released,
            count: window.consumed - window.released,
        };
        window.released = window.consumed;
        book.forget_before(window.seq, window.consumed);
        process.released.insert(window.seq, window.consumed);
        self.say(pid, FromClient::Release { span });
    }

    /// The client leaves in good order, or its process dies: nobody waits for anything of it any more.
    pub(super) fn client_leaves(&mut self, pid: u32) {
        self.say(pid, FromClient::Bye);
        if let Some(process) = self.clients.get_mut(&pid) {
            process.has_left = true;
            let (link, is_connected) = (process.link, process.is_connected);
            // One that is between connections goes without a word.
            if is_connected { self.send_up(link, Up::End) } else { self.vanish(link) }
        }
    }
}

impl ClientProcess {
    /// So many of its messages were taken in.
    fn forget_sent(&mut self, applied: u64) {
        let news = applied.checked_sub(self.applied).filter(|&news| news <= self.sent.len() as u64);
        let Some(news) = news else { panic!("{applied} messages were taken in, after {}, of {}", self.applied, self.sent.len()) };
        self.applied = applied;
        self.sent.drain(..news as usize);
    }

    /// Holds the scheduler to its promise: an item is reported once, and again only after it was lost or could not be had, or after the
    /// client or, of stored ones, a worker that has it returned.
    fn watch(&mut self, message: &ToClient, were_away: bool) {
        let Some((id, _)) = &self.member else { return };
        let entry = |seq: u64| EntryId { client: *id, seq };
        let mut reports = Vec::new();
        match message {
            ToClient::Done { seq, first, values } => {
                let items = *first..first + u64::from(values.count());
                reports.extend(items.map(|index| (entry(*seq).key(index), Told::Ended, false)));
            }
            ToClient::Stored { seq, index, hash, .. } => reports.push((entry(*seq).key(*index), Told::Stored(*hash), false)),
            ToClient::Failed { seq, index, error } => {
                reports.push((entry(*seq).key(*index), Told::Ended, error.kind == TaskErrorKind::DataLost));
            }
            ToClient::Cancelled { span } => {
                let items = span.first..span.first.saturating_add(span.count);
                reports.extend(items.map(|index| (span.entry.key(index), Told::Ended, false)));
            }
            ToClient::Lost { seq, index } => {
                let key = entry(*seq).key(*index);
                if self.wants(key) {
                    // What was said over an earlier connection, or lost with it, is not said again while the value is away.
                    let before = self.told.remove(&key).or_else(|| self.told_before.remove(&key));
                    let is_fine = matches!(before, Some(Told::Stored(_))) || before.is_none() && self.has_returned;
                    assert!(is_fine, "{key} is lost, and was not said to be stored");
                }
            }
            _ => {}
        }
        for (key, report, is_loss) in reports {
            if !self.wants(key) {
                continue;
            }
            let again = self.told.insert(key, report);
            if let Some(before) = self.told_before.remove(&key) {
                // What was stored may be lost since, and even have become something else.
                assert!(before != Told::Ended || report == Told::Ended, "{key} had ended, then {message:?}");
            }
            let is_fine = match (again, report) {
                (None, _) => true,
                (Some(Told::Stored(before)), Told::Stored(hash)) if before == hash => match self.unreachable.get_mut(&key) {
                    Some(left) if *left > 0 => {
                        *left -= 1;
                        true
                    }
                    _ => were_away,
                },
                (Some(Told::Stored(_)), Told::Stored(_)) => false,
                (Some(Told::Stored(_)), Told::Ended) => is_loss,
                (Some(Told::Ended), _) => false,
            };
            assert!(is_fine, "{key} is told again: first {again:?}, then {message:?}");
        }
    }
}

/// The items that a message brings, as they go into the graph.
pub(super) fn items_of(args: &Args, retries: u32, mut nature: impl FnMut() -> super::program::Nature) -> Vec<Item> {
    let items = args.run.iter().enumerate().map(|(at, inline)| Item {
        number: i64::from_le_bytes(inline.try_into().unwrap_or_default()),
        fields: fields_of(args, at as u32),
        retries,
        nature: nature(),
    });
    items.collect()
}
