//! What is said inside a tunnel: the least that a check needs.

use super::web::Web;
use crate::config::{Check, UdpCheck};
use crate::control::health::{Outcome, Query, Reason, TunnelFault, http};
use crate::engine::Instant;
use crate::wire::build::{self, Tcp};
use crate::wire::{Endpoint, Packet, TcpFlags};

/// One question's own.
#[derive(Debug)]
pub(super) struct Talk {
    /// 32 bits that an answer, or an error about the question, has to show.
    mark: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A SYN; a SYN-ACK is all that it takes, and is answered with a RST: no server's accept() ever sees it.
    Handshake,
    /// A page.
    Web(Box<Web>),
    /// A datagram.
    Datagram(UdpCheck),
    /// A ping.
    Echo,
}

/// Packets to be sent, and what an answer says, if it is clear.
pub(super) type Heard = (Vec<Vec<u8>>, Option<Outcome>);

impl Talk {
    pub(super) fn new(query: &Query, source: Endpoint, random: u64, now: Instant) -> Self {
        let [_, _, _, _, mark @ ..] = random.to_be_bytes();
        let kind = match &query.check {
            Check::Tcp => Kind::Handshake,
            Check::Http(check) => Kind::Web(Box::new(Web::new(check, query.endpoint, source, random, now))),
            Check::Udp(check) => Kind::Datagram(check.clone()),
            Check::Icmp | Check::None => Kind::Echo,
        };
        Self { mark: u32::from_be_bytes(mark), kind }
    }

    /// The first packets.
    pub(super) fn open(&mut self, query: &Query, source: Endpoint, now: Instant) -> Vec<Vec<u8>> {
        match &mut self.kind {
            Kind::Handshake => vec![self.segment(query, source, TcpFlags::SYN, self.mark)],
            Kind::Web(web) => web.poll(now),
            Kind::Datagram(check) => vec![build::udp(source, query.endpoint, check.send.as_bytes())],
            Kind::Echo => {
                let (from, to) = (source.address, query.endpoint.address);
                vec![build::icmp(from, to, self.echo(from.is_v4(), source.port))]
            }
        }
    }

    /// Half of the time is over, or this itself wanted to be called.
    pub(super) fn repeat(&mut self, query: &Query, source: Endpoint, now: Instant) -> Vec<Vec<u8>> {
        self.open(query, source, now)
    }

    /// A packet from whom was asked.
    pub(super) fn hear(&mut self, query: &Query, source: Endpoint, packet: &Packet<'_>, now: Instant) -> Heard {
        match &mut self.kind {
            Kind::Handshake => {
                let Some(segment) = packet.tcp().filter(|segment| segment.ack == self.mark.wrapping_add(1)) else {
                    return (Vec::new(), None);
                };
                if segment.flags.has(TcpFlags::RST) {
                    return (Vec::new(), Some(Outcome::Bad(Reason::Tunnel(TunnelFault::Refused))));
                }
                if !segment.flags.has(TcpFlags::SYN) {
                    return (Vec::new(), None);
                }
                let reset = self.segment(query, source, TcpFlags::RST, segment.ack);
                (vec![reset], Some(Outcome::Good))
            }
            Kind::Web(web) => web.hear(packet, now),
            Kind::Datagram(check) => {
                let payload = packet.transport().get(8..).unwrap_or_default();
                let expected = check.expect.as_deref().unwrap_or_default();
                let good = http::contains(payload, expected.as_bytes());
                (Vec::new(), Some(if good { Outcome::Good } else { Outcome::Bad(Reason::Unexpected) }))
            }
            Kind::Echo => (Vec::new(), None),
        }
    }

    /// When this wants to be called, beside the question's own times.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if let Kind::Web(web) = &self.kind { web.poll_timeout() } else { None }
    }

    /// Whether the other end has spoken.
    pub(super) fn has_begun(&self) -> bool {
        if let Kind::Web(web) = &self.kind { web.is_connected() } else { false }
    }

    pub(super) const fn is_echo(&self) -> bool {
        matches!(self.kind, Kind::Echo)
    }

    /// An echo request with this question's mark, checksum not set.
    pub(super) fn echo(&self, v4: bool, id: u16) -> Vec<u8> {
        let mut message = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
        message.extend(id.to_be_bytes());
        message.extend(self.mark.to_be_bytes());
        message.extend([0; 6]);
        message
    }

    /// Whether this is the answer to such a one.
    pub(super) fn is_echoed(&self, message: &[u8]) -> bool {
        message.get(6..10) == Some(&self.mark.to_be_bytes())
    }

    /// Whether the start of a transport header that an ICMP error quotes is one of this question's: what nobody has seen
    /// cannot be forged (RFC 5927 4.1). Of a datagram there is nothing to tell it by.
    pub(super) fn has_sent(&self, transport: &[u8]) -> bool {
        match &self.kind {
            Kind::Handshake => transport.get(4..8) == Some(&self.mark.to_be_bytes()),
            Kind::Echo => transport.get(6..8) == Some(&self.mark.to_be_bytes()[..2]),
            Kind::Web(web) => transport.get(4..8).is_some_and(|seq| web.has_sent(seq)),
            Kind::Datagram(_) => true,
        }
    }

    fn segment(&self, query: &Query, source: Endpoint, flags: TcpFlags, seq: u32) -> Vec<u8> {
        build::tcp(source, query.endpoint, &Tcp { seq, flags, window: 1024, ..Tcp::default() })
    }
}

/// The identifier in the start of an ICMP message.
pub(super) fn echo_id(message: &[u8]) -> Option<u16> {
    let id = message.get(4..6)?;
    Some(u16::from_be_bytes([id[0], id[1]]))
}
