//! The TCP tracker: where a connection stands, judged from the middle. A pure function of its memory and a segment.
//!
//! States and transitions are those of Linux' nf_conntrack (requirements, "nf_conntrack's TCP table"), so that an operator
//! finds what he knows; windows are those of van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001), see
//! `window.rs`. RSTs follow RFC 5961 3.2: only an exact one ends a connection. What differs from
//! nf_conntrack, and why:
//!
//! - A FIN that comes again from the side that has sent one already changes nothing (R42); there, it counts as the other
//!   side's.
//! - RSTs have to be exact in FIN-WAIT and CLOSE-WAIT, too: a half-closed connection may still carry a long answer (R50).
//!   Elsewhere than in ESTABLISHED an inexact one is forwarded, not believed.
//! - A SYN-ACK has to acknowledge the SYN (R43); there, one that acknowledges up to 66,000 bytes less will do.
//! - A SYN that was let pass is remembered until it is answered, whatever comes in between.
//! - A backend never opens a connection, not even on a tuple in TIME-WAIT.
//! - A connection that was taken over from the other gateway of a pair is followed liberally: `adopted.rs`.

mod adopted;
mod cell;

use super::key::Direction;
use super::state::State;
use super::window::{Fit, Offer, Side, before};
use crate::wire::{TcpFlags, TcpSegment};

pub(super) use cell::TrackerCell;
pub(in crate::engine) use cell::WORDS;

/// What a segment means for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Part of it: forward, refresh, and this is the state now.
    Accept(State),
    /// Forward, but believe nothing: the end hosts will sort it out (RFC 5961 challenge ACKs, old duplicates).
    Pass,
    /// A SYN on a connection that is over: forget it and begin anew (R48).
    Reopen,
    /// It does not fit the state: drop.
    BadState,
    /// It lies outside the window: drop.
    BadWindow,
}

/// The kind of a segment, by its flags. The order is that of the rows of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

impl Kind {
    fn of(flags: TcpFlags) -> Option<Self> {
        if !flags.valid() {
            None
        } else if flags.has(TcpFlags::RST) {
            Some(Self::Rst)
        } else if flags.has(TcpFlags::SYN) {
            Some(if flags.has(TcpFlags::ACK) { Self::SynAck } else { Self::Syn })
        } else if flags.has(TcpFlags::FIN) {
            Some(Self::Fin)
        } else {
            Some(Self::Ack)
        }
    }
}

/// A cell of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    To(State),
    /// Let pass, keep the state.
    Ignore,
    Invalid,
}

const SS: Next = Next::To(State::SynSent);
const S2: Next = Next::To(State::SynSent2);
const SR: Next = Next::To(State::SynReceived);
const ES: Next = Next::To(State::Established);
const FW: Next = Next::To(State::FinWait);
const CW: Next = Next::To(State::CloseWait);
const LA: Next = Next::To(State::LastAck);
const TW: Next = Next::To(State::TimeWait);
const CL: Next = Next::To(State::Close);
const IG: Next = Next::Ignore;
const IV: Next = Next::Invalid;

#[rustfmt::skip]
const ORIGINAL: [[Next; 9]; 5] = [
    // SS  S2  SR  ES  FW  CW  LA  TW  CL
    [SS, S2, IG, IG, IG, IG, IG, SS, SS], // SYN
    [IV, SR, SR, IV, IV, IV, IV, IV, IV], // SYN-ACK
    [IV, IV, FW, FW, LA, LA, LA, TW, CL], // FIN
    [IV, IV, ES, ES, CW, CW, TW, TW, CL], // ACK
    [CL, CL, CL, CL, CL, CL, CL, CL, CL], // RST
];

#[rustfmt::skip]
const REPLY: [[Next; 9]; 5] = [
    // SS  S2  SR  ES  FW  CW  LA  TW  CL
    [S2, S2, IV, IV, IV, IV, IV, SS, IV], // SYN
    [SR, SR, IG, IG, IG, IG, IG, IG, IG], // SYN-ACK
    [IV, IV, FW, FW, LA, LA, LA, TW, CL], // FIN
    [IG, IG, SR, ES, CW, CW, TW, TW, CL], // ACK
    [CL, CL, CL, CL, CL, CL, CL, CL, CL], // RST
];

fn next(state: State, direction: Direction, kind: Kind) -> Next {
    let column = match state {
        State::SynSent => 0,
        State::SynSent2 => 1,
        State::SynReceived => 2,
        State::Established => 3,
        State::FinWait => 4,
        State::CloseWait => 5,
        State::LastAck => 6,
        State::TimeWait => 7,
        State::Close => 8,
        State::Unreplied | State::Replied | State::Assured => return Next::Invalid,
    };
    match direction {
        Direction::Original => ORIGINAL[kind as usize][column],
        Direction::Reply => REPLY[kind as usize][column],
    }
}

/// What is remembered of a connection besides its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    sides: [Side; 2],
    /// Sequence numbers of the SYN that opened it, and of the SYN-ACK.
    isns: [u32; 2],
    passed: Passed,
    /// Both ends have sent a SYN: their ACKs, not a SYN-ACK's, will open the connection.
    simultaneous: bool,
    /// It was not followed from its beginning.
    adopted: bool,
}

/// A segment that was let pass, because the end hosts may know more than we: the answer will tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Passed {
    #[default]
    Nothing,
    /// A client's SYN. A backend that has forgotten the connection accepts it, and then it begins anew; one that has
    /// not answers with a challenge ACK, and in LAST-ACK that must not be taken for the acknowledgment of a FIN.
    Syn { offer: Offer, challenge: bool },
    /// A backend's ACK for a connection older than our SYN. The client answers it with a RST of that sequence number.
    Ack(u32),
}

impl Tracker {
    /// A connection whose first SYN this is.
    pub fn open(syn: &TcpSegment<'_>) -> Self {
        Self::accept(Offer::of(syn))
    }

    fn accept(offer: Offer) -> Self {
        Self { sides: [Side::from(offer), Side::default()], isns: [offer.isn, 0], ..Self::default() }
    }

    /// Judges a segment, and learns from it if it is accepted.
    #[inline]
    pub fn step(&mut self, state: State, direction: Direction, segment: &TcpSegment<'_>) -> Outcome {
        let Some(kind) = Kind::of(segment.flags) else { return Outcome::BadState };
        match (next(state, direction, kind), kind) {
            (Next::Invalid, _) => Outcome::BadState,
            (Next::Ignore, _) => self.let_pass(state, direction, kind, segment),
            (Next::To(_), Kind::Rst) => self.reset(state, direction, segment),
            (Next::To(State::SynSent), _) => self.begin(state, direction, segment),
            (Next::To(to), _) => self.follow(state, to, direction, kind, segment),
        }
    }

    /// A SYN that begins a connection, or means to.
    fn begin(&mut self, state: State, direction: Direction, syn: &TcpSegment<'_>) -> Outcome {
        match (direction, state) {
            (Direction::Reply, _) => Outcome::BadState,
            (Direction::Original, State::SynSent) => {
                // The client has given up its first attempt and makes another; a mere retransmission may have lost its
                // data (RFC 7413 4.1.3), but the backend may still answer the first.
                if syn.seq != self.isns[0] {
                    *self = Self::open(syn);
                }
                Outcome::Accept(State::SynSent)
            }
            // An old duplicate of the SYN that opened the connection opens no other (R42); a client that always begins
            // with the same number opens one if the backend says so.
            (Direction::Original, State::TimeWait) if syn.seq == self.isns[0] => {
                self.passed = Passed::Syn { offer: Offer::of(syn), challenge: false };
                Outcome::Pass
            }
            (Direction::Original, _) => Outcome::Reopen,
        }
    }

    /// A segment that fits the state: does it fit the window, too?
    #[inline]
    fn follow(
        &mut self,
        from: State,
        to: State,
        direction: Direction,
        kind: Kind,
        segment: &TcpSegment<'_>,
    ) -> Outcome {
        let opening = matches!(from, State::SynSent | State::SynSent2);
        if opening && direction == Direction::Reply && kind == Kind::SynAck && !self.acknowledges_syn(segment) {
            self.passed = Passed::Ack(segment.ack); // R43
            return Outcome::Pass;
        }
        if from == State::LastAck && direction == Direction::Reply && kind == Kind::Ack && self.take_challenge() {
            return Outcome::Pass;
        }
        let [client, backend] = self.sides;
        let (mut sender, mut receiver) = match direction {
            Direction::Original => (client, backend),
            Direction::Reply => (backend, client),
        };
        let repeated_fin = kind == Kind::Fin && sender.has_finished();
        match Side::admit(&mut sender, &mut receiver, from, direction, segment) {
            // Who does not acknowledge the SYN-ACK has not seen it, and may have forged his address: a window is too wide
            // a target for that (R39).
            Fit::Inside if from == State::SynReceived && !self.acknowledges_syn_ack(direction, segment) => {
                return Outcome::Pass;
            }
            Fit::Inside => {}
            Fit::Old | Fit::Outside if self.takes_up(direction, kind) => {
                return self.take_up(from, to, direction, segment);
            }
            Fit::Old => return Outcome::Pass,
            Fit::Outside if from == State::Close || self.adopted => return Outcome::Pass, // R45: the ends will find out
            Fit::Outside => return Outcome::BadWindow,
        }
        self.sides = match direction {
            Direction::Original => [sender, receiver],
            Direction::Reply => [receiver, sender],
        };
        self.simultaneous |= to == State::SynSent2;
        if opening && direction == Direction::Reply && kind == Kind::SynAck {
            self.isns[1] = segment.seq;
        }
        match (from, kind) {
            (State::FinWait | State::CloseWait, Kind::Fin) if repeated_fin => Outcome::Accept(from),
            (State::SynReceived, Kind::Ack) if self.simultaneous => Outcome::Accept(State::Established),
            _ => Outcome::Accept(to),
        }
    }

    /// A segment that may mean that the end hosts know more than we.
    fn let_pass(&mut self, state: State, direction: Direction, kind: Kind, segment: &TcpSegment<'_>) -> Outcome {
        match (direction, kind, self.passed) {
            (Direction::Original, Kind::Syn, passed) => {
                let offer = Offer::of(segment);
                // While the handshake lasts, even the same SYN may get another SYN-ACK: that of a SYN cookie. Later it
                // is but an old duplicate.
                let known = state != State::SynReceived && offer.isn == self.isns[0];
                let offer = match passed {
                    Passed::Syn { offer: earlier, .. } if known => earlier,
                    Passed::Nothing | Passed::Syn { .. } | Passed::Ack(_) => offer,
                };
                self.passed = Passed::Syn { offer, challenge: state == State::LastAck };
                Outcome::Pass
            }
            (Direction::Reply, Kind::SynAck, Passed::Syn { offer, .. })
                if offer.is_acknowledged_by(segment) && self.is_another(state, offer, segment) =>
            {
                // The backend has accepted a SYN that we had let pass: follow them.
                let mut anew = Self::accept(offer);
                match anew.follow(State::SynSent, State::SynReceived, direction, kind, segment) {
                    Outcome::Accept(state) => {
                        *self = anew;
                        Outcome::Accept(state)
                    }
                    Outcome::Pass | Outcome::Reopen | Outcome::BadState | Outcome::BadWindow => Outcome::Pass,
                }
            }
            (Direction::Reply, Kind::Ack, _) => {
                self.passed = Passed::Ack(segment.ack);
                Outcome::Pass
            }
            _ => Outcome::Pass,
        }
    }

    /// Whether this SYN-ACK, for a SYN that was let pass, is not that of the connection we know, come again.
    fn is_another(&self, state: State, offer: Offer, syn_ack: &TcpSegment<'_>) -> bool {
        offer.isn != self.isns[0] || state == State::SynReceived || syn_ack.seq != self.isns[1]
    }

    /// RFC 5961 3.2, from the middle: what the receiver has acknowledged last is what it expects next, and so may be
    /// what lies behind the last byte that the sender has sent.
    fn reset(&mut self, state: State, direction: Direction, rst: &TcpSegment<'_>) -> Outcome {
        let over = matches!(state, State::LastAck | State::TimeWait | State::Close);
        if over || (direction == Direction::Reply && self.refuses_syn(state, rst)) {
            return Outcome::Accept(State::Close);
        }
        if state == State::SynSent && direction == Direction::Reply {
            return Outcome::Pass; // RFC 9293 3.10.7.3: without the right acknowledgment the client ignores it, too
        }
        if matches!(self.passed, Passed::Ack(expected) if expected == rst.seq) && state == State::SynSent {
            return Outcome::Pass; // the client clears the way for its SYN, which it will send again
        }
        let (sender, receiver) = (&self.sides[direction as usize], &self.sides[direction.other() as usize]);
        if sender.is_unknown() && receiver.acked().is_none() {
            return Outcome::Pass; // where it is, its receiver knows
        }
        let expected = receiver.acked().unwrap_or(sender.end());
        let inside = !before(rst.seq, expected) && sender.may_send(rst.seq);
        if rst.seq == expected || rst.seq == sender.end() {
            Outcome::Accept(State::Close)
        } else if inside || state != State::Established || self.adopted {
            Outcome::Pass
        } else {
            Outcome::BadWindow
        }
    }

    /// A RST in answer to a SYN: the one that is to open the connection, or one that was let pass.
    fn refuses_syn(&self, state: State, rst: &TcpSegment<'_>) -> bool {
        match (state, self.passed) {
            (State::SynSent, _) if self.acknowledges_syn(rst) => true,
            (State::SynSent2 | State::SynReceived, _) if self.acknowledges_syn(rst) && rst.seq == 0 => true,
            (_, Passed::Syn { offer, .. }) => rst.seq == 0 && offer.is_acknowledged_by(rst),
            _ => false,
        }
    }

    /// Whether a segment of the backend acknowledges the client's SYN, or part of the data with it (RFC 7413).
    fn acknowledges_syn(&self, segment: &TcpSegment<'_>) -> bool {
        Offer::covers(self.isns[0], self.sides[Direction::Original as usize].end(), segment)
    }

    /// Whether a segment of the client acknowledges the backend's SYN-ACK, or part of what was sent with it. Those of the
    /// backend, and of a simultaneous open, are not asked.
    fn acknowledges_syn_ack(&self, direction: Direction, segment: &TcpSegment<'_>) -> bool {
        let backend = &self.sides[Direction::Reply as usize];
        let asked = direction == Direction::Original && !self.simultaneous && !self.adopted;
        !asked || Offer::covers(self.isns[1], backend.end(), segment)
    }

    /// Whether the next ACK of the backend may be the challenge to a SYN that was let pass; true once for each SYN.
    fn take_challenge(&mut self) -> bool {
        match self.passed {
            Passed::Syn { offer, challenge: true } => {
                self.passed = Passed::Syn { offer, challenge: false };
                true
            }
            Passed::Nothing | Passed::Syn { .. } | Passed::Ack(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
