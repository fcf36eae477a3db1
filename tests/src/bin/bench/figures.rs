//! The table: what is measured, in which unit, what it has to reach. Owns: the keys. Must not know: how anything is measured.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

/// A figure's goal, where it has one.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At least so much: what it must reach, what it aims for.
    AtLeast(f64, f64),
    /// At most so much.
    AtMost(f64, f64),
    /// At most so many times another figure of the same run.
    Times(&'static str, f64, f64),
    /// At least such a part of another figure of the same run.
    Part(&'static str, f64, f64),
    /// To look at.
    None,
}

/// A line of the table.
pub(crate) struct Figure {
    pub(crate) key: &'static str,
    pub(crate) goal: Goal,
    pub(crate) about: &'static str,
    /// Whether it belongs to the object that `--json` prints without `--only`.
    is_headline: bool,
}

const fn headline(key: &'static str, goal: Goal, about: &'static str) -> Figure {
    Figure { key, goal, about, is_headline: true }
}

const fn aside(key: &'static str, about: &'static str) -> Figure {
    Figure { key, goal: Goal::None, about, is_headline: false }
}

pub(crate) const FIGURES: &[Figure] = &[
    headline("roundtrip_p50_us", Goal::Times("quinn_roundtrip_us", 5.0, 3.0), "submit and wait, one after the other: median"),
    headline("roundtrip_p99_us", Goal::None, "the same: what one in a hundred exceeds"),
    headline("map_100k_items_per_s", Goal::AtLeast(1e6, 4e6), "map over 100,000 items, gathered"),
    headline("map_1m_items_per_s", Goal::AtLeast(1e6, 4e6), "map over 1,000,000 items, gathered"),
    headline("batched_10m_items_per_s", Goal::AtLeast(1e7, 2e7), "batched_map over 10,000,000 items, consumed one by one"),
    headline("billion_s", Goal::AtMost(120.0, 60.0), "batched_map over 1,000,000,000 items: seconds"),
    headline("billion_client_mib", Goal::AtMost(64.0, 64.0), "the same: the program's peak memory, MiB"),
    headline("tree4096_calls_per_s", Goal::AtLeast(1e5, 3e5), "sum of 4,096 numbers by submits that take two futures each"),
    headline("chain1000_calls_per_s", Goal::AtLeast(2e4, 5e4), "1,000 calls, each on the last one's future"),
    headline("eff_100us", Goal::AtLeast(0.90, 0.95), "2,000 calls of 100 us of CPU by map: ideal over actual time"),
    headline("eff_1ms", Goal::AtLeast(0.97, 0.99), "1,000 calls of 1 ms"),
    headline("eff_10ms", Goal::AtLeast(0.98, 0.99), "200 calls of 10 ms"),
    headline(
        "scatter2_64mib_mb_s",
        Goal::Part("quinn_bulk_mb_s", 0.35, 0.45),
        "64 MiB to two workers and read there, bytes counted once",
    ),
    headline("gather_64mib_mb_s", Goal::Part("quinn_bulk_mb_s", 0.65, 0.80), "a result of 64 MiB back"),
    headline("first_result_ms", Goal::AtMost(110.0, 50.0), "from nothing to the first result, caches empty"),
    headline(
        "bytes_per_pending_item",
        Goal::AtMost(16.0, 1.0),
        "scheduler's memory for an item that waits, without its argument",
    ),
    headline("bytes_per_pending_call", Goal::AtMost(400.0, 200.0), "scheduler's memory for a single call that waits"),
    headline(
        "scheduler_events_per_s",
        Goal::AtLeast(2e6, 5e6),
        "the state machine alone with 1,000 workers: the slowest of the three below",
    ),
    headline("kernels_wasm_over_native", Goal::AtMost(1.5, 1.2), "sandboxed time over native time, geometric mean"),
    aside("quinn_roundtrip_us", "this machine: 64 bytes there and back over quinn, median"),
    aside("quinn_bulk_mb_s", "this machine: 256 MiB over one stream of quinn"),
    aside("memcpy_mb_s", "this machine: copying 64 MiB"),
    aside("wake_us", "this machine: waking a thread that sleeps, one way"),
    aside("scheduler_submits_per_s", "submits of single calls, every other one on the one before, 1,000 workers"),
    aside("scheduler_calls_per_s", "the same: finished calls"),
    aside("scheduler_batches_per_s", "finished batches of a map over 10,000,000 items, 1,000 workers"),
    aside("scheduler_growth", "cost of an event with 10,000 workers over that with 10: the worst of the three"),
    aside("client_ns_per_item", "batched_map: CPU time of the program, ns an item"),
    aside("scheduler_ns_per_item", "batched_map: CPU time of the scheduler"),
    aside("workers_ns_per_item", "batched_map: CPU time of both workers"),
    aside("wire_bytes_per_item", "batched_map: bytes on the loopback, both hops and directions"),
    aside("client_peak_mib", "batched_map: the program's peak memory so far"),
    aside("scheduler_peak_mib", "batched_map: the scheduler's peak memory so far"),
    aside("worker_peak_mib", "batched_map: the larger worker's peak memory so far"),
    aside("module_bytes", "the quick start's module"),
    aside("module_compile_ms", "that module compiled, in a child, nothing kept from before"),
    aside("clean_build_s", "the quick start built from downloaded sources; only with --only"),
    aside("kill_worker_extra_s", "2,000 calls of 5 ms: what killing one of two workers adds"),
    aside("kill_worker_beyond_share_s", "the same, less the killed one's part of the work"),
    aside("kill_scheduler_result_ms", "from killing a scheduler with a journal to the next result"),
    aside("scheduler_mib_before_1m_calls", "a scheduler's memory before a million calls came and went"),
    aside("scheduler_mib_after_1m_calls", "and after"),
];

/// What was measured.
#[derive(Default)]
pub(crate) struct Figures(BTreeMap<&'static str, f64>);

impl Figures {
    /// Adds one.
    ///
    /// # Errors
    /// When it is no number.
    pub(crate) fn put(&mut self, key: &'static str, value: f64) -> Result<()> {
        debug_assert!(FIGURES.iter().any(|figure| figure.key == key), "{key} is not in the table");
        ensure!(value.is_finite(), "{key} came out as {value}");
        self.0.insert(key, value);
        Ok(())
    }

    /// Whether it has a goal, and belongs to what `--json` prints.
    pub(crate) fn is_headline(key: &str) -> bool {
        FIGURES.iter().any(|figure| figure.is_headline && figure.key == key)
    }

    /// One object: of those that were asked for, or of the headlines.
    pub(crate) fn json(&self, only: &[String]) -> Value {
        let shown = FIGURES.iter().filter(|figure| if only.is_empty() { figure.is_headline } else { names(only, figure.key) });
        let members = shown.filter_map(|figure| Some((figure.key.to_owned(), rounded(*self.0.get(figure.key)?))));
        Value::Object(members.collect::<Map<_, _>>())
    }

    /// A line a figure, with its goal and whether it is met.
    pub(crate) fn print(&self) {
        for figure in FIGURES {
            let Some(&value) = self.0.get(figure.key) else { continue };
            let goal = self.judge(figure.goal, value).unwrap_or_default();
            println!("{:30} {:>12}  {goal:38} {}", figure.key, rounded(value).to_string(), figure.about);
        }
    }

    fn judge(&self, goal: Goal, value: f64) -> Option<String> {
        let verdict = |is_met: bool| if is_met { "met" } else { "MISSED" };
        let number = |value: f64| rounded(value).to_string();
        Some(match goal {
            Goal::AtLeast(must, aim) => format!("at least {}, aim {}: {}", number(must), number(aim), verdict(value >= must)),
            Goal::AtMost(must, aim) => format!("at most {}, aim {}: {}", number(must), number(aim), verdict(value <= must)),
            Goal::Times(key, must, aim) => {
                let ratio = value / self.0.get(key)?;
                format!("{ratio:.2} x, at most {must} x, aim {aim} x: {}", verdict(ratio <= must))
            }
            Goal::Part(key, must, aim) => {
                let ratio = value / self.0.get(key)?;
                format!("{ratio:.2}, at least {must}, aim {aim}: {}", verdict(ratio >= must))
            }
            Goal::None => return None,
        })
    }
}

/// Whether a list of keys has this one.
pub(crate) fn names(only: &[String], key: &str) -> bool {
    only.iter().any(|wanted| wanted == key)
}

/// Three digits say enough.
pub(crate) fn rounded(value: f64) -> Value {
    let exponent = value.abs().max(1e-6).log10().floor() as i32 - 2;
    let unit = 10_f64.powi(exponent.abs());
    match exponent {
        0.. => json!(((value / unit).round() * unit) as i64),
        _ => json!((value * unit).round() / unit),
    }
}
