//! Keys as people write them: `client.entry[index]`, `client.entry[first..end]`, or `client.entry` for a whole entry.

use std::fmt;

use quicsand::{
    codec::Span,
    ids::{ClientId, EntryId},
};

/// Items of one entry, as somebody named them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyArgument(pub(super) Span);

impl KeyArgument {
    /// Those items.
    pub(super) fn items(entry: EntryId, first: u64, count: u64) -> Self {
        Self(Span { entry, first, count })
    }
}

/// Reads one.
pub(super) fn key(text: &str) -> Result<KeyArgument, String> {
    parse(text).ok_or_else(|| {
        format!(
            "`{text}` is no key; write one like 3.17 for a call or a whole map, 3.17[42] for one of its items, or 3.17[0..10]"
        )
    })
}

fn parse(text: &str) -> Option<KeyArgument> {
    let (entry, items) = match text.split_once('[') {
        Some((entry, items)) => (entry, Some(items.strip_suffix(']')?)),
        None => (text, None),
    };
    let (client, seq) = entry.split_once('.')?;
    let entry = EntryId { client: ClientId(number(client)?), seq: number(seq)? };
    let (first, count) = match items.map(|items| items.split_once("..").ok_or(items)) {
        None => (0, u64::MAX),
        Some(Ok((first, end))) => {
            let (first, end) = (number(first)?, number(end)?);
            (first, end.checked_sub(first).filter(|&count| count > 0)?)
        }
        Some(Err(index)) => (number(index).filter(|&index| index < u64::MAX)?, 1),
    };
    Some(KeyArgument(Span { entry, first, count }))
}

/// Digits only: what `u64` reads besides is a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for KeyArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Span { entry, first, count }) = *self;
        match (first, count) {
            (0, u64::MAX) => write!(f, "{entry:?}"),
            (first, 1) => write!(f, "{entry:?}[{first}]"),
            (first, count) => write!(f, "{entry:?}[{first}..{}]", first.saturating_add(count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_written_alike() {
        let check = |text: &str, first: u64, count: u64| {
            let read = key(text).expect("a key");
            let entry = EntryId { client: ClientId(3), seq: 17 };
            assert_eq!(read, KeyArgument::items(entry, first, count), "{text}");
            assert_eq!(read.to_string(), text);
        };
        check("3.17", 0, u64::MAX);
        check("3.17[0]", 0, 1);
        check("3.17[42]", 42, 1);
        check("3.17[0..10]", 0, 10);
        check("3.17[5..8]", 5, 3);
        assert_eq!(EntryId { client: ClientId(3), seq: 17 }.key(42).to_string(), "3.17[42]");
    }

    #[test]
    fn what_is_no_key_is_said_to_be_none() {
        for text in [
            "",
            "3",
            "3.",
            ".17",
            "3.17[",
            "3.17]",
            "3.17[]",
            "3.17[x]",
            "3.17[1]x",
            "3.17[4..4]",
            "3.17[5..4]",
            "3.17[..4]",
            "+3.17",
            "3.17.1",
        ] {
            assert!(key(text).is_err(), "{text}");
        }
        assert!(key(&format!("3.17[{}]", u64::MAX)).is_err(), "no item comes after it");
        assert!(key("3.99999999999999999999").is_err());
    }
}
