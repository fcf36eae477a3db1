//! Values to bytes and back.

use std::hint::black_box;

use quicsand::codec::{Run, RunBuilder, decode_value, encode_value};

use super::ITEMS;

/// A mebibyte of them.
pub(super) const FLOATS: u32 = (1 << 20) / 8;

/// One integer for each item, of one to three bytes.
pub(super) fn integers() -> Run {
    let mut builder = RunBuilder::default();
    for item in 0..i64::from(ITEMS) {
        let start = builder.byte_len();
        encode_value(&item, builder.buffer()).expect("an integer has an encoding");
        builder.end_item(start).expect("it is short");
    }
    builder.take()
}

pub(super) fn encode_run() -> Box<dyn FnMut()> {
    Box::new(|| drop(black_box(integers())))
}

pub(super) fn decode_run() -> Box<dyn FnMut()> {
    let run = integers();
    Box::new(move || {
        let numbers = black_box(&run).iter().map(|item| decode_value::<i64>(item).expect("it was encoded"));
        black_box(numbers.sum::<i64>());
    })
}

fn floats() -> Vec<f64> {
    (0..FLOATS).map(|i| f64::from(i) / 3.0).collect()
}

pub(super) fn encode_floats() -> Box<dyn FnMut()> {
    let floats = floats();
    Box::new(move || {
        let mut bytes = Vec::new();
        encode_value(black_box(&floats), &mut bytes).expect("floats have an encoding");
        drop(black_box(bytes));
    })
}

pub(super) fn decode_floats() -> Box<dyn FnMut()> {
    let mut bytes = Vec::new();
    encode_value(&floats(), &mut bytes).expect("floats have an encoding");
    Box::new(move || drop(black_box(decode_value::<Vec<f64>>(black_box(&bytes)).expect("they were encoded"))))
}
