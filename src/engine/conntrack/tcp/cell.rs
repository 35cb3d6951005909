//! The tracker in a flow: written by the flow's owner alone, so plain words without ordering are enough.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use super::super::key::Direction;
use super::super::state::State;
use super::super::window::{Fit, Offer, Side, SideCell, before};
use super::{Outcome, Passed, Tracker};
use crate::wire::{TcpFlags, TcpSegment};

/// A [`Tracker`] that can be shared.
#[derive(Debug, Default)]
pub(in crate::engine::conntrack) struct TrackerCell {
    sides: [SideCell; 2],
    isns: [AtomicU32; 2],
    /// The SYN or the ACK that was let pass, as `flags` says.
    passed: [AtomicU32; 2],
    passed_small: AtomicU8,
    flags: AtomicU8,
    /// What is small of the sides.
    smalls: [AtomicU8; 2],
}

const SIMULTANEOUS: u8 = 1;
const PASSED_SYN: u8 = 2;
const PASSED_ACK: u8 = 4;
const CHALLENGE: u8 = 8;
const ADOPTED: u8 = 16;

/// Words of a tracker.
pub(in crate::engine) const WORDS: usize = 13;

impl TrackerCell {
    /// [`Tracker::step`] on what is in here.
    pub(in crate::engine::conntrack) fn step(
        &self,
        state: State,
        direction: Direction,
        segment: &TcpSegment<'_>,
    ) -> Outcome {
        let mut tracker = self.load();
        let outcome = tracker.step(state, direction, segment);
        if matches!(outcome, Outcome::Accept(_) | Outcome::Pass) {
            self.store(&tracker);
        }
        outcome
    }

    /// As [`Self::step`] for a bare ACK, with or without data, of an open connection, which most segments are: to these
    /// nothing but the windows matters, and nothing else is read or written. `None`, and nothing has changed, if more has
    /// to be known.
    #[inline(always)]
    pub(in crate::engine::conntrack) fn slide(&self, direction: Direction, segment: &TcpSegment<'_>) -> Option<Fit> {
        let (mut sender, mut receiver) = (self.side(direction), self.side(direction.other()));
        let fit = Side::admit_plain(&mut sender, &mut receiver, segment);
        if fit == Fit::Inside {
            self.sides[direction as usize].store_as_sender(&self.smalls[direction as usize], &sender);
            self.sides[direction.other() as usize].store_as_receiver(&receiver);
        } else if self.is_adopted() {
            return None;
        }
        Some(fit)
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
        let side = &self.sides[sender as usize];
        if before(side.end(), end) {
            side.set_end(end);
        }
    }

    /// Where the client has got to, if its connection is followed one way: nothing else is kept of one.
    #[inline]
    pub(in crate::engine::conntrack) fn reached(&self) -> u32 {
        self.sides[Direction::Original as usize].end()
    }

    #[inline]
    pub(in crate::engine::conntrack) fn set_reached(&self, reached: u32) {
        self.sides[Direction::Original as usize].set_end(reached);
    }

    /// The connection has gone on elsewhere: where the client has got to is not known.
    pub(in crate::engine::conntrack) fn lose_reached(&self) {
        self.flags.store(self.flags.load(Relaxed) | ADOPTED, Relaxed);
    }

    /// A segment has come from here, which is nowhere near: if that is not known, it is known now.
    #[cold]
    pub(in crate::engine::conntrack) fn find_reached(&self, here: u32) {
        if self.is_adopted() {
            self.flags.store(self.flags.load(Relaxed) & !ADOPTED, Relaxed);
            self.set_reached(here);
        }
    }

    #[inline(always)]
    fn is_adopted(&self) -> bool {
        self.flags.load(Relaxed) & ADOPTED != 0
    }

    /// A cell with this tracker.
    pub(in crate::engine::conntrack) fn of(tracker: &Tracker) -> Self {
        let cell = Self::default();
        cell.store(tracker);
        cell
    }

    /// All of it, for who cannot share it.
    pub(in crate::engine::conntrack) fn words(&self) -> [u32; WORDS] {
        let [client, backend] = self.sides.each_ref().map(SideCell::words);
        let [[a, b], [c, d]] = [&self.isns, &self.passed].map(|words| words.each_ref().map(|word| word.load(Relaxed)));
        let [client_small, backend_small] = &self.smalls;
        let small = [client_small, backend_small, &self.flags, &self.passed_small].map(|byte| byte.load(Relaxed));
        let mut words = [0; WORDS];
        words[..4].copy_from_slice(&client);
        words[4..8].copy_from_slice(&backend);
        words[8..].copy_from_slice(&[u32::from_le_bytes(small), a, b, c, d]);
        words
    }

    pub(in crate::engine::conntrack) fn set_words(&self, words: &[u32; WORDS]) {
        let (sides, rest) = words.as_chunks::<4>();
        for (side, words) in self.sides.iter().zip(sides) {
            side.set_words(*words);
        }
        let [client, backend] = &self.smalls;
        let small = sides[2][0].to_le_bytes();
        for (byte, value) in [client, backend, &self.flags, &self.passed_small].into_iter().zip(small) {
            byte.store(value, Relaxed);
        }
        let words = sides[2][1..].iter().chain(rest);
        for (at, word) in self.isns.iter().chain(&self.passed).zip(words) {
            at.store(*word, Relaxed);
        }
    }

    pub(in crate::engine::conntrack) fn load(&self) -> Tracker {
        let (flags, words) = (self.flags.load(Relaxed), self.passed.each_ref().map(|word| word.load(Relaxed)));
        let passed = if flags & PASSED_SYN != 0 {
            let offer = Offer::unpack(words, self.passed_small.load(Relaxed));
            Passed::Syn { offer, challenge: flags & CHALLENGE != 0 }
        } else if flags & PASSED_ACK != 0 {
            Passed::Ack(words[0])
        } else {
            Passed::Nothing
        };
        Tracker {
            sides: [self.side(Direction::Original), self.side(Direction::Reply)],
            isns: self.isns.each_ref().map(|isn| isn.load(Relaxed)),
            passed,
            simultaneous: flags & SIMULTANEOUS != 0,
            adopted: flags & ADOPTED != 0,
        }
    }

    pub(in crate::engine::conntrack) fn store(&self, tracker: &Tracker) {
        let simultaneous = if tracker.simultaneous { SIMULTANEOUS } else { 0 };
        let adopted = if tracker.adopted { ADOPTED } else { 0 };
        let (words, small, passed) = match tracker.passed {
            Passed::Nothing => ([0; 2], 0, 0),
            Passed::Syn { offer, challenge } => {
                let (words, small) = offer.pack();
                (words, small, PASSED_SYN | if challenge { CHALLENGE } else { 0 })
            }
            Passed::Ack(ack) => ([ack, 0], 0, PASSED_ACK),
        };
        self.flags.store(simultaneous | adopted | passed, Relaxed);
        self.passed_small.store(small, Relaxed);
        for (at, word) in self.passed.iter().zip(words).chain(self.isns.iter().zip(tracker.isns)) {
            at.store(word, Relaxed);
        }
        for (n, side) in tracker.sides.iter().enumerate() {
            self.sides[n].store(&self.smalls[n], side);
        }
    }

    #[inline(always)]
    fn side(&self, of: Direction) -> Side {
        self.sides[of as usize].load(&self.smalls[of as usize])
    }
}
