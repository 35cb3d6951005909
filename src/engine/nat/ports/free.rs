//! The numbers of a pool that are free.

/// More numbers than this being taken, a set costs less than a list of them.
const MOST_LISTED: usize = 64;
/// Back to a list at this: not at the same number, lest one flow coming and going change it each time.
const LISTED_AGAIN: usize = MOST_LISTED / 2;

/// Numbers below some end, at most 65,536, of which some are taken. Finds the first free one from a number on at a cost
/// that does not depend on how many there are.
///
/// Its memory goes with what is taken, up to 8 KiB: a service that listens on all ports has a pool for each of them as
/// soon as somebody sends a packet there.
#[derive(Debug)]
pub(super) enum Free {
    /// The numbers that are taken, in order.
    Few { taken: Vec<u16>, end: u32 },
    /// The numbers that are free.
    Many { free: Box<FreeSet>, taken: usize, end: u32 },
}

impl Free {
    /// All numbers below `end`.
    pub(super) const fn all(end: u32) -> Self {
        Self::Few { taken: Vec::new(), end }
    }

    pub(super) fn contains(&self, n: u32) -> bool {
        match self {
            Self::Few { taken, .. } => taken.binary_search(&number(n)).is_err(),
            Self::Many { free, .. } => free.contains(n),
        }
    }

    /// The least free number not below `from`.
    pub(super) fn first_from(&self, from: u32) -> Option<u32> {
        match self {
            Self::Few { taken, end } => {
                let above = &taken[taken.partition_point(|n| u32::from(*n) < from)..];
                let (_, first) = above.iter().zip(from..).find(|(taken, n)| u32::from(**taken) != *n).unzip();
                let first = first.unwrap_or_else(|| from + u32::try_from(above.len()).expect("a short list"));
                (first < *end).then_some(first)
            }
            Self::Many { free, .. } => free.first_from(from),
        }
    }

    /// Takes a free number.
    pub(super) fn remove(&mut self, n: u32) {
        match self {
            Self::Few { taken, .. } if taken.len() < MOST_LISTED => {
                let at = taken.partition_point(|other| u32::from(*other) < n);
                taken.insert(at, number(n));
            }
            Self::Few { taken, end } => {
                let mut free = Box::new(FreeSet::all(*end));
                taken.iter().for_each(|n| free.remove(u32::from(*n)));
                free.remove(n);
                *self = Self::Many { free, taken: MOST_LISTED + 1, end: *end };
            }
            Self::Many { free, taken, .. } => {
                free.remove(n);
                *taken += 1;
            }
        }
    }

    /// Gives back a number that is taken.
    pub(super) fn insert(&mut self, n: u32) {
        match self {
            Self::Few { taken, .. } => taken.retain(|other| u32::from(*other) != n),
            Self::Many { free, taken, end } => {
                free.insert(n);
                *taken -= 1;
                if *taken == LISTED_AGAIN {
                    *self = Self::Few { taken: free.gaps(*end).collect(), end: *end };
                }
            }
        }
    }
}

fn number(n: u32) -> u16 {
    u16::try_from(n).expect("a number below 65,536")
}

/// A set of numbers below 65,536 that finds its first member from a number on in constant time: a bit for each number,
/// a bit for each word of those that is not empty, and a bit for each word of these. 8 KiB at most.
#[derive(Debug)]
pub(super) struct FreeSet {
    leaves: Box<[u64]>,
    /// Bit i of word w: leaf word 64 w + i has a member.
    middle: [u64; 16],
    /// Bit i: middle word i is not zero.
    top: [u64; 1],
}

impl FreeSet {
    /// All numbers below `end`.
    fn all(end: u32) -> Self {
        let mut set = Self { leaves: vec![0; end.div_ceil(64) as usize].into(), middle: [0; 16], top: [0] };
        fill(&mut set.leaves, end);
        fill(&mut set.middle, end.div_ceil(64));
        fill(&mut set.top, end.div_ceil(64 * 64));
        set
    }

    fn contains(&self, number: u32) -> bool {
        let (word, bit) = place(number);
        self.leaves[word] & bit != 0
    }

    fn insert(&mut self, number: u32) {
        let (word, bit) = place(number);
        self.leaves[word] |= bit;
        let (word, bit) = place(number / 64);
        self.middle[word] |= bit;
        self.top[0] |= 1 << word;
    }

    fn remove(&mut self, number: u32) {
        let (word, bit) = place(number);
        self.leaves[word] &= !bit;
        if self.leaves[word] != 0 {
            return;
        }
        let (word, bit) = place(number / 64);
        self.middle[word] &= !bit;
        if self.middle[word] == 0 {
            self.top[0] &= !(1 << word);
        }
    }

    /// The numbers below `end` that are no members, in order.
    fn gaps(&self, end: u32) -> impl Iterator<Item = u16> {
        let words = (0..).zip(&self.leaves).filter(|(_, word)| **word != u64::MAX);
        let gaps =
            words.flat_map(|(at, word)| (0..64).filter(move |bit| word >> bit & 1 == 0).map(move |bit| at * 64 + bit));
        gaps.take_while(move |gap| *gap < end).map(number)
    }

    /// The least member not below `from`: up until a word has one, then down along the first bits.
    fn first_from(&self, from: u32) -> Option<u32> {
        let levels = [&*self.leaves, &self.middle, &self.top];
        let mut from = from;
        for (height, level) in levels.iter().enumerate() {
            let Some(found) = first_in_word(level, from) else {
                from = from / 64 + 1;
                continue;
            };
            let down = |found, level: &&[u64]| found * 64 + level[found as usize].trailing_zeros();
            return Some(levels[..height].iter().rev().fold(found, down));
        }
        None
    }
}

/// The first bit from `from` on in the word that holds it.
fn first_in_word(words: &[u64], from: u32) -> Option<u32> {
    let word = words.get((from / 64) as usize)? & (u64::MAX << (from % 64));
    (word != 0).then(|| from / 64 * 64 + word.trailing_zeros())
}

fn place(number: u32) -> (usize, u64) {
    ((number / 64) as usize, 1 << (number % 64))
}

/// Sets the first `bits` bits.
fn fill(words: &mut [u64], bits: u32) {
    words[..(bits / 64) as usize].fill(u64::MAX);
    if !bits.is_multiple_of(64) {
        words[(bits / 64) as usize] = (1 << (bits % 64)) - 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// Takes the first number from here on.
        Take(u32),
        GiveBack(Index),
        Find(u32),
    }

    /// Waves of taking and giving back, so that the list becomes a set and a list again.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let number = || prop_oneof![3 => 0..200u32, 1 => 0..70_000u32];
        let wave = move |taking: u32| {
            let step = prop_oneof![
                taking => number().prop_map(Step::Take),
                8 - taking => any::<Index>().prop_map(Step::GiveBack),
                1 => number().prop_map(Step::Find),
            ];
            prop::collection::vec(step, 0..200)
        };
        (wave(7), wave(1), wave(5)).prop_map(|(up, down, again)| [up, down, again].concat())
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_tree_finds(end in 1..=65_536u32, steps in steps()) {
            let (mut free, mut tree, mut taken) = (Free::all(end), (0..end).collect::<BTreeSet<u32>>(), Vec::new());
            for step in steps {
                match step {
                    Step::Take(from) => {
                        let first = free.first_from(from);
                        prop_assert_eq!(first, tree.range(from..).next().copied());
                        let Some(n) = first else { continue };
                        free.remove(n);
                        tree.remove(&n);
                        taken.push(n);
                    }
                    Step::GiveBack(which) if !taken.is_empty() => {
                        let n = taken.swap_remove(which.index(taken.len()));
                        prop_assert!(!free.contains(n));
                        free.insert(n);
                        tree.insert(n);
                        prop_assert!(free.contains(n));
                    }
                    Step::GiveBack(_) => {}
                    Step::Find(from) => prop_assert_eq!(free.first_from(from), tree.range(from..).next().copied()),
                }
                let list = matches!(free, Free::Few { .. });
                prop_assert!(!list || taken.len() <= MOST_LISTED);
                prop_assert!(list || taken.len() > LISTED_AGAIN);
            }
        }

        #[test]
        fn the_set_finds_what_a_tree_finds(
            end in 1..=65_536u32, gone in prop::collection::vec(any::<Index>(), 0..200),
            sparse: bool, from in prop::collection::vec(0..70_000u32, 50)
        ) {
            let numbers: Vec<u32> = gone.iter().map(|n| u32::try_from(n.index(end as usize)).unwrap()).collect();
            let mut set = FreeSet::all(end);
            let mut tree: BTreeSet<u32> = (0..end).collect();
            for number in if sparse { (0..end).collect() } else { numbers.clone() } {
                set.remove(number);
                tree.remove(&number);
            }
            for number in numbers.iter().step_by(2) {
                set.insert(*number);
                tree.insert(*number);
            }
            for from in from {
                prop_assert_eq!(set.first_from(from), tree.range(from..).next().copied());
            }
        }
    }
}
