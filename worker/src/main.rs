//! The `quicsand` command.

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    quicsand_worker::command::main()
}

#[cfg(target_family = "wasm")]
fn main() {}
