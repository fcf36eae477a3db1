//! What a worker's owner allows: grants and caps, all the way from a worker's settings to a program's error.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use quicsand::{Client, ConnectError, Error, TaskErrorKind};
use quicsand_worker::LocalCluster;

use crate::{MODULE, fleet, tasks::*};

/// Whoever waits so long has found a hang.
const LONG: Duration = Duration::from_secs(60);

/// A cluster of one worker with these settings, and a client of it.
fn owned(settings: &[(&str, &str)]) -> (Client, LocalCluster) {
    let builder = LocalCluster::builder().workers(1).module(MODULE);
    let builder = settings.iter().fold(builder, |builder, (name, value)| builder.worker_setting(*name, *value));
    let cluster = builder.start().expect("the cluster starts");
    (cluster.client().expect("is let in"), cluster)
}

fn failure<T: std::fmt::Debug>(result: quicsand::Result<T>) -> std::sync::Arc<quicsand::TaskError> {
    match result {
        Err(Error::Task(error)) => error,
        other => panic!("expected a task's error, got {other:?}"),
    }
}

#[test]
fn a_task_reads_a_granted_directory_and_no_other() {
    let root = tempfile::tempdir().expect("a directory");
    let at = |name: &str| root.path().join(name).display().to_string();
    std::fs::create_dir_all(at("data/inner")).expect("a directory");
    std::fs::write(at("data/table"), "1 2 3").expect("a file");
    std::fs::write(at("data/inner/deep"), "deep").expect("a file");
    std::fs::write(at("secret"), "secret").expect("a file");
    #[cfg(unix)]
    std::os::unix::fs::symlink("../secret", at("data/link")).expect("a link");

    let grant = format!("{}=/data", at("data"));
    let (client, _cluster) = owned(&[("allow-dir", grant.as_str())]);
    let read = |client: &Client, path: &str| client.submit(read_text, path.to_owned()).result();
    assert_eq!(read(&client, "/data/table").expect("is granted"), "1 2 3");
    assert_eq!(read(&client, "/data/inner/deep").expect("is granted"), "deep");
    let listed = client.submit(list_dir, "/data/inner".to_owned()).result().expect("is granted");
    assert_eq!(listed, [("deep".to_owned(), 4)]);
    for path in ["/data/link", "/data/../secret", "/data/none", "/etc/passwd", "secret", at("secret").as_str()] {
        if cfg!(unix) || path != "/data/link" {
            assert_eq!(failure(read(&client, path)).kind, TaskErrorKind::Returned, "{path}");
        }
    }
    for path in ["/data/table", "/data/new"] {
        let error = failure(client.submit(write_text, (path.to_owned(), "x".to_owned())).result());
        assert!(error.message.contains("Read-only file system"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(at("data/table")).expect("is still there"), "1 2 3");
    assert!(!root.path().join("data/new").exists());

    assert_eq!(failure(read(&fleet(), "/data/table")).kind, TaskErrorKind::Returned, "nothing is granted by default");
    assert_eq!(read(&Client::local(), &at("secret")).expect("a program may read"), "secret");
}

#[test]
fn variables_and_the_clock_are_the_owners() {
    let (client, _cluster) = owned(&[("env", "COLOUR=blue"), ("clock", "fixed=2024-02-29T12:00:00Z")]);
    let see = |client: &Client, name: &str| client.submit(env_variable, name.to_owned()).result().expect("runs");
    assert_eq!((see(&client, "COLOUR"), see(&client, "HOME")), (Some("blue".to_owned()), None));
    assert_eq!(see(&fleet(), "COLOUR"), None);
    assert_eq!(client.submit(now_s, ()).result().expect("runs"), 1_709_208_000);
    assert!(fleet().submit(now_s, ()).result().expect("runs") > 1_709_208_000);
}

#[test]
fn caps_and_wishes_are_both_in_the_error() {
    let (client, _cluster) =
        owned(&[("task-memory", "16MiB"), ("timeout", "50ms"), ("result-limit", "1KiB"), ("log-limit", "16")]);
    let error = failure(client.submit(hog, 20).result());
    assert!(matches!(error.kind, TaskErrorKind::MemoryLimit { limit, .. } if limit == 16 << 20), "{error}");
    let words = error.to_string();
    assert!(words.contains("the worker's owner allows 16MiB (--task-memory), the task asked for 32MiB"), "{words}");
    let error = failure(client.submit(nap, 60_000).result());
    assert_eq!(error.kind, TaskErrorKind::TimeLimit { limit_ms: 50 });
    assert!(error.to_string().contains("the worker's owner allows 50ms (--timeout), the task asked for 100ms"), "{error}");
    let error = failure(client.submit(repeat, (1, 2000)).result());
    assert_eq!(error.kind, TaskErrorKind::OutputLimit { limit: 1024 });
    assert!(error.to_string().contains("the worker's owner allows 1KiB (--result-limit)"), "{error}");
    let error = failure(client.submit(panics_at, (123_456_789, 123_456_789)).result());
    assert!(error.log.contains("before this were not kept") && error.log.len() < 200, "{error}");
}

#[test]
fn a_module_that_is_too_large_for_the_owner_is_refused() {
    let (client, _cluster) = owned(&[("module-limit", "10KiB")]);
    let error = failure(client.submit(inc, 1).result());
    assert_eq!(error.kind, TaskErrorKind::Module);
    assert!(error.to_string().contains("the worker's owner allows 10KiB (--module-limit)"), "{error}");
}

/// Files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| std::fs::read_dir(dir).expect("is there").map(|entry| entry.expect("an entry").path());
    entries(dir).flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

const MIB: usize = 1 << 20;

#[test]
fn results_beyond_memory_go_to_disk_and_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().display().to_string();
    let settings = [("hold-limit", "4MiB"), ("spill-dir", &*place), ("spill-limit", "64MiB")];
    let (client, cluster) = owned(&settings);
    let results = client.map(repeat, (0..16).map(|byte| (byte, MIB)));
    let lengths: Vec<_> = results.iter().map(|result| client.submit(length, &result)).collect();
    assert_eq!(client.gather(lengths).expect("inputs come back"), [MIB; 16]);
    assert!(files(dir.path()).len() >= 8, "{:?}", files(dir.path()));
    for (byte, result) in (0..16).zip(client.gather(&results).expect("values come back")) {
        assert!(result == vec![byte; MIB], "{byte}");
    }
    drop(results);
    let deadline = Instant::now() + LONG;
    while !files(dir.path()).is_empty() {
        assert!(Instant::now() < deadline, "released values leave files: {:?}", files(dir.path()));
        std::thread::sleep(Duration::from_millis(5));
    }
    let again = client.gather(client.map(repeat, (0..8).map(|byte| (byte, MIB)))).expect("there is room again");
    assert_eq!(again.len(), 8);
    drop((client, cluster));
    assert_eq!(std::fs::read_dir(dir.path()).expect("is there").count(), 0, "a worker that leaves leaves nothing");
}

#[test]
fn damaged_files_are_lost_results() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().display().to_string();
    let (client, _cluster) = owned(&[("hold-limit", "2MiB"), ("spill-dir", &place)]);
    let results = client.map(repeat, (0..8).map(|byte| (byte, MIB)));
    let last = |byte: u8| client.submit(length, results.get(usize::from(byte)).expect("an item"));
    assert_eq!(client.gather((0..8).map(last).collect::<Vec<_>>()).expect("runs"), [MIB; 8]);
    let deadline = Instant::now() + LONG;
    while files(dir.path()).len() < 4 {
        assert!(Instant::now() < deadline, "nothing is written");
        std::thread::sleep(Duration::from_millis(5));
    }
    files(dir.path()).iter().for_each(|path| std::fs::write(path, "damage").expect("writes"));
    assert_eq!(client.gather((0..8).map(last).collect::<Vec<_>>()).expect("computed again"), [MIB; 8]);
}

#[test]
fn what_fits_nowhere_is_an_error_that_names_the_limits() {
    let (client, _cluster) = owned(&[("hold-limit", "2MiB"), ("spill-limit", "2MiB")]);
    let results = client.map(repeat, (0..8).map(|byte| (byte, MIB)));
    let ends = client.gather_all(&results);
    let refused: Vec<_> = ends.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty());
    for error in refused {
        let Error::Task(error) = error else { panic!("{error}") };
        assert_eq!(error.kind, TaskErrorKind::Worker);
        let limits = "its owner allows 2MiB in memory (--hold-limit) and 2MiB on disk (--spill-limit)";
        assert!(error.message.contains(limits), "{error}");
    }
}

#[test]
fn settings_that_cannot_be_are_said() {
    let refused = |name: &str, value: &str| {
        let error = LocalCluster::builder().worker_setting(name, value).start().expect_err("cannot be");
        match error {
            ConnectError::Setting { .. } | ConnectError::Start { .. } => error.to_string(),
            other => panic!("{other}"),
        }
    };
    assert!(refused("colour", "blue").contains("the worker setting `colour`: there is no such setting"));
    assert!(refused("task-memory", "lots").contains("`lots` is no size"));
    assert!(refused("allow-dir", "/no/where").contains("the directory /no/where cannot be granted"));
    assert!(refused("allow-env", "QUICSAND_TOKEN").contains("it lets its bearer into the cluster"));
}
