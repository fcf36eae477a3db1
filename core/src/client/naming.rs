//! The names of values: their hashes, of large ones computed on several processors, since nothing is sent before. Must not know: what is
//! named, or why.

use std::{ops::Range, panic, thread};

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::{codec::Encoded, ids::Hash};

/// What is longer is halved: it takes 1.5 ms, a thread's start a twentieth of that.
const PART_BYTES: u64 = 8 << 20;
/// How often a value is halved, at most: into eight parts.
const HALVINGS: u32 = 3;

/// The hash of a value's encoding.
pub(super) fn name_of(data: &Encoded) -> Hash {
    let pieces = data.pieces().map(|piece| &piece[..]);
    let len = data.len() as u64;
    if len <= PART_BYTES {
        return Hash::of_pieces(pieces);
    }
    let (left, right) = halves(&pieces, 0..len, HALVINGS);
    Hash(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

/// The values of the two subtrees below that of a range.
fn halves(pieces: &[&[u8]], range: Range<u64>, halvings: u32) -> (ChainingValue, ChainingValue) {
    let middle = range.start + left_subtree_len(range.end - range.start);
    let (left, right) = (range.start..middle, middle..range.end);
    if halvings == 0 || right.end - right.start <= PART_BYTES / 2 {
        return (subtree(pieces, left, halvings), subtree(pieces, right, 0));
    }
    thread::scope(|scope| {
        let aside = thread::Builder::new().spawn_scoped(scope, || subtree(pieces, left.clone(), halvings - 1));
        let right = subtree(pieces, right, halvings - 1);
        let left = match aside.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(left)) => left,
            Ok(Err(panic)) => panic::resume_unwind(panic),
            // There are too many threads.
            Err(_) => subtree(pieces, left.clone(), 0),
        };
        (left, right)
    })
}

/// The value of the subtree over a range.
fn subtree(pieces: &[&[u8]], range: Range<u64>, halvings: u32) -> ChainingValue {
    if halvings > 0 && range.end - range.start > PART_BYTES {
        let (left, right) = halves(pieces, range, halvings);
        return merge_subtrees_non_root(&left, &right, Mode::Hash);
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(range.start);
    let mut at = 0;
    for piece in pieces {
        let within = |place: u64| usize::try_from(place.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
        hasher.update(&piece[within(range.start)..within(range.end)]);
        at += piece.len() as u64;
    }
    hasher.finalize_non_root()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_name_is_the_hash_whatever_the_length() {
        let all: Bytes = (0..(70_u32 << 20)).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let part = PART_BYTES as usize;
        for len in [0, 1, 1 << 20, part - 5, part, part + 1, part + 1024, 2 * part, 3 * part + 5, 8 * part + 1025, all.len() - 5]
        {
            let data = Encoded::of(&all.slice(..len)).expect("encodes");
            assert_eq!(name_of(&data), Hash::of(&data.clone().into_bytes()), "{len}");
        }
    }
}
