//! WASI preview 1: what a guest sees of the world is two output streams, clocks, randomness and sleep, and what the worker's owner
//! grants besides: variables, and directories to read.
//!
//! An own implementation, since the surface is small enough to read in one sitting, and a sleep must end when its item is
//! cancelled or out of time. Every other function of preview 1 is there, so that any program links, and says that there is nothing.

mod granted;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use quicsand::wire::LogStream;
use wasmtime::{Caller, Engine, Error, FuncType, Linker, Memory, Result, Val, ValType};

use super::{
    files::{Files, Kind},
    grants::{Clock, World},
    instance::read_state,
    limits::{Growth, Stop, Watch},
    log::Log,
    outcome::ResultCaps,
    printed::{Assembler, Printed},
};

/// The one module that guests may import from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// Where a guest that runs a batch has what the host looks at meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// Of the [`State`](quicsand::abi::State).
    pub(crate) state: u32,
    /// Of the [`Batch`](quicsand::abi::Batch).
    pub(crate) batch: u32,
}

/// What a store knows of its guest.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) growth: Growth,
    pub(crate) watch: Watch,
    pub(crate) log: Log,
    /// Puts lines together, for whoever looks on.
    pub(crate) lines: Assembler,
    pub(crate) printed: Arc<Printed>,
    /// Set once the instance is there: guests cannot run before, as start sections are refused.
    pub(crate) memory: Option<Memory>,
    /// Where the guest counts its items and has its batch, while it runs one; before and after, the count is stale.
    pub(crate) at: Option<Addresses>,
    /// How large results may be.
    results: ResultCaps,
    /// The zero of its monotonic clock.
    born: Instant,
    world: Arc<World>,
    /// What the item has open.
    files: Files,
    /// How long the item has slept, by a fixed clock.
    slept: Duration,
    /// The item that files and sleep are of.
    item: u32,
}

impl Guest {
    /// What a store knows of a guest that has not begun.
    pub(crate) fn new(
        growth: Growth,
        results: ResultCaps,
        watch: Watch,
        log: Log,
        printed: Arc<Printed>,
        world: Arc<World>,
    ) -> Self {
        Self {
            results,
            growth,
            watch,
            log,
            lines: Assembler::default(),
            printed,
            memory: None,
            at: None,
            born: Instant::now(),
            world,
            files: Files::default(),
            slept: Duration::ZERO,
            item: 0,
        }
    }

    /// Ends what belongs to an item: its files are closed, its time begins anew.
    pub(crate) fn end_item(&mut self) {
        self.files.close_all();
        self.slept = Duration::ZERO;
    }

    /// Takes note of the item that the guest is at, given its memory. The host sees only here that another one has begun, which is soon
    /// enough: the guest cannot reach what an earlier item had open without coming through here.
    fn turn(&mut self, memory: &[u8]) {
        let item = self.watch.item(self.started(memory));
        if item != self.item {
            self.end_item();
            self.item = item;
        }
    }

    /// The number of items that the guest says it has begun, given its memory.
    pub(crate) fn started(&self, memory: &[u8]) -> u32 {
        self.at.and_then(|at| read_u32(memory, at.state)).unwrap_or(0)
    }

    /// Stops the guest if its item has to, and has it end its batch early if that is to be divided.
    pub(crate) fn look(&mut self, memory: &mut [u8]) -> Result<()> {
        let started = self.started(memory);
        self.watch.look(started).map_err(Error::new)?;
        let Some(at) = self.at else { return Ok(()) };
        let finished = read_u32(memory, at.state.saturating_add(4)).unwrap_or(0);
        // Between two items it may have made up its mind about the next one.
        if let Some(left) = self.watch.divide(started.saturating_add(u32::from(finished >= started))) {
            // A guest that has its batch elsewhere, or does not care, works in vain.
            put(memory, at.batch.cast_signed(), &left.to_le_bytes());
        }
        if let Some((items, before)) = self.watch.next_part(finished.min(started)) {
            let part = read_state(memory, at.state).and_then(|state| self.results.part(&state, memory, items, before));
            part.into_iter().for_each(|part| self.watch.tell(part));
        }
        Ok(())
    }
}

/// The number at `at`, if that is in the guest's memory.
pub(crate) fn read_u32(memory: &[u8], at: u32) -> Option<u32> {
    let bytes = slice(memory, at, 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// `len` bytes at `at`, if they are in the guest's memory.
pub(crate) fn slice(memory: &[u8], at: u32, len: u32) -> Option<&[u8]> {
    memory.get(at as usize..)?.get(..len as usize)
}

const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const FAULT: i32 = 21;
const INVAL: i32 = 28;
const NOSYS: i32 = 52;

/// Bytes that one call writes or fills at most before it looks whether the item has to stop.
const CHUNK: usize = 64 << 10;
/// Vectors that one write may have, subscriptions that one poll may have.
const VECTORS: u32 = 1024;
/// The monotonic clock starts here, so that a guest can look back a while without reaching below zero.
const CLOCK_START: Duration = Duration::from_secs(24 * 3600);

/// Functions that answer with a number: name, parameters (`i` for `i32`, `I` for `i64`), answer. Those that would change a file have a
/// refusal of their own, in [`granted::READ_ONLY`].
const REFUSED: &[(&str, &str, i32)] = &[
    ("fd_advise", "iIIi", BADF),
    ("fd_allocate", "iII", BADF),
    ("fd_datasync", "i", BADF),
    ("fd_fdstat_set_flags", "ii", BADF),
    ("fd_fdstat_set_rights", "iII", BADF),
    ("fd_filestat_set_size", "iI", BADF),
    ("fd_filestat_set_times", "iIIi", BADF),
    ("fd_pwrite", "iiiIi", BADF),
    ("fd_renumber", "ii", BADF),
    ("fd_sync", "i", BADF),
    ("proc_raise", "i", NOSYS),
    ("sched_yield", "", SUCCESS),
    ("sock_accept", "iii", BADF),
    ("sock_recv", "iiiiii", BADF),
    ("sock_send", "iiiii", BADF),
    ("sock_shutdown", "ii", BADF),
];

/// Functions that do something.
const SERVED: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_filestat_get",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_read",
    "fd_readdir",
    "fd_seek",
    "fd_tell",
    "fd_write",
    "path_filestat_get",
    "path_open",
    "path_readlink",
    "poll_oneoff",
    "proc_exit",
    "random_get",
];

/// Whether there is a function `name` for guests to import.
pub(crate) fn has(name: &str) -> bool {
    let refused = REFUSED.iter().map(|(refused, ..)| refused).chain(granted::READ_ONLY.iter().map(|(refused, ..)| refused));
    SERVED.contains(&name) || refused.into_iter().any(|refused| *refused == name)
}

/// The type of a function that answers with an error number: a letter a parameter, `I` for 64 bits, any other for 32.
fn signature(engine: &Engine, params: &str) -> FuncType {
    let params = params.chars().map(|param| if param == 'I' { ValType::I64 } else { ValType::I32 });
    FuncType::new(engine, params, [ValType::I32])
}

/// A linker that knows all of preview 1.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(MODULE, "args_get", |_: i32, _: i32| SUCCESS)?;
    linker.func_wrap(MODULE, "args_sizes_get", no_strings)?;
    linker.func_wrap(MODULE, "clock_res_get", clock_res_get)?;
    linker.func_wrap(MODULE, "clock_time_get", clock_time_get)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(MODULE, "poll_oneoff", poll_oneoff)?;
    linker.func_wrap(MODULE, "random_get", random_get)?;
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> Result<()> { Err(Error::new(Stop::Exit(code))) })?;
    for &(name, params, answer) in REFUSED {
        linker.func_new(MODULE, name, signature(engine, params), move |_, _, results| {
            results.fill(Val::I32(answer));
            Ok(())
        })?;
    }
    granted::link(&mut linker, engine)?;
    Ok(linker)
}

fn parts<'a>(caller: &'a mut Caller<'_, Guest>) -> Result<(&'a mut [u8], &'a mut Guest)> {
    let memory = caller.data().memory.ok_or_else(|| Error::msg("the guest has no memory yet"))?;
    Ok(memory.data_and_store_mut(caller))
}

fn put(memory: &mut [u8], at: i32, bytes: &[u8]) -> i32 {
    let room = memory.get_mut(at.cast_unsigned() as usize..).and_then(|rest| rest.get_mut(..bytes.len()));
    match room {
        Some(room) => {
            room.copy_from_slice(bytes);
            SUCCESS
        }
        None => FAULT,
    }
}

fn no_strings(mut caller: Caller<'_, Guest>, count: i32, bytes: i32) -> Result<i32> {
    let (memory, _) = parts(&mut caller)?;
    Ok(put(memory, count, &[0; 4]).max(put(memory, bytes, &[0; 4])))
}

fn clock_res_get(mut caller: Caller<'_, Guest>, _clock: i32, out: i32) -> Result<i32> {
    let (memory, _) = parts(&mut caller)?;
    Ok(put(memory, out, &1_u64.to_le_bytes()))
}

fn clock_time_get(mut caller: Caller<'_, Guest>, clock: i32, _precision: i64, out: i32) -> Result<i32> {
    let (memory, guest) = parts(&mut caller)?;
    guest.turn(memory);
    Ok(put(memory, out, &now_ns(guest, clock.cast_unsigned()).to_le_bytes()))
}

/// Clock 0 is the time of day; the others count from the instance's birth, or from the item's beginning if the clock is fixed.
fn now_ns(guest: &Guest, clock: u32) -> u64 {
    let now = match (guest.world.clock, clock) {
        (Clock::Wall, 0) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        (Clock::Wall, _) => guest.born.elapsed() + CLOCK_START,
        (Clock::Fixed(since), 0) => since.saturating_add(guest.slept),
        (Clock::Fixed(_), _) => CLOCK_START.saturating_add(guest.slept),
    };
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn fd_write(mut caller: Caller<'_, Guest>, fd: i32, vectors: i32, count: i32, out: i32) -> Result<i32> {
    if fd != 1 && fd != 2 {
        return Ok(BADF);
    }
    let count = count.cast_unsigned();
    if count > VECTORS {
        return Ok(INVAL);
    }
    let (memory, guest) = parts(&mut caller)?;
    guest.look(memory)?;
    let item = guest.watch.item(guest.started(memory));
    let Some(vectors) = slice(memory, vectors.cast_unsigned(), count * 8) else { return Ok(FAULT) };
    let stream = if fd == 1 { LogStream::Out } else { LogStream::Err };
    let mut written = 0;
    for vector in vectors.as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *vector;
        let (at, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let Some(text) = slice(memory, at, len) else { return Ok(FAULT) };
        let text = &text[..text.len().min(CHUNK - written)];
        guest.log.write(item, text);
        guest.lines.write(&guest.printed, item, stream, text);
        written += text.len();
        if tracing::enabled!(tracing::Level::DEBUG) {
            for line in String::from_utf8_lossy(text).lines() {
                tracing::debug!(item, "{line}");
            }
        }
    }
    let written = u32::try_from(written).unwrap_or(u32::MAX);
    Ok(put(memory, out, &written.to_le_bytes()))
}

fn random_get(mut caller: Caller<'_, Guest>, at: i32, len: i32) -> Result<i32> {
    let (memory, guest) = parts(&mut caller)?;
    let (at, len) = (at.cast_unsigned() as usize, len.cast_unsigned() as usize);
    if memory.get(at..).is_none_or(|rest| rest.len() < len) {
        return Ok(FAULT);
    }
    for start in (at..at + len).step_by(CHUNK) {
        guest.look(memory)?;
        let end = (start + CHUNK).min(at + len);
        getrandom::fill(&mut memory[start..end]).map_err(Error::new)?;
    }
    Ok(SUCCESS)
}

/// One thing that a guest waits for.
enum Awaited {
    /// So long, which is until then; `None` is never.
    Clock(Duration, Option<Instant>),
    /// A stream, which is always ready, or fails with this number at once.
    Stream(i32),
}

fn poll_oneoff(mut caller: Caller<'_, Guest>, subscriptions: i32, events: i32, count: i32, out: i32) -> Result<i32> {
    const SUBSCRIPTION: u32 = 48;
    let count = count.cast_unsigned();
    if count == 0 || count > VECTORS {
        return Ok(INVAL);
    }
    let (memory, guest) = parts(&mut caller)?;
    guest.turn(memory);
    let Some(raw) = slice(memory, subscriptions.cast_unsigned(), count * SUBSCRIPTION) else { return Ok(FAULT) };
    let raw = raw.as_chunks::<{ SUBSCRIPTION as usize }>().0.to_vec();
    let awaited: Vec<Awaited> = raw.iter().map(|raw| awaited(guest, raw)).collect();

    let streams = awaited.iter().any(|awaited| matches!(awaited, Awaited::Stream(_)));
    let clocks =
        || awaited.iter().filter_map(|awaited| if let Awaited::Clock(wait, at) = awaited { Some((*wait, *at)) } else { None });
    let earliest = clocks().filter_map(|(_, at)| at).min();
    guest.look(memory)?;
    while !streams && earliest.is_none_or(|at| at > Instant::now()) {
        guest.watch.sleep(earliest);
        guest.look(memory)?;
    }

    if !streams {
        guest.slept = guest.slept.saturating_add(clocks().map(|(wait, _)| wait).min().unwrap_or_default());
    }
    let now = Instant::now();
    let mut ready = 0_u32;
    let mut written = SUCCESS;
    for (raw, awaited) in raw.iter().zip(&awaited) {
        let errno = match awaited {
            Awaited::Clock(_, Some(at)) if *at <= now => SUCCESS,
            Awaited::Clock(..) => continue,
            Awaited::Stream(errno) => *errno,
        };
        let mut event = [0; 32];
        event[..8].copy_from_slice(&raw[..8]);
        event[8..10].copy_from_slice(&errno.to_le_bytes()[..2]);
        event[10] = raw[8];
        written = written.max(put(memory, events.wrapping_add((ready * 32).cast_signed()), &event));
        ready += 1;
    }
    Ok(written.max(put(memory, out, &ready.to_le_bytes())))
}

fn awaited(guest: &Guest, raw: &[u8; 48]) -> Awaited {
    const CLOCK: u8 = 0;
    const ABSOLUTE: u8 = 1;
    let number = |at: usize| raw[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
    match raw[8] {
        CLOCK => {
            let timeout = u64::from(number(24)) | u64::from(number(28)) << 32;
            let wait = if raw[40] & ABSOLUTE == 0 { timeout } else { timeout.saturating_sub(now_ns(guest, number(16))) };
            let wait = Duration::from_nanos(wait);
            Awaited::Clock(wait, Instant::now().checked_add(wait))
        }
        _ => Awaited::Stream(if number(16) <= 2 || guest.files.kind(&guest.world, number(16)) == Ok(Kind::File) {
            SUCCESS
        } else {
            BADF
        }),
    }
}
