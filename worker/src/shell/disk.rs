//! Spilled values: files in a private directory of this run, and the thread that reads and writes them. Must not know: which values go
//! there, or when.
//!
//! One thread does everything in order, so that a file is not removed before what came earlier is done with it. The directory is made when
//! first something is written, and goes with the values that it is for.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
};

use bytes::Bytes;
use quicsand::ids::Hash;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::state::Event;

/// Where spilled values go. Once it is closed or dropped, and what it was asked for before is done, the directory goes.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    jobs: mpsc::Sender<Job>,
}

/// What the thread is to do.
#[derive(Debug)]
enum Job {
    Write {
        file: u64,
        bytes: Bytes,
    },
    Read {
        file: u64,
        len: u64,
        hash: Hash,
    },
    /// For a peer. If it is damaged, an event tells.
    Serve {
        file: u64,
        len: u64,
        hash: Hash,
        to: oneshot::Sender<Bytes>,
    },
    Remove {
        file: u64,
    },
    /// Say when this is reached.
    Settle(oneshot::Sender<()>),
    /// Remove everything, and end.
    End,
}

impl Disk {
    /// Starts the thread. `parent` is where the directory will be made, the system's place for temporary files if nothing is said.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(parent: Option<PathBuf>, tell: impl Fn(Event) + Send + 'static) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let serve = move || {
            let mut files = Files { parent: parent.unwrap_or_else(std::env::temp_dir), dir: None };
            while let Some(job) = todo.recv().ok().filter(|job| !matches!(job, Job::End)) {
                if let Some(event) = files.carry_out(job) {
                    tell(event);
                }
            }
        };
        let thread = std::thread::Builder::new().name("quicsand-disk".into()).spawn(serve)?;
        Ok((Self { jobs }, thread))
    }

    /// Ends in [`Event::Spilled`] or [`Event::NotSpilled`].
    pub(super) fn write(&self, file: u64, bytes: Bytes) {
        self.order(Job::Write { file, bytes });
    }

    /// Ends in [`Event::Loaded`].
    pub(super) fn read(&self, file: u64, len: u64, hash: Hash) {
        self.order(Job::Read { file, len, hash });
    }

    /// What is in a file, for a peer; `None` if it is gone or damaged. Dropping the future changes nothing.
    pub(super) async fn serve(&self, file: u64, len: u64, hash: Hash) -> Option<Bytes> {
        let (to, answer) = oneshot::channel();
        self.order(Job::Serve { file, len, hash, to });
        answer.await.ok()
    }

    /// Removes a file.
    pub(super) fn remove(&self, file: u64) {
        self.order(Job::Remove { file });
    }

    /// Waits until everything that was ordered before is done and told; `false` if nothing is done any more.
    pub(super) async fn settle(&self) -> bool {
        let (to, answer) = oneshot::channel();
        self.order(Job::Settle(to));
        answer.await.is_ok()
    }

    /// Removes everything; nothing is answered any more.
    pub(super) fn close(&self) {
        self.order(Job::End);
    }

    fn order(&self, job: Job) {
        // Nobody is there after the end, when nothing matters any more.
        let _ = self.jobs.send(job);
    }
}

/// The directory, once there is one.
struct Files {
    parent: PathBuf,
    dir: Option<TempDir>,
}

impl Files {
    fn carry_out(&mut self, job: Job) -> Option<Event> {
        match job {
            Job::Write { file, bytes } => Some(match self.write(file, &bytes) {
                Ok(()) => Event::Spilled { file },
                Err(error) => {
                    let parent = self.parent.display();
                    tracing::error!(%parent, %error, "values cannot be spilled to disk: from now on all of them stay in memory");
                    Event::NotSpilled { file }
                }
            }),
            Job::Read { file, len, hash } => Some(Event::Loaded { file, bytes: self.read(file, len, hash) }),
            Job::Serve { file, len, hash, to } => match self.read(file, len, hash) {
                Some(bytes) => {
                    // Nobody to tell: the peer has gone.
                    let _ = to.send(bytes);
                    None
                }
                None => Some(Event::Damaged { file }),
            },
            Job::Settle(to) => {
                // Nobody waits any more.
                let _ = to.send(());
                None
            }
            Job::End => None,
            Job::Remove { file } => {
                // What cannot be removed goes with the directory.
                let _ = fs::remove_file(self.path(file)?);
                None
            }
        }
    }

    fn write(&mut self, file: u64, bytes: &[u8]) -> io::Result<()> {
        if self.dir.is_none() {
            self.dir = Some(private_directory(&self.parent)?);
        }
        let path = self.path(file).ok_or(io::ErrorKind::NotFound)?;
        let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(bytes));
        written.inspect_err(|_| drop(fs::remove_file(&path)))
    }

    /// What was written, if it still is that.
    fn read(&self, file: u64, len: u64, hash: Hash) -> Option<Bytes> {
        let path = self.path(file)?;
        let bytes = read_exactly(&path, len).ok().filter(|bytes| Hash::of(bytes) == hash);
        if bytes.is_none() {
            tracing::error!(path = %path.display(), "a spilled value is damaged or gone, it counts as lost");
        }
        bytes.map(Bytes::from)
    }

    fn path(&self, file: u64) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.path().join(file.to_string()))
    }
}

/// A new directory that only this user can look into.
fn private_directory(parent: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("quicsand-spill-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir_in(parent)
}

fn read_exactly(path: &Path, len: u64) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    // Before room is made for it.
    if file.metadata()?.len() != len {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk, its directory, and what it tells.
    fn disk() -> (Disk, JoinHandle<()>, TempDir, mpsc::Receiver<Event>) {
        let dir = tempfile::tempdir().expect("a directory");
        let (tell, told) = mpsc::channel();
        let (disk, thread) = Disk::start(Some(dir.path().into()), move |event| drop(tell.send(event))).expect("starts");
        (disk, thread, dir, told)
    }

    /// The one directory that was made there.
    fn made(dir: &TempDir) -> PathBuf {
        fs::read_dir(dir).expect("is there").next().expect("a directory").expect("an entry").path()
    }

    fn read(disk: &Disk, told: &mpsc::Receiver<Event>, file: u64, bytes: &'static [u8]) -> Option<Bytes> {
        disk.read(file, bytes.len() as u64, Hash::of(bytes));
        match told.recv().expect("an event") {
            Event::Loaded { file: found, bytes } if found == file => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_come_back_and_leave_nothing_behind() {
        let (disk, thread, dir, told) = disk();
        for (file, bytes) in [(0, &b"zero"[..]), (1, b"one")] {
            disk.write(file, Bytes::from_static(bytes));
            assert!(matches!(told.recv(), Ok(Event::Spilled { file: found }) if found == file));
        }
        assert_eq!(read(&disk, &told, 1, b"one").as_deref(), Some(&b"one"[..]));
        disk.remove(1);
        assert_eq!(read(&disk, &told, 1, b"one"), None);
        assert_eq!(read(&disk, &told, 0, b"zero").as_deref(), Some(&b"zero"[..]));
        assert_eq!(fs::read_dir(made(&dir)).expect("is there").count(), 1);
        disk.close();
        thread.join().expect("no panic");
        disk.write(2, Bytes::new());
        assert!(told.recv().is_err(), "nothing more is done");
        assert_eq!(fs::read_dir(&dir).expect("is there").count(), 0);
    }

    #[test]
    fn damage_is_noticed() {
        let (disk, _thread, dir, told) = disk();
        disk.write(0, Bytes::from_static(b"value"));
        assert!(matches!(told.recv(), Ok(Event::Spilled { .. })));
        let path = made(&dir).join("0");
        for bad in [&b"valuE"[..], b"valu", b"values", b""] {
            fs::write(&path, bad).expect("writes");
            assert_eq!(read(&disk, &told, 0, b"value"), None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(disk.serve(0, 5, Hash::of(b"value"))), None);
        assert!(matches!(told.recv(), Ok(Event::Damaged { file: 0 })));
        fs::write(&path, "value").expect("writes");
        assert_eq!(runtime.block_on(disk.serve(0, 5, Hash::of(b"value"))), Some(Bytes::from_static(b"value")));
    }

    #[test]
    #[cfg(unix)]
    fn the_directory_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let (disk, _thread, dir, told) = disk();
        assert_eq!(fs::read_dir(&dir).expect("is there").count(), 0, "made when first it is needed");
        disk.write(0, Bytes::from_static(b"value"));
        told.recv().expect("an event");
        assert_eq!(made(&dir).metadata().expect("is there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_place_that_is_not_there_is_told() {
        let (tell, told) = mpsc::channel();
        let (disk, _thread) = Disk::start(Some("/nowhere".into()), move |event| drop(tell.send(event))).expect("starts");
        disk.write(0, Bytes::from_static(b"value"));
        assert!(matches!(told.recv(), Ok(Event::NotSpilled { file: 0 })));
    }
}
