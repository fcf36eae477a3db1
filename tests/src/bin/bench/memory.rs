//! What calls that wait cost the scheduler's memory: a scheduler without workers, looked at from outside.

use std::{hint::black_box, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use quicsand::{Client, Count};
use quicsand_tests::processes;

use crate::{start::cluster, tasks::inc};

/// Bytes an item of a map that waits, less what the items' own arguments take on the wire.
pub(crate) fn bytes_per_item(items: i64) -> Result<f64> {
    eprintln!("bench: {items} items that wait");
    let own = (0..items).map(|x| postcard::experimental::serialized_size(&x).map(|len| len as u64)).sum::<Result<u64, _>>()?;
    let grown = grown(items as u64, |client| client.map(inc, (0..items).map(black_box)))?;
    Ok((grown - own as f64) / items as f64)
}

/// Bytes a single call that waits, with its arguments.
pub(crate) fn bytes_per_call(calls: i64) -> Result<f64> {
    eprintln!("bench: {calls} calls that wait");
    let grown = grown(calls as u64, |client| (0..calls).map(|x| client.submit(inc, black_box(x))).collect::<Vec<_>>())?;
    Ok(grown / calls as f64)
}

/// By how many bytes a scheduler's memory grows with what this submits, once it has all of it.
fn grown<C: Count>(count: u64, submit: impl FnOnce(&Client) -> C) -> Result<f64> {
    let cluster = cluster(0)?;
    let client = cluster.client()?;
    // What a scheduler needs for anything at all.
    let first = client.submit(inc, black_box(1));
    ensure!(client.counts(&first)?.queued == 1, "a call runs that nobody can run");
    let before = resident()?;
    let submitted = submit(&client);
    while client.counts(&submitted)?.queued < count {
        thread::sleep(Duration::from_millis(20));
    }
    Ok((resident()? - before) * 1024.0)
}

/// KiB of the scheduler.
fn resident() -> Result<f64> {
    let scheduler = processes::children("scheduler")?;
    Ok(scheduler.first().context("there is no scheduler")?.resident_kib as f64)
}
