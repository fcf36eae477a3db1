//! Large values: to the workers and back. Owns: the clock around them.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use quicsand::{Client, Status};
use quicsand_worker::{LocalCluster, WorkerKind};

use crate::tasks::{filled, last_byte};

/// The label by which a call chooses its worker.
const NUMBER: &str = "number";

/// Workers of one slot each, with a number each.
pub(crate) fn cluster(workers: usize) -> Result<LocalCluster> {
    let kinds = (0..workers).map(|number| WorkerKind::new(1).slots(1).label(NUMBER, number.to_string()));
    Ok(kinds.fold(LocalCluster::builder(), |builder, kind| builder.kind(kind)).processes().start()?)
}

/// Megabytes a second of scattered data, counted once, from encoding to each worker having read the data.
pub(crate) fn scatter(client: &Client, len: usize, workers: usize) -> Result<f64> {
    eprintln!("bench: {len} bytes to {workers} workers");
    let data = Bytes::from(black_box(vec![7; len]));
    let start = Instant::now();
    let scattered = client.scatter(data);
    let read_by = |number: usize| client.task(last_byte).require_label(NUMBER, number.to_string()).submit(&scattered);
    let results = client.gather((0..workers).map(read_by).collect::<Vec<_>>())?;
    let elapsed = start.elapsed();
    ensure!(results == vec![7; workers], "the data did not arrive");
    Ok(len as f64 / 1e6 / elapsed.as_secs_f64())
}

/// Megabytes a second of a result that is there: from asking for it to having it decoded.
pub(crate) fn gather(client: &Client, len: usize) -> Result<f64> {
    eprintln!("bench: a result of {len} bytes");
    let result = client.submit(filled, (black_box(7), len as u64));
    while result.status() != Status::Memory {
        ensure!(!matches!(result.status(), Status::Erred | Status::Cancelled), "the result is not to be had");
        thread::sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    let data = result.result()?;
    let elapsed = start.elapsed();
    ensure!(data.len() == len && data.iter().all(|&byte| byte == 7), "the result is wrong");
    Ok(len as f64 / 1e6 / elapsed.as_secs_f64())
}
