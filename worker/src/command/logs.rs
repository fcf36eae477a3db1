//! `quicsand logs`.

use std::{collections::BTreeMap, thread, time::Duration};

use clap::Args;
use quicsand::{
    codec::Span,
    ids::WorkerId,
    net::Operator,
    wire::{
        LogLine, LogStream,
        operator::{Logs as Printed, SilentWorker},
    },
};

use super::{
    Failed, keys,
    operator::Access,
    report::{LineReport, stream},
    say, say_json,
    text::{moment, printable},
};

/// How often `--follow` asks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Lines that `--follow` takes at a time.
const FOLLOWED: u32 = 10_000;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Shows what tasks wrote to standard output and standard error: time (of the worker's clock, in UTC), worker, key of the item, stream,
and the line. Each worker keeps the last lines of all its tasks, 4 MiB of them unless `quicsand worker --log-buffer` says otherwise, and
until it joins anew; lines of calls that have ended are among them. A line is there once its end, or the item's, was written.

Without an argument, it shows the lines of all workers, merged by time. A worker that does not answer within 3 seconds is named on
standard error.

Examples:
    quicsand logs                     the last 100 lines of all workers
    quicsand logs 2 --limit 1000      of worker 2, which `quicsand status` lists
    quicsand logs 3.17                of all items of a map, which `quicsand tasks` lists
    quicsand logs '3.17[42]' --json   of one item, as JSON, one object a line
    quicsand logs --follow            and those that are still to come, until it is interrupted")]
pub(super) struct Logs {
    /// A worker's number or name, or the key of a call, map or item; all workers by default
    #[arg(value_name = "WORKER|KEY")]
    what: Option<String>,
    #[command(flatten)]
    access: Access,
    /// Show so many lines at most, the latest
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Go on with new lines as they come
    #[arg(short, long)]
    follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Logs {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut operator = self.access.connect()?;
        let (worker, span) = self.find(&mut operator)?;
        let mut printed = operator.logs(worker, span, self.limit, Vec::new())?;
        let mut last: BTreeMap<WorkerId, u64> = BTreeMap::new();
        let mut silent = Vec::new();
        loop {
            self.show(&printed);
            last.extend(printed.last);
            silent = complain(printed.silent, &silent);
            if !self.follow {
                return Ok(());
            }
            thread::sleep(INTERVAL);
            printed = operator.logs(worker, span, FOLLOWED, last.clone().into_iter().collect())?;
        }
    }

    /// What is asked for: of which worker, or of which items.
    fn find(&self, operator: &mut Operator) -> Result<(Option<WorkerId>, Option<Span>), Failed> {
        let Some(what) = &self.what else { return Ok((None, None)) };
        if let Ok(id) = what.parse() {
            return Ok((Some(WorkerId(id)), None));
        }
        if let Ok(key) = keys::key(what) {
            return Ok((None, Some(key.0)));
        }
        let workers = operator.status()?.workers;
        match workers.into_iter().find(|worker| worker.name == *what) {
            Some(worker) => Ok((Some(worker.id), None)),
            None => Err(Failed::NoSuchThing { what: what.clone() }),
        }
    }

    fn show(&self, printed: &Printed) {
        for (worker, line) in &printed.lines {
            match self.json {
                true => say_json(&LineReport::new(*worker, line.clone())),
                false => say(&mut std::io::stdout(), &text(*worker, line)),
            }
        }
    }
}

fn text(worker: WorkerId, line: &LogLine) -> String {
    // Standard output is the rule, and needs no word.
    let mark = match line.stream {
        LogStream::Out => String::new(),
        LogStream::Err => format!(" {}", stream(line.stream)),
    };
    format!("{}  worker {worker}  {}{mark}  {}\n", moment(line.at_ms), line.key, printable(&line.text))
}

/// Names workers that did not answer, once each as long as they do not; gives those that did not.
fn complain(silent: Vec<SilentWorker>, before: &[WorkerId]) -> Vec<WorkerId> {
    for SilentWorker { id, name, reason } in silent.iter().filter(|worker| !before.contains(&worker.id)) {
        let (name, reason) = (printable(name), printable(reason));
        say(&mut std::io::stderr(), &format!("quicsand: worker {id} ({name}) does not say what its tasks printed: {reason}\n"));
    }
    silent.into_iter().map(|worker| worker.id).collect()
}

#[cfg(test)]
mod tests {
    use quicsand::ids::{ClientId, EntryId};

    use super::*;

    #[test]
    fn lines_say_when_and_where() {
        let key = EntryId { client: ClientId(3), seq: 17 }.key(42);
        let line = LogLine { number: 1, at_ms: 1500, key, stream: LogStream::Out, text: "x = \u{1b}[1m5".to_owned() };
        let expected = "1970-01-01T00:00:01.500Z  worker 2  3.17[42]  x = \\u{1b}[1m5\n";
        assert_eq!(text(WorkerId(2), &line), expected);
        let line = LogLine { stream: LogStream::Err, ..line };
        assert_eq!(text(WorkerId(2), &line), expected.replace("[42]", "[42] err"));
    }
}
