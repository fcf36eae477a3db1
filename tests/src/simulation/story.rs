//! What happened, for people: kept only when a seed that failed is run again. Owns: how an event reads, and which of them concern a
//! call. Must not know: what any event does.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use quicsand::{
    codec::{Args, Span},
    ids::{ClientId, EntryId, Key, RunId},
    wire::{FromClient, FromWorker, InputPlace, ToClient, ToWorker},
};

/// Lines at a story's end that are shown whatever they concern.
const LAST: usize = 25;

/// Something that happened.
#[derive(Debug)]
struct Line {
    at: Duration,
    text: String,
    spans: Vec<Span>,
    runs: Vec<RunId>,
}

/// What an event reads like, and whom it concerns. One that concerns no call concerns all.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) text: String,
    pub(super) spans: Vec<Span>,
    pub(super) runs: Vec<RunId>,
}

/// The lines so far, if anybody wants them.
#[derive(Debug, Default)]
pub(super) struct Story {
    lines: Option<Vec<Line>>,
}

impl Story {
    pub(super) fn new(is_kept: bool) -> Self {
        Self { lines: is_kept.then(Vec::new) }
    }

    /// Notes what happened, if it is kept.
    pub(super) fn note(&mut self, at: Duration, told: impl FnOnce() -> Told) {
        if let Some(lines) = &mut self.lines {
            let Told { text, spans, runs } = told();
            lines.push(Line { at, text, spans, runs });
        }
    }

    /// The lines that concern what a complaint names, and what that reads, in order; and the last ones of all.
    pub(super) fn about(&self, complaint: &str, ancestors: impl Fn(Key) -> BTreeSet<Key>) -> String {
        let Some(lines) = &self.lines else { return String::new() };
        let (mut keys, entries, mut runs) = subjects(complaint);
        let inputs: Vec<Key> = keys.iter().flat_map(|&key| ancestors(key)).collect();
        keys.extend(inputs);
        let names = |spans: &[Span]| {
            let key =
                |span: &Span| keys.iter().any(|key| key.entry == span.entry && key.index.wrapping_sub(span.first) < span.count);
            spans.iter().any(|span| key(span) || entries.contains(&span.entry))
        };
        for line in lines.iter().filter(|line| names(&line.spans)) {
            runs.extend(&line.runs);
        }
        let is_general = |line: &Line| line.spans.is_empty() && line.runs.is_empty();
        let concerns = |line: &Line| {
            is_general(line) || names(&line.spans) || (line.spans.is_empty() && line.runs.iter().any(|run| runs.contains(run)))
        };
        let mut text = String::new();
        let mut skipped = false;
        for (at, line) in lines.iter().enumerate() {
            if concerns(line) || at + LAST >= lines.len() {
                let gap = if std::mem::take(&mut skipped) { "  ..." } else { "" };
                let _ = writeln!(text, "{:>12.6}s {}{gap}", line.at.as_secs_f64(), line.text);
            } else {
                skipped = true;
            }
        }
        text
    }
}

/// The keys, entries and runs that a text names: `1.5[3]`, `1.5`, `run 7`.
fn subjects(text: &str) -> (BTreeSet<Key>, BTreeSet<EntryId>, BTreeSet<RunId>) {
    let (mut keys, mut entries, mut runs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut before = "";
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || ".[]".contains(c))).filter(|word| !word.is_empty()) {
        let word = word.trim_start_matches('[').trim_end_matches('.');
        let (name, index) = word.split_once('[').map_or((word, None), |(name, rest)| (name, rest.split(']').next()));
        let entry = name
            .split_once('.')
            .and_then(|(client, seq)| Some(EntryId { client: ClientId(client.parse().ok()?), seq: seq.parse().ok()? }));
        match (entry, index.and_then(|index| index.parse().ok())) {
            (Some(entry), Some(index)) => drop(keys.insert(entry.key(index))),
            (Some(entry), None) => drop(entries.insert(entry)),
            (None, _) => {
                if let (true, Ok(run)) = (before.starts_with("run"), word.parse()) {
                    runs.insert(RunId(run));
                }
            }
        }
        before = word;
    }
    (keys, entries, runs)
}

/// Items of an entry as they are written: `1.5[0..4]`.
fn items(span: &Span) -> String {
    match span.count {
        1 => format!("{:?}", span.entry.key(span.first)),
        _ => format!("{:?}[{}..{}]", span.entry, span.first, span.first.saturating_add(span.count)),
    }
}

fn reads(args: &Args) -> String {
    let spans: Vec<_> = args.holes.iter().flat_map(|hole| hole.spans()).map(|span| items(&span)).collect();
    if spans.is_empty() { String::new() } else { format!(" reading {}", spans.join(", ")) }
}

fn told(text: String, spans: Vec<Span>, runs: Vec<RunId>) -> Told {
    Told { text, spans, runs }
}

/// What a client says.
pub(super) fn from_client(client: ClientId, message: &FromClient) -> Told {
    let entry = |seq: u64| EntryId { client, seq };
    let whole = |seq: u64| vec![Span { entry: entry(seq), first: 0, count: u64::MAX }];
    let one = |seq: u64, index: u64| vec![Span { entry: entry(seq), first: index, count: 1 }];
    match message {
        FromClient::Call { seq, args, spec } => {
            told(format!("Call {:?} ({} retries){}", entry(*seq), spec.options.retries, reads(args)), whole(*seq), vec![])
        }
        FromClient::Map { seq, .. } => told(format!("Map {:?}", entry(*seq)), whole(*seq), vec![]),
        FromClient::Items { seq, args } => {
            told(format!("Items {:?}: {} more{}", entry(*seq), args.count(), reads(args)), whole(*seq), vec![])
        }
        FromClient::Close { seq } => told(format!("Close {:?}", entry(*seq)), whole(*seq), vec![]),
        FromClient::Data { seq, len, bytes, .. } => {
            let how = if bytes.is_some() { "along" } else { "to be uploaded" };
            told(format!("Data {:?} of {len} bytes, {how}", entry(*seq)), whole(*seq), vec![])
        }
        FromClient::UploadFailed { seq } => told(format!("UploadFailed {:?}", entry(*seq)), whole(*seq), vec![]),
        FromClient::Release { span } => told(format!("Release {}", items(span)), vec![*span], vec![]),
        FromClient::Cancel { span } => told(format!("Cancel {}", items(span)), vec![*span], vec![]),
        FromClient::Unreachable { seq, index } => {
            told(format!("Unreachable {}", entry(*seq).key(*index)), one(*seq, *index), vec![])
        }
        FromClient::Count { query, .. } => told(format!("Count, query {query}"), whole(u64::MAX), vec![]),
        FromClient::Explain { query, .. } => told(format!("Explain, query {query}"), whole(u64::MAX), vec![]),
        other => told(format!("{other:?}"), vec![], vec![]),
    }
}

/// What a client is told.
pub(super) fn to_client(client: ClientId, message: &ToClient) -> Told {
    let entry = |seq: u64| EntryId { client, seq };
    let span = |seq: u64, first: u64, count: u64| Span { entry: entry(seq), first, count };
    let about = |text: &str, span: Span| told(format!("{text} {}", items(&span)), vec![span], vec![]);
    match message {
        ToClient::Done { seq, first, values } => about("Done", span(*seq, *first, values.count().into())),
        ToClient::Stored { seq, index, places, .. } => {
            about(&format!("Stored at {} places:", places.len()), span(*seq, *index, 1))
        }
        ToClient::Failed { seq, index, error } => {
            about(&format!("Failed as {:?} because of {}:", error.kind, error.key), span(*seq, *index, 1))
        }
        ToClient::Cancelled { span } => about("Cancelled", *span),
        ToClient::Lost { seq, index } => about("Lost", span(*seq, *index, 1)),
        ToClient::Upload { seq, route } => {
            let workers: Vec<_> = route.iter().map(|place| place.worker.to_string()).collect();
            let to = if workers.is_empty() { "the scheduler".to_owned() } else { format!("workers {}", workers.join(", ")) };
            about(&format!("Upload to {to}:"), span(*seq, 0, 1))
        }
        ToClient::Credit { total } => told(format!("Credit, {total} in all"), vec![span(u64::MAX, 0, 1)], vec![]),
        ToClient::Counts { query, .. } | ToClient::Explained { query, .. } => {
            told(format!("the answer to query {query}"), vec![span(u64::MAX, 0, 1)], vec![])
        }
        other => told(format!("{other:?}"), vec![], vec![]),
    }
}

/// What a worker says.
pub(super) fn from_worker(message: &FromWorker) -> Told {
    match message {
        FromWorker::Started { run } => told(format!("Started run {run}"), vec![], vec![*run]),
        FromWorker::Finished { run, outcome, .. } => {
            let end = outcome.first + outcome.values.count();
            let mut text = format!("Finished run {run}, items {}..{end}", outcome.first);
            let stored: Vec<_> = outcome.stored.iter().map(|stored| stored.item).collect();
            let failed: Vec<_> = outcome.errors.iter().map(|error| error.item).collect();
            for (what, items) in [("stored", &stored), ("failed", &failed), ("dropped", &outcome.dropped)] {
                if !items.is_empty() {
                    let _ = write!(text, ", {what} {items:?}");
                }
            }
            told(text, vec![], vec![*run])
        }
        FromWorker::Returned { run, missing } => {
            let lack = if missing.is_empty() { String::new() } else { format!(", missing {missing:?}") };
            told(format!("Returned run {run}{lack}"), vec![], vec![*run])
        }
        FromWorker::Divided { run, count } => told(format!("Divided run {run}, {count} items are left"), vec![], vec![*run]),
        FromWorker::Holds { key, len, .. } => {
            told(format!("Holds {key} of {len} bytes"), vec![Span { entry: key.entry, first: key.index, count: 1 }], vec![])
        }
        other => told(format!("{other:?}"), vec![], vec![]),
    }
}

/// What a worker is told.
pub(super) fn to_worker(message: &ToWorker) -> Told {
    match message {
        ToWorker::Assign(assignment) => {
            let span = Span { entry: assignment.entry, first: assignment.first, count: assignment.args.count().into() };
            let mut spans = vec![span];
            let mut text = format!("Assign run {}: {}{}", assignment.run, items(&span), reads(&assignment.args));
            for input in &assignment.inputs {
                spans.push(Span { entry: input.key.entry, first: input.key.index, count: input.count });
                if matches!(input.place, InputPlace::Ahead) {
                    let _ = write!(text, ", ahead of {}", input.key);
                }
            }
            told(text, spans, vec![assignment.run])
        }
        ToWorker::Cancel { run, first, count } => {
            told(format!("Cancel run {run}, items {first}..{}", first.saturating_add(*count)), vec![], vec![*run])
        }
        ToWorker::Recall { run } => told(format!("Recall run {run}"), vec![], vec![*run]),
        ToWorker::Free { spans } => {
            let names: Vec<_> = spans.iter().map(items).collect();
            told(format!("Free {}", names.join(", ")), spans.clone(), vec![])
        }
        other => told(format!("{other:?}"), vec![], vec![]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_found() {
        let (keys, entries, runs) = subjects("[1.5[3]] Waiting: missing values, 2.7: values, run 9 is over. Took 12");
        let entry = |client, seq| EntryId { client: ClientId(client), seq };
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), [entry(1, 5).key(3)]);
        assert_eq!(entries.into_iter().collect::<Vec<_>>(), [entry(2, 7)]);
        assert_eq!(runs.into_iter().collect::<Vec<_>>(), [RunId(9)]);
    }
}
