//! The stamp: a hash of the source file that holds a task. Program and module were built from the same sources if it is equal.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use proc_macro2::{Ident, TokenStream};

use crate::text::{self, Fnv};

/// Stamps by file; a file that was changed since is read again, for processes that outlive a build.
static SEEN: Mutex<Option<HashMap<PathBuf, (SystemTime, u64)>>> = Mutex::new(None);

/// Hashes the file that `ident` stands in, or the tokens of `item` where there is no such file.
pub(crate) fn stamp(ident: &Ident, item: &TokenStream) -> u64 {
    source_file(ident)
        .and_then(|path| of_file(&path))
        .unwrap_or_else(|| Fnv::new().with(text::of(item.clone()).as_bytes()).finish())
}

/// The file that the compiler read `ident` from.
pub(crate) fn source_file(ident: &Ident) -> Option<PathBuf> {
    // Spans of the compiler exist while it runs the macro; unit tests have none.
    proc_macro::is_available().then(|| ident.span().unwrap().local_file()).flatten()
}

fn of_file(path: &Path) -> Option<u64> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = seen.get_or_insert_default();
    if let Some((at, stamp)) = seen.get(path)
        && *at == modified
    {
        return Some(*stamp);
    }
    let stamp = Fnv::new().with(&fs::read(path).ok()?).finish();
    seen.insert(path.to_owned(), (modified, stamp));
    Some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_another_stamp() {
        let path = std::env::temp_dir().join(format!("quicsand-stamp-{}", std::process::id()));
        fs::write(&path, "fn a() {}").expect("written");
        let first = of_file(&path);
        assert_eq!(first, Some(Fnv::new().with(b"fn a() {}").finish()));
        assert_eq!(of_file(&path), first);
        fs::write(&path, "fn b() {}").expect("written");
        fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).expect("dated");
        assert_ne!(of_file(&path), first);
        fs::remove_file(&path).expect("removed");
        assert_eq!(of_file(&path), None);
    }
}
