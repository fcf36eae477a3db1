//! Scratch programs: packages outside the workspace, as a user would write them, built with a cargo of their own. Owns: their
//! files and builds. Must not know: what any test looks for.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
};

/// Source text for a program: `report(task)` prints a task's identity, `dump()` writes the installed module to the path that is
/// the first argument, or prints why there is none. [`Scratch::report`] reads both.
pub const REPORT: &str = r#"
fn report<T: quicsand::Task>(_: T) {
    let info = T::info();
    println!("task {} {} {}", info.id.0, info.stamp, info.name);
}

fn dump(module: quicsand::Module) {
    let path = std::env::args().nth(1).expect("a path");
    match module.wasm() {
        Ok(bytes) => std::fs::write(path, bytes).expect("written"),
        Err(reason) => println!("missing {reason}"),
    }
}
"#;

/// A package, or several, in a directory that goes away with this value. They share the workspace's target directory and lock
/// file, so what the workspace has built is not built again.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
}

/// What a program that uses [`REPORT`] said.
#[derive(Debug)]
pub struct Report {
    /// Identity, stamp and name of each reported task.
    pub tasks: Vec<(u64, u64, String)>,
    /// The module, or why there is none.
    pub module: Result<Vec<u8>, String>,
}

impl Scratch {
    /// An empty directory; `name` has to be its own in the test run.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("quicsand-scratch-{}-{name}", process::id()));
        fs::create_dir_all(&dir).expect("a directory for scratch programs");
        let dir = dir.canonicalize().expect("the directory is there");
        fs::copy(workspace().join("Cargo.lock"), dir.join("Cargo.lock")).expect("the workspace's lock file");
        Self { dir }
    }

    /// Writes a file. In it, `{core}` and `{worker}` stand for the paths of the library's packages, `{report}` for [`REPORT`].
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let mut text = text.replace("{report}", REPORT);
        for package in ["core", "worker"] {
            text = text.replace(&format!("{{{package}}}"), &workspace().join(package).display().to_string());
        }
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("inside the directory")).expect("a directory for the file");
        fs::write(path, text).expect("the file is written");
    }

    /// A path inside.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// A cargo command in the directory, without what the cargo that runs the tests has set.
    #[must_use]
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            let outer = name.starts_with("CARGO") && !name.starts_with("CARGO_HOME") && !name.starts_with("CARGO_NET");
            if outer || name.starts_with("QUICSAND_") {
                command.env_remove(&*name);
            }
        }
        command.current_dir(&self.dir).env("CARGO_TARGET_DIR", target_dir()).args(args);
        command
    }

    /// Runs a command that has to succeed.
    ///
    /// # Panics
    /// With what it said, if it does not.
    pub fn succeed(&self, command: &mut Command) -> String {
        let output = command.output().expect("the command runs");
        assert!(output.status.success(), "{command:?} failed:\n{}", said(&output));
        said(&output)
    }

    /// Runs a command that has to fail, and gives what it said.
    ///
    /// # Panics
    /// With what it said, if it succeeds.
    pub fn fail(&self, command: &mut Command) -> String {
        let output = command.output().expect("the command runs");
        assert!(!output.status.success(), "{command:?} succeeded:\n{}", said(&output));
        said(&output)
    }

    /// Runs a program that was built in release mode (`name`, or `examples/name`) and uses [`REPORT`].
    ///
    /// # Panics
    /// If it fails, or says what cannot be read.
    #[must_use]
    pub fn report(&self, program: &str) -> Report {
        let path = target_dir().join("release").join(format!("{program}{}", env::consts::EXE_SUFFIX));
        let wasm = self.path("dumped.wasm");
        let text = self.succeed(Command::new(path).arg(&wasm));
        Report::read(&text, &wasm)
    }
}

impl Report {
    /// Reads what a program printed, and the file it may have written.
    ///
    /// # Panics
    /// If there is neither a module nor a reason.
    #[must_use]
    pub fn read(text: &str, wasm: &Path) -> Self {
        let tasks = text.lines().filter_map(|line| {
            let mut words = line.strip_prefix("task ")?.splitn(3, ' ');
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.to_owned()))
        });
        let missing = text.lines().find_map(|line| line.strip_prefix("missing ")).map(str::to_owned);
        let module = missing.map_or_else(|| Ok(fs::read(wasm).expect("neither a module nor a reason")), Err);
        Self { tasks: tasks.collect(), module }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The directory that the workspace is built into.
///
/// # Panics
/// If the test lies elsewhere.
#[must_use]
pub fn target_dir() -> PathBuf {
    let test = env::current_exe().expect("the test's own path");
    let dir = test.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    dir.expect("tests lie in a target directory").to_owned()
}

/// The compiler for the guest, where the machine is set up.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn guest_rustc() -> PathBuf {
    let home = env::home_dir().expect("a home directory");
    let linked = home.join(".rustup/toolchains/quicsand-guest/bin/rustc");
    if linked.exists() {
        return linked;
    }
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end());
    assert!(sysroot.join("lib/rustlib/wasm32-wasip1").exists(), "there is no guest toolchain: run `cargo xtask setup`");
    sysroot.join("bin/rustc")
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
