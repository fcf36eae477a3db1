//! Exports of every module, and the loop over a batch's items.

use std::{
    alloc::{Layout, alloc, dealloc},
    cell::UnsafeCell,
    panic::PanicHookInfo,
    ptr, slice,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    abi::{self, Batch, HoleValue, ItemStatus, State},
    codec::Sink,
    task::{ArgReader, HoleValues, ItemFailure, Output, Task},
};

/// Results of at most this many bytes keep their buffer for the next batch.
const KEEP_BYTES: usize = 1 << 20;

struct Guest {
    state: State,
    out: Output,
    lens: Vec<u32>,
    panic: String,
    rooms: Vec<Arc<Room>>,
}

/// Memory that the host wrote values into. It goes when the batch has ended, and nobody keeps a value that lies there.
struct Room {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: a guest has one thread.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: it was made with this layout, and nobody has it any more.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// A value that lies in a room, which it keeps.
struct Lodger {
    value: &'static [u8],
    _room: Arc<Room>,
}

impl AsRef<[u8]> for Lodger {
    fn as_ref(&self) -> &[u8] {
        self.value
    }
}

struct Cell(UnsafeCell<Guest>);

// SAFETY: a guest has one thread.
unsafe impl Sync for Cell {}

static GUEST: Cell = Cell(UnsafeCell::new(Guest {
    state: State { started: 0, finished: 0, out: 0, out_len: 0, lens: 0, panic: 0, panic_len: 0 },
    out: Output::new(),
    lens: Vec::new(),
    panic: String::new(),
    rooms: Vec::new(),
}));

fn guest() -> *mut Guest {
    GUEST.0.get()
}

#[unsafe(export_name = "quicsand_abi")]
extern "C" fn abi_version() -> u32 {
    std::panic::set_hook(Box::new(report_panic));
    abi::VERSION
}

#[unsafe(export_name = "quicsand_state")]
extern "C" fn state() -> *const State {
    // SAFETY: the address of a field of a static; nothing is read.
    unsafe { &raw const (*guest()).state }
}

#[unsafe(export_name = "quicsand_alloc")]
extern "C" fn make_room(len: u32) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align((len as usize).max(8), 8) else {
        return ptr::null_mut();
    };
    // SAFETY: the size is not zero; the one thread holds no reference into the state while the host calls.
    unsafe {
        let room = alloc(layout);
        if room.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        (*guest()).rooms.push(Arc::new(Room { start: room, layout }));
        room
    }
}

#[unsafe(export_name = "quicsand_reset")]
extern "C" fn reset() {
    // SAFETY: the one thread holds no reference into the state while the host calls.
    unsafe {
        let guest = &mut *guest();
        guest.rooms.clear();
        guest.out.clear(KEEP_BYTES);
        guest.lens.clear();
        guest.lens.shrink_to(KEEP_BYTES / 4);
        guest.state = State::default();
    }
}

/// A value that the host wrote, with the room that it lies in; `None` if it lies in none.
pub(super) fn share(value: &'static [u8]) -> Option<Bytes> {
    // SAFETY: the one thread is in the middle of an item, which changes no rooms; the host writes into new ones only.
    let rooms = unsafe { &(*guest()).rooms };
    let has_it = |room: &&Arc<Room>| {
        let start = room.start.addr();
        (start..=start + room.layout.size() - value.len().min(room.layout.size())).contains(&value.as_ptr().addr())
    };
    let room = rooms.iter().find(has_it)?;
    Some(Bytes::from_owner(Lodger { value, _room: Arc::clone(room) }))
}

fn report_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(String::new, ToString::to_string);
    let text = format!("{place}\n{}", info.payload_as_str().unwrap_or("(no message)"));
    // SAFETY: the hook runs on the one thread; nobody else reads or writes the panic's text.
    unsafe {
        let guest = guest();
        (*guest).panic = text;
        let text = &(*guest).panic;
        (&raw mut (*guest).state.panic).write_volatile(text.as_ptr() as u32);
        (&raw mut (*guest).state.panic_len).write_volatile(text.len() as u32);
    }
}

/// Runs a batch of task `T`: the body of its export.
///
/// # Safety
/// `batch` is the address of a [`Batch`] that describes memory of this guest, as the ABI says.
pub unsafe fn run_batch<T: Task>(batch: *const Batch) {
    // SAFETY: the host upholds the ABI; the results and the state are reached through raw pointers only, field by field, so the
    // panic hook and the allocator's host calls may do the same in the middle of an item.
    unsafe {
        let count = &raw const (*batch).count;
        let batch = *batch;
        let guest = guest();
        let state = &raw mut (*guest).state;
        let lens = (batch.lens != 0).then(|| slice::from_raw_parts(batch.lens as *const u32, batch.count as usize));
        let mut holes = match batch.hole_count {
            0 => &[][..],
            count => slice::from_raw_parts(batch.holes as *const HoleValue, count as usize),
        };
        let mut inline = batch.bytes as *const u8;
        (*guest).lens.reserve(batch.count as usize);
        (&raw mut (*state).lens).write_volatile((*guest).lens.as_ptr() as u32);
        let mut next = 0;
        // Read each time: the host makes it less when it divides the batch.
        while next < count.read_volatile() {
            let item = next;
            next += 1;
            (&raw mut (*state).started).write_volatile(item + 1);
            let len = lens.map_or(batch.same_len, |lens| lens[item as usize]) as usize;
            let bytes = if len == 0 { &[] } else { slice::from_raw_parts(inline, len) };
            inline = inline.add(len);
            let mine = holes.iter().take_while(|hole| hole.item == item).count();
            let (of_item, rest) = holes.split_at(mine);
            holes = rest;

            let out = &mut (*guest).out;
            let start = out.bytes().len();
            let mut reader = ArgReader::new(bytes, HoleValues::Guest(of_item));
            let status = match T::run_item(&mut reader, out) {
                Ok(()) => ItemStatus::Ok,
                Err(failure) => write_failure(failure, start, out),
            };
            let len = out.bytes().len() - start;
            assert!(len <= abi::MAX_RESULT as usize, "a result of {len} bytes is more than the 1 GiB that results may have");
            (*guest).lens.push(status.pack(len as u32));
            (&raw mut (*state).out).write_volatile(out.bytes().as_ptr() as u32);
            (&raw mut (*state).out_len).write_volatile(out.bytes().len() as u32);
            (&raw mut (*state).finished).write_volatile(item + 1);
            out.end_item();
        }
    }
}

#[cold]
fn write_failure(failure: ItemFailure, start: usize, out: &mut Output) -> ItemStatus {
    out.truncate(start);
    match failure {
        ItemFailure::Returned { message } => {
            out.append(message.as_bytes());
            ItemStatus::Failed
        }
        ItemFailure::Argument { name, message } => {
            out.append(name.as_bytes());
            out.append(b"\n");
            out.append(message.as_bytes());
            ItemStatus::BadArgument
        }
        ItemFailure::Result { message } => {
            out.append(message.as_bytes());
            ItemStatus::BadResult
        }
    }
}
