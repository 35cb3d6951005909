//! One side of a TCP connection as seen from the middle, and whether a segment lies within the window.

use super::flow::{Direction, State};
use crate::wire::{TcpFlags, TcpSegment};

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
    /// Its window scale (RFC 7323 2.3), 14 at most.
    scale: u8,
    flags: u8,
}

/// It has sent the window scale option.
const SCALES: u8 = 1;
/// It has sent SACK-permitted.
const SACKS: u8 = 2;
/// `max_ack` means something.
const ACKED: u8 = 4;

/// A window is never taken to be smaller than this when old acknowledgments are judged: a host may have shrunk it.
const LEAST_ACK_WINDOW: u32 = 66_000;
/// RFC 7323 2.3.
const MAX_SCALE: u8 = 14;

/// Where a segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// In the window.
    Inside,
    /// Before it: a retransmission of what was acknowledged, or a delayed acknowledgment.
    Old,
    /// Beyond it, or acknowledging what was never sent.
    Outside,
}

impl Side {
    /// The sender of this SYN or SYN-ACK.
    pub(super) fn from_syn(syn: &TcpSegment<'_>) -> Self {
        let end = syn.seq.wrapping_add(syn.seq_len());
        let mut side = Self { end, max_end: end, max_window: u32::from(syn.window).max(1), ..Self::default() };
        for (kind, value) in syn.options() {
            match (kind, value) {
                (3, [scale]) => {
                    side.scale = (*scale).min(MAX_SCALE);
                    side.flags |= SCALES;
                }
                (4, []) => side.flags |= SACKS,
                _ => {}
            }
        }
        side
    }

    /// The highest acknowledgment it has sent, if any.
    pub(super) fn acked(&self) -> Option<u32> {
        (self.flags & ACKED != 0).then_some(self.max_ack)
    }

    /// Checks a segment against the windows and, if it fits, moves them.
    #[inline]
    pub(super) fn admit(
        sender: &mut Self,
        receiver: &mut Self,
        state: State,
        direction: Direction,
        segment: &TcpSegment<'_>,
    ) -> Fit {
        let syn = segment.flags.has(TcpFlags::SYN);
        let mut end = segment.seq.wrapping_add(segment.seq_len());
        let opening = matches!(state, State::SynSent | State::SynSent2 | State::SynReceived);
        if syn && (sender.max_window == 0 || (opening && before(sender.end, end))) {
            sender.begin(receiver, direction, segment);
            if !segment.flags.has(TcpFlags::ACK) {
                return Fit::Inside;
            }
        } else if sender.max_window == 0 {
            sender.join(receiver, segment, end);
        }

        let mut seq = segment.seq;
        if segment.flags.has(TcpFlags::RST) && seq == 0 && matches!(state, State::SynSent | State::SynSent2) {
            (seq, end) = (sender.end, sender.end);
        }
        let (ack, sack) = receiver.acknowledged_by(segment);
        if !before(seq, sender.max_end.wrapping_add(1)) || !before(sack, receiver.end.wrapping_add(1)) {
            return Fit::Outside; // I and III
        }
        let window_start = sender.end.wrapping_sub(receiver.max_window).wrapping_sub(1);
        let least_ack = receiver.end.wrapping_sub(sender.max_window.max(LEAST_ACK_WINDOW)).wrapping_sub(1);
        if (receiver.max_window != 0 && !before(window_start, end)) || !before(least_ack, sack) {
            return Fit::Old; // II and IV
        }
        let window = u32::from(segment.window) << if syn { 0 } else { sender.scale };
        sender.sent(segment, end, ack, window.wrapping_add(sack.wrapping_sub(ack)));
        receiver.was_offered(sender, end, sack, window);
        Fit::Inside
    }

    /// A SYN or SYN-ACK (again): what was known of this side is void.
    fn begin(&mut self, receiver: &mut Self, direction: Direction, syn: &TcpSegment<'_>) {
        *self = Self::from_syn(syn);
        // RFC 7323 2.2: scaling is on only if both SYNs carry the option.
        if direction == Direction::Reply && self.flags & receiver.flags & SCALES == 0 {
            self.scale = 0;
            receiver.scale = 0;
        }
    }

    /// The first segment seen of this side is none that begins: take it as it is.
    fn join(&mut self, receiver: &mut Self, segment: &TcpSegment<'_>, end: u32) {
        let (_, sack) = receiver.acknowledged_by(segment);
        self.end = end;
        self.max_window = (u32::from(segment.window) << self.scale).max(1);
        self.max_end = end.wrapping_add(self.max_window);
        if receiver.max_window == 0 {
            receiver.end = sack;
            receiver.max_end = sack;
        } else if sack == receiver.end.wrapping_add(1) {
            // The answer to a keep-alive.
            receiver.end = receiver.end.wrapping_add(1);
        }
    }

    /// What a segment acknowledges of what this side has sent: cumulative, and with SACK blocks (RFC 2018). A segment
    /// without ACK, or a RST with an empty one, counts as acknowledging everything.
    #[inline]
    fn acknowledged_by(&self, segment: &TcpSegment<'_>) -> (u32, u32) {
        let blank_reset = segment.flags.has(TcpFlags::RST) && segment.ack == 0;
        if !segment.flags.has(TcpFlags::ACK) || blank_reset {
            return (self.end, self.end);
        }
        let mut sack = segment.ack;
        // The usual case: no options, or NOP NOP timestamp.
        let plain =
            segment.options.is_empty() || segment.options.starts_with(&[1, 1, 8, 10]) && segment.options.len() == 12;
        if self.flags & SACKS != 0 && !plain {
            for (_, blocks) in segment.options().filter(|(kind, _)| *kind == 5) {
                for block in blocks.as_chunks::<8>().0 {
                    let right = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
                    sack = if before(sack, right) { right } else { sack };
                }
            }
        }
        (segment.ack, sack)
    }

    #[inline]
    fn sent(&mut self, segment: &TcpSegment<'_>, end: u32, ack: u32, window: u32) {
        self.max_window = self.max_window.max(window);
        if before(self.end, end) {
            self.end = end;
        }
        if segment.flags.has(TcpFlags::ACK) && (self.flags & ACKED == 0 || before(self.max_ack, ack)) {
            self.max_ack = ack;
            self.flags |= ACKED;
        }
    }

    #[inline]
    fn was_offered(&mut self, sender: &Self, end: u32, sack: u32, window: u32) {
        if self.max_window != 0 && before(sender.max_end, end) {
            self.max_window = self.max_window.wrapping_add(end.wrapping_sub(sender.max_end));
        }
        let limit = sack.wrapping_add(window);
        if before(self.max_end.wrapping_sub(1), limit) {
            // A zero window may be probed with one byte.
            self.max_end = limit.wrapping_add(u32::from(window == 0));
        }
    }

    #[inline]
    pub(super) const fn words(&self) -> [u32; 5] {
        let small = self.scale as u32 | (self.flags as u32) << 8;
        [self.end, self.max_end, self.max_window, self.max_ack, small]
    }

    #[inline]
    pub(super) const fn from_words([end, max_end, max_window, max_ack, small]: [u32; 5]) -> Self {
        let [scale, flags, ..] = small.to_le_bytes();
        Self { end, max_end, max_window, max_ack, scale, flags }
    }
}
