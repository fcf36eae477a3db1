//! What runs for each item and each message, as workloads to be measured. Owns: what they do, and how many items that is. Must not know:
//! who measures them, and in what: `micro/` by a clock, `quicsand-hot` in instructions.
//!
//! A workload prepares whatever it needs and gives a closure. Each run of that does the same again: it leaves nothing behind that
//! makes the next one dearer, and has no clock, no thread and nothing random in it, so that it executes the same instructions each time.
//! The sandbox's are the exception, and apart.

mod codec;
mod frames;
pub mod sandbox;
mod scheduler;

/// Something to measure.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// What it is called, as on a command line.
    pub name: &'static str,
    /// How many items, calls or messages one run handles.
    pub items: u32,
    /// Makes what one run after another needs.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

const fn workload(name: &'static str, items: u32, prepare: fn() -> Box<dyn FnMut()>) -> Workload {
    Workload { name, items, prepare }
}

/// Items in a run: what a client sends at a time.
const ITEMS: u32 = quicsand::wire::RUN_ITEMS as u32;

/// All but the sandbox's.
pub const WORKLOADS: &[Workload] = &[
    workload("encode-run", ITEMS, codec::encode_run),
    workload("decode-run", ITEMS, codec::decode_run),
    workload("encode-floats", codec::FLOATS, codec::encode_floats),
    workload("decode-floats", codec::FLOATS, codec::decode_floats),
    workload("encode-items-frame", ITEMS, frames::encode_items),
    workload("decode-items-frame", ITEMS, frames::decode_items),
    workload("encode-calls-frame", frames::CALLS, frames::encode_calls),
    workload("decode-calls-frame", frames::CALLS, frames::decode_calls),
    workload("schedule-calls", scheduler::CALLS, scheduler::calls),
    workload("schedule-backlog", scheduler::CALLS, scheduler::backlog),
    workload("schedule-dependents", scheduler::CALLS, scheduler::dependents),
    workload("schedule-map", ITEMS, scheduler::map),
];

/// Runs a workload once. Counts of instructions are of what happens in here: it has to stay a function, of this name.
#[inline(never)]
pub fn measured(run: &mut dyn FnMut()) {
    run();
}
