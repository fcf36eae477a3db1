//! What the tests that cross crates share.

#[cfg(not(target_family = "wasm"))]
pub mod scratch;
pub mod source;

/// The program in the README works.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
