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
    /// Who meets in each match. Number 1 is the final, and match n is between the winners of matches 2n and 2n+1, or between contestants, who
    /// are numbered on from there. In place of match 0 is the winner of the final, as the second of two. There are none, or a power of two.
    matches: Vec<[Key; 2]>,
    /// A contestant that is better than the matches have it, as far as they were played: mostly it is worse again before anybody asks who is
    /// first but once.
    better: Option<(usize, Key)>,
    /// Those that are ranked.
    len: usize,
}

impl Tournament {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whoever is ranked first.
    pub(super) fn first(&self) -> Option<WorkerId> {
        let better = self.better.map(|(_, key)| key);
        self.winner(1).into_iter().chain(better).min().map(worker)
    }

    /// Ranks a contestant, or does not any more. Equal ranks go by the worker's number.
    pub(super) fn rank(&mut self, contestant: u32, id: WorkerId, rank: Option<u64>) {
        let key = rank.map_or(NONE, |rank| Key::from(rank) << 64 | Key::from(id.0));
        if contestant as usize >= self.matches.len() {
            self.grow(contestant as usize + 1);
        }
        let place = self.matches.len() + contestant as usize;
        if let Some((other, key)) = self.better.take_if(|(other, _)| *other != place) {
            self.play(other, key);
        }
        let played = self.winner(place).unwrap_or(NONE);
        let old = self.better.take().map_or(played, |(_, key)| key);
        self.len += usize::from(key != NONE);
        self.len -= usize::from(old != NONE);
        if key < played {
            self.better = Some((place, key));
        } else {
            self.play(place, key);
        }
    }

    /// Has a contestant's matches played again.
    fn play(&mut self, place: usize, mut key: Key) {
        let mut game = place;
        while let Some(pair) = self.matches.get_mut(game / 2) {
            let side = &mut pair[game % 2];
            if *side == key || game == 0 {
                // Nothing above is about it.
                return;
            }
            *side = key;
            key = pair[0].min(pair[1]);
            game /= 2;
        }
    }

    /// Who won a match, or is the contestant of that number, if there is anybody.
    fn winner(&self, game: usize) -> Option<Key> {
        self.matches.get(game / 2).map(|pair| pair[game % 2]).filter(|key| *key != NONE)
    }

    /// All that are ranked, in order. Each costs more than a change of rank.
    pub(super) fn in_order(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let won = |game: usize| self.winner(game).map(|key| Reverse((key, game)));
        let better = self.better.map(|(place, key)| Reverse((key, place)));
        let mut open: BinaryHeap<_> = won(1).into_iter().chain(better).collect();
        std::iter::from_fn(move || {
            loop {
                let Reverse((key, game)) = open.pop()?;
                if game >= self.matches.len() {
                    match self.better {
                        // It was its turn before.
                        Some((place, better)) if place == game && better != key => continue,
                        _ => return Some(worker(key)),
                    }
                }
                open.extend(won(2 * game).into_iter().chain(won(2 * game + 1)));
            }
        })
    }

    /// Makes room for so many contestants.
    fn grow(&mut self, count: usize) {
        if let Some((place, key)) = self.better.take() {
            self.play(place, key);
        }
        let half = count.next_power_of_two().max(2);
        let contestants = self.matches.split_off(self.matches.len() / 2);
        self.matches.clear();
        self.matches.resize(half / 2, [NONE; 2]);
        self.matches.extend(contestants);
        self.matches.resize(half, [NONE; 2]);
        for game in (1..half).rev() {
            let winner = self.matches[game][0].min(self.matches[game][1]);
            self.matches[game / 2][game % 2] = winner;
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
