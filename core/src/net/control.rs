//! Control streams: batches of messages in, frames out. Must not know what any message means.
//!
//! Sending puts messages into a buffer and wakes the stream's writer, which takes all that has gathered: no task and no channel a
//! message. Reading gives all the messages of whole frames that have arrived.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, ReadExactError, RecvStream, SendStream};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{sync::Notify, time::timeout};

use super::sent::Sent;
use crate::wire::{FrameError, Frames, MAX_FRAME, Validate, decode_all};

/// Control goes before blobs.
const PRIORITY: i32 = 10;
/// A peer that takes nothing for so long, though it is connected, is not worth its memory.
const STALL: Duration = Duration::from_secs(30);
/// Nor is one that this many bytes wait for.
const QUEUE_BYTES: usize = 1 << 30;
/// Written in pieces of this size, each of which must get on in [`STALL`].
const PIECE_BYTES: usize = 256 << 10;
/// Larger buffers are given back between frames: most peers are silent most of the time.
const IDLE_BYTES: usize = 1 << 20;
/// Below this, a buffer is copied and kept rather than given away.
const COPY_BYTES: usize = 32 << 10;

/// Why nothing more comes from a control stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ControlError {
    /// Not frames, or not the role's messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message that contradicts itself.
    #[error("a message contradicts itself: {0}")]
    Invalid(&'static str),
    /// It ended inside a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The connection is gone.
    #[error("{0}")]
    Lost(String),
    /// The peer does not read.
    #[error("the peer does not read what it is sent")]
    Stalled,
}

impl ControlError {
    /// Whether it is the peer's fault rather than the network's.
    pub(crate) fn is_violation(&self) -> bool {
        !matches!(self, Self::Lost(_) | Self::Stalled)
    }
}

/// Puts messages on a control stream. Clones share it.
#[derive(Clone)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    room: Notify,
}

#[derive(Default)]
struct Queue {
    frames: Frames,
    /// What is kept for another stream; `None` if there will be none.
    sent: Option<Sent>,
    finishing: bool,
    ended: bool,
    overfull: bool,
    /// Somebody waits for [`Outbox::room`].
    wants_room: bool,
}

impl Outbox {
    /// An outbox whose [`Outbox::write_to`] is still to be run.
    pub(crate) fn new() -> Self {
        Self { shared: Arc::default() }
    }

    /// An outbox that outlives its stream: what was written is kept for [`Outbox::resume`] until [`Outbox::applied`] says that it was taken
    /// in.
    pub(crate) fn lasting() -> Self {
        let outbox = Self::new();
        outbox.shared.queue.lock().sent = Some(Sent::default());
        outbox
    }

    /// The peer has taken in so many messages, of all that were sent.
    pub(crate) fn applied(&self, messages: u64) {
        if let Some(sent) = &mut self.shared.queue.lock().sent {
            sent.applied(messages);
        }
    }

    /// After the loss of a stream: what is to be written to another one first, if the peer has taken in so many messages. `None` if that
    /// cannot be, or if too much has gathered.
    pub(crate) fn resume<M: DeserializeOwned>(&self, applied: u64) -> Option<Vec<Bytes>> {
        let mut queue = self.shared.queue.lock();
        if queue.overfull { None } else { queue.sent.as_mut()?.after::<M>(applied) }
    }

    /// Whether more has gathered than is kept for a peer.
    pub(crate) fn is_overfull(&self) -> bool {
        self.shared.queue.lock().overfull
    }

    /// Drops everything, now and later: there will be no other stream.
    pub(crate) fn end(&self) {
        let mut queue = self.shared.queue.lock();
        queue.ended = true;
        (queue.frames, queue.sent) = (Frames::default(), None);
    }

    /// Queues a message; [`Outbox::flush`] is to follow. Messages after the end are dropped, as the wire would.
    pub(crate) fn push<T: Serialize>(&self, message: &T) -> Result<(), FrameError> {
        let mut queue = self.shared.queue.lock();
        if queue.ended || queue.finishing || queue.overfull {
            return Ok(());
        }
        queue.overfull = queue.frames.len() + queue.sent.as_ref().map_or(0, Sent::len) > QUEUE_BYTES;
        queue.frames.push(message)
    }

    /// Has what is queued written.
    pub(crate) fn flush(&self) {
        self.shared.wake.notify_one();
    }

    /// Wants to know when all that is queued is written: [`Outbox::room`] tells.
    pub(crate) fn ask_room(&self) {
        self.shared.queue.lock().wants_room = true;
        self.flush();
    }

    /// Waits until all that was queued is written, after [`Outbox::ask_room`]. For one at a time. Dropping this future loses nothing.
    pub(crate) async fn room(&self) {
        self.shared.room.notified().await;
    }

    /// Ends the stream once what is queued is written.
    pub(crate) fn finish(&self) {
        self.shared.queue.lock().finishing = true;
        self.flush();
    }

    /// Whether this is the same stream.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Writes what is queued until [`Outbox::finish`], and then until the peer has closed the connection or seen the stream's end.
    /// Dropping this ends the stream early and unannounced: reset, so that it does not look finished.
    pub(crate) async fn write_to(&self, stream: SendStream) -> Result<(), ControlError> {
        let result = self.write_after(Vec::new(), stream).await;
        self.end();
        result
    }

    /// As [`Outbox::write_to`], but these frames first, which [`Outbox::resume`] gave; and what is queued after the stream's end is kept for
    /// another one, if the outbox is lasting.
    pub(crate) async fn write_after(&self, again: Vec<Bytes>, stream: SendStream) -> Result<(), ControlError> {
        let mut stream = ResetOnDrop::new(stream);
        for frames in again {
            write_bytes(stream.get(), frames).await?;
        }
        let mut buffer = Vec::new();
        loop {
            let (large, finishing) = {
                let mut queue = self.shared.queue.lock();
                if queue.overfull {
                    return Err(ControlError::Stalled);
                }
                // What was taken out before is written.
                if queue.frames.is_empty() && std::mem::take(&mut queue.wants_room) {
                    self.shared.room.notify_one();
                }
                let messages = queue.frames.take_into(&mut buffer);
                (queue.keep(&mut buffer, messages), queue.finishing)
            };
            if let Some(frames) = large {
                write_bytes(stream.get(), frames).await?;
            } else if !buffer.is_empty() {
                write(stream.get(), &mut buffer).await?;
            } else if finishing {
                stream.finish();
                let _ = timeout(STALL, stream.get().stopped()).await;
                return Ok(());
            } else {
                self.shared.wake.notified().await;
            }
        }
    }
}

impl Queue {
    /// Keeps frames that are about to be written, where there may be another stream; large ones are taken out of the buffer for that.
    fn keep(&mut self, buffer: &mut Vec<u8>, messages: u64) -> Option<Bytes> {
        let sent = self.sent.as_mut()?;
        if buffer.len() <= COPY_BYTES {
            sent.keep_small(buffer, messages);
            return None;
        }
        let frames = Bytes::from(std::mem::take(buffer));
        sent.keep_large(frames.clone(), messages);
        Some(frames)
    }
}

async fn write(stream: &mut SendStream, buffer: &mut Vec<u8>) -> Result<(), ControlError> {
    if buffer.len() <= COPY_BYTES {
        return timeout(STALL, stream.write_all(buffer)).await.map_err(|_| ControlError::Stalled)?.map_err(lost);
    }
    write_bytes(stream, Bytes::from(std::mem::take(buffer))).await
}

async fn write_bytes(stream: &mut SendStream, mut rest: Bytes) -> Result<(), ControlError> {
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        timeout(STALL, stream.write_chunk(piece)).await.map_err(|_| ControlError::Stalled)?.map_err(lost)?;
    }
    Ok(())
}

fn lost(error: quinn::WriteError) -> ControlError {
    ControlError::Lost(error.to_string())
}

/// The reading end of a control stream.
pub(crate) struct Inlet {
    stream: RecvStream,
    buffer: Vec<u8>,
    chunks: Vec<Bytes>,
}

impl Inlet {
    /// Reads from here on.
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: Vec::new(), chunks: vec![Bytes::new(); 32] }
    }

    /// Waits for whole frames and appends their messages; `false` once the peer has ended the stream. Dropping this future loses
    /// nothing: what has arrived stays here for the next call.
    pub(crate) async fn read<T: DeserializeOwned + Validate>(&mut self, batch: &mut Vec<T>) -> Result<bool, ControlError> {
        loop {
            if self.take_frames(batch)? {
                return Ok(true);
            }
            match self.stream.read_chunks(&mut self.chunks).await {
                Ok(Some(count)) => {
                    for chunk in &mut self.chunks[..count] {
                        self.buffer.extend_from_slice(&std::mem::take(chunk));
                    }
                }
                Ok(None) if self.buffer.is_empty() => return Ok(false),
                Ok(None) => return Err(ControlError::Truncated),
                Err(error) => return Err(ControlError::Lost(error.to_string())),
            }
        }
    }

    fn take_frames<T: DeserializeOwned + Validate>(&mut self, batch: &mut Vec<T>) -> Result<bool, ControlError> {
        let before = batch.len();
        let mut at = 0;
        while let Some((header, rest)) = self.buffer[at..].split_first_chunk() {
            let len = frame_len(*header, MAX_FRAME)?;
            let Some(frame) = rest.get(..len) else { break };
            decode_all(frame, batch)?;
            at += 4 + len;
        }
        self.buffer.drain(..at);
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BYTES {
            self.buffer = Vec::new();
        }
        batch[before..].iter().try_for_each(Validate::validate).map_err(ControlError::Invalid)?;
        Ok(batch.len() > before)
    }
}

/// Reads one frame of one message, at most `limit` bytes long. Not to be dropped before its end unless the stream is given up.
pub(crate) async fn read_message<T: DeserializeOwned>(stream: &mut RecvStream, limit: usize) -> Result<T, ControlError> {
    decode_one(&read_frame(stream, limit).await?)
}

/// Reads one frame, at most `limit` bytes long. As [`read_message`] in everything else.
pub(crate) async fn read_frame(stream: &mut RecvStream, limit: usize) -> Result<Vec<u8>, ControlError> {
    let failed = |error| match error {
        ReadExactError::FinishedEarly(_) => ControlError::Truncated,
        ReadExactError::ReadError(error) => ControlError::Lost(error.to_string()),
    };
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.map_err(failed)?;
    let mut frame = vec![0; frame_len(header, limit)?];
    stream.read_exact(&mut frame).await.map_err(failed)?;
    Ok(frame)
}

/// Decodes a frame of one message.
pub(crate) fn decode_one<T: DeserializeOwned>(frame: &[u8]) -> Result<T, ControlError> {
    let malformed = |error: postcard::Error| FrameError::Malformed { len: frame.len(), reason: error.to_string() };
    Ok(crate::codec::decode(frame).map_err(malformed)?)
}

/// Writes one frame of one message.
pub(crate) async fn write_message<T: Serialize>(stream: &mut SendStream, message: &T) -> Result<(), ControlError> {
    let mut frames = Frames::default();
    frames.push(message)?;
    let mut buffer = Vec::new();
    frames.take_into(&mut buffer);
    write(stream, &mut buffer).await
}

/// Puts a new control stream before everything else.
pub(crate) fn prioritise(stream: &SendStream) {
    // An error means that the stream has ended, as the next write will say.
    let _ = stream.set_priority(PRIORITY);
}

/// Waits until the peer has closed the connection, for a moment, and then closes it from here.
pub(crate) async fn part(connection: &Connection, close: super::transport::Close, reason: &str) {
    let _ = timeout(Duration::from_secs(1), connection.closed()).await;
    close.close(connection, reason);
}

fn frame_len(header: [u8; 4], limit: usize) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(header) as usize;
    if len > limit { Err(FrameError::TooLong { len }) } else { Ok(len) }
}

/// A stream that is reset unless it was finished: a dropped one would look finished.
pub(crate) struct ResetOnDrop {
    stream: SendStream,
    finished: bool,
}

impl ResetOnDrop {
    /// Guards the stream.
    pub(crate) fn new(stream: SendStream) -> Self {
        Self { stream, finished: false }
    }

    /// The stream.
    pub(crate) fn get(&mut self) -> &mut SendStream {
        &mut self.stream
    }

    /// Sets what goes first among the connection's streams; 0 is the usual, higher goes first.
    pub(crate) fn prioritise(&self, priority: i32) {
        // An error means that it has ended already.
        let _ = self.stream.set_priority(priority);
    }

    /// Ends the stream as complete.
    pub(crate) fn finish(&mut self) {
        // An error means that it has ended already.
        let _ = self.stream.finish();
        self.finished = true;
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.finished {
            // An error means that it has ended already.
            let _ = self.stream.reset(super::transport::Close::Done.code());
        }
    }
}
