//! Hashes that nobody outside can foresee.

use std::hash::{Hash, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use super::random;

/// foldhash, with nothing in it that is known.
///
/// It XORs what it multiplies with constants, and what is then zero makes everything else vanish. In
/// [`foldhash::fast::FixedState`] these are public, whatever its seed: who chooses the right half of an IPv6 address
/// has all his flows meet. And of one multiplication the high bits are uneven for one seed in forty, if what is hashed are
/// neighbours: hence the quality that has a second.
#[derive(Clone, Debug)]
pub(super) struct Seeded {
    first: u64,
    constants: SharedSeed,
}

impl Seeded {
    /// The same hashes for the same seed.
    pub(super) fn new(seed: u64) -> Self {
        // What is made of zero would be zeros.
        let first = random::another(seed);
        Self { first, constants: SharedSeed::from_u64(random::another(first)) }
    }

    #[inline(always)]
    pub(super) fn hash(&self, value: impl Hash) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.first, &self.constants);
        value.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One client's ports, and neighbours of which each has one.
    #[test]
    fn neighbours_spread_evenly_whatever_the_seed() {
        const KEYS: u32 = 20_000;
        const SHARDS: usize = 32;
        let key = |address: u32, port: u32| {
            let addresses = u64::from_le_bytes([address.to_be_bytes(), [192, 0, 2, 10]].concat().try_into().unwrap());
            u128::from(addresses) | u128::from(port.swap_bytes() >> 16 | 80 << 24) << 64 | 6 << 96
        };
        let ports = |n: u32| key(0x0a00_0001, n + 1_024);
        let neighbours = |n: u32| key(0x0a00_0000 + (n << 8), 4_000);
        for seed in 0..64 {
            let seeded = Seeded::new(seed);
            for counts in [&ports as &dyn Fn(u32) -> u128, &neighbours].map(|key| {
                let mut counts = [0_u32; SHARDS];
                (0..KEYS).for_each(|n| counts[usize::try_from(seeded.hash(key(n)) >> 59).unwrap()] += 1);
                counts
            }) {
                // Seven standard deviations above the mean of 625.
                assert!(counts.iter().all(|n| *n < 800), "seed {seed}: {counts:?}");
            }
        }
    }
}
