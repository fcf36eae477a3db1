//! What items print. Owns: the last bytes of each item of a call, bounded. Must not know: who prints, or who reads.

use std::collections::VecDeque;

/// Bytes kept of all items of a call together; the oldest items' go first.
const TOTAL_BYTES: usize = 1 << 20;

/// The last bytes that each item printed.
#[derive(Debug)]
pub(crate) struct Log {
    /// Bytes kept of one item.
    cap: usize,
    total: usize,
    /// Ascending by item; only items that printed are here.
    items: VecDeque<(u32, VecDeque<u8>)>,
}

impl Log {
    /// An empty log that keeps `cap` bytes of one item.
    pub(crate) fn new(cap: usize) -> Self {
        Self { cap, total: 0, items: VecDeque::new() }
    }

    /// Appends to what `item` printed.
    pub(crate) fn write(&mut self, item: u32, bytes: &[u8]) {
        if self.items.back().is_none_or(|(last, _)| *last != item) {
            self.items.push_back((item, VecDeque::new()));
        }
        let Some((_, text)) = self.items.back_mut() else { return };
        self.total -= text.len();
        text.extend(&bytes[bytes.len().saturating_sub(self.cap)..]);
        text.drain(..text.len().saturating_sub(self.cap));
        self.total += text.len();
        while self.total > TOTAL_BYTES && self.items.len() > 1 {
            if let Some((_, text)) = self.items.pop_front() {
                self.total -= text.len();
            }
        }
    }

    /// What `item` printed; bytes that are no UTF-8 are replaced. Items are to be asked in ascending order: earlier ones are let go.
    pub(crate) fn take(&mut self, item: u32) -> String {
        while let Some((at, _)) = self.items.front() {
            if *at > item {
                break;
            }
            let Some((at, mut text)) = self.items.pop_front() else { break };
            self.total -= text.len();
            if at == item {
                return String::from_utf8_lossy(text.make_contiguous()).into_owned();
            }
        }
        String::new()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        if !self.items.is_empty() {
            self.items.clear();
            self.total = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_of_each_item_are_kept() {
        let mut log = Log::new(5);
        log.write(1, b"first");
        log.write(3, b"abc");
        log.write(3, b"defg");
        log.write(4, b"a long line");
        assert_eq!(log.take(0), "");
        assert_eq!(log.take(1), "first");
        assert_eq!(log.take(3), "cdefg");
        assert_eq!(log.take(4), " line");
        assert_eq!((log.take(4), log.total), (String::new(), 0));
    }

    #[test]
    fn the_oldest_items_make_room() {
        let mut log = Log::new(TOTAL_BYTES / 2);
        for item in 0..4 {
            log.write(item, &vec![b'x'; TOTAL_BYTES / 2]);
        }
        assert_eq!(log.take(1), "");
        assert_eq!(log.take(2).len(), TOTAL_BYTES / 2);
    }
}
