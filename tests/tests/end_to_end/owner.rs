//! What a worker's owner allows: grants and caps, all the way from a worker's settings to a program's error.

use quicsand::{Client, ConnectError, Error, TaskErrorKind};
use quicsand_worker::LocalCluster;

use crate::{MODULE, fleet, tasks::*};

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
