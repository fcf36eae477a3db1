//! Messages to frames and back, as control streams do it.

use std::hint::black_box;

use bytes::Bytes;
use quicsand::{
    Options,
    codec::{Args, Run},
    ids::TaskId,
    wire::{CallSpec, Frames, FromClient, SharedSpec, Validate, decode_all},
};

use super::codec::integers;

/// Messages in a frame of calls.
pub(super) const CALLS: u32 = 100;
/// Bytes of a frame's length.
const HEADER: usize = 4;

/// What to call, for all workloads.
pub(super) fn spec() -> SharedSpec {
    CallSpec { task: TaskId::of("hot::inc"), name: "hot::inc".into(), options: Options::DEFAULT }.into()
}

/// Arguments of one call: an integer.
pub(super) fn one_item() -> Args {
    Args { run: Run::single(Bytes::from_static(&[42])).expect("it is short"), holes: Vec::new() }
}

fn items() -> Vec<FromClient> {
    vec![FromClient::Items { seq: 1, args: Args { run: integers(), holes: Vec::new() } }]
}

fn calls() -> Vec<FromClient> {
    (1..=u64::from(CALLS)).map(|seq| FromClient::Call { seq, spec: spec(), args: one_item() }).collect()
}

pub(super) fn encode_items() -> Box<dyn FnMut()> {
    encode(items())
}

pub(super) fn encode_calls() -> Box<dyn FnMut()> {
    encode(calls())
}

pub(super) fn decode_items() -> Box<dyn FnMut()> {
    decode(&items())
}

pub(super) fn decode_calls() -> Box<dyn FnMut()> {
    decode(&calls())
}

/// Into a buffer that is kept from frame to frame.
fn encode(messages: Vec<FromClient>) -> Box<dyn FnMut()> {
    let (mut frames, mut buffer) = (Frames::default(), Vec::new());
    Box::new(move || {
        for message in black_box(&messages) {
            frames.push(message).expect("it fits");
        }
        black_box(frames.take_into(&mut buffer));
    })
}

/// And sees whether they agree with themselves.
fn decode(messages: &[FromClient]) -> Box<dyn FnMut()> {
    let (mut frames, mut buffer) = (Frames::default(), Vec::new());
    for message in messages {
        frames.push(message).expect("it fits");
    }
    frames.take_into(&mut buffer);
    let mut read: Vec<FromClient> = Vec::new();
    Box::new(move || {
        decode_all(black_box(&buffer[HEADER..]), &mut read).expect("it was encoded");
        for message in read.drain(..) {
            message.validate().expect("it agrees with itself");
            drop(black_box(message));
        }
    })
}
