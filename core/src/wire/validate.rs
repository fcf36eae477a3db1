//! Whether a message agrees with itself: asked once of every message that a peer sent, before anybody acts on it. Must not know:
//! who sent it, and whether what it names exists.

use super::{Assignment, CallSpec, FromClient, FromWorker, InputPlace, Outcome, RUN_ITEMS, ToClient, ToWorker};
use crate::codec::{Args, Run, Span};

/// Inline bytes of arguments in one message, at most: several times what honest clients send, and little enough to leave room in the
/// assignment for what the call reads.
const SENT_BYTES: usize = super::MAX_FRAME / 8;
/// Bytes of a task's name, at most: it is in every error.
pub(crate) const NAME_BYTES: usize = 1024;

/// Messages that can be checked.
pub trait Validate {
    /// Whether lengths, counts and ranges fit together.
    ///
    /// # Errors
    /// With what does not.
    fn validate(&self) -> Result<(), &'static str>;
}

impl Validate for FromClient {
    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self::Call { spec, args, .. } => {
                named(spec)?;
                check(args.count() == 1, "a call of other than one item")?;
                sent_args(args)
            }
            Self::Map { spec, .. } => named(spec),
            Self::Items { args, .. } => sent_args(args),
            Self::Data { bytes: Some(bytes), len, .. } => {
                check(bytes.len() as u64 == *len, "data of another length than announced")
            }
            Self::Release { span } | Self::Cancel { span } | Self::Detach { span } => span_ends(span),
            Self::Publish { kind, span, .. } => span_ends(span).and_then(|()| kind_is_short(kind)),
            Self::LookUp { kind, .. } | Self::TakeUp { kind, .. } => kind_is_short(kind),
            Self::Count { spans, .. } | Self::Explain { spans, .. } => spans.iter().try_for_each(span_ends),
            Self::Unreachable { index, .. } => check(*index < u64::MAX, "an index without a successor"),
            Self::Close { .. }
            | Self::Data { bytes: None, .. }
            | Self::UploadFailed { .. }
            | Self::Offer { .. }
            | Self::Unpublish { .. }
            | Self::Bye => Ok(()),
        }
    }
}

/// Bytes of what published results are said to be.
pub(crate) const KIND_BYTES: usize = 1024;

fn kind_is_short(kind: &str) -> Result<(), &'static str> {
    check(kind.len() <= KIND_BYTES, "what published results are said to be is longer than 1024 bytes")
}

impl Validate for ToClient {
    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self::Done { first, values, .. } => {
                run(values)?;
                check(first.checked_add(u64::from(values.count())).is_some(), "results past the last index")
            }
            Self::Cancelled { span } => span_ends(span),
            _ => Ok(()),
        }
    }
}

impl Validate for FromWorker {
    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self::Finished { outcome, .. } => self::outcome(outcome),
            _ => Ok(()),
        }
    }
}

impl Validate for ToWorker {
    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self::Assign(assignment) => self::assignment(assignment),
            Self::Cancel { first, count, .. } => check(first.checked_add(*count).is_some(), "items past the last index"),
            Self::Free { spans } => spans.iter().try_for_each(span_ends),
            Self::Recall { .. } | Self::Replicate { .. } | Self::Drain | Self::Leave | Self::Refused { .. } => Ok(()),
        }
    }
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn run(run: &Run) -> Result<(), &'static str> {
    check(run.is_valid(), "a run whose lengths do not add up")
}

fn span_ends(span: &Span) -> Result<(), &'static str> {
    check(span.first.checked_add(span.count).is_some(), "a span past the last index")
}

/// Counts are bounded too: items without bytes cost a sender nothing.
fn sent_args(args: &Args) -> Result<(), &'static str> {
    check(args.is_valid(), "arguments whose lengths or holes do not add up")?;
    check(args.count() as usize <= RUN_ITEMS, "more arguments than go into one message")?;
    check(args.run.bytes().len() <= SENT_BYTES, "more bytes of arguments than go into one message")
}

fn named(spec: &CallSpec) -> Result<(), &'static str> {
    check(spec.name.len() <= NAME_BYTES, "a task's name that is too long")?;
    spec.options.requires.fault().map_or(Ok(()), Err)
}

fn outcome(outcome: &Outcome) -> Result<(), &'static str> {
    run(&outcome.values)?;
    let count = outcome.values.count();
    check(count as usize <= RUN_ITEMS, "more results than go into one message")?;
    let end = outcome.first.checked_add(count).ok_or("results past the last index")?;
    let inside = |item: u32| (outcome.first..end).contains(&item);
    let exceptions = outcome.stored.iter().map(|stored| stored.item).chain(outcome.errors.iter().map(|error| error.item));
    check(exceptions.chain(outcome.dropped.iter().copied()).all(inside), "an item outside of its outcome")
}

fn assignment(assignment: &Assignment) -> Result<(), &'static str> {
    check(assignment.args.is_valid(), "arguments whose lengths or holes do not add up")?;
    check(assignment.first.checked_add(u64::from(assignment.args.count())).is_some(), "items past the last index")?;
    assignment.inputs.iter().try_for_each(|input| {
        check(input.key.index.checked_add(input.count).is_some(), "inputs past the last index")?;
        match &input.place {
            InputPlace::Inline(values) => {
                run(values)?;
                check(u64::from(values.count()) == input.count, "more or fewer inputs than announced")
            }
            InputPlace::Blob { .. } | InputPlace::Ahead => check(input.count == 1, "several inputs in one place"),
        }
    })
}
