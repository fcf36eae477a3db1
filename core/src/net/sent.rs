//! What was sent, kept until the peer says that it was taken in: for the case that the rest must be sent again on another connection.
//! Must not know: connections, or what any message means.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::de::DeserializeOwned;

/// Smaller pieces are gathered up to this size, so that keeping a small one is a copy of its bytes and nothing else.
const GATHER_BYTES: usize = 256 << 10;

/// Frames that were sent. Messages are numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// The number of the last message that was taken in, as far as is known.
    applied: u64,
    /// The number of the last message that was sent.
    last: u64,
    pieces: VecDeque<Piece>,
    /// Small frames after all pieces, up to the last message.
    tail: Vec<u8>,
    /// The number of the last message before them.
    before_tail: u64,
    /// Bytes of all pieces.
    bytes: usize,
}

/// Whole frames.
#[derive(Debug)]
struct Piece {
    /// The numbers of the last message before it and of its own last one.
    before: u64,
    last: u64,
    bytes: Bytes,
}

impl Sent {
    /// Keeps a few small frames of so many messages.
    pub(crate) fn keep_small(&mut self, frames: &[u8], messages: u64) {
        if self.tail.is_empty() {
            self.before_tail = self.last;
        }
        self.tail.extend_from_slice(frames);
        self.last += messages;
        if self.tail.len() > GATHER_BYTES {
            self.gather();
        }
    }

    /// Keeps frames of so many messages, without a copy.
    pub(crate) fn keep_large(&mut self, frames: Bytes, messages: u64) {
        self.gather();
        self.push(frames, self.last, self.last + messages);
        self.last += messages;
    }

    /// Messages up to this number were taken in.
    pub(crate) fn applied(&mut self, messages: u64) {
        self.applied = self.applied.max(messages.min(self.last));
        while let Some(piece) = self.pieces.front().filter(|piece| piece.last <= self.applied) {
            self.bytes -= piece.bytes.len();
            self.pieces.pop_front();
        }
        if self.applied == self.last {
            self.tail.clear();
        }
    }

    /// Bytes that are kept.
    pub(crate) fn len(&self) -> usize {
        self.bytes + self.tail.len()
    }

    /// The frames of all messages after this number; `None` if the number contradicts what was said or sent before.
    pub(crate) fn after<M: DeserializeOwned>(&mut self, applied: u64) -> Option<Vec<Bytes>> {
        if applied < self.applied || applied > self.last {
            return None;
        }
        self.applied(applied);
        self.gather();
        let mut frames = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let skip = applied.saturating_sub(piece.before);
            frames.push(if skip == 0 { piece.bytes.clone() } else { skip_messages::<M>(&piece.bytes, skip)? });
        }
        Some(frames)
    }

    fn gather(&mut self) {
        if !self.tail.is_empty() {
            let frames = Bytes::from(std::mem::take(&mut self.tail));
            self.push(frames, self.before_tail, self.last);
        }
    }

    fn push(&mut self, bytes: Bytes, before: u64, last: u64) {
        self.bytes += bytes.len();
        self.pieces.push_back(Piece { before, last, bytes });
    }
}

/// Whole frames without their first messages.
fn skip_messages<M: DeserializeOwned>(frames: &[u8], mut skip: u64) -> Option<Bytes> {
    let mut rest = frames;
    while let Some((header, body)) = rest.split_first_chunk() {
        let (mut frame, next) = body.split_at_checked(u32::from_le_bytes(*header) as usize)?;
        while skip > 0 && !frame.is_empty() {
            frame = postcard::take_from_bytes::<M>(frame).ok()?.1;
            skip -= 1;
        }
        if !frame.is_empty() {
            let len = u32::try_from(frame.len()).ok()?;
            return Some([&len.to_le_bytes(), frame, next].concat().into());
        }
        rest = next;
    }
    Some(Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Frames, decode_all};

    /// Frames of such messages.
    fn frames(messages: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        let (mut frames, mut bytes) = (Frames::default(), Vec::new());
        messages.for_each(|message| frames.push(&message).expect("short"));
        frames.take_into(&mut bytes);
        bytes
    }

    fn read(frames: &[Bytes]) -> Vec<u64> {
        let (all, mut messages) = (frames.concat(), Vec::new());
        let mut rest = &all[..];
        while let Some((header, body)) = rest.split_first_chunk() {
            let (frame, next) = body.split_at(u32::from_le_bytes(*header) as usize);
            decode_all(frame, &mut messages).expect("whole");
            rest = next;
        }
        messages
    }

    /// Keeps messages of 1 to 400 000 in pieces of many sizes.
    fn kept() -> Sent {
        let (mut sent, mut next) = (Sent::default(), 1);
        for size in (0..).map(|i| [1, 7, 3000, 1, 90_000][i % 5]) {
            let last = (next + size - 1).min(400_000);
            match size > 10_000 {
                true => sent.keep_large(frames(next..=last).into(), last + 1 - next),
                false => sent.keep_small(&frames(next..=last), last + 1 - next),
            }
            next = last + 1;
            if last == 400_000 {
                return sent;
            }
        }
        unreachable!("it ends at 400 000")
    }

    #[test]
    fn what_was_not_taken_in_comes_again() {
        for applied in [0, 1, 5, 8, 9, 3007, 3008, 3010, 93_010, 200_001, 399_999, 400_000] {
            let mut sent = kept();
            let again = sent.after::<u64>(applied).expect("possible");
            assert!(read(&again).into_iter().eq(applied + 1..=400_000), "after {applied}");
            // And again, when that connection breaks too.
            assert!(
                read(&sent.after::<u64>(applied).expect("possible")).into_iter().eq(applied + 1..=400_000),
                "after {applied}"
            );
        }
    }

    #[test]
    fn what_was_taken_in_goes() {
        let mut sent = kept();
        let all = sent.len();
        sent.applied(200_000);
        assert!(sent.len() < all * 2 / 3);
        assert!(sent.after::<u64>(199_999).is_none(), "it was taken in");
        assert!(sent.after::<u64>(400_001).is_none(), "it was never sent");
        sent.applied(u64::MAX);
        assert_eq!(sent.len(), 0);
        assert_eq!(sent.after::<u64>(400_000).expect("nothing").len(), 0);
        sent.keep_small(&frames(400_001..=400_002), 2);
        assert_eq!(read(&sent.after::<u64>(400_001).expect("possible")), [400_002]);
    }
}
