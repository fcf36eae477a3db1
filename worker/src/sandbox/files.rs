//! Files of granted directories, open in a guest: numbered, bounded in number, for reading only. Must not know: the guest's memory.
//!
//! That no path leads out of its directory is `cap-std`'s to see to: it resolves paths beneath an open directory, by the kernel's own
//! means where there are any (`openat2` with RESOLVE_BENEATH), step by step elsewhere.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
    time::UNIX_EPOCH,
};

use cap_std::{
    fs::{Dir, File, FileType, Metadata, ReadDir},
    time::SystemTime,
};

use super::{grants::World, limits::Stop};

/// Files and directories that a guest may have open at a time, besides the granted ones; one that is being listed counts twice, as it does
/// to the system, which gives a process a thousand or so in all.
const OPEN: usize = 64;
/// The first number after the standard streams.
pub(crate) const FIRST: u32 = 3;
/// Bytes of a path, at most.
pub(crate) const PATH_BYTES: u32 = 4096;
/// Entries of a directory that are skipped or listed between two looks at whether the item has to stop.
const ENTRIES: u64 = 256;
/// Bytes before the name in an entry of a listing.
const ENTRY_BYTES: usize = 24;

/// An error number of WASI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    pub(crate) const ACCES: Self = Self(2);
    pub(crate) const BADF: Self = Self(8);
    pub(crate) const FAULT: Self = Self(21);
    pub(crate) const ILSEQ: Self = Self(25);
    pub(crate) const INVAL: Self = Self(28);
    const IO: Self = Self(29);
    const ISDIR: Self = Self(31);
    const LOOP: Self = Self(32);
    const MFILE: Self = Self(33);
    pub(crate) const NAMETOOLONG: Self = Self(37);
    const NFILE: Self = Self(41);
    const NOENT: Self = Self(44);
    pub(crate) const NOTDIR: Self = Self(54);
    pub(crate) const PERM: Self = Self(63);
    pub(crate) const ROFS: Self = Self(69);
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NOENT,
            // An error of cap-std's own: the path leads out of its directory.
            ErrorKind::PermissionDenied if error.raw_os_error().is_none() => Self::PERM,
            ErrorKind::PermissionDenied => Self::ACCES,
            ErrorKind::NotADirectory => Self::NOTDIR,
            ErrorKind::IsADirectory => Self::ISDIR,
            ErrorKind::InvalidInput => Self::INVAL,
            ErrorKind::InvalidFilename => Self::NAMETOOLONG,
            _ => Self::IO,
        }
    }
}

/// What a guest asks of a path that it opens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    /// A link at the path's end is followed.
    pub(crate) follow: bool,
    /// It has to be a directory.
    pub(crate) directory: bool,
    /// It is to be made, emptied or written.
    pub(crate) write: bool,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
    pub(crate) links: u64,
    pub(crate) len: u64,
    /// Nanoseconds since 1970: last read, last written, last changed.
    pub(crate) times: [u64; 3],
}

/// A kind of file, by WASI's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Other = 0,
    Directory = 3,
    File = 4,
    Link = 7,
}

/// What a guest has open. Numbers are never used twice, so that one that an item left behind in a static names nothing ever after.
#[derive(Debug, Default)]
pub(crate) struct Files {
    open: BTreeMap<u32, Open>,
    /// How far directories were listed, granted ones too.
    listings: BTreeMap<u32, Listing>,
    /// How many numbers were given out.
    given: u32,
}

#[derive(Debug)]
enum Open {
    File { file: File, position: u64 },
    Dir(Dir),
}

/// A directory that is being listed.
struct Listing {
    entries: ReadDir,
    /// The number of the next entry.
    at: u64,
    /// It, if it had been read already: it did not fit the last time.
    pending: Option<Entry>,
}

struct Entry {
    inode: u64,
    kind: Kind,
    name: Vec<u8>,
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Files {
    /// Closes everything: the item that opened it has ended.
    pub(crate) fn close_all(&mut self) {
        self.open.clear();
        self.listings.clear();
    }

    pub(crate) fn close(&mut self, fd: u32) -> Result<(), Errno> {
        self.listings.remove(&fd);
        self.open.remove(&fd).map(drop).ok_or(Errno::BADF)
    }

    /// What is open under this number: a directory or a file.
    pub(crate) fn kind(&self, world: &World, fd: u32) -> Result<Kind, Errno> {
        match self.open.get(&fd) {
            Some(Open::File { .. }) => Ok(Kind::File),
            _ => self.dir(world, fd).map(|_| Kind::Directory),
        }
    }

    /// Opens a file or directory for reading.
    pub(crate) fn open(&mut self, world: &World, at: u32, path: &str, how: How) -> Result<u32, Errno> {
        let dir = self.dir(world, at)?;
        if how.write {
            return Err(Errno::ROFS);
        }
        self.check_room()?;
        let opened = match look_up(dir, path, how.follow)?.kind {
            Kind::Directory => Open::Dir(dir.open_dir(path)?),
            Kind::File if how.directory => return Err(Errno::NOTDIR),
            Kind::File => Open::File { file: dir.open(path)?, position: 0 },
            Kind::Link => return Err(Errno::LOOP),
            // Opening a pipe or device, or reading it, may take for ever.
            Kind::Other => return Err(Errno::ACCES),
        };
        let fd = self.given.checked_add(granted(world)).filter(|&fd| fd < i32::MAX.cast_unsigned()).ok_or(Errno::NFILE)?;
        self.given += 1;
        self.open.insert(fd, opened);
        Ok(fd)
    }

    fn check_room(&self) -> Result<(), Errno> {
        if self.open.len() + self.listings.len() < OPEN { Ok(()) } else { Err(Errno::MFILE) }
    }

    /// Fills some of `room`, from the file's position, which moves on, or from `offset`. 0 at the file's end.
    pub(crate) fn read(&mut self, world: &World, fd: u32, offset: Option<u64>, room: &mut [u8]) -> Result<usize, Errno> {
        let (file, position) = self.file(world, fd)?;
        // Positions are kept here, so that reading elsewhere does not disturb them on any platform.
        file.seek(SeekFrom::Start(offset.unwrap_or(*position)))?;
        let len = file.read(room)?;
        if offset.is_none() {
            *position += len as u64;
        }
        Ok(len)
    }

    /// Moves a file's position; gives the new one. `whence` is 0 for the start, 1 for the position, 2 for the end.
    pub(crate) fn seek(&mut self, world: &World, fd: u32, offset: i64, whence: u32) -> Result<u64, Errno> {
        let (file, position) = self.file(world, fd)?;
        let base = match whence {
            0 => 0,
            1 => *position,
            2 => file.metadata()?.len(),
            _ => return Err(Errno::INVAL),
        };
        // Beyond this, no system can seek.
        *position = base.checked_add_signed(offset).filter(|&to| i64::try_from(to).is_ok()).ok_or(Errno::INVAL)?;
        Ok(*position)
    }

    pub(crate) fn stat(&self, world: &World, fd: u32) -> Result<Stat, Errno> {
        match self.open.get(&fd) {
            Some(Open::File { file, .. }) => Ok(Stat::of(&file.metadata()?)),
            _ => Ok(Stat::of(&self.dir(world, fd)?.dir_metadata()?)),
        }
    }

    pub(crate) fn stat_at(&self, world: &World, at: u32, path: &str, follow: bool) -> Result<Stat, Errno> {
        look_up(self.dir(world, at)?, path, follow)
    }

    /// Where a link points to, if that is in its directory.
    pub(crate) fn read_link(&self, world: &World, at: u32, path: &str) -> Result<Vec<u8>, Errno> {
        let target = self.dir(world, at)?.read_link(path)?;
        Ok(target.into_os_string().into_encoded_bytes())
    }

    /// Fills `room` with a directory's entries from number `cookie` on, as WASI wants them: the last one is cut where the room ends.
    /// Gives the length; less than the room is the directory's end.
    ///
    /// # Errors
    /// The outer one when the item has to stop, which `look` tells.
    pub(crate) fn list(
        &mut self,
        world: &World,
        fd: u32,
        cookie: u64,
        room: &mut [u8],
        mut look: impl FnMut() -> Result<(), Stop>,
    ) -> Result<Result<usize, Errno>, Stop> {
        let mut listing = match self.listings.remove(&fd) {
            Some(listing) if listing.at == cookie => listing,
            _ => match self.check_room().and_then(|()| Ok(self.dir(world, fd)?.entries()?)) {
                Ok(entries) => Listing { entries, at: 0, pending: None },
                Err(errno) => return Ok(Err(errno)),
            },
        };
        let mut len = 0;
        while len < room.len() {
            if listing.at.is_multiple_of(ENTRIES) {
                look()?;
            }
            let entry = match listing.pending.take().map_or_else(|| listing.next(), |entry| Ok(Some(entry))) {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(errno) => return Ok(Err(errno)),
            };
            if listing.at < cookie {
                listing.at += 1;
                continue;
            }
            let bytes = entry.to_bytes(listing.at + 1);
            let copied = bytes.len().min(room.len() - len);
            room[len..len + copied].copy_from_slice(&bytes[..copied]);
            len += copied;
            if copied < bytes.len() {
                listing.pending = Some(entry);
            } else {
                listing.at += 1;
            }
        }
        self.listings.insert(fd, listing);
        Ok(Ok(len))
    }

    /// The directory under this number, granted or opened.
    fn dir<'a>(&'a self, world: &'a World, fd: u32) -> Result<&'a Dir, Errno> {
        let granted = fd.checked_sub(FIRST).and_then(|at| world.dirs.get(at as usize));
        match (granted, self.open.get(&fd)) {
            (Some(granted), _) => Ok(&granted.dir),
            (None, Some(Open::Dir(dir))) => Ok(dir),
            (None, Some(Open::File { .. })) => Err(Errno::NOTDIR),
            (None, None) => Err(Errno::BADF),
        }
    }

    fn file(&mut self, world: &World, fd: u32) -> Result<(&mut File, &mut u64), Errno> {
        let is_dir = self.dir(world, fd).is_ok();
        match self.open.get_mut(&fd) {
            Some(Open::File { file, position }) => Ok((file, position)),
            _ if is_dir => Err(Errno::ISDIR),
            _ => Err(Errno::BADF),
        }
    }
}

/// The first number that no granted directory has.
fn granted(world: &World) -> u32 {
    u32::try_from(world.dirs.len()).unwrap_or(u32::MAX).saturating_add(FIRST)
}

fn look_up(dir: &Dir, path: &str, follow: bool) -> Result<Stat, Errno> {
    let found = if follow { dir.metadata(Path::new(path)) } else { dir.symlink_metadata(Path::new(path)) };
    Ok(Stat::of(&found?))
}

impl Listing {
    fn next(&mut self) -> Result<Option<Entry>, Errno> {
        let Some(entry) = self.entries.next().transpose()? else { return Ok(None) };
        let kind = Kind::of(entry.file_type()?);
        Ok(Some(Entry { inode: inode_of(&entry), kind, name: entry.file_name().into_encoded_bytes() }))
    }
}

impl Entry {
    fn to_bytes(&self, next: u64) -> Vec<u8> {
        let mut bytes = vec![0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&next.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.inode.to_le_bytes());
        bytes[16..20].copy_from_slice(&u32::try_from(self.name.len()).unwrap_or(0).to_le_bytes());
        bytes[20] = self.kind as u8;
        bytes.extend(&self.name);
        bytes
    }
}

impl Kind {
    fn of(kind: FileType) -> Self {
        match () {
            () if kind.is_dir() => Self::Directory,
            () if kind.is_file() => Self::File,
            () if kind.is_symlink() => Self::Link,
            () => Self::Other,
        }
    }
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        let ns = |time: io::Result<SystemTime>| {
            let since = time.ok().and_then(|time| time.into_std().duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        let (device, inode, links) = identity(metadata);
        let written = ns(metadata.modified());
        Self {
            device,
            inode,
            kind: Kind::of(metadata.file_type()),
            links,
            len: metadata.len(),
            times: [ns(metadata.accessed()), written, written],
        }
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64, u64) {
    use cap_std::fs::MetadataExt;
    (metadata.dev(), metadata.ino(), metadata.nlink())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64, u64) {
    (0, 0, 1)
}

#[cfg(unix)]
fn inode_of(entry: &cap_std::fs::DirEntry) -> u64 {
    use cap_std::fs::MetadataExt;
    entry.metadata().map_or(0, |metadata| metadata.ino())
}

#[cfg(not(unix))]
fn inode_of(_: &cap_std::fs::DirEntry) -> u64 {
    0
}
