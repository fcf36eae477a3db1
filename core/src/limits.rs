//! What a call may use, where it can run, and how it is to be run. Owns: limits, options, their defaults, and how sizes are written.
//! Must not know: who enforces them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::requirements::Requirements;

/// Memory of an instance where neither task nor call says otherwise: 1 GiB.
pub const DEFAULT_MEMORY: u64 = 1 << 30;
/// Time for one item where neither task nor call says otherwise: none but the worker's own cap.
pub const DEFAULT_TIMEOUT: Option<Duration> = None;

/// What one item of a call may use, where it can run, and how often and how eagerly it is tried.
///
/// ```
/// use std::time::Duration;
///
/// use quicsand::Options;
///
/// let options = Options { memory: 64 << 20, timeout: Some(Duration::from_secs(1)), ..Options::DEFAULT };
/// assert_eq!(options.retries, 0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Bytes of linear memory; the smaller of this and the worker's cap holds.
    pub memory: u64,
    /// Time for one item; the smaller of this and the worker's cap holds.
    pub timeout: Option<Duration>,
    /// How often a failed item is tried again.
    pub retries: u32,
    /// Higher goes first; 0 where nothing is said.
    pub priority: i32,
    /// Labels and resources that its worker must have.
    pub requires: Requirements,
}

impl Options {
    /// What a task runs under where nothing is said.
    pub const DEFAULT: Self =
        Self { memory: DEFAULT_MEMORY, timeout: DEFAULT_TIMEOUT, retries: 0, priority: 0, requires: Requirements::NONE };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A number of bytes, written like `512MiB`: a number with an optional K, M, G or T, which count by 1024, and an optional `B` or `iB` after
/// it. It is shown in the largest unit that gives a whole number, so that what is shown reads back as the same size.
///
/// ```
/// # use quicsand::Size;
/// assert_eq!("1.5 GiB".parse(), Ok(Size(3 << 29)));
/// assert_eq!(Size(3 << 29).to_string(), "1536MiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A text that is no [`Size`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no size; write one like 512MiB or 8G")]
pub struct SizeError {
    /// The text.
    pub text: String,
}

/// Units, each 1024 times the next.
const UNITS: [&str; 4] = ["T", "G", "M", "K"];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = UNITS.iter().zip([40, 30, 20, 10]);
        match units.into_iter().find(|(_, shift)| self.0 >> shift << shift == self.0 && self.0 > 0) {
            Some((unit, shift)) => write!(f, "{}{unit}iB", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = SizeError;

    /// # Errors
    /// When the text is no size, or one below a byte or above 9 PB, where bytes are not counted exactly any more.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { text: text.to_owned() };
        let trimmed = text.trim();
        let (number, unit) = trimmed.split_at(trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len()));
        let unit = unit.trim().to_ascii_uppercase();
        let shift = match unit.trim_end_matches('B').trim_end_matches('I') {
            "" if !unit.contains('I') => 0,
            prefix => UNITS.iter().zip([40, 30, 20, 10]).find(|(unit, _)| **unit == prefix).ok_or_else(error)?.1,
        };
        let bytes = number.parse::<f64>().map_err(|_| error())? * (1_u64 << shift) as f64;
        if (1.0..=9e15).contains(&bytes) { Ok(Self(bytes as u64)) } else { Err(error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text: &str, expected: u64| assert_eq!(text.parse(), Ok(Size(expected)), "{text}");
        check("4096", 4096);
        check("1.5 GiB", 3 << 29);
        check("512M", 512 << 20);
        check("2kb", 2048);
        check("1T", 1 << 40);
        check("7B", 7);
        for text in ["", "G", "12X", "-1G", "1e3", "0", "99999999T", "1iB", "1i"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_they_are_read() {
        let check = |bytes: u64, expected: &str| {
            assert_eq!(Size(bytes).to_string(), expected);
            assert_eq!(expected.parse(), Ok(Size(bytes)));
        };
        check(1, "1B");
        check(1000, "1000B");
        check(64 << 10, "64KiB");
        check(3 << 29, "1536MiB");
        check(4 << 30, "4GiB");
        check((1 << 30) + 1, "1073741825B");
    }
}
