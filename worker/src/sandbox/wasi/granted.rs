//! The functions of preview 1 that reach what the worker's owner grants: variables, and directories to read. Must not know: how paths are
//! kept inside their directory.

use wasmtime::{Caller, Engine, Error, Linker, Result, Val};

use super::{Guest, MODULE, SUCCESS, VECTORS, parts, put, signature, slice};
use crate::sandbox::files::{Errno, FIRST, How, Kind, PATH_BYTES, Stat};

/// Bytes that one call reads at most before it looks whether the item has to stop.
const READ_BYTES: usize = 1 << 20;

/// Functions that would change what a directory holds: name, parameters (`i` for `i32`, `I` for `i64`), which of them is the directory.
pub(super) const READ_ONLY: &[(&str, &str, usize)] = &[
    ("path_create_directory", "iii", 0),
    ("path_filestat_set_times", "iiiiIIi", 0),
    ("path_link", "iiiiiii", 4),
    ("path_remove_directory", "iii", 0),
    ("path_rename", "iiiiii", 0),
    ("path_symlink", "iiiii", 2),
    ("path_unlink_file", "iii", 0),
];

/// Rights, by WASI's numbers.
mod rights {
    pub(super) const FD_READ: u64 = 1 << 1;
    pub(super) const FD_SEEK: u64 = 1 << 2;
    pub(super) const FD_TELL: u64 = 1 << 5;
    pub(super) const FD_WRITE: u64 = 1 << 6;
    pub(super) const FD_ALLOCATE: u64 = 1 << 8;
    pub(super) const PATH_OPEN: u64 = 1 << 13;
    pub(super) const FD_READDIR: u64 = 1 << 14;
    pub(super) const PATH_READLINK: u64 = 1 << 15;
    pub(super) const PATH_FILESTAT_GET: u64 = 1 << 18;
    pub(super) const FD_FILESTAT_GET: u64 = 1 << 21;
    pub(super) const FD_FILESTAT_SET_SIZE: u64 = 1 << 22;
    pub(super) const POLL_FD_READWRITE: u64 = 1 << 27;
    pub(super) const ALL: u64 = (1 << 30) - 1;
}

/// Adds the functions to a linker.
pub(super) fn link(linker: &mut Linker<Guest>, engine: &Engine) -> Result<()> {
    linker.func_wrap(MODULE, "environ_get", environ_get)?;
    linker.func_wrap(MODULE, "environ_sizes_get", environ_sizes_get)?;
    linker.func_wrap(MODULE, "fd_close", fd_close)?;
    linker.func_wrap(MODULE, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(MODULE, "fd_filestat_get", fd_filestat_get)?;
    linker.func_wrap(MODULE, "fd_pread", fd_pread)?;
    linker.func_wrap(MODULE, "fd_prestat_dir_name", fd_prestat_dir_name)?;
    linker.func_wrap(MODULE, "fd_prestat_get", fd_prestat_get)?;
    linker.func_wrap(MODULE, "fd_read", fd_read)?;
    linker.func_wrap(MODULE, "fd_readdir", fd_readdir)?;
    linker.func_wrap(MODULE, "fd_seek", fd_seek)?;
    linker.func_wrap(MODULE, "fd_tell", |caller: Caller<'_, Guest>, fd: i32, out: i32| fd_seek(caller, fd, 0, 1, out))?;
    linker.func_wrap(MODULE, "path_filestat_get", path_filestat_get)?;
    linker.func_wrap(MODULE, "path_open", path_open)?;
    linker.func_wrap(MODULE, "path_readlink", path_readlink)?;
    for &(name, params, dir) in READ_ONLY {
        linker.func_new(MODULE, name, signature(engine, params), move |mut caller, params, results| {
            let fd = params.get(dir).and_then(Val::i32).unwrap_or(-1);
            results.fill(Val::I32(reach(&mut caller, |_, guest| read_only(guest, fd))?));
            Ok(())
        })?;
    }
    Ok(())
}

/// Does something for the item that the guest is at; the number of its error, or of success.
fn reach(
    caller: &mut Caller<'_, Guest>,
    act: impl FnOnce(&mut [u8], &mut Guest) -> Result<std::result::Result<(), Errno>>,
) -> Result<i32> {
    let (memory, guest) = parts(caller)?;
    guest.look(memory)?;
    guest.turn(memory);
    Ok(act(memory, guest)?.map_or_else(|errno| errno.0, |()| SUCCESS))
}

/// The same, of what cannot take long.
fn reach_soon(
    mut caller: Caller<'_, Guest>,
    act: impl FnOnce(&mut [u8], &mut Guest) -> std::result::Result<(), Errno>,
) -> Result<i32> {
    reach(&mut caller, |memory, guest| Ok(act(memory, guest)))
}

fn store(memory: &mut [u8], at: i32, bytes: &[u8]) -> std::result::Result<(), Errno> {
    match put(memory, at, bytes) {
        SUCCESS => Ok(()),
        errno => Err(Errno(errno)),
    }
}

fn path_at(memory: &[u8], at: i32, len: i32) -> std::result::Result<&str, Errno> {
    let len = len.cast_unsigned();
    if len > PATH_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    let path = slice(memory, at.cast_unsigned(), len).ok_or(Errno::FAULT)?;
    std::str::from_utf8(path).map_err(|_| Errno::ILSEQ)
}

fn room(memory: &mut [u8], at: u32, len: usize) -> std::result::Result<&mut [u8], Errno> {
    memory.get_mut(at as usize..).and_then(|rest| rest.get_mut(..len)).ok_or(Errno::FAULT)
}

fn read_only(guest: &Guest, fd: i32) -> Result<std::result::Result<(), Errno>> {
    Ok(guest.files.kind(&guest.world, fd.cast_unsigned()).and_then(|kind| match kind {
        Kind::Directory => Err(Errno::ROFS),
        _ => Err(Errno::NOTDIR),
    }))
}

fn environ_sizes_get(caller: Caller<'_, Guest>, count: i32, bytes: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| {
        let environment = &guest.world.environment;
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        store(memory, count, &number(environment.len()))?;
        store(memory, bytes, &number(environment.iter().map(Vec::len).sum()))
    })
}

fn environ_get(caller: Caller<'_, Guest>, pointers: i32, bytes: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| {
        let (mut pointer, mut at) = (pointers, bytes);
        for entry in &guest.world.environment {
            store(memory, pointer, &at.to_le_bytes())?;
            store(memory, at, entry)?;
            pointer = pointer.wrapping_add(4);
            // All of it together is a mebibyte at most.
            at = at.wrapping_add(i32::try_from(entry.len()).unwrap_or(i32::MAX));
        }
        Ok(())
    })
}

fn fd_prestat_get(caller: Caller<'_, Guest>, fd: i32, out: i32) -> Result<i32> {
    const DIRECTORY: u32 = 0;
    reach_soon(caller, |memory, guest| {
        let len = u32::try_from(granted_name(guest, fd)?.len()).unwrap_or(u32::MAX);
        let mut prestat = [0; 8];
        prestat[..4].copy_from_slice(&DIRECTORY.to_le_bytes());
        prestat[4..].copy_from_slice(&len.to_le_bytes());
        store(memory, out, &prestat)
    })
}

fn fd_prestat_dir_name(caller: Caller<'_, Guest>, fd: i32, out: i32, len: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| match granted_name(guest, fd)?.as_bytes() {
        name if name.len() > len.cast_unsigned() as usize => Err(Errno::NAMETOOLONG),
        name => store(memory, out, name),
    })
}

fn granted_name(guest: &Guest, fd: i32) -> std::result::Result<&str, Errno> {
    let at = fd.cast_unsigned().checked_sub(FIRST).ok_or(Errno::BADF)?;
    guest.world.dirs.get(at as usize).map(|granted| &*granted.name).ok_or(Errno::BADF)
}

fn fd_fdstat_get(caller: Caller<'_, Guest>, fd: i32, out: i32) -> Result<i32> {
    use rights::*;
    const STREAM: u8 = 2;
    const FILE: u64 = FD_READ | FD_SEEK | FD_TELL | FD_FILESTAT_GET | POLL_FD_READWRITE;
    const DIR: u64 = PATH_OPEN | FD_READDIR | PATH_READLINK | PATH_FILESTAT_GET | FD_FILESTAT_GET;
    reach_soon(caller, |memory, guest| {
        let (kind, rights, of_what_it_opens) = match fd {
            0 => (STREAM, FD_READ, 0),
            1 | 2 => (STREAM, FD_WRITE, 0),
            // A guest's libc asks `path_open` only for rights that are listed here: without all of them, it would open a file for reading
            // where its program means to write, and the refusal would come later and say less.
            fd => match guest.files.kind(&guest.world, fd.cast_unsigned())? {
                Kind::Directory => (Kind::Directory as u8, DIR, ALL),
                kind => (kind as u8, FILE, 0),
            },
        };
        let mut stat = [0; 24];
        stat[0] = kind;
        stat[8..16].copy_from_slice(&rights.to_le_bytes());
        stat[16..].copy_from_slice(&of_what_it_opens.to_le_bytes());
        store(memory, out, &stat)
    })
}

fn fd_close(caller: Caller<'_, Guest>, fd: i32) -> Result<i32> {
    reach_soon(caller, |_, guest| guest.files.close(fd.cast_unsigned()))
}

fn fd_filestat_get(caller: Caller<'_, Guest>, fd: i32, out: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| {
        let stat = guest.files.stat(&guest.world, fd.cast_unsigned())?;
        store(memory, out, &bytes_of(&stat))
    })
}

fn path_filestat_get(caller: Caller<'_, Guest>, fd: i32, flags: i32, path: i32, len: i32, out: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| {
        let path = path_at(memory, path, len)?;
        let stat = guest.files.stat_at(&guest.world, fd.cast_unsigned(), path, follows(flags))?;
        store(memory, out, &bytes_of(&stat))
    })
}

/// Whether the flags for looking a path up ask to follow a link at its end.
fn follows(flags: i32) -> bool {
    flags & 1 != 0
}

fn bytes_of(stat: &Stat) -> [u8; 64] {
    let mut bytes = [0; 64];
    let [read, written, changed] = stat.times;
    let numbers = [stat.device, stat.inode, u64::from(stat.kind as u8), stat.links, stat.len, read, written, changed];
    for (place, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *place = number.to_le_bytes();
    }
    bytes
}

#[expect(clippy::too_many_arguments, reason = "as many as WASI has")]
fn path_open(
    caller: Caller<'_, Guest>,
    fd: i32,
    look_up: i32,
    path: i32,
    len: i32,
    open: i32,
    rights: i64,
    _inherited: i64,
    mode: i32,
    out: i32,
) -> Result<i32> {
    use rights::{FD_ALLOCATE, FD_FILESTAT_SET_SIZE, FD_WRITE};
    const CREATE: i32 = 1;
    const DIRECTORY: i32 = 1 << 1;
    const TRUNCATE: i32 = 1 << 3;
    const APPEND: i32 = 1;
    reach_soon(caller, |memory, guest| {
        let changes = open & (CREATE | TRUNCATE) | mode & APPEND != 0;
        let writes = rights.cast_unsigned() & (FD_WRITE | FD_ALLOCATE | FD_FILESTAT_SET_SIZE) != 0;
        let how = How { follow: follows(look_up), directory: open & DIRECTORY != 0, write: changes || writes };
        // Before it is opened: a number that the guest never gets could not be closed either.
        room(memory, out.cast_unsigned(), 4)?;
        let path = path_at(memory, path, len)?;
        let opened = guest.files.open(&guest.world, fd.cast_unsigned(), path, how)?;
        store(memory, out, &opened.to_le_bytes())
    })
}

fn path_readlink(caller: Caller<'_, Guest>, fd: i32, path: i32, len: i32, to: i32, room_len: i32, out: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| {
        let path = path_at(memory, path, len)?;
        let mut target = guest.files.read_link(&guest.world, fd.cast_unsigned(), path)?;
        target.truncate(room_len.cast_unsigned() as usize);
        store(memory, to, &target)?;
        store(memory, out, &u32::try_from(target.len()).unwrap_or(0).to_le_bytes())
    })
}

fn fd_read(caller: Caller<'_, Guest>, fd: i32, vectors: i32, count: i32, out: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| {
        // Standard input is at its end.
        if fd == 0 { store(memory, out, &[0; 4]) } else { read(memory, guest, fd, None, (vectors, count, out)) }
    })
}

fn fd_pread(caller: Caller<'_, Guest>, fd: i32, vectors: i32, count: i32, offset: i64, out: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| match u64::try_from(offset) {
        Ok(offset) => read(memory, guest, fd, Some(offset), (vectors, count, out)),
        Err(_) => Err(Errno::INVAL),
    })
}

/// Fills vectors from a file until they are full, the file is at its end, or it is enough for one call.
fn read(
    memory: &mut [u8],
    guest: &mut Guest,
    fd: i32,
    offset: Option<u64>,
    (vectors, count, out): (i32, i32, i32),
) -> std::result::Result<(), Errno> {
    let count = count.cast_unsigned();
    if count > VECTORS {
        return Err(Errno::INVAL);
    }
    let vectors = slice(memory, vectors.cast_unsigned(), count * 8).ok_or(Errno::FAULT)?.as_chunks::<8>().0.to_vec();
    // Before anything is read: it would be lost.
    room(memory, out.cast_unsigned(), 4)?;
    let mut read = 0;
    for [a, b, c, d, e, f, g, h] in vectors {
        let (at, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]) as usize);
        let wanted = len.min(READ_BYTES - read);
        let offset = offset.map(|offset| offset.saturating_add(read as u64));
        let got = guest.files.read(&guest.world, fd.cast_unsigned(), offset, room(memory, at, wanted)?)?;
        read += got;
        if got < len {
            break;
        }
    }
    store(memory, out, &u32::try_from(read).unwrap_or(u32::MAX).to_le_bytes())
}

fn fd_seek(caller: Caller<'_, Guest>, fd: i32, offset: i64, whence: i32, out: i32) -> Result<i32> {
    reach_soon(caller, |memory, guest| {
        let position = guest.files.seek(&guest.world, fd.cast_unsigned(), offset, whence.cast_unsigned())?;
        store(memory, out, &position.to_le_bytes())
    })
}

fn fd_readdir(mut caller: Caller<'_, Guest>, fd: i32, to: i32, len: i32, cookie: i64, out: i32) -> Result<i32> {
    reach(&mut caller, |memory, guest| {
        let started = guest.started(memory);
        let Ok(room) = room(memory, to.cast_unsigned(), len.cast_unsigned() as usize) else { return Ok(Err(Errno::FAULT)) };
        let Guest { files, world, watch, .. } = guest;
        let listed = files.list(world, fd.cast_unsigned(), cookie.cast_unsigned(), room, || watch.look(started));
        let len = match listed.map_err(Error::new)? {
            Ok(len) => len,
            Err(errno) => return Ok(Err(errno)),
        };
        Ok(store(memory, out, &u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()))
    })
}
