//! A map over any number of items in constant memory.

use std::{collections::VecDeque, fmt, marker::PhantomData};

use serde::de::DeserializeOwned;

use super::{IntoArgs, call::MapSender, future::decode_as};
use crate::{
    Task,
    codec::Run,
    error::{Error, Result},
    wire::RUN_ITEMS,
};

/// Runs of items that are under way at a time; a run has at most [`RUN_ITEMS`] items and about
/// [`RUN_BYTES`](crate::wire::RUN_BYTES) bytes of arguments.
const WINDOW_RUNS: usize = 32;
/// The first run's items; each further one has twice as many, so that the first results come soon.
const FIRST_RUN: usize = 64;
/// Consumed items are released in runs of so many.
const RELEASE_ITEMS: u64 = 16 << 10;
/// Or as soon as their results have so many bytes.
const RELEASE_BYTES: usize = 8 << 20;
/// No more items are drawn, beyond one, while values of so many bytes are under way that were scattered for large arguments.
const WINDOW_BYTES: u64 = 256 << 20;

/// The results of [`Client::batched_map`](crate::Client::batched_map), in order. Dropping it in the middle cancels the rest.
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn inc(x: i64) -> i64 { x + 1 }
/// # fn main() -> quicsand::Result<()> {
/// # let client = Client::local();
/// let firsts: Vec<i64> = client.batched_map(inc, 0..).take(3).collect::<Result<_, _>>()?; // the rest is cancelled
/// assert_eq!(firsts, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
#[must_use = "a batched map draws from its arguments only as its results are consumed"]
pub struct BatchedMap<T, I> {
    /// What is still to be sent; `None` when the iterator ended.
    source: Option<I>,
    sender: Result<MapSender, Option<Error>>,
    /// The ends of the runs that are under way.
    sent: VecDeque<u64>,
    next_run: usize,
    block: Block,
    consumed: u64,
    released: u64,
    /// Bytes of the results that are consumed and not released.
    held: usize,
    task: PhantomData<fn() -> T>,
}

/// The block of results that is being decoded.
#[derive(Default)]
struct Block {
    run: Run,
    item: u32,
    offset: usize,
}

impl<T, I> BatchedMap<T, I> {
    pub(super) fn new(sender: Result<MapSender>, source: I) -> Self {
        Self {
            source: Some(source),
            sender: sender.map_err(Some),
            sent: VecDeque::new(),
            next_run: FIRST_RUN,
            block: Block::default(),
            consumed: 0,
            released: 0,
            held: 0,
            task: PhantomData,
        }
    }
}

impl<T, I> Iterator for BatchedMap<T, I>
where
    T: Task,
    I: Iterator,
    I::Item: IntoArgs<T::Args>,
{
    type Item = Result<T::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        let sender = match &mut self.sender {
            Ok(sender) => sender,
            // Said once, and then the end.
            Err(error) => return error.take().map(Err),
        };
        if let Some((result, len)) = self.block.next(sender, self.consumed) {
            self.consumed += 1;
            self.held += len;
            return Some(result);
        }
        while self.sent.front().is_some_and(|&end| end <= self.consumed) {
            self.sent.pop_front();
        }
        let is_much = self.held >= RELEASE_BYTES || sender.kept_bytes >= WINDOW_BYTES / 2;
        if self.consumed - self.released >= RELEASE_ITEMS || (is_much && self.consumed > self.released) {
            sender.release(self.released..self.consumed);
            (self.released, self.held) = (self.consumed, 0);
        }
        let mut drawn = false;
        loop {
            let has_block = self.block.load(sender, self.consumed);
            // With results at hand one run keeps the workers busy; without, as many as the window has room for.
            let has_room = self.sent.len() < WINDOW_RUNS && (sender.kept_bytes < WINDOW_BYTES || self.sent.is_empty());
            if has_room
                && !(has_block && drawn)
                && let Some(source) = &mut self.source
            {
                if !draw(sender, source, self.next_run) {
                    self.source = None;
                }
                if self.sent.back().copied().unwrap_or(self.consumed) < sender.count {
                    self.sent.push_back(sender.count);
                }
                self.next_run = (self.next_run * 2).min(RUN_ITEMS);
                drawn = true;
                continue;
            }
            if has_block {
                break;
            }
            if self.consumed == sender.count {
                return None;
            }
            let (result, len) = single(sender, self.consumed);
            self.consumed += 1;
            self.held += len;
            return Some(result);
        }
        let (result, len) = self.block.next(sender, self.consumed)?;
        self.consumed += 1;
        self.held += len;
        Some(result)
    }
}

/// Sends the next `count` items, or fewer large ones. Closes the map when the iterator ends, and gives false then.
fn draw<A>(sender: &mut MapSender, source: &mut impl Iterator<Item: IntoArgs<A>>, count: usize) -> bool {
    for _ in 0..count {
        let Some(item) = source.next() else {
            sender.close();
            return false;
        };
        sender.push(item);
        if sender.kept_bytes >= WINDOW_BYTES {
            break;
        }
    }
    sender.flush();
    true
}

/// Waits for an item, and gives its length too; its block, if it is in one, may be loaded after that.
fn single<T: DeserializeOwned>(sender: &MapSender, index: u64) -> (Result<T>, usize) {
    let key = sender.handle.key(index);
    match sender.handle.shared().wait(key) {
        Ok(bytes) => (decode_as(&bytes, key), bytes.len()),
        Err(error) => (Err(error), 0),
    }
}

impl Block {
    fn load(&mut self, sender: &MapSender, index: u64) -> bool {
        if self.item == self.run.count()
            && let Some(run) = sender.handle.shared().with(|book| book.block_at(sender.handle.seq(), index))
        {
            *self = Self { run, item: 0, offset: 0 };
        }
        self.item < self.run.count()
    }

    fn next<T: DeserializeOwned>(&mut self, sender: &MapSender, index: u64) -> Option<(Result<T>, usize)> {
        let len = self.run.len_at(self.item)?;
        let bytes = self.run.bytes().get(self.offset..self.offset + len)?;
        self.item += 1;
        self.offset += len;
        Some((crate::codec::decode_value(bytes).or_else(|_| decode_as(bytes, sender.handle.key(index))), len))
    }
}

impl<T, I> fmt::Debug for BatchedMap<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchedMap").field("consumed", &self.consumed).finish_non_exhaustive()
    }
}
