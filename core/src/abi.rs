//! The guest ABI, version 1: what a module exports, how a batch lies in its memory, and its manifest.
//!
//! Owns the layouts that the guest's runtime (`guest`) and the worker's sandbox share. Must not know wasmtime or the wire.
//! All numbers are little-endian; addresses and lengths are `u32` in the guest's memory.
//!
//! # Exports
//! | name | type | meaning |
//! | --- | --- | --- |
//! | `memory` | memory | |
//! | `__wasm_call_ctors` | `()` | if there: called once, before anything else |
//! | [`EXPORT_ABI`] | `() -> i32` | installs the panic hook, gives [`VERSION`]; called second |
//! | [`EXPORT_STATE`] | `() -> ptr` | where the [`State`] is; never moves |
//! | [`EXPORT_ALLOC`] | `(len) -> ptr` | room for host data, 8-byte aligned, kept until [`EXPORT_RESET`] |
//! | [`EXPORT_RESET`] | `()` | gives back all such room and the last results |
//! | one a task, named in the manifest | `(ptr to Batch)` | runs the batch |
//!
//! A task's export works through the items of its [`Batch`] in order. Around each it updates the [`State`], so that after a trap
//! the host still reads every finished item and knows which one trapped.

/// Version of everything on this page.
pub const VERSION: u32 = 1;
/// Gives the ABI version.
pub const EXPORT_ABI: &str = "quicsand_abi";
/// Gives the state's address.
pub const EXPORT_STATE: &str = "quicsand_state";
/// Makes room for host data.
pub const EXPORT_ALLOC: &str = "quicsand_alloc";
/// Gives the room back.
pub const EXPORT_RESET: &str = "quicsand_reset";
/// Name of the custom section that holds the manifest.
pub const SECTION: &str = "quicsand";

/// A batch of items, written by the host: six `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Batch {
    /// Number of items. The host may make it less at any time, but never less than have begun: it is read anew before each item.
    pub count: u32,
    /// Address of the items' inline bytes, back to back.
    pub bytes: u32,
    /// Address of one `u32` length an item, or 0 if all have `same_len`.
    pub lens: u32,
    /// Each item's length if `lens` is 0.
    pub same_len: u32,
    /// Address of the [`HoleValue`]s, sorted by item, then field.
    pub holes: u32,
    /// Number of holes.
    pub hole_count: u32,
}

/// The value for one field of one item: four `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HoleValue {
    /// The item.
    pub item: u32,
    /// The field of the argument tuple, from 0. The item's inline bytes have nothing of it.
    pub field: u32,
    /// Address of the value's encoding. Several holes may share one.
    pub ptr: u32,
    /// Its length.
    pub len: u32,
}

/// What the guest tells as it goes: seven `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct State {
    /// Number of items begun in this batch.
    pub started: u32,
    /// Number of items finished in this batch.
    pub finished: u32,
    /// Address of the results, back to back; those of finished items are valid at any time.
    pub out: u32,
    /// Bytes of finished items' results.
    pub out_len: u32,
    /// Address of one `u32` a finished item: its length in bits 0 to 29, its [`ItemStatus`] above.
    pub lens: u32,
    /// Address of the last panic's text: `file:line:column`, newline, message. UTF-8.
    pub panic: u32,
    /// Its length; 0 if nothing panicked.
    pub panic_len: u32,
}

/// Number of bytes of a result that the length field can say.
pub const MAX_RESULT: u32 = (1 << 30) - 1;

/// How an item ended, and what its result bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ItemStatus {
    /// The encoded result.
    Ok = 0,
    /// The message of an `Err`, UTF-8.
    Failed = 1,
    /// `parameter`, newline, message: the argument did not decode.
    BadArgument = 2,
    /// A message: the result has no encoding.
    BadResult = 3,
}

impl ItemStatus {
    /// Packs a length (at most [`MAX_RESULT`]) and a status.
    #[must_use]
    pub const fn pack(self, len: u32) -> u32 {
        (len & MAX_RESULT) | ((self as u32) << 30)
    }

    /// Unpacks what [`ItemStatus::pack`] packed.
    #[must_use]
    pub const fn unpack(packed: u32) -> (Self, u32) {
        let status = match packed >> 30 {
            0 => Self::Ok,
            1 => Self::Failed,
            2 => Self::BadArgument,
            _ => Self::BadResult,
        };
        (status, packed & MAX_RESULT)
    }
}
