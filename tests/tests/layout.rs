//! Who may know whom, and how files look: what ARCHITECTURE.md promises, checked on the sources. Every rule is tried on a text that
//! breaks it, too.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use quicsand_tests::source::{before_tests, code, paths, words};

/// What the files under a path may name of their own crate, and of `quicsand` where that is another. A file follows the first rule that
/// fits; naming anything in its own room is always allowed.
struct Room {
    path: &'static str,
    may_name: &'static [&'static str],
    is_pure: bool,
}

const fn room(path: &'static str, may_name: &'static [&'static str]) -> Room {
    Room { path, may_name, is_pure: false }
}

/// A room without clocks, threads, I/O, randomness or the order of a hash.
const fn pure(path: &'static str, may_name: &'static [&'static str]) -> Room {
    Room { path, may_name, is_pure: true }
}

const ROOMS: &[Room] = &[
    pure("core/src/ids", &[]),
    pure("core/src/requirements", &[]),
    pure("core/src/limits", &["requirements"]),
    pure("core/src/abi", &[]),
    pure("core/src/error", &["ids", "limits"]),
    pure("core/src/fault", &[]),
    room("core/src/pages", &[]),
    pure("core/src/codec", &["ids", "pages"]),
    pure("core/src/wire", &["ids", "error", "codec", "limits", "requirements"]),
    pure("core/src/scheduler", &["ids", "error", "codec", "fault", "limits", "requirements", "wire"]),
    pure("core/src/client/state", &["ids", "error", "codec", "fault", "wire"]),
    room("core/src/setup", &[]),
    pure("core/src/manifest", &["ids", "limits", "abi", "codec"]),
    room("core/src/module", &[]),
    room("core/src/guest", &["abi", "codec", "task"]),
    room("core/src/task", &["abi", "codec", "guest", "manifest"]),
    room("core/src/client/local", &["ids", "error", "codec", "requirements", "wire", "client", "task", "scheduler"]),
    room("core/src/client/connect", &["ids", "error", "client", "manifest", "module", "net"]),
    room("core/src/client", &["ids", "error", "codec", "limits", "wire", "module", "task"]),
    pure("core/src/net/tokens", &["ids", "error", "wire"]),
    room("core/src/net", &["ids", "error", "codec", "limits", "abi", "pages", "wire", "client::backend"]),
    room("core/src/server", &["ids", "error", "codec", "limits", "requirements", "abi", "manifest", "wire", "scheduler", "net"]),
    room("core/src/lib", &["abi", "client", "error", "guest", "ids", "limits", "manifest", "module", "requirements", "task"]),
    pure("worker/src/state", &["ids", "error", "codec", "fault", "limits", "wire"]),
    // Bytes and names: of the wire it knows only what a failed item and a printed line are.
    room(
        "worker/src/sandbox",
        &[
            "ids",
            "error",
            "abi",
            "limits",
            "manifest",
            "codec",
            "pages",
            "wire::ItemError",
            "wire::LogLine",
            "wire::LogQuery",
            "wire::LogStream",
            "wire::LINE_BYTES",
            "wire::LOG_BYTES",
        ],
    ),
    room("worker/src/shell", &["ids", "error", "codec", "limits", "pages", "requirements", "wire", "net", "state", "sandbox"]),
    room("worker/src/cluster", &["error", "module", "client", "wire", "net", "server", "shell", "command", "sandbox"]),
    room(
        "worker/src/command",
        &["ids", "error", "limits", "requirements", "codec", "wire", "net", "server", "shell", "setup", "sandbox"],
    ),
    room("worker/src/lib", &["cluster", "shell", "sandbox", "state", "command"]),
    room("worker/src/main", &["command"]),
];

/// What no pure room names.
const IMPURE: &[&str] = &[
    "tokio",
    "quinn",
    "rustls",
    "rcgen",
    "wasmtime",
    "parking_lot",
    "rand",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "Mutex",
    "Condvar",
    "RwLock",
    "async",
    "await",
    "println",
    "eprintln",
    "UdpSocket",
    "TcpStream",
    "getrandom",
];
/// Parts of the standard library that no pure room names.
const IMPURE_STD: &[&str] = &["thread", "fs", "env", "process", "io"];

/// Dependencies that a package may not have.
const STRANGERS: &[(&str, &[&str])] = &[
    ("macros", &["quicsand", "quicsand-worker", "quicsand-examples"]),
    ("core", &["quicsand-worker", "quicsand-examples", "wasmtime"]),
    ("worker", &["quicsand-examples", "quicsand-macros"]),
    ("examples", &["quicsand-macros", "wasmtime", "quinn", "tokio"]),
    ("xtask", &["quicsand", "quicsand-worker", "quicsand-macros", "quicsand-examples"]),
];

const MAX_LINES: usize = 600;
const MAX_TEST_LINES: usize = 800;

#[test]
fn every_file_names_only_what_it_may() {
    let exports = exports(&read("core/src/lib.rs"));
    let files = sources();
    let mut wrong = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.starts_with("core/src/") || path.starts_with("worker/src/")) {
        if !is_test(path) {
            wrong.extend(strangers_in(path, text, &exports).into_iter().map(|what| format!("{path}: {what}")));
        }
    }
    for rule in ROOMS {
        let is_used = files.iter().any(|(path, _)| is_in(path, rule.path));
        assert!(is_used, "no file is in {}: the rule is out of date", rule.path);
    }
    assert!(wrong.is_empty(), "against the directions of ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn packages_do_not_depend_on_strangers() {
    let mut wrong = Vec::new();
    for (package, strangers) in STRANGERS {
        let manifest = read(&format!("{package}/Cargo.toml"));
        wrong.extend(dependencies(&manifest).filter(|name| strangers.contains(name)).map(|name| format!("{package}: {name}")));
    }
    assert!(wrong.is_empty(), "dependencies against the directions of ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_is_tidy() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        wrong.extend(untidiness(&path, &text).into_iter().map(|what| format!("{path}: {what}")));
    }
    assert!(wrong.is_empty(), "untidy:\n{}", wrong.join("\n"));
}

/// What a file names that its room may not.
fn strangers_in(path: &str, text: &str, exports: &BTreeMap<String, String>) -> Vec<String> {
    let Some(rule) = ROOMS.iter().find(|rule| is_in(path, rule.path)) else {
        return vec!["in no room that this test knows; give it a rule".into()];
    };
    let code = code(text);
    let code = before_tests(&code);
    let (package, home) = rule.path.split_once("/src/").unwrap_or((rule.path, ""));
    let home = home.replace('/', "::");
    let mut named: Vec<Vec<&str>> = paths(code, "crate");
    named.extend(above(path, code));
    if package != "core" {
        named.extend(paths(code, "quicsand"));
    }
    let mut wrong = Vec::new();
    for path in named {
        let Some(first) = path.first() else { continue };
        let full = match exports.get(*first) {
            Some(module) => module.clone(),
            None => path.join("::"),
        };
        // Macros of the crate, and names that are no modules of either crate, such as a type of the file's own.
        let is_module = first.starts_with(|c: char| c.is_ascii_lowercase()) || exports.contains_key(*first);
        let is_allowed = rule.may_name.iter().chain([&home.as_str()]).any(|room| is_or_is_in(&full, room));
        if is_module && !is_allowed {
            wrong.push(format!("names `{}`", path.join("::")));
        }
    }
    if rule.is_pure {
        wrong.extend(words(code).filter(|word| IMPURE.contains(word)).map(|word| format!("names `{word}`, but is to do no I/O")));
        let std = paths(code, "std").into_iter().filter(|path| path.first().is_some_and(|first| IMPURE_STD.contains(first)));
        wrong.extend(std.map(|path| format!("names `std::{}`, but is to do no I/O", path.join("::"))));
    }
    wrong
}

/// The paths that begin with `super`, from the crate's root.
fn above<'a>(path: &'a str, code: &'a str) -> Vec<Vec<&'a str>> {
    let inner = path.split_once("/src/").map_or(path, |(_, inner)| inner);
    let mut home: Vec<&str> = inner.trim_end_matches(".rs").split('/').collect();
    home.pop_if(|name| ["mod", "lib", "main"].contains(name));
    let paths = paths(code, "super").into_iter().map(|path| {
        let supers = path.iter().take_while(|name| **name == "super").count();
        let above = home.len().saturating_sub(1 + supers);
        [&home[..above], &path[supers..]].concat()
    });
    paths.collect()
}

/// What a crate's root re-exports: each name, and its module.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    let code = format!("\n{}", code(lib));
    for item in code.split("\npub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        for path in paths(&format!("root::{item}"), "root") {
            if let [module, .., name] = path[..]
                && module != "quicsand_macros"
            {
                exports.insert(name.to_owned(), module.to_owned());
            }
        }
    }
    exports
}

/// The names in a manifest's tables of dependencies, those for tests left out.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let mut is_listed = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            is_listed = line.trim_end_matches(']').ends_with("dependencies") && !line.contains("dev-dependencies");
            return None;
        }
        let end = line.find(['.', ' ', '='])?;
        is_listed.then(|| &line[..end])
    })
}

/// What is untidy about a file. What clippy finds is left to it.
fn untidiness(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !text.starts_with("//! ") {
        wrong.push("does not open with `//!` and what it owns".to_owned());
    }
    let (lines, most) = (text.lines().count(), if is_test(path) { MAX_TEST_LINES } else { MAX_LINES });
    if lines > most {
        wrong.push(format!("has {lines} lines; past {most} it wants two rooms"));
    }
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        if line.contains(concat!("TO", "DO")) || line.contains(concat!("FIX", "ME")) {
            wrong.push(format!("line {number} leaves something to be done"));
        }
        let comment = line.trim_start().strip_prefix("// ").map(str::trim_end);
        if comment.is_some_and(|comment| comment.ends_with([';', '{', '}']) && comment.contains(['(', '=', '{', '}'])) {
            wrong.push(format!("line {number} is code in a comment"));
        }
        if line.trim_end() != line {
            wrong.push(format!("line {number} ends in spaces"));
        }
    }
    wrong
}

fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn is_or_is_in(path: &str, room: &str) -> bool {
    !room.is_empty() && path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs") || path.ends_with("_tests.rs")
}

fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies in the workspace")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a file of the workspace")
}

/// Every Rust source of the workspace but the programs that are meant to be wrong, by its path with slashes.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut dirs: Vec<PathBuf> =
        ["macros", "core", "worker", "examples", "tests", "micro", "xtask"].map(|dir| root().join(dir)).into();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the workspace").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() && !["ui", "target"].contains(&name.as_str()) {
                dirs.push(entry);
            } else if name.ends_with(".rs") {
                let path = entry.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
                files.push((path.clone(), read(&path)));
            }
        }
    }
    files.sort();
    assert!(files.len() > 50, "only {} sources were found", files.len());
    files
}

#[test]
fn a_name_from_the_wrong_room_is_found() {
    let exports = exports("pub use error::{Error, Result};\npub use client::Client;");
    let check = |path: &str, text: &str, count: usize| {
        let wrong = strangers_in(path, text, &exports);
        assert_eq!(wrong.len(), count, "{path}: {text}: {wrong:?}");
    };
    check("core/src/wire/client.rs", "use crate::{Error, codec::{Run, Span}, ids::Key};", 0);
    check("core/src/wire/client.rs", "use crate::{Client, codec::Run, scheduler::Event};", 2);
    check("core/src/wire/frame.rs", "use super::super::net::tls;", 1);
    check("core/src/wire/mod.rs", "use super::net::tls; use super::codec;", 1);
    check("core/src/scheduler/mod.rs", "use std::{collections::HashMap, thread};", 2);
    check("core/src/scheduler/mod.rs", "// a HashMap, a thread\nuse std::time::Duration; \"Instant\";", 0);
    check("core/src/scheduler/mod.rs", "use std::time::Duration;\n#[cfg(test)]\nmod tests { use std::time::Instant; }", 0);
    check("core/src/client/state.rs", "use super::shared::Shared; use crate::{error::Error, ids};", 1);
    check("core/src/client/state.rs", "use super::super::net::client; let x: crate::client::shared::Shared;", 2);
    check("core/src/client/args.rs", "crate::scheduler::Scheduler::new(config)", 1);
    check("core/src/client/local/mod.rs", "crate::scheduler::Scheduler::new(config)", 0);
    check("core/src/net/client.rs", "use crate::{client::backend::Backend, server::Hub};", 1);
    check("core/src/kitchen/mod.rs", "", 1);
    check("worker/src/sandbox/engine.rs", "use quicsand::{ids::Hash, wire::ToWorker}; use crate::state::State;", 2);
    check("worker/src/state/mod.rs", "use quicsand::wire::ToWorker; async fn x() { tokio::spawn(y) }", 2);
}

#[test]
fn a_wrong_dependency_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n[target.'cfg(unix)'.dependencies]\nc = {}\n\
        [dev-dependencies]\nd = \"1\"\n[lints]\ne = 1";
    assert_eq!(dependencies(manifest).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn untidiness_is_found() {
    let check = |path: &str, text: &str, count: usize| {
        let wrong = untidiness(path, text);
        assert_eq!(wrong.len(), count, "{text}: {wrong:?}");
    };
    check("core/src/x.rs", "//! Owns x.\n\n// A comment; and more.\nfn x() {}\n", 0);
    check("core/src/x.rs", "fn x() {}\n", 1);
    check("core/src/x.rs", &format!("//! x\n{}", "\n".repeat(MAX_LINES)), 1);
    check("core/src/tests/x.rs", &format!("//! x\n{}", "\n".repeat(MAX_LINES)), 0);
    check("core/src/x.rs", concat!("//! x\n// TO", "DO: all of it\n"), 1);
    check("core/src/x.rs", "//! x\n// let y = x();\n    // if y {\n", 2);
    check("core/src/x.rs", "//! x\nfn x() {} \n", 1);
}
