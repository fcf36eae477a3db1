//! The guest's side of the ABI: runs a batch inside the sandbox. Must not know: what any task does.
//!
//! The guest has one thread, so its state is plain statics. Layout and order of calls are in [`crate::abi`].
#![expect(unsafe_code, reason = "the ABI hands addresses over, and the state is read by the host at any time")]

use bytes::Bytes;

use crate::abi::HoleValue;

#[cfg(target_family = "wasm")]
mod runtime;
#[cfg(target_family = "wasm")]
pub use runtime::run_batch;

/// The bytes that a hole's value points to.
pub(crate) fn slice_at(value: &HoleValue) -> &'static [u8] {
    if !cfg!(target_family = "wasm") || value.len == 0 {
        return &[];
    }
    // SAFETY: the host wrote the value into room that it got from `quicsand_alloc` and keeps until `quicsand_reset`, which it
    // calls between batches only.
    unsafe { std::slice::from_raw_parts(value.ptr as usize as *const u8, value.len as usize) }
}

/// The bytes that a hole's value points to, to be kept for as long as somebody likes.
pub(crate) fn share(value: &HoleValue) -> Bytes {
    #[cfg(target_family = "wasm")]
    if let Some(shared) = runtime::share(slice_at(value)) {
        return shared;
    }
    Bytes::copy_from_slice(slice_at(value))
}
