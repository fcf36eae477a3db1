//! Programs of Debian's packages that single chores need: whether they are there, and how they come. Must not know: which ones, and why.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::steps::run;

/// Whether a program of this name can be started.
pub(crate) fn is_there(name: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Installs packages, where this user may; the error says what to do by hand.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("install {}: `apt-get install {}`", packages.join(", "), packages.join(" "));
    ensure!(is_there("apt-get"), "there is no apt-get; {by_hand}");
    let installed = run(apt(&["install", "--yes", "-qq"]).context(by_hand.clone())?.args(packages));
    if installed.is_ok() {
        return Ok(());
    }
    // Lists of packages may be missing or old.
    run(&mut apt(&["update", "-qq"])?).context(by_hand.clone())?;
    run(apt(&["install", "--yes", "-qq"])?.args(packages)).context(by_hand)
}

fn apt(arguments: &[&str]) -> Result<Command> {
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let mut command = match is_root {
        true => Command::new("apt-get"),
        false if output(Command::new("sudo").args(["--non-interactive", "true"])).is_ok() => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--non-interactive", "apt-get"]);
            sudo
        }
        false => bail!("this user may not install packages"),
    };
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

/// What a command says on standard output, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "it failed ({})", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
