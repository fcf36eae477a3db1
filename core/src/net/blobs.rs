//! Blob streams, both ends: requests, replies, bytes with length and hash checked. Must not know: where bytes are kept.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinError, spawn_blocking},
    time::timeout,
};

use super::{
    control::{ControlError, ResetOnDrop, read_message, write_message},
    passing::{Entrance, Exit},
};
use crate::{
    codec::Encoded,
    ids::Hash,
    pages,
    wire::blob::{BlobReply, BlobRequest},
};

/// Largest value, and what a receiver without a smaller limit takes.
pub(crate) const MAX_VALUE_BYTES: u64 = u32::MAX as u64;
/// Largest module.
pub(crate) const MAX_MODULE_BYTES: u64 = 256 << 20;
/// A stream that does not get on for so long is given up.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// A request whose answer may have to wait for something.
const ANSWER: Duration = Duration::from_secs(60);
/// Requests and replies are small.
const FRAME_LIMIT: usize = 4096;
/// Room that is made before bytes arrive, at most. It costs memory only as they do.
const AHEAD_BYTES: usize = 128 << 20;
/// Pieces of a stream that are read at a time: as many as come in a few datagrams' batches.
const CHUNKS: usize = 64;
/// What is longer is put together on a thread of its own.
const ASIDE_BYTES: usize = 1 << 20;
/// So many at a time, so that peers who are slow take up no more threads; others are put together as they are received.
static ASIDE: Semaphore = Semaphore::const_new(8);
/// Lists of such pieces that wait for that thread, at most: together a few megabytes.
const HANDED: usize = 16;
/// Hashed and sent in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// Up to here a blob goes before larger ones.
const SMALL_BYTES: u64 = 1 << 20;

/// Why a blob could not be had or given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The peer does not have it.
    #[error("it is not there")]
    NotFound,
    /// The peer does not give or take it.
    #[error("refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// Not the bytes that were announced or asked for.
    #[error("the bytes that came have another hash than announced")]
    Corrupt,
    /// Other than the announced number of bytes.
    #[error("{got} bytes came where {expected} were announced")]
    Length {
        /// Announced or asked for.
        expected: u64,
        /// Came, or would have.
        got: u64,
    },
    /// More than is taken.
    #[error("{len} bytes are more than the {limit} allowed")]
    TooLarge {
        /// Announced length.
        len: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Nothing moved for too long.
    #[error("the transfer stalled")]
    Stalled,
    /// The peer said something that does not belong there.
    #[error("the peer broke the protocol: {reason}")]
    Protocol {
        /// What it said.
        reason: String,
    },
    /// The stream or connection broke.
    #[error("the connection broke: {reason}")]
    Lost {
        /// What the transport said.
        reason: String,
    },
}

impl From<ControlError> for BlobError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Lost(reason) => Self::Lost { reason },
            ControlError::Stalled => Self::Stalled,
            ControlError::Truncated => Self::Lost { reason: error.to_string() },
            ControlError::Frame(_) | ControlError::Invalid(_) => Self::Protocol { reason: error.to_string() },
        }
    }
}

/// What the bytes of an answer must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// `None` where only a limit is known.
    pub(crate) len: Option<u64>,
    pub(crate) limit: u64,
    pub(crate) hash: Hash,
}

/// Asks for bytes and checks them. Dropping this future abandons the stream.
pub(crate) async fn get(connection: &Connection, request: &BlobRequest, expected: Expected) -> Result<Bytes, BlobError> {
    // The scheduler may have to wait for a module, or try several workers.
    let direct = matches!(request, BlobRequest::Get { grant: Some(_), .. });
    let mut answer = ask(connection, request, if direct { STALL } else { ANSWER }).await?;
    let announced = expected.len.unwrap_or(answer.len);
    if announced != answer.len {
        return Err(BlobError::Length { expected: announced, got: answer.len });
    }
    if answer.len > expected.limit {
        return Err(BlobError::TooLarge { len: answer.len, limit: expected.limit });
    }
    if answer.hash != expected.hash {
        return Err(BlobError::Corrupt);
    }
    read_body(&mut answer.body, answer.len, answer.hash, None).await
}

/// Asks for bytes that nobody knows before; only their length is limited. Dropping this future abandons the stream.
pub(crate) async fn get_small(connection: &Connection, request: &BlobRequest, limit: u64) -> Result<Bytes, BlobError> {
    let mut answer = ask(connection, request, STALL).await?;
    if answer.len > limit {
        return Err(BlobError::TooLarge { len: answer.len, limit });
    }
    read_body(&mut answer.body, answer.len, answer.hash, None).await
}

/// An answer whose bytes are still to be read.
pub(crate) struct Answer {
    pub(crate) len: u64,
    pub(crate) hash: Hash,
    pub(crate) body: RecvStream,
}

/// Asks for bytes and reads the answer's head, which must come within `patience`.
pub(crate) async fn ask(connection: &Connection, request: &BlobRequest, patience: Duration) -> Result<Answer, BlobError> {
    let (mut send, mut body) = open(connection, request).await?;
    send.finish();
    match within(patience, read_message(&mut body, FRAME_LIMIT)).await?? {
        BlobReply::Found { len, hash } => Ok(Answer { len, hash, body }),
        BlobReply::NotFound => Err(BlobError::NotFound),
        BlobReply::Refused { reason } => Err(BlobError::Refused { reason }),
        BlobReply::Taken => Err(BlobError::Protocol { reason: "an answer to another question".to_owned() }),
    }
}

/// Offers bytes and waits until they are taken. Dropping this future resets the stream.
pub(crate) async fn put(connection: &Connection, request: &BlobRequest, data: Encoded) -> Result<(), BlobError> {
    let (mut send, recv) = open(connection, request).await?;
    set_priority(&send, data.len() as u64);
    // A refusal stops the stream before all is written, so it is looked for whatever became of the writing.
    let written = async {
        for piece in data.pieces() {
            write_body(&mut send, piece.clone()).await?;
        }
        Ok(())
    };
    let written = written.await;
    taken(send, recv, written).await
}

/// Offers bytes that are still coming in, and waits until they are taken. Dropping this future resets the stream.
pub(crate) async fn put_coming(
    connection: &Connection,
    request: &BlobRequest,
    len: u64,
    mut coming: Exit,
) -> Result<(), BlobError> {
    let (mut send, recv) = open(connection, request).await?;
    set_priority(&send, len);
    let mut got = 0;
    let written = async {
        while let Some(mut pieces) = coming.next().await {
            got += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            let written = within(STALL, send.get().write_all_chunks(&mut pieces)).await?;
            written.map_err(|error| BlobError::Lost { reason: error.to_string() })?;
        }
        Ok(())
    };
    let written = written.await;
    if written.is_ok() && got != len {
        return Err(BlobError::Length { expected: len, got });
    }
    taken(send, recv, written).await
}

/// Waits for the answer to what was offered.
async fn taken(mut send: ResetOnDrop, mut recv: RecvStream, written: Result<(), BlobError>) -> Result<(), BlobError> {
    if written.is_ok() {
        send.finish();
    }
    match within(ANSWER, read_message(&mut recv, FRAME_LIMIT)).await? {
        Ok(BlobReply::Taken) => Ok(()),
        Ok(BlobReply::Refused { reason }) => Err(BlobError::Refused { reason }),
        Ok(_) => Err(BlobError::Protocol { reason: "an answer to another question".to_owned() }),
        Err(error) => Err(written.err().unwrap_or_else(|| error.into())),
    }
}

/// A request of the peer's.
pub(crate) struct Incoming {
    send: ResetOnDrop,
    recv: RecvStream,
}

impl Incoming {
    /// Waits for the peer to open a blob stream.
    pub(crate) async fn accept(connection: &Connection) -> Result<Self, quinn::ConnectionError> {
        let (send, recv) = connection.accept_bi().await?;
        Ok(Self { send: ResetOnDrop::new(send), recv })
    }

    /// Reads what the peer wants.
    pub(crate) async fn request(&mut self) -> Result<BlobRequest, BlobError> {
        Ok(within(STALL, read_message(&mut self.recv, FRAME_LIMIT)).await??)
    }

    /// Answers with bytes.
    pub(crate) async fn found(mut self, bytes: Bytes, hash: Hash) -> Result<(), BlobError> {
        let len = bytes.len() as u64;
        set_priority(&self.send, len);
        write_message(self.send.get(), &BlobReply::Found { len, hash }).await?;
        write_body(&mut self.send, bytes).await?;
        self.send.finish();
        Ok(())
    }

    /// Answers with bytes that are still coming in from somewhere else. Whoever gets them checks them, and so does this side, which wants to
    /// know whose fault it is: [`BlobError::Corrupt`] when all bytes came and are others than announced.
    pub(crate) async fn relay(mut self, mut from: Answer) -> Result<(), BlobError> {
        set_priority(&self.send, from.len);
        write_message(self.send.get(), &BlobReply::Found { len: from.len, hash: from.hash }).await?;
        let (mut rest, mut hasher) = (from.len, blake3::Hasher::new());
        while rest > 0 {
            let chunk =
                read_some(&mut from.body, rest).await?.ok_or(BlobError::Length { expected: from.len, got: from.len - rest })?;
            rest -= chunk.len() as u64;
            hasher.update(&chunk);
            write_some(&mut self.send, chunk).await?;
        }
        if *hasher.finalize().as_bytes() != from.hash.0 {
            return Err(BlobError::Corrupt);
        }
        self.send.finish();
        Ok(())
    }

    /// Answers without bytes.
    pub(crate) async fn reply(mut self, reply: &BlobReply) -> Result<(), BlobError> {
        // What the peer is still sending is not wanted any more. An error means that it has ended.
        let _ = self.recv.stop(super::transport::Close::Refused.code());
        write_message(self.send.get(), reply).await?;
        self.send.finish();
        Ok(())
    }

    /// Answers that it is not taken or given, and why.
    pub(crate) async fn refuse(self, reason: impl ToString) -> Result<(), BlobError> {
        self.reply(&BlobReply::Refused { reason: reason.to_string() }).await
    }

    /// The bytes of a `Put`, checked, and handed on as they come.
    pub(crate) async fn body(&mut self, len: u64, limit: u64, hash: Hash, on: Option<Entrance>) -> Result<Bytes, BlobError> {
        if len > limit {
            return Err(BlobError::TooLarge { len, limit });
        }
        read_body(&mut self.recv, len, hash, on).await
    }
}

/// A new stream with the request on it.
async fn open(connection: &Connection, request: &BlobRequest) -> Result<(ResetOnDrop, RecvStream), BlobError> {
    let opened = within(ANSWER, connection.open_bi()).await?;
    let (send, recv) = opened.map_err(|error| BlobError::Lost { reason: error.to_string() })?;
    let mut send = ResetOnDrop::new(send);
    write_message(send.get(), request).await?;
    Ok((send, recv))
}

/// Reads bytes and checks them. What is large is put together and hashed on a thread of its own, while this one receives: that takes as long
/// again as decrypting it. The pieces are handed on as they come, checked or not.
async fn read_body(stream: &mut RecvStream, len: u64, hash: Hash, mut on: Option<Entrance>) -> Result<Bytes, BlobError> {
    let size = usize::try_from(len).map_err(|_| BlobError::TooLarge { len, limit: usize::MAX as u64 })?;
    let mut body = Body::new(size);
    let mut rest = len;
    let place = if size > ASIDE_BYTES { ASIDE.try_acquire().ok() } else { None };
    let Some(place) = place else {
        while rest > 0 {
            receive(stream, len, &mut rest, &mut on).await?.iter().for_each(|chunk| body.append(chunk));
        }
        return body.finish(hash);
    };
    let (hand, mut handed) = mpsc::channel::<Vec<Bytes>>(HANDED);
    let assembling = spawn_blocking(move || {
        let _place = place;
        while let Some(chunks) = handed.blocking_recv() {
            chunks.into_iter().for_each(|chunk| body.append(&chunk));
        }
        body
    });
    let failed = |error: JoinError| BlobError::Lost { reason: error.to_string() };
    while rest > 0 {
        let chunks = receive(stream, len, &mut rest, &mut on).await?;
        if hand.send(chunks).await.is_err() {
            break;
        }
    }
    drop(hand);
    assembling.await.map_err(failed)?.finish(hash)
}

/// Reads some of the `rest` of `len` bytes, in the pieces that came, and hands them on.
async fn receive(stream: &mut RecvStream, len: u64, rest: &mut u64, on: &mut Option<Entrance>) -> Result<Vec<Bytes>, BlobError> {
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    let read = within(STALL, stream.read_chunks(&mut chunks)).await?.map_err(broken)?;
    let read = read.ok_or(BlobError::Length { expected: len, got: len - *rest })?;
    let mut taken = Vec::with_capacity(read);
    for mut chunk in chunks.into_iter().take(read) {
        chunk.truncate(usize::try_from(*rest).unwrap_or(usize::MAX));
        *rest -= chunk.len() as u64;
        taken.push(chunk);
    }
    if on.as_ref().is_some_and(|entrance| !entrance.pass(&taken)) {
        *on = None;
    }
    Ok(taken)
}

/// Bytes that are coming in, hashed as they do.
struct Body {
    size: usize,
    bytes: Vec<u8>,
    hasher: blake3::Hasher,
    hashed: usize,
}

impl Body {
    fn new(size: usize) -> Self {
        Self { size, bytes: Vec::new(), hasher: blake3::Hasher::new(), hashed: 0 }
    }

    fn append(&mut self, chunk: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < chunk.len() {
            let rest = self.size - self.bytes.len();
            pages::reserve(&mut self.bytes, rest.min(AHEAD_BYTES));
        }
        self.bytes.extend_from_slice(chunk);
        // Before they have left the processor's cache.
        if self.bytes.len() - self.hashed >= PIECE_BYTES {
            self.hash();
        }
    }

    fn hash(&mut self) {
        self.hasher.update(&self.bytes[self.hashed..]);
        self.hashed = self.bytes.len();
    }

    fn finish(mut self, hash: Hash) -> Result<Bytes, BlobError> {
        self.hash();
        if *self.hasher.finalize().as_bytes() != hash.0 {
            return Err(BlobError::Corrupt);
        }
        Ok(pages::share(self.bytes))
    }
}

/// The next bytes, at most `limit`; `None` at the stream's end.
async fn read_some(stream: &mut RecvStream, limit: u64) -> Result<Option<Bytes>, BlobError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let chunk = within(STALL, stream.read_chunk(limit, true)).await?.map_err(broken)?;
    Ok(chunk.map(|chunk| chunk.bytes))
}

fn broken(error: ReadError) -> BlobError {
    let reason = match error {
        ReadError::Reset(_) => format!("the sender gave up ({error})"),
        _ => error.to_string(),
    };
    BlobError::Lost { reason }
}

async fn write_body(stream: &mut ResetOnDrop, mut bytes: Bytes) -> Result<(), BlobError> {
    while !bytes.is_empty() {
        write_some(stream, bytes.split_to(bytes.len().min(PIECE_BYTES))).await?;
    }
    Ok(())
}

async fn write_some(stream: &mut ResetOnDrop, bytes: Bytes) -> Result<(), BlobError> {
    within(STALL, stream.get().write_chunk(bytes)).await?.map_err(|error| BlobError::Lost { reason: error.to_string() })
}

async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, BlobError> {
    timeout(limit, future).await.map_err(|_| BlobError::Stalled)
}

fn set_priority(stream: &ResetOnDrop, len: u64) {
    stream.prioritise(i32::from(len <= SMALL_BYTES));
}
