//! What tasks printed, line by line, as workers keep it for a while. Must not know: where it is kept, or shown.

use serde::{Deserialize, Serialize};

use super::Validate;
use crate::{codec::Span, ids::Key};

/// Bytes of one line that are kept; a longer one is cut into several.
pub const LINE_BYTES: usize = 4 << 10;
/// Bytes of one answer with lines, at most.
pub const LOG_BYTES: usize = 4 << 20;

/// Which of a guest's two streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line that an item printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number on its worker, ascending.
    pub number: u64,
    /// When, in milliseconds since 1970 by the worker's clock.
    pub at_ms: u64,
    /// The item.
    pub key: Key,
    /// Standard output or error.
    pub stream: LogStream,
    /// The line, without its end.
    pub text: String,
}

/// Which lines are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Of these items only.
    pub span: Option<Span>,
    /// With a greater number only.
    pub after: u64,
    /// The last so many, at most.
    pub limit: u32,
}

impl LogQuery {
    /// Whether a line is asked for, but for the limit.
    #[must_use]
    pub fn wants(&self, line: &LogLine) -> bool {
        let is_in = |span: &Span| {
            line.key.entry == span.entry && line.key.index >= span.first && line.key.index - span.first < span.count
        };
        line.number > self.after && self.span.as_ref().is_none_or(is_in)
    }
}

impl Validate for [LogLine] {
    fn validate(&self) -> Result<(), &'static str> {
        let bytes: usize = self.iter().map(|line| line.text.len()).sum();
        let ordered = self.is_sorted_by(|a, b| a.number < b.number);
        if ordered && bytes <= LOG_BYTES { Ok(()) } else { Err("lines out of order, or too many of them") }
    }
}
