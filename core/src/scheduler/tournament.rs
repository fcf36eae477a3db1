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
    /// Who won each match, the final being number 1. Match n is between the winners of 2n and 2n+1, and those of the second half are not
    /// matches but the contestants. There are none, or a power of two.
    winners: Vec<Key>,
    /// Those that are ranked.
    len: usize,
}

impl Tournament {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whoever is ranked first.
    pub(super) fn first(&self) -> Option<WorkerId> {
        self.winners.get(1).filter(|key| **key != NONE).map(|key| worker(*key))
    }

    /// Ranks a contestant, or does not any more. Equal ranks go by the worker's number.
    pub(super) fn rank(&mut self, contestant: u32, id: WorkerId, rank: Option<u64>) {
        let key = rank.map_or(NONE, |rank| Key::from(rank) << 64 | Key::from(id.0));
        if contestant as usize >= self.winners.len() / 2 {
            self.grow(contestant as usize + 1);
        }
        let mut at = self.winners.len() / 2 + contestant as usize;
        self.len += usize::from(key != NONE);
        self.len -= usize::from(std::mem::replace(&mut self.winners[at], key) != NONE);
        while at > 1 {
            let winner = self.winners[at].min(self.winners[at ^ 1]);
            at /= 2;
            if std::mem::replace(&mut self.winners[at], winner) == winner {
                // Nothing above is about it.
                return;
            }
        }
    }

    /// All that are ranked, in order. Each costs more than a change of rank.
    pub(super) fn in_order(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let won = |game: usize| self.winners.get(game).filter(|key| **key != NONE).map(|key| Reverse((*key, game)));
        let mut open: BinaryHeap<_> = won(1).into_iter().collect();
        std::iter::from_fn(move || {
            loop {
                let Reverse((key, game)) = open.pop()?;
                if game >= self.winners.len() / 2 {
                    return Some(worker(key));
                }
                open.extend(won(2 * game).into_iter().chain(won(2 * game + 1)));
            }
        })
    }

    /// Makes room for so many contestants.
    fn grow(&mut self, count: usize) {
        let half = count.next_power_of_two().max(2);
        let before = self.winners.split_off(self.winners.len() / 2);
        self.winners.clear();
        self.winners.resize(half, NONE);
        self.winners.extend(before);
        self.winners.resize(2 * half, NONE);
        for game in (1..half).rev() {
            self.winners[game] = self.winners[2 * game].min(self.winners[2 * game + 1]);
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
