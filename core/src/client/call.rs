//! A call with options. Owns: the way from a task and arguments to messages.

use std::{collections::BTreeMap, future::poll_fn, marker::PhantomData, ops::Range, sync::Arc, task::Poll, time::Duration};

use super::{
    BatchedMap, Client, Future, Futures, IntoArgs,
    args::{ArgsBuilder, Kept},
    shared::Handle,
};
use crate::{
    Options, Task,
    codec::Args,
    error::{ConnectError, Error},
    wire::{CallSpec, ENTRY_COST, FromClient, NAME_BYTES, RUN_BYTES, RUN_ITEMS, SharedSpec},
};

/// A task with options for its next calls, from [`Client::task`].
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn inc(x: i64) -> i64 { x + 1 }
/// # let client = Client::local();
/// let future = client.task(inc).retries(3).priority(5).submit(1);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until `submit`, `map` or `batched_map`"]
pub struct Call<T> {
    client: Client,
    options: Options,
    name: Option<String>,
    task: PhantomData<T>,
}

impl<T: Task> Call<T> {
    pub(super) fn new(client: Client) -> Self {
        Self { client, options: T::info().options.clone(), name: None, task: PhantomData }
    }

    /// How often an item that failed is tried again.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let future = client.task(inc).retries(3).submit(1);
    /// assert_eq!(future.result()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Higher goes first; 0 where nothing is said.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let urgent = client.task(inc).priority(10).submit(1);
    /// assert_eq!(urgent.result()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// Time for one item. Workers' owners may set less.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn sleep(ms: u64) { std::thread::sleep(std::time::Duration::from_millis(ms)) }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// use std::time::Duration;
    ///
    /// use quicsand::{Error, TaskErrorKind};
    ///
    /// let late = client.task(sleep).timeout(Duration::from_millis(20)).submit(100);
    /// let Err(Error::Task(error)) = late.result() else { panic!("it was in time") };
    /// assert_eq!(error.kind, TaskErrorKind::TimeLimit { limit_ms: 20 });
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Bytes of memory for the sandbox. Workers' owners may set less. In-process nothing limits memory.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let future = client.task(inc).memory(64 << 20).submit(1);
    /// assert_eq!(future.result()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory(mut self, bytes: u64) -> Self {
        self.options.memory = bytes;
        self
    }

    /// The label that its worker must have, in addition to those of `#[task(requires(…))]`, or instead of another value there. Every
    /// worker has the labels `arch` and `os`, and one `cpu.FEATURE` with the value `yes` for each feature of its processor. While no
    /// worker has it the call waits; [`Future::why`] tells. In-process every label is there.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # let client = Client::local();
    /// let future = client.task(inc).require_label("zone", "a").require_resource("gpu", 1).submit(1);
    /// ```
    pub fn require_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.requires.set_label(name.into(), value.into());
        self
    }

    /// How much of a named resource of its worker each call takes, from when it is sent there to its end (a batch of a map takes it
    /// once: its items run one after another); in addition to what `#[task(requires(…))]` says, or instead of another amount there.
    /// With 0 none of it. In-process there is enough of everything.
    ///
    /// A client may have 1024 different sets of requirements under way at a time: amounts are for kinds of calls, not for each its own. A
    /// call that takes much of a resource can wait for as long as others keep taking little of it.
    pub fn require_resource(mut self, name: impl Into<String>, amount: u64) -> Self {
        self.options.requires.set_resource(name.into(), amount);
        self
    }

    /// The name that errors, logs and status show, instead of the task's; cut off at 1 KiB.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn fail() -> Result<(), String> { Err("it does so always".into()) }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let error = client.task(fail).name("step 3").submit(()).result().unwrap_err();
    /// assert!(error.to_string().starts_with("task `step 3` failed: "), "{error}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// See [`Client::submit`].
    pub fn submit<A: IntoArgs<T::Args>>(&self, args: A) -> Future<T::Output> {
        match self.encode_one(args) {
            Ok((builder, keeps)) => self.send_one(builder, keeps),
            Err(error) => self.broken_one(error),
        }
    }

    /// See [`Client::submit_async`].
    pub async fn submit_async<A: IntoArgs<T::Args>>(&self, args: A) -> Future<T::Output> {
        let (mut builder, keeps) = match self.encode_one(args) {
            Ok(encoded) => encoded,
            Err(error) => return self.broken_one(error),
        };
        let args = builder.take();
        let cost = ENTRY_COST + args.cost();
        let shared = &self.client.shared;
        poll_fn(|context| if shared.poll_credit(cost, context.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
        self.send_paid(args, builder, keeps, 0)
    }

    /// See [`Client::map`].
    pub fn map<I>(&self, args: I) -> Futures<T::Output>
    where
        I: IntoIterator,
        I::Item: IntoArgs<T::Args>,
    {
        let mut sender = match MapSender::open(self) {
            Ok(sender) => sender,
            Err(error) => {
                let count = args.into_iter().count() as u64;
                return Futures::new(self.client.shared.open_broken(count, error), 0..count);
            }
        };
        for item in args {
            sender.push(item);
        }
        sender.close();
        Futures::new(sender.handle(), 0..sender.count)
    }

    /// See [`Client::batched_map`].
    pub fn batched_map<I>(&self, args: I) -> BatchedMap<T, I::IntoIter>
    where
        I: IntoIterator,
        I::Item: IntoArgs<T::Args>,
    {
        BatchedMap::new(MapSender::open(self), args.into_iter())
    }

    /// Makes sure that it can be sent, and run by whoever gets it.
    fn prepare(&self) -> Result<(), Error> {
        if let Some(fault) = self.options.requires.fault() {
            return Err(ConnectError::Setting { name: "what the call requires".into(), reason: fault.into() }.into());
        }
        self.client.prepare::<T>()
    }

    fn encode_one<A: IntoArgs<T::Args>>(&self, args: A) -> Result<(ArgsBuilder, Vec<Kept>), Error> {
        self.prepare()?;
        let mut builder = ArgsBuilder::default();
        let mut keeps = Vec::new();
        builder.push(&self.client.shared, args, &mut keeps)?;
        Ok((builder, keeps))
    }

    fn send_one(&self, mut builder: ArgsBuilder, keeps: Vec<Kept>) -> Future<T::Output> {
        let args = builder.take();
        let cost = ENTRY_COST + args.cost();
        self.send_paid(args, builder, keeps, cost)
    }

    /// Sends a call with what was taken out of the builder; `cost` is still to be taken from the credit.
    fn send_paid(&self, args: Args, mut builder: ArgsBuilder, keeps: Vec<Kept>, cost: u64) -> Future<T::Output> {
        let spec = self.spec();
        let handle = self.client.shared.open(1, cost, |seq| FromClient::Call { seq, spec, args });
        builder.sent();
        handle.keep(keeps);
        Future::new(handle, 0)
    }

    fn broken_one(&self, error: Error) -> Future<T::Output> {
        Future::new(self.client.shared.open_broken(1, error), 0)
    }

    fn spec(&self) -> SharedSpec {
        let info = T::info();
        let name = self.name.as_deref().unwrap_or(info.name);
        let name = name[..name.floor_char_boundary(NAME_BYTES)].to_owned();
        CallSpec { task: info.id, name, options: self.options.clone() }.into()
    }
}

/// Sends the items of one map, in runs.
pub(super) struct MapSender {
    client: Client,
    pub(super) handle: Arc<Handle>,
    builder: ArgsBuilder,
    /// Values that were scattered for items, by entry, each with the end of the items that use it.
    keeps: BTreeMap<u64, (u64, Kept)>,
    /// Their bytes.
    pub(super) kept_bytes: u64,
    /// Those of the item that is being added.
    fresh: Vec<Kept>,
    /// Items pushed so far.
    pub(super) count: u64,
    closed: bool,
    /// An item had no encoding: the map fails as a whole, and nothing more of it is sent.
    broken: bool,
}

impl MapSender {
    fn open<T: Task>(call: &Call<T>) -> Result<Self, Error> {
        call.prepare()?;
        let spec = call.spec();
        let handle = call.client.shared.open(0, ENTRY_COST, |seq| FromClient::Map { seq, spec });
        Ok(Self {
            client: call.client.clone(),
            handle,
            builder: ArgsBuilder::default(),
            keeps: BTreeMap::new(),
            kept_bytes: 0,
            fresh: Vec::new(),
            count: 0,
            closed: false,
            broken: false,
        })
    }

    /// Adds an item; sends a run when it is full. An item that has no encoding breaks the whole map.
    pub(super) fn push<A>(&mut self, item: impl IntoArgs<A>) {
        self.count += 1;
        if self.broken {
            return;
        }
        match self.builder.push(&self.client.shared, item, &mut self.fresh) {
            Ok(()) => {
                for kept in self.fresh.drain(..) {
                    self.kept_bytes += kept.bytes;
                    if let Some((_, again)) = self.keeps.insert(kept.handle.seq(), (self.count, kept)) {
                        self.kept_bytes -= again.bytes;
                    }
                }
                if self.builder.count() >= RUN_ITEMS || self.builder.byte_len() >= RUN_BYTES {
                    self.flush();
                }
            }
            Err(error) => {
                self.broken = true;
                self.client.shared.with(|book| book.break_entry(self.handle.seq(), error));
            }
        }
    }

    /// Sends what was pushed.
    pub(super) fn flush(&mut self) {
        if self.builder.count() > 0 {
            self.client.shared.extend(&self.handle, self.builder.take());
            self.builder.sent();
        }
    }

    /// Sends what was pushed, and that there is no more.
    pub(super) fn close(&mut self) {
        self.flush();
        self.closed = true;
        self.client.shared.send([FromClient::Close { seq: self.handle.seq() }]);
    }

    /// The map's handle, which from now on keeps what was scattered for the items too.
    fn handle(&mut self) -> Arc<Handle> {
        self.handle.keep(std::mem::take(&mut self.keeps).into_values().map(|(_, kept)| kept));
        Arc::clone(&self.handle)
    }

    /// Gives back what is known of consumed items, and what was scattered for them and no later ones.
    pub(super) fn release(&mut self, items: Range<u64>) {
        for (_, (_, kept)) in self.keeps.extract_if(.., |_, (end, _)| *end <= items.end) {
            self.kept_bytes -= kept.bytes;
        }
        let span = self.client.shared.with(|book| {
            book.forget_before(self.handle.seq(), items.end);
            book.span(self.handle.seq(), items)
        });
        self.client.shared.send([FromClient::Release { span }]);
    }
}

impl Drop for MapSender {
    /// A map that is left in the middle, by a panicking iterator for one, must not stay open.
    fn drop(&mut self) {
        if !self.closed {
            self.client.shared.send([FromClient::Close { seq: self.handle.seq() }]);
        }
    }
}

impl std::fmt::Debug for MapSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapSender").field("count", &self.count).finish_non_exhaustive()
    }
}
