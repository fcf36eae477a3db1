//! What a lazy map costs beside time: CPU of each process, bytes on the wire, memory. Owns: the difference between before and after.

use std::fs;

use anyhow::{Context, Result};
use quicsand_tests::processes;

use crate::figures::Figures;

/// What the processes had taken at some time.
pub(crate) struct Taken {
    client_ns: u64,
    scheduler_ns: u64,
    workers_ns: u64,
    wire_bytes: u64,
}

impl Taken {
    pub(crate) fn now() -> Result<Self> {
        let ns = |role: &str| -> Result<u64> {
            Ok(processes::children()?.iter().filter(|child| child.role == role).map(|child| child.usage.cpu_ns).sum())
        };
        let client_ns = processes::usage("self")?.cpu_ns;
        Ok(Self { client_ns, scheduler_ns: ns("scheduler")?, workers_ns: ns("worker")?, wire_bytes: loopback_bytes()? })
    }

    /// What was taken since, for so many items.
    pub(crate) fn put_since(&self, items: i64, figures: &mut Figures) -> Result<()> {
        let now = Self::now()?;
        for (key, after, before) in [
            ("client_ns_per_item", now.client_ns, self.client_ns),
            ("scheduler_ns_per_item", now.scheduler_ns, self.scheduler_ns),
            ("workers_ns_per_item", now.workers_ns, self.workers_ns),
            ("wire_bytes_per_item", now.wire_bytes, self.wire_bytes),
        ] {
            figures.put(key, after.saturating_sub(before) as f64 / items as f64)?;
        }
        let children = processes::children()?;
        let peak = |role: &str| children.iter().filter(|child| child.role == role).map(|child| child.usage.peak_kib).max();
        let mib = |kib: u64| kib as f64 / 1024.0;
        figures.put("client_peak_mib", mib(processes::usage("self")?.peak_kib))?;
        figures.put("scheduler_peak_mib", mib(peak("scheduler").context("there is no scheduler")?))?;
        figures.put("worker_peak_mib", mib(peak("worker").context("there is no worker")?))
    }
}

/// Bytes that came over the loopback since the machine started, whosever they are.
fn loopback_bytes() -> Result<u64> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("there is no loopback")?;
    Ok(line.split_whitespace().next().context("the loopback has no count")?.parse()?)
}
