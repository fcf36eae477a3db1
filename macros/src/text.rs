//! Tokens as text that every compiler gives alike: host and guest may be built by different ones, and both hash it.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// 64-bit FNV-1a, as `TaskId::of` has it.
#[derive(Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes.
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }

    pub(crate) fn finish(self) -> u64 {
        self.0
    }
}

/// Writes tokens out with the spaces that Rust code usually has. Invisible groups are not seen.
pub(crate) fn of(tokens: TokenStream) -> String {
    let mut text = String::new();
    write(tokens, &mut text, &mut Glue::Closed);
    text
}

/// What the next token makes of its left neighbour.
enum Glue {
    /// Nothing but a word needs a space before it.
    Closed,
    /// The last token was a word.
    Word,
    /// Punctuation that the next character belongs to.
    Joint,
}

fn write(tokens: TokenStream, text: &mut String, glue: &mut Glue) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => (" { ", " }"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                if !open.is_empty() {
                    text.push_str(open);
                    *glue = Glue::Closed;
                }
                write(group.stream(), text, glue);
                if !close.is_empty() {
                    text.push_str(close);
                    *glue = Glue::Word;
                }
            }
            TokenTree::Ident(ident) => word(&ident.to_string(), text, glue),
            TokenTree::Literal(literal) => word(&literal.to_string(), text, glue),
            TokenTree::Punct(punct) => {
                let joint = punct.spacing() == Spacing::Joint;
                let spaced = matches!(punct.as_char(), '-' | '=' | '+' | '|') && !matches!(glue, Glue::Joint);
                if spaced && !text.is_empty() {
                    text.push(' ');
                }
                text.push(punct.as_char());
                let after_colon = punct.as_char() == ':' && !matches!(glue, Glue::Joint);
                let ends_spaced = text.ends_with("->") || text.ends_with("=>") || matches!(punct.as_char(), '=' | '+' | '|');
                *glue = if joint { Glue::Joint } else { Glue::Closed };
                if !joint && (ends_spaced || after_colon || matches!(punct.as_char(), ',' | ';')) {
                    text.push(' ');
                }
            }
        }
    }
}

fn word(word: &str, text: &mut String, glue: &mut Glue) {
    if matches!(glue, Glue::Word) {
        text.push(' ');
    }
    text.push_str(word);
    *glue = Glue::Word;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &str, expected: &str) {
        assert_eq!(of(tokens.parse().expect("tokens")), expected);
    }

    #[test]
    fn signatures_read_as_written() {
        check("(x:i64 ,y : & str)->Vec < f64 >", "(x: i64, y: &str) -> Vec<f64>");
        check(
            "(mut xs: &[(u8, bool)]) -> std::result::Result<(), String>",
            "(mut xs: &[(u8, bool)]) -> std::result::Result<(), String>",
        );
        check("(table: [u8; 4])", "(table: [u8; 4])");
        check("()", "()");
    }

    #[test]
    fn hashes_are_fnv_1a() {
        assert_eq!(Fnv::new().finish(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv::new().with(b"foobar").finish(), 0x8594_4171_f739_67e8);
    }
}
