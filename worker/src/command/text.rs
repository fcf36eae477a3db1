//! How figures and tables look to people. Must not know: what they say.

/// Columns of text, as wide as they need to be.
#[derive(Debug)]
pub(super) struct Table {
    /// Names of the columns; one that begins with `>` is of numbers, which end at its right side.
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &'static [&'static str]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Appends a row: a text a column.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell)).into());
    }

    /// All of it, each line indented by two spaces and without spaces at its end.
    pub(super) fn text(&self) -> String {
        let name = |column: usize| self.head[column].trim_start_matches('>');
        let cell = |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let width = |column| self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0).max(name(column).chars().count());
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        let head: Vec<String> = (0..self.head.len()).map(|column| name(column).to_owned()).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), head) in row.iter().zip(&widths).zip(self.head) {
                line += "  ";
                line += &if head.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Bytes, in the largest unit of which there is at least one.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024 of a unit is 1 of the next.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A time, in its two largest units.
pub(super) fn age(ms: u64) -> String {
    let (seconds, minutes, hours, days) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match () {
        () if seconds == 0 => format!("{ms}ms"),
        () if minutes == 0 => format!("{seconds}s"),
        () if hours == 0 => format!("{minutes}m {}s", seconds % 60),
        () if days == 0 => format!("{hours}h {}m", minutes % 60),
        () => format!("{days}d {}h", hours % 24),
    }
}

/// A number of things, in words.
pub(super) fn many(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// A text of somebody else's, such that it cannot do anything to a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        // Besides control characters, those that change the direction of what follows.
        let is_harmful = character.is_control() && character != '\t'
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if is_harmful { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    safe
}

/// A point of time, in milliseconds since 1970, as RFC 3339 has it.
pub(super) fn moment(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", of_day % 1000)
}

/// Year, month and day of a number of days since 1970. Years are counted from March, so that a leap day is a year's last; the method is
/// Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA_DAYS - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(&["NAME", ">SIZE", "STATE"]);
        table.row(["é".into(), "5 B".into(), String::new()]);
        table.row(["a longer name".into(), "12 KiB".into(), "leaving".into()]);
        assert_eq!(table.text(), "  NAME             SIZE  STATE\n  é                 5 B\n  a longer name  12 KiB  leaving\n");
    }

    #[test]
    fn sizes_are_short() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(150 << 10, "150 KiB");
        check((1 << 20) - 1, "1.0 MiB");
        check(3 << 29, "1.5 GiB");
        check(u64::MAX, "16.0 EiB");
    }

    #[test]
    fn ages_are_short() {
        let check = |ms: u64, expected: &str| assert_eq!(age(ms), expected);
        check(999, "999ms");
        check(59_999, "59s");
        check(61_000, "1m 1s");
        check(3_600_000, "1h 0m");
        check(90_000_000, "1d 1h");
    }

    #[test]
    fn moments_are_dates() {
        let check = |ms: u64, expected: &str| assert_eq!(moment(ms), expected);
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_399_999, "2000-02-28T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_077_926_400_000, "2004-02-28T00:00:00.000Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
        check(1_798_761_599_001, "2026-12-31T23:59:59.001Z");
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(printable("plain\ttext, é"), "plain\ttext, é");
        assert_eq!(printable("\u{1b}[2Jgone\n\r"), "\\u{1b}[2Jgone\\n\\r");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }
}
