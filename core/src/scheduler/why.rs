//! Why items wait, in words: for people who ask, and for the log. Must not know: how it is shown.

use std::collections::BTreeMap;

use super::{
    Scheduler,
    fleet::Worker,
    items::State,
    shapes::{PLAIN, Shape, ShapeId},
};
use crate::{codec::Span, requirements::Requirements, wire::Waiting};

/// Kinds of waiting that one answer names.
const MAX_KINDS: usize = 64;

impl Scheduler {
    /// Which of a client's items wait, and why.
    pub(super) fn explain(&self, spans: &[Span]) -> Vec<Waiting> {
        let (mut waiting, mut resting, mut away) = (0_u64, 0_u64, 0_u64);
        let mut queued = BTreeMap::<ShapeId, u64>::new();
        for span in spans {
            let Some(entry) = self.entries.get(&span.entry) else { continue };
            let range = span.first..span.first + span.count;
            let counts = entry.items.state_counts(range.clone());
            waiting = waiting.saturating_add(counts.waiting);
            let rests = entry.items.count_among(range.clone(), State::Resting);
            resting = resting.saturating_add(rests);
            away = away.saturating_add(entry.items.count_among(range, State::Away));
            if counts.queued > rests {
                let sum = queued.entry(entry.shape).or_default();
                *sum = sum.saturating_add(counts.queued - rests);
            }
        }
        let inputs = Waiting {
            items: waiting,
            requires: Requirements::NONE,
            why: "results of other calls that they read are not there yet".to_owned(),
        };
        let ready = queued.into_iter().filter_map(|(shape, items)| self.waiting(shape, items));
        let away = Waiting {
            items: away,
            requires: Requirements::NONE,
            why: "the workers that have their results are away and may come back".to_owned(),
        };
        let others = [inputs, resting_ones(resting), away].into_iter().filter(|all| all.items > 0);
        ready.chain(others).take(MAX_KINDS).collect()
    }

    /// Of the shapes that have most ready items, how many, and why they are not running.
    pub(super) fn all_queued(&self) -> Vec<Waiting> {
        let mut queued = BTreeMap::<ShapeId, u64>::new();
        let mut resting = 0_u64;
        for (_, entry) in self.entries.iter() {
            resting += entry.rare.resting.len() as u64;
            if !entry.ready.is_empty() {
                *queued.entry(entry.shape).or_default() += entry.items.count(State::Queued);
            }
        }
        let mut queued: Vec<_> = queued.into_iter().collect();
        queued.sort_by_key(|&(_, items)| std::cmp::Reverse(items));
        let ready = queued.into_iter().take(MAX_KINDS).filter_map(|(shape, items)| self.waiting(shape, items));
        ready.chain((resting > 0).then(|| resting_ones(resting))).collect()
    }

    /// Says once of every set of requirements that nobody here meets.
    pub(super) fn warn_of_hopeless(&mut self) {
        // Calls that wait for the first worker are nothing to warn of.
        if self.fleet.workers.is_empty() {
            return;
        }
        for id in self.shapes.take_hopeless() {
            if let Some(shape) = self.shapes.get(id) {
                tracing::warn!(requires = %shape.requires, why = self.why(id, shape), "calls wait that no worker can run");
            }
        }
    }

    fn waiting(&self, id: ShapeId, items: u64) -> Option<Waiting> {
        let shape = self.shapes.get(id)?;
        Some(Waiting { items, requires: (*shape.requires).clone(), why: self.why(id, shape) })
    }

    /// Why ready items of a shape are not running.
    fn why(&self, id: ShapeId, shape: &Shape) -> String {
        let here: Vec<&Worker> = self.fleet.workers.values().filter(|worker| !worker.draining).collect();
        if here.is_empty() {
            return "no worker is here".to_owned();
        }
        if let Some(pressed) = pressed(&here) {
            return pressed;
        }
        if id == PLAIN {
            return busy(&here, "").unwrap_or_else(soon);
        }
        let able: Vec<&Worker> = shape.workers().iter().filter_map(|id| self.fleet.workers.get(id)).collect();
        if able.is_empty() {
            return lack(&here, &shape.requires);
        }
        busy(&able, " that can run it").or_else(|| taken(&able, &shape.requires)).unwrap_or_else(soon)
    }
}

/// Items that are tried again later.
fn resting_ones(items: u64) -> Waiting {
    let why = "they failed, or their worker fell silent, and are tried again in a moment".to_owned();
    Waiting { items, requires: Requirements::NONE, why }
}

/// If all workers are short of memory.
fn pressed(workers: &[&Worker]) -> Option<String> {
    workers.iter().all(|worker| worker.load.pressed).then(|| match workers.len() {
        1 => "the only worker is short of memory, and takes one thing at a time".to_owned(),
        count => format!("all {count} workers are short of memory, and take one thing at a time"),
    })
}

/// Between two events, and while a first small batch measures how long its items take.
fn soon() -> String {
    "it is next".to_owned()
}

/// If none of the workers has room.
fn busy(workers: &[&Worker], which: &str) -> Option<String> {
    let all_busy = workers.iter().all(|worker| worker.room().is_none());
    all_busy.then(|| match workers.len() {
        1 => format!("the only worker{which} is busy"),
        count => format!("all {count} workers{which} are busy"),
    })
}

/// If the workers have room, but too little of a resource is free.
fn taken(workers: &[&Worker], requires: &Requirements) -> Option<String> {
    let (subject, count) = match workers.len() {
        1 => ("worker has", 1),
        count => ("workers have", count),
    };
    let with_room = || workers.iter().filter(|worker| worker.room().is_some());
    if with_room().any(|worker| worker.offer.has_free(requires)) {
        return None;
    }
    let most_free = |name: &str| with_room().map(|worker| worker.offer.free(name)).max().unwrap_or(0);
    let scarce = requires.resources().find(|(name, amount)| most_free(name) < *amount);
    Some(match scarce {
        Some((name, _)) if most_free(name) == 0 => format!("{count} {subject} {name}, all of it is in use"),
        Some((name, amount)) => {
            format!("{count} {subject} {name}, of which {amount} is asked for and at most {} free", most_free(name))
        }
        None => format!("{count} {subject} all of it, but not free at the same time"),
    })
}

/// What none of the workers has.
fn lack(workers: &[&Worker], requires: &Requirements) -> String {
    let with = |name: &str, value: &str| workers.iter().any(|worker| worker.offer.label(name) == Some(value));
    if let Some((name, value)) = requires.labels().find(|(name, value)| !with(name, value)) {
        return format!("no worker has {name}={value}");
    }
    let most = |name: &str| workers.iter().map(|worker| worker.offer.total(name)).max().unwrap_or(0);
    match requires.resources().find(|(name, amount)| most(name) < *amount) {
        Some((name, _)) if most(name) == 0 => format!("no worker has {name}"),
        Some((name, amount)) => format!("no worker has {name}={amount}, the most is {name}={}", most(name)),
        None => format!("no worker has all of {requires}"),
    }
}
