//! Nuclei are found where SciPy finds them, in-process and sandboxed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use quicsand::Client;
use quicsand_examples::{
    nuclei::{self, Found},
    stack::Stack,
    synthetic,
};
use quicsand_worker::LocalCluster;

/// A row of a table: smoothed maximum, foreground pixels, regions.
type Row = (f64, u32, u32);

fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there", path.display());
    None
}

fn find_both_ways(stack: &Stack) -> [Vec<Found>; 2] {
    let find = |client: &Client| client.gather(nuclei::find(client, stack.clone())).expect("every plane is segmented");
    let native = find(&Client::local());
    let cluster = LocalCluster::builder().workers(2).module(quicsand::embed!()).start().expect("the cluster starts");
    let sandboxed = find(&cluster.client().expect("the cluster lets its client in"));
    [native, sandboxed]
}

fn rows(table: &str) -> Vec<Row> {
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("plane,max_smoothed,foreground,labels"));
    let rows = lines.enumerate().map(|(at, line)| {
        let [plane, max, foreground, labels] = line.split(',').collect::<Vec<_>>()[..] else { panic!("four columns: {line}") };
        assert_eq!(plane.parse(), Ok(at), "{line}");
        let count = |text: &str| text.parse().expect("a count");
        (max.parse().expect("a number"), count(foreground), count(labels))
    });
    rows.collect()
}

fn assert_equal(found: &[Row], expected: &[Row], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (plane, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!((found.1, found.2), (expected.1, expected.2), "foreground and regions of plane {plane}");
        assert!((found.0 - expected.0).abs() <= tolerance * expected.0.abs(), "maximum of plane {plane}: {found:?} {expected:?}");
    }
}

fn row(found: &Found) -> Row {
    (found.max_smoothed, found.foreground, found.regions)
}

#[test]
fn real_nuclei_are_those_of_scipy_both_ways() {
    let (Some(stack), Some(table)) = (shared_data("nuclei.tif"), shared_data("nuclei.expected.csv")) else { return };
    let expected = rows(&fs::read_to_string(table).expect("the table is readable"));
    let [native, sandboxed] = find_both_ways(&Stack::read(&stack).expect("a grey stack"));
    let [native_rows, sandboxed_rows] = [&native, &sandboxed].map(|found| found.iter().map(row).collect::<Vec<_>>());
    assert_equal(&native_rows, &expected, 1e-6);
    assert_equal(&sandboxed_rows, &native_rows, 1e-9);
    assert!(native.iter().zip(&sandboxed).all(|(native, sandboxed)| native.labels == sandboxed.labels), "labels differ");
}

#[test]
fn made_up_nuclei_are_the_same_both_ways() {
    let [native, sandboxed] = find_both_ways(&synthetic::stack());
    assert!(native.iter().all(|found| found.regions > 0), "a plane without nuclei");
    assert_equal(&sandboxed.iter().map(row).collect::<Vec<_>>(), &native.iter().map(row).collect::<Vec<_>>(), 1e-9);
}

fn zstack(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zstack"));
    command.args(arguments).env_remove("QUICSAND_SCHEDULER").output().expect("starts")
}

#[test]
fn the_program_writes_the_same_table_and_a_picture_both_ways() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |name: &str, arguments: &[&str]| {
        let [table, picture] = ["csv", "png"].map(|kind| dir.path().join(format!("{name}.{kind}")));
        let [table_name, picture_name] = [&table, &picture].map(|path| path.to_str().expect("UTF-8"));
        let output = zstack(&[arguments, &["--csv", table_name, "--png", picture_name]].concat());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let picture = fs::read(picture).expect("the picture");
        assert!(picture.starts_with(b"\x89PNG"), "{name}: no PNG");
        (rows(&fs::read_to_string(table).expect("the table")), picture)
    };
    let (native, native_picture) = run("native", &[]);
    let (sandboxed, sandboxed_picture) = run("sandboxed", &["--local-cluster", "2"]);
    assert_equal(&sandboxed, &native, 1e-9);
    assert!(native_picture == sandboxed_picture, "the pictures differ");
}

#[test]
fn what_cannot_be_read_or_written_is_a_sentence_and_exit_code_1() {
    let check = |arguments: &[&str], expected: &str| {
        let output = zstack(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(last.starts_with("error: ") && last.contains(expected), "{arguments:?}: {stderr}");
    };
    check(&["no/such.tif"], "cannot open no/such.tif");
    check(&[env!("CARGO_BIN_EXE_zstack")], "cannot be read as a TIFF image");
    check(&["--csv", "no/such/table.csv"], "cannot write no/such/table.csv");
    check(&["--png", "no/such/picture.png"], "cannot write no/such/picture.png");
}
