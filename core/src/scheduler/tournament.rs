//! Who comes first of many whose ranks change all the time: a tree of matches, of which a change plays only those above it again. Must not
//! know: what the ranks mean.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::ids::WorkerId;

/// A rank's place among ranks, and whose it is: the lowest comes first. As one number, which is compared in two instructions.
type Key = u128;

/// Whoever is not ranked has this.
const NONE: Key = Key::MAX;

/// Ranks of contestants, who are known by small numbers.
#[derive(Debug, Default)]
pub(super) struct Tournament {
    /// By contestant; of a power of two, or none.
    keys: Vec<Key>,
    /// The winner of each match, the final being number 1. Match n is between the winners of 2n and 2n+1; those beyond the last match are
    /// the contestants.
    winners: Vec<u32>,
    /// Those that are ranked.
    len: usize,
}

impl Tournament {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whoever is ranked first.
    pub(super) fn first(&self) -> Option<WorkerId> {
        let key = *self.keys.get(*self.winners.get(1)? as usize)?;
        (key != NONE).then(|| worker(key))
    }

    /// Ranks a contestant, or does not any more. Equal ranks go by the worker's number.
    pub(super) fn rank(&mut self, contestant: u32, id: WorkerId, rank: Option<u64>) {
        let key = rank.map_or(NONE, |rank| Key::from(rank) << 64 | Key::from(id.0));
        let at = contestant as usize;
        if at >= self.keys.len() {
            self.grow(at + 1);
        }
        let Some(place) = self.keys.get_mut(at) else { return };
        self.len += usize::from(key != NONE);
        self.len -= usize::from(std::mem::replace(place, key) != NONE);
        let mut game = (self.keys.len() + at) / 2;
        while game > 0 {
            let winner = self.play(game);
            let before = std::mem::replace(&mut self.winners[game], winner);
            if before == winner && winner != contestant {
                // It lost here before, too: nothing above is about it.
                return;
            }
            game /= 2;
        }
    }

    /// All that are ranked, in order. Each costs as much as a change of rank.
    pub(super) fn in_order(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let mut open = BinaryHeap::new();
        let enter = |open: &mut BinaryHeap<_>, game: usize| {
            let key = self.key(self.winner(game));
            if key != NONE {
                open.push(Reverse((key, game)));
            }
        };
        if self.winners.len() > 1 {
            enter(&mut open, 1);
        }
        std::iter::from_fn(move || {
            loop {
                let Reverse((key, game)) = open.pop()?;
                if game >= self.winners.len() {
                    return Some(worker(key));
                }
                enter(&mut open, 2 * game);
                enter(&mut open, 2 * game + 1);
            }
        })
    }

    fn play(&self, game: usize) -> u32 {
        let (one, other) = (self.winner(2 * game), self.winner(2 * game + 1));
        if self.key(other) < self.key(one) { other } else { one }
    }

    /// The winner of a match, or the contestant.
    fn winner(&self, game: usize) -> u32 {
        self.winners.get(game).copied().unwrap_or((game - self.winners.len()) as u32)
    }

    fn key(&self, contestant: u32) -> Key {
        self.keys.get(contestant as usize).copied().unwrap_or(NONE)
    }

    /// Makes room for so many contestants.
    fn grow(&mut self, count: usize) {
        let count = count.next_power_of_two().max(2);
        self.keys.resize(count, NONE);
        self.winners = vec![0; count];
        for game in (1..count).rev() {
            self.winners[game] = self.play(game);
        }
    }
}

fn worker(key: Key) -> WorkerId {
    WorkerId(key as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    proptest::proptest! {
        #[test]
        fn the_lowest_comes_first(changes in proptest::collection::vec((0_u32..40, proptest::option::of(0_u64..6)), 0..200)) {
            let (mut tournament, mut model) = (Tournament::default(), BTreeMap::new());
            for (contestant, rank) in changes {
                // In another order than that of the contestants.
                let id = WorkerId(u64::from(contestant * 7 % 41));
                tournament.rank(contestant, id, rank);
                match rank {
                    Some(rank) => drop(model.insert(id, rank)),
                    None => drop(model.remove(&id)),
                }
                let mut expected: Vec<_> = model.iter().map(|(&id, &rank)| (rank, id)).collect();
                expected.sort_unstable();
                assert!(tournament.in_order().eq(expected.iter().map(|(_, id)| *id)));
                assert_eq!((tournament.first(), tournament.len()), (expected.first().map(|(_, id)| *id), expected.len()));
            }
        }
    }
}
