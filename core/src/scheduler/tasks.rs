//! Calls and maps, and what failed lately, for people. Must not know: how it is shown.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    time::Duration,
};

use super::{
    Scheduler,
    entry::{Entry, Kind},
};
use crate::{
    TaskError, TaskErrorKind,
    codec::Span,
    ids::{EntryId, Key},
    wire::operator::{ENTRY_WORKERS, EntryKind, EntryStatus, Failure, Failures, OperatorRefusal, Tasks},
};

/// Failures that are remembered, whether or not their clients are still here.
const REMEMBERED: usize = 1000;
/// Bytes of a message that are remembered, and of a shorter text.
const MESSAGE_BYTES: usize = 1024;
const TEXT_BYTES: usize = 256;

/// The latest failures, the latest last.
#[derive(Debug, Default)]
pub(super) struct History {
    failures: VecDeque<(Duration, Failure)>,
    /// Where the latest failure began.
    cause: Option<Key>,
}

impl History {
    /// Remembers that items failed. What failed for the sake of something that is remembered is not.
    pub(super) fn record(&mut self, now: Duration, id: EntryId, items: Range<u64>, task: &str, error: &TaskError) {
        let is_own = error.key.entry == id && items.contains(&error.key.index);
        // A value that is gone has failed nowhere: whoever wanted it first stands for all.
        let is_first = error.kind == TaskErrorKind::DataLost && self.cause != Some(error.key);
        if !is_own && !is_first {
            return;
        }
        self.cause = Some(error.key);
        let failure = Failure {
            key: id.key(items.start),
            items: items.end - items.start,
            task: cut(task, TEXT_BYTES),
            kind: match &error.kind {
                TaskErrorKind::Argument { name } => TaskErrorKind::Argument { name: cut(name, TEXT_BYTES) },
                kind => kind.clone(),
            },
            message: cut(&error.message, MESSAGE_BYTES),
            location: error.location.as_deref().map(|place| cut(place, TEXT_BYTES)),
            worker: cut(&error.worker, TEXT_BYTES),
            attempts: error.attempts,
            ago_ms: 0,
        };
        if self.failures.len() == REMEMBERED {
            self.failures.pop_front();
        }
        self.failures.push_back((now, failure));
    }
}

impl Scheduler {
    /// The calls, maps and data that there are, at most `limit` of them. Costs a walk over all entries.
    #[must_use]
    pub fn tasks(&self, now: Duration, limit: usize) -> Tasks {
        let (mut pending, mut erred, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (id, entry) in self.entries.iter() {
            let counts = entry.items.state_counts(0..entry.items.len());
            let is_pending = entry.open || counts.waiting + counts.queued + counts.processing > 0;
            let list = match (is_pending, counts.erred > 0) {
                (true, _) => &mut pending,
                (false, true) => &mut erred,
                (false, false) => &mut rest,
            };
            if list.len() < limit {
                list.push(id);
            }
        }
        let listed = pending.into_iter().chain(erred).chain(rest).take(limit);
        let entries: Vec<_> = listed.filter_map(|id| Some(self.entry_status(now, id, self.entries.get(&id)?))).collect();
        let more = (self.entries.len() - entries.len()) as u64;
        Tasks { entries, more }
    }

    /// The latest failures, at most `limit` of them.
    #[must_use]
    pub fn failures(&self, now: Duration, limit: usize) -> Failures {
        let all = &self.history.failures;
        let ago = |at: Duration| millis(now.saturating_sub(at));
        let listed = all.iter().rev().take(limit).map(|(at, failure)| Failure { ago_ms: ago(*at), ..failure.clone() });
        let failures: Vec<_> = listed.collect();
        let more = (all.len() - failures.len()) as u64;
        Failures { failures, more }
    }

    /// How many of the span's items have not ended.
    ///
    /// # Errors
    /// When there are no such items.
    pub fn pending(&self, span: &Span) -> Result<u64, OperatorRefusal> {
        let entry = self.entries.get(&span.entry).ok_or(OperatorRefusal::UnknownEntry { entry: span.entry })?;
        let items = entry.items.len();
        if span.first > 0 && span.first >= items {
            return Err(OperatorRefusal::UnknownItem { key: span.entry.key(span.first), items });
        }
        let counts = entry.items.state_counts(span.first..span.first.saturating_add(span.count));
        Ok(counts.waiting + counts.queued + counts.processing)
    }

    fn entry_status(&self, now: Duration, id: EntryId, entry: &Entry) -> EntryStatus {
        let mut workers = BTreeSet::new();
        for run in entry.runs.iter().filter_map(|(_, run)| self.runs.get(&run)) {
            workers.insert(run.worker);
            if workers.len() == ENTRY_WORKERS {
                break;
            }
        }
        EntryStatus {
            id,
            kind: match &entry.kind {
                Kind::Call(_) => EntryKind::Call,
                Kind::Map(_) => EntryKind::Map { open: entry.open },
                Kind::Data(datum) => EntryKind::Data { bytes: datum.len },
            },
            task: entry.spec().map_or_else(String::new, |spec| cut(&spec.name, TEXT_BYTES)),
            counts: entry.items.state_counts(0..entry.items.len()),
            workers: workers.into_iter().collect(),
            age_ms: millis(now.saturating_sub(entry.born())),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A text, or as much of it as `bytes` hold.
fn cut(text: &str, bytes: usize) -> String {
    match text.len() <= bytes {
        true => text.to_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(bytes)]),
    }
}
