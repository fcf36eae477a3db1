//! Compilation, in a process of its own that can be killed. Owns: how that process is started, limited, spoken to and ended, and what it
//! does. Must not know: what a module may contain, or where compiled code is kept.
//!
//! The process is the `quicsand` command, started with [`ARGUMENT`]. It reads a request and a module from its standard input, under
//! limits that it has set itself before, and writes what it compiled, or why it did not, to its standard output. What comes is trusted as
//! compiled code because it comes from a child of ours by a pipe that nobody else has. The input stays open as long as the parent lives:
//! when it ends, so does the child.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use wasmtime::Engine;

use super::{caps::Caps, engine, module::ModuleError};

/// The one argument of a process that compiles.
pub(crate) const ARGUMENT: &str = "compile-module";
/// Modules that are compiled at a time: one that takes long does not hold up all others.
const TURNS: u32 = 2;
/// The limit counts the processors' time, so that a busy machine refuses nobody. The clock ends what does not even use that.
const PATIENCE: u32 = 10;
/// Threads that compile one module, at most: each has its stack, which counts as memory.
const THREADS: usize = 8;
/// How much a child's priority is below its worker's: it gets half of a task's share of a processor that both want. Much less would have
/// the first result of a program wait for long on a busy machine.
#[cfg(unix)]
const NICE: i32 = 3;
/// What is read of what a child says on its standard error.
const WORDS_BYTES: u64 = 4 << 10;
/// Bytes that are made room for before they come.
const AHEAD_BYTES: u64 = 64 << 20;
/// What allocators say when there is no memory left.
const NO_MEMORY: [&str; 2] = ["memory allocation of", "Cannot allocate memory"];

/// What the first byte of an answer says.
const COMPILED: u8 = 0;
const REFUSED: u8 = 1;
const FOREIGN: u8 = 2;

/// Who compiles modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Compiler {
    /// This process, by a thread of its own. Memory is not limited then, and a module that takes too long is refused, but its thread
    /// works on to its end.
    #[default]
    Here,
    /// Processes of the `quicsand` command that is there, one a module, killed at their limits.
    Command(PathBuf),
}

impl Compiler {
    /// The `quicsand` command that this process is.
    pub(crate) fn own() -> Self {
        // By this name it is the same program even if its file has been replaced meanwhile.
        let linux = Path::new("/proc/self/exe");
        let path = if linux.exists() { Ok(linux.to_owned()) } else { std::env::current_exe() };
        path.map_or(Self::Here, Self::Command)
    }
}

/// Compiles modules, a few at a time.
#[derive(Debug)]
pub(super) struct Compilers {
    compiler: Compiler,
    turns: Arc<Turns>,
}

/// What a child is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    /// Stands for version and settings of the compiler.
    compiler: [u8; 32],
    /// Bytes of memory that it may use.
    memory: u64,
    /// Seconds of processor time that it may use.
    seconds: u64,
    /// Bytes of the module that follows.
    len: u64,
}

impl Compilers {
    pub(super) fn new(compiler: Compiler) -> Self {
        Self { compiler, turns: Arc::default() }
    }

    /// Waits until not too many others compile.
    pub(super) fn turn(&self) -> Turn {
        self.turns.take()
    }

    /// What the module compiles to, for that engine, as `Module::serialize` gives it. Blocks until it is there.
    ///
    /// # Errors
    /// When the compiler refuses it, or a limit was met; [`ModuleError::Compiler`] when the module is not to blame.
    pub(super) fn compile(&self, engine: &Engine, wasm: &[u8], caps: &Caps, turn: Turn) -> Result<Vec<u8>, ModuleError> {
        let Compiler::Command(command) = &self.compiler else { return here(engine, wasm, caps, turn) };
        match in_child(command, engine::fingerprint(engine), wasm, caps) {
            Ok(Some(compiled)) => Ok(compiled),
            Ok(None) => {
                tracing::warn!(command = %command.display(), "this command is of another version: modules are compiled in this process");
                here(engine, wasm, caps, turn)
            }
            Err(error) => Err(error),
        }
    }
}

fn here(engine: &Engine, wasm: &[u8], caps: &Caps, turn: Turn) -> Result<Vec<u8>, ModuleError> {
    let (engine, wasm) = (engine.clone(), wasm.to_vec());
    let (done, result) = mpsc::sync_channel(1);
    let compile = move || {
        // Nobody to tell: the time was over.
        let _ = done.send(engine.precompile_module(&wasm).map_err(|error| format!("{error:#}")));
        drop(turn);
    };
    let failed = |error: io::Error| ModuleError::Compiler { reason: error.to_string() };
    thread::Builder::new().name("quicsand-compiler".into()).spawn(compile).map_err(failed)?;
    match result.recv_timeout(caps.compile_time) {
        Ok(compiled) => compiled.map_err(|reason| ModuleError::Compile { reason }),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(ModuleError::CompileTime { cap: caps.compile_time }),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(ModuleError::Compile { reason: "the compiler panicked".into() }),
    }
}

/// `None` if the command is of another version.
fn in_child(command: &Path, compiler: [u8; 32], wasm: &[u8], caps: &Caps) -> Result<Option<Vec<u8>>, ModuleError> {
    let request = Request {
        compiler,
        memory: caps.compile_memory.0,
        seconds: caps.compile_time.as_secs() + u64::from(caps.compile_time.subsec_nanos() > 0),
        len: wasm.len() as u64,
    };
    let failed = |error: io::Error| ModuleError::Compiler { reason: format!("{}: {error}", command.display()) };
    let mut child = Killed(start(command).map_err(failed)?);
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take()) else {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    };
    let (answered, answer) = mpsc::sync_channel(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            // Nobody to tell: the time was over.
            let _ = answered.send(converse(stdin, stdout, &request, wasm));
        });
        let words = scope.spawn(move || {
            let mut words = Vec::new();
            // What could be read says enough.
            let _ = stderr.take(WORDS_BYTES).read_to_end(&mut words);
            String::from_utf8_lossy(&words).into_owned()
        });
        let answer = answer.recv_timeout(patience(caps));
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            // Its end says more than that the pipe broke.
            Ok(Err(error)) => {
                let status = child.0.wait().map_err(failed)?;
                let words = words.join().unwrap_or_default();
                return ended(status, &words, &error, caps);
            }
            Err(_) => {
                child.end();
                return Err(ModuleError::CompileTime { cap: caps.compile_time });
            }
        };
        child.end();
        match answer {
            (COMPILED, compiled) => Ok(Some(compiled)),
            (FOREIGN, _) => Ok(None),
            (_, reason) => {
                let reason = String::from_utf8_lossy(&reason).into_owned();
                Err(if no_memory(&reason) { out_of_memory(caps) } else { ModuleError::Compile { reason } })
            }
        }
    })
}

/// How long a compilation can take by the clock.
pub(super) fn patience(caps: &Caps) -> Duration {
    caps.compile_time.saturating_mul(PATIENCE)
}

fn start(command: &Path) -> io::Result<Child> {
    let kept = std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path));
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    Command::new(command)
        .arg(ARGUMENT)
        .env_clear()
        .envs(kept)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn converse(mut stdin: ChildStdin, mut stdout: ChildStdout, request: &Request, wasm: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    request.write(&mut stdin)?;
    stdin.write_all(wasm)?;
    stdin.flush()?;
    let mut head = [0; 9];
    stdout.read_exact(&mut head)?;
    let [what, len @ ..] = head;
    // The child cannot have more than it may have memory.
    let len = u64::from_le_bytes(len).min(request.memory);
    let mut answer = Vec::with_capacity(usize::try_from(len.min(AHEAD_BYTES)).unwrap_or(0));
    stdout.take(len).read_to_end(&mut answer)?;
    if answer.len() as u64 == len { Ok((what, answer)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What it means that a child ended without an answer.
fn ended(status: ExitStatus, words: &str, error: &io::Error, caps: &Caps) -> Result<Option<Vec<u8>>, ModuleError> {
    if was_out_of_time(status) {
        return Err(ModuleError::CompileTime { cap: caps.compile_time });
    }
    if no_memory(words) {
        return Err(out_of_memory(caps));
    }
    // A command that does not know the argument says so, and ends with this.
    if status.code() == Some(2) {
        return Ok(None);
    }
    let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(ModuleError::Compile {
        reason: format!("the compiler ended without an answer ({status}; {error}) {last}").trim_end().into(),
    })
}

#[cfg(unix)]
fn was_out_of_time(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(rustix::process::Signal::XCPU.as_raw())
}

#[cfg(not(unix))]
fn was_out_of_time(_status: ExitStatus) -> bool {
    false
}

fn no_memory(words: &str) -> bool {
    NO_MEMORY.iter().any(|said| words.contains(said))
}

fn out_of_memory(caps: &Caps) -> ModuleError {
    ModuleError::CompileMemory { cap: caps.compile_memory.0 }
}

/// A child that does not outlive whoever started it.
struct Killed(Child);

impl Killed {
    fn end(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the child does: compiles one module, and ends. Exit code 1 stands for a request that cannot be read.
pub(crate) fn serve() -> ExitCode {
    match answer().and_then(|(what, bytes)| reply(what, &bytes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer() -> io::Result<(u8, Vec<u8>)> {
    let mut stdin = io::stdin().lock();
    let request = Request::read(&mut stdin)?;
    limit(&request)?;
    let mut wasm = Vec::new();
    (&mut stdin).take(request.len).read_to_end(&mut wasm)?;
    if wasm.len() as u64 != request.len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    drop(stdin);
    thread::Builder::new().name("quicsand-parent".into()).spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        // The parent is gone, or broke off: nobody reads an answer.
        std::process::exit(1);
    })?;
    let refused = |error: wasmtime::Error| (REFUSED, format!("{error:#}").into_bytes());
    let engine = match engine::for_compiling() {
        Ok(engine) => engine,
        Err(error) => return Ok(refused(error)),
    };
    if engine::fingerprint(&engine) != request.compiler {
        return Ok((FOREIGN, Vec::new()));
    }
    Ok(engine.precompile_module(&wasm).map_or_else(refused, |compiled| (COMPILED, compiled)))
}

fn reply(what: u8, bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&[what])?;
    stdout.write_all(&(bytes.len() as u64).to_le_bytes())?;
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Limits this process, for good.
#[cfg(unix)]
fn limit(request: &Request) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};

    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It may be as low as it gets already.
    let _ = nice(NICE);
    let both = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    // Memory that is written to; addresses that are merely reserved do not count.
    setrlimit(Resource::Data, both(request.memory))?;
    setrlimit(Resource::Cpu, Rlimit { current: Some(request.seconds), maximum: Some(request.seconds + 1) })?;
    setrlimit(Resource::Fsize, both(0))?;
    setrlimit(Resource::Core, both(0))?;
    Ok(())
}

#[cfg(not(unix))]
fn limit(_request: &Request) -> io::Result<()> {
    Ok(())
}

impl Request {
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.compiler)?;
        [self.memory, self.seconds, self.len].iter().try_for_each(|number| to.write_all(&number.to_le_bytes()))
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut compiler = [0; 32];
        from.read_exact(&mut compiler)?;
        let mut number = || {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes).map(|()| u64::from_le_bytes(bytes))
        };
        Ok(Self { compiler, memory: number()?, seconds: number()?, len: number()? })
    }
}

/// How many compile.
#[derive(Debug, Default)]
struct Turns {
    taken: Mutex<u32>,
    free: Condvar,
}

impl Turns {
    fn take(self: &Arc<Self>) -> Turn {
        let mut taken = self.taken.lock();
        self.free.wait_while(&mut taken, |taken| *taken >= TURNS);
        *taken += 1;
        Turn(Arc::clone(self))
    }
}

/// Leave to compile; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.taken.lock() -= 1;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back() {
        let request = Request { compiler: [7; 32], memory: 1 << 40, seconds: 3, len: 9 };
        let mut bytes = Vec::new();
        request.write(&mut bytes).expect("writes");
        assert_eq!(Request::read(&mut &bytes[..]).expect("reads"), request);
        assert!(Request::read(&mut &bytes[1..]).is_err());
    }

    #[test]
    fn a_few_compile_at_a_time() {
        let compilers = Compilers::new(Compiler::Here);
        let turns: Vec<Turn> = (0..TURNS).map(|_| compilers.turn()).collect();
        thread::scope(|scope| {
            let next = scope.spawn(|| compilers.turn());
            drop(turns);
            next.join().expect("its turn came");
        });
        assert_eq!(*compilers.turns.taken.lock(), 0);
    }

    #[test]
    fn a_command_that_cannot_be_started_is_nobodys_fault() {
        let engine = engine::for_compiling().expect("an engine");
        let compilers = Compilers::new(Compiler::Command("/nowhere/quicsand".into()));
        let error = compilers.compile(&engine, b"", &Caps::default(), compilers.turn()).expect_err("no such command");
        assert!(matches!(&error, ModuleError::Compiler { reason } if reason.contains("/nowhere/quicsand")), "{error}");
    }
}
