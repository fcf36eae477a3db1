//! What the fleet is loaded with: jobs of all kinds, each with the result that plain sequential Rust gives. Owns: the tasks and what is
//! expected of them. Must not know: what is done to the fleet meanwhile.

use std::{fmt, thread, time::Duration};

use bytes::Bytes;
use quicsand::{Client, Error, Future, TaskErrorKind, task};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// Items of a job, at most about.
const ITEMS: u64 = 2_000;

/// Something that looks random and is not.
#[task]
fn mix(x: u64) -> u64 {
    let mut hash = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3 {
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 27;
    }
    hash
}

#[task]
fn add(x: u64, y: u64) -> u64 {
    x.wrapping_add(y)
}

#[task]
fn sum(xs: &[u64]) -> u64 {
    xs.iter().fold(0, |sum, x| sum.wrapping_add(*x))
}

/// A result that is too large to travel in a message.
#[task]
fn block(seed: u64, len: usize) -> Bytes {
    let byte = |i: usize| (seed as usize).wrapping_mul(31).wrapping_add(i.wrapping_mul(i)) as u8;
    (0..len).map(byte).collect::<Vec<u8>>().into()
}

#[task]
fn digest(data: &Bytes, salt: u64) -> u64 {
    data.iter().fold(salt, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte))
}

#[task(retries = 2)]
fn odd(x: u64) -> Result<u64, String> {
    if x % 2 == 1 { Ok(x) } else { Err(format!("{x} is even")) }
}

/// Takes its time, as real work does.
#[task]
fn slow(x: u64, ms: u64) -> u64 {
    thread::sleep(Duration::from_millis(ms));
    mix(x)
}

/// How a job came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As expected, with so many calls.
    Right { calls: u64 },
    /// Otherwise.
    Wrong(String),
    /// Data was lost, and it was said so: what is scattered lives on workers only.
    Lost(String),
    /// An error that nobody asked for.
    Failed(String),
}

/// A kind of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Map,
    Tree,
    Chain,
    Scatter,
    Blocks,
    Batched,
    Errors,
    Slow,
    Dropped,
}

impl Job {
    pub(crate) const ALL: [Self; 9] =
        [Self::Map, Self::Tree, Self::Chain, Self::Scatter, Self::Blocks, Self::Batched, Self::Errors, Self::Slow, Self::Dropped];

    /// Has the fleet do it, and compares.
    pub(crate) fn run(self, client: &Client, random: &mut Pcg64Mcg) -> Outcome {
        let done = match self {
            Self::Map => map(client, random),
            Self::Tree => tree(client, random),
            Self::Chain => chain(client, random),
            Self::Scatter => scatter(client, random),
            Self::Blocks => blocks(client, random),
            Self::Batched => batched(client, random),
            Self::Errors => errors(client, random),
            Self::Slow => slow_calls(client, random),
            Self::Dropped => dropped(client, random),
        };
        match done {
            Ok(outcome) => outcome,
            Err(Error::Task(error)) if matches!(error.kind, TaskErrorKind::DataLost) => Outcome::Lost(error.to_string()),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn compare<T: PartialEq + fmt::Debug>(calls: u64, found: &T, expected: &T) -> quicsand::Result<Outcome> {
    Ok(match found == expected {
        true => Outcome::Right { calls },
        false => {
            let short = |value: &T| format!("{value:?}").chars().take(200).collect::<String>();
            Outcome::Wrong(format!("{} instead of {}", short(found), short(expected)))
        }
    })
}

fn map(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let (first, count) = (random.random_range(0..1 << 40), random.random_range(1..ITEMS * 10));
    let found = client.gather(client.map(mix, first..first + count))?;
    compare(count, &found, &(first..first + count).map(*mix).collect())
}

fn tree(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let (first, count) = (random.random_range(0..1 << 40), random.random_range(2..ITEMS));
    let mut calls = count;
    let mut level: Vec<Future<u64>> = client.map(mix, first..first + count).iter().collect();
    while level.len() > 1 {
        calls += level.len() as u64 / 2;
        let pairs = level.chunks(2);
        level = pairs
            .map(|pair| match pair {
                [left, right] => client.submit(add, (left, right)),
                rest => rest[0].clone(),
            })
            .collect();
    }
    compare(calls, &level[0].result()?, &(first..first + count).map(*mix).fold(0, u64::wrapping_add))
}

fn chain(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let (first, count) = (random.random_range(0..1 << 40), random.random_range(1..ITEMS / 10));
    let mut last = client.submit(mix, first);
    for _ in 1..count {
        last = client.submit(mix, &last);
    }
    compare(count, &last.result()?, &(0..count).fold(first, |x, _| mix(x)))
}

fn scatter(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let (seed, len, count) = (random.random(), random.random_range(1..4 << 20), random.random_range(1..100));
    let data = block(seed, len);
    let scattered = client.scatter(data.clone());
    let found = client.gather(client.map(digest, (0..count).map(|salt| (&scattered, salt))))?;
    compare(count, &found, &(0..count).map(|salt| digest(&data, salt)).collect())
}

/// Large results stay on workers: some are read by other calls, some by the client.
fn blocks(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let (first, count) = (random.random_range(0..1 << 40), random.random_range(1..24));
    let len = random.random_range(1_usize..512 << 10);
    let made = client.map(block, (first..first + count).map(|seed| (seed, len)));
    let digests = client.map(digest, made.iter().map(|made| (made, 7)));
    let total = client.submit(sum, &digests).result()?;
    let one = random.random_range(0..count);
    let Some(fetched) = made.get(one as usize) else { return Ok(Outcome::Wrong(format!("there is no item {one}"))) };
    let expected = (first..first + count).map(|seed| digest(&block(seed, len), 7)).fold(0, u64::wrapping_add);
    compare(2 * count + 1, &(total, fetched.result()?), &(expected, block(first + one, len)))
}

fn batched(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let (first, count) = (random.random_range(0..1 << 40), random.random_range(1..ITEMS * 100));
    let mut expected = first;
    for result in client.batched_map(mix, first..first + count) {
        let result = result?;
        if result != mix(expected) {
            return Ok(Outcome::Wrong(format!("{result} instead of {} for {expected}", mix(expected))));
        }
        expected += 1;
    }
    compare(count, &expected, &(first + count))
}

fn errors(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let (first, count) = (random.random_range(0..1 << 40), random.random_range(1..ITEMS / 20));
    let mut found = Vec::new();
    for result in client.gather_all(client.map(odd, first..first + count)) {
        found.push(match result {
            Ok(x) => Ok(x),
            Err(Error::Task(error)) if matches!(error.kind, TaskErrorKind::Returned) => Err(error.message.clone()),
            Err(error) => return Err(error),
        });
    }
    compare(count, &found, &(first..first + count).map(*odd).collect())
}

fn slow_calls(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let (first, count) = (random.random_range(0..1 << 40), random.random_range(1..40));
    let ms = random.random_range(1..200);
    let found = client.gather(client.map(slow, (first..first + count).map(|x| (x, ms))))?;
    compare(count, &found, &(first..first + count).map(*mix).collect())
}

/// Calls that are given up: nothing of them may remain, which is seen at the end.
fn dropped(client: &Client, random: &mut Pcg64Mcg) -> quicsand::Result<Outcome> {
    let count = random.random_range(1..ITEMS);
    let made = client.map(slow, (0..count).map(|x| (x, 50)));
    let one = made.get(0).map(|first| first.result());
    drop(made);
    match one {
        Some(first) => compare(1, &first?, &mix(0)),
        None => Ok(Outcome::Wrong("a map without items".to_owned())),
    }
}
