//! A module come alive: its store, and the calls of the guest ABI in their order. Must not know: what becomes of a failure.

use std::{ops::Range, sync::Arc};

use quicsand::{
    abi::{self, State},
    ids::{ClientId, Hash, Key, TaskId},
    pages,
};
use wasmtime::{AsContextMut, Error, Extern, Memory, Result, Store, TypedFunc, UpdateDeadline};

use super::{
    batch::Plan,
    engine::Sandbox,
    limits::{Growth, Limit, Stop, Watch},
    log::Log,
    module::{CONSTRUCTORS, Module},
    outcome::ResultCaps,
    printed::Printed,
    wasi::{Addresses, Guest, read_u32, slice},
};

/// An instance with at most this much memory (or what it began with, if that is more) is kept for the next batch.
const KEEP_BYTES: u64 = 256 << 20;
/// What an instance has of memory beyond this is on large pages: a task that needs so much fills them.
const SMALL_PAGES_BYTES: usize = 8 << 20;

/// What a call may use.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) watch: Watch,
    /// Bytes of memory.
    pub(crate) memory: Limit<u64>,
}

/// A call that did not come to its end.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) phase: Phase,
}

/// How far a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There was no instance yet.
    Instantiate,
    /// The guest got ready; it had not begun the batch, so what it says of items is stale.
    Prepare,
    /// The guest was at the batch.
    Run,
}

impl Phase {
    fn failed(self, error: impl Into<Error>) -> Failure {
        Failure { error: error.into(), phase: self }
    }
}

/// An instance of a module, for batches of one client.
pub(crate) struct Instance {
    store: Store<Guest>,
    instance: wasmtime::Instance,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    reset: TypedFunc<(), ()>,
    /// The export of the last batch's task.
    entry: Option<(TaskId, TypedFunc<u32, ()>)>,
    /// Address of the guest's [`State`].
    state: u32,
    initial_bytes: u64,
    module: Arc<Module>,
    client: ClientId,
    used: bool,
}

impl Instance {
    /// Brings the module alive: constructors, then version, then state.
    pub(crate) fn start(
        sandbox: &Sandbox,
        module: &Arc<Module>,
        client: ClientId,
        bounds: Bounds,
        printed: &Arc<Printed>,
    ) -> Result<Self, Failure> {
        let log = Log::new(usize::try_from(sandbox.config().caps.log_limit.0).unwrap_or(usize::MAX));
        let growth = Growth { memory: bounds.memory, table: sandbox.config().caps.table_limit };
        let guest = Guest::new(
            growth,
            ResultCaps::of(sandbox.config()),
            bounds.watch,
            log,
            Arc::clone(printed),
            Arc::clone(sandbox.world()),
        );
        let mut store = Store::new(sandbox.engine(), guest);
        store.limiter(|guest| &mut guest.growth);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            if let Some(memory) = context.data().memory {
                let (bytes, guest) = memory.data_and_store_mut(&mut context);
                guest.look(bytes)?;
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let instance = module.pre().instantiate(&mut store).map_err(|error| Phase::Instantiate.failed(error))?;
        Self::prepare(sandbox, store, instance, module, client).map_err(|error| Phase::Prepare.failed(error))
    }

    fn prepare(
        sandbox: &Sandbox,
        mut store: Store<Guest>,
        instance: wasmtime::Instance,
        module: &Arc<Module>,
        client: ClientId,
    ) -> Result<Self> {
        let Some(memory) = instance.get_memory(&mut store, "memory") else { return Err(Error::new(Stop::Lie("no memory"))) };
        store.data_mut().memory = Some(memory);
        let reach = usize::try_from(sandbox.config().memory_cap()).unwrap_or(usize::MAX).saturating_sub(SMALL_PAGES_BYTES);
        pages::advise_at(memory.data_ptr(&store).wrapping_add(SMALL_PAGES_BYTES), reach);
        if let Ok(constructors) = instance.get_typed_func::<(), ()>(&mut store, CONSTRUCTORS) {
            constructors.call(&mut store, ())?;
        }
        let version = instance.get_typed_func::<(), u32>(&mut store, abi::EXPORT_ABI)?.call(&mut store, ())?;
        if version != abi::VERSION {
            return Err(Error::new(Stop::Lie("it speaks another version than its list of tasks says")));
        }
        let state = instance.get_typed_func::<(), u32>(&mut store, abi::EXPORT_STATE)?.call(&mut store, ())?;
        let alloc = instance.get_typed_func(&mut store, abi::EXPORT_ALLOC)?;
        let reset = instance.get_typed_func(&mut store, abi::EXPORT_RESET)?;
        let initial_bytes = memory.data_size(&store) as u64;
        let module = Arc::clone(module);
        Ok(Self { store, instance, memory, alloc, reset, entry: None, state, initial_bytes, module, client, used: false })
    }

    /// Whether a batch of this module and client may run here.
    pub(crate) fn suits(&self, module: Hash, client: ClientId, memory: u64) -> bool {
        self.module.hash() == module && self.client == client && self.memory_bytes() <= memory
    }

    /// Whether it is small enough to wait for the next batch.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.memory_bytes() <= self.initial_bytes.max(KEEP_BYTES)
    }

    /// Whether no batch has run here.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.used
    }

    fn memory_bytes(&self) -> u64 {
        self.memory.data_size(&self.store) as u64
    }

    /// Runs a batch, whose first item has that key. What it finished is in [`Instance::results`] whether it fails or not.
    pub(crate) fn call(&mut self, task: TaskId, first: Key, plan: &Plan<'_>, bounds: Bounds) -> Result<(), Failure> {
        self.used = true;
        let guest = self.store.data_mut();
        guest.growth.memory = bounds.memory;
        guest.watch = bounds.watch;
        guest.at = None;
        guest.log.clear();
        guest.end_item();
        guest.lines.begin(first);
        self.store.set_epoch_deadline(1);
        let room = self.write(task, plan).map_err(|error| Phase::Prepare.failed(error))?;
        let Some((_, entry)) = &self.entry else { return Err(Phase::Prepare.failed(Error::msg("no task is at hand"))) };
        let guest = self.store.data_mut();
        guest.at = Some(Addresses { state: self.state, batch: room });
        guest.watch.begin();
        let called = entry.call(&mut self.store, room).map_err(|error| Phase::Run.failed(error));
        let guest = self.store.data_mut();
        guest.end_item();
        guest.lines.end(&guest.printed);
        called
    }

    /// Has the task at hand and its arguments in the guest's memory; gives their address.
    fn write(&mut self, task: TaskId, plan: &Plan<'_>) -> Result<u32> {
        self.enter(task)?;
        self.reset.call(&mut self.store, ())?;
        let base = self.alloc.call(&mut self.store, plan.len)?;
        let memory = self.memory.data_mut(&mut self.store);
        let room = memory.get_mut(base as usize..).and_then(|rest| rest.get_mut(..plan.len as usize));
        room.and_then(|room| plan.write(room, base)).ok_or_else(|| Error::new(Stop::Lie("it gives room outside its memory")))?;
        Ok(base)
    }

    /// Has the export of a task at hand.
    fn enter(&mut self, task: TaskId) -> Result<()> {
        if self.entry.as_ref().is_some_and(|(last, _)| *last == task) {
            return Ok(());
        }
        let export = self.module.export(task).and_then(|export| self.instance.get_module_export(&mut self.store, export));
        let Some(Extern::Func(func)) = export else { return Err(Error::msg("the task's export is gone")) };
        self.entry = Some((task, func.typed(&self.store)?));
        Ok(())
    }

    /// What the guest says of its batch of `items`, its memory, and what it printed.
    ///
    /// # Errors
    /// When its counters cannot be true.
    pub(crate) fn results(&mut self, items: &Range<u32>) -> Result<(State, &[u8], &mut Log), Stop> {
        let (memory, guest) = self.memory.data_and_store_mut(self.store.as_context_mut());
        let state = read_state(memory, self.state).ok_or(Stop::Lie("its state lies outside its memory"))?;
        if state.finished > state.started || state.started > items.end - items.start || state.started - state.finished > 1 {
            return Err(Stop::Lie("it counts its items wrong"));
        }
        Ok((state, memory, &mut guest.log))
    }
}

pub(crate) fn read_state(memory: &[u8], at: u32) -> Option<State> {
    let field = |index: u32| at.checked_add(index * 4).and_then(|at| read_u32(memory, at));
    Some(State {
        started: field(0)?,
        finished: field(1)?,
        out: field(2)?,
        out_len: field(3)?,
        lens: field(4)?,
        panic: field(5)?,
        panic_len: field(6)?,
    })
}

/// The text of the guest's last panic, if there was one: place and message.
pub(crate) fn read_panic(memory: &[u8], state: &State, cap: u32) -> Option<(Option<String>, String)> {
    if state.panic_len == 0 {
        return None;
    }
    let text = slice(memory, state.panic, state.panic_len)?;
    let text = String::from_utf8_lossy(&text[..text.len().min(cap as usize)]);
    let (place, message) = text.split_once('\n').unwrap_or(("", &text));
    Some(((!place.is_empty()).then(|| place.to_owned()), message.to_owned()))
}
