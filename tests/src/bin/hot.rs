//! Runs a workload for `cargo xtask instructions`, which counts the instructions of its second run; the first one fills caches, the
//! allocator's among them. Without a name, it lists the workloads.

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    use quicsand_tests::hot::{WORKLOADS, measured};
    use std::process::ExitCode;

    let Some(name) = std::env::args().nth(1) else {
        WORKLOADS.iter().for_each(|workload| println!("{} {}", workload.name, workload.items));
        return ExitCode::SUCCESS;
    };
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == name) else {
        eprintln!("there is no workload {name}");
        return ExitCode::FAILURE;
    };
    let mut run = (workload.prepare)();
    run();
    measured(&mut run);
    ExitCode::SUCCESS
}

#[cfg(target_family = "wasm")]
fn main() {}
