//! The book as a test sees it: chapters, their blocks of code, and what is to be done with each. Owns: how a block is marked. Must not
//! know: how a command is run.
//!
//! A block says in its language, and in a comment on the line before it, what becomes of it:
//!
//! | block | what becomes of it |
//! | --- | --- |
//! | `rust` | compiled and run as a documentation test |
//! | `sh` | run; it has to succeed |
//! | `<!-- fails -->` | run; it has to fail |
//! | `<!-- background, until: TEXT -->` | started, and left running to the chapter's end once it printed the text |
//! | `<!-- file: PATH -->` | written there, for the commands after it |
//! | `<!-- output -->` | every line has to be in what the command before it printed; `…` stands for anything |
//! | `<!-- needs: PROGRAM -->` | run where there is such a program |
//! | `<!-- not run: REASON -->` | listed and counted |
//! | `text` without a comment | a picture, or what errors look like |

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A chapter.
#[derive(Debug)]
pub struct Chapter {
    /// Its file's name, without the ending.
    pub name: String,
    /// Its blocks, in order.
    pub blocks: Vec<Block>,
    /// Its text.
    pub text: String,
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of the fence, from 1.
    pub line: usize,
    /// The fence's first word.
    pub language: String,
    /// What becomes of it.
    pub fate: Fate,
    /// What is in it.
    pub text: String,
}

/// What becomes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Compiled by rustdoc.
    Compiled,
    /// Run; succeeds.
    Run,
    /// Run; fails.
    Fails,
    /// Run where that program is; succeeds.
    Needs(String),
    /// Started, and left alone once it printed this.
    Background(String),
    /// Written into this file.
    File(PathBuf),
    /// Compared with what was printed last.
    Output,
    /// A picture.
    Shown,
    /// Not run, for this reason.
    NotRun(String),
    /// Marked in a way that makes no sense.
    Unclear,
}

/// The directory of the book's sources.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").join("docs")
}

/// All chapters, in the order of their names. The table of contents is none.
///
/// # Panics
/// If the book cannot be read.
#[must_use]
pub fn chapters() -> Vec<Chapter> {
    let files = fs::read_dir(directory()).expect("the book").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    paths.retain(|path| !path.ends_with("SUMMARY.md"));
    paths.sort();
    paths.iter().map(|path| Chapter::read(path)).collect()
}

impl Chapter {
    /// Reads a file.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a chapter");
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, blocks: blocks(&text), text }
    }
}

/// The fenced blocks of a text.
#[must_use]
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut mark = None;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim_start();
        let Some(info) = trimmed.strip_prefix("```") else {
            if let Some(comment) = trimmed.strip_prefix("<!--").and_then(|rest| rest.trim_end().strip_suffix("-->")) {
                mark = Some(comment.trim());
            } else if !trimmed.is_empty() {
                mark = None;
            }
            continue;
        };
        let indent = line.len() - trimmed.len();
        let inside = lines.by_ref().take_while(|(_, line)| !line.trim_start().starts_with("```"));
        let text: String = inside.map(|(_, line)| format!("{}\n", line.get(indent..).unwrap_or(""))).collect();
        let language = info.split([',', ' ']).next().unwrap_or("").to_owned();
        let fate = fate(&language, info, mark.take());
        found.push(Block { line: number + 1, language, fate, text });
    }
    found
}

fn fate(language: &str, info: &str, mark: Option<&str>) -> Fate {
    let after = |prefix| mark.and_then(|mark| mark.strip_prefix(prefix)).map(|rest| rest.trim().to_owned());
    if let Some(reason) = after("not run:") {
        return Fate::NotRun(reason);
    }
    if let Some(path) = after("file:") {
        return Fate::File(path.into());
    }
    match (language, mark) {
        ("rust", None) if info.contains("ignore") => Fate::Unclear,
        ("rust", None) => Fate::Compiled,
        ("sh", None) => Fate::Run,
        ("sh", Some("fails")) => Fate::Fails,
        ("sh", Some(mark)) => match (mark.strip_prefix("background, until:"), mark.strip_prefix("needs:")) {
            (Some(text), _) => Fate::Background(text.trim().to_owned()),
            (_, Some(program)) => Fate::Needs(program.trim().to_owned()),
            _ => Fate::Unclear,
        },
        ("text" | "json", Some("output")) => Fate::Output,
        ("text", None) => Fate::Shown,
        _ => Fate::Unclear,
    }
}

/// Whether `found` is what `expected` says, in which `…` stands for anything.
#[must_use]
pub fn is_like(found: &str, expected: &str) -> bool {
    let mut rest = found;
    let parts: Vec<&str> = expected.split('…').collect();
    for (at, part) in parts.iter().enumerate() {
        let place = match (at, at + 1 == parts.len()) {
            (0, _) => rest.starts_with(part).then_some(0),
            (_, true) => rest.ends_with(part).then(|| rest.len() - part.len()),
            _ => rest.find(part),
        };
        let Some(place) = place else { return false };
        rest = &rest[place + part.len()..];
    }
    expected.contains('…') || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_what_becomes_of_them() {
        let check = |text: &str, expected: Fate| {
            let found = blocks(text);
            assert_eq!(found.iter().map(|block| &block.fate).collect::<Vec<_>>(), [&expected], "{text}");
        };
        check("a\n```sh\nls\n```\n", Fate::Run);
        check("<!-- fails -->\n```sh\nfalse\n```\n", Fate::Fails);
        check("<!-- fails -->\n\n```sh\nfalse\n```\n", Fate::Fails);
        check("<!-- fails -->\ntext\n```sh\ntrue\n```\n", Fate::Run);
        check("<!-- background, until: it listens -->\n```sh\nserve\n```\n", Fate::Background("it listens".into()));
        check("<!-- needs: gdb -->\n```sh\ngdb\n```\n", Fate::Needs("gdb".into()));
        check("<!-- file: src/main.rs -->\n```rust\nfn main() {}\n```\n", Fate::File("src/main.rs".into()));
        check("<!-- not run: needs root -->\n```sh\nreboot\n```\n", Fate::NotRun("needs root".into()));
        check("```rust,no_run\nfn main() {}\n```\n", Fate::Compiled);
        check("```rust,ignore\nfn main() {}\n```\n", Fate::Unclear);
        check("<!-- output -->\n```text\nls\n```\n", Fate::Output);
        check("```text\nls\n```\n", Fate::Shown);
        check("```toml\nx = 1\n```\n", Fate::Unclear);
        check("<!-- perhaps -->\n```sh\nls\n```\n", Fate::Unclear);
        check("1. x\n\n   ```sh\n   a\n     b\n   ```\n", Fate::Run);
    }

    #[test]
    fn a_block_in_a_list_loses_its_indentation() {
        assert_eq!(blocks("1. x\n\n   ```sh\n   a\n     b\n   ```\n")[0].text, "a\n  b\n");
    }

    #[test]
    fn dots_stand_for_anything() {
        let check = |found: &str, expected: &str, is: bool| assert_eq!(is_like(found, expected), is, "{found} / {expected}");
        check("abc", "abc", true);
        check("abc", "ab", false);
        check("abc", "a…c", true);
        check("abc", "…", true);
        check("abc", "…b…", true);
        check("abc", "b…", false);
        check("ac", "a…b…c", false);
        check("a", "a…a", false);
    }
}
