//! What a peer can do wrong. Must not know: what follows.

use thiserror::Error;

use crate::ids::{Key, RunId};

/// How a peer broke the protocol; its text goes to the peer and the log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("entry {seq} does not ascend from the last one")]
    Sequence { seq: u64 },
    #[error("the arguments for entry {seq} contradict themselves")]
    Arguments { seq: u64 },
    #[error("a call has one item, entry {seq} came with {count}")]
    CallItems { seq: u64, count: u32 },
    #[error("entry {seq} names {key}, which is not an earlier entry of this client")]
    ForeignKey { seq: u64, key: Key },
    #[error("a field of entry {seq} names more than {} values", super::register::MAX_INPUTS)]
    TooManyInputs { seq: u64 },
    #[error("entry {seq} was never made")]
    UnknownEntry { seq: u64 },
    #[error("entry {seq} is not an open map")]
    NotOpen { seq: u64 },
    #[error("data {seq} is {actual} bytes long, {announced} were announced")]
    DataLength { seq: u64, announced: u64, actual: u64 },
    #[error("a span of another client ({client}) is named, or one that overflows")]
    ForeignSpan { client: u64 },
    #[error("more was sent than the credit allows, by {bytes} bytes")]
    Credit { bytes: u64 },
    #[error(
        "entry {seq} is one of more than {} different sets of requirements at a time; let fewer amounts or values be different",
        super::clients::MAX_SHAPES
    )]
    Requirements { seq: u64 },
    #[error("entry {seq} is one of more than {} published results that are taken up at a time", super::sharing::MAX_LINKS)]
    Links { seq: u64 },
    #[error("run {run} was given to another worker")]
    ForeignRun { run: RunId },
    #[error("the outcome of run {run} contradicts the run or itself")]
    Outcome { run: RunId },
    #[error("run {run} was returned after it had started")]
    ReturnedLate { run: RunId },
    #[error("run {run} was divided unasked, or where it cannot be")]
    Division { run: RunId },
    #[error("it claims values that it does not serve, {count} of them so far: it lies, or its memory or disk is damaged")]
    Unserved { count: u32 },
    #[error("nothing was heard for too long")]
    Silent,
    #[error("an operator revoked this peer's certificate")]
    Revoked,
}
