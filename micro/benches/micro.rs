//! Measures, by the clock, the workloads of `tests/src/hot`. Owns: how they are measured. Must not know: what they are.

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use quicsand_tests::hot::{
    WORKLOADS,
    sandbox::{BATCHES, Guest},
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("micro");
    for workload in WORKLOADS {
        measure(&mut group, workload.name, workload.items, workload.prepare);
    }
    match Guest::new(quicsand::embed!(tasks = "quicsand-tests")) {
        Ok(guest) => {
            for &batch in BATCHES {
                measure(&mut group, batch.name, batch.items, || guest.prepare(batch));
            }
        }
        Err(reason) => println!("SKIPPED: the sandbox: {reason}"),
    }
    group.finish();
    criterion.final_summary();
}

/// Prepares it only if it is wanted: a filter on the command line leaves others out.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, items: u32, prepare: impl Fn() -> Box<dyn FnMut()>) {
    group.throughput(Throughput::Elements(items.into()));
    group.bench_function(name, |bencher| {
        let mut run = prepare();
        bencher.iter(&mut run);
    });
}
