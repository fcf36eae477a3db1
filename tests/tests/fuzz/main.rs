//! The fuzzers' entry points, run for a bounded time by the stable toolchain: over the corpus in `fuzz/corpus`, and over inputs derived
//! from it, the same ones each time. What a fuzzer finds is added to the corpus and stays there.

mod seeds;

use std::{fs, path::PathBuf};

use quicsand_tests::fuzz::{TARGETS, Target};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// When set, seeds are written, not compared.
const BLESS: &str = "QUICSAND_BLESS";
/// Inputs longer than this have nothing that shorter ones have not.
const LONGEST: usize = 64 << 10;
/// Numbers at the edges of what numbers mean.
const EDGES: [&[u8]; 8] = [
    &[0],
    &[0xff],
    &[0x7f],
    &[0x80],
    &[0xff; 4],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff; 8],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];

#[test]
fn frames() {
    check("frames");
}

#[test]
fn handshake() {
    check("handshake");
}

#[test]
fn scheduler() {
    check("scheduler");
}

#[test]
fn journal() {
    check("journal");
}

#[test]
fn module() {
    check("module");
}

#[test]
fn values() {
    check("values");
}

#[test]
fn every_target_has_a_test_and_a_fuzzer() {
    let this = include_str!("main.rs");
    for target in TARGETS {
        assert!(this.contains(&format!("check(\"{}\")", target.name)), "{}", target.name);
        let fuzzer = root().join("fuzz_targets").join(format!("{}.rs", target.name));
        assert!(fuzzer.exists(), "{}", fuzzer.display());
    }
}

/// The corpus holds today's seeds, since messages of yesterday are not read any more.
#[test]
fn seeds_are_up_to_date() {
    for (target, seeds) in seeds::all() {
        let directory = root().join("corpus").join(target);
        for (name, bytes) in seeds {
            let path = directory.join(name);
            if std::env::var_os(BLESS).is_some() {
                fs::create_dir_all(&directory).expect("made");
                fs::write(&path, &bytes).expect("written");
            }
            let kept = fs::read(&path).unwrap_or_default();
            assert!(kept == bytes, "{} is not what the code says; run this test with {BLESS}=1", path.display());
        }
    }
}

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let corpus = corpus(target);
    corpus.iter().for_each(|input| (target.run)(input));
    let mut random = Pcg64Mcg::seed_from_u64(1);
    for _ in 0..target.tries {
        (target.run)(&derive(&corpus, &mut random));
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = root().join("corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(&directory).expect("a corpus").map(|entry| entry.expect("read").path()).collect();
    // The same order everywhere.
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("read")).collect();
    assert!(corpus.len() > 1, "{} has seeds", directory.display());
    corpus
}

/// An input that is like one of the corpus, or like two of them.
fn derive(corpus: &[Vec<u8>], random: &mut Pcg64Mcg) -> Vec<u8> {
    let mut input = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len().min(at + 16));
        match random.random_range(0..7) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            3 if at < input.len() => input[at] = random.random(),
            4 => drop(input.splice(at..end, EDGES[random.random_range(0..EDGES.len())].iter().copied())),
            5 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                input.splice(at.., other[from..].iter().copied());
            }
        }
        input.truncate(LONGEST);
    }
    input
}
