//! Tasks that nobody should trust: how each of them ends, and that the honest ones beside them do not notice.

use std::{
    env,
    error::Error,
    fs,
    hint::black_box,
    io,
    net::{TcpStream, UdpSocket},
    process::{self, ExitCode},
    thread,
    time::Duration,
};

use clap::Parser;
use quicsand::{Client, Future, TaskErrorKind, task};
use quicsand_examples::session::RunOn;

/// Honest calls that run beside the others.
const HONEST: u64 = 10_000;

/// An honest task: how many steps a number takes to 1, if it is halved where it is even, else tripled and 1 added.
#[task]
fn collatz(start: u64) -> u64 {
    let (mut number, mut steps) = (start, 0);
    while number > 1 {
        number = if number % 2 == 0 { number / 2 } else { 3 * number + 1 };
        steps += 1;
    }
    steps
}

#[task(timeout = "500ms")]
fn spin() -> String {
    while black_box(true) {}
    "came to an end".to_owned()
}

#[task(timeout = "500ms")]
fn sleep() -> String {
    thread::sleep(Duration::from_secs(24 * 3600));
    "slept for a day".to_owned()
}

#[task(timeout = "500ms")]
fn chatter() -> String {
    while black_box(true) {
        println!("all work and no play");
    }
    "had nothing more to say".to_owned()
}

#[task(memory = "64MiB")]
fn hoard() -> String {
    let mut hoard = Vec::new();
    while black_box(hoard.len() < 100_000) {
        hoard.push(vec![1_u8; 1 << 20]);
    }
    "got 100,000 MiB".to_owned()
}

#[task]
fn recurse() -> String {
    fn dive(depth: u64) -> u64 {
        let frame = black_box([depth; 64]);
        if depth == u64::MAX { 0 } else { dive(depth + 1) + frame[63] }
    }
    format!("reached {}", dive(0))
}

#[task]
fn exit() -> String {
    process::exit(3)
}

#[task]
fn overrun() -> String {
    let shelf = [1, 2, 3];
    format!("found {}", shelf[black_box(5)])
}

#[task]
fn give_up() -> Result<String, String> {
    Err("no number to give".to_owned())
}

#[task]
fn read_file() -> io::Result<String> {
    fs::read("/etc/passwd").map(|bytes| format!("read {} bytes of /etc/passwd", bytes.len()))
}

#[task]
fn write_file() -> io::Result<String> {
    fs::write("/tmp/quicsand-was-here", "").map(|()| "wrote /tmp/quicsand-was-here".to_owned())
}

#[task]
fn connect() -> io::Result<String> {
    TcpStream::connect("127.0.0.1:22").map(|_| "connected to port 22".to_owned())
}

#[task]
fn listen() -> io::Result<String> {
    UdpSocket::bind("127.0.0.1:0").map(|_| "opened a port".to_owned())
}

#[task]
fn read_environment() -> Result<String, String> {
    let names: Vec<_> = env::vars_os().collect();
    if names.is_empty() { Err("it is empty".to_owned()) } else { Ok(format!("read {} variables", names.len())) }
}

#[task]
fn start_thread() -> io::Result<String> {
    thread::Builder::new().spawn(|| ()).map(|_| "started a thread".to_owned())
}

#[task]
fn start_process() -> io::Result<String> {
    process::Command::new("true").status().map(|_| "started a process".to_owned())
}

struct Deed {
    does: &'static str,
    /// Nothing would stop or undo it in this process.
    needs_sandbox: bool,
    call: fn(&Client) -> Future<String>,
}

const fn harmless(does: &'static str, call: fn(&Client) -> Future<String>) -> Deed {
    Deed { does, needs_sandbox: false, call }
}

const fn harmful(does: &'static str, call: fn(&Client) -> Future<String>) -> Deed {
    Deed { does, needs_sandbox: true, call }
}

const DEEDS: [Deed; 15] = [
    harmless("returns an error", |client| client.submit(give_up, ())),
    harmless("panics", |client| client.submit(overrun, ())),
    harmful("loops for ever", |client| client.submit(spin, ())),
    harmful("sleeps for a day", |client| client.submit(sleep, ())),
    harmful("prints endlessly", |client| client.submit(chatter, ())),
    harmful("eats memory", |client| client.submit(hoard, ())),
    harmful("recurses without end", |client| client.submit(recurse, ())),
    harmful("exits", |client| client.submit(exit, ())),
    harmful("reads a file", |client| client.submit(read_file, ())),
    harmful("writes a file", |client| client.submit(write_file, ())),
    harmful("connects", |client| client.submit(connect, ())),
    harmful("listens", |client| client.submit(listen, ())),
    harmful("reads the environment", |client| client.submit(read_environment, ())),
    harmful("starts a thread", |client| client.submit(start_thread, ())),
    harmful("starts a process", |client| client.submit(start_process, ())),
];

/// Runs tasks that loop, eat memory, print endlessly, reach for files and sockets, and shows how each of them ends, while honest calls
/// run beside them.
///
/// Runs in this process, unless told otherwise or QUICSAND_SCHEDULER and QUICSAND_TOKEN name a fleet. In this process tasks are native
/// functions, which nothing keeps in and nothing stops: only the harmless ones are run there. Try --local-cluster 2.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    run_on: RunOn,
}

#[quicsand::main]
fn main() -> ExitCode {
    quicsand_examples::finish(run(&Options::parse()))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let session = options.run_on.start()?;
    eprintln!("untrusted: running {session}");
    let client = &session.client;
    let is_sandboxed = !client.is_local();
    if !is_sandboxed {
        eprintln!("untrusted: no sandbox is around a native function, so what needs one is not run; try --local-cluster 2");
    }

    let calls = DEEDS.map(|deed| (deed.does, (is_sandboxed || !deed.needs_sandbox).then(|| (deed.call)(client))));
    let honest = client.map(collatz, 1..=HONEST);

    println!("{:<23} how it ended", "what the task does");
    for (does, call) in calls {
        let ended = call.map_or_else(|| "not run here".to_owned(), |call| ended(call.result()));
        println!("{does:<23} {ended}");
    }
    let right = (1..=HONEST).zip(client.gather(honest)?).filter(|&(start, steps)| steps == collatz(start)).count();
    println!("honest calls beside them: {right} of {HONEST} came out right");
    Ok(())
}

/// How a call ended, in a line.
fn ended(result: quicsand::Result<String>) -> String {
    let error = match result {
        Ok(said) => return format!("well: it {said}"),
        Err(quicsand::Error::Task(error)) => error,
        Err(error) => return error.to_string(),
    };
    match &error.kind {
        TaskErrorKind::Returned => format!("failed: {}", error.message),
        TaskErrorKind::Panicked => format!("panicked: {}, at {}", error.message, error.location.as_deref().unwrap_or("?")),
        TaskErrorKind::TimeLimit { limit_ms } if error.log.is_empty() => format!("stopped after {limit_ms} ms"),
        TaskErrorKind::TimeLimit { limit_ms } => {
            format!("stopped after {limit_ms} ms; of what it printed, the last {} KiB are kept", error.log.len() / 1024)
        }
        TaskErrorKind::MemoryLimit { limit, .. } => format!("stopped at {} MiB of memory", limit >> 20),
        _ => format!("stopped: {}", error.message),
    }
}
