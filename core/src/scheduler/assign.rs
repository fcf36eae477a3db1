//! Making a run: its message, and its place in the books. Must not know: why this worker.

use std::ops::Range;

use smallvec::SmallVec;

use super::{Action, Scheduler, chunks::Chunk, entry::Cause, fleet::Run, items::State, register::spans_of};
use crate::{
    TaskError, TaskErrorKind,
    codec::{Args, Source, Span, encode_into},
    fault::{self, Fault},
    ids::{EntryId, Identity, RunId, WorkerId},
    wire::{Assignment, INPUT_BYTES, Input, InputPlace, MAX_FRAME, ToWorker},
};

/// Bytes of a run's own arguments in its message, at most: inputs, and a little for the rest, have room beside them.
const OWN_BYTES: usize = MAX_FRAME - INPUT_BYTES - (1 << 20);
/// Bytes that the name of a span takes up, at most.
const SPAN_BYTES: usize = 40;
/// After so many misses, inputs are fetched through the scheduler.
const RELAY_AFTER: u32 = 1;

impl Scheduler {
    /// Gives consecutive items, whose arguments lie in one chunk, to a worker, or has them fail if what they read is too much to
    /// send; false if any of these is gone.
    pub(super) fn assign(&mut self, id: EntryId, range: Range<u64>, worker_id: WorkerId, suspect: bool, ahead: bool) -> bool {
        let (Some(entry), Some(worker)) = (self.entries.get(&id), self.fleet.workers.get(&worker_id)) else { return false };
        let (Some(spec), Some(chunk), Some(client)) = (entry.spec(), entry.chunk_of(range.start), self.clients.get(&id.client))
        else {
            return false;
        };
        let part = (range.start - chunk.first) as u32..(range.end - chunk.first) as u32;
        let args = chunk.args(part);
        let relay = entry.rare.oddities.get(&range.start).is_some_and(|oddity| oddity.misses >= RELAY_AFTER);
        let spans = chunk.inputs_of(range.clone());
        let mut inputs = Vec::with_capacity(spans.len());
        for span in spans {
            self.add_inputs(&span, worker.who, relay, &mut inputs);
        }
        let input_bytes: usize = inputs.iter().map(inline_bytes).sum();
        let own_bytes = args_bytes(&args);
        if input_bytes > INPUT_BYTES || own_bytes > OWN_BYTES {
            let message = match input_bytes > INPUT_BYTES {
                true => format!(
                    "the values that it reads are {input_bytes} bytes in small pieces, of which {INPUT_BYTES} can come along; gather \
                     them and pass the list as one value"
                ),
                false => format!(
                    "its arguments are {own_bytes} bytes, names of the values that it reads included, of which {OWN_BYTES} fit; scatter \
                     what is large, and pass lists in fewer pieces"
                ),
            };
            let error = TaskError::new(TaskErrorKind::Worker, entry.name(), id.key(range.start), message);
            let segment = entry.items.segment(range.start, range.end);
            self.end_badly(id, segment, &Cause::Failed(error.into()), false);
            return true;
        }
        let run_id = RunId(self.next_run);
        let run = Run {
            worker: worker_id,
            entry: id,
            task: spec.task,
            first: range.start,
            count: (range.end - range.start) as u32,
            done: 0,
            started: None,
            asked: false,
            sent_ahead: ahead,
            ahead,
            suspect,
            item_nanos: self.times.item_nanos(spec.task, self.batch_nanos),
            takes: self.shapes.takes(entry.shape),
        };
        let assignment =
            Assignment { run: run_id, spec: spec.clone(), module: client.module, entry: id, first: range.start, args, inputs };
        self.next_run = if fault::is(Fault::RunIdsReused) { self.next_run % 16 } else { self.next_run } + 1;
        self.out.push(Action::ToWorker(worker_id, ToWorker::Assign(assignment)));
        self.shift(id, range.clone(), if ahead { State::Waiting } else { State::Queued }, State::Processing);
        let has_followers = self.entries.get_mut(&id).is_some_and(|entry| {
            entry.runs.insert(range.start, run_id);
            !entry.edges.is_empty()
        });
        if let Some(worker) = self.fleet.workers.get_mut(&worker_id) {
            if worker.runs.is_empty() {
                worker.progress = self.now;
            }
            worker.add_run(run_id);
            worker.suspects += u32::from(suspect);
            if let Some(takes) = &run.takes {
                worker.offer.take(takes);
            }
            if ahead {
                worker.ahead += 1;
            } else {
                worker.load_nanos = worker.load_nanos.saturating_add(run.nanos());
            }
        }
        self.fleet.divisible += u64::from(run.is_divisible());
        self.runs.insert(run_id, run);
        if !ahead {
            self.rank(worker_id);
        }
        if has_followers {
            self.assigned.push_back((id, range));
        }
        true
    }

    /// Says where the values of a span are.
    fn add_inputs(&self, span: &Span, who: Identity, relay: bool, inputs: &mut Vec<Input>) {
        let Some(entry) = self.entries.get(&span.entry) else { return };
        for segment in entry.items.segments(span.first..span.first + span.count) {
            if segment.state == State::Inline {
                inputs.extend(entry.values.runs(segment.range()).map(|(first, run)| Input {
                    key: span.entry.key(first),
                    count: u64::from(run.count()),
                    place: InputPlace::Inline(run),
                }));
                continue;
            }
            for key in segment.range().map(|item| span.entry.key(item)) {
                let place = match entry.rare.stored.get(&key.index) {
                    Some(replicas) => InputPlace::Blob {
                        len: replicas.len,
                        hash: replicas.hash,
                        places: if relay { Vec::new() } else { self.places(replicas, key, who) },
                    },
                    None => InputPlace::Ahead,
                };
                inputs.push(Input { key, count: 1, place });
            }
        }
    }
}

/// Bytes of arguments in their message, at most about: exact where it is much, since the message would not go through.
fn args_bytes(args: &Args) -> usize {
    let spans = |source: &Source| if let Source::List(spans) = source { spans.len() } else { 1 };
    let most = args.run.bytes().len()
        + 5 * args.run.count() as usize
        + args.holes.iter().map(|hole| 32 + SPAN_BYTES * spans(&hole.source)).sum::<usize>();
    if most <= OWN_BYTES {
        return most;
    }
    let mut encoded = Vec::new();
    // What cannot be encoded cannot be sent either.
    encode_into(args, &mut encoded).map_or(most, |()| encoded.len())
}

/// Bytes that an input adds to its message.
fn inline_bytes(input: &Input) -> usize {
    match &input.place {
        InputPlace::Inline(run) => run.bytes().len() + 5 * run.count() as usize,
        InputPlace::Blob { places, .. } => 64 + 80 * places.len(),
        InputPlace::Ahead => 32,
    }
}

impl Chunk<'_> {
    /// The spans of keys that items of the chunk read, each key once.
    pub(super) fn inputs_of(&self, range: Range<u64>) -> SmallVec<[Span; 1]> {
        let mut spans = SmallVec::new();
        for hole in self.holes {
            let hole_first = self.first + u64::from(hole.first);
            let (start, end) = (range.start.max(hole_first), range.end.min(hole_first + u64::from(hole.count)));
            if start < end {
                spans.extend(spans_of(&hole.source, start - hole_first..end - hole_first));
            }
        }
        if spans.len() < 2 {
            return spans;
        }
        spans.sort_unstable_by_key(|span: &Span| (span.entry, span.first));
        let mut joined = SmallVec::<[Span; 1]>::new();
        for span in spans {
            match joined.last_mut() {
                Some(last) if last.entry == span.entry && last.first + last.count >= span.first => {
                    last.count = last.count.max(span.first + span.count - last.first);
                }
                _ => joined.push(span),
            }
        }
        joined
    }
}
