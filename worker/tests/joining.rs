//! Joining as people do it: the command's processes, their tokens, what they keep, and how they end.

#![cfg(unix)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The command, with a state directory of the test's own and nothing else from outside.
fn quicsand(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quicsand"));
    command.args(arguments).env("QUICSAND_STATE", state).env("XDG_CACHE_HOME", state.join("cache")).env("RUST_LOG", "warn");
    for name in ["QUICSAND_SCHEDULER", "QUICSAND_TOKEN", "QUICSAND_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command
}

fn run(state: &Path, arguments: &[&str]) -> Output {
    quicsand(state, arguments).stdin(Stdio::null()).output().expect("it runs")
}

/// What it prints, if it ends well.
fn stdout(state: &Path, arguments: &[&str]) -> String {
    let output = run(state, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What it complains of, if it ends badly.
fn complaint(state: &Path, arguments: &[&str]) -> String {
    let output = run(state, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// A process that has announced itself, and ends with its test.
struct Running {
    child: Child,
    announced: Value,
}

impl Running {
    fn start(state: &Path, arguments: &[&str]) -> Self {
        let command = &mut quicsand(state, arguments);
        let command = command.args(["--announce", "--with-parent"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let mut running = Self { child, announced: Value::Null };
        if line.is_empty() {
            let (code, stderr) = running.end();
            panic!("{arguments:?} ended with {code:?}: {stderr}");
        }
        running.announced = serde_json::from_str(&line).expect("an announcement");
        running
    }

    fn text(&self, name: &str) -> &str {
        self.announced[name].as_str().expect("announced")
    }

    /// Waits for its end: exit code, and what it complained of.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("read");
        (self.child.wait().expect("ended").code(), stderr)
    }

    /// Has it leave in good order.
    fn leave(mut self) {
        drop(self.child.stdin.take());
        assert_eq!(self.end().0, Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn scheduler(state: &Path) -> Running {
    Running::start(state, &["scheduler", "--listen", "127.0.0.1:0"])
}

fn tokens(state: &Path) -> Vec<Value> {
    serde_json::from_str(&stdout(state, &["token", "list", "--json"])).expect("JSON")
}

fn state() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_state_directory_makes_one_cluster_for_one_scheduler() {
    let state = state();
    let home = state.path().join("new");
    let first = scheduler(&home);
    let error = complaint(&home, &["scheduler", "--listen", "127.0.0.1:0"]);
    assert!(error.contains("another scheduler uses this directory"), "{error}");
    let (worker, client) = (first.text("worker_token").to_owned(), first.text("client_token").to_owned());
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&home), mode(&home.join("ca-key.pem")), mode(&home.join("operator.token"))), (0o700, 0o600, 0o600));
    first.leave();
    let second = scheduler(&home);
    assert_eq!((second.text("worker_token"), second.text("client_token")), (worker.as_str(), client.as_str()));
    let other = Running::start(&home, &["scheduler", "--ephemeral", "--listen", "127.0.0.1:0"]);
    assert_ne!(other.text("worker_token"), worker);
    second.leave();
    fs::write(home.join("members"), "nonsense").expect("written");
    let error = complaint(&home, &["scheduler", "--listen", "127.0.0.1:0"]);
    assert!(error.contains("members, which says who may join: it is damaged"), "{error}");
}

#[test]
fn a_token_for_one_use_is_enough_for_a_worker_that_is_started_twice() {
    let state = state();
    let scheduler = scheduler(state.path());
    let address = scheduler.text("address");
    let token = stdout(state.path(), &["token", "create", "--role", "worker", "--once", "--expires", "1h", "--note", "one"]);
    assert!(token.starts_with("qs1-") && token.lines().count() == 1, "{token}");
    let worker = ["worker", address, "--slots", "1", "--token", token.trim()];
    Running::start(state.path(), &worker).leave();
    let file = state.path().join("token");
    fs::write(&file, &token).expect("written");
    let from_file = ["worker", address, "--slots", "1", "--token-file", file.to_str().expect("text")];
    Running::start(state.path(), &from_file).leave();
    Running::start(state.path(), &["worker", address, "--slots", "1"]).leave();
    let listed = tokens(state.path()).into_iter().find(|token| token["note"] == "one").expect("listed");
    assert_eq!((&listed["state"], &listed["used"], &listed["uses_left"]), (&"used".into(), &1.into(), &0.into()));
    let elsewhere = self::state();
    let error = complaint(elsewhere.path(), &worker);
    assert!(error.contains("it was good for one use and has been used"), "{error}");
    let error = complaint(elsewhere.path(), &["worker", address]);
    assert!(error.contains("no earlier run has left a certificate"), "{error}");
    assert!(!elsewhere.path().join("credentials").exists());
}

#[test]
fn a_revoked_token_lets_nobody_in_any_more() {
    let state = state();
    let scheduler = scheduler(state.path());
    let token = stdout(state.path(), &["token", "create", "--role", "client", "--note", "guest"]);
    let table = stdout(state.path(), &["token", "list"]);
    let line = table.lines().find(|line| line.ends_with("guest")).expect("listed");
    let id = line.split(' ').next().expect("an id");
    stdout(state.path(), &["status", "--scheduler", scheduler.text("address"), "--token", token.trim()]);
    stdout(state.path(), &["token", "revoke", id]);
    let error = complaint(state.path(), &["status", "--scheduler", scheduler.text("address"), "--token", token.trim()]);
    assert!(error.contains("it was revoked"), "{error}");
    let error = complaint(state.path(), &["token", "revoke", "0123456789abcdef"]);
    assert!(error.contains("there is no token 0123456789abcdef"), "{error}");
}

#[test]
fn a_revoked_worker_ends_and_stays_away() {
    let state = state();
    let scheduler = scheduler(state.path());
    let worker = ["worker", scheduler.text("address"), "--slots", "1", "--token", scheduler.text("worker_token")];
    let mut running = Running::start(state.path(), &worker);
    stdout(state.path(), &["worker", "revoke", &running.announced["worker"].to_string()]);
    let (code, error) = running.end();
    assert_eq!(code, Some(1));
    assert!(error.contains("an operator revoked"), "{error}");
    let error = complaint(state.path(), &worker);
    assert!(error.contains("an operator revoked this worker's certificate"), "{error}");
    let token = stdout(state.path(), &["token", "create", "--role", "worker"]);
    Running::start(state.path(), &["worker", scheduler.text("address"), "--slots", "1", "--token", token.trim()]).leave();
}
