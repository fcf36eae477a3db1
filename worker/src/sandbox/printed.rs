//! What tasks printed lately, line by line, of all items that ran here. Owns: a bounded buffer of lines, and putting lines together from
//! what guests write in pieces. Must not know: who reads it.

use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use quicsand::{
    ids::Key,
    wire::{LINE_BYTES, LOG_BYTES, LogLine, LogQuery, LogStream},
};

/// What a line costs besides its text.
const LINE_COST: usize = size_of::<LogLine>();

/// The last lines that tasks printed, as many as fit.
#[derive(Debug)]
pub struct Printed {
    cap: usize,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<LogLine>,
    bytes: usize,
    last: u64,
}

impl Printed {
    /// A buffer for so many bytes, of which lines' texts and what is kept besides are counted; with 0, nothing is kept.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { cap, lines: Mutex::default() }
    }

    /// The last of the lines that are asked for, in order.
    #[must_use]
    pub fn lines(&self, query: &LogQuery) -> Vec<LogLine> {
        let lines = self.lines.lock();
        let mut bytes = 0;
        let fits = |line: &&LogLine| {
            bytes += line.text.len();
            bytes <= LOG_BYTES
        };
        let wanted = lines.kept.iter().rev().take_while(|line| line.number > query.after).filter(|line| query.wants(line));
        let mut found: Vec<_> = wanted.take(query.limit as usize).take_while(fits).cloned().collect();
        found.reverse();
        found
    }

    fn add(&self, key: Key, stream: LogStream, text: &[u8]) {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let text = String::from_utf8_lossy(text).into_owned();
        let mut lines = self.lines.lock();
        let lines = &mut *lines;
        lines.last += 1;
        lines.bytes += LINE_COST + text.len();
        let at_ms = u64::try_from(at_ms).unwrap_or(u64::MAX);
        lines.kept.push_back(LogLine { number: lines.last, at_ms, key, stream, text });
        while lines.bytes > self.cap
            && let Some(oldest) = lines.kept.pop_front()
        {
            lines.bytes -= LINE_COST + oldest.text.len();
        }
    }
}

/// Puts one guest's lines together: what it writes to a stream up to a line's end, or to the end of an item.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// The batch's first item; `None` before there is one.
    first: Option<Key>,
    item: u32,
    parts: [Vec<u8>; 2],
}

impl Assembler {
    /// A batch begins with that item.
    pub(crate) fn begin(&mut self, first: Key) {
        self.first = Some(first);
    }

    /// The batch's item wrote this.
    pub(crate) fn write(&mut self, to: &Printed, item: u32, stream: LogStream, text: &[u8]) {
        if item != self.item {
            self.end(to);
            self.item = item;
        }
        let Some(key) = self.key() else { return };
        let part = &mut self.parts[stream as usize];
        for piece in text.split_inclusive(|&byte| byte == b'\n') {
            let (piece, is_whole) = match piece.strip_suffix(b"\n") {
                Some(piece) => (piece, true),
                None => (piece, false),
            };
            let mut rest = piece;
            while part.len() + rest.len() > LINE_BYTES {
                let (now, later) = rest.split_at(LINE_BYTES - part.len());
                part.extend_from_slice(now);
                to.add(key, stream, part);
                part.clear();
                rest = later;
            }
            part.extend_from_slice(rest);
            if is_whole {
                to.add(key, stream, part);
                part.clear();
            }
        }
    }

    /// The item that wrote last has ended: what it began is a line, too.
    pub(crate) fn end(&mut self, to: &Printed) {
        let key = self.key();
        for (part, stream) in self.parts.iter_mut().zip([LogStream::Out, LogStream::Err]) {
            if let (false, Some(key)) = (part.is_empty(), key) {
                to.add(key, stream, part);
            }
            part.clear();
        }
    }

    fn key(&self) -> Option<Key> {
        self.first.map(|first| first.entry.key(first.index.saturating_add(u64::from(self.item))))
    }
}

#[cfg(test)]
mod tests {
    use quicsand::{
        codec::Span,
        ids::{ClientId, EntryId},
    };

    use super::*;

    const ENTRY: EntryId = EntryId { client: ClientId(1), seq: 2 };
    const ALL: LogQuery = LogQuery { span: None, after: 0, limit: 100 };

    fn shown(printed: &Printed, query: &LogQuery) -> Vec<(u64, String)> {
        printed.lines(query).into_iter().map(|line| (line.key.index, line.text)).collect()
    }

    #[test]
    fn pieces_become_lines() {
        let printed = Printed::new(1 << 20);
        let mut assembler = Assembler::default();
        assembler.write(&printed, 0, LogStream::Out, b"before there is a batch\n");
        assembler.begin(ENTRY.key(10));
        assembler.write(&printed, 0, LogStream::Err, b"a ");
        assembler.write(&printed, 0, LogStream::Out, b"one\ntwo\n\nrest");
        assembler.write(&printed, 0, LogStream::Err, b"b\n");
        assembler.write(&printed, 1, LogStream::Out, b"\xff!");
        assembler.end(&printed);
        let lines = printed.lines(&ALL);
        let texts: Vec<_> = lines.iter().map(|line| (line.key.index, line.stream, line.text.as_str())).collect();
        let (out, err) = (LogStream::Out, LogStream::Err);
        let expected =
            [(10, out, "one"), (10, out, "two"), (10, out, ""), (10, err, "a b"), (10, out, "rest"), (11, out, "\u{fffd}!")];
        assert_eq!(texts, expected);
        assert!(lines.is_sorted_by(|a, b| a.number < b.number && a.at_ms <= b.at_ms));
    }

    #[test]
    fn long_lines_are_cut_and_old_ones_make_room() {
        let printed = Printed::new(4 * (LINE_BYTES + LINE_COST));
        let mut assembler = Assembler::default();
        assembler.begin(ENTRY.key(0));
        assembler.write(&printed, 0, LogStream::Out, &vec![b'x'; 9 * LINE_BYTES + 1]);
        assembler.end(&printed);
        let lengths: Vec<_> = printed.lines(&ALL).iter().map(|line| line.text.len()).collect();
        assert_eq!(lengths, [LINE_BYTES, LINE_BYTES, LINE_BYTES, 1]);
        let nothing = Printed::new(0);
        assembler.write(&nothing, 0, LogStream::Out, b"x\n");
        assert_eq!(nothing.lines(&ALL), []);
    }

    #[test]
    fn the_last_of_the_wanted_lines_are_given() {
        let printed = Printed::new(1 << 20);
        let mut assembler = Assembler::default();
        assembler.begin(ENTRY.key(0));
        for item in 0..6 {
            assembler.write(&printed, item, LogStream::Out, format!("{item}\n").as_bytes());
        }
        let of = |items: std::ops::Range<u64>| items.map(|item| (item, item.to_string())).collect::<Vec<_>>();
        assert_eq!(shown(&printed, &LogQuery { limit: 2, ..ALL }), of(4..6));
        assert_eq!(shown(&printed, &LogQuery { after: 5, ..ALL }), of(5..6));
        let span = Some(Span { entry: ENTRY, first: 1, count: 2 });
        assert_eq!(shown(&printed, &LogQuery { span, ..ALL }), of(1..3));
        let whole = Some(Span { entry: ENTRY, first: 0, count: u64::MAX });
        assert_eq!(shown(&printed, &LogQuery { span: whole, ..ALL }), of(0..6));
        assert_eq!(shown(&printed, &LogQuery { limit: 0, ..ALL }), []);
    }
}
