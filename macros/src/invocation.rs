//! The compiler's run that a macro finds itself in, read from rustc's own arguments. Owns: their meaning. Must not know: what for.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// What rustc was asked to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) crate_name: String,
    /// The crate's root file, relative to rustc's directory.
    pub(crate) source: PathBuf,
    pub(crate) out_dir: PathBuf,
    /// What cargo appends to file names, to tell builds of one crate apart.
    pub(crate) extra_filename: String,
    /// Whether it is a test harness.
    pub(crate) test: bool,
    pub(crate) features: Vec<String>,
    pub(crate) overflow_checks: bool,
    pub(crate) debug_assertions: bool,
    target: String,
    links: bool,
}

impl Invocation {
    /// The present one, if it makes something that runs on this machine: not `cargo check`, clippy, rustdoc, a doctest,
    /// rust-analyzer, or a build for WebAssembly.
    pub(crate) fn of_real_build() -> Option<Self> {
        let invocation = Self::parse(env::args().skip(1).flat_map(expand_file));
        let real = invocation.links && !invocation.crate_name.is_empty() && !invocation.target.starts_with("wasm");
        real.then_some(invocation)
    }

    fn parse(args: impl Iterator<Item = String>) -> Self {
        let mut read = Self::default();
        let (mut opt_level, mut overflow_checks, mut debug_assertions) = (String::from("0"), None, None);
        let mut args = args;
        while let Some(arg) = args.next() {
            let Some((name, value)) = option(&arg, &mut args) else {
                if arg == "--test" {
                    read.test = true;
                } else if arg == "-O" {
                    "3".clone_into(&mut opt_level);
                } else if !arg.starts_with('-') && arg.ends_with(".rs") && read.source.as_os_str().is_empty() {
                    read.source = PathBuf::from(arg);
                }
                continue;
            };
            match name {
                "--crate-name" => read.crate_name = value,
                "--out-dir" => read.out_dir = PathBuf::from(value),
                "--target" => read.target = value,
                "--emit" => read.links |= value.split(',').any(|kind| kind == "link" || kind.starts_with("link=")),
                "--cfg" => {
                    let feature = value.strip_prefix("feature=\"").and_then(|rest| rest.strip_suffix('"'));
                    read.features.extend(feature.map(str::to_owned));
                }
                "-C" => {
                    let (name, value) = value.split_once('=').unwrap_or((&value, "yes"));
                    match name {
                        "extra-filename" => value.clone_into(&mut read.extra_filename),
                        "opt-level" => value.clone_into(&mut opt_level),
                        "overflow-checks" => overflow_checks = Some(is_on(value)),
                        "debug-assertions" => debug_assertions = Some(is_on(value)),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        read.debug_assertions = debug_assertions.unwrap_or(opt_level == "0");
        read.overflow_checks = overflow_checks.unwrap_or(read.debug_assertions);
        read
    }

    /// The directory that the outer cargo builds into: cargo marks it with a file.
    pub(crate) fn target_dir(&self) -> PathBuf {
        let out_dir = std::path::absolute(&self.out_dir).unwrap_or_else(|_| self.out_dir.clone());
        let marked = out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
        // Unmarked, it is TARGET/PROFILE/deps.
        marked.or_else(|| out_dir.ancestors().nth(2)).unwrap_or(&out_dir).to_owned()
    }
}

/// An option that has a value, whichever way it is written.
fn option(arg: &str, rest: &mut impl Iterator<Item = String>) -> Option<(&'static str, String)> {
    // Those that are not read are here so that their values are not taken for source files.
    const LONG: [&str; 12] = [
        "--crate-name",
        "--out-dir",
        "--target",
        "--emit",
        "--cfg",
        "--crate-type",
        "--check-cfg",
        "--edition",
        "--extern",
        "--sysroot",
        "--remap-path-prefix",
        "--error-format",
    ];
    for name in LONG {
        if let Some(value) = arg.strip_prefix(name) {
            if value.is_empty() {
                return Some((name, rest.next().unwrap_or_default()));
            }
            if let Some(value) = value.strip_prefix('=') {
                return Some((name, value.to_owned()));
            }
        }
    }
    let codegen = arg.strip_prefix("--codegen").map(|value| value.trim_start_matches('=')).or_else(|| arg.strip_prefix("-C"));
    match codegen {
        Some("") => Some(("-C", rest.next().unwrap_or_default())),
        Some(value) => Some(("-C", value.to_owned())),
        None if matches!(arg, "-L" | "-l" | "-o" | "-A" | "-W" | "-D" | "-F" | "-Z") => {
            Some(("", rest.next().unwrap_or_default()))
        }
        None => None,
    }
}

fn is_on(value: &str) -> bool {
    matches!(value, "y" | "yes" | "on" | "true")
}

/// Cargo puts arguments into a file when they are many.
fn expand_file(arg: String) -> Vec<String> {
    let file = arg.strip_prefix('@').map(Path::new).and_then(|path| fs::read_to_string(path).ok());
    file.map_or_else(|| vec![arg], |text| text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Invocation {
        Invocation::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_debug_build_is_read() {
        let read = parse(
            r#"--crate-name app --edition=2024 src/main.rs --error-format=json --crate-type bin --emit=dep-info,link -C embed-bitcode=no
            -C debuginfo=2 --cfg feature="default" --cfg feature="x" --check-cfg cfg(feature,values("x.rs")) -C metadata=1
            -C extra-filename=-2 --out-dir /t/debug/deps -L dependency=/t/debug/deps --extern a=/t/liba.rlib"#,
        );
        assert_eq!((&*read.crate_name, read.source.to_str()), ("app", Some("src/main.rs")));
        assert_eq!(read.features, ["default", "x"]);
        assert_eq!(read.extra_filename, "-2");
        assert!(read.links && read.overflow_checks && read.debug_assertions && !read.test);
        assert_eq!(read.target_dir(), Path::new("/t"));
    }

    #[test]
    fn profiles_are_read() {
        let check = |line: &str, expected: (bool, bool)| {
            let read = parse(line);
            assert_eq!((read.overflow_checks, read.debug_assertions), expected, "{line}");
        };
        check("-C opt-level=3", (false, false));
        check("-O", (false, false));
        check("-Copt-level=3 -C overflow-checks=on", (true, false));
        check("-C opt-level=3 -C debug-assertions=on", (true, true));
        check("-C debug-assertions=off", (false, false));
        check("--codegen opt-level=s --codegen=overflow-checks", (true, false));
    }

    #[test]
    fn checks_and_documentation_do_not_link() {
        assert!(!parse("--crate-name app src/main.rs --emit=dep-info,metadata").links);
        assert!(!parse("--crate-name app src/main.rs").links);
        assert!(parse("--test --emit dep-info,metadata,link").links);
    }
}
