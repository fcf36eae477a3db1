//! What `--json` prints: one structure a command. Field names and meanings stay; fields may be added. Must not know: how the answers
//! travelled.

use quicsand::ids::WorkerId;
use quicsand::{
    TaskErrorKind,
    wire::{
        LogLine, LogStream, PROTOCOL, StateCounts, Waiting,
        operator::{ClientStatus, EntryKind, EntryStatus, Failure, ModuleStatus, Presence, Status, WorkerStatus},
    },
};
use serde::Serialize;

use super::keys::KeyArgument;

/// `quicsand status --json`.
#[derive(Debug, Serialize)]
pub(super) struct StatusReport {
    scheduler: SchedulerReport,
    workers: Vec<WorkerReport>,
    clients: Vec<ClientReport>,
    modules: Vec<ModuleReport>,
    /// Workers, clients and modules that are not listed for their number.
    unlisted: u64,
    /// Items of all clients in each state.
    calls: CountsReport,
    /// Why queued items are with no worker.
    waits: Vec<WaitReport>,
}

#[derive(Debug, Serialize)]
struct SchedulerReport {
    address: String,
    /// Of its program.
    version: String,
    /// Of the protocol that it speaks.
    protocol: u32,
    uptime_ms: u64,
}

#[derive(Debug, Serialize)]
struct WorkerReport {
    id: u64,
    /// Of its certificate: what `quicsand worker revoke` takes too.
    identity: String,
    name: String,
    /// Where it comes from, as the scheduler sees it.
    address: Option<String>,
    arch: String,
    slots: u32,
    /// Of them, at the last heartbeat.
    slots_busy: u32,
    /// Bytes that tasks may use together.
    memory_limit: u64,
    /// Bytes that its process uses, at the last heartbeat.
    memory_used: u64,
    /// Bytes of values that it holds, at the last heartbeat.
    held_bytes: u64,
    /// Stored values that it holds.
    held_values: u64,
    /// Runs that it was given and that are not over.
    assignments: u64,
    /// Those of them that were sent ahead of their inputs.
    assignments_ahead: u64,
    labels: std::collections::BTreeMap<String, String>,
    resources: std::collections::BTreeMap<String, u64>,
    /// What assignments take of them.
    resources_taken: std::collections::BTreeMap<String, u64>,
    /// Whether it is leaving.
    draining: bool,
    /// Whether its memory is so short that it gets something only if nobody else can do it.
    short_of_memory: bool,
}

#[derive(Debug, Serialize)]
struct ClientReport {
    id: u64,
    name: String,
    address: Option<String>,
    /// Hash of its program's module, in hexadecimal.
    module: String,
    /// Calls, maps and data that are not released.
    entries: u64,
    /// Bytes of its arguments and data that the scheduler keeps.
    held_bytes: u64,
    /// `here`, `away` or `left`.
    presence: &'static str,
    /// Names under which results of it are published.
    published: u32,
    calls: CountsReport,
}

#[derive(Debug, Serialize)]
struct ModuleReport {
    /// In hexadecimal.
    hash: String,
    /// `null` while it is not uploaded.
    bytes: Option<u64>,
    clients: u64,
}

/// Items in each state.
#[derive(Clone, Copy, Debug, Serialize)]
struct CountsReport {
    waiting: u64,
    queued: u64,
    processing: u64,
    memory: u64,
    erred: u64,
    released: u64,
}

#[derive(Debug, Serialize)]
struct WaitReport {
    /// What they ask of a worker: `zone=a, gpu=1`, or `nothing`.
    requires: String,
    reason: String,
    items: u64,
}

/// `quicsand tasks --json`.
#[derive(Debug, Serialize)]
pub(super) struct TasksReport {
    pub(super) entries: Vec<EntryReport>,
    /// Entries that are not listed.
    pub(super) more: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct EntryReport {
    key: String,
    /// `call`, `map` or `data`.
    kind: &'static str,
    /// Of a map: whether items may still come.
    open: bool,
    /// Of data: its length.
    bytes: Option<u64>,
    /// `null` of data.
    task: Option<String>,
    /// Its items in each state.
    calls: CountsReport,
    /// Some of the workers that have its items.
    workers: Vec<u64>,
    age_ms: u64,
}

/// `quicsand tasks --failed --json`.
#[derive(Debug, Serialize)]
pub(super) struct FailuresReport {
    pub(super) failures: Vec<FailureReport>,
    /// Failures that the scheduler remembers and that are not listed.
    pub(super) more: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct FailureReport {
    key: String,
    items: u64,
    task: String,
    /// See [`kind`].
    kind: &'static str,
    message: String,
    /// `file:line:column` of a panic.
    location: Option<String>,
    worker: String,
    attempts: u32,
    ago_ms: u64,
}

/// A line of `quicsand logs --json`.
#[derive(Debug, Serialize)]
pub(super) struct LineReport {
    /// In milliseconds since 1970, by the worker's clock.
    at_ms: u64,
    worker: u64,
    key: String,
    /// `out` or `err`.
    stream: &'static str,
    text: String,
}

/// One of the keys of `quicsand cancel --json`.
#[derive(Debug, Serialize)]
pub(super) struct CancelReport {
    pub(super) key: String,
    /// Those that had not ended; 0 if it failed.
    pub(super) items: u64,
    /// Why nothing was cancelled.
    pub(super) error: Option<String>,
}

impl StatusReport {
    pub(super) fn new(status: Status, address: String, version: String) -> Self {
        Self {
            scheduler: SchedulerReport { address, version, protocol: PROTOCOL, uptime_ms: status.uptime_ms },
            workers: status.workers.into_iter().map(WorkerReport::from).collect(),
            clients: status.clients.into_iter().map(ClientReport::from).collect(),
            modules: status.modules.into_iter().map(ModuleReport::from).collect(),
            unlisted: status.unlisted,
            calls: status.counts.into(),
            waits: status.waits.into_iter().map(WaitReport::from).collect(),
        }
    }
}

impl From<WorkerStatus> for WorkerReport {
    fn from(worker: WorkerStatus) -> Self {
        Self {
            id: worker.id.0,
            identity: worker.identity.to_string(),
            name: worker.name,
            address: worker.address.map(|address| address.to_string()),
            arch: worker.arch,
            slots: worker.slots,
            slots_busy: worker.load.busy,
            memory_limit: worker.memory,
            memory_used: worker.load.used_bytes,
            held_bytes: worker.load.held_bytes,
            held_values: worker.values,
            assignments: worker.assignments,
            assignments_ahead: worker.ahead,
            labels: worker.labels.into_iter().collect(),
            resources: worker.resources.into_iter().collect(),
            resources_taken: worker.taken.into_iter().collect(),
            draining: worker.draining,
            short_of_memory: worker.load.pressed,
        }
    }
}

impl From<ClientStatus> for ClientReport {
    fn from(client: ClientStatus) -> Self {
        Self {
            id: client.id.0,
            name: client.name,
            address: client.address.map(|address| address.to_string()),
            module: client.module.to_string(),
            entries: client.entries,
            held_bytes: client.held_bytes,
            presence: match client.presence {
                Presence::Here => "here",
                Presence::Away => "away",
                Presence::Left => "left",
            },
            published: client.published,
            calls: client.counts.into(),
        }
    }
}

impl From<ModuleStatus> for ModuleReport {
    fn from(module: ModuleStatus) -> Self {
        Self { hash: module.hash.to_string(), bytes: module.bytes, clients: module.clients }
    }
}

impl From<StateCounts> for CountsReport {
    fn from(counts: StateCounts) -> Self {
        let StateCounts { waiting, queued, processing, memory, erred, released } = counts;
        Self { waiting, queued, processing, memory, erred, released }
    }
}

impl From<Waiting> for WaitReport {
    fn from(Waiting { items, requires, why }: Waiting) -> Self {
        Self { requires: requires.to_string(), reason: why, items }
    }
}

impl From<EntryStatus> for EntryReport {
    fn from(entry: EntryStatus) -> Self {
        let (kind, open, bytes) = match entry.kind {
            EntryKind::Call => ("call", false, None),
            EntryKind::Map { open } => ("map", open, None),
            EntryKind::Data { bytes } => ("data", false, Some(bytes)),
        };
        Self {
            key: format!("{:?}", entry.id),
            kind,
            open,
            bytes,
            task: (kind != "data").then_some(entry.task),
            calls: entry.counts.into(),
            workers: entry.workers.into_iter().map(|worker| worker.0).collect(),
            age_ms: entry.age_ms,
        }
    }
}

impl From<Failure> for FailureReport {
    fn from(failure: Failure) -> Self {
        Self {
            key: KeyArgument::items(failure.key.entry, failure.key.index, failure.items).to_string(),
            items: failure.items,
            task: failure.task,
            kind: kind(&failure.kind),
            message: failure.message,
            location: failure.location,
            worker: failure.worker,
            attempts: failure.attempts,
            ago_ms: failure.ago_ms,
        }
    }
}

impl LineReport {
    pub(super) fn new(worker: WorkerId, line: LogLine) -> Self {
        Self { at_ms: line.at_ms, worker: worker.0, key: line.key.to_string(), stream: stream(line.stream), text: line.text }
    }
}

/// What a stream is called.
pub(super) fn stream(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Out => "out",
        LogStream::Err => "err",
    }
}

/// What a kind of failure is called.
pub(super) fn kind(kind: &TaskErrorKind) -> &'static str {
    match kind {
        TaskErrorKind::Returned => "returned",
        TaskErrorKind::Panicked => "panicked",
        TaskErrorKind::Trapped => "trapped",
        TaskErrorKind::MemoryLimit { .. } => "memory-limit",
        TaskErrorKind::TimeLimit { .. } => "time-limit",
        TaskErrorKind::OutputLimit { .. } => "output-limit",
        TaskErrorKind::Argument { .. } => "argument",
        TaskErrorKind::Result => "result",
        TaskErrorKind::UnknownTask => "unknown-task",
        TaskErrorKind::Module => "module",
        TaskErrorKind::Poisonous { .. } => "poisonous",
        TaskErrorKind::DataLost => "data-lost",
        TaskErrorKind::Worker => "worker",
        _ => "other",
    }
}
