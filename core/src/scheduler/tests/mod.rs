//! Tests of the scheduler: examples of each rule, and random plays against a model of a fleet.

mod absence;
mod away;
mod copies;
mod divide;
mod examples;
mod failures;
mod journal;
mod lab;
mod model;
mod operators;
mod play;
mod requirements;
mod sharing;
mod speed;
mod unread;
mod values;
