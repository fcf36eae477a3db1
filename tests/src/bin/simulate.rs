//! Runs seeds of the simulation; nothing in a sandbox, for which the package's tasks are compiled.

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    quicsand_tests::simulation::command::main()
}

#[cfg(target_family = "wasm")]
fn main() {}
