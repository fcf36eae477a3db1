//! Counting words: a call a piece of text, and a tree of calls that adds their counts up.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fmt::Write as _,
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use quicsand::task;
use quicsand_examples::{pieces::Pieces, print, session::RunOn};

/// A text of our own, for when there is no file.
const TEXT: &str = include_str!("../../data/harbour.txt");
/// Counts that one call adds up.
const FAN_IN: usize = 8;

/// How often each word occurs.
type Counts = BTreeMap<String, u64>;

/// Counts the words of a text: runs of ASCII letters, capitals or not.
#[task]
fn count_words(text: &str) -> Counts {
    let text = text.to_ascii_lowercase();
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for word in text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
        *counts.entry(word).or_default() += 1;
    }
    counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect()
}

/// Adds counts up.
#[task]
fn add_up(parts: &[Counts]) -> Counts {
    let mut counts = Counts::new();
    for (word, count) in parts.iter().flatten() {
        match counts.get_mut(word) {
            Some(sum) => *sum += count,
            None => drop(counts.insert(word.clone(), *count)),
        }
    }
    counts
}

/// Counts the words of text files, and prints the most frequent ones.
///
/// A word is a run of ASCII letters, capitals or not. Runs in this process, unless told otherwise or QUICSAND_SCHEDULER and QUICSAND_TOKEN
/// name a fleet.
#[derive(Debug, Parser)]
#[command(after_help = PIPELINE)]
struct Options {
    /// Text files; without any, a small text that the program carries
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print so many words
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Print all words
    #[arg(long, conflicts_with = "top")]
    all: bool,
    /// KiB of text that one call counts
    #[arg(long, value_name = "KIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    piece: u32,
    #[command(flatten)]
    run_on: RunOn,
}

const PIPELINE: &str = "\
With --all, what is printed is what this prints:
  cat FILE... | LC_ALL=C tr -cs 'A-Za-z' '\\n' | LC_ALL=C tr 'A-Z' 'a-z' |
    grep . | LC_ALL=C sort | uniq -c | LC_ALL=C sort -k1,1nr -k2";

#[quicsand::main]
fn main() -> ExitCode {
    quicsand_examples::finish(run(&Options::parse()))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let session = options.run_on.start()?;
    eprintln!("wordcount: running {session}");
    let client = &session.client;

    let mut counts = Vec::new();
    for path in &options.files {
        for piece in Pieces::open(path, options.piece as usize * 1024)? {
            counts.push(client.submit(count_words, piece?));
        }
    }
    if options.files.is_empty() {
        counts.push(client.submit(count_words, TEXT));
    }
    let pieces = counts.len();
    while counts.len() > 1 {
        counts = counts.chunks(FAN_IN).map(|parts| client.submit(add_up, parts)).collect();
    }
    let counts = client.gather(counts)?.pop().unwrap_or_default();

    let words: u64 = counts.values().sum();
    eprintln!("wordcount: {words} words, {} different ones; pieces of text: {pieces}", counts.len());
    print(&table(counts, if options.all { usize::MAX } else { options.top }))?;
    Ok(())
}

/// The most frequent words first, those of equal frequency in the alphabet's order; a line each, as `uniq -c` has it.
fn table(counts: Counts, most: usize) -> String {
    let mut rows: Vec<(String, u64)> = counts.into_iter().collect();
    // A stable sort: what is equal stays in the map's order.
    rows.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let mut table = String::new();
    for (word, count) in rows.iter().take(most) {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{count:7} {word}");
    }
    table
}
