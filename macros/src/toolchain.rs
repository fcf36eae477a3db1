//! Which compiler builds the guest. Owns: where it is looked for, and what is said when there is none. Must not know: what it builds.

use std::{
    env::{self, consts::EXE_SUFFIX},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What tasks are compiled for.
pub(crate) const TARGET: &str = "wasm32-wasip1";
/// What rustup calls the toolchain that the set-up script makes where rustup cannot download the target.
const LINKED: &str = "quicsand-guest";

/// The compiler to use: `QUICSAND_RUSTC` if set, else the one that runs this macro if it has the target, else the linked toolchain.
/// Without one, why, as a clause without a full stop.
pub(crate) fn find() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("QUICSAND_RUSTC").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(named);
        return match has_target(&path) {
            true => Ok(path),
            false => Err(format!(
                "QUICSAND_RUSTC names `{}`, which does not compile for {TARGET}: {}",
                path.display(),
                remedy("unset it and run")
            )),
        };
    }
    // Nothing here runs a rustup proxy: it might begin to download.
    let own = env::current_exe().ok();
    let found = own.into_iter().chain(linked()).find(|path| has_target(path));
    found.ok_or_else(|| format!("no compiler for {TARGET} was found when it was built: {}", remedy("run")))
}

/// What to do about a missing toolchain.
fn remedy(run: &str) -> String {
    // The macros' own repository has the set-up as a task of its workspace.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let inside = repository.zip(package).is_some_and(|(repository, package)| package.starts_with(repository));
    let command = if inside { "cargo xtask setup" } else { "quicsand setup" };
    format!("{run} `{command}` and build again")
}

fn has_target(rustc: &Path) -> bool {
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", TARGET]);
    let Ok(output) = command.output() else { return false };
    let Ok(dir) = String::from_utf8(output.stdout) else { return false };
    let Ok(entries) = fs::read_dir(dir.trim_end()) else { return false };
    output.status.success() && entries.flatten().any(|entry| is_std(&entry.file_name().to_string_lossy()))
}

fn is_std(file: &str) -> bool {
    file.starts_with("libstd-") && file.ends_with(".rlib")
}

/// Where the linked toolchain may be.
fn linked() -> impl Iterator<Item = PathBuf> {
    let home = env::home_dir();
    let under_home = |dir: &str| home.as_ref().map(|home| home.join(dir));
    let from_env = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let rustup = from_env("RUSTUP_HOME").or_else(|| under_home(".rustup"));
    let data = from_env("XDG_DATA_HOME").or_else(|| under_home(".local/share"));
    let sysroots =
        [rustup.map(|dir| dir.join("toolchains").join(LINKED)), data.map(|dir| dir.join("quicsand").join("guest-toolchain"))];
    sysroots.into_iter().flatten().map(|sysroot| sysroot.join("bin").join(format!("rustc{EXE_SUFFIX}")))
}
