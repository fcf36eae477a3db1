//! The same workloads on what somebody would use instead: Dask and Ray, with their defaults and with what is best for tiny tasks. Owns: the
//! virtual environment they are installed into, and starting them. Must not know: what they measure; that is in `tests/peers`.
//!
//! HyperQueue is no peer here: there is no package of it, and it would have to be built from its sources.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// What is installed, as pip is told it. The environment is made anew when this changes.
const PACKAGES: &[&str] = &["dask==2026.8.0", "distributed==2026.8.0", "ray==2.60.0", "numpy==2.4.6"];
/// Names, the script of each, and whether its best known settings are used.
const PEERS: &[(&str, &str, bool)] = &[
    ("dask", "dask_peer.py", false),
    ("dask tuned", "dask_peer.py", true),
    ("ray", "ray_peer.py", false),
    ("ray tuned", "ray_peer.py", true),
];

/// The figures of each peer, under the keys of this program; of all peers if `only` is empty.
///
/// # Errors
/// When there is no Python 3, the packages cannot be installed, or a peer fails or is wrong.
pub(crate) fn peers(only: &[String], quick: bool) -> Result<BTreeMap<String, BTreeMap<String, f64>>> {
    if let Some(unknown) = only.iter().find(|wanted| !PEERS.iter().any(|(name, ..)| name == wanted)) {
        let names: Vec<_> = PEERS.iter().map(|(name, ..)| *name).collect();
        anyhow::bail!("there is no peer `{unknown}`, only {}", names.join(", "));
    }
    let python = environment()?;
    let wanted = PEERS.iter().filter(|(name, ..)| only.is_empty() || only.iter().any(|wanted| wanted == name));
    wanted.map(|&(name, script, tuned)| Ok((name.to_owned(), measure(&python, name, script, tuned, quick)?))).collect()
}

/// Makes the virtual environment, unless it is there with the same packages. Gives its interpreter.
fn environment() -> Result<PathBuf> {
    let dir = repository().join("target/peers");
    let python = dir.join("bin/python");
    let (installed, packages) = (dir.join("packages"), PACKAGES.join("\n"));
    if fs::read_to_string(&installed).is_ok_and(|present| present == packages) {
        return Ok(python);
    }
    eprintln!("peers: installing {}", PACKAGES.join(", "));
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES))?;
    fs::write(&installed, packages).with_context(|| format!("{} cannot be written", installed.display()))?;
    Ok(python)
}

fn measure(python: &Path, name: &str, script: &str, tuned: bool, quick: bool) -> Result<BTreeMap<String, f64>> {
    eprintln!("peers: {name}");
    let flag = |set: bool| if set { "1" } else { "0" };
    let mut command = alone(python);
    command.arg(repository().join("tests/peers").join(script)).env("PEER_TUNED", flag(tuned)).env("PEER_QUICK", flag(quick));
    command.env("PYTHONDONTWRITEBYTECODE", "1").stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("{} could not be started", python.display()))?;
    ensure!(output.status.success(), "{name} failed: {}", output.status);
    let printed = String::from_utf8(output.stdout)?;
    let last = printed.lines().last().with_context(|| format!("{name} printed no figures"))?;
    serde_json::from_str(last).with_context(|| format!("{name} printed no figures, but `{last}`"))
}

/// A command that runs Python in a network of its own where the system lets it: Ray listens on all addresses that it finds.
fn alone(python: &Path) -> Command {
    const NETWORK: [&str; 4] = ["--user", "--map-root-user", "--net", "--uts"];
    const SCRIPT: &str = r#"ip link set lo up && hostname localhost && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(NETWORK).args(["sh", "-c", SCRIPT, "sh"]);
    let mut probe = Command::new("unshare");
    probe.args(NETWORK).args(["sh", "-c", SCRIPT, "sh", "true"]).stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        command.arg(python);
        return command;
    }
    eprintln!("peers: no network without other machines can be had here; Ray listens on all addresses");
    Command::new(python)
}

/// Runs to the end; what it prints goes to standard error, where no figures are.
fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("{} could not be started", program.display()))?;
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "{} failed: {}", program.display(), output.status);
    Ok(())
}

fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
