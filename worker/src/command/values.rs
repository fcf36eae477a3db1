//! Values of arguments that have a form of their own: sizes, durations, labels, resources.

use std::time::Duration;

use quicsand::requirements::{name_fault, value_fault};

/// Bytes: a number, with an optional K, M, G or T, which count by 1024, and an optional `B` or `iB` after it.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit != "i" && unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("`{text}` is no size; write one like 512MiB or 8G")),
    };
    scaled(number, (1_u64 << shift) as f64).ok_or_else(|| format!("`{text}` is no size; write one like 512MiB or 8G"))
}

/// A duration: a number with `ms`, `s`, `m` or `h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale = match unit {
        "ms" => Some(1.0),
        "s" => Some(1e3),
        "m" => Some(60e3),
        "h" => Some(3600e3),
        _ => None,
    };
    let ms = scale.and_then(|scale| scaled(number, scale));
    ms.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is no duration; write one like 30s or 5m"))
}

/// `NAME=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else { return Err(format!("`{text}` is no label; write NAME=VALUE")) };
    match name_fault(name).or(value_fault(value)) {
        Some(fault) => Err(fault.to_owned()),
        None => Ok((name.to_owned(), value.to_owned())),
    }
}

/// `NAME=AMOUNT`, at least 1.
pub(super) fn resource(text: &str) -> Result<(String, u64), String> {
    let amount = text.split_once('=').and_then(|(name, amount)| Some((name, amount.parse().ok()?)));
    let Some((name, amount @ 1..)) = amount else {
        return Err(format!("`{text}` is no resource; write NAME=AMOUNT, like gpu=2"));
    };
    match name_fault(name) {
        Some(fault) => Err(fault.to_owned()),
        None => Ok((name.to_owned(), amount)),
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    (number, unit.trim())
}

/// At least one whole unit, and few enough that they are counted exactly.
fn scaled(number: &str, scale: f64) -> Option<u64> {
    let value = number.parse::<f64>().ok()? * scale;
    (1.0..=9e15).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: u64| assert_eq!(size(text), Ok(expected), "{text}");
        check("4096", 4096);
        check("1.5 GiB", 3 << 29);
        check("512M", 512 << 20);
        check("2kb", 2048);
        check("1T", 1 << 40);
        check("7B", 7);
        for text in ["", "G", "12X", "-1G", "1e3", "0", "99999999T", "1iB", "1i"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        let check = |text: &str, ms: u64| assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        check("30s", 30_000);
        check("1.5 m", 90_000);
        check("250ms", 250);
        for text in ["", "30", "s", "3d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels() {
        assert_eq!(label("zone=a=b"), Ok(("zone".into(), "a=b".into())));
        for text in ["zone", "=a", "zone=", "my zone=a"] {
            assert!(label(text).is_err(), "{text}");
        }
    }

    #[test]
    fn resources() {
        assert_eq!(resource("gpu=2"), Ok(("gpu".into(), 2)));
        for text in ["gpu", "gpu=", "gpu=0", "gpu=-1", "gpu=1.5", "=1", "g p u=1", "gpu=two"] {
            assert!(resource(text).is_err(), "{text}");
        }
    }
}
