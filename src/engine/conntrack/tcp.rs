//! The TCP tracker: where a connection stands, judged from the middle. A pure function of its memory and a segment.
//!
//! States and transitions are those of Linux' nf_conntrack (requirements, "nf_conntrack's TCP table"), so that an operator
//! finds what he knows; windows are those of van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001),
//! whose four conditions are cited as I-IV below. RSTs follow RFC 5961 3.2: only an exact one ends a connection.

use super::flow::{Direction, State};
use super::window::{Fit, Side};
use crate::wire::{TcpFlags, TcpSegment};

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
#[repr(u8)]
pub(super) enum Kind {
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
        State::Unreplied | State::Replied => return Next::Invalid,
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
    last: Last,
    /// Both ends have sent a SYN: their ACKs, not a SYN-ACK's, will open the connection.
    simultaneous: bool,
}

/// The last segment, as far as the next one may refer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Last {
    kind: Option<Kind>,
    from_client: bool,
    /// Sequence number behind it.
    end: u32,
    /// What a SYN that was let pass offered: should the backend accept it, the connection begins anew with this.
    offer: Side,
    /// A SYN was let pass in LAST-ACK: an ACK may be the challenge to it, not the acknowledgment of a FIN.
    challenged: bool,
}

impl Tracker {
    /// A connection whose first SYN this is.
    pub fn open(syn: &TcpSegment<'_>) -> Self {
        let mut tracker = Self::default();
        tracker.sides[Direction::Original as usize] = Side::from_syn(syn);
        tracker.remember(Kind::Syn, Direction::Original, syn);
        tracker
    }

    /// Judges a segment, and learns from it if it is accepted.
    #[inline]
    pub fn step(&mut self, state: State, direction: Direction, segment: &TcpSegment<'_>) -> Outcome {
        let Some(kind) = Kind::of(segment.flags) else { return Outcome::BadState };
        match next(state, direction, kind) {
            Next::Invalid => Outcome::BadState,
            Next::Ignore => self.ignore(state, direction, kind, segment),
            Next::To(State::SynSent) if state != State::SynSent => match direction {
                Direction::Original => Outcome::Reopen,
                // A backend does not open connections through a service.
                Direction::Reply => Outcome::BadState,
            },
            Next::To(to) => self.follow(state, to, direction, kind, segment),
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
        let mut to = to;
        if kind == Kind::Rst {
            match self.judge_reset(from, direction, segment) {
                Reset::Forged => return Outcome::BadWindow,
                Reset::Answer => return self.accept(State::Close, direction, kind, segment),
                Reset::Inexact => to = from,
                Reset::Exact => {}
            }
        }
        let expects_challenge = self.last.challenged && from == State::LastAck;
        if expects_challenge && kind == Kind::Ack && self.last.from_client != (direction == Direction::Original) {
            self.last.challenged = false;
            return Outcome::Pass;
        }
        if to == State::SynSent2 {
            self.simultaneous = true;
        }
        let opens = from == State::SynReceived && direction == Direction::Reply && kind == Kind::Ack;
        if opens && self.simultaneous {
            to = State::Established;
        }
        let [client, backend] = &mut self.sides;
        let (sender, receiver) = match direction {
            Direction::Original => (client, backend),
            Direction::Reply => (backend, client),
        };
        match Side::admit(sender, receiver, from, direction, segment) {
            Fit::Inside => self.accept(to, direction, kind, segment),
            Fit::Old => Outcome::Pass,
            Fit::Outside => Outcome::BadWindow,
        }
    }

    #[inline]
    fn accept(&mut self, to: State, direction: Direction, kind: Kind, segment: &TcpSegment<'_>) -> Outcome {
        self.remember(kind, direction, segment);
        Outcome::Accept(to)
    }

    #[inline]
    fn remember(&mut self, kind: Kind, direction: Direction, segment: &TcpSegment<'_>) {
        self.last.kind = Some(kind);
        self.last.from_client = direction == Direction::Original;
        self.last.end = segment.seq.wrapping_add(segment.seq_len());
    }

    /// A segment that may mean that the end hosts know more than we: let it pass, note what it says.
    fn ignore(&mut self, state: State, direction: Direction, kind: Kind, segment: &TcpSegment<'_>) -> Outcome {
        let answers_ignored_syn = kind == Kind::SynAck
            && direction == Direction::Reply
            && self.last.kind == Some(Kind::Syn)
            && self.last.from_client
            && segment.ack == self.last.end;
        if answers_ignored_syn {
            // The backend has accepted a SYN that we had let pass (it had forgotten the old connection): follow them.
            self.sides = [self.last.offer, Side::default()];
            return self.follow(State::SynSent, State::SynReceived, direction, kind, segment);
        }
        self.remember(kind, direction, segment);
        if kind == Kind::Syn {
            self.last.offer = Side::from_syn(segment);
            self.last.challenged = state == State::LastAck;
        }
        Outcome::Pass
    }

    /// RFC 5961 3.2, from the middle: what the receiver has acknowledged last is what it expects next.
    fn judge_reset(&self, state: State, direction: Direction, segment: &TcpSegment<'_>) -> Reset {
        if matches!(state, State::FinWait | State::CloseWait | State::LastAck | State::TimeWait | State::Close) {
            // The tuple may have been used again already: nothing we know can be held against it.
            return Reset::Answer;
        }
        let receiver = &self.sides[direction.other() as usize];
        let after_syn = self.last.kind == Some(Kind::Syn);
        if let Some(expected) = receiver.acked().filter(|_| !after_syn) {
            let open = state == State::Established;
            if segment.seq == 0 && !open {
                return Reset::Exact;
            }
            if super::window::before(segment.seq, expected) {
                return Reset::Forged;
            }
            let same_way = self.last.from_client == (direction == Direction::Original);
            let ends_train = self.last.kind == Some(Kind::Ack) && same_way && segment.seq == self.last.end;
            if open && segment.seq != expected && !ends_train {
                return Reset::Inexact;
            }
            return Reset::Exact;
        }
        let answers_last = after_syn && segment.flags.has(TcpFlags::ACK) && segment.ack == self.last.end;
        if answers_last && state != State::SynSent { Reset::Answer } else { Reset::Exact }
    }
}

/// What a RST is worth.
enum Reset {
    /// The receiver will believe it, if it is in the window.
    Exact,
    /// It answers a segment we let pass: no window to hold against it.
    Answer,
    /// The receiver will answer it with a challenge ACK: forward, keep the state.
    Inexact,
    /// Behind what the receiver has acknowledged: nobody sends that but an attacker.
    Forged,
}

mod cell {
    //! The tracker in a flow: written by the flow's owner alone, so plain words without ordering are enough.

    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::{Kind, Last, Side, Tracker};

    /// A [`Tracker`] that can be shared.
    #[derive(Debug, Default)]
    pub(in crate::engine::conntrack) struct TrackerCell([AtomicU32; 17]);

    const KINDS: [Kind; 5] = [Kind::Syn, Kind::SynAck, Kind::Fin, Kind::Ack, Kind::Rst];

    impl TrackerCell {
        #[inline]
        pub(in crate::engine::conntrack) fn load(&self) -> Tracker {
            let word = |n: usize| self.0[n].load(Relaxed);
            let side = |at: usize| Side::from_words([word(at), word(at + 1), word(at + 2), word(at + 3), word(at + 4)]);
            let flags = word(16);
            Tracker {
                sides: [side(0), side(5)],
                last: Last {
                    kind: KINDS.get((flags & 7) as usize).copied(),
                    from_client: flags & 8 != 0,
                    end: word(15),
                    offer: side(10),
                    challenged: flags & 16 != 0,
                },
                simultaneous: flags & 32 != 0,
            }
        }

        #[inline]
        pub(in crate::engine::conntrack) fn store(&self, tracker: &Tracker) {
            let sides = [&tracker.sides[0], &tracker.sides[1], &tracker.last.offer];
            for (n, side) in sides.into_iter().enumerate() {
                for (cell, word) in self.0[n * 5..].iter().zip(side.words()) {
                    cell.store(word, Relaxed);
                }
            }
            let kind = tracker.last.kind.map_or(7, |kind| kind as u32);
            let bits = [(tracker.last.from_client, 8), (tracker.last.challenged, 16), (tracker.simultaneous, 32)];
            let flags = bits.into_iter().filter(|(set, _)| *set).fold(kind, |flags, (_, bit)| flags | bit);
            self.0[15].store(tracker.last.end, Relaxed);
            self.0[16].store(flags, Relaxed);
        }
    }
}

pub(super) use cell::TrackerCell;
