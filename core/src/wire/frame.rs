//! Frames: many messages in one length-prefixed piece of the control stream.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Longest frame in bytes. A longer announced length ends the connection before anything is allocated for it.
pub const MAX_FRAME: usize = 64 << 20;
/// Frames are closed once they have this many bytes, so that a peer can start on them.
const FULL_FRAME: usize = 256 << 10;

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error("a frame of {len} bytes is longer than the {MAX_FRAME} allowed")]
    TooLong {
        /// Announced or reached length.
        len: usize,
    },
    /// Not a sequence of messages.
    #[error("a frame of {len} bytes does not read as messages: {reason}")]
    Malformed {
        /// Its length.
        len: usize,
        /// What the decoder said.
        reason: String,
    },
}

/// Collects messages into frames, ready to be written as they are.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    open: Option<usize>,
    messages: u64,
}

impl Frames {
    /// Appends a message to the open frame.
    ///
    /// # Errors
    /// When the message alone is too long for a frame, or has no encoding; nothing is appended then.
    pub fn push<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        let before = self.bytes.len();
        let header = *self.open.get_or_insert_with(|| {
            self.bytes.extend_from_slice(&[0; 4]);
            before
        });
        let start = self.bytes.len();
        if let Err(error) = crate::codec::encode_into(message, &mut self.bytes) {
            let reason = error.to_string();
            self.undo(before, header);
            return Err(FrameError::Malformed { len: 0, reason });
        }
        let len = self.bytes.len() - start;
        if len > MAX_FRAME - FULL_FRAME {
            self.undo(before, header);
            return Err(FrameError::TooLong { len });
        }
        if self.bytes.len() - header > FULL_FRAME {
            self.close();
        }
        self.messages += 1;
        Ok(())
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Number of bytes to write.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the finished frames out, into the emptied `buffer`; gives the number of messages in them.
    pub fn take_into(&mut self, buffer: &mut Vec<u8>) -> u64 {
        self.close();
        buffer.clear();
        std::mem::swap(buffer, &mut self.bytes);
        std::mem::take(&mut self.messages)
    }

    fn close(&mut self) {
        if let Some(header) = self.open.take() {
            let len = (self.bytes.len() - header - 4) as u32;
            self.bytes[header..header + 4].copy_from_slice(&len.to_le_bytes());
        }
    }

    fn undo(&mut self, before: usize, header: usize) {
        self.bytes.truncate(before);
        if header == before {
            self.open = None;
        }
    }
}

/// Reads all messages of a frame (without its length prefix) into `messages`.
///
/// # Errors
/// When the bytes are no sequence of `T`s; the messages before the fault are in `messages` then.
pub fn decode_all<T: DeserializeOwned>(frame: &[u8], messages: &mut Vec<T>) -> Result<(), FrameError> {
    let mut rest = frame;
    let before = messages.len();
    while !rest.is_empty() {
        // A message of one byte takes a hundred times as much here. Honest frames are closed long before they have so many.
        if messages.len() - before > FULL_FRAME {
            return Err(FrameError::Malformed { len: frame.len(), reason: "too many messages".to_owned() });
        }
        let (message, tail) = postcard::take_from_bytes(rest)
            .map_err(|error| FrameError::Malformed { len: frame.len(), reason: error.to_string() })?;
        messages.push(message);
        rest = tail;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_order() {
        let mut frames = Frames::default();
        for i in 0..100_000_u64 {
            frames.push(&i).expect("fits");
        }
        let mut bytes = Vec::new();
        frames.take_into(&mut bytes);
        assert!(frames.is_empty());
        let mut rest = &bytes[..];
        let mut messages: Vec<u64> = Vec::new();
        while let Some((header, tail)) = rest.split_at_checked(4) {
            let len = u32::from_le_bytes(header.try_into().expect("four")) as usize;
            decode_all(&tail[..len], &mut messages).expect("well-formed");
            rest = &tail[len..];
        }
        assert!(messages.into_iter().eq(0..100_000));
    }

    #[test]
    fn what_is_too_long_leaves_no_trace() {
        let mut frames = Frames::default();
        assert!(matches!(frames.push(&vec![0_u8; MAX_FRAME]), Err(FrameError::TooLong { .. })));
        assert!(frames.is_empty());
        frames.push(&1_u8).expect("fits");
        assert!(frames.push(&vec![0_u8; MAX_FRAME]).is_err());
        let mut bytes = Vec::new();
        frames.take_into(&mut bytes);
        assert_eq!(bytes, [1, 0, 0, 0, 1]);
    }

    #[test]
    fn malformed_frames_are_refused() {
        assert!(decode_all::<u8>(&vec![0; 1 << 20], &mut Vec::new()).is_err(), "a flood of messages");
        assert!(decode_all::<u64>(&[0xff], &mut Vec::new()).is_err());
        assert!(decode_all::<String>(&[0xff, 0xff, 0xff, 0xff, 0x0f], &mut Vec::new()).is_err());
    }
}
