//! Reading Rust sources well enough for the layout test: what is code, what is test, which paths it names. Owns: a small scanner, not a
//! parser. Must not know: what is allowed.

/// The text with comments, strings and characters blanked out; lines stay where they are.
#[must_use]
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => text[at..].find('\n').map_or(text.len(), |len| at + len),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment(bytes, at),
            b'"' => string(bytes, at + 1),
            b'r' if !after_word(bytes, at) => match raw_string(text, at) {
                Some(end) => end,
                None => {
                    out.push('r');
                    at += 1;
                    continue;
                }
            },
            b'\'' => character(text, at),
            _ => {
                let next = text[at..].chars().next().unwrap_or(' ');
                out.push(next);
                at += next.len_utf8();
                continue;
            }
        };
        out.extend(text[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

fn block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(bytes.len())
}

fn string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw_string(text: &str, start: usize) -> Option<usize> {
    let hashes = text[start + 1..].bytes().take_while(|&byte| byte == b'#').count();
    let open = start + 1 + hashes;
    if text.as_bytes().get(open) != Some(&b'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(text[open + 1..].find(&close).map_or(text.len(), |len| open + 1 + len + close.len()))
}

/// The end of a character literal; of a lifetime, only its tick.
fn character(text: &str, start: usize) -> usize {
    let mut chars = text[start + 1..].char_indices();
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((second, escaped))) => {
            let after = start + 1 + second + escaped.len_utf8();
            text[after..].find('\'').map_or(text.len(), |len| after + len + 1)
        }
        (Some(_), Some((second, '\''))) => start + 1 + second + 1,
        _ => start + 1,
    }
}

fn after_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

/// The part of a file before its unit tests, which by the house's order come last.
#[must_use]
pub fn before_tests(code: &str) -> &str {
    let tests = code.match_indices("#[cfg(").find(|(at, _)| {
        let rest = &code[*at..];
        let Some(end) = rest.find(")]") else { return false };
        let is_test = words(&rest[..end]).any(|word| word == "test");
        is_test && words(&rest[end..]).next() == Some("mod") && rest[end..].trim_start_matches(")]").contains('{')
    });
    tests.map_or(code, |(at, _)| &code[..at])
}

/// Identifiers and keywords, in order.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// All paths that begin with the word `root`, groups spread out: `crate::{a::b, c}` gives `[a, b]` and `[c]`.
#[must_use]
pub fn paths<'a>(code: &'a str, root: &str) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(root) {
        let after = &code[at + root.len()..];
        if after_word(code.as_bytes(), at) || code[..at].trim_end().ends_with("::") || !after.trim_start().starts_with("::") {
            continue;
        }
        spread(after, &mut Vec::new(), &mut found);
    }
    found
}

/// Follows `::name` and `::{…}` from `rest` on; gives what comes after the path.
fn spread<'a>(rest: &'a str, before: &mut Vec<&'a str>, found: &mut Vec<Vec<&'a str>>) -> &'a str {
    let Some(after) = rest.trim_start().strip_prefix("::") else {
        found.push(before.clone());
        return rest;
    };
    let after = after.trim_start();
    if let Some(mut group) = after.strip_prefix('{') {
        loop {
            group = group.trim_start_matches([',', ' ', '\n']);
            if group.is_empty() || group.starts_with('}') {
                return group.get(1..).unwrap_or("");
            }
            let (name, rest) = name(group);
            before.push(name);
            group = spread(rest, before, found);
            before.pop();
            group = &group[group.find([',', '}']).unwrap_or(group.len())..];
        }
    }
    let (name, rest) = name(after);
    if name.is_empty() {
        found.push(before.clone());
        return rest;
    }
    before.push(name);
    let rest = spread(rest, before, found);
    before.pop();
    rest
}

/// A name, and what comes after it; always takes something off, so that nothing goes round in circles.
fn name(text: &str) -> (&str, &str) {
    let len = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    match len {
        0 => ("", text.get(1..).unwrap_or("")),
        len => text.split_at(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(&code(text)).collect::<Vec<_>>(), expected, "{text}");
        check("a // b\nc /* d /* e */ f */ g", &["a", "c", "g"]);
        check(r#"a("b \" c", 'd', '\'', '\u{1f}') + e"#, &["a", "e"]);
        check("a(r\"b\\\", r#\"c \" d\"#, br\"e\") + r#f", &["a", "b", "r", "f"].map(|w| if w == "b" { "br" } else { w }));
        check("fn a<'b>(c: &'b str, d: 'static) -> 'e'", &["fn", "a", "b", "c", "b", "str", "d", "static"]);
    }

    #[test]
    fn unit_tests_are_cut_off_and_nothing_else() {
        let check = |text: &str, expected: &str| assert_eq!(before_tests(text), expected, "{text}");
        check("a #[cfg(test)]\nmod tests { b }", "a ");
        check("a #[cfg(all(test, unix))] mod tests { b }", "a ");
        check("a #[cfg(test)] use b; #[cfg(unix)] mod c { d }", "a #[cfg(test)] use b; #[cfg(unix)] mod c { d }");
    }

    #[test]
    fn groups_are_spread_out() {
        let check = |code: &str, expected: &[&str]| {
            let found: Vec<_> = paths(code, "crate").iter().map(|path| path.join("::")).collect();
            assert_eq!(found, expected, "{code}");
        };
        check("use crate::a::b; crate::c()", &["a::b", "c"]);
        check("use crate::{\n a::{b, c::d},\n e as f, g::*,\n}; h", &["a::b", "a::c::d", "e", "g"]);
        check("pub(crate) fn x(y: my::crate::z, mycrate::a, crate_::b)", &[]);
        check("Vec<crate::a::B<crate::c>>", &["a::B", "c"]);
    }
}
