//! Commands that chores are made of: run in the workspace's root, said before they run, ended by the first that fails.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The script that makes the guest toolchain ready, which the `quicsand` command carries too.
const SETUP_SCRIPT: &str = "core/setup/guest-toolchain.sh";

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where built programs lie.
pub(crate) fn programs() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join("release")
}

/// The path of a built program.
pub(crate) fn program(name: &str) -> PathBuf {
    programs().join(format!("{name}{}", env::consts::EXE_SUFFIX))
}

/// Makes the guest toolchain ready.
pub(crate) fn set_up() -> Result<()> {
    // What the script says goes to standard error: a chore's standard output is its own.
    run(Command::new("bash").arg(SETUP_SCRIPT).stdout(Stdio::from(std::io::stderr()))).context("the guest toolchain is not ready")
}

/// A cargo command, of the cargo that runs this. What that one tells about the package that it runs is kept from it: build scripts look at
/// it, and would run again each time that plain cargo and this take turns.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let told = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in env::vars_os() {
        if told.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Says what it runs, and runs it to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let line = format!("{program} {}", words.join(" "));
    eprintln!("xtask: {line}");
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    let status = command.status().with_context(|| format!("`{line}` could not be started"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}
