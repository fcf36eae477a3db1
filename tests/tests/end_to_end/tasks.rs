//! The tasks that the tests call.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use quicsand::task;
use serde::{Deserialize, Serialize};

#[task]
pub(crate) fn inc(x: i64) -> i64 {
    x + 1
}

/// What comes of using a client inside a task.
#[task]
pub(crate) fn submits() -> String {
    match quicsand::Client::local().submit(inc, 1).result() {
        Ok(value) => format!("it gave {value}"),
        Err(error) => error.to_string(),
    }
}

#[task]
pub(crate) fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task]
pub(crate) fn sum(xs: &[i64]) -> i64 {
    xs.iter().sum()
}

#[task]
pub(crate) fn zero() -> i64 {
    0
}

#[task]
pub(crate) fn nothing(_x: i64) {}

#[task]
pub(crate) fn greet(name: &str, times: usize) -> String {
    vec![format!("hello {name}"); times].join(", ")
}

#[task]
#[expect(clippy::too_many_arguments, reason = "as many as a task can have")]
pub(crate) fn eight(a: u8, b: u16, c: u32, d: u64, e: i8, f: f32, g: char, h: bool) -> String {
    format!("{a} {b} {c} {d} {e} {f} {g} {h}")
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) label: Option<String>,
}

#[task]
pub(crate) fn mirror(point: &Point) -> Point {
    Point { x: -point.x, y: point.y, label: point.label.as_deref().map(str::to_uppercase) }
}

#[task]
pub(crate) fn count_words(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

#[task]
pub(crate) fn odd_only(x: i64) -> Result<i64, String> {
    if x % 2 == 1 { Ok(x) } else { Err(format!("{x} is even")) }
}

#[task]
pub(crate) fn panics_at(x: i64, bad: i64) -> i64 {
    println!("looking at {x}");
    assert!(x != bad, "cannot bear {x}");
    x
}

/// The bytes, less the first.
#[task]
pub(crate) fn rest(data: &Bytes) -> Bytes {
    data.slice(1.min(data.len())..)
}

/// Keeps the data for as long as the program or instance lives, and says whether all that was kept before is as it was.
#[task]
pub(crate) fn keep(data: Bytes) -> bool {
    static KEPT: Mutex<Vec<Bytes>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push(data);
    kept.iter().all(|data| data.iter().all(|&byte| byte == data[0]))
}

#[task]
pub(crate) fn repeat(byte: u8, len: usize) -> Vec<u8> {
    vec![byte; len]
}

#[task]
pub(crate) fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

#[task]
pub(crate) fn pick(xs: &[i64], at: usize) -> i64 {
    xs[at]
}

#[task]
pub(crate) fn first_bytes(chunks: &[Vec<u8>]) -> Vec<u8> {
    chunks.iter().filter_map(|chunk| chunk.first().copied()).collect()
}

#[task(timeout = "100ms")]
pub(crate) fn nap(ms: u64) -> u64 {
    std::thread::sleep(std::time::Duration::from_millis(ms));
    ms
}

#[task]
pub(crate) fn sleep(ms: u64) -> u64 {
    std::thread::sleep(std::time::Duration::from_millis(ms));
    ms
}

#[task(timeout = "100ms")]
pub(crate) fn spin(forever: bool) -> u64 {
    let mut turns = 0_u64;
    while std::hint::black_box(forever) {
        turns = turns.wrapping_add(1);
    }
    turns
}

#[task(memory = "32MiB")]
pub(crate) fn hog(mib: usize) -> usize {
    let hoard = vec![1_u8; mib << 20];
    hoard.iter().map(|&byte| usize::from(byte)).sum()
}

/// Fails, so that its error names the worker.
#[task]
pub(crate) fn tell_worker(_x: i64) -> Result<(), String> {
    Err("here".into())
}

/// Nanoseconds of the clock, before and after.
#[task(requires(zone = "b", gpu = 1))]
pub(crate) fn hold_gpu(ms: u64) -> (u64, u64) {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let start = now();
    std::thread::sleep(std::time::Duration::from_millis(ms));
    (start, now())
}

#[task]
pub(crate) fn fibonacci(n: u64) -> u64 {
    if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

#[task]
pub(crate) fn dive(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == 0 { 0 } else { dive(depth - 1) + frame[0] - frame[63] + 1 }
}

#[task]
pub(crate) fn read_text(path: String) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Names in a directory and the lengths of what is there, sorted.
#[task]
pub(crate) fn list_dir(path: String) -> Result<Vec<(String, u64)>, String> {
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
    };
    let entries = std::fs::read_dir(path).and_then(|entries| entries.map(entry).collect::<std::io::Result<Vec<_>>>());
    let mut entries = entries.map_err(|error| error.to_string())?;
    entries.sort();
    Ok(entries)
}

#[task]
pub(crate) fn write_text(path: String, text: String) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| error.to_string())
}

#[task]
pub(crate) fn env_variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

/// Seconds since 1970.
#[task]
pub(crate) fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
