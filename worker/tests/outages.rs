//! Worker processes that are killed, stopped and cut off while calls run, and schedulers that are killed and started again on their journal. What is waited for is a condition, never a time.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use quicsand::{Client, Future, Module, TaskErrorKind, task, wire::Role};
use quicsand_worker::LocalCluster;

const MODULE: Module = quicsand::embed!();
/// Whatever is waited for takes far less.
const PATIENCE: Duration = Duration::from_secs(60);

#[task]
fn inc(x: i64) -> i64 {
    x + 1
}

#[task]
fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

/// A large value that tells when it was computed, in nanoseconds.
#[task]
fn stamp(len: usize) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let mut bytes = vec![0; len];
    bytes[..8].copy_from_slice(&now.to_le_bytes());
    bytes
}

#[task]
fn read_stamp(bytes: Vec<u8>) -> Vec<u8> {
    bytes[..8].to_vec()
}

/// A worker that is a process of the command.
struct WorkerProcess(Child);

impl WorkerProcess {
    fn start(cluster: &LocalCluster) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quicsand"));
        command.args(["worker", cluster.address(), "--no-config", "--with-parent", "--slots", "1", "--memory", "1GiB"]);
        command.env("QUICSAND_TOKEN", cluster.token(Role::Worker));
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the command is there"))
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("there is a `kill`").success());
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A scheduler in this process, without workers.
fn scheduler(settings: &[(&str, &str)]) -> LocalCluster {
    let builder = LocalCluster::builder().workers(0).module(MODULE);
    let builder = settings.iter().fold(builder, |builder, (name, value)| builder.scheduler_setting(*name, *value));
    builder.start().expect("a scheduler")
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the scheduler knows of no worker, as a call says that only waits for one.
fn wait_for_nobody<T>(call: &Future<T>) {
    wait_until("the worker's absence", || call.why().is_some_and(|why| why.contains("no worker is here")));
}

#[test]
#[cfg_attr(not(unix), ignore = "signals are sent")]
fn calls_of_a_killed_worker_run_elsewhere() {
    let cluster = scheduler(&[]);
    let (killed, _other) = (WorkerProcess::start(&cluster), WorkerProcess::start(&cluster));
    let client = cluster.client().expect("a client");
    let naps = client.map(nap, (0..60).map(|_| 20));
    naps.get(0).expect("there").result().expect("it runs");
    killed.signal("KILL");
    assert_eq!(client.gather(&naps).expect("all run"), vec![20; 60]);
}

#[test]
#[cfg_attr(not(unix), ignore = "signals are sent")]
fn calls_of_a_frozen_worker_run_elsewhere_and_it_serves_again() {
    let cluster = scheduler(&[]);
    let frozen = WorkerProcess::start(&cluster);
    let client = cluster.client().expect("a client");
    assert_eq!(client.submit(inc, 1).result().expect("it serves"), 2);
    let naps = client.map(nap, (0..30).map(|_| 20));
    frozen.signal("STOP");
    let other = WorkerProcess::start(&cluster);
    assert_eq!(client.gather(&naps).expect("all run on the other one"), vec![20; 30]);
    drop(other);
    frozen.signal("CONT");
    assert_eq!(client.submit(inc, 2).result().expect("it serves again"), 3);
}

#[test]
#[cfg_attr(not(unix), ignore = "signals are sent")]
fn results_outlive_a_short_cut() {
    let cluster = scheduler(&[("lease", "500ms"), ("grace", "60s")]);
    let worker = WorkerProcess::start(&cluster);
    let client = cluster.client().expect("a client");
    let large = client.submit(stamp, 200_000);
    let before = client.submit(read_stamp, &large).result().expect("it is computed");
    worker.signal("STOP");
    let next = client.submit(inc, 1);
    wait_for_nobody(&next);
    worker.signal("CONT");
    assert_eq!(next.result().expect("it is back"), 2);
    assert_eq!(client.submit(read_stamp, &large).result().expect("it is there"), before, "it was kept, not computed again");
    assert_eq!(large.result().expect("it can be fetched")[..8], before);
}

#[test]
#[cfg_attr(not(unix), ignore = "signals are sent")]
fn results_of_a_killed_worker_are_computed_again() {
    let cluster = scheduler(&[("grace", "60s")]);
    let worker = WorkerProcess::start(&cluster);
    let client = cluster.client().expect("a client");
    let large = client.submit(stamp, 200_000);
    let before = client.submit(read_stamp, &large).result().expect("it is computed");
    worker.signal("KILL");
    let _other = WorkerProcess::start(&cluster);
    let after = client.submit(read_stamp, &large).result().expect("its closed port tells that it is not to be awaited");
    assert_ne!(after, before);
}

#[test]
#[cfg_attr(not(unix), ignore = "signals are sent")]
fn a_call_that_its_workers_die_of_is_poisonous() {
    let cluster = scheduler(&[("max-deaths", "2")]);
    let client: Client = cluster.client().expect("a client");
    let call = client.submit(nap, 3_600_000);
    for _ in 0..20 {
        let worker = WorkerProcess::start(&cluster);
        wait_until("the call's run", || call.is_done() || call.status() == quicsand::Status::Processing);
        // It has begun by then, as a rule. A worker that dies before it is not blamed on the call, and one more dies.
        std::thread::sleep(Duration::from_millis(300));
        worker.signal("KILL");
        wait_until("the worker's death", || call.is_done() || call.why().is_some());
        if call.is_done() {
            break;
        }
    }
    let error = call.result().expect_err("it is poisonous");
    let quicsand::Error::Task(error) = error else { panic!("{error}") };
    assert_eq!(error.kind, TaskErrorKind::Poisonous { deaths: 2 }, "{error}");
    assert_eq!(error.message.matches("its process died").count(), 2, "{error}");
}

/// A scheduler that is a process of the command, with a journal.
struct SchedulerProcess {
    child: Child,
    directory: std::path::PathBuf,
    address: String,
    tokens: [String; 2],
}

impl SchedulerProcess {
    fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("quicsand-restarts-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (child, address, tokens) = Self::spawn(&directory, "127.0.0.1:0");
        Self { child, directory, address, tokens }
    }

    fn spawn(directory: &std::path::Path, listen: &str) -> (Child, String, [String; 2]) {
        use std::io::BufRead;
        let mut command = Command::new(env!("CARGO_BIN_EXE_quicsand"));
        command.args(["scheduler", "--announce", "--with-parent", "--listen", listen]);
        command.arg("--state").arg(directory.join("state")).arg("--journal").arg(directory.join("journal"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command is there");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it announces itself");
        let text = |name: &str| {
            let from = line.find(&format!("\"{name}\":\"")).expect("announced") + name.len() + 4;
            line[from..].split('"').next().expect("its end").to_owned()
        };
        (child, text("address"), [text("client_token"), text("worker_token")])
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Kills it without warning, and starts it again where it was.
    fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(&self.directory, &self.address).0;
    }
}

impl Drop for SchedulerProcess {
    fn drop(&mut self) {
        // Errors mean that it has ended already, or that nothing is left to remove.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Clients and workers find the scheduler again, and everything ends as if nothing had happened.
#[test]
fn everything_outlives_a_killed_scheduler() {
    let mut scheduler = SchedulerProcess::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_quicsand"));
    command.args(["worker", &scheduler.address, "--no-config", "--with-parent", "--slots", "2", "--memory", "1GiB"]);
    command.env("QUICSAND_TOKEN", &scheduler.tokens[1]);
    let _worker = WorkerProcess(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the command is there"));
    let client = || {
        let builder = Client::builder().address(&scheduler.address).token(&scheduler.tokens[0]).module(MODULE);
        builder.reconnect_for(PATIENCE).connect().expect("a client")
    };
    let (first, second) = (client(), client());
    let stamped = first.submit(stamp, 200_000);
    let before = first.submit(read_stamp, &stamped).result().expect("it is computed");
    let mut data = vec![7_u8; 300_000];
    data[..8].copy_from_slice(b"scatters");
    let data = first.scatter(data);
    assert_eq!(first.submit(read_stamp, &data).result().expect("it is there"), b"scatters");
    let done = first.map(inc, 0..1000);
    assert_eq!(first.gather(&done).expect("all run").len(), 1000);
    let published = first.submit(inc, 41);
    first.publish("answer", &published).expect("a name");
    let taken = second.published::<i64>("answer").expect("it is there");
    for round in 0..3_u64 {
        let naps = first.map(nap, (0..100).map(|i| 5 + (i + round) % 10));
        let others = second.map(inc, 0..500);
        naps.get(0).expect("there").result().expect("it runs");
        scheduler.restart();
        let later = first.submit(read_stamp, &data);
        assert_eq!(first.gather(&naps).expect("all run"), (0..100).map(|i| 5 + (i + round) % 10).collect::<Vec<_>>());
        assert_eq!(second.gather(&others).expect("all run"), (1..=500).collect::<Vec<_>>());
        assert_eq!(later.result().expect("it was kept"), b"scatters");
        assert_eq!(first.submit(read_stamp, &stamped).result().expect("it was kept"), before, "it was not computed again");
        let again = second.published::<i64>("answer").expect("the name is there");
        assert_eq!(again.result().expect("it is told"), 42);
    }
    assert_eq!(taken.result().expect("it is told"), 42);
    assert_eq!(first.gather(&done).expect("all are there"), (1..=1000).collect::<Vec<_>>());
    first.unpublish("answer");
}
