//! What `deploy/` decides by itself: how many workers a queue asks for. The scheduler and Kubernetes are made up, by two small scripts in
//! the place of `quicsand` and `curl`.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use quicsand_tests::book::directory;

/// Says what the round's line of `statuses` says.
const QUICSAND: &str = r#"#!/bin/sh
round=$(($(cat "$PLACE/round" 2>/dev/null || echo 0) + 1))
echo $round >"$PLACE/round"
line=$(sed -n "${round}p" "$PLACE/statuses")
[ "$line" != down ] || exit 1
echo "{\"calls\":{\"queued\":${line% *},\"processing\":${line#* }}}"
"#;
/// A scale that can be read and changed.
const CURL: &str = r#"#!/bin/sh
for word in "$@"; do
    case $word in
    *replicas*) echo "$word" | tr -dc 0-9 >"$PLACE/replicas" ;;
    esac
done
case "$*" in
*"Bearer secret"*"/apis/apps/v1/namespaces/here/deployments/quicsand-worker/scale") ;;
*) exit 22 ;;
esac
echo "{\"spec\":{\"replicas\":$(cat "$PLACE/replicas")}}"
"#;

/// Plays rounds, each with queued and running items, from `before` workers on; gives how many there are after them.
fn scale(before: u32, rounds: &[&str]) -> u32 {
    let place = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a program");
    };
    write("quicsand", QUICSAND);
    write("curl", CURL);
    write("statuses", &rounds.join("\n"));
    write("replicas", &before.to_string());
    write("namespace", "here");
    write("token", "secret");
    let path = format!("{}:{}", place.path().display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .arg(directory().with_file_name("deploy").join("kubernetes/scale.sh"))
        .env("PATH", path)
        .env("PLACE", place.path())
        .env("SCALE_ACCOUNT", place.path())
        .envs([("SCALE_EVERY", "0"), ("SCALE_MIN", "1"), ("SCALE_MAX", "10"), ("SCALE_ITEMS", "4"), ("SCALE_IDLE", "3")])
        .env("SCALE_ROUNDS", rounds.len().to_string())
        .output()
        .expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(place.path().join("replicas")).expect("a number").trim().parse().expect("a number")
}

#[test]
fn workers_follow_the_queue() {
    let has_jq =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| Path::new(&dir).join("jq").is_file()));
    if !has_jq {
        println!("SKIPPED: there is no jq");
        return;
    }
    let check = |before: u32, rounds: &[&str], after: u32| assert_eq!(scale(before, rounds), after, "{before} {rounds:?}");
    // Up at once, as far as allowed; never down while there is work.
    check(1, &["9 0"], 3);
    check(1, &["5 4"], 3);
    check(2, &["1000000 0"], 10);
    check(5, &["3 1"], 5);
    // Down after three idle rounds in a row.
    check(5, &["0 0", "0 0"], 5);
    check(5, &["0 0", "0 0", "0 0"], 1);
    check(5, &["0 0", "0 0", "0 1", "0 0", "0 0"], 5);
    // To the least at least, and back within what is allowed.
    check(0, &["0 0"], 1);
    check(20, &["1 0"], 10);
    // A scheduler that does not answer changes nothing.
    check(4, &["down", "down", "down", "down"], 4);
}
