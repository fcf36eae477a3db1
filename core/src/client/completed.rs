//! Results in the order in which they come.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Wake, Waker},
};

use serde::de::DeserializeOwned;

use super::Future;
use crate::error::Result;

/// Gives `(position, result)` of each future once it has ended; from [`Client::as_completed`](crate::Client::as_completed).
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn inc(x: i64) -> i64 { x + 1 }
/// # fn main() -> quicsand::Result<()> {
/// # let client = Client::local();
/// let many = client.map(inc, 0..3);
/// let mut completed = client.as_completed(&many);
/// let (position, result) = completed.next().expect("three of them");
/// assert_eq!(result?, position as i64 + 1);
/// # Ok(())
/// # }
/// ```
pub struct AsCompleted<T> {
    /// By position; `None` once given.
    futures: Vec<Option<Future<T>>>,
    left: usize,
    ended: Arc<Ended>,
}

/// Positions of futures that have ended, in that order.
#[derive(Debug, Default)]
struct Ended {
    positions: Mutex<VecDeque<usize>>,
    more: Condvar,
}

/// Notes that the future at a position has ended.
struct Note {
    position: usize,
    ended: Arc<Ended>,
}

impl<T> AsCompleted<T> {
    pub(super) fn new(futures: impl IntoIterator<Item = Future<T>>) -> Self {
        let futures: Vec<_> = futures.into_iter().map(Some).collect();
        let this = Self { left: futures.len(), futures, ended: Arc::default() };
        this.futures.iter().enumerate().for_each(|(position, future)| {
            if future.as_ref().is_some_and(|future| this.watch(position, future)) {
                this.ended.note(position);
            }
        });
        this
    }

    /// Whether a future has ended. If not, its position is noted when it has.
    fn watch(&self, position: usize, future: &Future<T>) -> bool {
        let note = Note { position, ended: Arc::clone(&self.ended) };
        future.handle().shared().watch(future.handle().seq(), future.index(), &Waker::from(Arc::new(note)))
    }
}

impl<T: DeserializeOwned> Iterator for AsCompleted<T> {
    type Item = (usize, Result<T>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        loop {
            let position = self.ended.wait();
            // It may have been lost again, with the worker that had it.
            if self.futures.get(position)?.as_ref().is_some_and(|future| !self.watch(position, future)) {
                continue;
            }
            if let Some(future) = self.futures.get_mut(position)?.take() {
                self.left -= 1;
                return Some((position, future.result()));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl Ended {
    fn note(&self, position: usize) {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).push_back(position);
        self.more.notify_one();
    }

    fn wait(&self) -> usize {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match positions.pop_front() {
                Some(position) => return position,
                None => positions = self.more.wait(positions).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.ended.note(self.position);
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left).finish_non_exhaustive()
    }
}
