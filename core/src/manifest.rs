//! A module's manifest: which tasks it has. Owns the entry's byte form, its `const` writer and its reader.
//!
//! The macros put one entry a task into the custom section [`SECTION`](crate::abi::SECTION); the linker joins them. One entry,
//! little-endian: `u32` length of the rest, `u32` ABI version, `u64` task id, `u64` stamp of its sources, then three texts, each
//! a `u32` length and UTF-8: the task's name, its signature, its export.

use std::fmt;

use crate::{abi, ids::TaskId};

/// What the macros know of a task; the same in the program and, as a [`ManifestEntry`], in its module.
#[derive(Debug)]
pub struct TaskInfo {
    /// Identity: hash of path, place and signature.
    pub id: TaskId,
    /// Hash of the source file that holds the task.
    pub stamp: u64,
    /// The name that errors and logs show.
    pub name: &'static str,
    /// Parameters and result as written.
    pub signature: &'static str,
    /// What its calls run under unless a call says otherwise.
    pub options: crate::Options,
}

/// One task of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Identity.
    pub id: TaskId,
    /// Hash of the source file that held the task when the module was built.
    pub stamp: u64,
    /// Name for people.
    pub name: String,
    /// Parameters and result as written.
    pub signature: String,
    /// The export that runs a batch of it.
    pub export: String,
}

/// Why a manifest cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// It ends in the middle of an entry, or a length contradicts another.
    Malformed,
    /// It speaks another ABI.
    Version {
        /// Which.
        found: u32,
    },
    /// Two tasks have one identity.
    Duplicate {
        /// Their name.
        name: String,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("its list of tasks is malformed"),
            Self::Version { found } => {
                write!(f, "it speaks guest ABI {found}, this side {}; rebuild the older of the two", abi::VERSION)
            }
            Self::Duplicate { name } => write!(f, "two tasks `{name}` have one identity; give one of them a `name`"),
        }
    }
}

impl std::error::Error for ManifestError {}

const fn text_len(text: &str) -> usize {
    4 + text.len()
}

/// Length in bytes of a task's entry.
#[must_use]
pub const fn entry_len(info: &TaskInfo, export: &str) -> usize {
    4 + 4 + 8 + 8 + text_len(info.name) + text_len(info.signature) + text_len(export)
}

/// A task's entry; `N` is its [`entry_len`].
#[must_use]
pub const fn entry<const N: usize>(info: &TaskInfo, export: &str) -> [u8; N] {
    let mut out = [0; N];
    let mut at = put(&mut out, 0, &((N - 4) as u32).to_le_bytes());
    at = put(&mut out, at, &abi::VERSION.to_le_bytes());
    at = put(&mut out, at, &info.id.0.to_le_bytes());
    at = put(&mut out, at, &info.stamp.to_le_bytes());
    at = put_text(&mut out, at, info.name);
    at = put_text(&mut out, at, info.signature);
    put_text(&mut out, at, export);
    out
}

const fn put<const N: usize>(out: &mut [u8; N], at: usize, bytes: &[u8]) -> usize {
    let mut i = 0;
    while i < bytes.len() {
        out[at + i] = bytes[i];
        i += 1;
    }
    at + bytes.len()
}

const fn put_text<const N: usize>(out: &mut [u8; N], at: usize, text: &str) -> usize {
    let at = put(out, at, &(text.len() as u32).to_le_bytes());
    put(out, at, text.as_bytes())
}

/// Finds the manifest in a module: the contents of the custom section. `None` if there is none, or these are no WebAssembly module's
/// bytes. Walks over section headers only; whether the rest is valid is for the sandbox to say.
#[must_use]
pub fn section(wasm: &[u8]) -> Option<&[u8]> {
    let mut rest = wasm.strip_prefix(b"\0asm\x01\0\0\0")?;
    while let Some((&id, tail)) = rest.split_first() {
        rest = tail;
        let len = take_leb(&mut rest)?;
        let (mut body, tail) = rest.split_at_checked(len as usize)?;
        rest = tail;
        if id == 0 {
            let len = take_leb(&mut body)?;
            let (name, contents) = body.split_at_checked(len as usize)?;
            if name == abi::SECTION.as_bytes() {
                return Some(contents);
            }
        }
    }
    None
}

fn take_leb(from: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Reads a manifest: the contents of the custom section.
///
/// # Errors
/// When it is malformed, of another ABI version, or names an identity twice.
pub fn read(mut section: &[u8]) -> Result<Vec<ManifestEntry>, ManifestError> {
    let mut entries: Vec<ManifestEntry> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    while !section.is_empty() {
        let len = take_u32(&mut section)?;
        let mut entry = take(&mut section, len as usize)?;
        let version = take_u32(&mut entry)?;
        if version != abi::VERSION {
            return Err(ManifestError::Version { found: version });
        }
        let entry = ManifestEntry {
            id: TaskId(take_u64(&mut entry)?),
            stamp: take_u64(&mut entry)?,
            name: take_text(&mut entry)?,
            signature: take_text(&mut entry)?,
            export: take_text(&mut entry)?,
        };
        if !seen.insert(entry.id) {
            return Err(ManifestError::Duplicate { name: entry.name });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> Result<&'a [u8], ManifestError> {
    let (taken, rest) = from.split_at_checked(len).ok_or(ManifestError::Malformed)?;
    *from = rest;
    Ok(taken)
}

fn take_u32(from: &mut &[u8]) -> Result<u32, ManifestError> {
    take(from, 4)?.try_into().map(u32::from_le_bytes).map_err(|_| ManifestError::Malformed)
}

fn take_u64(from: &mut &[u8]) -> Result<u64, ManifestError> {
    take(from, 8)?.try_into().map(u64::from_le_bytes).map_err(|_| ManifestError::Malformed)
}

fn take_text(from: &mut &[u8]) -> Result<String, ManifestError> {
    let len = take_u32(from)?;
    String::from_utf8(take(from, len as usize)?.to_vec()).map_err(|_| ManifestError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    static INC: TaskInfo =
        TaskInfo { id: TaskId::of("inc"), stamp: 5, name: "inc", signature: "(x: i64) -> i64", options: crate::Options::DEFAULT };
    static ENTRY: [u8; entry_len(&INC, "e1")] = entry(&INC, "e1");

    #[test]
    fn entries_come_back() {
        let read = read(&ENTRY).expect("valid");
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].id, read[0].stamp), (INC.id, 5));
        assert_eq!((&*read[0].name, &*read[0].signature, &*read[0].export), ("inc", "(x: i64) -> i64", "e1"));
    }

    #[test]
    fn the_section_is_found_among_others() {
        let other = [0, 7, 5, b'o', b't', b'h', b'e', b'r', 1];
        let mut wasm = [&b"\0asm\x01\0\0\0"[..], &other, &[0, 0x80 | 0x49, 0x00]].concat();
        assert_eq!(section(&wasm), None, "cut off");
        wasm.truncate(8 + other.len());
        wasm.extend([0, (1 + 8 + ENTRY.len()) as u8, 8]);
        wasm.extend(b"quicsand");
        wasm.extend(ENTRY);
        assert_eq!(section(&wasm), Some(&ENTRY[..]));
        assert_eq!(section(b"\x7fELF"), None);
    }

    #[test]
    fn every_cut_is_refused() {
        for end in 1..ENTRY.len() {
            assert_eq!(read(&ENTRY[..end]), Err(ManifestError::Malformed), "cut at {end}");
        }
    }

    #[test]
    fn equal_identities_are_refused() {
        let twice = [ENTRY, ENTRY].concat();
        assert_eq!(read(&twice), Err(ManifestError::Duplicate { name: "inc".into() }));
    }
}
