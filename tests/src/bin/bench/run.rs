//! Which figures are measured, in which order, and how often. Owns: the options, and the cluster that most are measured on.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, builder::PossibleValuesParser};
use quicsand::Client;
use quicsand_tests::processes::program;

use crate::{
    alongside::Taken,
    bulk, calls, failures,
    figures::{FIGURES, Figures, names, rounded},
    limits, machine, memory, peers, start,
};

const WORKERS: usize = 2;
const LARGE_BYTES: usize = 64 << 20;

/// Measures quicsand on a scheduler and two worker processes of one slot each, and beside it what this machine can do at best.
///
/// Standard output has the figures alone. Medians of five; every result is checked. With --json and without --only, the object has the
/// figures that have a goal.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Print one object of JSON
    #[arg(long)]
    json: bool,
    /// Measure only this; can be given several times
    #[arg(long, value_name = "KEY", num_args = 1.., value_parser = PossibleValuesParser::new(FIGURES.iter().map(|figure| figure.key)))]
    only: Vec<String>,
    /// Fewer items and one try each, in under a minute: to see that it works, not to compare
    #[arg(long)]
    quick: bool,
    /// Measure Dask and Ray instead, which are installed into target/peers; without names, each with defaults and tuned
    #[arg(long, value_name = "PEER", num_args = 0.., conflicts_with = "only")]
    peers: Option<Vec<String>>,
    /// Start a cluster, make one call, print the milliseconds that took
    #[arg(long, hide = true)]
    first_result: bool,
}

pub(crate) fn main() -> Result<()> {
    let options = Options::parse();
    if options.first_result {
        println!("{}", start::first_result(WORKERS)?);
        return Ok(());
    }
    if let Some(names) = &options.peers {
        return show_peers(&peers::peers(names, options.quick)?, options.json);
    }
    let mut bench = Bench { options, figures: Figures::default() };
    bench.run()?;
    if bench.options.json {
        println!("{}", bench.figures.json(&bench.options.only));
    } else {
        bench.figures.print();
    }
    Ok(())
}

fn show_peers(peers: &BTreeMap<String, BTreeMap<String, f64>>, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(peers)?);
        return Ok(());
    }
    for (peer, figures) in peers {
        figures.iter().for_each(|(key, value)| println!("{peer:10} {key:24} {}", rounded(*value)));
    }
    Ok(())
}

struct Bench {
    options: Options,
    figures: Figures,
}

impl Bench {
    fn run(&mut self) -> Result<()> {
        self.limits()?;
        self.beginnings()?;
        self.tiny_calls()?;
        self.efficiency()?;
        self.large_values()?;
        self.kernels()?;
        self.machine()?;
        self.memory()?;
        self.billion()?;
        self.failures()
    }

    fn limits(&mut self) -> Result<()> {
        if self.wants(&["quinn_roundtrip_us", "quinn_bulk_mb_s", "roundtrip_p50_us", "scatter2_64mib_mb_s", "gather_64mib_mb_s"])
        {
            eprintln!("bench: quinn alone");
            self.put_medians(["quinn_roundtrip_us", "quinn_bulk_mb_s"], || Ok(limits::quinn()?.into()))?;
        }
        if self.wants(&["memcpy_mb_s"]) {
            self.put_median("memcpy_mb_s", || Ok(limits::memcpy_mb_s()))?;
        }
        if self.wants(&["wake_us"]) {
            self.put_median("wake_us", limits::wake_us)?;
        }
        Ok(())
    }

    fn beginnings(&mut self) -> Result<()> {
        if self.wants(&["module_bytes", "module_compile_ms"]) {
            let module = start::module()?;
            self.figures.put("module_bytes", module.len() as f64)?;
            self.put_median("module_compile_ms", || start::module_compile(&module))?;
        }
        if names(&self.options.only, "clean_build_s") {
            // Only when asked for: it takes longer than all the rest.
            self.figures.put("clean_build_s", start::clean_build()?)?;
        }
        if self.wants(&["first_result_ms"]) {
            self.put_median("first_result_ms", start::first_result_in_a_new_process)?;
        }
        Ok(())
    }

    fn tiny_calls(&mut self) -> Result<()> {
        const ALONGSIDE: &[&str] = &[
            "batched_10m_items_per_s",
            "client_ns_per_item",
            "scheduler_ns_per_item",
            "workers_ns_per_item",
            "wire_bytes_per_item",
            "client_peak_mib",
            "scheduler_peak_mib",
            "worker_peak_mib",
        ];
        let trips = ["roundtrip_p50_us", "roundtrip_p99_us"];
        let others = ["map_100k_items_per_s", "map_1m_items_per_s", "tree4096_calls_per_s", "chain1000_calls_per_s"];
        if !self.wants(&trips) && !self.wants(&others) && !self.wants(ALONGSIDE) {
            return Ok(());
        }
        let cluster = start::cluster(WORKERS)?;
        let client = warm(cluster.client()?)?;
        if self.wants(&trips) {
            let count = self.scaled(2_000);
            self.put_medians(trips, || Ok(calls::roundtrips(&client, count)?.into()))?;
        }
        if self.wants(&["map_100k_items_per_s"]) {
            self.put_median("map_100k_items_per_s", || calls::map(&client, 100_000))?;
        }
        if self.wants(&["map_1m_items_per_s"]) {
            self.put_median("map_1m_items_per_s", || calls::map(&client, 1_000_000))?;
        }
        if self.wants(ALONGSIDE) {
            let count = self.scaled(10_000_000);
            let before = Taken::now()?;
            let mut runs = 0;
            self.put_median("batched_10m_items_per_s", || {
                runs += 1;
                Ok(count as f64 / calls::batched(&client, count)?)
            })?;
            before.put_since(count * runs, &mut self.figures)?;
        }
        if self.wants(&["tree4096_calls_per_s"]) {
            self.put_median("tree4096_calls_per_s", || calls::tree(&client, 4_096))?;
        }
        if self.wants(&["chain1000_calls_per_s"]) {
            self.put_median("chain1000_calls_per_s", || calls::chain(&client, 1_000))?;
        }
        Ok(())
    }

    fn efficiency(&mut self) -> Result<()> {
        let cases = [("eff_100us", 2_000, 100.0), ("eff_1ms", 1_000, 1_000.0), ("eff_10ms", 200, 10_000.0)];
        if !self.wants(&cases.map(|(key, ..)| key)) {
            return Ok(());
        }
        let cluster = start::cluster(WORKERS)?;
        let client = warm(cluster.client()?)?;
        for (key, count, us) in cases {
            if self.wants(&[key]) {
                let calls = calls::Efficiency::new(&client, WORKERS as u64, count, us)?;
                self.put_median(key, || calls.measure(&client))?;
            }
        }
        Ok(())
    }

    fn large_values(&mut self) -> Result<()> {
        if !self.wants(&["scatter2_64mib_mb_s", "gather_64mib_mb_s"]) {
            return Ok(());
        }
        let cluster = bulk::cluster(WORKERS)?;
        let client = warm(cluster.client()?)?;
        if self.wants(&["scatter2_64mib_mb_s"]) {
            self.put_median("scatter2_64mib_mb_s", || bulk::scatter(&client, LARGE_BYTES, WORKERS))?;
        }
        if self.wants(&["gather_64mib_mb_s"]) {
            self.put_median("gather_64mib_mb_s", || bulk::gather(&client, LARGE_BYTES))?;
        }
        Ok(())
    }

    /// By a program of its own, whose module the other figures have nothing to do with.
    fn kernels(&mut self) -> Result<()> {
        if self.wants(&["kernels_wasm_over_native"]) {
            let output =
                Command::new(program("quicsand-kernels")).arg(self.tries().to_string()).stderr(Stdio::inherit()).output()?;
            ensure!(output.status.success(), "quicsand-kernels failed");
            self.figures.put("kernels_wasm_over_native", String::from_utf8(output.stdout)?.trim().parse()?)?;
        }
        Ok(())
    }

    fn machine(&mut self) -> Result<()> {
        let parts = ["scheduler_events_per_s", "scheduler_submits_per_s", "scheduler_calls_per_s", "scheduler_batches_per_s"];
        if !self.wants(&parts) && !self.wants(&["scheduler_growth"]) {
            return Ok(());
        }
        let (calls, items) = if self.options.quick { (100_000, 1_000_000) } else { (1_000_000, 10_000_000) };
        let many = machine::rates(1_000, calls, items)?;
        self.figures.put("scheduler_events_per_s", many.slowest())?;
        self.figures.put("scheduler_submits_per_s", many.submits)?;
        self.figures.put("scheduler_calls_per_s", many.calls)?;
        self.figures.put("scheduler_batches_per_s", many.batches)?;
        if self.wants(&["scheduler_growth"]) {
            let (few, most) = (machine::rates(10, calls, items)?, machine::rates(10_000, calls, items)?);
            self.figures.put("scheduler_growth", most.growth_from(few))?;
        }
        Ok(())
    }

    fn memory(&mut self) -> Result<()> {
        if self.wants(&["bytes_per_pending_item"]) {
            self.figures.put("bytes_per_pending_item", memory::bytes_per_item(self.scaled(10_000_000))?)?;
        }
        if self.wants(&["bytes_per_pending_call"]) {
            self.figures.put("bytes_per_pending_call", memory::bytes_per_call(self.scaled(1_000_000))?)?;
        }
        Ok(())
    }

    /// Once, by the example, which checks its results and knows its memory. With --quick, a hundredth of it.
    fn billion(&mut self) -> Result<()> {
        if !self.wants(&["billion_s", "billion_client_mib"]) {
            return Ok(());
        }
        let n: u64 = if self.options.quick { 10_000_000 } else { 1_000_000_000 };
        eprintln!("bench: the example `billion` over {n} items");
        let cluster = start::cluster(WORKERS)?;
        let mut command = Command::new(program("billion"));
        command.args(["--n", &n.to_string()]).env("QUICSAND_SCHEDULER", cluster.address());
        let output = command.env("QUICSAND_TOKEN", cluster.token(quicsand::wire::Role::Client)).output()?;
        ensure!(output.status.success(), "billion: {}", String::from_utf8_lossy(&output.stderr));
        let output = String::from_utf8(output.stdout)?;
        let number = |before: &str, after: &str| -> Result<f64> {
            let text = output.split(before).nth(1).and_then(|rest| rest.split(after).next());
            Ok(text.with_context(|| format!("billion printed {output:?}"))?.trim().parse()?)
        };
        self.figures.put("billion_s", number("as it should be", " s,")? * 1e9 / n as f64)?;
        self.figures.put("billion_client_mib", number("peak memory of this process:", " MiB")?)
    }

    fn failures(&mut self) -> Result<()> {
        let killed = ["kill_worker_extra_s", "kill_worker_beyond_share_s"];
        if self.wants(&killed) {
            self.put_medians(killed, || Ok(failures::killed_worker()?.into()))?;
        }
        if self.wants(&["kill_scheduler_result_ms"]) {
            self.put_median("kill_scheduler_result_ms", failures::killed_scheduler)?;
        }
        if self.wants(&["scheduler_mib_before_1m_calls", "scheduler_mib_after_1m_calls"]) {
            let (before, after) = failures::passing_calls(self.scaled(1_000_000) as u64)?;
            self.figures.put("scheduler_mib_before_1m_calls", before)?;
            self.figures.put("scheduler_mib_after_1m_calls", after)?;
        }
        Ok(())
    }

    /// Whether one of these was asked for. Without `--only` all are, but with `--json` only those that it prints.
    fn wants(&self, keys: &[&str]) -> bool {
        let only = &self.options.only;
        keys.iter().any(|key| match only.is_empty() {
            true => !self.options.json || Figures::is_headline(key),
            false => names(only, key),
        })
    }

    fn tries(&self) -> usize {
        if self.options.quick { 1 } else { 5 }
    }

    fn scaled(&self, count: i64) -> i64 {
        if self.options.quick { count / 10 } else { count }
    }

    /// The median of five tries.
    fn put_median(&mut self, key: &'static str, mut run: impl FnMut() -> Result<f64>) -> Result<()> {
        self.put_medians([key], || Ok([run()?]))
    }

    /// The medians of what five tries give.
    fn put_medians<const N: usize>(&mut self, keys: [&'static str; N], mut run: impl FnMut() -> Result<[f64; N]>) -> Result<()> {
        let tries = (0..self.tries()).map(|_| run()).collect::<Result<Vec<_>>>()?;
        for (at, key) in keys.into_iter().enumerate() {
            self.figures.put(key, median(tries.iter().map(|figures| figures[at]).collect()))?;
        }
        Ok(())
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Both workers have the module, and have run it.
fn warm(client: Client) -> Result<Client> {
    calls::map(&client, 10_000)?;
    Ok(client)
}
