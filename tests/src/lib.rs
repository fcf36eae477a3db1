//! What the tests that cross crates share.

pub mod book;
#[cfg(not(target_family = "wasm"))]
pub mod fuzz;
pub mod guest;
#[cfg(not(target_family = "wasm"))]
pub mod hot;
pub mod processes;
pub mod relay;
#[cfg(not(target_family = "wasm"))]
pub mod scratch;
#[cfg(not(target_family = "wasm"))]
pub mod simulation;
pub mod source;

/// The programs in the README and in the book work.
#[cfg(doctest)]
mod compiled {
    /// The README's program.
    #[doc = include_str!("../../README.md")]
    pub struct Readme;
    /// A chapter.
    #[doc = include_str!("../../docs/introduction.md")]
    pub struct Introduction;
    /// A chapter.
    #[doc = include_str!("../../docs/quick-start.md")]
    pub struct QuickStart;
    /// A chapter.
    #[doc = include_str!("../../docs/tasks.md")]
    pub struct Tasks;
    /// A chapter.
    #[doc = include_str!("../../docs/debugging.md")]
    pub struct Debugging;
    /// A chapter.
    #[doc = include_str!("../../docs/fleet.md")]
    pub struct Fleet;
    /// A chapter.
    #[doc = include_str!("../../docs/limits.md")]
    pub struct Limits;
    /// A chapter.
    #[doc = include_str!("../../docs/errors.md")]
    pub struct Errors;
}
