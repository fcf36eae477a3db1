//! What `#[task]` makes of a function, in this process: callable, typed, and run on encoded arguments.

use std::collections::BTreeSet;

use quicsand::{
    __private::{ArgReader, HoleValues, ItemFailure, Output},
    Options, Requirements, Task, codec, task,
};
use serde::{Deserialize, Serialize};

/// Adds one.
#[task]
pub fn inc(x: i64) -> i64 {
    x + 1
}

#[task(name = "mean of numbers", memory = "256MiB", timeout = "30s", retries = 2)]
fn mean(xs: &[f64]) -> Result<f64, String> {
    if xs.is_empty() {
        return Err("nothing to average".into());
    }
    Ok(xs.iter().sum::<f64>() / xs.len() as f64)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Table {
    rows: Vec<u32>,
}

#[task]
fn describe(table: &Table, name: &str, mut factor: u32, _: bool) -> String {
    factor += 1;
    format!("{name}: {}", table.rows.iter().sum::<u32>() * factor)
}

#[task]
fn nothing() {}

#[task]
#[expect(clippy::too_many_arguments, reason = "as many as a task may have; lints reach the function")]
fn eight(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) -> u64 {
    [a, b, c, d, e, f, g, h].into_iter().map(u64::from).sum()
}

#[task]
fn fibonacci(n: u64) -> u64 {
    if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

#[task]
fn twice(x: i64) -> i64 {
    inc(inc(x))
}

#[task]
#[allow(clippy::unnecessary_wraps, reason = "the alias without arguments is what is tested")]
fn formatted(_x: u8) -> std::fmt::Result {
    Ok(())
}

#[task(requires(zone = "a", gpu = 1, disk_gb = 100, cpu.sse4.2 = "yes"))]
fn choosy() {}

mod deeper {
    #[quicsand::task]
    pub(super) fn inc(x: i64) -> i64 {
        x + 100
    }
}

macro_rules! adders {
    ($($name:ident $ty:ty, $amount:literal;)*) => {$(
        #[task]
        fn $name(x: $ty) -> $ty { x + $amount }
    )*};
}

adders! {
    add_two i64, 2;
    add_half f64, 0.5;
}

fn run<T: Task>(_: T, args: &impl Serialize) -> Result<T::Output, ItemFailure> {
    let mut bytes = Vec::new();
    codec::encode_into(args, &mut bytes).expect("encodes");
    let mut out = Output::new();
    T::run_item(&mut ArgReader::new(&bytes, HoleValues::Native(&[])), &mut out)?;
    Ok(codec::decode(out.bytes()).expect("decodes"))
}

#[test]
fn tasks_are_still_functions() {
    assert_eq!(inc(1), 2);
    assert_eq!(mean(&[1.0, 2.0]), Ok(1.5));
    assert_eq!((1..4).map(*inc).collect::<Vec<_>>(), [2, 3, 4]);
    let () = nothing();
    assert_eq!(deeper::inc(1), 101);
    assert_eq!((add_two(1), add_half(1.0)), (3, 1.5));
}

#[test]
fn items_run_on_encoded_arguments() {
    assert_eq!(run(inc, &(1_i64,)), Ok(2));
    assert_eq!(run(mean, &(vec![1.0, 2.0],)), Ok(1.5));
    let table = Table { rows: vec![1, 2] };
    assert_eq!(run(describe, &(table, "sum", 1_u32, true)), Ok("sum: 6".to_owned()));
    assert_eq!(run(nothing, &()), Ok(()));
    assert_eq!(run(eight, &(1_u8, 2_u8, 3_u8, 4_u8, 5_u8, 6_u8, 7_u8, 8_u8)), Ok(36));
    assert_eq!(run(fibonacci, &(20_u64,)), Ok(6765));
    assert_eq!(run(twice, &(1_i64,)), Ok(3));
    assert_eq!(run(formatted, &(1_u8,)), Ok(()));
    assert_eq!(run(add_half, &(1.0,)), Ok(1.5));
}

#[test]
fn failures_say_what_failed() {
    let Err(ItemFailure::Returned { message }) = run(mean, &(Vec::<f64>::new(),)) else { panic!("succeeded") };
    assert_eq!(message, "nothing to average");
    let Err(ItemFailure::Argument { name, .. }) = run(describe, &(vec![1_u32], 7_u64)) else { panic!("succeeded") };
    assert_eq!(name, "name");
    let Err(ItemFailure::Argument { name, .. }) = run(inc, &(1_i64, 2_i64)) else { panic!("succeeded") };
    assert_eq!(name, "x");
}

#[test]
fn attributes_become_options() {
    let info = <mean as Task>::info();
    assert_eq!((info.name, info.signature), ("mean of numbers", "(xs: &[f64]) -> Result<f64, String>"));
    assert_eq!(
        info.options,
        Options {
            memory: 256 << 20,
            timeout: Some(std::time::Duration::from_secs(30)),
            retries: 2,
            priority: 0,
            requires: Requirements::NONE
        }
    );
    let options = &<choosy as Task>::info().options;
    assert_eq!(options.requires.to_string(), "cpu.sse4.2=yes, zone=a, disk_gb=100, gpu=1");
    assert_eq!(options.requires.fault(), None);
    assert_eq!(Options { requires: Requirements::NONE, ..options.clone() }, Options::DEFAULT);
    assert_eq!(<inc as Task>::info().options, Options::DEFAULT);
}

#[test]
fn equal_names_have_identities_of_their_own() {
    #[task]
    fn inc(x: i64) -> i64 {
        x + 1000
    }
    let here = <inc as Task>::info();
    let nested = {
        #[task]
        fn inc(x: i64) -> i64 {
            x + 10_000
        }
        assert_eq!(inc(1), 10_001);
        <inc as Task>::info()
    };
    assert_eq!(inc(1), 1001);
    let all = [here, nested, <self::inc as Task>::info(), <deeper::inc as Task>::info()];
    assert_eq!(all.iter().map(|info| info.id).collect::<BTreeSet<_>>().len(), all.len());
    assert!(all.iter().all(|info| info.name == "inc" && info.stamp == here.stamp));
    assert_ne!(<add_two as Task>::info().id, <add_half as Task>::info().id);
}
