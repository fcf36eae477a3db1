//! Kernels of integers, bytes and text. Owns: their inputs and what is computed.

use std::{collections::HashMap, fmt::Write as _};

use serde::Deserialize;

use super::{Prepared, checksum, random};

/// The digest of a block of bytes, written out: crates use instructions for it that WebAssembly does not have.
pub(super) fn sha256(seed: u64) -> Prepared {
    const BLOCKS: usize = 3584;
    let mut random = random(seed);
    let bytes: Vec<u8> = (0..BLOCKS * 8).flat_map(|_| random().to_le_bytes()).collect();
    let rounds = round_constants();
    Box::new(move || {
        let mut state = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
        // The input is whole blocks; what a real digest appends at the end would say nothing of speed.
        for block in bytes.as_chunks::<64>().0 {
            compress(&mut state, block, &rounds);
        }
        checksum(state.map(u64::from))
    })
}

fn compress(state: &mut [u32; 8], block: &[u8; 64], rounds: &[u32; 64]) {
    let mut words = [0_u32; 64];
    for (word, &bytes) in words.iter_mut().zip(block.as_chunks().0) {
        *word = u32::from_be_bytes(bytes);
    }
    for t in 16..64 {
        let (early, late) = (words[t - 15], words[t - 2]);
        let small0 = early.rotate_right(7) ^ early.rotate_right(18) ^ (early >> 3);
        let small1 = late.rotate_right(17) ^ late.rotate_right(19) ^ (late >> 10);
        words[t] = words[t - 16].wrapping_add(small0).wrapping_add(words[t - 7]).wrapping_add(small1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (&word, &round) in words.iter().zip(rounds) {
        let big1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let chosen = (e & f) ^ (!e & g);
        let first = h.wrapping_add(big1).wrapping_add(chosen).wrapping_add(round).wrapping_add(word);
        let big0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(big0).wrapping_add(majority));
    }
    for (sum, value) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *sum = sum.wrapping_add(value);
    }
}

/// The first 32 bits behind the point of the cube roots of the first 64 primes.
fn round_constants() -> [u32; 64] {
    let mut primes =
        (2_u128..).filter(|&number| (2..number).take_while(|part| part * part <= number).all(|part| number % part != 0));
    [(); 64].map(|()| {
        let cube = primes.next().unwrap_or(2) << 96;
        let mut root = 0_u128;
        for bit in (0..36).rev() {
            let larger = root | 1 << bit;
            if larger * larger * larger <= cube {
                root = larger;
            }
        }
        root as u32
    })
}

/// Of integers, in place, from the same disorder each time.
pub(super) fn sort(seed: u64) -> Prepared {
    const COUNT: usize = 50_000;
    let mut random = random(seed);
    let disorder: Vec<u64> = (0..COUNT).map(|_| random()).collect();
    let mut numbers = disorder.clone();
    Box::new(move || {
        numbers.copy_from_slice(&disorder);
        numbers.sort_unstable();
        checksum(numbers.iter().copied().step_by(127))
    })
}

#[derive(Deserialize)]
struct Sale {
    id: u64,
    shop: String,
    total: f64,
    paid: bool,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    name: String,
    count: u32,
    price: Option<f64>,
}

/// Into structures, as programs read it.
pub(super) fn json(seed: u64) -> Prepared {
    const SALES: u64 = 800;
    let mut random = random(seed);
    let sales: Vec<_> = (0..SALES)
        .map(|id| {
            let lines: Vec<_> = (0..random() % 8)
                .map(|_| {
                    let price = (!random().is_multiple_of(4)).then(|| (random() % 100_000) as f64 / 100.0);
                    serde_json::json!({ "name": word(random()), "count": random() % 100, "price": price })
                })
                .collect();
            let shop = format!("{} \"{}\"", word(random()), word(random()));
            serde_json::json!({ "id": id, "shop": shop, "total": (random() % 10_000_000) as f64 / 100.0, "paid": id.is_multiple_of(3), "lines": lines })
        })
        .collect();
    let text = serde_json::Value::from(sales).to_string();
    Box::new(move || {
        let sales: Vec<Sale> = serde_json::from_str(&text).unwrap_or_default();
        checksum(sales.iter().map(|sale| {
            let lines = sale.lines.iter().map(|line| {
                let price = line.price.unwrap_or(-1.0).to_bits();
                price.wrapping_add(line.name.len() as u64).wrapping_add(u64::from(line.count))
            });
            let words = sale.shop.len() as u64 + u64::from(sale.paid);
            sale.id ^ sale.total.to_bits().wrapping_add(words) ^ lines.fold(0, u64::wrapping_add)
        }))
    })
}

/// How often each word is in a text, whatever its case.
pub(super) fn word_count(seed: u64) -> Prepared {
    const WORDS: usize = 10_000;
    let mut random = random(seed);
    let mut text = String::new();
    for _ in 0..WORDS {
        // Some words are much more common than others.
        let spread = 1 << (random() % 12);
        let end = [" ", " ", " ", ", ", ". ", ".\n"][(random() % 6) as usize];
        // Nothing goes wrong in writing to a string.
        let _ = write!(text, "{}{end}", word(random() % spread));
    }
    Box::new(move || {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
        // A table's order is another each time.
        counts.iter().map(|(word, count)| checksum(word.bytes().map(u64::from)).wrapping_mul(*count)).fold(0, u64::wrapping_add)
    })
}

/// A word that can be pronounced.
fn word(number: u64) -> String {
    let mut random = random(number);
    let mut word = String::new();
    for _ in 0..1 + random() % 4 {
        let at = random();
        word.push(char::from(b"bcdfghklmnprstvz"[(at % 16) as usize]));
        word.push_str(["a", "e", "i", "o", "u", "ä", "ei", "ou"][(at / 16 % 8) as usize]);
    }
    if number.is_multiple_of(5) {
        word.replace_range(..1, &word[..1].to_uppercase());
    }
    word
}
