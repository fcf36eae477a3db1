//! Results in the order in which they come.

use std::collections::VecDeque;

use serde::de::DeserializeOwned;

use super::Future;
use crate::error::Result;

/// Gives `(position, result)` of each future once it has ended; from [`Client::as_completed`](crate::Client::as_completed).
#[derive(Debug)]
pub struct AsCompleted<T> {
    pending: Vec<(usize, Future<T>)>,
    ready: VecDeque<(usize, Future<T>)>,
}

impl<T> AsCompleted<T> {
    pub(super) fn new(futures: impl IntoIterator<Item = Future<T>>) -> Self {
        Self { pending: futures.into_iter().enumerate().collect(), ready: VecDeque::new() }
    }

    /// Moves what has ended over to `ready`, in order of position.
    fn sweep(&mut self) {
        self.ready.extend(self.pending.extract_if(.., |(_, future)| future.is_done()));
    }
}

impl<T: DeserializeOwned> Iterator for AsCompleted<T> {
    type Item = (usize, Result<T>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            self.sweep();
        }
        while self.ready.is_empty() {
            let (_, any) = self.pending.first()?;
            let shared = std::sync::Arc::clone(any.handle().shared());
            let pending = &self.pending;
            // A connection that is over resolves everything; the sweep finds it so.
            let _ = shared.wait_until(None, |book| {
                pending.iter().any(|(_, future)| book.is_resolved(future.handle().seq(), future.index())).then_some(())
            });
            let before = self.ready.len();
            self.sweep();
            if self.ready.len() == before {
                self.ready.extend(self.pending.drain(..));
            }
        }
        self.ready.pop_front().map(|(position, future)| (position, future.result()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.pending.len() + self.ready.len();
        (left, Some(left))
    }
}
