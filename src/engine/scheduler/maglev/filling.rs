//! Which backend has which slot of a table.
//!
//! The table is Maglev's (Eisenbud et al., NSDI 2016, section 3.4): each backend has a permutation of all slots, made
//! from two hashes of its identity, and takes slots in that order until every slot has a backend. In two points the
//! filling differs from the paper's, because the issue is disruption:
//!
//! * A turn is **one try**: who finds the slot taken waits for the next turn. In the paper it takes the next free slot,
//!   and is thereby one slot further down its own list for the rest of the filling, where it meets the others at other
//!   places than it would have: so one backend's leaving is felt by all. With one try, slot s belongs to the backend
//!   that has s earliest on its list, whoever else is there.
//! * What keeps the table even is then not the turns but a **quota**: the exact share of the slots, to within one. Only
//!   at the far end of the lists, where the lucky ones have their quota and the others still look, do backends feel
//!   each other.
//!
//! At 65,537 slots and 100 backends, when one leaves, the slots of the *others* that move are 0.30 % (worst 0.37 %) of
//! all; by the paper's filling 0.56 % (worst 0.64 %). Shares are exact to one slot, 0.15 %; the paper promises 1 %.
//!
//! **Weights**: the backend of weight w makes its j-th try at time j/w, and its quota is w over the sum of all weights.
//! Each backend takes its first free slot before the tries begin, so none is without a slot.

use siphasher::sip::SipHasher24;

use crate::config::BackendId;
use crate::engine::random;
use crate::engine::scheduler::{Candidate, weighted};

/// Slots of a table: the smaller of the paper's two sizes, a prime, so that any skip walks through all of them.
const SLOTS: u32 = 65_537;

/// Published on purpose: both nodes of a pair, and every build, must place flows alike. Changing one moves all flows.
const OFFSET_KEY: &[u8; 16] = b"tungate offset 1";
const SKIP_KEY: &[u8; 16] = b"tungate skip   1";

/// The table of a pool; empty without candidates.
pub(super) fn table(candidates: &[&Candidate]) -> Box<[BackendId]> {
    // Who comes first at a tie must not depend on the order in the file, nor on ids.
    let mut candidates = candidates.to_vec();
    candidates.sort_by(|a, b| a.key.cmp(&b.key));
    fill(SLOTS, &candidates.into_iter().map(Contender::new).collect::<Vec<_>>())
}

/// A backend before the table is filled.
#[derive(Clone, Copy, Debug)]
struct Contender {
    id: BackendId,
    weight: u16,
    list: Permutation,
}

impl Contender {
    fn new(candidate: &Candidate) -> Self {
        Self { id: candidate.id, weight: candidate.weight, list: Permutation::of(&candidate.key) }
    }
}

/// A backend's list of the slots, the one it likes best first: `offset`, `offset + skip`, `offset + 2 skip`...
#[derive(Clone, Copy, Debug)]
struct Permutation {
    offset: u32,
    skip: u32,
}

impl Permutation {
    fn of(key: &str) -> Self {
        let hash = |hash_key| SipHasher24::new_with_key(hash_key).hash(key.as_bytes());
        Self {
            offset: random::below_u32(hash(OFFSET_KEY), SLOTS),
            skip: 1 + random::below_u32(hash(SKIP_KEY), SLOTS - 1),
        }
    }
}

/// Deals out the slots; see the head of this file.
fn fill(slots: u32, contenders: &[Contender]) -> Box<[BackendId]> {
    if contenders.is_empty() {
        return Box::default();
    }
    let mut table = Table::new(slots);
    let mut takers = takers(slots, contenders);
    for taker in &mut takers {
        taker.take_first(&mut table);
    }
    takers.retain(|taker| taker.quota > 0);

    let mut time = 0;
    while table.free > 0 && !takers.is_empty() {
        // A round is about as many tries as a 64th of the slots, so that hardly two backends try the same slot in it; at
        // least one try each. Powers of two, so that one backend more or less rarely changes where a round ends.
        let (backends, weight) = (takers.len() as u64, takers.iter().map(|taker| taker.weight).sum::<u64>());
        let tries_each = (u64::from(slots) / 64 / backends).max(1);
        let round = (TIME_UNIT >> (weight / backends).ilog2()) << tries_each.ilog2();
        let mut satisfied = false;
        while table.free > 0 && !satisfied {
            time += round;
            for taker in &mut takers {
                satisfied |= taker.try_until(time, &mut table);
            }
        }
        takers.retain(|taker| taker.quota > 0);
    }
    table.owners.into()
}

/// Time, fixed point: the backend of weight 1 makes one try in this time. Even the time in which it tries every slot,
/// 2^16 times as long, is below 2^57.
const TIME_UNIT: u64 = 1 << 40;

/// A backend while the table is filled.
#[derive(Debug)]
struct Taker {
    id: BackendId,
    /// The next slot on its list.
    position: u32,
    skip: u32,
    weight: u64,
    /// Time between its tries, and when the next one is due.
    interval: u64,
    due: u64,
    /// Slots it may still take.
    quota: u32,
}

fn takers(slots: u32, contenders: &[Contender]) -> Vec<Taker> {
    let divisor = contenders.iter().map(|c| u64::from(c.weight)).fold(0, weighted::gcd);
    let weights = || contenders.iter().map(|c| u64::from(c.weight) / divisor);
    let total: u64 = weights().sum();
    let whole = |weight: u64| u32::try_from(u64::from(slots) * weight / total).expect("a part of the slots");
    // Rounding down leaves fewer slots over than there are backends: one each for the first. The quotas of the backends
    // too light for a slot are lifted to one, then the table is full a little before all have their quota.
    let mut left = slots - weights().map(whole).sum::<u32>();
    let taker = |(contender, weight): (&Contender, u64)| {
        let extra = left.min(1);
        left -= extra;
        let quota = (whole(weight) + extra).max(1);
        let Permutation { offset, skip } = contender.list;
        let interval = TIME_UNIT / weight;
        Taker { id: contender.id, position: offset, skip, weight, interval, due: interval, quota }
    };
    contenders.iter().zip(weights()).map(taker).collect()
}

impl Taker {
    /// Takes the first free slot on the list.
    fn take_first(&mut self, table: &mut Table) {
        while !table.take(self.position, self.id) {
            self.position = table.wrap(self.position + self.skip);
        }
        self.position = table.wrap(self.position + self.skip);
        self.quota -= 1;
    }

    /// Makes the tries due until `time`, or until the quota is filled: then true.
    #[inline]
    fn try_until(&mut self, time: u64, table: &mut Table) -> bool {
        // In registers until the end: most tries find the slot taken, and a store each would be most of their cost.
        let (mut due, mut position) = (self.due, self.position);
        while due <= time && self.quota > 0 {
            if table.take(position, self.id) {
                self.quota -= 1;
            }
            due += self.interval;
            position = table.wrap(position + self.skip);
        }
        (self.due, self.position) = (due, position);
        self.quota == 0
    }
}

/// The table while it is filled. Most tries fail, and one bit a slot fits the first-level cache.
#[derive(Debug)]
struct Table {
    slots: u32,
    free: u32,
    taken: Vec<u64>,
    owners: Vec<BackendId>,
}

impl Table {
    fn new(slots: u32) -> Self {
        let (words, length) = (slots.div_ceil(64) as usize, slots as usize);
        Self { slots, free: slots, taken: vec![0; words], owners: vec![BackendId(0); length] }
    }

    /// The slot of a number below twice as many: after the last comes the first.
    #[inline]
    fn wrap(&self, slot: u32) -> u32 {
        slot.checked_sub(self.slots).unwrap_or(slot)
    }

    /// Takes the slot, if it is free.
    #[inline]
    fn take(&mut self, slot: u32, owner: BackendId) -> bool {
        let slot = slot as usize;
        let (word, bit) = (&mut self.taken[slot / 64], 1 << (slot % 64));
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.owners[slot] = owner;
        self.free -= 1;
        true
    }
}

#[cfg(test)]
mod tests;
