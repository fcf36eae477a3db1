//! The bookkeeping behind its lock, shared by a client, its futures and its backend. Owns: waiting and waking, the order of messages,
//! handles of entries. Must not know: types of values, or how messages travel.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;

#[cfg(not(target_family = "wasm"))]
use super::naming::name_of;
use super::{
    args::Kept,
    backend::{Backend, Inbox},
    state::{Answer, Bookkeeping, Known, Touched},
    wakers::Wakers,
};
use crate::{
    codec::{Args, Encoded, Run, Span},
    error::Error,
    ids::{EntryId, Hash, Key},
    wire::{ENTRY_COST, FromClient, INLINE_BYTES, StateCounts, ToClient, Waiting},
};

/// What a client, its futures and its backend share.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Held while entries are numbered and sent, so that they are sent in the order of their numbers. Taken before `state`.
    order: Mutex<()>,
    backend: OnceLock<Arc<dyn Backend>>,
    /// Whether values of any size travel in messages, since nothing travels at all.
    pub(super) in_process: bool,
}

struct State {
    book: Bookkeeping,
    /// Why nothing more will come.
    over: Option<Error>,
    wakers: Wakers,
    /// Values that were scattered on behalf of large arguments, as long as somebody uses them.
    large: HashMap<Hash, Weak<Handle>>,
    /// Threads that wait for a change.
    waiting: usize,
}

/// Keeps an entry's results; dropping the last one releases or cancels them.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    seq: u64,
    /// Values that were scattered for this entry's arguments.
    keeps: Mutex<Vec<Kept>>,
}

impl Shared {
    pub(super) fn new(book: Bookkeeping, in_process: bool) -> Arc<Self> {
        let state = State { book, over: None, wakers: Wakers::default(), large: HashMap::new(), waiting: 0 };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            order: Mutex::new(()),
            backend: OnceLock::new(),
            in_process,
        })
    }

    /// What a backend is given to deliver to. It keeps nothing alive.
    pub(super) fn inbox(self: &Arc<Self>, address: &str) -> Arc<dyn Inbox> {
        Arc::new(Mailbox { shared: Arc::downgrade(self), address: address.to_owned() })
    }

    pub(super) fn attach(&self, backend: Arc<dyn Backend>) {
        let _ = self.backend.set(backend);
    }

    /// Makes every call fail from now on.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.lock();
        state.over.get_or_insert(error);
        let mut due = Vec::new();
        state.wakers.take_all(&mut due);
        drop(state);
        self.changed.notify_all();
        due.into_iter().for_each(Waker::wake);
    }

    /// Opens an entry of `count` items and sends the message that `message` makes of its number. Waits for credit for its `cost`.
    pub(super) fn open(self: &Arc<Self>, count: u64, cost: u64, message: impl FnOnce(u64) -> FromClient) -> Arc<Handle> {
        self.wait_for_credit(cost);
        let order = lock(&self.order);
        let seq = self.lock().book.open(count);
        self.send([message(seq)]);
        drop(order);
        Arc::new(Handle { shared: Arc::clone(self), seq, keeps: Mutex::default() })
    }

    /// Takes credit for a `cost` if there is enough, for an [`Shared::open`] without cost; otherwise wakes `waker` when it may be
    /// different.
    pub(super) fn poll_credit(&self, cost: u64, waker: &Waker) -> bool {
        let mut state = self.lock();
        let enough = state.over.is_some() || state.book.take_credit(cost);
        if !enough {
            state.wakers.wait_for_credit(waker);
        }
        enough
    }

    /// An entry that fails with this without being sent anywhere.
    pub(super) fn open_broken(self: &Arc<Self>, count: u64, error: Error) -> Arc<Handle> {
        let seq = self.with(|book| book.open_broken(count, error));
        Arc::new(Handle { shared: Arc::clone(self), seq, keeps: Mutex::default() })
    }

    /// Makes the encoding of a value available to workers; one of equal bytes that somebody still uses is used again.
    pub(super) fn scatter(self: &Arc<Self>, data: Encoded) -> Arc<Handle> {
        let hash = name_of(&data);
        let known = self.lock().large.get(&hash).and_then(Weak::upgrade);
        // One that failed is no help to whoever tries again.
        if let Some(handle) = known.filter(|handle| !matches!(self.with(|book| book.look(handle.seq, 0)), Known::Failed(_))) {
            return handle;
        }
        let len = data.len() as u64;
        // The scheduler keeps small values, but not too many: they take up credit for as long as the caller holds on to them. Workers
        // have room of their own.
        let is_inline = self.in_process || (data.len() <= INLINE_BYTES && self.with(|book| book.take_inline(len)));
        if !is_inline {
            self.wait_for_credit(ENTRY_COST);
        }
        let order = lock(&self.order);
        let mut state = self.lock();
        let inline = if is_inline { Run::single(data.clone().into_bytes()) } else { None };
        let seq = if inline.is_some() { state.book.open_inline(len) } else { state.book.open(1) };
        let message = FromClient::Data { seq, len, hash, bytes: inline.as_ref().map(|run| run.bytes().clone()) };
        match inline {
            Some(values) => state.book.receive(ToClient::Done { seq, first: 0, values }, &mut Vec::new()),
            None => state.book.keep_data(seq, data, hash),
        }
        drop(state);
        self.send([message]);
        drop(order);
        let handle = Arc::new(Handle { shared: Arc::clone(self), seq, keeps: Mutex::default() });
        let mut state = self.lock();
        if state.large.len() >= 1024 {
            state.large.retain(|_, handle| handle.strong_count() > 0);
        }
        state.large.insert(hash, Arc::downgrade(&handle));
        drop(state);
        handle
    }

    pub(super) fn send(&self, messages: impl IntoIterator<Item = FromClient>) {
        if let Some(backend) = self.backend.get() {
            backend.send(&mut messages.into_iter());
        }
    }

    /// What is known of an item now; begins to fetch it if it is stored. If that is not the end of it, wakes `waker` when there is news.
    pub(super) fn poll(&self, key: Key, waker: &Waker) -> Known {
        let mut state = self.lock();
        let known = state.look(key, self);
        if matches!(known, Known::Pending | Known::Stored(_)) {
            state.wakers.wait_for_item(key.entry.seq, key.index, waker);
        }
        known
    }

    /// Whether an item has ended, or will never; if not, wakes `waker` when it has. Fetches nothing.
    pub(super) fn watch(&self, seq: u64, index: u64, waker: &Waker) -> bool {
        let mut state = self.lock();
        let ended = state.over.is_some() || state.book.is_resolved(seq, index);
        if !ended {
            state.wakers.wait_for_item(seq, index, waker);
        }
        ended
    }

    /// Waits until an item's value is here, or is known never to be.
    pub(super) fn wait(&self, key: Key) -> Result<Bytes, Error> {
        let mut state = self.lock();
        loop {
            match state.look(key, self) {
                Known::Value(bytes) => return Ok(bytes),
                Known::Failed(error) => return Err(error),
                Known::Pending | Known::Stored(_) => state = self.sleep(state, None),
            }
        }
    }

    /// Waits until `done` says something of the bookkeeping, the client is over, or the time is up.
    pub(super) fn wait_until<T>(
        &self,
        timeout: Option<Duration>,
        mut done: impl FnMut(&mut Bookkeeping) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut state = self.lock();
        loop {
            if let Some(result) = done(&mut state.book) {
                return Ok(Some(result));
            }
            if let Some(error) = &state.over {
                return Err(error.clone());
            }
            state = self.sleep(state, timeout);
            if timeout.is_some() {
                return Ok(done(&mut state.book));
            }
        }
    }

    /// Looks at the bookkeeping, or changes it.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Bookkeeping) -> T) -> T {
        change(&mut self.lock().book)
    }

    /// Asks the scheduler how many of these items are in each state.
    pub(super) fn count(&self, spans: Vec<Span>) -> Result<StateCounts, Error> {
        let (spans, unsent) = self.sent_ones(spans);
        let Answer::Counts(mut counts) = self.ask(|query| FromClient::Count { query, spans })? else {
            return Err(wrong_answer());
        };
        // What could not be sent was broken from the start.
        counts.erred += unsent.iter().map(|span| span.count).sum::<u64>();
        Ok(counts)
    }

    /// Asks the scheduler which of these items wait, and why.
    pub(super) fn explain(&self, spans: Vec<Span>) -> Result<Vec<Waiting>, Error> {
        let (spans, _) = self.sent_ones(spans);
        match self.ask(|query| FromClient::Explain { query, spans })? {
            Answer::Explained(waiting) => Ok(waiting),
            _ => Err(wrong_answer()),
        }
    }

    /// Asks the scheduler something and waits for the answer.
    pub(super) fn ask(&self, query: impl FnOnce(u64) -> FromClient) -> Result<Answer, Error> {
        let (number, message) = self.with(|book| book.ask(query));
        self.send([message]);
        let answer = self.wait_until(None, |book| book.take_answer(number))?;
        answer.ok_or(Error::Closed)
    }

    /// Those that the scheduler knows, to which a question about others is a breach; and the others.
    pub(super) fn sent_ones(&self, spans: Vec<Span>) -> (Vec<Span>, Vec<Span>) {
        self.with(|book| spans.into_iter().partition(|span| book.is_sent(span.entry.seq)))
    }

    /// Sends more items of an open map; waits for credit.
    pub(super) fn extend(&self, handle: &Handle, args: Args) {
        self.wait_for_credit(args.cost());
        self.with(|book| book.extend(handle.seq, args.count().into()));
        self.send([FromClient::Items { seq: handle.seq, args }]);
    }

    fn wait_for_credit(&self, cost: u64) {
        let mut state = self.lock();
        while state.over.is_none() && !state.book.take_credit(cost) {
            state = self.sleep(state, None);
        }
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>, timeout: Option<Duration>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = match timeout {
            Some(timeout) => self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.waiting -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn receive(&self, messages: &mut Vec<ToClient>, address: &str) {
        let (mut touched, mut due) = (Vec::new(), Vec::new());
        let mut state = self.lock();
        for message in messages.drain(..) {
            state.book.receive(message, &mut touched);
        }
        for what in &touched {
            match what {
                Touched::Items(seq, items) => state.wakers.take_items(*seq, items.clone(), &mut due),
                Touched::Credit => state.wakers.take_credit(&mut due),
                _ => {}
            }
        }
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.changed.notify_all();
        }
        due.into_iter().for_each(Waker::wake);
        for what in touched {
            match what {
                Touched::Upload { key, data, hash, route } => {
                    if let Some(backend) = self.backend.get() {
                        backend.upload(key, data, hash, route);
                    }
                }
                // Those who wait for it are better off with an error.
                Touched::Gone(span) => self.send([FromClient::Cancel { span }]),
                Touched::Refused(reason) => self.end(Error::Disconnected { address: address.to_owned(), reason }),
                Touched::Items(..) | Touched::Credit | Touched::Query => {}
            }
        }
    }

    /// The scheduler is back, and knows this client.
    fn returned(&self) {
        let again = self.with(|book| book.repeat());
        self.send(again);
    }

    fn fetched(&self, key: Key, bytes: Option<Bytes>) {
        let is_unreachable = bytes.is_none();
        let mut state = self.lock();
        state.book.fetched(key, bytes);
        let mut due = Vec::new();
        state.wakers.take_items(key.entry.seq, key.index..key.index + 1, &mut due);
        drop(state);
        if is_unreachable {
            // Only now, so that the answer finds the item pending.
            self.send([FromClient::Unreachable { seq: key.entry.seq, index: key.index }]);
        }
        self.changed.notify_all();
        due.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn look(&mut self, key: Key, shared: &Shared) -> Known {
        let known = self.book.look(key.entry.seq, key.index);
        match (&known, &self.over) {
            (Known::Pending, Some(error)) => Known::Failed(error.clone()),
            (Known::Stored(_), _) => {
                if let Some(remote) = self.book.begin_fetch(key.entry.seq, key.index)
                    && let Some(backend) = shared.backend.get()
                {
                    backend.fetch(key, remote.len, remote.hash, remote.places);
                }
                known
            }
            _ => known,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.get() {
            backend.close();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn key(&self, index: u64) -> Key {
        self.entry().key(index)
    }

    pub(super) fn entry(&self) -> EntryId {
        self.shared.with(|book| book.id(self.seq))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn belongs_to(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Asks for these items to be cancelled, if the scheduler knows them.
    pub(super) fn cancel(&self, span: Span) {
        if self.shared.with(|book| book.is_sent(self.seq)) {
            self.shared.send([FromClient::Cancel { span }]);
        }
    }

    /// Keeps scattered values as long as this entry.
    pub(super) fn keep(&self, values: impl IntoIterator<Item = Kept>) {
        lock(&self.keeps).extend(values);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut nobody = Vec::new();
        let span = {
            let mut state = self.shared.lock();
            // Whoever polled a future of it once has given it up.
            state.wakers.take_items(self.seq, 0..u64::MAX, &mut nobody);
            state.book.forget(self.seq).map(|count| state.book.span(self.seq, 0..count))
        };
        drop(nobody);
        if let Some(span) = span {
            self.shared.send([FromClient::Release { span }]);
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("seq", &self.seq).finish_non_exhaustive()
    }
}

/// Delivers to a client as long as there is one.
struct Mailbox {
    shared: Weak<Shared>,
    /// The scheduler's, for errors.
    address: String,
}

impl Inbox for Mailbox {
    fn receive(&self, messages: &mut Vec<ToClient>) {
        match self.shared.upgrade() {
            Some(shared) => shared.receive(messages, &self.address),
            None => messages.clear(),
        }
    }

    fn fetched(&self, key: Key, bytes: Option<Bytes>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.fetched(key, bytes);
        }
    }

    fn returned(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.returned();
        }
    }

    fn forgotten(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.end(Error::Forgotten { address: self.address.clone() });
        }
    }

    fn disconnected(&self, reason: &str) {
        if let Some(shared) = self.shared.upgrade() {
            shared.end(Error::Disconnected { address: self.address.clone(), reason: reason.to_owned() });
        }
    }
}

/// What an answer to another question comes to.
fn wrong_answer() -> Error {
    Error::Disconnected { address: "the scheduler".to_owned(), reason: "it answered another question".to_owned() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In a guest no client ever gets as far as to send something.
#[cfg(target_family = "wasm")]
fn name_of(_: &Encoded) -> Hash {
    Hash([0; 32])
}
