//! What becomes of a packet, and what is to be seen of it outside.

use tungate::engine::{DropReason, Verdict};
use tungate::wire::{Address, Endpoint, Offload, Packet, TcpFlags};

/// What becomes of a packet.
#[derive(Clone, Debug)]
#[must_use]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// The packet itself, if it was forwarded.
    pub(crate) sent: Option<Vec<u8>>,
    /// What there is of it besides, if it was cut for a tunnel.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// What else leaves.
    pub(crate) own: Vec<Vec<u8>>,
}

impl Outcome {
    pub(crate) fn new(verdict: Verdict, leaving: Vec<Vec<u8>>, own: Vec<Vec<u8>>) -> Self {
        let mut leaving = leaving.into_iter();
        Self { verdict, sent: leaving.next(), pieces: leaving.collect(), own }
    }

    /// The packet as it left, alone.
    #[track_caller]
    pub(crate) fn forwarded(self) -> Sight {
        assert_eq!((self.verdict, &self.own, &self.pieces), (Verdict::Forward, &Vec::new(), &Vec::new()));
        Sight::of(self.sent.expect("what is forwarded is sent"))
    }

    /// The gateway's own answer; the packet itself did not leave.
    #[track_caller]
    pub(crate) fn answered(self) -> Sight {
        assert_eq!((self.verdict, self.own.len()), (Verdict::Reply, 1));
        Sight::of(self.own.into_iter().next().unwrap())
    }

    /// Nothing left, for this reason.
    #[track_caller]
    pub(crate) fn dropped(self, reason: DropReason) {
        assert_eq!((self.verdict, self.sent, self.own), (Verdict::Drop(reason), None, Vec::new()));
    }
}

/// A packet on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) bytes: Vec<u8>,
    /// Address and port; port 0 where there is none.
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    pub(crate) ttl: u8,
    /// Whether the transport checksum is right. That of the IP header is.
    pub(crate) sound: bool,
    /// Behind the IP header.
    pub(crate) transport: Vec<u8>,
    pub(crate) tcp: Option<(TcpFlags, u32, u32)>,
}

impl Sight {
    pub(crate) fn of(mut bytes: Vec<u8>) -> Self {
        let packet = Packet::parse(&mut bytes, Offload::default()).expect("what leaves is sound");
        let (source, destination) = packet.addresses();
        let nowhere = |address: Address| Endpoint::new(address, 0);
        let (source, destination) = packet.endpoints().unwrap_or((nowhere(source), nowhere(destination)));
        Self {
            source,
            destination,
            ttl: packet.ttl(),
            sound: packet.transport_checksum_ok(),
            transport: packet.transport().to_vec(),
            tcp: packet.tcp().map(|segment| (segment.flags, segment.seq, segment.ack)),
            bytes: packet.bytes().to_vec(),
        }
    }

    pub(crate) fn ends(&self) -> (Endpoint, Endpoint) {
        (self.source, self.destination)
    }

    /// ICMP type and code, and what the message quotes.
    #[track_caller]
    pub(crate) fn icmp(&self) -> (u8, u8, &[u8]) {
        assert!(self.sound, "ICMP checksum");
        (self.transport[0], self.transport[1], &self.transport[8..])
    }
}

/// The packet with something of it changed; the IPv4 header checksum is made right again, and no other.
pub(crate) fn altered(mut packet: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut packet);
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        packet[10..12].fill(0);
        let sum = !tungate::wire::checksum::sum(&packet[..header]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The packet with this TTL or hop limit.
pub(crate) fn with_ttl(packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
    altered(packet, |bytes| bytes[at] = ttl)
}
