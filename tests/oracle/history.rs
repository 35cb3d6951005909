//! What a connection has seen, where a decision is about that: how far each end may send, and what the two gateways have
//! understood differently without anything to be seen of it.

use std::collections::BTreeSet;

use tungate::engine::conntrack::State;
use tungate::wire::{Offload, Packet, TcpSegment};

use crate::pair::Side;

/// What the two gateways may have understood differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Earlier {
    /// A FIN came again: to the kernel, it was the other side's.
    FinAgain,
    /// A RST of a connection that was not open: the kernel believed it, and tungate did not, or the other way round.
    RstUnbelieved,
    /// A RST that was not exact, of an open connection: to the kernel, all up to it was sent.
    RstInside,
    /// A SYN-ACK that does not acknowledge the SYN, but something a little before it: the kernel believed it.
    SynAckUnbelieved,
    /// A SYN instead of an earlier one that was not answered, with a lower number or no options at all: the kernel goes on
    /// with those of the first.
    SecondSyn,
    /// A segment beyond the window: the kernel may take what it lets pass for less than it is.
    Beyond,
    /// A SYN on a connection that is open.
    SynPassed,
    /// SYNs of a handshake that do not fit each other.
    OddOpening,
    /// A SYN of the backend's on a connection that is over: the kernel has forgotten the connection.
    BackendSyn,
    /// An ACK in the handshake that does not acknowledge the SYN-ACK: the kernel believed it.
    AckUnbelieved,
    /// A RST behind the last byte that was sent, but not the last that was acknowledged: tungate believed it.
    RstAtTheEnd,
    /// A SYN on a connection that was reset: the kernel waits for the answer. An old one in TIME-WAIT: it does not.
    SynWhenOver,
    /// The whole handshake of a connection has come again.
    HandshakeAgain,
}

/// What is known of both senders, the client first.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Behind the last byte that it may send.
    limits: [Option<u32>; 2],
    /// The window scale that it has offered.
    scales: [Option<u8>; 2],
    /// The number of the SYN and that of the SYN-ACK.
    isns: [Option<u32>; 2],
    /// Has sent a FIN.
    finished: [bool; 2],
    /// The last that it has acknowledged.
    acked: [Option<u32>; 2],
    /// The number of the last SYN that came.
    syn: Option<u32>,
    /// The SYN of the connection has come again.
    syn_again: bool,
    pub(crate) earlier: BTreeSet<Earlier>,
}

impl History {
    /// Takes note of a packet, of where tungate thought the connection to stand before and after it, and whether it was
    /// forwarded; whether it is a segment that begins beyond what its sender may send.
    pub(crate) fn note(
        &mut self,
        from: Side,
        packet: &[u8],
        (before, after): (Option<State>, Option<State>),
        forwarded: bool,
    ) -> bool {
        let mut bytes = packet.to_vec();
        let packet = Packet::parse(&mut bytes, Offload::default()).ok();
        let Some(segment) = packet.as_ref().and_then(Packet::tcp) else { return false };
        self.misunderstandings(from, &segment, before, after);
        let is_beyond = self.limits[from as usize].is_some_and(|limit| comes_before(limit, segment.seq));
        if forwarded {
            self.begins_anew(from, &segment, before, after);
            self.windows(from, &segment);
        }
        let (syn, rst) = (segment.flags.0 & 0x02 != 0, segment.flags.0 & 0x04 != 0);
        if is_beyond && rst {
            self.earlier.insert(Earlier::RstUnbelieved);
        }
        if is_beyond && !syn && !rst {
            self.earlier.insert(Earlier::Beyond);
        }
        is_beyond
    }

    fn misunderstandings(&mut self, from: Side, segment: &TcpSegment<'_>, before: Option<State>, after: Option<State>) {
        let (own, other) = (from as usize, 1 - from as usize);
        let [fin, syn, rst, _, ack] = [0, 1, 2, 3, 4].map(|bit| segment.flags.0 >> bit & 1 == 1);
        if fin && self.finished[own] && matches!(before, Some(State::FinWait | State::CloseWait)) {
            self.earlier.insert(Earlier::FinAgain);
        }
        let opening = matches!(before, Some(State::SynSent | State::SynSent2));
        let believed = after == Some(State::Close) && !(opening && from == Side::Clients);
        if rst && before != Some(State::Established) && before != Some(State::Close) && !believed {
            self.earlier.insert(Earlier::RstUnbelieved);
        }
        if rst
            && before == Some(State::Established)
            && after == Some(State::Close)
            && self.acked[other] != Some(segment.seq)
        {
            self.earlier.insert(Earlier::RstAtTheEnd);
        }
        if rst && before == Some(State::Established) && after == before {
            self.earlier.insert(Earlier::RstInside);
        }
        if syn && ack && from == Side::Backends && before == Some(State::SynSent) && after == before {
            self.earlier.insert(Earlier::SynAckUnbelieved);
        }
        let lower = self.isns[own].is_some_and(|isn| comes_before(segment.seq, isn));
        let from_client = from == Side::Clients;
        if syn && !ack && !from_client && before == Some(State::TimeWait) {
            self.earlier.insert(Earlier::BackendSyn);
        }
        if syn && !ack && from_client && before == Some(State::SynSent) && (lower || segment.options.is_empty()) {
            self.earlier.insert(Earlier::SecondSyn);
        }
        let opening = before == Some(State::SynReceived) && after == before;
        if opening && from_client && ack && !syn && !rst {
            self.earlier.insert(Earlier::AckUnbelieved);
        }
        let again = self.isns[own] == Some(segment.seq) && !matches!(before, Some(State::SynSent | State::SynReceived));
        if syn && ack && again && self.syn_again {
            self.earlier.insert(Earlier::HandshakeAgain);
        }
        if syn && !ack && (before == Some(State::Close) || (before == Some(State::TimeWait) && again)) {
            self.earlier.insert(Earlier::SynWhenOver);
        }
        if syn && !ack && from_client {
            self.syn_again = again;
            self.syn = Some(segment.seq);
        }
        let over = matches!(before, None | Some(State::SynSent | State::SynSent2 | State::TimeWait | State::Close));
        if syn && !ack && from_client && !over {
            self.earlier.insert(Earlier::SynPassed);
        }
        let another = self.isns[own].is_some_and(|isn| isn != segment.seq);
        let answers = self.isns[other].is_none_or(|isn| segment.ack == isn.wrapping_add(1));
        let opening = matches!(before, Some(State::SynSent2 | State::SynReceived));
        let by_client = before == Some(State::SynReceived) && ack && from_client;
        if syn && opening && (another || by_client || (ack && !answers)) {
            self.earlier.insert(Earlier::OddOpening);
        }
    }

    /// Forgets the old connection when a new one begins.
    fn begins_anew(&mut self, from: Side, segment: &TcpSegment<'_>, before: Option<State>, after: Option<State>) {
        let syn = segment.flags.0 & 0x02 != 0;
        let first = matches!(before, None | Some(State::SynSent | State::TimeWait | State::Close));
        let another = self.syn != self.isns[0] || self.isns[1] != Some(segment.seq);
        let acknowledges = self.syn.is_some_and(|syn| segment.ack == syn.wrapping_add(1));
        let answered = before != Some(State::SynSent) && after == Some(State::SynReceived) && another && acknowledges;
        if syn && ((from == Side::Clients && first && !self.syn_again) || (from == Side::Backends && answered)) {
            let isns = [self.syn, None];
            *self = Self { earlier: std::mem::take(&mut self.earlier), syn: self.syn, isns, ..Self::default() };
        }
    }

    fn windows(&mut self, from: Side, segment: &TcpSegment<'_>) {
        let (own, other) = (from as usize, 1 - from as usize);
        let (syn, acks) = (segment.flags.0 & 0x02 != 0, segment.flags.0 & 0x10 != 0);
        self.finished[own] |= segment.flags.0 & 0x01 != 0;
        if syn {
            self.scales[own] = segment.options().find(|(kind, _)| *kind == 3).map(|(_, value)| value[0].min(14));
            self.isns[own] = self.isns[own].or(Some(segment.seq));
        }
        if syn && acks && self.limits[own].is_none() {
            // To the kernel, the window that a SYN offers is worth nothing.
            self.limits[own] = Some(segment.seq.wrapping_add(segment.seq_len()));
        }
        if acks {
            let scale = match self.scales {
                [Some(_), Some(_)] if !syn => self.scales[own].unwrap_or_default(),
                _ => 0,
            };
            let limit = segment.ack.wrapping_add(u32::from(segment.window) << scale);
            self.limits[other] = Some(self.limits[other].filter(|old| comes_before(limit, *old)).unwrap_or(limit));
            self.acked[own] = Some(segment.ack);
        }
    }
}

/// In sequence space.
fn comes_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > 1 << 31
}
