//! How the items of a batch ended: values and errors, as they come out of guests that may lie. Must not know: how guests run.

use std::ops::Range;

use bytes::Bytes;
use quicsand::{
    Size, TaskError, TaskErrorKind,
    abi::{ItemStatus, MAX_RESULT, State},
    codec::{Lens, Run},
    pages,
    wire::ItemError,
};
use wasmtime::{Trap, WasmBacktrace};

use super::{
    caps::Caps,
    engine::SandboxConfig,
    instance::{Failure, Phase, read_panic},
    limits::{Limit, Stop},
    log::Log,
    runner::Job,
    wasi::slice,
};

/// Bytes of one message or backtrace, at most.
const TEXT_BYTES: u32 = 8 << 10;
/// Bytes of all texts of a batch's errors, at most; later errors are left without backtrace and log.
const TEXTS_BYTES: usize = 4 << 20;
/// What a message is cut to once there is no room for texts.
const SHORT_BYTES: u32 = 200;

/// Collects how items ended, in their order.
pub(crate) struct Outcomes<'a> {
    job: &'a Job,
    lens: Vec<u32>,
    bytes: Vec<u8>,
    pub(crate) errors: Vec<ItemError>,
    pub(crate) dropped: Vec<u32>,
    pub(crate) caps: &'a Caps,
    results: ResultCaps,
    texts_left: usize,
}

/// How large results may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResultCaps {
    /// Of one item.
    one: u64,
    /// Of a whole batch: instances that trap one after the other could fill the host's memory.
    all: u64,
}

impl ResultCaps {
    pub(crate) fn of(config: &SandboxConfig) -> Self {
        Self { one: config.caps.result_limit.0, all: config.caps.result_limit.0.max(config.memory_cap()) }
    }

    /// The values of a call's finished `items`, before which its results have so many bytes, up to the first that has none or one that
    /// may not be; `None` if there are none.
    pub(crate) fn part(self, state: &State, memory: &[u8], items: Range<u32>, before: u32) -> Option<Run> {
        let lens =
            slice(memory, state.lens.checked_add(items.start.checked_mul(4)?)?, (items.end - items.start).checked_mul(4)?)?;
        let packed = lens.as_chunks::<4>().0.iter().map(|len| u32::from_le_bytes(*len));
        let lens: Vec<u32> = packed.take_while(|&len| len <= MAX_RESULT && u64::from(len) <= self.one).collect();
        let len = u32::try_from(lens.iter().map(|&len| u64::from(len)).sum::<u64>()).ok()?;
        let end = before.checked_add(len).filter(|&end| end <= state.out_len && u64::from(end) <= self.all)?;
        let bytes = slice(memory, state.out.checked_add(before)?, end - before)?;
        let count = u32::try_from(lens.len()).ok().filter(|count| *count > 0)?;
        Run::checked(count, Lens::Each(lens), Bytes::copy_from_slice(bytes))
    }
}

/// The parts of a [`TaskError`] that tell one failure from another.
#[derive(Debug)]
pub(crate) struct Blame {
    pub(crate) kind: TaskErrorKind,
    pub(crate) message: String,
    pub(crate) location: Option<String>,
    pub(crate) backtrace: String,
    pub(crate) log: String,
}

impl Blame {
    pub(crate) fn new(kind: TaskErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), location: None, backtrace: String::new(), log: String::new() }
    }
}

impl<'a> Outcomes<'a> {
    pub(crate) fn new(job: &'a Job, config: &'a SandboxConfig) -> Self {
        Self {
            job,
            lens: Vec::with_capacity(job.args.count() as usize),
            bytes: Vec::new(),
            errors: Vec::new(),
            dropped: Vec::new(),
            caps: &config.caps,
            results: ResultCaps::of(config),
            texts_left: TEXTS_BYTES,
        }
    }

    /// The first item whose end is not known.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.lens.len()).unwrap_or(u32::MAX)
    }

    /// The next item was cancelled.
    pub(crate) fn drop_item(&mut self) {
        self.dropped.push(self.next());
        self.lens.push(0);
    }

    /// The next item failed.
    pub(crate) fn fail(&mut self, blame: Blame) {
        let item = self.next();
        let Blame { kind, mut message, mut location, mut backtrace, mut log } = blame;
        cut(&mut message, if self.texts_left == 0 { SHORT_BYTES } else { TEXT_BYTES });
        if self.texts_left == 0 {
            (backtrace, log) = (String::new(), String::new());
        }
        cut(&mut backtrace, TEXT_BYTES);
        location.iter_mut().for_each(|location| cut(location, SHORT_BYTES));
        self.texts_left = self.texts_left.saturating_sub(message.len() + backtrace.len() + log.len());
        let key = self.job.entry.key(self.job.first.saturating_add(u64::from(item)));
        let mut error = TaskError::new(kind, &*self.job.name, key, message);
        (error.location, error.backtrace, error.log) = (location, backtrace, log);
        error.worker.clone_from(&self.job.worker);
        self.errors.push(ItemError { item, error });
        self.lens.push(0);
    }

    /// All items before `end` that are left failed alike.
    pub(crate) fn fail_until(&mut self, end: u32, kind: &TaskErrorKind, message: &str) {
        while self.next() < end {
            self.fail(Blame::new(kind.clone(), message));
        }
    }

    /// Takes the results that the guest has finished.
    ///
    /// # Errors
    /// When they are not where the guest says; nothing is taken then.
    pub(crate) fn take(&mut self, state: &State, memory: &[u8], log: &mut Log) -> Result<(), Stop> {
        const LIE: Stop = Stop::Lie("its results lie outside its memory");
        let lens = state.finished.checked_mul(4).and_then(|len| slice(memory, state.lens, len)).ok_or(LIE)?;
        let packed = lens.as_chunks::<4>().0.iter().map(|len| u32::from_le_bytes(*len));
        let (mut sum, mut longest, mut all) = (0_u64, 0, 0);
        for packed in packed.clone() {
            let len = packed & MAX_RESULT;
            sum += u64::from(len);
            longest = longest.max(len);
            all |= packed;
        }
        let len = u32::try_from(sum).ok().filter(|&len| len <= state.out_len).ok_or(LIE)?;
        let mut out = slice(memory, state.out, len).ok_or(LIE)?;
        let all_ok = all <= MAX_RESULT;
        if all_ok && u64::from(longest) <= self.results.one && self.bytes.len() as u64 + sum <= self.results.all {
            pages::reserve(&mut self.bytes, out.len());
            self.bytes.extend_from_slice(out);
            self.lens.extend(packed);
            return Ok(());
        }
        for packed in packed {
            let (status, len) = ItemStatus::unpack(packed);
            let (result, rest) = out.split_at(len as usize);
            out = rest;
            self.take_one(status, result, log);
        }
        Ok(())
    }

    fn take_one(&mut self, status: ItemStatus, result: &[u8], log: &mut Log) {
        let len = result.len() as u64;
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES as usize)]).into_owned();
        let blame = match status {
            ItemStatus::Ok if len > self.results.one => {
                let limit = self.results.one;
                let message = format!("a result of {}, the worker's owner allows {} (--result-limit)", Size(len), Size(limit));
                Blame::new(TaskErrorKind::OutputLimit { limit }, message)
            }
            ItemStatus::Ok if self.bytes.len() as u64 + len > self.results.all => {
                let limit = self.results.all;
                let message = "the results of a batch together are larger than the worker's owner lets a task be (--task-memory)";
                Blame::new(TaskErrorKind::OutputLimit { limit }, message)
            }
            ItemStatus::Ok => {
                pages::reserve(&mut self.bytes, result.len());
                self.bytes.extend_from_slice(result);
                self.lens.push(u32::try_from(len).unwrap_or(0));
                return;
            }
            ItemStatus::Failed => Blame::new(TaskErrorKind::Returned, text(result)),
            ItemStatus::BadResult => Blame::new(TaskErrorKind::Result, text(result)),
            ItemStatus::BadArgument => {
                let text = text(result);
                let (name, message) = text.split_once('\n').unwrap_or(("", &text));
                Blame::new(TaskErrorKind::Argument { name: name.chars().take(200).collect() }, message)
            }
        };
        let log = log.take(self.next());
        self.fail(Blame { log, ..blame });
    }

    /// One value an item, and the rest.
    pub(crate) fn finish(self) -> (Run, Vec<ItemError>, Vec<u32>) {
        let count = self.next();
        let lens = match self.lens.first() {
            Some(&first) if self.lens.iter().all(|&len| len == first) => Lens::Same(first),
            Some(_) => Lens::Each(self.lens),
            None => Lens::Same(0),
        };
        let values = Run::checked(count, lens, pages::share(self.bytes)).unwrap_or_default();
        (values, self.errors, self.dropped)
    }
}

fn cut(text: &mut String, len: u32) {
    text.truncate(text.floor_char_boundary(len as usize));
}

/// What a failure says about the item that it is blamed on. `guest` is its state and memory, if it was at a batch.
pub(crate) fn blame(failure: &Failure, guest: Option<(&State, &[u8])>, log: String, caps: &Caps) -> Blame {
    let error = &failure.error;
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    let panic = guest.and_then(|(state, memory)| read_panic(memory, state, TEXT_BYTES));
    let mut location = None;
    let (kind, message) = match (error.downcast_ref::<Stop>(), panic) {
        (Some(stop), _) => (kind_of(stop), words_of(stop)),
        (None, Some((place, message))) => {
            location = place;
            (TaskErrorKind::Panicked, message)
        }
        (None, None) => match error.downcast_ref::<Trap>() {
            Some(trap) => (TaskErrorKind::Trapped, words_of_trap(*trap, caps)),
            None if failure.phase == Phase::Instantiate => {
                (TaskErrorKind::Worker, format!("the module could not be instantiated: {error:#}"))
            }
            None => (TaskErrorKind::Trapped, format!("{error:#}")),
        },
    };
    Blame { kind, message, location, backtrace, log }
}

fn kind_of(stop: &Stop) -> TaskErrorKind {
    match stop {
        Stop::Memory { limit, peak } => TaskErrorKind::MemoryLimit { limit: limit.in_force().unwrap_or(u64::MAX), peak: *peak },
        Stop::Time { limit } => {
            let limit_ms = limit.in_force().and_then(|limit| u64::try_from(limit.as_millis()).ok());
            TaskErrorKind::TimeLimit { limit_ms: limit_ms.unwrap_or(u64::MAX) }
        }
        Stop::Cancelled | Stop::Table { .. } | Stop::Exit(_) | Stop::Lie(_) => TaskErrorKind::Trapped,
    }
}

fn words_of(stop: &Stop) -> String {
    match stop {
        Stop::Exit(code) => format!("the task called exit({code})"),
        Stop::Memory { limit, .. } => words_of_limit(limit, |bytes| Size(bytes).to_string(), "memory", "--task-memory"),
        Stop::Time { limit } => words_of_limit(limit, |time| format!("{time:?}"), "timeout", "--timeout"),
        stop => stop.to_string(),
    }
}

/// Whose the limit is, what the other one says, and how its owner raises it.
fn words_of_limit<T: Copy + Ord>(limit: &Limit<T>, show: impl Fn(T) -> String, option: &str, flag: &str) -> String {
    let wish = limit.wish.map_or_else(|| "without limit".to_owned(), |wish| format!("for {}", show(wish)));
    let cap = limit.cap.map_or_else(|| "any".to_owned(), show);
    if limit.is_owners() {
        return format!("the worker's owner allows {cap} ({flag}), the task asked {wish}");
    }
    let remedy = format!("which #[task({option} = \"…\")] or the call's options raise");
    format!("the task asked {wish}, {remedy}; the worker's owner allows {cap}")
}

fn words_of_trap(trap: Trap, caps: &Caps) -> String {
    match trap {
        Trap::StackOverflow => {
            let stack = Size(caps.stack_bytes() as u64);
            format!(
                "its stack overflowed, of which the worker's owner allows {stack} (--stack-limit); is there a recursion without end?"
            )
        }
        Trap::MemoryOutOfBounds => "it reached outside its memory; a deep recursion ends like this too".into(),
        Trap::UnreachableCodeReached => "it aborted".into(),
        Trap::IntegerDivisionByZero => "it divided by zero".into(),
        trap => trap.to_string(),
    }
}

/// Frames that only lead to a trap, at the inner end: prefixes of their names.
const INNER: &[&str] = &[
    "__rust",
    "__wasi_",
    "alloc::alloc::",
    "alloc::raw_vec::",
    "core::option::",
    "core::panicking::",
    "core::result::",
    "core::slice::index::",
    "rust_",
    "std::alloc::",
    "std::panicking::",
    "std::process::",
    "std::sys::",
];
/// The same, of C: whole names.
const INNER_C: &[&str] = &["_Exit", "abort", "calloc", "dlcalloc", "dlmalloc", "dlrealloc", "exit", "malloc", "realloc", "sbrk"];
/// Frames of the guest's runtime, at the outer end.
const OUTER: &str = "quicsand::guest::";

/// The guest's frames, innermost first, one a line, without the machinery at both ends.
fn frames(backtrace: &WasmBacktrace) -> String {
    // wasmtime demangles only when it writes a backtrace out: `  0:   0x12ab - module!name`, one a line after the first.
    let text = backtrace.to_string();
    let names = text.lines().filter_map(|line| line.split_once(" - ")?.1.split_once('!').map(|(_, name)| without_hash(name)));
    own_frames(&names.collect::<Vec<_>>())
}

fn own_frames(names: &[String]) -> String {
    let is_inner = |name: &&String| {
        let path = name.trim_start_matches('<');
        INNER.iter().any(|inner| path.starts_with(inner)) || INNER_C.contains(&&***name)
    };
    let own = names.iter().skip_while(is_inner).filter(|name| !name.starts_with(OUTER));
    let mut own: Vec<&str> = own.map(String::as_str).collect();
    if own.is_empty() {
        own = names.iter().map(String::as_str).collect();
    }
    // A recursion says the same over and over.
    let lines: Vec<String> = own
        .chunk_by(|a, b| a == b)
        .map(|same| if same.len() > 1 { format!("{} ({} times)", same[0], same.len()) } else { same[0].to_owned() })
        .collect();
    lines.join("\n")
}

/// `name` without the hashes of its crates, `name[0123456789abcdef]`, or its own, `name::h0123456789abcdef`.
fn without_hash(name: &str) -> String {
    let is_hash = |text: &str| text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = match name.rsplit_once("::h") {
        Some((path, hash)) if is_hash(hash) => path,
        _ => name,
    };
    let mut parts = name.split('[');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((hash, rest)) if is_hash(hash) => out.push_str(rest),
            _ => {
                out.push('[');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_whose_it_is() {
        let check = |wish: Option<u64>, cap: Option<u64>, expected: &str| {
            let limit = Limit { wish: wish.map(|mib| mib << 20), cap: cap.map(|mib| mib << 20) };
            assert_eq!(words_of(&Stop::Memory { limit, peak: 0 }), expected);
        };
        check(Some(1024), Some(512), "the worker's owner allows 512MiB (--task-memory), the task asked for 1GiB");
        check(None, Some(512), "the worker's owner allows 512MiB (--task-memory), the task asked without limit");
        let remedy = "which #[task(memory = \"…\")] or the call's options raise";
        check(Some(1), Some(2), &format!("the task asked for 1MiB, {remedy}; the worker's owner allows 2MiB"));
        check(Some(1), None, &format!("the task asked for 1MiB, {remedy}; the worker's owner allows any"));
    }

    #[test]
    fn machinery_is_left_out_at_both_ends() {
        let check = |names: &[&str], own: &[&str]| {
            assert_eq!(own_frames(&names.iter().map(|name| without_hash(name)).collect::<Vec<_>>()), own.join("\n"));
        };
        check(
            &["abort", "std[ea330b591063023a]::panicking::begin", "app::inner", "std::x", "app::task", "task_3"],
            &["app::inner", "std::x", "app::task", "task_3"],
        );
        check(
            &["app::f::h0123456789abcdef", "app::f::h0123456789abcdef", "quicsand::guest::runtime::run_batch::<app::f>"],
            &["app::f (2 times)"],
        );
        check(&["abort"], &["abort"]);
        check(&["<[u8] as app::T>::f", "app::helper"], &["<[u8] as app::T>::f", "app::helper"]);
    }
}
