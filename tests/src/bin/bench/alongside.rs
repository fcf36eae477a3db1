//! What a lazy map costs beside time: CPU of each process, bytes on the wire, memory. Owns: the difference between before and after.

use std::fs;

use anyhow::{Context, Result};
use quicsand_tests::processes::{self, Usage};

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
        Self::of(&[processes::usage("self")?], &processes::children("scheduler")?, &processes::children("worker")?)
    }

    fn of(client: &[Usage], scheduler: &[Usage], workers: &[Usage]) -> Result<Self> {
        let ns = |processes: &[Usage]| processes.iter().map(|usage| usage.cpu_ns).sum();
        let wire_bytes = loopback_bytes()?;
        Ok(Self { client_ns: ns(client), scheduler_ns: ns(scheduler), workers_ns: ns(workers), wire_bytes })
    }

    /// What was taken since, for so many items.
    pub(crate) fn put_since(&self, items: i64, figures: &mut Figures) -> Result<()> {
        let (client, scheduler) = ([processes::usage("self")?], processes::children("scheduler")?);
        let workers = processes::children("worker")?;
        let now = Self::of(&client, &scheduler, &workers)?;
        for (key, after, before) in [
            ("client_ns_per_item", now.client_ns, self.client_ns),
            ("scheduler_ns_per_item", now.scheduler_ns, self.scheduler_ns),
            ("workers_ns_per_item", now.workers_ns, self.workers_ns),
            ("wire_bytes_per_item", now.wire_bytes, self.wire_bytes),
        ] {
            figures.put(key, after.saturating_sub(before) as f64 / items as f64)?;
        }
        let peaks: [(_, &[Usage]); 3] =
            [("client_peak_mib", &client), ("scheduler_peak_mib", &scheduler), ("worker_peak_mib", &workers)];
        for (key, processes) in peaks {
            let kib = processes.iter().map(|usage| usage.peak_kib).max().context("a process of the cluster is gone")?;
            figures.put(key, kib as f64 / 1024.0)?;
        }
        Ok(())
    }
}

/// Bytes that came over the loopback since the machine started, whosever they are.
fn loopback_bytes() -> Result<u64> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("there is no loopback")?;
    Ok(line.split_whitespace().next().context("the loopback has no count")?.parse()?)
}
