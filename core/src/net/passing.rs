//! Values that are handed on while they come in, and who waits for one that comes in. Owns: what is in between, and that it stays little.
//! Must not know: where from, where to.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{
    mpsc::{self, UnboundedReceiver, UnboundedSender},
    watch,
};

use crate::ids::{Hash, Key};

/// Bytes that may wait to be handed on. Whoever is further behind would hold up the value itself, or take up memory that nobody counts.
const LAG_BYTES: usize = 32 << 20;

/// A way for pieces of a value to be handed on: in at one end, out at the other.
pub(crate) fn passage() -> (Entrance, Exit) {
    let (send, pieces) = mpsc::unbounded_channel();
    let lag = Arc::<AtomicUsize>::default();
    (Entrance { send, lag: Arc::clone(&lag) }, Exit { pieces, lag })
}

/// Where pieces go in.
#[derive(Debug)]
pub(crate) struct Entrance {
    send: UnboundedSender<Vec<Bytes>>,
    lag: Arc<AtomicUsize>,
}

/// Where they come out, in order.
#[derive(Debug)]
pub(crate) struct Exit {
    pieces: UnboundedReceiver<Vec<Bytes>>,
    lag: Arc<AtomicUsize>,
}

impl Entrance {
    /// Hands pieces on; false if nobody takes them any more, or too slowly, and the entrance is to be closed.
    pub(crate) fn pass(&self, pieces: &[Bytes]) -> bool {
        let len = len_of(pieces);
        let lag = self.lag.fetch_add(len, Ordering::Relaxed);
        lag.saturating_add(len) <= LAG_BYTES && self.send.send(pieces.to_vec()).is_ok()
    }
}

impl Exit {
    /// The next pieces; `None` once the entrance is closed.
    pub(crate) async fn next(&mut self) -> Option<Vec<Bytes>> {
        let pieces = self.pieces.recv().await?;
        self.lag.fetch_sub(len_of(&pieces), Ordering::Relaxed);
        Some(pieces)
    }
}

fn len_of(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

/// Values that are coming in.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<HashMap<(Key, Hash), watch::Receiver<()>>>);

/// A value is coming in until this is dropped.
#[derive(Debug)]
pub(crate) struct Arrival {
    arrivals: Arc<Arrivals>,
    key: Key,
    hash: Hash,
    _end: watch::Sender<()>,
}

impl Arrivals {
    /// Notes that a value is coming in; `None` if it is so already.
    pub(crate) fn begin(self: &Arc<Self>, key: Key, hash: Hash) -> Option<Arrival> {
        let mut coming = self.0.lock();
        if coming.contains_key(&(key, hash)) {
            return None;
        }
        let (end, ended) = watch::channel(());
        coming.insert((key, hash), ended);
        Some(Arrival { arrivals: Arc::clone(self), key, hash, _end: end })
    }

    /// Waits until a value has come in, or will not; false if it is not coming at all.
    pub(crate) async fn wait(&self, key: Key, hash: Hash) -> bool {
        let Some(mut ended) = self.0.lock().get(&(key, hash)).cloned() else { return false };
        while ended.changed().await.is_ok() {}
        true
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.arrivals.0.lock().remove(&(self.key, self.hash));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::ids::{ClientId, EntryId};

    const KEY: Key = Key { entry: EntryId { client: ClientId(1), seq: 2 }, index: 3 };
    const HASH: Hash = Hash([4; 32]);

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn pieces_come_out_in_order() {
        let (entrance, mut exit) = passage();
        let pieces = [Bytes::from_static(b"a"), Bytes::from_static(b"bc")];
        assert!(entrance.pass(&pieces) && entrance.pass(&pieces[1..]));
        drop(entrance);
        run(async {
            assert_eq!(exit.next().await.as_deref(), Some(&pieces[..]));
            assert_eq!(exit.next().await.as_deref(), Some(&pieces[1..]));
            assert_eq!(exit.next().await, None);
        });
    }

    #[test]
    fn whoever_is_too_slow_or_gone_gets_no_more() {
        let (entrance, mut exit) = passage();
        let half = [Bytes::from(vec![7; LAG_BYTES / 2])];
        assert!(entrance.pass(&half) && entrance.pass(&half));
        run(exit.next()).expect("the first half");
        assert!(entrance.pass(&half));
        assert!(!entrance.pass(&half));
        let (entrance, exit) = passage();
        drop(exit);
        assert!(!entrance.pass(&half));
    }

    #[test]
    fn what_comes_in_is_waited_for() {
        run(async {
            let arrivals = Arc::<Arrivals>::default();
            assert!(!arrivals.wait(KEY, HASH).await);
            let arrival = arrivals.begin(KEY, HASH).expect("the first");
            assert!(arrivals.begin(KEY, HASH).is_none());
            assert!(!arrivals.wait(KEY, Hash([5; 32])).await);
            let mut waiting = pin!(arrivals.wait(KEY, HASH));
            let early = tokio::select! {
                biased;
                _ = &mut waiting => true,
                () = std::future::ready(()) => false,
            };
            assert!(!early);
            drop(arrival);
            assert!(waiting.await);
            assert!(arrivals.begin(KEY, HASH).is_some());
        });
    }
}
