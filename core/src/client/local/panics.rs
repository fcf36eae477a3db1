//! Panics of native tasks: caught with message, place and backtrace, and kept off standard error.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::RefCell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook},
    sync::Once,
};

/// What a panic left.
#[derive(Debug, Default)]
pub(super) struct Caught {
    pub(super) message: String,
    pub(super) location: Option<String>,
    /// As `RUST_BACKTRACE` wants it; empty without.
    pub(super) backtrace: String,
}

thread_local! {
    /// `Some` while this thread runs a task.
    static CAUGHT: RefCell<Option<Caught>> = const { RefCell::new(None) };
}

/// Puts a hook in front of the program's own. Panics outside of tasks go on to that.
pub(super) fn catch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let outside = take_hook();
        set_hook(Box::new(move |info| {
            if !record(info) {
                outside(info);
            }
        }));
    });
}

/// Runs a task's function; a panic in it comes back as a value.
pub(super) fn guard<T>(function: impl FnOnce() -> T) -> Result<T, Caught> {
    CAUGHT.set(Some(Caught::default()));
    let result = catch_unwind(AssertUnwindSafe(function));
    let caught = CAUGHT.take().unwrap_or_default();
    result.map_err(|_| caught)
}

/// Whether this thread runs a task.
pub(in crate::client) fn is_task() -> bool {
    CAUGHT.with(|caught| caught.try_borrow().is_ok_and(|caught| caught.is_some()))
}

fn record(info: &PanicHookInfo<'_>) -> bool {
    CAUGHT.with(|caught| match caught.try_borrow_mut() {
        Ok(mut caught) => match caught.as_mut() {
            Some(caught) => {
                let backtrace = Backtrace::capture();
                let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
                *caught = Caught {
                    message: info.payload_as_str().unwrap_or("(no message)").to_owned(),
                    location: info.location().map(ToString::to_string),
                    backtrace: backtrace.unwrap_or_default(),
                };
                true
            }
            None => false,
        },
        Err(_) => false,
    })
}
