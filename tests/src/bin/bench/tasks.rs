//! What the benchmarks have run.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quicsand::task;

#[task]
pub(crate) fn inc(x: i64) -> i64 {
    x + 1
}

#[task]
pub(crate) fn add(x: i64, y: i64) -> i64 {
    x.wrapping_add(y)
}

/// Keeps a processor busy by the clock.
#[task]
pub(crate) fn spin(x: u64, us: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(us) {
        black_box(x);
    }
    x
}

/// Keeps a processor busy by so many steps of xorshift, each of which needs the last one's result.
#[task]
pub(crate) fn churn(seed: u64, steps: u64) -> u64 {
    let mut x = seed | 1;
    for _ in 0..steps {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}

/// The last byte of data.
#[task]
pub(crate) fn last_byte(data: &Bytes) -> u8 {
    data.last().copied().unwrap_or(0)
}

/// So many bytes of that value.
#[task]
pub(crate) fn filled(byte: u8, len: u64) -> Bytes {
    vec![byte; len as usize].into()
}
