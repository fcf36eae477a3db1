//! `quicsand status`.

use clap::Args;
use quicsand::wire::{
    PROTOCOL, StateCounts,
    operator::{self, ClientStatus, Presence},
};

use super::{
    Failed,
    operator::Access,
    report::StatusReport,
    say, say_json,
    text::{Table, age, many, printable, size},
};

/// Digits of a module's hash that tell it from others.
const HASH_DIGITS: usize = 12;
/// Labels that every worker has, and that say nothing to who looks at a table.
const BUILT_IN: [&str; 3] = ["arch", "os", "cpu."];

#[derive(Debug, Args)]
#[command(after_long_help = "\
Shows the scheduler's version and protocol, its workers (slots busy at the last heartbeat, memory that the process uses of what tasks
may use, bytes of values that it holds, labels and resources), its clients (away: the connection broke, and it may come back; left: here
only for what others want of it), the modules of their programs, and how many calls and items of maps are in which state: waiting for
results of others, queued for a worker, processing, in memory, erred (or cancelled), released.

A client's token allows this command, too; all others need an operator's. On the machine of a scheduler that keeps its state in a
directory, no flags are needed: address and operator's token are read from there.

Examples:
    quicsand status
    quicsand status --scheduler cluster.example.org:7447 --token-file operator.token
    quicsand status --json | jq '.workers[] | {name, slots_busy, slots}'")]
pub(super) struct Status {
    #[command(flatten)]
    access: Access,
    /// Print one JSON object, with everything that is known
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut operator = self.access.connect()?;
        let status = operator.status()?;
        let (address, version) = (operator.address().to_string(), operator.version().to_owned());
        if self.json {
            say_json(&StatusReport::new(status, address, version))
        } else {
            say(&mut std::io::stdout(), &report(&status, &address, &version));
        }
        Ok(())
    }
}

fn report(status: &operator::Status, address: &str, version: &str) -> String {
    let version = printable(version);
    let mut text = format!("scheduler {address}: version {version}, protocol {PROTOCOL}, up {}\n\n", age(status.uptime_ms));
    text += &workers(status);
    text += &clients(status);
    text += &modules(status);
    if status.unlisted > 0 {
        text += &format!("and {} that are not listed\n\n", many(status.unlisted, "peer or module", "peers and modules"));
    }
    let StateCounts { waiting, queued, processing, memory, erred, released } = status.counts;
    text += &format!(
        "calls: {waiting} waiting, {queued} queued, {processing} processing, {memory} in memory, {erred} erred, {released} released\n"
    );
    for wait in &status.waits {
        text += &format!("  {}: {}\n", many(wait.items, "waits", "wait"), printable(&wait.why));
    }
    text
}

fn workers(status: &operator::Status) -> String {
    if status.workers.is_empty() {
        return "workers: none; the scheduler prints at its start how to start one\n\n".to_owned();
    }
    let (busy, slots) = status
        .workers
        .iter()
        .fold((0, 0), |(busy, slots), worker| (busy + u64::from(worker.load.busy), slots + u64::from(worker.slots)));
    let mut table = Table::new(&[">ID", "NAME", "ADDRESS", "ARCH", ">SLOTS", ">MEMORY", ">HELD", "LABELS AND RESOURCES", ""]);
    for worker in &status.workers {
        table.row([
            worker.id.to_string(),
            worker.name.clone(),
            worker.address.map_or_else(String::new, |address| address.to_string()),
            worker.arch.clone(),
            format!("{}/{}", worker.load.busy, worker.slots),
            format!("{} of {}", size(worker.load.used_bytes), size(worker.memory)),
            size(worker.load.held_bytes),
            properties(worker),
            match (worker.draining, worker.load.pressed) {
                (true, _) => "draining".to_owned(),
                (false, true) => "short of memory".to_owned(),
                (false, false) => String::new(),
            },
        ]);
    }
    format!("workers: {}, {busy} of {} busy\n{}\n", status.workers.len(), many(slots, "slot", "slots"), table.text())
}

fn properties(worker: &operator::WorkerStatus) -> String {
    let is_built_in =
        |name: &str| BUILT_IN.iter().any(|built_in| name == *built_in || built_in.ends_with('.') && name.starts_with(built_in));
    let labels = worker.labels.iter().filter(|(name, _)| !is_built_in(name)).map(|(name, value)| format!("{name}={value}"));
    let taken = |name: &str| worker.taken.iter().find(|(known, _)| known == name).map_or(0, |(_, amount)| *amount);
    let resources = worker.resources.iter().map(|(name, amount)| format!("{name}={}/{amount}", taken(name)));
    labels.chain(resources).collect::<Vec<_>>().join(" ")
}

fn clients(status: &operator::Status) -> String {
    if status.clients.is_empty() {
        return "clients: none\n\n".to_owned();
    }
    let mut table = Table::new(&[
        ">ID",
        "NAME",
        "ADDRESS",
        "MODULE",
        ">ENTRIES",
        ">KEPT",
        ">WAITING",
        ">QUEUED",
        ">PROCESSING",
        ">MEMORY",
        ">ERRED",
        "",
    ]);
    for client in &status.clients {
        let counts = client.counts;
        table.row([
            client.id.to_string(),
            client.name.clone(),
            client.address.map_or_else(String::new, |address| address.to_string()),
            short(client.module),
            client.entries.to_string(),
            size(client.held_bytes),
            counts.waiting.to_string(),
            counts.queued.to_string(),
            counts.processing.to_string(),
            counts.memory.to_string(),
            counts.erred.to_string(),
            remarks(client),
        ]);
    }
    format!("clients: {}\n{}\n", status.clients.len(), table.text())
}

/// What is unusual about a client.
fn remarks(client: &ClientStatus) -> String {
    let presence = match client.presence {
        Presence::Here => None,
        Presence::Away => Some("away".to_owned()),
        Presence::Left => Some("left".to_owned()),
    };
    let published = (client.published > 0).then(|| format!("{} published", client.published));
    presence.into_iter().chain(published).collect::<Vec<_>>().join(", ")
}

fn modules(status: &operator::Status) -> String {
    if status.modules.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["HASH", ">SIZE", ">CLIENTS"]);
    for module in &status.modules {
        table.row([short(module.hash), module.bytes.map_or_else(|| "not here yet".to_owned(), size), module.clients.to_string()]);
    }
    format!("modules: {}\n{}\n", status.modules.len(), table.text())
}

fn short(hash: quicsand::ids::Hash) -> String {
    hash.to_string().chars().take(HASH_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use quicsand::{
        ids::{ClientId, Hash, Identity, WorkerId},
        requirements::Requirements,
        wire::{
            Load, Waiting,
            operator::{ModuleStatus, WorkerStatus},
        },
    };

    use super::*;

    #[test]
    fn all_of_it_is_shown() {
        let counts = StateCounts { queued: 7, memory: 2, ..StateCounts::default() };
        let labels =
            [("arch", "x86_64"), ("cpu.avx2", "yes"), ("zone", "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let status = operator::Status {
            workers: vec![WorkerStatus {
                identity: Identity([7; 16]),
                id: WorkerId(2),
                name: "lab\u{1b}[2J".to_owned(),
                address: Some(([10, 0, 0, 7], 4711).into()),
                arch: "x86_64".to_owned(),
                slots: 4,
                memory: 8 << 30,
                load: Load { held_bytes: 10, used_bytes: 120 << 20, busy: 3, pressed: false },
                labels: labels.into(),
                resources: vec![("gpu".to_owned(), 2)],
                taken: vec![("gpu".to_owned(), 1)],
                assignments: 5,
                ahead: 1,
                values: 1,
                draining: true,
            }],
            clients: vec![ClientStatus {
                id: ClientId(1),
                name: "sweep/42".to_owned(),
                address: None,
                entries: 3,
                held_bytes: 2048,
                module: Hash([0xab; 32]),
                presence: Presence::Left,
                published: 2,
                counts,
            }],
            modules: vec![ModuleStatus { hash: Hash([0xab; 32]), bytes: Some(1 << 20), clients: 1 }],
            unlisted: 0,
            counts,
            waits: vec![Waiting { items: 7, requires: Requirements::NONE, why: "no worker has zone=b".to_owned() }],
            uptime_ms: 61_000,
        };
        let expected = "\
scheduler 127.0.0.1:7447: version 1.2.3, protocol 1, up 1m 1s

workers: 1, 3 of 4 slots busy
  ID  NAME           ADDRESS        ARCH    SLOTS                MEMORY  HELD  LABELS AND RESOURCES
   2  lab\\u{1b}[2J  10.0.0.7:4711  x86_64    3/4  120 MiB of 8.0 GiB  10 B  zone=a gpu=1/2        draining

clients: 1
  ID  NAME      ADDRESS  MODULE        ENTRIES     KEPT  WAITING  QUEUED  PROCESSING  MEMORY  ERRED
   1  sweep/42           abababababab        3  2.0 KiB        0       7           0       2      0  left, 2 published

modules: 1
  HASH             SIZE  CLIENTS
  abababababab  1.0 MiB        1

calls: 0 waiting, 7 queued, 0 processing, 2 in memory, 0 erred, 0 released
  7 wait: no worker has zone=b
";
        let expected = expected.replace("protocol 1,", &format!("protocol {PROTOCOL},"));
        let words =
            |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(words(&report(&status, "127.0.0.1:7447", "1.2.3")), words(&expected));
        let json =
            serde_json::to_value(StatusReport::new(status, "127.0.0.1:7447".to_owned(), "1.2.3".to_owned())).expect("JSON");
        assert_eq!(json["workers"][0]["labels"]["cpu.avx2"], "yes");
        assert_eq!(json["scheduler"]["protocol"], PROTOCOL);
        assert_eq!(json["modules"][0]["hash"], "ab".repeat(32));
        assert_eq!(json["calls"]["queued"], 7);
    }
}
