//! `quicsand tasks`.

use clap::Args;
use quicsand::wire::operator::{EntryKind, EntryStatus, Failure, Failures, Tasks as Listed};

use super::{
    Failed,
    keys::KeyArgument,
    operator::Access,
    report::{FailuresReport, TasksReport, kind},
    say, say_json,
    text::{Table, age, many, printable, size},
};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Lists the calls and maps of all clients, and the data that they scattered: those that are not at their end first, then those with items
that failed or were cancelled, then the others. The numbers are of items in each state; a call has one. What its client has released is
not listed any more.

With --failed, it lists what failed lately, the latest first, whether or not its client is still there: the scheduler remembers the last
1000 failures. Items that failed only because another one did are not among them.

Keys are written as other commands take them: 3.17 is entry 17 of client 3, and 3.17[42] one of its items.

Examples:
    quicsand tasks
    quicsand tasks --failed --limit 10
    quicsand tasks --json | jq '[.entries[].calls.queued] | add'")]
pub(super) struct Tasks {
    #[command(flatten)]
    access: Access,
    /// List what failed lately, with its errors
    #[arg(long)]
    failed: bool,
    /// List so many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Tasks {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut operator = self.access.connect()?;
        if self.failed {
            let Failures { failures, more } = operator.failures(self.limit)?;
            match self.json {
                true => say_json(&FailuresReport { failures: failures.into_iter().map(Into::into).collect(), more }),
                false => say(&mut std::io::stdout(), &failed(&failures, more)),
            }
        } else {
            let Listed { entries, more } = operator.tasks(self.limit)?;
            match self.json {
                true => say_json(&TasksReport { entries: entries.into_iter().map(Into::into).collect(), more }),
                false => say(&mut std::io::stdout(), &listed(&entries, more)),
            }
        }
        Ok(())
    }
}

fn listed(entries: &[EntryStatus], more: u64) -> String {
    if entries.is_empty() && more == 0 {
        return "there are no calls\n".to_owned();
    }
    let mut table = Table::new(&[
        "KEY",
        "TASK",
        "KIND",
        ">WAITING",
        ">QUEUED",
        ">PROCESSING",
        ">MEMORY",
        ">ERRED",
        ">RELEASED",
        ">AGE",
        "WORKERS",
    ]);
    for entry in entries {
        let counts = entry.counts;
        table.row([
            format!("{:?}", entry.id),
            entry.task.clone(),
            match entry.kind {
                EntryKind::Call => "call".to_owned(),
                EntryKind::Map { open: false } => "map".to_owned(),
                EntryKind::Map { open: true } => "open map".to_owned(),
                EntryKind::Data { bytes } => format!("data, {}", size(bytes)),
            },
            counts.waiting.to_string(),
            counts.queued.to_string(),
            counts.processing.to_string(),
            counts.memory.to_string(),
            counts.erred.to_string(),
            counts.released.to_string(),
            age(entry.age_ms),
            entry.workers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        ]);
    }
    table.text() + &rest(more)
}

fn failed(failures: &[Failure], more: u64) -> String {
    if failures.is_empty() && more == 0 {
        return "nothing has failed lately\n".to_owned();
    }
    let mut text = String::new();
    for failure in failures {
        let key = KeyArgument::items(failure.key.entry, failure.key.index, failure.items);
        text += &format!("{key}  {}  {}, {} ago", printable(&failure.task), kind(&failure.kind), age(failure.ago_ms));
        if !failure.worker.is_empty() {
            text += &format!(", on {}", printable(&failure.worker));
        }
        if failure.attempts > 1 {
            text += &format!(", after {} attempts", failure.attempts);
        }
        if failure.items > 1 {
            text += &format!(", {}", many(failure.items, "item", "items"));
        }
        text.push('\n');
        let place = failure.location.as_ref().map_or_else(String::new, |place| format!(" (at {})", printable(place)));
        let message = format!("{}{place}", failure.message);
        for line in message.lines() {
            text += format!("    {}", printable(line)).trim_end();
            text.push('\n');
        }
    }
    text + &rest(more)
}

fn rest(more: u64) -> String {
    if more > 0 { format!("and {more} more; --limit says how many are listed\n") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use quicsand::{
        TaskErrorKind,
        ids::{ClientId, EntryId, WorkerId},
        wire::StateCounts,
    };

    use super::*;

    fn entry(seq: u64) -> EntryId {
        EntryId { client: ClientId(3), seq }
    }

    #[test]
    fn entries_are_listed() {
        let entries = [
            EntryStatus {
                id: entry(1),
                kind: EntryKind::Map { open: true },
                task: "score".to_owned(),
                counts: StateCounts { processing: 2, erred: 1, ..StateCounts::default() },
                workers: vec![WorkerId(1), WorkerId(4)],
                age_ms: 5000,
            },
            EntryStatus {
                id: entry(2),
                kind: EntryKind::Data { bytes: 1 << 20 },
                task: String::new(),
                counts: StateCounts { memory: 1, ..StateCounts::default() },
                workers: Vec::new(),
                age_ms: 0,
            },
        ];
        let expected = "  \
  KEY  TASK   KIND           WAITING  QUEUED  PROCESSING  MEMORY  ERRED  RELEASED  AGE  WORKERS
  3.1  score  open map             0       0           2       0      1         0   5s  1 4
  3.2         data, 1.0 MiB        0       0           0       1      0         0  0ms
and 9 more; --limit says how many are listed
";
        assert_eq!(listed(&entries, 9), expected);
        assert_eq!(listed(&[], 0), "there are no calls\n");
    }

    #[test]
    fn failures_are_listed_with_their_errors() {
        let failure = Failure {
            key: entry(1).key(42),
            items: 1,
            task: "score".to_owned(),
            kind: TaskErrorKind::Panicked,
            message: "no threes\nnor \u{7}bells".to_owned(),
            location: Some("src/main.rs:7:5".to_owned()),
            worker: "lab (x86_64)".to_owned(),
            attempts: 2,
            ago_ms: 61_000,
        };
        let expected = "\
3.1[42]  score  panicked, 1m 1s ago, on lab (x86_64), after 2 attempts
    no threes
    nor \\u{7}bells (at src/main.rs:7:5)
";
        assert_eq!(failed(std::slice::from_ref(&failure), 0), expected);
        let several = Failure { items: 8, attempts: 1, ..failure };
        assert!(failed(&[several], 0).starts_with("3.1[42..50]  score  panicked, 1m 1s ago, on lab (x86_64), 8 items\n"));
    }
}
