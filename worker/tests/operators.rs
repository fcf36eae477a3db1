//! A whole fleet of processes, and the commands with which an operator looks on and manages.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use quicsand::{Client, Error, Module, Status, task};

const MODULE: Module = quicsand::embed!();
/// Whatever is waited for takes far less; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[task]
fn shout(text: String) -> usize {
    println!("{text} aloud");
    eprint!("{text} ");
    eprintln!("aside");
    text.len()
}

#[task]
fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

#[task]
fn picky(x: i64) -> i64 {
    assert!(x != 3, "no threes");
    x
}

/// `quicsand cluster`, which ends with this value.
struct Fleet {
    process: Child,
    announced: String,
}

impl Fleet {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quicsand"));
        command.args(["cluster", "--workers", "2", "--slots", "2", "--memory", "1GiB", "--announce", "--with-parent"]);
        command.args(["--log-level", "warn"]).env_remove("RUST_LOG");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let mut announced = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut announced).expect("announced");
        Self { process, announced }
    }

    /// A text of what the cluster announced.
    fn announced(&self, name: &str) -> String {
        texts(&self.announced, name).remove(0)
    }

    fn client(&self) -> Client {
        let builder = Client::builder().address(&self.announced("address")).token(&self.announced("client_token"));
        builder.module(MODULE).connect().expect("let in")
    }

    /// Runs an operator's command, which finds the scheduler by its state directory.
    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quicsand"));
        command.env_remove("QUICSAND_SCHEDULER").env_remove("QUICSAND_TOKEN").env("QUICSAND_STATE", self.announced("state"));
        command.args(arguments);
        command
    }

    /// What a command prints that succeeds.
    fn say(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// What a command complains of that fails.
    fn complaint(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).expect("text")
    }

    /// Repeats a command until what it prints is as wanted.
    fn wait_for(&self, arguments: &[&str], is_wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.say(arguments);
            if is_wanted(&said) {
                return said;
            }
            assert!(Instant::now() < deadline, "{arguments:?} goes on to say {said}");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait().expect("ended");
        assert!(status.success() || std::thread::panicking(), "{status}");
    }
}

/// The texts of all fields of that name in a JSON text; none of these tests has quotes in them.
fn texts(json: &str, name: &str) -> Vec<String> {
    let field = format!("\"{name}\":\"");
    let texts = json.split(&field).skip(1).filter_map(|rest| rest.split('"').next());
    texts.map(str::to_owned).collect()
}

#[test]
fn an_operator_sees_and_cancels() {
    let fleet = Fleet::start();
    let status = fleet.say(&["status", "--json"]);
    assert_eq!(texts(&status, "identity").len(), 2, "{status}");
    let mut names = texts(&status, "name");
    names.sort();
    assert_eq!(names, ["local-0", "local-1"]);
    let client = fleet.client();

    // What is printed.
    let shouts = client.map(shout, ["hello".to_owned(), "world".to_owned()]);
    assert_eq!(client.gather(&shouts).expect("run"), [5, 5]);
    let lines = fleet.say(&["logs"]);
    for line in ["hello aloud", "world aloud", "err  hello aside", "err  world aside"] {
        assert!(lines.lines().any(|found| found.ends_with(line)), "no `{line}` in {lines}");
    }
    let json = fleet.say(&["logs", "--json"]);
    let at = texts(&json, "text").iter().position(|text| text == "world aloud").expect("printed");
    let key = &texts(&json, "key")[at];
    let of_key = fleet.say(&["logs", key]);
    assert_eq!(of_key.lines().count(), 2, "{of_key}");
    assert!(of_key.contains("world aloud") && of_key.contains("world aside"), "{of_key}");
    let per_worker: usize = ["local-0", "local-1"].iter().map(|name| fleet.say(&["logs", name]).lines().count()).sum();
    assert_eq!(per_worker, 4);
    assert!(fleet.complaint(&["logs", "local-7"]).contains("neither a worker's number or name nor a key"));

    let mut follower = fleet.command(&["logs", "--follow", "--limit", "1"]).stdout(Stdio::piped()).spawn().expect("started");
    let mut followed = BufReader::new(follower.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert_eq!(followed.next().as_deref(), fleet.say(&["logs", "--limit", "1"]).lines().next(), "the last that is there");
    assert_eq!(client.submit(shout, "later".to_owned()).result().expect("runs"), 5);
    let later = [followed.next(), followed.next()].map(Option::unwrap_or_default);
    follower.kill().expect("it runs until it is ended");
    follower.wait().expect("ended");
    assert!(later[0].ends_with("later aloud") && later[1].ends_with("later aside"), "{later:?}");

    // What fails.
    let results = client.gather_all(client.map(picky, 0..6));
    assert!(results[3].is_err());
    let failed = fleet.say(&["tasks", "--failed"]);
    assert!(failed.contains("[3]  picky  panicked, ") && failed.contains("    no threes (at "), "{failed}");

    // What sleeps.
    let sleeper = client.submit(nap, 3_600_000);
    while sleeper.status() != Status::Processing {
        std::thread::yield_now();
    }
    let tasks = fleet.say(&["tasks", "--json"]);
    let at = texts(&tasks, "task").iter().position(|task| task == "nap").expect("listed");
    let key = &texts(&tasks, "key")[at];
    fleet.wait_for(&["status"], |status| status.contains(", 1 of 4 slots busy"));
    assert_eq!(fleet.say(&["cancel", key]), format!("{key}: cancelled 1 item\n"));
    assert!(matches!(sleeper.result(), Err(Error::Cancelled { .. })));
    assert_eq!(fleet.say(&["cancel", key]), format!("{key}: nothing is left to cancel\n"));
    fleet.wait_for(&["status"], |status| status.contains(", 0 of 4 slots busy"));
    assert!(fleet.complaint(&["cancel", "99.1"]).contains("99.1: there is no call or map 99.1"));

    // A client sees how things stand, and nothing else.
    let token = fleet.announced("client_token");
    assert!(fleet.say(&["status", "--token", &token]).contains("workers: 2"));
    assert!(fleet.complaint(&["tasks", "--token", &token]).contains("this needs an operator's"));

    drop((client, shouts, sleeper));
    fleet.wait_for(&["status"], |status| status.contains("clients: none"));
    assert!(fleet.say(&["tasks", "--failed"]).contains("no threes"), "it is remembered");
    assert_eq!(fleet.say(&["tasks"]), "there are no calls\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_clusters_workers_are_started_again_and_end_with_it() {
    let mut fleet = Fleet::start();
    let workers = children(fleet.process.id());
    assert_eq!(workers.len(), 2);
    signal("KILL", workers[0]);
    // The scheduler numbers the scheduler's peers: two workers have had 1 and 2.
    fleet.wait_for(&["status", "--json"], |status| status.contains("\"id\":3,") && texts(status, "identity").len() == 2);
    let workers = children(fleet.process.id());
    let state = fleet.announced("state");
    signal("TERM", fleet.process.id());
    assert!(fleet.process.wait().expect("ended").success());
    for worker in workers {
        assert!(!std::path::Path::new(&format!("/proc/{worker}/exe")).exists(), "{worker} is left");
    }
    assert!(!std::path::Path::new(&state).exists());
}

#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("the processes").filter_map(|entry| {
        let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let of = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()?;
        (of == parent).then_some(id)
    });
    processes.collect()
}

#[cfg(target_os = "linux")]
fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args([format!("-{name}"), process.to_string()]).status().expect("run");
    assert!(status.success());
}
