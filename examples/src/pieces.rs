//! Texts in pieces that cut no word. Owns: where pieces end. Must not know: what is done with them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use thiserror::Error;

/// Why a text cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {path}: {source}")]
#[non_exhaustive]
pub struct PiecesError {
    /// The file.
    pub path: String,
    /// Why not.
    pub source: io::Error,
}

/// A text in pieces of about the same size, read as they are asked for. A piece ends after an ASCII character that is no letter, or
/// with the text: so it cuts neither a word of ASCII letters nor a character of UTF-8. Bytes that are no UTF-8 become U+FFFD.
#[derive(Debug)]
pub struct Pieces<R> {
    path: String,
    text: R,
    size: usize,
}

impl Pieces<BufReader<File>> {
    /// The pieces of a file: of `size` bytes, and as many more as it takes to their end.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, size: usize) -> Result<Self, PiecesError> {
        let path_name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self { path: path_name, text: BufReader::new(file), size }),
            Err(source) => Err(PiecesError { path: path_name, source }),
        }
    }
}

impl<R: BufRead> Pieces<R> {
    fn read(&mut self) -> io::Result<String> {
        let mut piece = Vec::new();
        self.text.by_ref().take(self.size as u64).read_to_end(&mut piece)?;
        while !piece.last().is_none_or(is_end) {
            let more = self.text.fill_buf()?;
            let len = more.iter().position(is_end).map_or(more.len(), |at| at + 1);
            if len == 0 {
                break;
            }
            piece.extend_from_slice(&more[..len]);
            self.text.consume(len);
        }
        Ok(String::from_utf8_lossy(&piece).into_owned())
    }
}

impl<R: BufRead> Iterator for Pieces<R> {
    type Item = Result<String, PiecesError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read() {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => Some(Ok(piece)),
            Err(source) => Some(Err(PiecesError { path: self.path.clone(), source })),
        }
    }
}

/// Whether a piece may end after it.
fn is_end(byte: &u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphabetic()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &[u8], size: usize) -> Vec<String> {
        // A buffer smaller than a word: reading on has to go on.
        let text = BufReader::with_capacity(2, text);
        Pieces { path: String::new(), text, size }.collect::<Result<_, _>>().expect("memory can be read")
    }

    #[test]
    fn no_word_is_cut() {
        let check = |text: &str, size: usize, expected: &[&str]| {
            assert_eq!(pieces(text.as_bytes(), size), expected, "{text:?} by {size}");
        };
        check("one two three", 5, &["one two ", "three"]);
        check("one two three", 4, &["one ", "two ", "three"]);
        check("one, two", 1, &["one,", " ", "two"]);
        check("onetwothree", 1, &["onetwothree"]);
        check("one two", 100, &["one two"]);
        check("", 3, &[]);
    }

    #[test]
    fn no_character_is_cut() {
        let text = "größere Übel über Öl, jederzeit; 語彙";
        for size in 1..=text.len() {
            assert_eq!(pieces(text.as_bytes(), size).concat(), text, "by {size}");
        }
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        assert_eq!(pieces(b"a \xff b", 2), ["a ", "\u{fffd} ", "b"]);
    }
}
