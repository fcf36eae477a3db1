//! The benchmarks: a scheduler and two workers of one slot each, as processes of this machine. Figures go to standard output, everything else
//! to standard error.
//!
//! Inputs pass through `black_box`, and every result is checked: a wrong one is an error, not a figure.

mod tasks;

#[cfg(not(target_family = "wasm"))]
mod alongside;
#[cfg(not(target_family = "wasm"))]
mod bulk;
#[cfg(not(target_family = "wasm"))]
mod calls;
#[cfg(not(target_family = "wasm"))]
mod failures;
#[cfg(not(target_family = "wasm"))]
mod figures;
#[cfg(not(target_family = "wasm"))]
mod limits;
#[cfg(not(target_family = "wasm"))]
mod machine;
#[cfg(not(target_family = "wasm"))]
mod memory;
#[cfg(not(target_family = "wasm"))]
mod peers;
#[cfg(not(target_family = "wasm"))]
mod run;
#[cfg(not(target_family = "wasm"))]
mod start;

#[quicsand::main]
fn main() -> anyhow::Result<()> {
    #[cfg(not(target_family = "wasm"))]
    run::main()?;
    Ok(())
}
