//! Where a function stands: a macro sees the function only, so its file is looked at. Owns: finding the block around a position.

use std::fs;

use proc_macro2::Ident;
use syn::ext::IdentExt as _;

use crate::stamp;

/// Whether `ident` stands directly in an `impl` or `trait` block, as far as its file can tell.
pub(crate) fn is_associated(ident: &Ident) -> bool {
    let Some(text) = stamp::source_file(ident).and_then(|path| fs::read_to_string(path).ok()) else { return false };
    let span = ident.span().unwrap();
    let line = text.split_inclusive('\n').take(span.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let column = text[line..].chars().take(span.column().saturating_sub(1)).map(char::len_utf8).sum::<usize>();
    let before = &text[..line + column];
    // A position that is not that of the name is none to build on.
    let name = ident.unraw().to_string();
    let rest = &text[before.len()..];
    rest.trim_start_matches("r#").starts_with(&name) && ends_in_associated_block(before)
}

/// Whether the innermost block that is still open at the end of `text` is that of an `impl` or `trait`.
fn ends_in_associated_block(text: &str) -> bool {
    let mut open: Vec<Block> = vec![Block::default()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = skipped_len(rest, c);
        let Some(block) = open.last_mut() else { return false };
        if skipped > 0 {
            rest = &rest[skipped..];
            block.header.push(' ');
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '(' | '[' => block.brackets += 1,
            ')' | ']' => block.brackets = block.brackets.saturating_sub(1),
            '{' => {
                let associated = block.announces_associated();
                open.push(Block { associated, ..Block::default() });
            }
            '}' => {
                if open.len() > 1 {
                    open.pop();
                }
                if let Some(block) = open.last_mut() {
                    block.header.clear();
                }
            }
            ';' if block.brackets == 0 => block.header.clear(),
            // What brackets hold (attributes, types) says nothing about the block to come.
            c if block.brackets == 0 => block.header.push(c),
            _ => {}
        }
    }
    open.last().is_some_and(|block| block.associated)
}

/// A block that is open.
#[derive(Default)]
struct Block {
    associated: bool,
    /// How many brackets are open in it.
    brackets: usize,
    /// What was read since its last item or statement ended.
    header: String,
}

impl Block {
    fn announces_associated(&self) -> bool {
        let words = self.header.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        let mut words = words.skip_while(|word| matches!(*word, "pub" | "unsafe" | "default" | "const" | "auto"));
        matches!(words.next(), Some("impl" | "trait"))
    }
}

/// The length of the comment, string or character at the start of `rest`, or 0.
fn skipped_len(rest: &str, first: char) -> usize {
    let to_end = |at: Option<usize>| at.unwrap_or(rest.len());
    match first {
        '/' if rest.starts_with("//") => to_end(rest.find('\n')),
        '/' if rest.starts_with("/*") => block_comment_len(rest),
        '"' => quoted_len(rest, '"'),
        '\'' => match rest[1..].chars().next() {
            Some('\\') => quoted_len(rest, '\''),
            // Else it is a lifetime.
            Some(c) if rest[1 + c.len_utf8()..].starts_with('\'') => 2 + c.len_utf8(),
            _ => 0,
        },
        c if c.is_alphanumeric() || c == '_' => match raw_string_hashes(rest) {
            Some((prefix, hashes)) => {
                let end = format!("\"{}", "#".repeat(hashes));
                let start = prefix + hashes + 1;
                to_end(rest[start..].find(&end).map(|at| start + at + end.len()))
            }
            None => 0,
        },
        _ => 0,
    }
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Lengths of the prefix and of the hashes, where a raw string begins.
fn raw_string_hashes(rest: &str) -> Option<(usize, usize)> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| rest.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"')))?;
    let hashes = rest[prefix.len()..].chars().take_while(|&c| c == '#').count();
    Some((prefix.len(), hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: bool) {
        assert_eq!(ends_in_associated_block(text), expected, "{text}");
    }

    #[test]
    fn blocks_of_impls_and_traits_are_found() {
        check("impl X { ", true);
        check("#[derive(Debug)]\nunsafe impl<T> Y for [T; 4] where T: Copy { fn a() {} #[task] fn ", true);
        check("pub(crate) trait X { const A: [u8; 2] = [1, 2];", true);
        check("mod m { impl X {} impl Y { /* } */ // }\n const S: &str = \"}\"; const C: char = '}';", true);
        check("impl<'a> X<'a> { const S: &str = r#\"}\"#; const D: char = '\\''; fn ", true);
    }

    #[test]
    fn other_blocks_are_not() {
        check("", false);
        check("impl X {} fn ", false);
        check("mod m { fn ", false);
        check("impl X { fn f() { ", false);
        check("fn f() -> impl Fn() { ", false);
        check("// impl {\nfn f() { /* impl { */ ", false);
        check("struct Implement { ", false);
    }
}
