//! What tasks printed, gathered from workers for an operator. Owns: how many are asked at a time, and how long they are waited for. Must
//! not know: what a line says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quinn::Connection;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::hub::Hub;
use crate::{
    codec,
    ids::WorkerId,
    net::blobs,
    wire::{
        LOG_BYTES, LogLine, LogQuery, Validate,
        blob::BlobRequest,
        operator::{LISTED_PEERS, Logs, SilentWorker},
    },
};

/// Workers that are asked at a time: each may answer with megabytes.
const ASKED: usize = 16;
/// One of them has so long, so that others have their turn.
const TURN: Duration = Duration::from_secs(1);
/// All that have not answered by then are named instead.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of the encoded lines: texts and what is said of them.
const ANSWER_BYTES: u64 = 2 * LOG_BYTES as u64;

/// Asks these workers for lines: all of them at once for people's sake, and a few at a time for memory's. Dropping this gives up.
pub(super) async fn gather(hub: &Hub, workers: Vec<WorkerId>, query: LogQuery, after: &[(WorkerId, u64)]) -> Logs {
    let deadline = Instant::now() + PATIENCE;
    let turns = Arc::new(Semaphore::new(ASKED));
    let mut asked = JoinSet::new();
    let mut waiting = BTreeMap::new();
    for (id, name, connection) in hub.worker_seats(&workers) {
        waiting.insert(id, name);
        let after = after.iter().find(|(worker, _)| *worker == id).map_or(query.after, |(_, number)| *number);
        // At least one, from which is seen how far the worker is.
        let (turns, query) = (Arc::clone(&turns), LogQuery { after, limit: query.limit.max(1), ..query });
        asked.spawn(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire().await;
            let late = || format!("it did not answer within {} s", TURN.as_secs());
            (id, timeout(TURN, ask(&connection, query)).await.unwrap_or_else(|_| Err(late())))
        });
    }
    let (mut gathered, mut silent) = (Gathered::new(query.limit as usize), Vec::new());
    while let Ok(Some(answered)) = timeout_at(deadline, asked.join_next()).await {
        // A task that panicked is a worker that did not answer.
        let Ok((id, answer)) = answered else { continue };
        match (answer, waiting.remove(&id)) {
            (Ok(lines), _) => gathered.add(id, lines),
            (Err(reason), name) => silent.push(SilentWorker { id, name: name.unwrap_or_default(), reason }),
        }
    }
    let reason = format!("it did not answer within {} s", PATIENCE.as_secs());
    silent.extend(waiting.into_iter().map(|(id, name)| SilentWorker { id, name, reason: reason.clone() }));
    silent.truncate(LISTED_PEERS);
    gathered.finish(silent)
}

async fn ask(connection: &Connection, query: LogQuery) -> Result<Vec<LogLine>, String> {
    let bytes =
        blobs::get_small(connection, &BlobRequest::GetLog(query), ANSWER_BYTES).await.map_err(|error| error.to_string())?;
    let lines: Vec<LogLine> = codec::decode(&bytes).map_err(|error| format!("its lines do not read as such: {error}"))?;
    lines.as_slice().validate()?;
    match lines.len() <= query.limit as usize && lines.iter().all(|line| query.wants(line)) {
        true => Ok(lines),
        false => Err("it answered another question".to_owned()),
    }
}

/// Lines of many workers, of which the latest are kept.
struct Gathered {
    limit: usize,
    lines: Vec<(WorkerId, LogLine)>,
    last: BTreeMap<WorkerId, u64>,
}

impl Gathered {
    fn new(limit: usize) -> Self {
        Self { limit, lines: Vec::new(), last: BTreeMap::new() }
    }

    fn add(&mut self, worker: WorkerId, lines: Vec<LogLine>) {
        self.last.extend(lines.last().map(|line| (worker, line.number)));
        self.lines.extend(lines.into_iter().map(|line| (worker, line)));
        // By time, and within a worker by number: its clock may have been set back.
        self.lines.sort_by_key(|(worker, line)| (line.at_ms, *worker, line.number));
        let mut bytes = 0;
        let is_kept = |(_, line): &&(WorkerId, LogLine)| {
            bytes += line.text.len();
            bytes <= LOG_BYTES
        };
        let kept = self.lines.iter().rev().take(self.limit).take_while(is_kept).count();
        self.lines.drain(..self.lines.len() - kept);
    }

    fn finish(self, silent: Vec<SilentWorker>) -> Logs {
        Logs { lines: self.lines, last: self.last.into_iter().collect(), silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{ClientId, EntryId},
        wire::LogStream,
    };

    #[test]
    fn the_latest_lines_of_all_workers_are_kept_in_order() {
        let key = EntryId { client: ClientId(1), seq: 1 }.key(0);
        let line = |number, at_ms, len| LogLine { number, at_ms, key, stream: LogStream::Out, text: "x".repeat(len) };
        let mut gathered = Gathered::new(3);
        gathered.add(WorkerId(1), vec![line(1, 10, 1), line(2, 30, 1)]);
        gathered.add(WorkerId(2), vec![line(1, 20, 1), line(2, 40, 1)]);
        let Logs { lines, last, .. } = gathered.finish(Vec::new());
        assert_eq!(last, [(WorkerId(1), 2), (WorkerId(2), 2)]);
        let times: Vec<_> = lines.into_iter().map(|(worker, line)| (worker.0, line.at_ms)).collect();
        assert_eq!(times, [(2, 20), (1, 30), (2, 40)]);

        let mut gathered = Gathered::new(10);
        gathered.add(WorkerId(1), vec![line(1, 10, LOG_BYTES / 2)]);
        gathered.add(WorkerId(2), vec![line(1, 20, LOG_BYTES / 2), line(2, 30, LOG_BYTES / 2)]);
        assert_eq!(gathered.finish(Vec::new()).lines.len(), 2, "those that fit into an answer");
    }
}
