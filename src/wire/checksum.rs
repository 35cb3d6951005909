//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! All values are 16-bit words in network order, read as numbers; a *sum* is the folded one's complement sum before the
//! final complement, a *delta* the sum of `~old + new` over all words that change.

use super::{Address, Protocol};

/// Folded one's complement sum of the bytes, an odd last byte padded with zero.
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    // 32-bit words into a 64-bit accumulator: the compiler vectorises it, and carries cannot be lost below 16 GiB. The
    // byte order of the words does not matter to the sum (RFC 1071 2.B): one swap at the end.
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0u8; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(total))
}

/// [`sum`] of an IPv4 header without options: what nearly every packet begins with.
#[inline(always)]
pub fn sum_of_header(header: &[u8; 20]) -> u16 {
    let (words, _) = header.as_chunks::<4>();
    u16::from_be(fold(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()))
}

/// Sum of the pseudo-header of this family (RFC 793 3.1, RFC 8200 8.1). `length` is the upper layer's, header included.
pub fn pseudo_header(source: Address, destination: Address, protocol: Protocol, length: usize) -> u16 {
    let addresses =
        u64::from(sum(source.header_bytes())) + u64::from(sum(destination.header_bytes())) + u64::from(protocol.0);
    fold(addresses + length as u64)
}

/// One's complement addition.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// The delta of what does not change. Of the two zeros of one's complement, the one that leaves both as they are.
pub const NO_CHANGE: u16 = 0;

/// The delta of replacing one word by another.
#[inline]
pub const fn word_delta(old: u16, new: u16) -> u16 {
    add(!old, new)
}

/// The delta of replacing `old` by `new`, of equal and even length.
pub fn delta(old: &[u8], new: &[u8]) -> u16 {
    debug_assert!(old.len() == new.len() && old.len().is_multiple_of(2), "a delta is over whole words");
    add(!sum(old), sum(new))
}

/// RFC 1624 equation 3: `HC' = ~(~HC + ~m + m')`. A wrong checksum stays wrong.
#[inline]
pub const fn update(checksum: u16, delta: u16) -> u16 {
    !add(!checksum, delta)
}

/// Folds a wide sum into 16 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "two folds of a 64-bit sum leave at most 17 bits, the last 16")]
pub const fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    #[test]
    fn r19_rfc_1624_example_gives_zero_not_all_ones() {
        // RFC 1624 section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285; equation 2 would give 0xFFFF.
        assert_eq!(update(0xdd2f, word_delta(0x5555, 0x3285)), 0x0000);
    }

    proptest! {
        #[test]
        fn sum_equals_the_naive_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(sum(&bytes), naive(&bytes));
        }

        #[test]
        fn an_update_equals_a_recomputation(mut bytes in proptest::collection::vec(any::<u8>(), 20..60), at in 0usize..8, new: [u8; 4]) {
            bytes.truncate(bytes.len() / 2 * 2);
            bytes[10] |= 1; // a header is never all zero
            let before = !sum(&bytes);
            let change = delta(&bytes[at * 2..at * 2 + 4], &new);
            bytes[at * 2..at * 2 + 4].copy_from_slice(&new);
            prop_assume!(bytes.iter().any(|b| *b != 0));
            prop_assert_eq!(update(before, change), !sum(&bytes));
        }
    }
}
