//! Handles on results: one, and many.

use std::{
    fmt,
    marker::PhantomData,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{
    shared::{Handle, Shared},
    state::Known,
};
use crate::{
    codec::{Span, decode_shared, decode_value},
    error::{Error, Result},
    ids::Key,
    wire::StateCounts,
};

/// The state of a call.
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn inc(x: i64) -> i64 { x + 1 }
/// # fn main() -> quicsand::Result<()> {
/// # let client = Client::local();
/// use quicsand::Status;
///
/// let two = client.submit(inc, 1);
/// two.result()?;
/// assert_eq!(two.status(), Status::Memory);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It waits for the results of other calls.
    Waiting,
    /// It could run; no worker has it yet.
    Queued,
    /// A worker has it.
    Processing,
    /// It finished, and its result is held.
    Memory,
    /// It failed, or a call that it depends on did.
    Erred,
    /// It was cancelled, or a call that it depends on was.
    Cancelled,
}

/// A handle on the result of a call, or on scattered data.
///
/// `.result()` waits for it and decodes it; so does `.await`, under any executor. It can be passed to
/// [`submit`](crate::Client::submit) and [`map`](crate::Client::map) wherever a `T` is asked. Clones stand for the same result. When the
/// last handle is dropped, a finished result is released and an unfinished call is cancelled, unless another call depends on it.
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn inc(x: i64) -> i64 { x + 1 }
/// # fn main() -> quicsand::Result<()> {
/// # let client = Client::local();
/// let two = client.submit(inc, 1);
/// let three = client.submit(inc, &two);
/// assert_eq!(three.result()?, 3);
/// assert!(two.is_done());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the last handle of an unfinished call cancels it"]
pub struct Future<T> {
    handle: Arc<Handle>,
    index: u64,
    value: PhantomData<fn() -> T>,
}

impl<T> Future<T> {
    pub(super) fn new(handle: Arc<Handle>, index: u64) -> Self {
        Self { handle, index, value: PhantomData }
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// The result's name in the cluster.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let two = client.submit(inc, 1);
    /// println!("{} is what `quicsand tasks` calls it", two.key());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn key(&self) -> Key {
        self.handle.key(self.index)
    }

    /// Whether the call has ended, well or not. Asks nobody.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let two = client.submit(inc, 1);
    /// two.result()?;
    /// assert!(two.is_done());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.handle.shared().with(|book| book.is_resolved(self.handle.seq(), self.index))
    }

    /// The call's state. What the client does not know it asks the scheduler, and waits for the answer.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let two = client.submit(inc, 1);
    /// println!("{:?}", two.status()); // Queued, Processing or Memory
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        match self.handle.shared().with(|book| book.look(self.handle.seq(), self.index)) {
            Known::Value(_) | Known::Stored(_) => Status::Memory,
            Known::Failed(Error::Cancelled { .. }) => Status::Cancelled,
            Known::Failed(_) => Status::Erred,
            Known::Pending => match self.handle.shared().count(vec![self.span()]) {
                Ok(StateCounts { memory: 1.., .. }) => Status::Memory,
                Ok(StateCounts { processing: 1.., .. }) => Status::Processing,
                Ok(StateCounts { queued: 1.., .. }) => Status::Queued,
                Ok(StateCounts { waiting: 1.., .. }) => Status::Waiting,
                Ok(_) | Err(_) => Status::Erred,
            },
        }
    }

    /// Why the call is not running, for people: `no worker has zone=a`. `None` if it is, or has ended. What the client does not know
    /// it asks the scheduler, and waits for the answer. [`Client::why`](crate::Client::why) tells it of many.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        if self.is_done() {
            return None;
        }
        // Without a connection it has failed.
        let waiting = self.handle.shared().explain(vec![self.span()]).unwrap_or_default();
        waiting.into_iter().next().map(|waiting| waiting.why)
    }

    /// Stops the call, if it has not ended: it and its dependents fail with [`Error::Cancelled`]. A task that runs in a sandbox is
    /// stopped; one that runs in this process goes on, but nobody hears of it.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn sleep(ms: u64) { std::thread::sleep(std::time::Duration::from_millis(ms.min(10))) }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// use quicsand::Error;
    ///
    /// let slow = client.submit(sleep, 60_000);
    /// slow.cancel();
    /// assert!(matches!(slow.result(), Err(Error::Cancelled { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) {
        self.handle.cancel(self.span());
    }

    pub(super) fn span(&self) -> Span {
        let key = self.key();
        Span { entry: key.entry, first: key.index, count: 1 }
    }
}

impl<T: DeserializeOwned> Future<T> {
    /// Waits for the result.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// assert_eq!(client.submit(inc, 1).result()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the call, or one that it depends on, failed or was cancelled, when the connection to the fleet is lost, or when the
    /// result is not of type `T`.
    pub fn result(&self) -> Result<T> {
        let key = self.key();
        decode_shared_as(&self.handle.shared().wait(key)?, key)
    }
}

impl<T: DeserializeOwned> std::future::Future for Future<T> {
    type Output = Result<T>;

    /// Dropping the future in the middle loses nothing: it can be awaited again.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key();
        match self.handle.shared().poll(key, context.waker()) {
            Known::Value(bytes) => Poll::Ready(decode_shared_as(&bytes, key)),
            Known::Failed(error) => Poll::Ready(Err(error)),
            Known::Pending | Known::Stored(_) => Poll::Pending,
        }
    }
}

impl<T> Clone for Future<T> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.handle), self.index)
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Future({})", self.key())
    }
}

/// One handle on the results of a [`map`](crate::Client::map), or on consecutive items of one.
///
/// It can be indexed, split and iterated, which makes single [`Future`]s of it, and passed wherever a task asks for a `Vec<T>`.
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn inc(x: i64) -> i64 { x + 1 }
/// # #[task]
/// # fn sum(xs: &[i64]) -> i64 { xs.iter().sum() }
/// # fn main() -> quicsand::Result<()> {
/// # let client = Client::local();
/// let many = client.map(inc, 0..100);
/// let (front, back) = many.split_at(50);
/// let sums = [&front, &back].map(|half| client.submit(sum, half)); // where a task asks for a list
/// assert_eq!(client.gather(sums)?, [1275, 3775]);
/// assert_eq!(many.get(3).unwrap().result()?, 4);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the last handle of unfinished calls cancels them"]
pub struct Futures<T> {
    handle: Arc<Handle>,
    items: Range<u64>,
    value: PhantomData<fn() -> T>,
}

impl<T> Futures<T> {
    pub(super) fn new(handle: Arc<Handle>, items: Range<u64>) -> Self {
        Self { handle, items, value: PhantomData }
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(super) fn items(&self) -> Range<u64> {
        self.items.clone()
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.items.end - self.items.start).unwrap_or(usize::MAX)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The future of item `index`, counted from this handle's first; `None` past the end.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, 0..3);
    /// assert_eq!(many.get(2).unwrap().result()?, 3);
    /// assert!(many.get(3).is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Future<T>> {
        let at = self.items.start.checked_add(index as u64).filter(|at| *at < self.items.end)?;
        Some(Future::new(Arc::clone(&self.handle), at))
    }

    /// The items of `range`, counted from this handle's first; cut off at the end.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, 0..10);
    /// assert_eq!(client.gather(many.slice(2..4))?, [3, 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn slice(&self, range: Range<usize>) -> Self {
        let at = |index: usize| self.items.start.saturating_add(index as u64).min(self.items.end);
        Self::new(Arc::clone(&self.handle), at(range.start)..at(range.end).max(at(range.start)))
    }

    /// The items before `middle`, and those from there on.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let (front, back) = client.map(inc, 0..3).split_at(1);
    /// assert_eq!(client.gather((front, back))?, (vec![1], vec![2, 3]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn split_at(&self, middle: usize) -> (Self, Self) {
        (self.slice(0..middle), self.slice(middle..self.len()))
    }

    /// Runs of `size` items, the last one possibly shorter. A `size` of 0 counts as 1.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # #[task]
    /// # fn sum(xs: &[i64]) -> i64 { xs.iter().sum() }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, 0..5);
    /// let sums: Vec<_> = many.chunks(2).map(|run| client.submit(sum, &run)).collect();
    /// assert_eq!(client.gather(sums)?, [3, 7, 5]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = Self> + use<'_, T> {
        let size = size.max(1);
        (0..self.len().div_ceil(size)).map(move |i| self.slice(i * size..(i + 1) * size))
    }

    /// A future an item.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, 0..3);
    /// let twice = client.map(inc, many.iter());
    /// assert_eq!(client.gather(twice)?, [2, 3, 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Future<T>> + use<'_, T> {
        (0..self.len()).map(|i| Future::new(Arc::clone(&self.handle), self.items.start + i as u64))
    }

    /// Stops all items that have not ended; see [`Future::cancel`].
    pub fn cancel(&self) {
        self.handle.cancel(self.span());
    }

    pub(super) fn span(&self) -> Span {
        self.handle.shared().with(|book| book.span(self.handle.seq(), self.items()))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }
}

impl<T> Clone for Futures<T> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.handle), self.items())
    }
}

impl<T> fmt::Debug for Futures<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Futures({}, {} items)", self.handle.key(self.items.start), self.len())
    }
}

impl<T> IntoIterator for Futures<T> {
    type Item = Future<T>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { futures: self }
    }
}

impl<T> IntoIterator for &Futures<T> {
    type Item = Future<T>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { futures: self.clone() }
    }
}

/// Makes single futures of many.
#[derive(Debug)]
pub struct IntoIter<T> {
    futures: Futures<T>,
}

impl<T> Iterator for IntoIter<T> {
    type Item = Future<T>;

    fn next(&mut self) -> Option<Future<T>> {
        let first = self.futures.get(0)?;
        self.futures.items.start += 1;
        Some(first)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.futures.len(), Some(self.futures.len()))
    }
}

impl<T> ExactSizeIterator for IntoIter<T> {}

pub(super) fn decode_as<T: DeserializeOwned>(bytes: &[u8], key: Key) -> Result<T> {
    decode_value(bytes).map_err(|error| not_decoded::<T>(key, &error))
}

/// As [`decode_as`], of a value that travelled alone if it is large: the result may keep the bytes.
pub(super) fn decode_shared_as<T: DeserializeOwned>(bytes: &Bytes, key: Key) -> Result<T> {
    decode_shared(bytes).map_err(|error| not_decoded::<T>(key, &error))
}

fn not_decoded<T>(key: Key, error: &postcard::Error) -> Error {
    Error::Decode { key, expected: std::any::type_name::<T>(), reason: error.to_string() }
}
