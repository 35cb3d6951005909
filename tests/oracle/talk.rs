//! A TCP connection in a few words: sequence numbers count from each side's first, as tcpdump shows them.

use tungate::wire::build::{self, Tcp};

use crate::pair::{Arrival, Flow, Met, Pair, Side};
use crate::support::flags;

/// A conversation about to begin.
pub(crate) struct Talk<'p> {
    pub(crate) pair: &'p mut Pair,
    pub(crate) flow: Flow,
    /// The sequence numbers of both SYNs.
    pub(crate) isns: [u32; 2],
    pub(crate) window: u16,
}

impl<'p> Talk<'p> {
    pub(crate) fn new(pair: &'p mut Pair, is_v6: bool) -> Self {
        let flow = pair.flow("web", is_v6);
        Self { pair, flow, isns: [0xffff_fe00, 0x7fff_fff0], window: 64_000 }
    }

    /// SYN, SYN-ACK, ACK.
    pub(crate) fn open(pair: &'p mut Pair, is_v6: bool) -> Self {
        let mut talk = Self::new(pair, is_v6);
        talk.handshake();
        talk
    }

    pub(crate) fn handshake(&mut self) {
        self.client("SYN", 0, 0, 0).same(1);
        self.backend("SYN ACK", 0, 1, 0).same(1);
        self.client("ACK", 1, 1, 0).same(1);
    }

    /// Open, and each side has sent 100 bytes.
    pub(crate) fn under_way(pair: &'p mut Pair, is_v6: bool) -> Self {
        let mut talk = Self::open(pair, is_v6);
        talk.client("ACK PSH", 1, 1, 100).same(1);
        talk.backend("ACK PSH", 1, 101, 100).same(1);
        talk.client("ACK", 101, 101, 0).same(1);
        talk
    }

    /// A segment of the client's, its sequence number and acknowledgment relative.
    pub(crate) fn client(&mut self, names: &str, seq: i64, ack: i64, len: usize) -> Met {
        self.says(Side::Clients, names, (seq, ack), &[], len)
    }

    pub(crate) fn backend(&mut self, names: &str, seq: i64, ack: i64, len: usize) -> Met {
        self.says(Side::Backends, names, (seq, ack), &[], len)
    }

    pub(crate) fn says(&mut self, from: Side, names: &str, at: (i64, i64), options: &[u8], len: usize) -> Met {
        let arrival = self.arrival(from, names, at, options, len);
        self.pair.receives(&self.flow, vec![arrival])
    }

    /// The packet of a segment.
    pub(crate) fn arrival(
        &self,
        from: Side,
        names: &str,
        (seq, ack): (i64, i64),
        options: &[u8],
        len: usize,
    ) -> Arrival {
        let payload: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0]).collect();
        let [client, backend] = self.isns;
        let (own, other) = if from == Side::Clients { (client, backend) } else { (backend, client) };
        let flags = flags(names);
        let acks = flags.0 & 0x10 != 0;
        let segment = Tcp {
            seq: relative(own, seq),
            ack: if acks { relative(other, ack) } else { 0 },
            flags,
            window: self.window,
            options,
            payload: &payload,
        };
        let Flow { client, vip, backend, .. } = self.flow;
        match from {
            Side::Clients => self.pair.by_client(build::tcp(client, vip, &segment)),
            Side::Backends => self.pair.by_backend(&self.flow, |to| build::tcp(backend, to, &segment)),
        }
    }
}

/// That many bytes from a sequence number.
fn relative(from: u32, bytes: i64) -> u32 {
    u32::try_from((i64::from(from) + bytes).rem_euclid(1 << 32)).unwrap()
}
