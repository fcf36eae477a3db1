//! Processes of the `quicsand` command, for tests and benchmarks that kill, freeze and restart them. Owns: their lives, and what they take of
//! the system.

use std::{
    env,
    ffi::OsStr,
    fs,
    fs::OpenOptions,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

/// A process that does not end in this time never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A scheduler's announcement.
#[derive(Clone, Debug)]
pub struct Announced {
    /// `HOST:PORT`.
    pub address: String,
    /// For clients.
    pub client_token: String,
    /// For workers.
    pub worker_token: String,
}

impl Announced {
    /// Reads it.
    ///
    /// # Errors
    /// When something is missing.
    pub fn read(announced: &Value) -> Result<Self> {
        let text = |name: &str| {
            let value = announced.get(name).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| anyhow!("the scheduler announced no `{name}`"))
        };
        Ok(Self { address: text("address")?, client_token: text("client_token")?, worker_token: text("worker_token")? })
    }
}

/// What a process has taken of the system.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Memory that is its own or mapped, in KiB.
    pub resident_kib: u64,
    /// The most that this was.
    pub peak_kib: u64,
    /// CPU time of the threads that it has, in nanoseconds.
    pub cpu_ns: u64,
    /// Open files and sockets.
    pub files: usize,
}

/// A process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    is_frozen: bool,
}

impl Process {
    /// Starts it, to leave when this process does. What it logs goes to that file, after what is there.
    ///
    /// # Errors
    /// When the file cannot be written or the process not be started.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
        // It leaves when this process does, whatever becomes of it.
        command.args(["--announce", "--with-parent"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let child = command.spawn().context("the `quicsand` command could not be started")?;
        Ok(Self { child, is_frozen: false })
    }

    /// Starts it and waits for its announcement, a line of JSON.
    ///
    /// # Errors
    /// As [`Process::spawn`], or when it ends without one.
    pub fn start(command: &mut Command, log: &Path) -> Result<(Self, Value)> {
        let mut process = Self::spawn(command, log)?;
        let stdout = process.child.stdout.take().context("its standard output is not to be had")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let announced = serde_json::from_str(&line);
        Ok((process, announced.with_context(|| format!("`quicsand` announced itself as {line:?}; see {}", log.display()))?))
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        self.child.try_wait().map(|status| status.is_some()).context("it cannot be looked at")
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Ends it without warning.
    ///
    /// # Errors
    /// When the system does not.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("it cannot be killed")?;
        self.child.wait().map(drop).context("it cannot be waited for")
    }

    /// Freezes it, or has it go on.
    ///
    /// # Errors
    /// When there is no `kill` command, or it fails.
    pub fn freeze(&mut self, is_frozen: bool) -> Result<()> {
        self.is_frozen = is_frozen;
        self.signal(if is_frozen { "STOP" } else { "CONT" })
    }

    /// Has it leave in good order, and waits until it has.
    ///
    /// # Errors
    /// When it does not, or says that not all went well.
    pub fn end(mut self) -> Result<()> {
        self.signal("TERM")?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("it ended with {status}"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
        bail!("it was asked to end and did not")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "the signal {name} could not be sent");
        Ok(())
    }

    /// What it has taken.
    ///
    /// # Errors
    /// When it has ended, or this is not Linux.
    pub fn usage(&self) -> Result<Usage> {
        usage(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process (`self` for this one) has taken of the system.
///
/// # Errors
/// When there is no such process, or this is not Linux.
pub fn usage(process: &str) -> Result<Usage> {
    let directory = Path::new("/proc").join(process);
    let status = fs::read_to_string(directory.join("status"))?;
    let kib = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let mut cpu_ns = 0;
    for thread in fs::read_dir(directory.join("task"))? {
        // A thread that ends meanwhile takes its time with it.
        let Ok(times) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        cpu_ns += times.split_whitespace().next().context("an empty schedstat")?.parse::<u64>()?;
    }
    let files = fs::read_dir(directory.join("fd"))?.count();
    Ok(Usage { resident_kib: kib("VmRSS:")?, peak_kib: kib("VmHWM:")?, cpu_ns, files })
}

/// What the processes have taken that this one has started and that have not ended: those whose first argument is `role`, as it is
/// `scheduler` or `worker` of a cluster's.
///
/// # Errors
/// When this is not Linux.
pub fn children(role: &str) -> Result<Vec<Usage>> {
    let me = format!("PPid:\t{}", std::process::id());
    let mut children = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(status) = fs::read_to_string(process.path().join("status")) else { continue };
        if !status.lines().any(|line| line == me) {
            continue;
        }
        let command = fs::read(process.path().join("cmdline"))?;
        if command.split(|&byte| byte == 0).nth(1) == Some(role.as_bytes()) {
            children.push(usage(&process.file_name().to_string_lossy())?);
        }
    }
    Ok(children)
}

/// A program that was built beside this one.
pub fn program(name: impl AsRef<OsStr>) -> PathBuf {
    let here = env::current_exe().unwrap_or_default();
    here.with_file_name(name).with_extension(env::consts::EXE_EXTENSION)
}
