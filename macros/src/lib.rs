//! The macros of quicsand: `#[task]`, `#[quicsand::main]`, `embed!`. They are used through the `quicsand` crate.
//!
//! Each is a function from token streams to a token stream and everything that is wrong; this file documents them and adapts them
//! to rustc. Nothing here depends on the library: what is emitted goes through its `__private` module.

mod attributes;
mod build;
mod entry;
mod function;
mod identity;
mod invocation;
mod module;
mod place;
mod requires;
mod signature;
mod stamp;
mod task;
mod text;
mod toolchain;

use proc_macro::TokenStream;

/// Makes a function a task: still a function, and a value with types that a client takes.
///
/// Arguments are owned values, `&T`, `&str` or `&[T]`, at most eight; the result is a value, nothing, or a `Result<T, E>` with an
/// `E: Display` (told by the last segment of the return type), whose `Err` fails the call. All values need serde's `Serialize` and
/// `Deserialize`.
///
/// ```
/// use quicsand::task;
///
/// #[task]
/// fn inc(x: i64) -> i64 {
///     x + 1
/// }
///
/// #[task(memory = "256MiB", timeout = "30s", retries = 2)]
/// fn mean(xs: &[f64]) -> Result<f64, String> {
///     if xs.is_empty() {
///         return Err("nothing to average".into());
///     }
///     Ok(xs.iter().sum::<f64>() / xs.len() as f64)
/// }
///
/// assert_eq!(inc(1), 2);
/// assert_eq!((0..3).map(*inc).sum::<i64>(), 6);
/// ```
///
/// | attribute | meaning |
/// | --- | --- |
/// | `name = "…"` | what errors and logs call it; the function's name if not given |
/// | `memory = "256MiB"` | how much memory a call may have; at most 4 GiB. Units: B, KB, MB, GB, KiB, MiB, GiB, or a number of bytes |
/// | `timeout = "30s"` | how long a call may run. Units: ms, s, m, h |
/// | `retries = 2` | how often a failed call is tried again |
/// | `requires(zone = "a", gpu = 1)` | labels (text) that a worker must have to run it, and amounts (numbers) of named resources that a call takes there; names like `cpu.avx2` are written as they are. While no worker has it, calls wait |
/// | `crate = "path"` | where the `quicsand` crate is, for code that re-exports it |
///
/// # What is not possible
/// The name becomes that of a unit struct too, so no local variable, parameter or module of a task's name can be in its scope. As
/// a closure it is written `*inc`. A task cannot be in an `impl` block, generic, `async`, `const`, `unsafe` or `extern`.
#[proc_macro_attribute]
pub fn task(args: TokenStream, item: TokenStream) -> TokenStream {
    report(task::expand(args.into(), item.into()))
}

/// Builds the tasks of a program into a WebAssembly module, embeds it, and installs it before `main` does anything else.
///
/// For binaries and binary examples; it goes before other attributes such as `#[tokio::main]`. The module holds the tasks of the
/// program and of the crates it depends on. It is built by a cargo inside the build, in `quicsand-guest` in the target directory,
/// with the features, overflow checks and debug assertions of the outer build (features of dependencies that are given on the
/// command line cannot be seen). `cargo check`, clippy, rustdoc and editors build none. In the guest, `main` is empty.
///
/// ```
/// use quicsand::{Client, task};
///
/// #[task]
/// fn inc(x: i64) -> i64 {
///     x + 1
/// }
///
/// #[quicsand::main]
/// fn main() -> quicsand::Result<()> {
///     let client = Client::from_env()?; // finds the module by itself
///     assert_eq!(client.submit(inc, 1).result()?, 2);
///     Ok(())
/// }
/// ```
///
/// - `tasks = "package"`: the library package that holds the tasks, a dependency of this one. Only that is built for WebAssembly,
///   so this package's other dependencies need not compile for it.
/// - `crate = "path"`: where the `quicsand` crate is.
///
/// Environment, when building: `QUICSAND_RUSTC` names the compiler for the guest; without it, the program's own is used if it has
/// the target wasm32-wasip1, else the one that `quicsand setup` makes. If there is none, the program is built without a module, and
/// the next build tries again. `QUICSAND_MODULE` names a finished module that is embedded instead (relative to the workspace).
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    report(entry::expand(args.into(), item.into()))
}

/// The module of the test or library that this stands in, as an expression of type `quicsand::Module` for a `const` or `static`.
///
/// For integration tests, and for libraries that make clients of their own; programs use [`macro@main`], which documents the build
/// and the options `tasks` and `crate`.
///
/// ```
/// static MODULE: quicsand::Module = quicsand::embed!();
/// ```
#[proc_macro]
pub fn embed(args: TokenStream) -> TokenStream {
    report(module::expand_embed(args.into()))
}

fn report((mut tokens, errors): (proc_macro2::TokenStream, Vec<syn::Error>)) -> TokenStream {
    tokens.extend(errors.iter().map(syn::Error::to_compile_error));
    tokens.into()
}
