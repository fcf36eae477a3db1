//! What items print. Owns: the last bytes of each item of a call, bounded. Must not know: who prints, or who reads.

use std::collections::VecDeque;

use quicsand::Size;

/// Bytes kept of all items of a call together; the oldest items' go first.
const TOTAL_BYTES: usize = 1 << 20;

/// The last bytes that each item printed.
#[derive(Debug)]
pub(crate) struct Log {
    /// Bytes kept of one item.
    cap: usize,
    total: usize,
    /// Ascending by item; only items that printed are here.
    items: VecDeque<Printed>,
}

/// What one item printed.
#[derive(Debug)]
struct Printed {
    item: u32,
    /// The last of it.
    text: VecDeque<u8>,
    /// Bytes that were before.
    lost: u64,
}

impl Log {
    /// An empty log that keeps `cap` bytes of one item.
    pub(crate) fn new(cap: usize) -> Self {
        Self { cap, total: 0, items: VecDeque::new() }
    }

    /// Appends to what `item` printed.
    pub(crate) fn write(&mut self, item: u32, bytes: &[u8]) {
        if self.items.back().is_none_or(|last| last.item != item) {
            self.items.push_back(Printed { item, text: VecDeque::new(), lost: 0 });
        }
        let Some(Printed { text, lost, .. }) = self.items.back_mut() else { return };
        self.total -= text.len();
        let before = text.len() + bytes.len();
        text.extend(&bytes[bytes.len().saturating_sub(self.cap)..]);
        text.drain(..text.len().saturating_sub(self.cap));
        *lost += (before - text.len()) as u64;
        self.total += text.len();
        while self.total > TOTAL_BYTES && self.items.len() > 1 {
            if let Some(printed) = self.items.pop_front() {
                self.total -= printed.text.len();
            }
        }
    }

    /// What `item` printed, with a line about what was not kept; bytes that are no UTF-8 are replaced. Items are to be asked in ascending
    /// order: earlier ones are let go.
    pub(crate) fn take(&mut self, item: u32) -> String {
        while self.items.front().is_some_and(|first| first.item <= item) {
            let Some(Printed { item: at, mut text, lost }) = self.items.pop_front() else { break };
            self.total -= text.len();
            if at == item {
                let kept = String::from_utf8_lossy(text.make_contiguous());
                return match lost {
                    0 => kept.into_owned(),
                    _ => format!(
                        "({} before this were not kept: the worker's owner allows {} (--log-limit))\n{kept}",
                        Size(lost),
                        Size(self.cap as u64)
                    ),
                };
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
        let rest = |lost, text| format!("({lost} before this were not kept: the worker's owner allows 5B (--log-limit))\n{text}");
        assert_eq!(log.take(3), rest("2B", "cdefg"));
        assert_eq!(log.take(4), rest("6B", " line"));
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
