//! The tracker in a flow: written by the flow's owner alone, so plain words without ordering are enough.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::super::window::{Offer, Side};
use super::{Passed, Tracker};

/// A [`Tracker`] that can be shared: two sides of four words, what was let pass, and all small things in one.
#[derive(Debug, Default)]
pub(in crate::engine::conntrack) struct TrackerCell([AtomicU32; 14]);

/// Bits of a side in the word of small things, the client's first.
const SIDE_BITS: u32 = 8;
const SIMULTANEOUS: u32 = 1 << 16;
const PASSED_SYN: u32 = 1 << 17;
const PASSED_ACK: u32 = 1 << 18;
const CHALLENGE: u32 = 1 << 19;
const OFFER_SHIFT: u32 = 24;

impl TrackerCell {
    #[inline]
    pub(in crate::engine::conntrack) fn load(&self) -> Tracker {
        let word = |n: usize| self.0[n].load(Relaxed);
        let small = word(8);
        let side = |at: usize, small: u32| Side::unpack([word(at), word(at + 1), word(at + 2), word(at + 3)], small);
        let passed = if small & PASSED_SYN != 0 {
            let offer = Offer::unpack([word(10), word(11), word(12)], small >> OFFER_SHIFT);
            Passed::Syn { offer, challenge: small & CHALLENGE != 0 }
        } else if small & PASSED_ACK != 0 {
            Passed::Ack(word(10))
        } else {
            Passed::Nothing
        };
        Tracker {
            sides: [side(0, small), side(4, small >> SIDE_BITS)],
            isns: [word(9), word(13)],
            passed,
            simultaneous: small & SIMULTANEOUS != 0,
        }
    }

    #[inline]
    pub(in crate::engine::conntrack) fn store(&self, tracker: &Tracker) {
        let (client, a) = tracker.sides[0].pack();
        let (backend, b) = tracker.sides[1].pack();
        let simultaneous = if tracker.simultaneous { SIMULTANEOUS } else { 0 };
        let (memory, passed) = match tracker.passed {
            Passed::Nothing => ([0; 3], 0),
            Passed::Syn { offer, challenge } => {
                let (words, small) = offer.pack();
                (words, PASSED_SYN | if challenge { CHALLENGE } else { 0 } | small << OFFER_SHIFT)
            }
            Passed::Ack(ack) => ([ack, 0, 0], PASSED_ACK),
        };
        let small = a | b << SIDE_BITS | simultaneous | passed;
        let store = |at: usize, word: u32| self.0[at].store(word, Relaxed);
        for n in 0..4 {
            store(n, client[n]);
            store(4 + n, backend[n]);
        }
        store(8, small);
        store(9, tracker.isns[0]);
        for (n, word) in memory.into_iter().enumerate() {
            store(10 + n, word);
        }
        store(13, tracker.isns[1]);
    }
}
