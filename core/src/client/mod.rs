//! The client: what a program submits calls through. Owns: the public handle and the calls made through it. Must not know: whether the
//! calls run in this process or on a fleet.

mod args;
pub(crate) mod backend;
mod batched;
mod call;
mod completed;
mod connect;
mod future;
mod gather;
#[cfg(not(target_family = "wasm"))]
mod local;
#[cfg(not(target_family = "wasm"))]
mod naming;
#[cfg(not(target_family = "wasm"))]
mod progress;
mod publish;
mod shared;
#[cfg_attr(not(feature = "simulation"), allow(unreachable_pub, reason = "only the simulation drives it from outside"))]
pub(crate) mod state;
mod wakers;

use std::sync::Arc;

use serde::Serialize;

pub use args::{ArgWriter, IntoArg, IntoArgs};
pub use batched::BatchedMap;
pub use call::Call;
pub use completed::AsCompleted;
pub use connect::ClientBuilder;
pub use future::{Future, Futures, IntoIter, Status};
pub use gather::{Count, Gather};
pub use publish::Publish;

use crate::{
    Module, Task,
    codec::Encoded,
    error::{Error, Result},
    wire::{StateCounts, Waiting},
};
use shared::{Handle, Shared};

/// Submits calls of tasks, to this process or to a fleet. Cheap to clone; clones share everything.
///
/// ```
/// use quicsand::{Client, task};
///
/// #[task]
/// fn inc(x: i64) -> i64 {
///     x + 1
/// }
///
/// # fn main() -> quicsand::Result<()> {
/// let client = Client::local();
/// let one = client.submit(inc, 1);
/// let many = client.map(inc, 0..1000);
/// assert_eq!(client.gather(one)?, 2);
/// assert_eq!(client.gather(&many)?.len(), 1000);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    #[cfg(not(target_family = "wasm"))]
    Local(Arc<local::Local>),
    #[cfg(not(target_family = "wasm"))]
    Fleet(Arc<connect::Program>),
    #[cfg(target_family = "wasm")]
    Guest,
}

impl Client {
    /// A builder, for everything that [`Client::connect`] and [`Client::from_env`] take as given.
    ///
    /// ```no_run
    /// # use quicsand::Client;
    /// # fn main() -> quicsand::Result<()> {
    /// let client = Client::builder().address("scheduler.example:7447").token("…").name("nightly").connect()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects to the fleet of the scheduler at `address` (`HOST:PORT`) with a join token of the role client.
    ///
    /// ```no_run
    /// # use quicsand::Client;
    /// # fn main() -> quicsand::Result<()> {
    /// let token = std::fs::read_to_string("client.token").expect("a token");
    /// let client = Client::connect("scheduler.example:7447", token.trim())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A [`ConnectError`](crate::ConnectError) that says what to do: nobody answers, the token is not accepted, the program has no module, ….
    pub fn connect(address: &str, token: &str) -> Result<Self> {
        Self::builder().address(address).token(token).connect()
    }

    /// Calls `task` once. Returns at once; blocks only while too much was sent that the scheduler has not yet taken in.
    ///
    /// `args` is `()` for a task without parameters, the argument for one, a tuple for several. Each may be a value, a reference, or a
    /// future. What has no encoding makes the returned future fail.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # #[task]
    /// # fn add(x: i64, y: i64) -> i64 { x + y }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let two = client.submit(inc, 1);
    /// let three = client.submit(inc, &two); // waits for the other, which is not waited for here
    /// assert_eq!(three.result()?, 3);
    /// let five = client.submit(add, (&two, three));
    /// assert_eq!(five.result()?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn submit<T: Task, A: IntoArgs<T::Args>>(&self, task: T, args: A) -> Future<T::Output> {
        self.task(task).submit(args)
    }

    /// As [`Client::submit`], for async code: awaits where that blocks. Dropping the returned future before it is ready submits nothing.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// async fn both(client: &Client) -> quicsand::Result<(i64, i64)> {
    ///     let two = client.submit_async(inc, 1).await; // submitted
    ///     let three = client.submit_async(inc, 2).await;
    ///     Ok((two.await?, three.await?)) // and done
    /// }
    /// ```
    pub async fn submit_async<T: Task, A: IntoArgs<T::Args>>(&self, task: T, args: A) -> Future<T::Output> {
        self.task(task).submit_async(args).await
    }

    /// Calls `task` once an item of `args`. The iterator is used up and encoded before this returns.
    ///
    /// Blocks while too much was sent that the scheduler has not yet taken in. For more items than fit in memory use
    /// [`Client::batched_map`].
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # #[task]
    /// # fn add(x: i64, y: i64) -> i64 { x + y }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, 0..1000);
    /// assert_eq!(many.len(), 1000);
    /// assert_eq!(client.gather(&many)?[999], 1000);
    /// let sums = client.map(add, many.iter().zip(1..)); // futures and values, item by item
    /// assert_eq!(sums.get(9).unwrap().result()?, 20);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<T: Task, I>(&self, task: T, args: I) -> Futures<T::Output>
    where
        I: IntoIterator,
        I::Item: IntoArgs<T::Args>,
    {
        self.task(task).map(args)
    }

    /// Calls `task` once an item of `args`, lazily: the iterator is drawn from as results are consumed, results come in order, and memory
    /// stays constant however many items there are.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let mut sum = 0;
    /// for result in client.batched_map(inc, 0..100_000) {
    ///     sum += result?;
    /// }
    /// assert_eq!(sum, 5_000_050_000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn batched_map<T: Task, I>(&self, task: T, args: I) -> BatchedMap<T, I::IntoIter>
    where
        I: IntoIterator,
        I::Item: IntoArgs<T::Args>,
    {
        self.task(task).batched_map(args)
    }

    /// A call of `task` with other options than the task's own.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let future = client.task(inc).retries(3).priority(5).submit(1);
    /// assert_eq!(future.result()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn task<T: Task>(&self, task: T) -> Call<T> {
        let _ = task;
        Call::new(self.clone())
    }

    /// Sends a value to the workers once, for any number of calls to use: pass the future where a task asks for a `T`.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn root(table: &[f64], row: usize) -> f64 { table[row].sqrt() }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let table = client.scatter(vec![1.0, 4.0, 9.0]);
    /// let roots = client.map(root, (0..3_usize).map(|row| (&table, row)));
    /// assert_eq!(client.gather(roots)?, [1.0, 2.0, 3.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn scatter<T: Serialize>(&self, value: T) -> Future<T> {
        let encoded = Encoded::of(&value).map_err(|error| Error::Encode { reason: error.to_string() });
        let handle = match encoded.and_then(|encoded| not_in_task().map(|()| encoded)) {
            Ok(encoded) => self.shared.scatter(encoded),
            Err(error) => self.shared.open_broken(1, error),
        };
        Future::new(handle, 0)
    }

    /// Waits for results: of a future, of many, or of a `Vec`, array or tuple of such, nested as one likes.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let one = client.submit(inc, 1);
    /// let many = client.map(inc, 0..3);
    /// let list = vec![client.submit(inc, 10), client.submit(inc, 20)];
    /// assert_eq!(client.gather((one, &many, list))?, (2, vec![1, 2, 3], vec![11, 21]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first error, in the order of the futures.
    pub fn gather<G: Gather>(&self, futures: G) -> Result<G::Output> {
        futures.gather()
    }

    /// Waits for all results and gives one `Result` an item, in order.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn half(x: u32) -> Result<u32, String> { if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) } }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let halves = client.map(half, [2, 3, 4]);
    /// let results = client.gather_all(&halves);
    /// assert_eq!(results.iter().map(|result| result.as_ref().ok()).collect::<Vec<_>>(), [Some(&1), None, Some(&2)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn gather_all<T, I>(&self, futures: I) -> Vec<Result<T>>
    where
        T: serde::de::DeserializeOwned,
        I: IntoIterator<Item = Future<T>>,
    {
        futures.into_iter().map(|future| future.result()).collect()
    }

    /// Gives results as they come: pairs of the future's position and its result.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, [10, 20, 30]);
    /// for (position, result) in client.as_completed(&many) {
    ///     assert_eq!(result?, 10 * (position as i64 + 1) + 1); // in any order
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_completed<T, I>(&self, futures: I) -> AsCompleted<T>
    where
        I: IntoIterator<Item = Future<T>>,
    {
        AsCompleted::new(futures)
    }

    /// How many calls are in each state. Asks the scheduler and waits for the answer.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, 0..10);
    /// client.gather(&many)?;
    /// assert_eq!(client.counts(&many)?.memory, 10);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When a future belongs to another client, or the connection to the fleet is lost.
    pub fn counts(&self, futures: &impl Count) -> Result<StateCounts> {
        match futures.foreigner(self) {
            Some(key) => Err(Error::ForeignFuture { key }),
            None => self.shared.count(futures.spans()),
        }
    }

    /// Which of these calls wait, and why: for results of other calls, for a worker that has what they ask for, for one that has room.
    /// Asks the scheduler and waits for the answer. Calls that run or have ended are not in it.
    ///
    /// # Errors
    /// When a future belongs to another client, or the connection to the fleet is lost.
    pub fn why(&self, futures: &impl Count) -> Result<Vec<Waiting>> {
        match futures.foreigner(self) {
            Some(key) => Err(Error::ForeignFuture { key }),
            None => self.shared.explain(futures.spans()),
        }
    }

    /// Draws a progress bar on standard error until all calls have ended; plain lines where that is no terminal. Their results are kept.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, 0..1000);
    /// client.progress(&many);
    /// assert_eq!(client.gather(many)?.len(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn progress(&self, futures: &impl Count) {
        #[cfg(not(target_family = "wasm"))]
        progress::show(&self.shared, futures);
        #[cfg(target_family = "wasm")]
        let _ = futures;
    }

    /// Whether calls run in this process.
    ///
    /// ```
    /// # use quicsand::Client;
    /// assert!(Client::local().is_local());
    /// ```
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.kind {
            #[cfg(not(target_family = "wasm"))]
            Kind::Local(_) => true,
            #[cfg(not(target_family = "wasm"))]
            Kind::Fleet(_) => false,
            #[cfg(target_family = "wasm")]
            Kind::Guest => false,
        }
    }

    /// Whether a handle is of this client.
    fn made(&self, handle: &Handle) -> bool {
        handle.belongs_to(&self.shared)
    }

    /// Makes sure that whoever runs the task can: registers its function, or looks for it in the program's module.
    fn prepare<T: Task>(&self) -> Result<()> {
        not_in_task()?;
        match &self.kind {
            #[cfg(not(target_family = "wasm"))]
            Kind::Local(local) => {
                local.register(T::info().id, T::run_item);
                Ok(())
            }
            #[cfg(not(target_family = "wasm"))]
            Kind::Fleet(program) => Ok(program.check(T::info())?),
            #[cfg(target_family = "wasm")]
            Kind::Guest => Ok(()),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("local", &self.is_local()).finish_non_exhaustive()
    }
}

/// What a client can do, it cannot do inside a task: not in the sandbox, and so not in this process either, where waiting for another
/// call could mean waiting for ever.
fn not_in_task() -> Result<()> {
    #[cfg(not(target_family = "wasm"))]
    let is_task = local::is_task();
    #[cfg(target_family = "wasm")]
    let is_task = true;
    if is_task { Err(connect::inside_task().into()) } else { Ok(()) }
}

/// The module that a client uses which was given none.
fn default_module() -> Module {
    Module::installed().unwrap_or(Module::missing(
        "its `main` lacks #[quicsand::main]; put it there, or give the client a module from `quicsand::embed!()`",
    ))
}
