//! Programs outside the workspace, written and built as a user would: what their one module holds, and what builds it.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

use quicsand::manifest::{self, ManifestEntry};
use quicsand_tests::scratch::{Report, Scratch, guest_rustc};

const INC: &str = r#"
//! A program.
use quicsand::task;

#[task]
fn inc(x: i64) -> i64 { x + 1 }

#[quicsand::main]
fn main() {
    report(inc);
    dump(quicsand::Module::installed().expect("main installs it"));
}
{report}
"#;

fn manifest_of(name: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         quicsand = {{ path = \"{{core}}\", default-features = false }}\n"
    )
}

fn program(name: &str, main: &str) -> Scratch {
    let scratch = Scratch::new(name);
    scratch.write("Cargo.toml", &manifest_of(name));
    scratch.write("src/main.rs", main);
    scratch
}

/// The tasks of a module.
fn tasks_of(module: &[u8]) -> Vec<ManifestEntry> {
    manifest::read(manifest::section(module).expect("a list of tasks")).expect("a valid one")
}

/// Asserts that the module has the reported tasks with equal identities and stamps, and gives all its tasks by identity.
fn assert_belongs(report: &Report) -> BTreeMap<u64, ManifestEntry> {
    let module = report.module.as_ref().expect("a module");
    let tasks: BTreeMap<u64, ManifestEntry> = tasks_of(module).into_iter().map(|task| (task.id.0, task)).collect();
    for (id, stamp, name) in &report.tasks {
        let task = tasks.get(id).unwrap_or_else(|| panic!("{name} is not in the module: {tasks:?}"));
        assert_eq!((task.stamp, &task.name), (*stamp, name));
        assert!(task.export.starts_with("quicsand:"), "{}", task.export);
    }
    tasks
}

#[test]
fn one_module_has_the_tasks_of_all_crates_modules_and_bodies() {
    let scratch = program(
        "scratch-all",
        r#"
        use quicsand::task;

        mod inner {
            #[quicsand::task]
            pub fn inc(x: i64) -> i64 { x + 2 }
        }

        #[task]
        fn inc(x: i64) -> i64 { x + 1 }

        macro_rules! twins { ($($module:ident)*) => {$(
            mod $module {
                #[quicsand::task]
                pub fn twin(x: &str) -> String { x.to_owned() }
            }
        )*}}
        twins!(one two);

        #[quicsand::main]
        fn main() {
            report(inc);
            report(inner::inc);
            report(scratch_library::inc);
            report(scratch_library::deep::inc);
            report(one::twin);
            report(two::twin);
            {
                #[task]
                fn inc(x: i64) -> i64 { x + 3 }
                report(inc);
                assert_eq!(inc(1), 4);
            }
            #[task]
            fn local(x: i64) -> i64 { inc(inner::inc(x)) }
            report(local);
            dump(quicsand::Module::installed().expect("main installs it"));
        }
        {report}
        "#,
    );
    scratch.write("Cargo.toml", &(manifest_of("scratch-all") + "scratch-library = { path = \"library\" }\n"));
    scratch.write("library/Cargo.toml", &manifest_of("scratch-library").replace("[workspace]\n", ""));
    let library = "pub mod deep {\n#[quicsand::task] pub fn inc(x: i64) -> i64 { x + 4 }\n}\n";
    scratch.write("library/src/lib.rs", &format!("{library}#[quicsand::task] pub fn inc(x: i64) -> i64 {{ x + 5 }}\n"));
    scratch.succeed(&mut scratch.cargo(&["build", "--release"]));
    let report = scratch.report("scratch-all");
    assert_eq!(report.tasks.len(), 8);
    let tasks = assert_belongs(&report);
    assert_eq!(tasks.len(), 8, "{tasks:?}");
    let built_again = scratch.succeed(&mut scratch.cargo(&["build", "--release"]));
    assert!(!built_again.contains("Compiling"), "{built_again}");

    // A change in the library reaches the module.
    scratch.write(
        "library/src/lib.rs",
        &format!("{library}#[quicsand::task] pub fn added(x: i64) -> i64 {{ x }}\npub use added as inc;\n"),
    );
    scratch.succeed(&mut scratch.cargo(&["build", "--release"]));
    let tasks = assert_belongs(&scratch.report("scratch-all"));
    assert!(tasks.values().any(|task| task.name == "added"), "{tasks:?}");
}

#[test]
fn strict_programs_see_no_warnings() {
    let scratch = program(
        "scratch-strict",
        r#"
        //! A strict program.
        #![deny(warnings, missing_docs, unreachable_pub, missing_debug_implementations, unused_qualifications, clippy::pedantic)]
        #![deny(non_local_definitions, clippy::allow_attributes_without_reason, clippy::unwrap_used)]
        #![forbid(unsafe_code)]
        use quicsand::task;

        /// Work that only tasks do.
        mod work {
            pub(crate) fn add(x: i64, y: i64) -> i64 { x + y }
        }

        /// Documented.
        #[task(memory = "64MiB")]
        fn inc(x: i64) -> i64 { work::add(x, 1) }

        /// Fallible.
        #[task]
        fn mean(xs: &[f64], label: &str) -> Result<f64, String> {
            if xs.is_empty() { return Err(label.to_owned()); }
            Ok(xs.iter().sum())
        }

        /// What only `main` uses.
        fn only_main() {
            #[task]
            fn nothing() {}
            report(nothing);
        }

        #[quicsand::main]
        fn main() -> Result<(), String> {
            report(inc);
            report(mean);
            report(scratch_strict::of_library);
            only_main();
            dump(quicsand::Module::installed().ok_or("none")?);
            Ok(())
        }
        {report}
        "#,
    );
    // A library is compiled for the guest under its own lints.
    scratch.write(
        "src/lib.rs",
        r#"
        //! A strict library.
        #![deny(warnings, missing_docs, unreachable_pub, missing_debug_implementations, unused_qualifications, clippy::pedantic)]
        #![forbid(unsafe_code)]

        mod work {
            use quicsand::task;

            /// Documented.
            #[task(retries = 1)]
            #[must_use]
            pub fn of_library(x: &[u8]) -> u64 { helper(x) + inner(1) }

            #[deprecated]
            #[task]
            pub(super) fn old() {}

            fn helper(x: &[u8]) -> u64 { x.iter().map(|&x| u64::from(x)).sum() }

            #[task]
            fn inner(x: u64) -> u64 { x }
        }
        pub use work::of_library;

        /// What only the host calls.
        #[cfg(not(target_family = "wasm"))]
        #[allow(deprecated)]
        pub fn on_the_host() { let () = work::old(); }
        "#,
    );
    scratch.succeed(&mut scratch.cargo(&["build", "--release"]));
    assert_eq!(assert_belongs(&scratch.report("scratch-strict")).len(), 6);
    scratch.succeed(&mut scratch.cargo(&["clippy", "--release", "--all-targets"]));
    // The lints are in force: without its documentation the same program fails.
    let text = fs::read_to_string(scratch.path("src/main.rs")).expect("written above");
    scratch.write("src/main.rs", &text.replace("//! A strict program.", ""));
    assert!(scratch.fail(&mut scratch.cargo(&["check", "--release"])).contains("missing documentation"));
}

#[test]
fn a_program_that_cannot_be_compiled_for_the_guest_names_its_tasks_package() {
    let scratch = program(
        "scratch-tokio",
        r#"
        #[quicsand::main(tasks = "scratch-only-tasks")]
        #[tokio::main]
        async fn main() {
            tokio::spawn(async { report(scratch_only_tasks::inc) }).await.expect("joins");
            dump(quicsand::Module::installed().expect("main installs it"));
        }
        {report}
        "#,
    );
    let tokio = "tokio = { version = \"1\", features = [\"full\"] }\n";
    let tasks = "scratch-only-tasks = { path = \"tasks\" }\n";
    scratch.write("Cargo.toml", &(manifest_of("scratch-tokio") + tokio + tasks));
    scratch.write("tasks/Cargo.toml", &manifest_of("scratch-only-tasks").replace("[workspace]\n", ""));
    scratch.write("tasks/src/lib.rs", "#[quicsand::task] pub fn inc(x: i64) -> i64 { x + 1 }");
    scratch.succeed(&mut scratch.cargo(&["build", "--release"]));
    assert_eq!(assert_belongs(&scratch.report("scratch-tokio")).len(), 1);

    let text = fs::read_to_string(scratch.path("src/main.rs")).expect("written above");
    scratch.write("src/main.rs", &text.replace("(tasks = \"scratch-only-tasks\")", ""));
    let said = scratch.fail(&mut scratch.cargo(&["build", "--release"]));
    assert!(said.contains("tokio") && said.contains("tasks = \"my-tasks\""), "{said}");
    scratch.write("src/main.rs", &text.replace("\"scratch-only-tasks\"", "\"scratch-no-such\""));
    let said = scratch.fail(&mut scratch.cargo(&["build", "--release"]));
    assert!(said.contains("`scratch-no-such`"), "{said}");
}

#[test]
fn a_toolchain_that_appears_later_is_used_by_the_next_build() {
    let scratch = program("scratch-later", INC);
    let rustc = script(&scratch, "exit 1");
    let build = || scratch.succeed(scratch.cargo(&["build", "--release"]).env("QUICSAND_RUSTC", &rustc));
    build();
    let reason = scratch.report("scratch-later").module.expect_err("there was no toolchain");
    assert!(reason.contains("`quicsand setup`"), "{reason}");
    assert!(!reason.ends_with('.'), "{reason}");
    script(&scratch, &format!("exec '{}' \"$@\"", guest_rustc().display()));
    build();
    assert_belongs(&scratch.report("scratch-later"));
    let again = build();
    assert!(!again.contains("Compiling"), "{again}");
}

#[test]
fn a_guest_build_that_fails_shows_the_compilers_message_at_the_attribute() {
    let scratch = program(
        "scratch-broken",
        r#"
        #[quicsand::task]
        fn wrong() -> u8 {
            #[cfg(target_family = "wasm")]
            return "text";
            #[cfg(not(target_family = "wasm"))]
            1
        }

        #[quicsand::main]
        fn main() { wrong(); }
        "#,
    );
    let said = scratch.fail(&mut scratch.cargo(&["build", "--release"]));
    assert!(said.contains("the tasks could not be compiled for wasm32-wasip1"), "{said}");
    assert!(said.contains("mismatched types") && said.contains("src/main.rs:5:20"), "{said}");
    assert!(said.contains("src/main.rs:10:9"), "{said}");
}

#[test]
fn a_given_module_replaces_the_guest_build() {
    let scratch = program("scratch-given", INC);
    let module = scratch.path("given.wasm");
    fs::write(&module, b"\0asm\x01\0\0\0").expect("written");
    let rustc = script(&scratch, &format!("touch '{}'; exit 1", scratch.path("asked").display()));
    let build = || {
        let mut cargo = scratch.cargo(&["build", "--release"]);
        cargo.env("QUICSAND_RUSTC", &rustc);
        cargo
    };
    scratch.succeed(build().env("QUICSAND_MODULE", &module));
    assert_eq!(scratch.report("scratch-given").module.as_deref(), Ok(&b"\0asm\x01\0\0\0"[..]));
    assert!(!scratch.path("asked").exists());

    fs::write(&module, b"no module").expect("written");
    let said = scratch.fail(build().env("QUICSAND_MODULE", &module));
    assert!(said.contains("which is no WebAssembly module"), "{said}");
    let said = scratch.fail(build().env("QUICSAND_MODULE", scratch.path("absent.wasm")));
    assert!(said.contains("cannot be read"), "{said}");
    scratch.succeed(&mut build());
    assert!(scratch.path("asked").exists());
}

#[test]
fn only_real_builds_build_the_module() {
    let scratch = program("scratch-check", INC);
    scratch.write("src/lib.rs", "/// ```\n/// #[quicsand::main]\n/// fn main() {}\n/// ```\npub fn documented() {}\n");
    let asked = scratch.path("asked");
    let rustc = script(&scratch, &format!("touch '{}'; exit 1", asked.display()));
    let run = |args: &[&str]| scratch.succeed(scratch.cargo(args).env("QUICSAND_RUSTC", &rustc));
    for args in [&["check"][..], &["clippy"], &["doc", "--no-deps"], &["test", "--doc"]] {
        run(&[args, &["--release"]].concat());
        assert!(!asked.exists(), "{args:?} looked for the guest's compiler");
    }
    run(&["build", "--release"]);
    assert!(asked.exists());
}

#[test]
fn libraries_integration_tests_and_examples_have_modules() {
    let scratch = Scratch::new("scratch-embed");
    scratch.write("Cargo.toml", &(manifest_of("scratch-embed") + "[features]\ndefault = [\"usual\"]\nusual = []\nextra = []\n"));
    scratch.write(
        "src/lib.rs",
        r#"
        pub const MODULE: quicsand::Module = quicsand::embed!();
        #[quicsand::task]
        pub fn of_library() {}
        #[cfg(feature = "extra")]
        #[quicsand::task]
        pub fn of_extra() {}
        #[cfg(feature = "usual")]
        #[quicsand::task]
        pub fn of_usual() {}
        "#,
    );
    scratch.write(
        "tests/it.rs",
        r#"
        static MODULE: quicsand::Module = quicsand::embed!();
        #[quicsand::task]
        fn of_test() {}
        #[test]
        fn it() {
            std::fs::write("test.wasm", MODULE.wasm().expect("a module")).expect("written");
            std::fs::write("library.wasm", scratch_embed::MODULE.wasm().expect("a module")).expect("written");
            of_test();
        }
        "#,
    );
    scratch.write(
        "examples/scratch-example.rs",
        "#[quicsand::task] fn of_example() {}\n#[quicsand::main] fn main() { report(of_example); report(scratch_embed::of_extra);\n\
         dump(quicsand::Module::installed().expect(\"main installs it\")); }\n{report}",
    );
    let features = ["--release", "--no-default-features", "--features", "extra"];
    scratch.succeed(scratch.cargo(&["test", "--test", "it"]).args(features));
    let names = |file: &str| {
        let mut names: Vec<String> =
            tasks_of(&fs::read(scratch.path(file)).expect("dumped")).into_iter().map(|task| task.name).collect();
        names.sort();
        names
    };
    assert_eq!(names("library.wasm"), ["of_extra", "of_library"]);
    assert_eq!(names("test.wasm"), ["of_extra", "of_library", "of_test"]);
    scratch.succeed(scratch.cargo(&["build", "--example", "scratch-example"]).args(features));
    assert_eq!(assert_belongs(&scratch.report("examples/scratch-example")).len(), 3);
}

/// A stand-in for a compiler.
fn script(scratch: &Scratch, body: &str) -> std::path::PathBuf {
    let path = scratch.path("rustc.sh");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    path
}

#[test]
fn one_program_runs_in_its_own_process_and_on_a_cluster() {
    let scratch = program(
        "both-ways",
        r#"
//! A program.
use quicsand::{Client, task};
use quicsand_worker::LocalCluster;

#[task]
fn inc(x: i64) -> i64 { x + 1 }

#[task]
fn sum(xs: &[i64]) -> i64 { xs.iter().sum() }

fn total(client: &Client) -> quicsand::Result<i64> {
    let many = client.map(inc, 0..1000);
    client.submit(sum, &many).result()
}

#[quicsand::main]
fn main() -> quicsand::Result<()> {
    let in_process = total(&Client::from_env()?)?;
    let cluster = LocalCluster::new(2)?;
    println!("{in_process} {}", total(&cluster.client()?)?);
    Ok(())
}
"#,
    );
    scratch.write(
        "Cargo.toml",
        "[package]\nname = \"both-ways\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         quicsand = { path = \"{core}\" }\nquicsand-worker = { path = \"{worker}\" }\n",
    );
    let said = scratch.succeed(&mut scratch.cargo(&["run", "--release"]));
    assert!(said.lines().any(|line| line == "500500 500500"), "{said}");
}
