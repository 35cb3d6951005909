//! A host that keeps to RFC 9293, as far as a gateway can tell: what it sends is legal, when it sends is the test's.
//!
//! Bytes are counted from the SYN in 64 bits, and turned into sequence numbers on the wire.

use super::*;

/// A segment on the wire.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) from: Direction,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) flags: TcpFlags,
    pub(super) options: Vec<u8>,
    pub(super) len: u32,
}

impl Wire {
    pub(super) fn segment(&self) -> TcpSegment<'_> {
        let Self { seq, ack, window, flags, ref options, len, .. } = *self;
        TcpSegment { seq, ack, window, flags, options, payload_len: len }
    }
}

/// What the ends have agreed on, or would.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) isn: u32,
    pub(super) scale: Option<u8>,
    pub(super) sack: bool,
    /// Bytes of its receive buffer.
    pub(super) buffer: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Listening,
    SynSent,
    SynReceived,
    Open,
    /// It has sent or received a RST, and knows nothing any more.
    Dead,
}

#[derive(Debug)]
pub(super) struct Host {
    side: Direction,
    habits: Habits,
    stage: Stage,
    peer_isn: u32,
    scales: Option<[u8; 2]>,
    sacks: bool,
    /// Sent and acknowledged, sent, and may be sent.
    acked: u64,
    sent: u64,
    allowed: u64,
    probing: bool,
    /// Where its FIN stands, once it has closed.
    fin: Option<u64>,
    received: u64,
    /// Received out of order.
    islands: Vec<(u64, u64)>,
    unread: u64,
    promised: u64,
    pub(super) has_sent_fin: bool,
    pub(super) has_sent_rst: bool,
}

impl Host {
    pub(super) fn new(side: Direction, habits: Habits) -> Self {
        let stage = if side == Original { Stage::SynSent } else { Stage::Listening };
        Self {
            side,
            habits,
            stage,
            peer_isn: 0,
            scales: None,
            sacks: false,
            acked: 0,
            sent: u64::from(side == Original),
            allowed: 1,
            probing: false,
            fin: None,
            received: 0,
            islands: Vec::new(),
            unread: 0,
            promised: 0,
            has_sent_fin: false,
            has_sent_rst: false,
        }
    }

    pub(super) fn next_seq(&self) -> u32 {
        self.seq(self.sent)
    }

    pub(super) fn expects(&self, seq: u32) -> bool {
        self.stage == Stage::Open && seq == self.peer_seq(self.received)
    }

    /// The first segment of the client, or the last of either that may have been lost, again.
    pub(super) fn retransmits(&mut self, from: u64, len: u32) -> Option<Wire> {
        match self.stage {
            Stage::SynSent => Some(Wire { options: self.syn_options(), ..self.wire(SYN, 0, 0) }),
            Stage::SynReceived => Some(Wire { options: self.syn_options(), ..self.wire(SYN_ACK, 0, 0) }),
            Stage::Open if self.acked < self.sent => {
                let from = self.acked + from % (self.sent - self.acked);
                Some(self.range(from, (from + u64::from(len)).min(self.sent)))
            }
            Stage::Open | Stage::Listening | Stage::Dead => None,
        }
    }

    /// New data, as far as the window allows; a FIN behind it if this side has closed.
    pub(super) fn sends(&mut self, len: u32) -> Option<Wire> {
        if self.stage != Stage::Open || self.fin.is_some_and(|fin| self.sent > fin) {
            return None;
        }
        let from = self.sent;
        let wanted = from + u64::from(len);
        let to = self.fin.map_or(wanted, |fin| wanted.min(fin)).min(self.allowed.max(from));
        self.sent = to;
        if self.fin == Some(to) && to < self.allowed {
            self.sent += 1; // a FIN takes room in the window, too
        }
        (self.sent > from).then(|| self.range(from, self.sent))
    }

    pub(super) fn acknowledges(&self) -> Option<Wire> {
        (self.stage == Stage::Open).then(|| self.wire(ACK, self.sent, 0))
    }

    /// RFC 9293 3.8.4: an old byte, or none, to have the other side answer.
    pub(super) fn keeps_alive(&self, garbage: u32) -> Option<Wire> {
        (self.stage == Stage::Open && self.sent == self.acked).then(|| self.wire(ACK, self.sent - 1, garbage))
    }

    /// RFC 9293 3.8.6.1: one byte into a closed window.
    pub(super) fn probes(&mut self) -> Option<Wire> {
        let stuck = self.stage == Stage::Open && self.sent == self.acked && self.probing && self.fin.is_none();
        stuck.then(|| {
            self.sent += 1;
            self.range(self.sent - 1, self.sent)
        })
    }

    pub(super) fn reads(&mut self, bytes: u64) {
        self.unread = self.unread.saturating_sub(bytes);
    }

    pub(super) fn closes(&mut self) {
        if self.stage == Stage::Open && self.fin.is_none() {
            self.fin = Some(self.sent);
        }
    }

    pub(super) fn aborts(&mut self) -> Option<Wire> {
        let open = matches!(self.stage, Stage::Open | Stage::SynReceived);
        let rst = open.then(|| self.wire(RST_ACK, self.sent, 0));
        if open {
            self.stage = Stage::Dead;
            self.has_sent_rst = true;
        }
        rst
    }

    /// Takes a segment, and answers at once where RFC 9293 says so.
    pub(super) fn receives(&mut self, segment: &TcpSegment<'_>) -> Option<Wire> {
        let flags = segment.flags;
        match self.stage {
            Stage::Dead if flags.has(RST) => None,
            Stage::Dead => Some(self.knows_nothing(segment)),
            Stage::Listening if flags == SYN => self.accepts(segment),
            Stage::Listening => None,
            Stage::SynSent => self.is_answered(segment),
            Stage::SynReceived | Stage::Open => self.goes_on(segment),
        }
    }

    fn accepts(&mut self, syn: &TcpSegment<'_>) -> Option<Wire> {
        self.learns(syn);
        self.stage = Stage::SynReceived;
        self.sent = 1;
        self.retransmits(0, 0)
    }

    fn is_answered(&mut self, segment: &TcpSegment<'_>) -> Option<Wire> {
        let right = segment.flags.has(ACK) && segment.ack == self.seq(1);
        if segment.flags.has(RST) {
            if right {
                self.stage = Stage::Dead;
            }
            return None;
        }
        if segment.flags == SYN_ACK && right {
            self.learns(segment);
            self.stage = Stage::Open;
            self.acked = 1;
            return self.acknowledges();
        }
        segment.flags.has(ACK).then(|| Wire { seq: segment.ack, ..self.wire(RST, 0, 0) })
    }

    fn goes_on(&mut self, segment: &TcpSegment<'_>) -> Option<Wire> {
        let at = self.offset(segment.seq, self.peer_isn, self.received);
        let end = at + i64::from(segment.payload_len) + i64::from(segment.flags.has(TcpFlags::FIN));
        let received = i64::try_from(self.received).unwrap();
        let right = i64::try_from(self.promised).unwrap();
        if segment.flags.has(RST) {
            if at == received {
                self.stage = Stage::Dead;
                return None;
            }
            return if at > received && at < right { self.challenge() } else { None };
        }
        if segment.flags.has(SYN) && self.stage == Stage::SynReceived && !segment.flags.has(ACK) {
            return if at == 0 { self.retransmits(0, 0) } else { self.challenge() };
        }
        if segment.flags.has(SYN) || end < received || at > right || !segment.flags.has(ACK) {
            return self.challenge();
        }
        let acked = self.offset(segment.ack, self.habits.isn, self.acked);
        if acked > i64::try_from(self.sent).unwrap() {
            return self.challenge();
        }
        self.is_acknowledged(u64::try_from(acked).unwrap_or(0), segment.window);
        if self.stage == Stage::SynReceived && acked >= 1 {
            self.stage = Stage::Open;
        }
        if self.stage == Stage::Open && end > at {
            self.takes(u64::try_from(at.max(received)).unwrap(), u64::try_from(end.min(right + 1)).unwrap());
            return self.acknowledges();
        }
        if end < received || at < received { self.challenge() } else { None }
    }

    /// RFC 5961, and RFC 9293 for a segment that cannot be accepted: says where it stands.
    fn challenge(&self) -> Option<Wire> {
        Some(self.wire(ACK, self.sent, 0))
    }

    fn is_acknowledged(&mut self, acked: u64, window: u16) {
        let scale = self.scales.map_or(0, |[_, theirs]| theirs);
        if acked >= self.acked {
            self.acked = acked;
            self.allowed = self.allowed.max(acked + (u64::from(window) << scale));
            self.probing = window == 0;
        }
    }

    fn takes(&mut self, from: u64, to: u64) {
        self.islands.push((from, to));
        self.islands.sort_unstable();
        let before = self.received;
        for (from, to) in &self.islands {
            if *from <= self.received {
                self.received = self.received.max(*to);
            }
        }
        self.islands.retain(|(_, to)| *to > self.received);
        self.unread += self.received - before;
    }

    fn learns(&mut self, syn: &TcpSegment<'_>) {
        self.peer_isn = syn.seq;
        self.received = 1;
        let option = |wanted| syn.options().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let theirs = option(3).map(|value| value[0]);
        self.scales = self.habits.scale.zip(theirs).map(|(own, theirs)| [own, theirs]);
        self.sacks = self.habits.sack && option(4).is_some();
        self.allowed = 1 + u64::from(syn.window);
    }

    fn knows_nothing(&mut self, segment: &TcpSegment<'_>) -> Wire {
        self.has_sent_rst = true;
        if segment.flags.has(ACK) {
            return Wire { seq: segment.ack, ack: 0, ..self.wire(RST, 0, 0) };
        }
        Wire { seq: 0, ack: segment.seq.wrapping_add(segment.seq_len()), ..self.wire(RST_ACK, 0, 0) }
    }

    /// The bytes of this range, and the FIN if it lies inside.
    fn range(&mut self, from: u64, to: u64) -> Wire {
        let fin = self.fin.is_some_and(|fin| to > fin);
        self.has_sent_fin |= fin;
        let len = u32::try_from(to - from).unwrap() - u32::from(fin);
        self.wire(if fin { FIN_ACK } else { ACK }, from, len)
    }

    fn syn_options(&self) -> Vec<u8> {
        // A SYN-ACK offers only what the SYN did.
        let answers = self.stage == Stage::SynReceived;
        let mut options = Vec::new();
        if let Some(scale) = self.habits.scale.filter(|_| !answers || self.scales.is_some()) {
            options.extend([1, 3, 3, scale]);
        }
        if self.habits.sack && (!answers || self.sacks) {
            options.extend([1, 1, 4, 2]);
        }
        options
    }

    fn wire(&self, flags: TcpFlags, from: u64, len: u32) -> Wire {
        let mut options = Vec::new();
        if let Some((left, right)) = self.islands.last().filter(|_| self.sacks && flags == ACK && len == 0) {
            options.extend([1, 1, 5, 10]);
            options.extend(self.peer_seq(*left).to_be_bytes());
            options.extend(self.peer_seq(*right).to_be_bytes());
        }
        let ack = if flags.has(ACK) { self.peer_seq(self.received) } else { 0 };
        Wire { from: self.side, seq: self.seq(from), ack, window: self.window(flags), flags, options, len }
    }

    /// The window it offers now.
    fn window(&self, flags: TcpFlags) -> u16 {
        let free = u64::from(self.habits.buffer).saturating_sub(self.unread);
        let scale = self.scales.map_or(0, |[own, _]| own);
        let scale = if flags.has(SYN) { 0 } else { scale };
        u16::try_from(free >> scale).unwrap_or(u16::MAX)
    }

    /// Notes what it has just promised: it never takes a window back.
    pub(super) fn has_said(&mut self, wire: &Wire) {
        let scale = self.scales.map_or(0, |[own, _]| own);
        let scale = if wire.flags.has(SYN) { 0 } else { scale };
        self.promised = self.promised.max(self.received + (u64::from(wire.window) << scale));
    }

    fn seq(&self, offset: u64) -> u32 {
        wrapped(self.habits.isn, offset)
    }

    fn peer_seq(&self, offset: u64) -> u32 {
        wrapped(self.peer_isn, offset)
    }

    /// Where a sequence number lies, counted from its side's SYN, given that it is near `near`.
    fn offset(&self, seq: u32, isn: u32, near: u64) -> i64 {
        i64::try_from(near).unwrap() + i64::from(seq.wrapping_sub(wrapped(isn, near)).cast_signed())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
fn wrapped(isn: u32, offset: u64) -> u32 {
    isn.wrapping_add(offset as u32)
}
