//! The state machine behind its lock, and its actions carried out. Every thread that has news calls in here: the link's, the compute
//! threads, whoever fetched something. Must not know: sockets, async.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use quicsand::{
    ids::{Hash, Key},
    net::{Reserved, Room},
    wire::{FromWorker, blob::Place},
};

use super::slots::{Mailbox, Task};
use crate::{
    sandbox::{Control, Module, Printed},
    state::{Action, Budget, Event, Held, Kept, Worker},
};

/// What the state machine's actions need of the network. Called with the state machine locked: nothing here may block, or call back.
pub(crate) trait Uplink: Send + Sync {
    /// Says these to the scheduler, in order.
    fn send(&self, messages: Vec<FromWorker>);
    /// Fetches and compiles a module; ends in [`Core::module_ready`] or an event.
    fn fetch_module(&self, hash: Hash);
    /// Writes a value to a file; ends in an event.
    fn spill(&self, file: u64, bytes: Bytes);
    /// Reads a file; ends in an event.
    fn load(&self, file: u64, len: u64, hash: Hash);
    /// Removes a file.
    fn unlink(&self, file: u64);
    /// Fetches a blob; ends in an event.
    fn fetch_blob(&self, key: Key, len: u64, hash: Hash, places: Vec<Place>);
    /// Ends the connection once everything is said; with a reason if that is not in good order.
    fn leave(&self, reason: Option<String>);
}

/// One registration's state machine and what its actions need.
pub(crate) struct Core {
    inner: Mutex<Inner>,
    slots: Vec<Mailbox>,
    uplink: Box<dyn Uplink>,
    /// For values that peers leave here.
    room: Arc<Room>,
    printed: Arc<Printed>,
    finished: AtomicU64,
}

struct Inner {
    worker: Worker,
    modules: BTreeMap<Hash, Arc<Module>>,
    /// What stops the run of each slot.
    controls: Vec<Control>,
    actions: Vec<Action>,
    /// Nothing runs any more: the registration is over.
    closed: bool,
}

impl Core {
    /// A worker without runs. Its compute threads are started by the caller.
    pub(crate) fn new(slots: u32, name: String, budget: Budget, printed: Printed, kept: Kept, uplink: Box<dyn Uplink>) -> Self {
        let inner = Inner {
            worker: Worker::new(slots, name, budget, kept),
            modules: BTreeMap::new(),
            controls: (0..slots).map(|_| Control::new()).collect(),
            actions: Vec::new(),
            closed: false,
        };
        let slots = (0..slots).map(|_| Mailbox::default()).collect();
        let (room, printed) = (Room::new(budget.memory.saturating_add(budget.disk)), Arc::new(printed));
        Self { inner: Mutex::new(inner), slots, uplink, room, printed, finished: AtomicU64::new(0) }
    }

    /// Tells the state machine what happened, all under one lock, and carries its actions out.
    pub(crate) fn tell(&self, events: impl IntoIterator<Item = Event>) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        events.into_iter().for_each(|event| inner.worker.handle(event, &mut inner.actions));
        self.act(inner, None);
    }

    /// Tells that a slot is done; gives the slot's next run if there is one already.
    pub(crate) fn run_ended(&self, slot: u32, event: Event) -> Option<Task> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.worker.handle(event, &mut inner.actions);
        self.act(inner, Some(slot))
    }

    /// Counts items that a slot ran to a result.
    pub(crate) fn count_finished(&self, items: u64) {
        self.finished.fetch_add(items, Ordering::Relaxed);
    }

    /// Items that ran to a result, since this registration began.
    pub(crate) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// A module is compiled.
    pub(crate) fn module_ready(&self, hash: Hash, module: Arc<Module>) {
        self.inner.lock().modules.insert(hash, module);
        self.tell([Event::ModuleReady(hash)]);
    }

    /// Where a held value is, for a peer.
    pub(crate) fn held(&self, key: Key) -> Option<Held> {
        self.inner.lock().worker.held(key)
    }

    /// Room for a value from a peer.
    pub(crate) fn reserve(&self, len: u64) -> Result<Reserved, String> {
        let inner = self.inner.lock();
        let unusable = self.room.limit().saturating_sub(inner.worker.capacity());
        let room = self.room.reserve(len, inner.worker.held_bytes().saturating_add(unusable));
        room.ok_or_else(|| inner.worker.no_room(len))
    }

    /// A value from a peer, for which there was room.
    ///
    /// # Errors
    /// When results have taken it meanwhile.
    pub(crate) fn write(&self, key: Key, bytes: Bytes, hash: Hash) -> Result<(), String> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let len = bytes.len() as u64;
        if inner.worker.held_bytes().saturating_add(len) > inner.worker.capacity() {
            return Err(inner.worker.no_room(len));
        }
        inner.worker.handle(Event::Written { key, hash, bytes }, &mut inner.actions);
        self.act(inner, None);
        Ok(())
    }

    /// What tasks of this registration printed: another one numbers its clients anew.
    pub(crate) fn printed(&self) -> &Arc<Printed> {
        &self.printed
    }

    /// Where a slot's thread waits.
    pub(crate) fn mailbox(&self, slot: u32) -> Option<&Mailbox> {
        self.slots.get(slot as usize)
    }

    /// Stops whatever runs and ends the compute threads.
    pub(crate) fn close(&self) {
        {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.controls.iter().for_each(Control::cancel_all);
        }
        self.slots.iter().for_each(Mailbox::close);
    }

    /// Whether the disk has nothing to do for it.
    pub(crate) fn is_disk_still(&self) -> bool {
        self.inner.lock().worker.is_disk_still()
    }

    /// Takes out what was held, for the next registration. To be called when nothing runs any more.
    pub(crate) fn take_kept(&self) -> Kept {
        self.inner.lock().worker.take_kept()
    }

    /// Carries the actions out in order, what is said in one piece at the end. The run for the slot `own` is given back rather than
    /// posted: its thread is here.
    fn act(&self, inner: &mut Inner, own: Option<u32>) -> Option<Task> {
        let mut messages = Vec::new();
        let mut next = None;
        let mut departure = None;
        for action in inner.actions.drain(..) {
            match action {
                Action::Send(message) => messages.push(message),
                Action::FetchModule(hash) => self.uplink.fetch_module(hash),
                Action::ForgetModule(hash) => {
                    inner.modules.remove(&hash);
                }
                Action::FetchBlob { key, len, hash, places } => self.uplink.fetch_blob(key, len, hash, places),
                Action::Spill { file, bytes } => self.uplink.spill(file, bytes),
                Action::Load { file, len, hash } => self.uplink.load(file, len, hash),
                Action::Unlink { file } => self.uplink.unlink(file),
                // What waited behind a run that was stopped must not take its place.
                Action::Execute { .. } if inner.closed => {}
                Action::Execute { slot, work } => {
                    let control = Control::new();
                    if let Some(at) = inner.controls.get_mut(slot as usize) {
                        *at = control.clone();
                    }
                    let task = Task { module: inner.modules.get(&work.module).cloned(), work, control };
                    if own == Some(slot) {
                        next = Some(task);
                    } else if let Some(mailbox) = self.mailbox(slot) {
                        mailbox.put(task);
                    }
                }
                Action::Stop { slot, first, count } => {
                    if let Some(control) = inner.controls.get(slot as usize) {
                        control.cancel(first, count);
                    }
                }
                Action::Divide { slot } => inner.controls.get(slot as usize).into_iter().for_each(Control::divide),
                Action::Leave(reason) => departure = Some(reason),
            }
        }
        if !messages.is_empty() {
            self.uplink.send(messages);
        }
        if let Some(reason) = departure {
            self.uplink.leave(reason);
        }
        next
    }
}
