//! Each program comes to the same in-process and sandboxed, and says what is wrong with what it is given.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

const SWEEP: &str = env!("CARGO_BIN_EXE_sweep");
const BILLION: &str = env!("CARGO_BIN_EXE_billion");
const WORDCOUNT: &str = env!("CARGO_BIN_EXE_wordcount");
const MANDELBROT: &str = env!("CARGO_BIN_EXE_mandelbrot");
const UNTRUSTED: &str = env!("CARGO_BIN_EXE_untrusted");

const HARBOUR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/harbour.txt");

/// Where a program runs its calls.
const WAYS: [&[&str]; 2] = [&[], &["--local-cluster", "2"]];

fn start(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("QUICSAND_SCHEDULER").output().expect("starts")
}

/// What it prints, when all goes well.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = start(program, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Both ways, in-process first.
fn said_both_ways(program: &str, arguments: &[&str]) -> [String; 2] {
    WAYS.map(|way| said(program, &[arguments, way].concat()))
}

/// That it ends with `code` and an error that contains `expected`.
fn refuses(program: &str, arguments: &[&str], code: i32, expected: &str) {
    let output = start(program, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    let error = stderr.split_once("error: ").map_or("", |(_, error)| error);
    assert!(error.contains(expected), "{arguments:?}: {stderr}");
}

fn name(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_sweep_has_the_same_table_and_plot_both_ways() {
    let dir = tempfile::tempdir().expect("a directory");
    let samples = dir.path().join("samples.csv");
    let rows: String = (0..60).map(|at| format!("{},{},{}\n", at % 7, at * at % 11, at % 7 * 3 + at * at % 11)).collect();
    fs::write(&samples, format!("a,b,y\n{rows}")).expect("written");
    let file: &[&str] = &[name(&samples), "--neighbours", "1,2,4,1000"];

    for arguments in [&[][..], file] {
        let [native, sandboxed] = WAYS.map(|way| {
            let [csv, svg] = ["csv", "svg"].map(|kind| dir.path().join(format!("out.{kind}")));
            let out = ["--repeats", "3", "--csv", name(&csv), "--svg", name(&svg)];
            let table = said(SWEEP, &[arguments, &out, way].concat());
            (table, numbers(&csv), fs::read_to_string(&svg).expect("the plot"))
        });
        assert_eq!(sandboxed.0, native.0);
        assert_eq!(sandboxed.1.len(), native.1.len());
        for (sandboxed, native) in sandboxed.1.iter().zip(&native.1) {
            assert!((sandboxed - native).abs() <= 1e-9 * native.abs(), "{sandboxed} {native}");
        }
        assert!(native.2.starts_with("<svg") && native.2.contains("root mean squared error"), "{}", native.2);
        assert_eq!(native.0.matches("least").count(), 1, "{}", native.0);
    }
}

/// The numbers of a table with headings.
fn numbers(csv: &Path) -> Vec<f64> {
    let text = fs::read_to_string(csv).expect("the table");
    text.lines().skip(1).flat_map(|line| line.split(',')).map(|field| field.parse().expect("a number")).collect()
}

#[test]
fn a_sweep_finds_what_is_there_to_find() {
    let dir = tempfile::tempdir().expect("a directory");
    let [csv, svg] = ["csv", "svg"].map(|kind| dir.path().join(format!("out.{kind}")));
    said(SWEEP, &["--csv", name(&csv), "--svg", name(&svg), "--neighbours", "1,8,200"]);
    let [_, one, _, _, eight, _, _, many, _] = numbers(&csv)[..] else { panic!("three rows") };
    // The noise alone makes an error of 1. One neighbour adds its own noise, too many blur the function.
    assert!(1.0 < eight && eight < one && eight < many, "{one} {eight} {many}");
}

#[test]
fn a_sweep_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let few = dir.path().join("few.csv");
    fs::write(&few, "1,2\n3,4\n").expect("written");
    refuses(SWEEP, &["no/such.csv"], 1, "cannot read no/such.csv");
    refuses(SWEEP, &[name(&few)], 1, "2 samples are too few");
    refuses(SWEEP, &["--repeats", "2", "--svg", "no/such/plot.svg"], 1, "cannot write no/such/plot.svg");
    refuses(SWEEP, &["--neighbours", "0"], 2, "0");
    refuses(SWEEP, &["--repeats", "1"], 2, "1");
}

#[test]
fn a_billion_adds_up_both_ways() {
    for said in said_both_ways(BILLION, &["--n", "100000"]) {
        assert!(said.contains("100000 items, and their sum is 5000050000"), "{said}");
        assert!(said.contains("items a second"), "{said}");
        assert_eq!(said.contains("peak memory of this process: not known"), !cfg!(target_os = "linux"), "{said}");
    }
    assert!(said(BILLION, &["--n", "1"]).contains("1 items, and their sum is 1"));
    refuses(BILLION, &["--n", "0"], 2, "0");
    refuses(BILLION, &["--n", "many"], 2, "many");
}

/// Memory does not grow with the number of items: ten times as many may need a little more, not ten times as much.
#[cfg(target_os = "linux")]
#[test]
fn a_billion_needs_no_more_memory_than_a_few() {
    let peak = |n: &str| -> f64 {
        let said = said(BILLION, &["--n", n]);
        let line = said.lines().find_map(|line| line.strip_prefix("peak memory of this process: ")).expect("a line");
        line.trim_end_matches(" MiB").parse().expect("a number")
    };
    let (few, many) = (peak("300000"), peak("3000000"));
    assert!(many < 2.0 * few, "{few} MiB, and then {many} MiB");
}

#[test]
fn words_are_counted_as_the_shell_counts_them_both_ways() {
    check_words(Path::new(HARBOUR), "1");
    let dir = tempfile::tempdir().expect("a directory");
    let odd = dir.path().join("odd.txt");
    let text = "Über-Mut: naïve don't DON'T x1y\r\n\n  語彙 word語word \u{a0}end".repeat(400);
    fs::write(&odd, [text.as_bytes(), b" broken\xff\xc3utf8 \xe8\xaa\n"].concat()).expect("written");
    check_words(&odd, "1");
}

/// Real texts, where they are: one of Debian's licences, the sayings of its package `fortunes`, the King James Bible of `bible-kjv`.
#[test]
fn real_texts_are_counted_as_the_shell_counts_them_both_ways() {
    for path in ["/usr/share/common-licenses/GPL-3", "/usr/share/games/fortunes/literature"].map(Path::new) {
        match path.is_file() {
            true => check_words(path, "4"),
            false => eprintln!("SKIPPED: {} is not there", path.display()),
        }
    }
    let Ok(bible) = Command::new("bible").arg("gen1:1-rev22:21").stdin(Stdio::null()).output() else {
        return eprintln!("SKIPPED: the command `bible` is not there");
    };
    let dir = tempfile::tempdir().expect("a directory");
    let text = dir.path().join("bible.txt");
    fs::write(&text, bible.stdout).expect("written");
    check_words(&text, "256");
}

fn check_words(path: &Path, piece: &str) {
    let [native, sandboxed] = said_both_ways(WORDCOUNT, &[name(path), "--all", "--piece", piece]);
    assert!(native.lines().count() > 10, "{native}");
    assert!(native == sandboxed, "{}: the counts differ", path.display());
    match counted_by_the_shell(path) {
        Some(expected) => assert!(native == expected, "{}: the shell counts\n{expected}\nand not\n{native}", path.display()),
        None => eprintln!("SKIPPED: there is no shell with tr, sort and uniq"),
    }
}

/// What the pipeline of `wordcount --help` prints.
fn counted_by_the_shell(path: &Path) -> Option<String> {
    let help = said(WORDCOUNT, &["--help"]);
    let pipeline: Vec<&str> = help.lines().skip_while(|line| !line.contains("cat FILE...")).map(str::trim).collect();
    let pipeline = pipeline.join(" ").replace("FILE...", "\"$1\"");
    assert!(pipeline.contains("uniq -c"), "{help}");
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", &pipeline, "sh", name(path)]).stderr(Stdio::null()).output().ok()?;
    (output.status.success() && !output.stdout.is_empty()).then(|| String::from_utf8(output.stdout).expect("ASCII"))
}

#[test]
fn words_of_the_own_text_and_of_several_files() {
    let own = said(WORDCOUNT, &[]);
    assert_eq!(own.lines().count(), 20, "{own}");
    assert!(own.lines().next().is_some_and(|line| line.ends_with(" the")), "{own}");
    assert_eq!(said(WORDCOUNT, &[HARBOUR]), own);
    let [once, twice] = [&[HARBOUR, "--all"][..], &[HARBOUR, HARBOUR, "--all"]].map(|arguments| said(WORDCOUNT, arguments));
    let counts = |text: &str| -> Vec<u64> { text.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
    assert!(counts(&once).iter().map(|count| 2 * count).eq(counts(&twice)));

    let dir = tempfile::tempdir().expect("a directory");
    let empty = dir.path().join("empty.txt");
    fs::write(&empty, "").expect("written");
    assert_eq!(said(WORDCOUNT, &[name(&empty)]), "");
    refuses(WORDCOUNT, &["no/such.txt"], 1, "cannot read no/such.txt");
    refuses(WORDCOUNT, &[name(dir.path())], 1, "cannot read ");
    refuses(WORDCOUNT, &["--piece", "0"], 2, "0");
}

#[test]
fn a_picture_has_the_same_bytes_both_ways() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("out.png");
    let views = [
        "--width 150 --height 101 --tile 32",
        "--width 64 --height 64 --x -0.7436438870371587 --y 0.1318259042053119 --zoom 1e6 --samples 1",
    ];
    for view in views {
        let view: Vec<&str> = view.split(' ').collect();
        let [native, sandboxed] = WAYS.map(|way| {
            said(MANDELBROT, &[&[name(&path)], &view[..], way].concat());
            fs::read(&path).expect("the picture")
        });
        assert!(native.starts_with(b"\x89PNG"), "no PNG");
        assert!(native == sandboxed, "the pictures of {view:?} differ");
        assert!(native.len() > 5000, "a picture of one colour? {} bytes", native.len());
    }
    refuses(MANDELBROT, &["no/such/picture.png", "--width", "1", "--height", "1"], 1, "cannot write no/such/picture.png");
    refuses(MANDELBROT, &["--width", "0"], 2, "0 is not in");
    refuses(MANDELBROT, &["--height", "4000000000"], 2, "is not in");
    refuses(MANDELBROT, &["--zoom", "1e15"], 2, "too close");
    refuses(MANDELBROT, &["--x", "nan"], 2, "between -4 and 4");
}

#[test]
fn the_untrusted_are_stopped_and_the_honest_are_not() {
    let [native, sandboxed] = said_both_ways(UNTRUSTED, &[]);
    let check = |said: &str, does: &str, expected: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(does)).unwrap_or_else(|| panic!("{does} is not in\n{said}"));
        assert!(line.trim().starts_with(expected), "{does}: {line}, and not {expected}");
    };
    // What runs both ways ends the same both ways.
    for said in [&native, &sandboxed] {
        check(said, "returns an error", "failed: no number to give");
        check(said, "panics", "panicked: index out of bounds: the len is 3 but the index is 5, at ");
        check(said, "honest calls beside them", ": 10000 of 10000 came out right");
    }
    let rest = [
        ("loops for ever", "stopped after 500 ms"),
        ("sleeps for a day", "stopped after 500 ms"),
        ("prints endlessly", "stopped after 500 ms; of what it printed, the last"),
        ("eats memory", "stopped at 64 MiB of memory"),
        ("recurses without end", "stopped: "),
        ("exits", "stopped: the task called exit(3)"),
        ("reads a file", "failed: "),
        ("writes a file", "failed: "),
        ("connects", "failed: "),
        ("listens", "failed: "),
        ("reads the environment", "failed: it is empty"),
        ("starts a thread", "failed: "),
        ("starts a process", "failed: "),
    ];
    for (does, ended) in rest {
        check(&native, does, "not run here");
        check(&sandboxed, does, ended);
    }
    assert_eq!(native.lines().count(), 2 + 2 + rest.len(), "{native}");
}
