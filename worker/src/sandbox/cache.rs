//! Compiled modules on disk. Owns: the directory, its secret, the files' form, and which process compiles what is missing. Must not
//! know: what is in a compiled module.
//!
//! Compiled code is trusted as code is, so a file counts only if this user's own cache wrote it: the directory is private, and
//! each file carries a BLAKE3 checksum keyed with a secret that lies there. A file that fails it (cut short, damaged, of another
//! secret) is as good as none. Failing to write is not an error: the next start compiles again.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use quicsand::ids::Hash;

/// Files kept; those used longest ago go first.
const FILES: usize = 64;
const SECRET: &str = "secret";
const EXTENSION: &str = "compiled";
const CLAIM: &str = "claim";
/// How often one that waits for another process looks again.
const LOOK: Duration = Duration::from_millis(1);
const SUM_BYTES: usize = 32;

/// A directory of compiled modules, and the secret that marks its files.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    secret: [u8; 32],
    /// Stands for the version and settings of the compiler.
    compiler: [u8; 32],
}

impl Cache {
    /// Opens or makes the cache in a directory of its own under `parent`.
    pub(crate) fn open(parent: &Path, compiler: [u8; 32]) -> io::Result<Self> {
        let dir = parent.join("compiled");
        fs::create_dir_all(&dir)?;
        make_private(&dir)?;
        let secret = read_secret(&dir)?;
        Ok(Self { dir, secret, compiler })
    }

    /// What was stored for the module `hash`, if it is there, whole and ours.
    pub(crate) fn get(&self, hash: Hash) -> Option<Vec<u8>> {
        let path = self.path(hash);
        let mut file = fs::read(&path).ok()?;
        if file.len() < SUM_BYTES {
            tracing::warn!(path = %path.display(), "a compiled module in the cache is cut short, compiling again");
            return None;
        }
        let compiled = file.split_off(SUM_BYTES);
        if self.sum(hash, &compiled) != <[u8; 32]>::try_from(file).ok()? {
            tracing::warn!(path = %path.display(), "a compiled module in the cache is damaged, compiling again");
            return None;
        }
        // The time of use decides what goes first; not being able to set it costs a compilation some day.
        let _ = fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(compiled)
    }

    /// Waits while another process of this user compiles the module `hash`, but no longer than `patience`. Until the claim is dropped,
    /// others wait; one that cannot be had costs them a compilation.
    pub(crate) fn claim(&self, hash: Hash, patience: Duration) -> Option<Claim> {
        let path = self.path(hash).with_extension(CLAIM);
        let file = File::create(&path).ok()?;
        let since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Some(Claim { path, file }),
                Err(TryLockError::WouldBlock) if since.elapsed() < patience => thread::sleep(LOOK),
                Err(_) => return None,
            }
        }
    }

    /// Stores what the module `hash` compiled to.
    pub(crate) fn put(&self, hash: Hash, compiled: &[u8]) {
        if let Err(error) = self.write(hash, compiled).and_then(|()| self.make_room()) {
            tracing::warn!(dir = %self.dir.display(), %error, "a compiled module could not be cached");
        }
    }

    fn write(&self, hash: Hash, compiled: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(&self.sum(hash, compiled))?;
        file.write_all(compiled)?;
        file.persist(self.path(hash))?;
        Ok(())
    }

    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        for (_, path) in files.iter().rev().skip(FILES) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn sum(&self, hash: Hash, compiled: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&self.compiler).update(&hash.0).update(compiled);
        *hasher.finalize().as_bytes()
    }

    fn path(&self, hash: Hash) -> PathBuf {
        let compiler = Hash(self.compiler).to_string();
        self.dir.join(format!("{hash}-{}.{EXTENSION}", &compiler[..16]))
    }
}

/// Leave to compile a module that other processes of this user wait for.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    file: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Whoever waits has the file open, and takes it then. If it stays, it does no harm.
        let _ = fs::remove_file(&self.path);
        // Closing it is not enough: a child that was started a moment ago has it open, too, until it becomes another program.
        let _ = self.file.unlock();
    }
}

fn read_secret(dir: &Path) -> io::Result<[u8; 32]> {
    let path = dir.join(SECRET);
    let read = || fs::read(&path).ok()?.try_into().ok();
    if let Some(secret) = read() {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    // Temporary files are readable by their owner only.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&secret)?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(secret),
        // Another process was first, or what is there is no secret.
        Err(error) => match read() {
            Some(secret) => Ok(secret),
            None => error.file.persist(&path).map(|_| secret).map_err(io::Error::from),
        },
    }
}

#[cfg(unix)]
fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    // A file that we make belongs to us: compare, rather than ask the system who we are.
    let own = tempfile::tempfile_in(dir)?.metadata()?.uid();
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() || found.uid() != own {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory belongs to somebody else"));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn make_private(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_of_this_cache_come_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(dir.path(), [1; 32]).expect("opens");
        let hash = Hash::of(b"module");
        assert_eq!(cache.get(hash), None);
        cache.put(hash, b"code");
        assert_eq!(Cache::open(dir.path(), [1; 32]).expect("opens").get(hash).as_deref(), Some(&b"code"[..]));
        assert_eq!(Cache::open(dir.path(), [2; 32]).expect("opens").get(hash), None, "of another compiler");

        let path = cache.path(hash);
        let whole = fs::read(&path).expect("is there");
        fs::copy(&path, cache.path(Hash::of(b"other"))).expect("copies");
        assert_eq!(cache.get(Hash::of(b"other")), None, "of another module");
        for bad in [&whole[..10], &whole[..whole.len() - 1], &[]] {
            fs::write(&path, bad).expect("writes");
            assert_eq!(cache.get(hash), None);
        }
        fs::write(&path, &whole).expect("writes");
        fs::write(cache.dir.join(SECRET), [9; 32]).expect("writes");
        assert_eq!(Cache::open(dir.path(), [1; 32]).expect("opens").get(hash), None, "of another secret");
    }

    #[test]
    fn a_claim_keeps_others_waiting_for_a_while() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || Cache::open(dir.path(), [1; 32]).expect("opens");
        let (one, other) = (open(), open());
        let (hash, long) = (Hash::of(b"module"), Duration::from_secs(3600));
        let claim = one.claim(hash, long).expect("nobody else has it");
        assert!(other.claim(hash, Duration::ZERO).is_none(), "its patience is at an end");
        assert!(other.claim(Hash::of(b"other"), long).is_some());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let _claim = other.claim(hash, long).expect("the first is gone");
                other.get(hash)
            });
            one.put(hash, b"code");
            drop(claim);
            assert_eq!(waiting.join().expect("ends").as_deref(), Some(&b"code"[..]));
        });
        assert!(!one.path(hash).with_extension(CLAIM).exists(), "claims leave nothing behind");
    }

    #[test]
    fn those_that_come_at_once_have_one_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || Cache::open(dir.path(), [1; 32]).expect("opens").secret;
        let secrets: Vec<_> = thread::scope(|scope| {
            let opening: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            opening.into_iter().map(|opened| opened.join().expect("ends")).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == open()));
        fs::write(dir.path().join("compiled").join(SECRET), b"short").expect("writes");
        assert_eq!(open(), open(), "what is no secret is replaced");
    }

    #[test]
    #[cfg(unix)]
    fn the_directory_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(dir.path(), [1; 32]).expect("opens");
        for (path, mode) in [(cache.dir.clone(), 0o700), (cache.dir.join(SECRET), 0o600)] {
            assert_eq!(fs::metadata(path).expect("is there").permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn old_files_make_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(dir.path(), [1; 32]).expect("opens");
        for i in 0..FILES + 3 {
            cache.put(Hash::of(&i.to_le_bytes()), b"code");
        }
        let files = fs::read_dir(&cache.dir).expect("is there").count();
        assert_eq!(files, FILES + 1, "and the secret");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_only_logged() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(dir.path(), [1; 32]).expect("opens");
        fs::remove_dir_all(&cache.dir).expect("removes");
        cache.put(Hash::of(b"module"), b"code");
        assert_eq!(cache.get(Hash::of(b"module")), None);
    }
}
