//! The guest build: a cargo inside the compiler's run that makes the program's module. Owns: its command line, environment and
//! messages. Must not know: what is emitted for it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::{invocation::Invocation, toolchain::TARGET};

/// Set in the guest build, so that nothing in it starts another.
pub(crate) const NESTED: &str = "QUICSAND_GUEST_BUILD";
/// How the guest is compiled and linked, besides its profile.
const FLAGS: [&str; 6] = [
    "-Clink-arg=--no-entry",
    "-Clink-arg=--export=__wasm_call_ctors",
    // Every worker has it. Vectors that the compiler makes change no result: it does not reorder floating point.
    "-Ctarget-feature=+simd128",
    // A worker's code asks at each turn of a loop and in each call whether it is to stop, which can cost as much as a short body. So
    // bodies are longer and calls fewer than the compiler's own thresholds make them; `kernels_wasm_over_native` of the benchmarks has
    // what that gives. Modules become larger.
    "-Cllvm-args=-unroll-partial-threshold=200",
    // What became vectors is not unrolled afterwards.
    "-Cllvm-args=-force-vector-interleave=4",
    "-Cllvm-args=-inline-threshold=350",
];
/// Messages are cut here: a compiler can say much.
const MESSAGE_MAX: usize = 16 << 10;

/// What to build, and with what.
pub(crate) struct GuestBuild<'a> {
    pub(crate) invocation: &'a Invocation,
    pub(crate) rustc: &'a Path,
    /// The package that holds the tasks, if it is not the one being compiled.
    pub(crate) package: Option<String>,
}

/// A target of the package being compiled, as `cargo metadata` tells it.
struct Target {
    kind: String,
    name: String,
    source: PathBuf,
}

/// How cargo ended.
struct Run {
    module: Option<PathBuf>,
    /// What the compiler, or else cargo, said was wrong.
    errors: String,
}

impl GuestBuild<'_> {
    /// Builds the module, and gives the path of a copy that only this build of this crate writes.
    pub(crate) fn run(&self) -> Result<PathBuf, String> {
        let guest_dir = self.invocation.target_dir().join("quicsand-guest");
        let cannot = |error: io::Error| format!("{} cannot be written: {error}", guest_dir.display());
        fs::create_dir_all(guest_dir.join("modules")).map_err(cannot)?;
        // Until the copy is made, no other build may write the same artefact.
        let lock = File::create(guest_dir.join("modules/.lock")).map_err(cannot)?;
        lock.lock().map_err(cannot)?;

        let target = match self.package {
            Some(_) => None,
            None => Some(self.target()?),
        };
        let mut run = self.cargo(&guest_dir, target.as_ref(), "fat")?;
        // A toolchain whose library was built without bitcode cannot optimize across crates.
        if run.module.is_none() && run.errors.contains("bitcode") {
            run = self.cargo(&guest_dir, target.as_ref(), "off")?;
        }
        let Some(artefact) = run.module else {
            return Err(self.explain(&run.errors));
        };
        let name = format!("{}{}.wasm", self.invocation.crate_name, self.invocation.extra_filename);
        let module = guest_dir.join("modules").join(name);
        replace(&artefact, &module).map_err(cannot)?;
        Ok(module)
    }

    fn cargo(&self, guest_dir: &Path, target: Option<&Target>, lto: &str) -> Result<Run, String> {
        let mut command = cargo()?;
        let test_harness = self.invocation.test && target.is_some_and(|target| matches!(&*target.kind, "bin" | "lib"));
        match test_harness {
            true => command.args(["test", "--no-run"]),
            false => command.arg("rustc"),
        };
        command.args(["--release", "--message-format=json", "--target", TARGET, "--target-dir"]).arg(guest_dir);
        match target {
            Some(target) => {
                if target.kind == "lib" {
                    command.arg("--lib");
                } else {
                    command.arg(format!("--{}", target.kind)).arg(&target.name);
                }
                command.arg("--no-default-features").arg("--features").arg(self.invocation.features.join(","));
            }
            None => {
                command.arg("--lib").arg("--package").args(&self.package);
            }
        }
        if !test_harness && target.is_none_or(|target| target.kind == "lib") {
            command.args(["--crate-type", "cdylib"]);
        }
        let Invocation { overflow_checks, debug_assertions, .. } = self.invocation;
        for setting in [
            "opt-level=3",
            "codegen-units=1",
            "panic=\"abort\"",
            "strip=\"debuginfo\"",
            "debug=false",
            "incremental=false",
            &format!("lto=\"{lto}\""),
            &format!("overflow-checks={overflow_checks}"),
            &format!("debug-assertions={debug_assertions}"),
        ] {
            command.arg("--config").arg(format!("profile.release.{setting}"));
        }
        if !test_harness {
            // What is unused in the guest only is no error there, however strict the program is with itself.
            command.args(["--", "--cap-lints=warn"]);
        }
        command.env("RUSTC", self.rustc);
        // Takes the place of every configured flag: those are meant for the host.
        command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
        let output = command.output().map_err(|error| format!("cargo could not be run: {error}"))?;
        Ok(Run::read(&output, target.map(|target| (&*target.source, self.invocation.test))))
    }

    /// Finds out which target of its package the crate is.
    fn target(&self) -> Result<Target, String> {
        let source = canonical(&self.invocation.source);
        let mut command = cargo()?;
        command.args(["metadata", "--no-deps", "--format-version=1"]);
        let output = command.output().map_err(|error| format!("cargo could not be run: {error}"))?;
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("`cargo metadata` failed: {error}\n{}", String::from_utf8_lossy(&output.stderr)))?;
        let targets = metadata["packages"].as_array().into_iter().flatten().filter_map(|package| package["targets"].as_array());
        let program = env::var("CARGO_BIN_NAME").ok();
        let found = targets.flatten().filter_map(Target::read).find(|target| {
            target.source == source
                && match &program {
                    Some(program) => target.name == *program && matches!(&*target.kind, "bin" | "example"),
                    None => target.kind != "bin" && target.name.replace('-', "_") == self.invocation.crate_name,
                }
        });
        found.ok_or_else(|| format!("no target of this package is made from {}", source.display()))
    }

    fn explain(&self, errors: &str) -> String {
        let mut end = errors.len().min(MESSAGE_MAX);
        while !errors.is_char_boundary(end) {
            end -= 1;
        }
        let hint = match self.package {
            Some(_) => "",
            None => {
                "\n\nIf a dependency does not compile for WebAssembly, put the tasks into a package without it and name that: \
                 `tasks = \"my-tasks\"`"
            }
        };
        format!("the tasks could not be compiled for {TARGET}:\n\n{}{hint}", errors[..end].trim_end())
    }
}

impl Run {
    /// Reads cargo's messages; `wanted` is the source of the target to look for and whether it is a test harness.
    fn read(output: &Output, wanted: Option<(&Path, bool)>) -> Self {
        let (mut module, mut errors) = (None, String::new());
        for message in output.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok()) {
            match message["reason"].as_str() {
                Some("compiler-artifact") => {
                    let is_wanted = wanted.is_none_or(|(source, test)| {
                        message["profile"]["test"] == test
                            && message["target"]["src_path"].as_str().is_some_and(|path| canonical(Path::new(path)) == source)
                    });
                    let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
                    if let Some(file) = files.filter(|_| is_wanted).find(|file| file.ends_with(".wasm")) {
                        module = Some(PathBuf::from(file));
                    }
                }
                Some("compiler-message") => {
                    let message = &message["message"];
                    if message["level"].as_str().is_some_and(|level| level.starts_with("error")) {
                        errors.push_str(message["rendered"].as_str().unwrap_or_default());
                    }
                }
                _ => {}
            }
        }
        if !output.status.success() {
            module = None;
        }
        if module.is_none() && errors.is_empty() {
            errors = String::from_utf8_lossy(&output.stderr).into_owned();
        }
        Self { module, errors }
    }
}

impl Target {
    fn read(target: &Value) -> Option<Self> {
        let kind = target["kind"][0].as_str()?;
        let kind = match kind {
            "bin" | "example" | "test" | "bench" => kind,
            // `lib`, `rlib`, `cdylib` and so on.
            _ => "lib",
        };
        Some(Self {
            kind: kind.to_owned(),
            name: target["name"].as_str()?.to_owned(),
            source: canonical(Path::new(target["src_path"].as_str()?)),
        })
    }
}

/// The cargo that runs the outer build, on the same package, in an environment without that build's own variables.
fn cargo() -> Result<Command, String> {
    let var = |name: &str| env::var_os(name).ok_or_else(|| format!("{name} is not set: only cargo can build the module"));
    let dir = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let mut command = Command::new(var("CARGO")?);
    for (name, _) in env::vars_os().filter(|(name, _)| !is_inherited(name)) {
        command.env_remove(name);
    }
    command.env(NESTED, "1").current_dir(dir);
    Ok(command)
}

/// Whether the guest build sees a variable of the outer build. The user's own, proxies and settings of the network do reach it;
/// what cargo tells the compiler of the outer crate, or the user tells cargo of the outer target, does not.
fn is_inherited(name: &OsStr) -> bool {
    const KEPT: [&str; 9] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_RESOLVER_",
        "RUSTUP_",
    ];
    let Some(name) = name.to_str() else { return true };
    let of_the_build =
        name.starts_with("CARGO") || name.starts_with("RUST") || name == "OUT_DIR" || name.starts_with("QUICSAND_");
    !of_the_build || KEPT.iter().any(|kept| name.starts_with(kept))
}

/// Copies the module unless it is there already, dated before the build: cargo would take a file that is newer than the build's
/// start for a change of the sources, and build once more.
fn replace(artefact: &Path, module: &Path) -> io::Result<()> {
    let bytes = fs::read(artefact)?;
    if fs::read(module).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let mut fresh = OsString::from(module);
    fresh.push(".new");
    fs::write(&fresh, &bytes)?;
    let past = SystemTime::now().checked_sub(Duration::from_secs(24 * 3600)).unwrap_or(SystemTime::UNIX_EPOCH);
    OpenOptions::new().write(true).open(&fresh)?.set_modified(past)?;
    fs::rename(&fresh, module)
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_loses_what_the_outer_build_set() {
        let check = |name: &str, expected: bool| assert_eq!(is_inherited(OsStr::new(name)), expected, "{name}");
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_MAKEFLAGS", "RUSTUP_HOME", "https_proxy", "PATH", "MY_SETTING"] {
            check(name, true);
        }
        for name in ["CARGO", "CARGO_PKG_NAME", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTC", "OUT_DIR"] {
            check(name, false);
        }
    }
}
