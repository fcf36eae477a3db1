//! What guests see of granted directories, variables and clocks, and what they do not.

use std::{fs, path::Path};

use quicsand::TaskErrorKind;

use super::{
    super::{Clock, DirGrant, Grants},
    guest::{guest, guest_with, job, load, numbers, sandbox},
    *,
};

/// The functions of files, and texts at fixed places: see [`PATHS`]. Room for what comes out is at 2048.
const FILES: &str = r#"
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_pread" (func $pread (param i32 i32 i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_readdir" (func $readdir (param i32 i32 i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_filestat_get" (func $stat (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
"#;

const BADF: i64 = 8;
const ACCES: i64 = 2;
const INVAL: i64 = 28;
const LOOP: i64 = 32;
const MFILE: i64 = 33;
const NOENT: i64 = 44;
const NOTDIR: i64 = 54;
const PERM: i64 = 63;
const ROFS: i64 = 69;

/// A directory with a file, a directory in it, links of all kinds, and a file beside it that nobody may read.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("data/inner")).expect("a directory");
    fs::write(at("secret"), "secret").expect("a file");
    fs::write(at("data/file"), "0123456789").expect("a file");
    fs::write(at("data/inner/deep"), "deep").expect("a file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        for (target, name) in [
            ("file", "link"),
            ("../secret", "out"),
            ("../data/file", "around"),
            ("..", "up"),
            ("/", "root"),
            ("round", "round"),
            ("inner/../../secret", "sly"),
        ] {
            symlink(target, at("data").join(name)).expect("a link");
        }
        symlink(at("secret"), at("data/absolute")).expect("a link");
        let socket = std::os::unix::net::UnixListener::bind(at("data/socket")).expect("a socket");
        drop(socket);
    }
    root
}

fn granting(root: &Path) -> Grants {
    let host = root.join("data");
    Grants { allow_dir: vec![DirGrant { host, guest: Some("/data".into()) }], ..Grants::default() }
}

/// The number that `body` leaves, in a sandbox with these grants.
fn number(grants: Grants, body: &str) -> i64 {
    numbers_of(grants, body, 1)[0].expect("a value")
}

fn numbers_of(grants: Grants, body: &str, items: i64) -> Vec<Option<i64>> {
    let sandbox = sandbox(|config| config.grants = grants);
    let result = run(&sandbox, &job(&load(&sandbox, &guest_with(FILES, body)), 0..items));
    assert!(result.errors.is_empty(), "{body}: {:?}", result.errors);
    numbers(&result.values)
}

/// Puts a text at 4096.
fn text(text: &str) -> String {
    let bytes = text.bytes().enumerate();
    bytes.map(|(at, byte)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))", 4096 + at)).collect()
}

/// The answer of `path_open` for a path in directory `dir`; the number of what is open is at 2048.
fn open(dir: u32, path: &str, look_up: u32, flags: u32, rights: u64, mode: u32) -> String {
    let len = path.len();
    format!(
        "(call $open (i32.const {dir}) (i32.const {look_up}) (i32.const 4096) (i32.const {len}) (i32.const {flags})
            (i64.const {rights}) (i64.const 0) (i32.const {mode}) (i32.const 2048))"
    )
}

/// What comes of opening a path for reading, links followed.
fn opened(root: &Path, path: &str) -> i64 {
    let body = format!("{} (i64.extend_i32_u {})", text(path), open(3, path, 1, 0, 2, 0));
    number(granting(root), &body)
}

#[test]
fn a_granted_file_is_read() {
    let root = tree();
    let check = |path: &str| {
        let body = format!(
            "{} (drop {})
             (i32.store (i32.const 2056) (i32.const 4200)) (i32.store (i32.const 2060) (i32.const 8))
             (drop (call $read (i32.load (i32.const 2048)) (i32.const 2056) (i32.const 1) (i32.const 2064)))
             (i64.load (i32.const 4200))",
            text(path),
            open(3, path, 1, 0, 2, 0)
        );
        assert_eq!(number(granting(root.path()), &body).to_le_bytes(), *b"01234567", "{path}");
    };
    check("file");
    check("./file");
    check("inner/../file");
    if cfg!(unix) {
        check("link");
    }
}

#[test]
fn positions_move_and_are_bounded() {
    let root = tree();
    let with = |body: &str| {
        let body = format!(
            "{} (drop {})
             (i32.store (i32.const 2056) (i32.const 4200)) (i32.store (i32.const 2060) (i32.const 4)) {body}",
            text("file"),
            open(3, "file", 1, 0, 2, 0)
        );
        number(granting(root.path()), &body)
    };
    let read = "(drop (call $read (i32.load (i32.const 2048)) (i32.const 2056) (i32.const 1) (i32.const 2064)))";
    let pread = "(drop (call $pread (i32.load (i32.const 2048)) (i32.const 2056) (i32.const 1) (i64.const 6) (i32.const 2064)))";
    let seek = |offset: i64, whence: u32| {
        format!("(call $seek (i32.load (i32.const 2048)) (i64.const {offset}) (i32.const {whence}) (i32.const 2072))")
    };
    let text = "(i64.extend_i32_u (i32.load (i32.const 4200)))";
    let digits = |digits: &[u8; 4]| i64::from(u32::from_le_bytes(*digits));
    assert_eq!(with(&format!("{read} {read} {text}")), digits(b"4567"));
    assert_eq!(with(&format!("{pread} {text}")), digits(b"6789"));
    assert_eq!(with(&format!("{pread} {read} {text}")), digits(b"0123"), "reading elsewhere moves nothing");
    assert_eq!(with(&format!("(drop {}) {read} {text}", seek(-4, 2))), digits(b"6789"));
    assert_eq!(with(&format!("{read} (drop {}) {read} {text}", seek(1, 1))), digits(b"5678"));
    assert_eq!(with(&format!("(drop {}) (i64.load (i32.const 2072))", seek(0, 2))), 10);
    assert_eq!(with(&format!("(i64.extend_i32_u {})", seek(-1, 0))), INVAL);
    assert_eq!(with(&format!("(i64.extend_i32_u {})", seek(0, 3))), INVAL);
    assert_eq!(with(&format!("(drop {}) {read} (i64.extend_i32_u (i32.load (i32.const 2064)))", seek(i64::MAX, 0))), 0);
}

#[test]
fn nothing_leads_out_of_a_granted_directory() {
    let root = tree();
    let secret = root.path().join("secret").display().to_string();
    let check = |path: &str, expected: i64| assert_eq!(opened(root.path(), path), expected, "{path}");
    for path in ["../secret", "inner/../../secret", "..", "../data/file", "/", "/etc/passwd", &secret, "/data/file"] {
        check(path, PERM);
    }
    if cfg!(unix) {
        for path in ["out", "absolute", "around", "up", "up/secret", "root", "root/etc/passwd", "sly"] {
            check(path, PERM);
        }
        check("socket", ACCES);
    }
    check("nothing", NOENT);
    check("file/x", NOTDIR);
    check("", NOENT);
    check("file\0", INVAL);
}

#[test]
fn nor_does_looking_at_it() {
    let root = tree();
    let stat = |path: &str, follow: u32| {
        let len = path.len();
        let call = format!("(call $stat (i32.const 3) (i32.const {follow}) (i32.const 4096) (i32.const {len}) (i32.const 4200))");
        number(granting(root.path()), &format!("{} (i64.extend_i32_u {call})", text(path)))
    };
    for path in ["file", "inner", "inner/deep", "."] {
        assert_eq!(stat(path, 1), 0, "{path}");
    }
    for path in ["../secret", "/etc/passwd", ".."] {
        assert_eq!((stat(path, 1), stat(path, 0)), (PERM, PERM), "{path}");
    }
    if cfg!(unix) {
        assert_eq!((stat("out", 1), stat("out", 0)), (PERM, 0), "the link itself is in the directory");
        assert_eq!(stat("up/secret", 0), PERM);
    }
}

#[test]
fn a_directory_in_it_is_a_capability_of_its_own() {
    let root = tree();
    let body = |path: &str| {
        format!(
            "{} (drop {}) (local.set $x (i64.extend_i32_u (i32.load (i32.const 2048)))) {}
             (i64.extend_i32_u (call $open (i32.wrap_i64 (local.get $x)) (i32.const 1) (i32.const 4096) (i32.const {})
                (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 2048)))",
            text("inner"),
            open(3, "inner", 1, 2, 2, 0),
            text(path),
            path.len(),
        )
    };
    assert_eq!(number(granting(root.path()), &body("deep")), 0);
    assert_eq!(number(granting(root.path()), &body("../file")), PERM);
}

#[test]
fn nothing_is_written() {
    let root = tree();
    let before = listing(root.path());
    let check = |call: &str| {
        assert_eq!(number(granting(root.path()), &format!("{} (i64.extend_i32_u {call})", text("file"))), ROFS, "{call}");
    };
    const READ: u64 = 1 << 1;
    const WRITE: u64 = 1 << 6;
    check(&open(3, "file", 1, 0, WRITE, 0));
    check(&open(3, "file", 1, 0, READ | WRITE, 0));
    check(&open(3, "file", 1, 0, 1 << 22, 0));
    check(&open(3, "file", 1, 0, READ, 1));
    for flags in [1, 8, 1 | 4, 1 | 8] {
        check(&open(3, "file", 1, flags, READ, 0));
    }
    check("(call $unlink (i32.const 3) (i32.const 4096) (i32.const 4))");
    check("(call $mkdir (i32.const 3) (i32.const 4096) (i32.const 3))");
    check("(call $symlink (i32.const 4096) (i32.const 4) (i32.const 3) (i32.const 4096) (i32.const 3))");
    check("(call $rename (i32.const 3) (i32.const 4096) (i32.const 4) (i32.const 3) (i32.const 4096) (i32.const 3))");
    let body = format!(
        "{} (drop {}) (i32.store (i32.const 2056) (i32.const 4096)) (i32.store (i32.const 2060) (i32.const 4))
         (i64.extend_i32_u (call $fd_write (i32.load (i32.const 2048)) (i32.const 2056) (i32.const 1) (i32.const 2064)))",
        text("file"),
        open(3, "file", 1, 0, READ, 0)
    );
    assert_eq!(number(granting(root.path()), &body), BADF);
    assert_eq!(listing(root.path()), before);
}

/// Names and contents of everything.
fn listing(root: &Path) -> Vec<(String, Option<String>)> {
    let mut all = Vec::new();
    for dir in ["", "data", "data/inner"] {
        for entry in fs::read_dir(root.join(dir)).expect("a directory") {
            let path = entry.expect("an entry").path();
            all.push((path.display().to_string(), fs::read_to_string(path).ok()));
        }
    }
    all.sort();
    all
}

#[cfg(unix)]
#[test]
fn a_link_that_is_not_followed_or_leads_round_is_an_error() {
    let root = tree();
    let body = format!("{} (i64.extend_i32_u {})", text("link"), open(3, "link", 0, 0, 2, 0));
    assert_eq!(number(granting(root.path()), &body), LOOP);
    assert_ne!(opened(root.path(), "round"), 0);
}

#[test]
fn what_is_open_is_closed_when_its_item_ends() {
    let root = tree();
    // The first item opens a file and leaves its number in a global; the others read from it.
    let body = format!(
        "(if (i64.eqz (local.get $x)) (then {} (drop {}) (global.set $leaked (i32.load (i32.const 2048)))))
         (i32.store (i32.const 2056) (i32.const 4200)) (i32.store (i32.const 2060) (i32.const 1))
         (i64.extend_i32_u (call $read (global.get $leaked) (i32.const 2056) (i32.const 1) (i32.const 2064)))",
        text("file"),
        open(3, "file", 1, 0, 2, 0)
    );
    assert_eq!(numbers_of(granting(root.path()), &body, 3), [Some(0), Some(BADF), Some(BADF)]);

    // The same, batch after batch in one instance; what the second one opens has another number.
    let sandbox = sandbox(|config| config.grants = granting(root.path()));
    let body = format!(
        "{} (local.set $x (i64.extend_i32_u (global.get $leaked))) (drop {}) (global.set $leaked (i32.load (i32.const 2048)))
         (if (i64.eqz (local.get $x)) (then (return (i64.const 0))))
         (i32.store (i32.const 2056) (i32.const 4200)) (i32.store (i32.const 2060) (i32.const 1))
         (i64.extend_i32_u (call $read (i32.wrap_i64 (local.get $x)) (i32.const 2056) (i32.const 1) (i32.const 2064)))",
        text("file"),
        open(3, "file", 1, 0, 2, 0)
    );
    let module = load(&sandbox, &guest_with(FILES, &body));
    let mut runner = Runner::new(Arc::clone(&sandbox));
    let mut call = || numbers(&runner.run(&job(&module, [0]), &Control::new()).values)[0];
    assert_eq!((call(), call(), call()), (Some(0), Some(BADF), Some(BADF)));
}

#[test]
fn open_files_are_few() {
    let root = tree();
    let body = format!(
        "(local $opened i64) {} (block $full (loop $again
            (br_if $full (i32.ne {} (i32.const 0)))
            (local.set $opened (i64.add (local.get $opened) (i64.const 1))) (br $again)))
         (if (i32.ne {} (i32.const {MFILE})) (then (return (i64.const -1))))
         (drop (call $close (i32.load (i32.const 2048))))
         (if (i32.ne {} (i32.const 0)) (then (return (i64.const -2))))
         (local.get $opened)",
        text("file"),
        open(3, "file", 1, 0, 2, 0),
        open(3, "file", 1, 0, 2, 0),
        open(3, "file", 1, 0, 2, 0)
    );
    assert_eq!(numbers_of(granting(root.path()), &body, 2), [Some(64), Some(64)]);
}

#[test]
fn a_directory_is_listed_in_pieces() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("data")).expect("a directory");
    for at in 0..1000 {
        fs::write(root.path().join("data").join(format!("file-{at:04}")), "").expect("a file");
    }
    // Sums the lengths of the names up, as a libc would: by whole entries, and again from where the last whole one ended.
    let body = "(local $cookie i64) (local $at i32) (local $end i32) (local $names i64)
        (loop $more
            (if (i32.ne (call $readdir (i32.const 3) (i32.const 8192) (i32.const 500) (local.get $cookie) (i32.const 2048)) (i32.const 0))
                (then (return (i64.const -1))))
            (local.set $at (i32.const 8192))
            (local.set $end (i32.add (i32.const 8192) (i32.load (i32.const 2048))))
            (block $cut (loop $next
                (br_if $cut (i32.gt_u (i32.add (local.get $at) (i32.const 24)) (local.get $end)))
                (br_if $cut (i32.gt_u (i32.add (i32.add (local.get $at) (i32.const 24)) (i32.load offset=16 (local.get $at)))
                    (local.get $end)))
                (local.set $cookie (i64.load (local.get $at)))
                (local.set $names (i64.add (local.get $names) (i64.extend_i32_u (i32.load offset=16 (local.get $at)))))
                (local.set $at (i32.add (i32.add (local.get $at) (i32.const 24)) (i32.load offset=16 (local.get $at))))
                (br $next)))
            (br_if $more (i32.eq (i32.load (i32.const 2048)) (i32.const 500))))
        (local.get $names)";
    assert_eq!(number(granting(root.path()), body), 1000 * 9);
    let again = "(drop (call $readdir (i32.const 3) (i32.const 8192) (i32.const 500) (i64.const 990) (i32.const 2048)))
        (drop (call $readdir (i32.const 3) (i32.const 8192) (i32.const 500) (i64.const 999) (i32.const 2048)))
        (i64.extend_i32_u (i32.load (i32.const 2048)))";
    assert_eq!(number(granting(root.path()), again), 24 + 9, "one is left after 999");
}

#[test]
fn without_a_grant_there_is_nothing() {
    let body = format!("{} (i64.extend_i32_u {})", text("file"), open(3, "file", 1, 0, 2, 0));
    assert_eq!(number(Grants::default(), &body), BADF);
    assert_eq!(number(Grants::default(), "(i64.extend_i32_u (call $prestat (i32.const 3) (i32.const 2048)))"), BADF);
    assert_eq!(number(Grants::default(), "(i64.extend_i32_u (call $mkdir (i32.const 3) (i32.const 0) (i32.const 1)))"), BADF);
    assert_eq!(
        number(Grants::default(), "(drop (call $sizes (i32.const 2048) (i32.const 2052))) (i64.load (i32.const 2048))"),
        0
    );
}

#[test]
fn addresses_outside_the_memory_are_refused() {
    let root = tree();
    const FAULT: i64 = 21;
    for call in [
        "(call $open (i32.const 3) (i32.const 1) (i32.const -8) (i32.const 16) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 2048))",
        "(call $open (i32.const 3) (i32.const 1) (i32.const 4096) (i32.const 4) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const -2))",
        "(call $readdir (i32.const 3) (i32.const 8192) (i32.const -1) (i64.const 0) (i32.const 2048))",
        "(call $prestat (i32.const 3) (i32.const 524285))",
        "(call $fdstat (i32.const 3) (i32.const -1))",
        "(call $environ (i32.const -1) (i32.const -1))",
    ] {
        let grants = Grants { env: vec![("A".into(), "B".into())], ..granting(root.path()) };
        assert_eq!(number(grants, &format!("(i64.extend_i32_u {call})")), FAULT, "{call}");
    }
}

#[test]
fn granted_variables_are_seen() {
    let grants = Grants { env: vec![("A".into(), "B".into()), ("CD".into(), "".into())], ..Grants::default() };
    let sizes = "(drop (call $sizes (i32.const 2048) (i32.const 2052))) (i64.load (i32.const 2048))";
    assert_eq!(number(grants.clone(), sizes), 2 | 8 << 32);
    let text = "(drop (call $environ (i32.const 2048) (i32.const 4096))) (i64.load (i32.load (i32.const 2048)))";
    assert_eq!(number(grants.clone(), text).to_le_bytes(), *b"A=B\0CD=\0");
    let second = "(drop (call $environ (i32.const 2048) (i32.const 4096))) (i64.extend_i32_u (i32.load (i32.const 2052)))";
    assert_eq!(number(grants, second), 4100);
}

#[test]
fn a_fixed_clock_moves_by_sleeping_only() {
    let grants = Grants { clock: Clock::Fixed(Duration::from_secs(1_700_000_000)), ..Grants::default() };
    let now = |clock: u32| format!("(drop (call $clock (i32.const {clock}) (i64.const 0) (i32.const 1304)))");
    let wall = format!("{} (i64.load (i32.const 1304))", now(0));
    let expected = 1_700_000_000_000_000_000;
    assert_eq!(numbers_of(grants.clone(), &wall, 3), [Some(expected); 3]);
    let slept = format!("(call $sleep (i64.const 1000000)) {} (i64.load (i32.const 1304))", now(0));
    assert_eq!(numbers_of(grants.clone(), &slept, 2), [Some(expected + 1_000_000); 2], "each item begins at the same moment");
    let steady = format!(
        "{} (local.set $x (i64.load (i32.const 1304))) (call $sleep (i64.const 1000000)) {}
         (i64.sub (i64.load (i32.const 1304)) (local.get $x))",
        now(1),
        now(1)
    );
    assert_eq!(numbers_of(grants.clone(), &steady, 2), [Some(1_000_000); 2]);

    // Limits go by the machine's clock.
    let sandbox = sandbox(|config| config.grants = grants);
    let mut job = job(&load(&sandbox, &guest(SLEEP_LONG)), 0..1);
    job.options.timeout = Some(Duration::from_millis(10));
    assert_eq!(run(&sandbox, &job).errors[0].error.kind, TaskErrorKind::TimeLimit { limit_ms: 10 });
}
