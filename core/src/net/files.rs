//! Files that only their owner can read, written whole or not at all, and records in them that show damage. Must not know: what they
//! are for.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{codec, ids::Hash};

/// Where this user's quicsand keeps what is to outlive it: the directory that `QUICSAND_STATE` names, or else `quicsand` under
/// `XDG_STATE_HOME` or `~/.local/state`. `None` where there is no home.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    let named = env::var_os("QUICSAND_STATE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    named.or_else(|| Some(home()?.join("quicsand")))
}

/// Why a record cannot be read.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    /// There is no such file.
    #[error("it is not there")]
    Missing,
    /// It is something else, or not whole.
    #[error("it is damaged")]
    Damaged,
    /// The system says so.
    #[error(transparent)]
    Io(io::Error),
}

/// Makes a directory that only its owner can look into. One that is there already stays as it is.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

/// Writes a file that only its owner can read, whole or not at all, also if the machine stops meanwhile.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (number, process) = (NUMBER.fetch_add(1, Ordering::Relaxed), std::process::id());
    let temporary = path.with_extension(format!("{process}-{number}.new"));
    let written = private().create_new(true).open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // The error that is told is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The name is in the directory, which not all systems can sync.
    if let Some(directory) = path.parent().and_then(|parent| File::open(parent).ok()) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// As [`write`], a value of that kind with its checksum.
pub(crate) fn write_record<T: Serialize>(path: &Path, kind: &str, value: &T) -> io::Result<()> {
    let body = postcard::to_stdvec(value).map_err(io::Error::other)?;
    write(path, &[head(kind).as_bytes(), &Hash::of(&body).0, &body].concat())
}

/// Reads what [`write_record`] wrote. Its decoding fails rather than asks for more memory than the file has bytes.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path, kind: &str) -> Result<T, RecordError> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RecordError::Missing,
        _ => RecordError::Io(error),
    })?;
    let sealed = bytes.strip_prefix(head(kind).as_bytes()).ok_or(RecordError::Damaged)?;
    let (hash, body) = sealed.split_first_chunk().ok_or(RecordError::Damaged)?;
    if Hash::of(body) != Hash(*hash) {
        return Err(RecordError::Damaged);
    }
    codec::decode(body).map_err(|_| RecordError::Damaged)
}

/// A lock that ends with this value or the process.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that was started a moment ago has it open, too, until it becomes another program.
        let _ = self.0.unlock();
    }
}

/// Takes a lock; `None` if somebody has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<Lock>> {
    let file = private().create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn head(kind: &str) -> String {
    format!("quicsand {kind} 1\n")
}

/// Whether others than its owner can read it.
#[cfg(unix)]
pub(crate) fn is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Not to be found out here.
#[cfg(not(unix))]
pub(crate) fn is_exposed(_: &Path) -> bool {
    false
}

/// A directory of a test's own, removed again.
#[cfg(test)]
pub(crate) struct Scratch(pub(crate) PathBuf);

#[cfg(test)]
impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (number, process) = (NUMBER.fetch_add(1, Ordering::Relaxed), std::process::id());
        Self(env::temp_dir().join(format!("quicsand-{name}-{process}-{number}")))
    }
}

#[cfg(test)]
impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damage_shows() {
        let scratch = Scratch::new("files");
        create_directory(&scratch.0).expect("made");
        let path = scratch.0.join("record");
        let read = || read_record::<Vec<String>>(&path, "test");
        assert!(matches!(read(), Err(RecordError::Missing)));
        let value = vec!["one".to_owned(), "two".to_owned()];
        write_record(&path, "test", &value).expect("written");
        assert_eq!(read().expect("whole"), value);
        assert!(matches!(read_record::<Vec<String>>(&path, "other"), Err(RecordError::Damaged)));
        let whole = fs::read(&path).expect("there");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            write(&path, &bytes).expect("written");
            assert!(matches!(read(), Err(RecordError::Damaged)), "byte {at}");
            write(&path, &whole[..at]).expect("written");
            assert!(matches!(read(), Err(RecordError::Damaged)), "{at} bytes");
        }
        assert_eq!(fs::read_dir(&scratch.0).expect("there").count(), 1, "something was left behind");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_them() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new("modes");
        create_directory(&scratch.0.join("inner")).expect("made");
        let path = scratch.0.join("inner/record");
        write_record(&path, "test", &1).expect("written");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert!(!is_exposed(&path));
        assert_eq!([mode(&scratch.0), mode(&scratch.0.join("inner")), mode(&path)], [0o700, 0o700, 0o600]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        assert!(is_exposed(&path));
    }

    #[test]
    fn a_lock_is_one_owners_at_a_time() {
        let scratch = Scratch::new("lock");
        create_directory(&scratch.0).expect("made");
        let path = scratch.0.join("lock");
        let held = lock(&path).expect("made").expect("free");
        assert!(lock(&path).expect("made").is_none());
        let of_a_child = held.0.try_clone().expect("open");
        drop(held);
        assert!(lock(&path).expect("made").is_some());
        drop(of_a_child);
    }
}
