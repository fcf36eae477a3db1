//! Counts of instructions of what runs for each item and message, compared with those in `tests/instructions.json`: the same code takes
//! as many on any day, however busy the machine is. Owns: counting, comparing, recording. Must not know: what is counted; that is
//! `tests/src/hot`.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    packages::{install, is_there, output},
    steps::{cargo, program, root, run},
};

const COUNTER: &str = "valgrind";
const RECORD: &str = "tests/instructions.json";
/// Where the profiles lie afterwards.
const PROFILES: &str = "target/callgrind";
/// Only what happens in here counts.
const MEASURED: &str = "*hot::measured";
/// How far a count may be off, in percent.
const TOLERANCE: f64 = 5.0;
/// The same, where another compiler made the program.
const TOLERANCE_OTHER_COMPILER: f64 = 20.0;

/// Count, and compare with the record.
#[derive(Debug, clap::Args)]
pub(crate) struct Instructions {
    /// Record what is counted, rather than compare it
    #[arg(long)]
    bless: bool,
}

impl Instructions {
    pub(crate) fn run(&self) -> Result<()> {
        if !prepare() {
            return Ok(());
        }
        let counts = count()?;
        let path = root().join(RECORD);
        if self.bless {
            let record = json!({ "arch": env::consts::ARCH, "rustc": rustc()?, "instructions": counts_of(&counts) });
            fs::write(&path, format!("{record:#}\n")).with_context(|| format!("{} cannot be written", path.display()))?;
            eprintln!("xtask: {} counts are in {RECORD}", counts.len());
            return Ok(());
        }
        let record = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        compare(&counts, &serde_json::from_str(&record).with_context(|| format!("{RECORD} is no record"))?)
    }
}

/// Counts and compares.
pub(crate) fn check() -> Result<()> {
    Instructions { bless: false }.run()
}

/// How many instructions a workload takes, and for how many items.
struct Counted {
    name: String,
    items: u64,
    instructions: u64,
}

/// Whether there is something to count with.
fn prepare() -> bool {
    if !is_there(COUNTER)
        && let Err(error) = install(&[COUNTER])
    {
        println!("SKIPPED: counts of instructions: {COUNTER} is not to be had from this machine: {error:#}");
        return false;
    }
    true
}

fn count() -> Result<Vec<Counted>> {
    run(&mut cargo(["build", "--release", "--workspace", "--bin", "quicsand-hot"]))?;
    let hot = program("quicsand-hot");
    let profiles = root().join(PROFILES);
    fs::create_dir_all(&profiles).with_context(|| format!("{} cannot be made", profiles.display()))?;
    let list = output(&mut Command::new(&hot)).context("quicsand-hot does not list its workloads")?;
    let mut counts = Vec::new();
    for (name, items) in list.lines().filter_map(|line| line.split_once(' ')) {
        let profile = profiles.join(format!("{name}.out"));
        let mut counter = Command::new(COUNTER);
        counter.args(["--quiet", "--tool=callgrind", &format!("--toggle-collect={MEASURED}")]);
        counter.arg(format!("--callgrind-out-file={}", profile.display())).arg(&hot).arg(name);
        output(&mut counter).with_context(|| format!("{name} cannot be counted"))?;
        counts.push(Counted { name: name.to_owned(), items: items.parse()?, instructions: total(&profile)? });
    }
    ensure!(!counts.is_empty(), "quicsand-hot lists no workload");
    Ok(counts)
}

/// The sum of all instructions in a profile.
fn total(profile: &Path) -> Result<u64> {
    let text = fs::read(profile).with_context(|| format!("{} cannot be read", profile.display()))?;
    let text = String::from_utf8_lossy(&text);
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ")?.trim().parse().ok()).unwrap_or(0);
    // A function that was renamed, or inlined after all, is never entered.
    ensure!(total > 0, "nothing of {MEASURED} is in {}", profile.display());
    Ok(total)
}

fn counts_of(counts: &[Counted]) -> BTreeMap<&str, u64> {
    counts.iter().map(|counted| (&*counted.name, counted.instructions)).collect()
}

fn compare(counts: &[Counted], record: &Value) -> Result<()> {
    if record["arch"] != env::consts::ARCH {
        println!("SKIPPED: counts of instructions: {RECORD} is of {}, and this machine is another", record["arch"]);
        return Ok(());
    }
    let rustc = rustc()?;
    let tolerance = if record["rustc"] == *rustc { TOLERANCE } else { TOLERANCE_OTHER_COMPILER };
    if record["rustc"] != *rustc {
        println!("{RECORD} is of {}, and this is {rustc}: counts may be off by {tolerance} %", record["rustc"]);
    }
    println!("{:24} {:>12} {:>9} {:>12} {:>8}", "instructions of", "now", "an item", "recorded", "change");
    let mut wrong = Vec::new();
    for Counted { name, items, instructions } in counts {
        let each = instructions / items;
        let Some(recorded) = record["instructions"][name].as_u64() else {
            println!("{name:24} {instructions:>12} {each:>9}");
            wrong.push(format!("{name} is not in the record"));
            continue;
        };
        let change = (*instructions as f64 / recorded as f64 - 1.0) * 100.0;
        println!("{name:24} {instructions:>12} {each:>9} {recorded:>12} {change:>+7.1}%");
        if change.abs() > tolerance {
            let word = if change > 0.0 { "more" } else { "fewer" };
            wrong.push(format!("{name} takes {:.1} % {word}", change.abs()));
        }
    }
    let known = counts_of(counts);
    let gone = record["instructions"].as_object().into_iter().flatten().filter(|(name, _)| !known.contains_key(&***name));
    wrong.extend(gone.map(|(name, _)| format!("{name} is in the record, and no workload")));
    if !wrong.is_empty() {
        bail!(
            "counts of instructions differ from {RECORD} by more than {tolerance} %:\n  {}\n\
             `callgrind_annotate {PROFILES}/NAME.out` shows where they are. If they are more for a good reason, or fewer, record them: \
             `cargo xtask instructions --bless`",
            wrong.join("\n  ")
        );
    }
    Ok(())
}

/// The compiler that cargo uses.
fn rustc() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(Command::new(rustc).arg("--version").current_dir(root())).context("rustc does not say its version")?;
    Ok(version.trim().to_owned())
}
