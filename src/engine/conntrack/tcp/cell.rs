//! The tracker in a flow: written by the flow's owner alone, so plain words without ordering are enough.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::super::key::Direction;
use super::super::state::State;
use super::super::window::{Fit, Offer, Side, before};
use super::{Outcome, Passed, Tracker};
use crate::wire::{TcpFlags, TcpSegment};

/// A [`Tracker`] that can be shared: two sides of four words, what was let pass, and all small things in one.
#[derive(Debug, Default)]
pub(in crate::engine::conntrack) struct TrackerCell([AtomicU32; WORDS]);

/// Words of a tracker.
pub(in crate::engine) const WORDS: usize = 13;

/// Words of a side, the client's first; the first of them is its end.
const SIDE: usize = 4;
/// Where the other words stand.
const SMALL: usize = 8;
const FIRST_ISN: usize = 9;
const SECOND_ISN: usize = 10;
const MEMORY: usize = 11;

/// Bits of a side in the word of small things, the client's first.
const SIDE_BITS: u32 = 8;
const SIMULTANEOUS: u32 = 1 << 16;
const PASSED_SYN: u32 = 1 << 17;
const PASSED_ACK: u32 = 1 << 18;
const CHALLENGE: u32 = 1 << 19;
const ADOPTED: u32 = 1 << 20;
const OFFER_SHIFT: u32 = 24;

impl TrackerCell {
    /// [`Tracker::step`] on what is in here. Most segments are bare ACKs, with or without data, of an open connection:
    /// to these nothing but the windows matters, and nothing else is read or written.
    #[inline(always)]
    pub(in crate::engine::conntrack) fn step(
        &self,
        state: State,
        direction: Direction,
        segment: &TcpSegment<'_>,
    ) -> Outcome {
        if state == State::Established && segment.flags.is_plain_ack() {
            return self.slide(direction, segment);
        }
        self.step_wholly(state, direction, segment)
    }

    #[cold]
    fn step_wholly(&self, state: State, direction: Direction, segment: &TcpSegment<'_>) -> Outcome {
        let mut tracker = self.load();
        let outcome = tracker.step(state, direction, segment);
        if matches!(outcome, Outcome::Accept(_) | Outcome::Pass) {
            self.store(&tracker);
        }
        outcome
    }

    #[inline(always)]
    fn slide(&self, direction: Direction, segment: &TcpSegment<'_>) -> Outcome {
        let (mut sender, mut receiver) = (self.side(direction), self.side(direction.other()));
        match Side::admit_plain(&mut sender, &mut receiver, segment) {
            Fit::Inside => {
                self.set_side(direction, &sender);
                self.set_side(direction.other(), &receiver);
                Outcome::Accept(State::Established)
            }
            fit @ (Fit::Old | Fit::Outside) => self.miss(fit, direction, segment),
        }
    }

    /// A bare ACK that does not fit what is known.
    #[cold]
    fn miss(&self, fit: Fit, direction: Direction, segment: &TcpSegment<'_>) -> Outcome {
        if self.get(SMALL) & ADOPTED != 0 {
            return self.step_wholly(State::Established, direction, segment);
        }
        if fit == Fit::Old { Outcome::Pass } else { Outcome::BadWindow }
    }

    /// Whether a segment lies in the window, as one does that has moved it. A RST moves none.
    pub(in crate::engine::conntrack) fn believes(&self, direction: Direction, segment: &TcpSegment<'_>) -> bool {
        let (mut sender, mut receiver) = (self.side(direction), self.side(direction.other()));
        let fit = Side::admit(&mut sender, &mut receiver, State::Established, direction, segment);
        fit == Fit::Inside && !segment.flags.has(TcpFlags::RST)
    }

    /// What the sender expects next: the number behind what it has acknowledged, and the acknowledgment of all that it has
    /// sent.
    pub(in crate::engine::conntrack) fn expects(&self, sender: Direction) -> (u32, u32) {
        let (own, other) = (self.side(sender), self.side(sender.other()));
        (own.acked().unwrap_or(other.end()), own.end())
    }

    /// The sender has sent up to here, as turned out later. One word: whoever else writes here meanwhile loses nothing by it.
    pub(in crate::engine::conntrack) fn extend(&self, sender: Direction, end: u32) {
        let at = sender as usize * SIDE;
        if before(self.get(at), end) {
            self.set(at, end);
        }
    }

    /// Where the client has got to, if its connection is followed one way: nothing else is kept of one.
    #[inline]
    pub(in crate::engine::conntrack) fn reached(&self) -> u32 {
        self.get(0)
    }

    #[inline]
    pub(in crate::engine::conntrack) fn set_reached(&self, reached: u32) {
        self.set(0, reached);
    }

    /// The connection has gone on elsewhere: where the client has got to is not known.
    pub(in crate::engine::conntrack) fn lose_reached(&self) {
        self.set(SMALL, self.get(SMALL) | ADOPTED);
    }

    /// A segment has come from here, which is nowhere near: if that is not known, it is known now.
    #[cold]
    pub(in crate::engine::conntrack) fn find_reached(&self, here: u32) {
        if self.get(SMALL) & ADOPTED != 0 {
            self.set(SMALL, self.get(SMALL) & !ADOPTED);
            self.set_reached(here);
        }
    }

    /// A cell with this tracker.
    pub(in crate::engine::conntrack) fn of(tracker: &Tracker) -> Self {
        let cell = Self::default();
        cell.store(tracker);
        cell
    }

    /// All of it, for who cannot share it.
    pub(in crate::engine::conntrack) fn words(&self) -> [u32; WORDS] {
        std::array::from_fn(|at| self.get(at))
    }

    pub(in crate::engine::conntrack) fn set_words(&self, words: &[u32; WORDS]) {
        words.iter().enumerate().for_each(|(at, word)| self.set(at, *word));
    }

    #[inline]
    pub(in crate::engine::conntrack) fn load(&self) -> Tracker {
        let small = self.get(SMALL);
        let passed = if small & PASSED_SYN != 0 {
            let offer = Offer::unpack([self.get(MEMORY), self.get(MEMORY + 1)], small >> OFFER_SHIFT);
            Passed::Syn { offer, challenge: small & CHALLENGE != 0 }
        } else if small & PASSED_ACK != 0 {
            Passed::Ack(self.get(MEMORY))
        } else {
            Passed::Nothing
        };
        Tracker {
            sides: [self.side(Direction::Original), self.side(Direction::Reply)],
            isns: [self.get(FIRST_ISN), self.get(SECOND_ISN)],
            passed,
            simultaneous: small & SIMULTANEOUS != 0,
            adopted: small & ADOPTED != 0,
        }
    }

    #[inline]
    pub(in crate::engine::conntrack) fn store(&self, tracker: &Tracker) {
        let simultaneous = if tracker.simultaneous { SIMULTANEOUS } else { 0 };
        let adopted = if tracker.adopted { ADOPTED } else { 0 };
        let (memory, passed) = match tracker.passed {
            Passed::Nothing => ([0; 2], 0),
            Passed::Syn { offer, challenge } => {
                let (words, small) = offer.pack();
                (words, PASSED_SYN | if challenge { CHALLENGE } else { 0 } | small << OFFER_SHIFT)
            }
            Passed::Ack(ack) => ([ack, 0], PASSED_ACK),
        };
        self.set(SMALL, simultaneous | adopted | passed);
        for (at, word) in (MEMORY..).zip(memory) {
            self.set(at, word);
        }
        self.set(FIRST_ISN, tracker.isns[0]);
        self.set(SECOND_ISN, tracker.isns[1]);
        self.set_side(Direction::Original, &tracker.sides[0]);
        self.set_side(Direction::Reply, &tracker.sides[1]);
    }

    #[inline]
    fn side(&self, of: Direction) -> Side {
        let at = of as usize * SIDE;
        let words = [self.get(at), self.get(at + 1), self.get(at + 2), self.get(at + 3)];
        Side::unpack(words, self.get(SMALL) >> small_shift(of))
    }

    #[inline]
    fn set_side(&self, of: Direction, side: &Side) {
        let (words, small) = side.pack();
        for (at, word) in (of as usize * SIDE..).zip(words) {
            self.set(at, word);
        }
        let before = self.get(SMALL);
        let after = before & !(0xff << small_shift(of)) | small << small_shift(of);
        if after != before {
            self.set(SMALL, after);
        }
    }

    #[inline]
    fn get(&self, at: usize) -> u32 {
        self.0[at].load(Relaxed)
    }

    #[inline]
    fn set(&self, at: usize, word: u32) {
        self.0[at].store(word, Relaxed);
    }
}

/// Where the bits of a side stand in the word of small things.
const fn small_shift(of: Direction) -> u32 {
    match of {
        Direction::Original => 0,
        Direction::Reply => SIDE_BITS,
    }
}
