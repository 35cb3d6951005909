//! One side of a TCP connection as seen from the middle, and whether a segment lies within the window.
//!
//! The conditions are van Rooij's (2001), widened as nf_conntrack does, since a segment need only touch the window:
//!
//! ```text
//! I    seq        <= max(sender.max_end, sender.end)                no more than the receiver allows
//! II   seq + len  >= sender.end - receiver.max_window - 1           not long acknowledged
//! III  sack       <= receiver.end                                   acknowledges nothing that was not sent
//! IV   sack       >= receiver.end - max(66000, sender.max_window) - 1
//! ```

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use super::key::Direction;
use super::state::State;
use crate::wire::{TcpFlags, TcpSegment, tcp_options};

/// `a` lies before `b` in sequence space (RFC 9293 3.4).
#[inline]
pub(super) const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > i32::MAX as u32
}

/// What is known of one sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// Behind the highest byte it has sent.
    end: u32,
    /// Behind the highest byte it may send: what its receiver's acknowledgments and windows allow.
    max_end: u32,
    /// The largest window it has offered, scaled; 0 = nothing is known of it.
    max_window: u32,
    /// The highest acknowledgment it has sent.
    max_ack: u32,
    /// Its window scale (RFC 7323 2.3), 14 at most, in the lower half; flags in the upper.
    small: u8,
}

/// Where its window scale stands.
const SCALE: u8 = 15;
/// It has sent the window scale option.
const SCALES: u8 = 0x10;
/// It has sent SACK-permitted.
const SACKS: u8 = 0x20;
/// `max_ack` means something.
const ACKED: u8 = 0x40;
/// It has sent a FIN.
const FINISHED: u8 = 0x80;

/// A window is never taken to be smaller than this when old acknowledgments are judged: a host may have shrunk it.
const LEAST_ACK_WINDOW: u32 = 66_000;
/// RFC 7323 2.3.
const MAX_SCALE: u8 = 14;

/// Where a segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Fit {
    /// In the window.
    Inside,
    /// Before it: a retransmission of what was acknowledged, or a delayed acknowledgment.
    Old,
    /// Beyond it, or acknowledging what was never sent.
    Outside,
}

impl Side {
    /// Behind the highest byte it has sent.
    pub(super) const fn end(&self) -> u32 {
        self.end
    }

    /// The highest acknowledgment it has sent, if any.
    pub(super) fn acked(&self) -> Option<u32> {
        (self.small & ACKED != 0).then_some(self.max_ack)
    }

    /// Whether it has sent a FIN.
    pub(super) const fn has_finished(&self) -> bool {
        self.small & FINISHED != 0
    }

    /// Whether nothing is known of it: it may be anywhere.
    pub(super) const fn is_unknown(&self) -> bool {
        self.max_window == 0
    }

    /// What is known of it wherever it has got to meanwhile.
    pub(super) fn somewhere(&self) -> Self {
        Self { small: self.small & !ACKED, ..Self::default() }
    }

    /// Goes on from a segment, where it does not fit what is known of its sender and receiver. How far the sender may go is
    /// what its receiver can have offered at most.
    pub(super) fn take_up(sender: &mut Self, receiver: &mut Self, segment: &TcpSegment<'_>) {
        let end = segment.seq.wrapping_add(segment.seq_len());
        let offered = u32::from(u16::MAX) << (receiver.small & SCALE);
        let window = u32::from(segment.window) << (sender.small & SCALE);
        sender.reach(end, end.wrapping_add(offered));
        if segment.flags.has(TcpFlags::ACK) {
            receiver.reach(segment.ack, segment.ack.wrapping_add(window));
        }
        sender.sent(segment, end, segment.ack, window.max(1));
    }

    /// It has got at least so far, and may go at least so far: if it is unknown, no further.
    fn reach(&mut self, end: u32, max_end: u32) {
        for (known, now) in [(&mut self.end, end), (&mut self.max_end, max_end)] {
            if self.max_window == 0 || before(*known, now) {
                *known = now;
            }
        }
    }

    /// Condition I. Where its FIN or a super-segment has reached beyond the window, it goes on from there.
    #[inline]
    pub(super) const fn may_send(&self, seq: u32) -> bool {
        !before(self.max_end, seq) || !before(self.end, seq)
    }

    /// Checks a segment that is no RST against the windows and, if it fits, moves them; if not, what is left in
    /// `sender` and `receiver` means nothing.
    #[inline]
    pub(super) fn admit(
        sender: &mut Self,
        receiver: &mut Self,
        state: State,
        direction: Direction,
        segment: &TcpSegment<'_>,
    ) -> Fit {
        let syn = segment.flags.has(TcpFlags::SYN);
        let end = segment.seq.wrapping_add(segment.seq_len());
        let opening = matches!(state, State::SynSent | State::SynSent2 | State::SynReceived);
        if syn && (sender.max_window == 0 || (opening && before(sender.end, end))) {
            sender.begin(receiver, direction, segment);
            if !segment.flags.has(TcpFlags::ACK) {
                return Fit::Inside;
            }
        }
        Self::slide(sender, receiver, end, if syn { 0 } else { sender.small & SCALE }, segment)
    }

    /// [`Self::admit`] for a segment of an open connection with neither SYN nor FIN: nearly every one.
    #[inline(always)]
    pub(super) fn admit_plain(sender: &mut Self, receiver: &mut Self, segment: &TcpSegment<'_>) -> Fit {
        Self::slide(sender, receiver, segment.seq.wrapping_add(segment.payload_len), sender.small & SCALE, segment)
    }

    /// Checks a segment that reaches up to `end` against the windows and moves them.
    #[inline(always)]
    fn slide(sender: &mut Self, receiver: &mut Self, end: u32, scale: u8, segment: &TcpSegment<'_>) -> Fit {
        let (ack, sack) = receiver.acknowledged_by(segment);
        if !sender.may_send(segment.seq) || before(receiver.end, sack) {
            return Fit::Outside; // I, III
        }
        let least_end = sender.end.wrapping_sub(receiver.max_window).wrapping_sub(1);
        let least_ack = receiver.end.wrapping_sub(sender.max_window.max(LEAST_ACK_WINDOW)).wrapping_sub(1);
        if before(end, least_end) || before(sack, least_ack) {
            return Fit::Old; // II, IV
        }
        let window = u32::from(segment.window) << scale;
        sender.sent(segment, end, ack, window.wrapping_add(sack.wrapping_sub(ack)));
        receiver.was_offered(sender, end, sack, window);
        Fit::Inside
    }

    /// A SYN or SYN-ACK (again): what was known of this side is void.
    fn begin(&mut self, receiver: &mut Self, direction: Direction, syn: &TcpSegment<'_>) {
        *self = Self::from(Offer::of(syn));
        // The other side's SYN has offered a window already; a server may use it before its SYN-ACK is answered
        // (RFC 7413 4.2.2).
        let allowed = syn.seq.wrapping_add(1).wrapping_add(receiver.max_window);
        if before(self.max_end, allowed) {
            self.max_end = allowed;
        }
        // RFC 7323 2.2: scaling is on only if both SYNs carry the option.
        if direction == Direction::Reply && self.small & receiver.small & SCALES == 0 {
            self.small &= !SCALE;
            receiver.small &= !SCALE;
        }
    }

    /// What a segment acknowledges of what this side has sent: cumulative, and with SACK blocks (RFC 2018). A segment
    /// without ACK counts as acknowledging everything.
    #[inline(always)]
    fn acknowledged_by(&self, segment: &TcpSegment<'_>) -> (u32, u32) {
        if !segment.flags.has(TcpFlags::ACK) {
            return (self.end, self.end);
        }
        // The usual case: no options, or NOP NOP timestamp.
        let plain =
            segment.options.is_empty() || segment.options.starts_with(&[1, 1, 8, 10]) && segment.options.len() == 12;
        let sack = if plain || self.small & SACKS == 0 { segment.ack } else { sacked(segment.ack, segment.options) };
        (segment.ack, sack)
    }

    #[inline(always)]
    fn sent(&mut self, segment: &TcpSegment<'_>, end: u32, ack: u32, window: u32) {
        self.max_window = self.max_window.max(window);
        if before(self.end, end) {
            self.end = end;
        }
        if segment.flags.has(TcpFlags::ACK) && (self.small & ACKED == 0 || before(self.max_ack, ack)) {
            self.max_ack = ack;
            self.small |= ACKED;
        }
        if segment.flags.has(TcpFlags::FIN) {
            self.small |= FINISHED;
        }
    }

    #[inline(always)]
    fn was_offered(&mut self, sender: &Self, end: u32, sack: u32, window: u32) {
        if before(sender.max_end, end) {
            self.max_window = self.max_window.wrapping_add(end.wrapping_sub(sender.max_end));
        }
        let limit = sack.wrapping_add(window);
        if before(self.max_end.wrapping_sub(1), limit) {
            // A zero window may be probed with one byte.
            self.max_end = limit.wrapping_add(u32::from(window == 0));
        }
    }
}

/// Up to where SACK blocks reach that stand beside this acknowledgment. It takes no segment: one that is lent lies in
/// memory, also where nothing asks for this.
#[cold]
fn sacked(ack: u32, options: &[u8]) -> u32 {
    let mut sack = ack;
    for (_, blocks) in tcp_options(options).filter(|(kind, _)| *kind == 5) {
        for block in blocks.as_chunks::<8>().0 {
            let right = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
            sack = if before(sack, right) { right } else { sack };
        }
    }
    sack
}

/// A [`Side`] that can be shared, and written by one; its small things stand elsewhere, where there is room.
#[derive(Debug, Default)]
pub(super) struct SideCell {
    end: AtomicU32,
    max_end: AtomicU32,
    max_window: AtomicU32,
    max_ack: AtomicU32,
}

impl SideCell {
    #[inline(always)]
    pub(super) fn load(&self, small: &AtomicU8) -> Side {
        Side {
            end: self.end.load(Relaxed),
            max_end: self.max_end.load(Relaxed),
            max_window: self.max_window.load(Relaxed),
            max_ack: self.max_ack.load(Relaxed),
            small: small.load(Relaxed),
        }
    }

    #[inline(always)]
    pub(super) fn store(&self, small: &AtomicU8, side: &Side) {
        self.store_as_sender(small, side);
        self.store_as_receiver(side);
    }

    /// What a segment may have changed of the side that has sent it, if it was no SYN.
    #[inline(always)]
    pub(super) fn store_as_sender(&self, small: &AtomicU8, side: &Side) {
        self.end.store(side.end, Relaxed);
        self.max_window.store(side.max_window, Relaxed);
        self.max_ack.store(side.max_ack, Relaxed);
        small.store(side.small, Relaxed);
    }

    /// And of the other side.
    #[inline(always)]
    pub(super) fn store_as_receiver(&self, side: &Side) {
        self.max_end.store(side.max_end, Relaxed);
        self.max_window.store(side.max_window, Relaxed);
    }

    pub(super) fn words(&self) -> [u32; 4] {
        [&self.end, &self.max_end, &self.max_window, &self.max_ack].map(|word| word.load(Relaxed))
    }

    pub(super) fn set_words(&self, words: [u32; 4]) {
        for (at, word) in [&self.end, &self.max_end, &self.max_window, &self.max_ack].into_iter().zip(words) {
            at.store(word, Relaxed);
        }
    }

    /// Behind the highest byte it has sent.
    #[inline(always)]
    pub(super) fn end(&self) -> u32 {
        self.end.load(Relaxed)
    }

    #[inline(always)]
    pub(super) fn set_end(&self, end: u32) {
        self.end.store(end, Relaxed);
    }
}

/// What a SYN or SYN-ACK says of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Its sequence number.
    pub(super) isn: u32,
    /// Behind the data it carries.
    end: u32,
    window: u16,
    /// As [`Side::small`].
    small: u8,
}

impl Offer {
    pub(super) fn of(syn: &TcpSegment<'_>) -> Self {
        let end = syn.seq.wrapping_add(syn.seq_len());
        let mut offer = Self { isn: syn.seq, end, window: syn.window, small: 0 };
        for (kind, value) in syn.options() {
            match (kind, value) {
                (3, [scale]) => offer.small = offer.small & !SCALE | SCALES | (*scale).min(MAX_SCALE),
                (4, []) => offer.small |= SACKS,
                _ => {}
            }
        }
        offer
    }

    /// Whether this segment acknowledges the SYN, with or without the data that came with it (RFC 7413).
    pub(super) const fn is_acknowledged_by(&self, segment: &TcpSegment<'_>) -> bool {
        Self::covers(self.isn, self.end, segment)
    }

    /// Whether this segment acknowledges something of what a SYN with this number, and data up to `end`, has sent.
    pub(super) const fn covers(isn: u32, end: u32, segment: &TcpSegment<'_>) -> bool {
        segment.flags.has(TcpFlags::ACK) && before(isn, segment.ack) && !before(end, segment.ack)
    }

    /// Two words and a byte: no SYN carries more than fits an IP packet.
    pub(super) const fn pack(&self) -> ([u32; 2], u8) {
        let length = self.end.wrapping_sub(self.isn);
        ([self.isn, length << 16 | self.window as u32], self.small)
    }

    pub(super) const fn unpack([isn, rest]: [u32; 2], small: u8) -> Self {
        let [a, b, ..] = rest.to_le_bytes();
        Self { isn, end: isn.wrapping_add(rest >> 16), window: u16::from_le_bytes([a, b]), small }
    }
}

impl From<Offer> for Side {
    fn from(offer: Offer) -> Self {
        let Offer { end, window, small, .. } = offer;
        Self { end, max_end: end, max_window: u32::from(window).max(1), max_ack: 0, small }
    }
}
