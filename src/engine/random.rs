//! What the data plane does with the random numbers it is handed. Nothing here draws one: the engine owns the seeded
//! generator, so that the same seed gives the same packets.

/// Scales 64 uniform bits down to `0..n` (Lemire 2019, without the rejection step: the bias is below n / 2^64).
/// 0 if `n` is 0.
#[inline]
pub(in crate::engine) fn below(random: u64, n: u64) -> u64 {
    let (_, high) = random.carrying_mul(n, 0);
    high
}

/// As [`below`], for 32 bits.
#[inline]
pub(in crate::engine) fn below_u32(random: u64, n: u32) -> u32 {
    u32::try_from(below(random, n.into())).expect("below a u32")
}

/// An index of a slice of this length; 0 if it is empty.
#[inline]
pub(in crate::engine) fn index(random: u64, length: usize) -> usize {
    usize::try_from(below(random, length as u64)).expect("below a usize")
}

/// Another number, independent for our purposes, from one already used: the output function of SplitMix64
/// (Steele, Lea, Flood 2014).
#[inline]
pub(in crate::engine) fn another(random: u64) -> u64 {
    let mut z = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_reaches_both_ends_and_nothing_outside() {
        assert_eq!(below(0, 10), 0);
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(u64::MAX, 0), 0);
    }

    /// The first outputs of the reference generator seeded with 0.
    #[test]
    fn another_is_splitmix64() {
        assert_eq!(another(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(another(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }
}
