//! The quick start says the same in-process and sandboxed.

use std::process::Command;

fn quickstart(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let output = command.args(arguments).env_remove("QUICSAND_SCHEDULER").output().expect("starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    assert!(stderr.contains("running"), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn in_process_and_sandboxed_say_the_same() {
    let native = quickstart(&[]);
    assert!(native.contains("[1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46]"), "{native}");
    assert!(native.contains("16 -> 8 -> 4 -> 2 -> 1"), "{native}");
    assert!(native.contains("total: 376"), "{native}");
    assert_eq!(quickstart(&["--local-cluster", "1"]), native);
    assert_eq!(quickstart(&["--local-cluster", "2"]), native);
}

#[test]
fn what_cannot_be_is_a_sentence_and_exit_code_1() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let output = command.env("QUICSAND_SCHEDULER", "nowhere").env("QUICSAND_TOKEN", "x").output().expect("starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.trim_end().lines().count() == 1, "{stderr}");
}
