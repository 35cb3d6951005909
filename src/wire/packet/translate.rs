//! What NAT and tunnels do to a packet: addresses, ports and TTL are rewritten in place, and every checksum with them.

use super::Packet;
use crate::wire::ip::Family;
use crate::wire::tunnel::Entry;
use crate::wire::{Address, Checksum, Endpoint, Protocol, Tuple, checksum};

/// What NAT does to a packet of one flow and direction: both endpoints and, worked out once, what that does to a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The new endpoints, of the same family.
    pub to: Tuple,
    /// Checksum delta of the addresses: these stand in the pseudo-header too, so it concerns even a partial checksum.
    pub address_delta: u16,
    /// Checksum delta of the ports: these a partial checksum does not cover yet.
    pub port_delta: u16,
}

impl Translation {
    /// From one pair of endpoints to another of the same family.
    pub fn new(from: (Endpoint, Endpoint), to: (Endpoint, Endpoint)) -> Self {
        let (from, to) = (Tuple::new(from.0, from.1), Tuple::new(to.0, to.1));
        Self {
            to,
            address_delta: checksum::add(!from.sum_of_addresses(), to.sum_of_addresses()),
            port_delta: checksum::add(!from.sum_of_ports(), to.sum_of_ports()),
        }
    }
}

impl Packet<'_> {
    /// Rewrites both endpoints and lowers the TTL by one, which the caller has found to be 2 or more. The hot path of NAT.
    ///
    /// A later fragment and anything but TCP and UDP has no ports: its addresses alone change.
    #[inline(always)]
    pub fn translate(&mut self, to: &Translation) {
        self.translate_header(to);
        if !self.has_ports() {
            return self.adjust_transport_checksum(to.address_delta, checksum::NO_CHANGE);
        }
        let transport = &mut self.bytes[usize::from(self.header.payload)..];
        let field: &mut [u8; 2] = if self.header.protocol == Protocol::UDP {
            let header: &mut [u8; 8] = transport.first_chunk_mut().expect("a UDP header was found whole at the door");
            header[..4].copy_from_slice(&to.to.ports().to_ne_bytes());
            (&mut header[6..]).try_into().expect("two bytes")
        } else {
            let header: &mut [u8; 20] = transport.first_chunk_mut().expect("a TCP header was found whole at the door");
            header[..4].copy_from_slice(&to.to.ports().to_ne_bytes());
            (&mut header[16..18]).try_into().expect("two bytes")
        };
        let is_udp = self.header.protocol == Protocol::UDP;
        adjust(field, self.offload.checksum, is_udp, to.address_delta, to.port_delta);
    }

    #[inline(always)]
    fn translate_header(&mut self, to: &Translation) {
        match to.to {
            Tuple::V4 { addresses, .. } => {
                let header: &mut [u8; 20] = self.bytes.first_chunk_mut().expect("a parsed IPv4 header has 20 bytes");
                let old_ttl = u16::from_be_bytes([header[8], header[9]]);
                header[8] = header[8].wrapping_sub(1);
                let change =
                    checksum::add(to.address_delta, checksum::word_delta(old_ttl, old_ttl.wrapping_sub(0x100)));
                let sum = u16::from_be_bytes([header[10], header[11]]);
                header[10..12].copy_from_slice(&checksum::update(sum, change).to_be_bytes());
                header[12..20].copy_from_slice(&addresses.to_ne_bytes());
            }
            Tuple::V6 { addresses, .. } => {
                let header: &mut [u8; 40] = self.bytes.first_chunk_mut().expect("a parsed IPv6 header has 40 bytes");
                header[7] = header[7].wrapping_sub(1);
                for (at, word) in (8..).step_by(8).zip(addresses) {
                    header[at..at + 8].copy_from_slice(&word.to_ne_bytes());
                }
            }
        }
    }

    /// Gives a fragment another identification; IPv4 has room for its lower half. No effect on other packets.
    pub fn set_fragment_id(&mut self, id: u32) {
        let Some(fragment) = self.header.fragment else { return };
        let at = usize::from(fragment.id_at);
        let new = id.to_be_bytes();
        match self.header.family {
            Family::V4 => {
                let field = &mut self.bytes[at..at + 2];
                let change = checksum::delta(field, &new[2..]);
                field.copy_from_slice(&new[2..]);
                let sum = u16::from_be_bytes([self.bytes[10], self.bytes[11]]);
                self.bytes[10..12].copy_from_slice(&checksum::update(sum, change).to_be_bytes());
            }
            Family::V6 => self.bytes[at..at + 4].copy_from_slice(&new),
        }
    }

    /// Gives the packet other addresses and one hop less. `payload_delta` is what the caller has changed in the transport
    /// header and behind it.
    pub(in crate::wire) fn route_to(&mut self, source: Address, destination: Address, payload_delta: u16) {
        let nowhere = |address| Endpoint::new(address, 0);
        let (old_source, old_destination) = self.addresses();
        let from = (nowhere(old_source), nowhere(old_destination));
        let to = Translation::new(from, (nowhere(source), nowhere(destination)));
        self.translate_header(&to);
        self.adjust_transport_checksum(to.address_delta, payload_delta);
    }

    /// Puts the packet into a tunnel, which lowers its TTL by one (R90); the caller has found it to be 2 or more.
    #[inline]
    pub fn enter(&mut self, entry: Entry) {
        let at = self.ttl_at();
        let old = u16::from_be_bytes([self.bytes[at], 0]);
        self.bytes[at] = self.bytes[at].wrapping_sub(1);
        if self.header.family == Family::V4 {
            let sum = u16::from_be_bytes([self.bytes[10], self.bytes[11]]);
            let change = checksum::word_delta(old, old.wrapping_sub(0x100));
            self.bytes[10..12].copy_from_slice(&checksum::update(sum, change).to_be_bytes());
        }
        self.tunnel = Some(entry);
    }

    /// Applies the deltas of addresses and of what lies behind the IP header to the transport checksum, whatever its
    /// state.
    #[inline(always)]
    pub(in crate::wire) fn adjust_transport_checksum(&mut self, address_delta: u16, payload_delta: u16) {
        let Some(at) = self.checksum_at() else { return };
        let udp = self.header.protocol == Protocol::UDP;
        let address_delta = if self.header.protocol == Protocol::ICMP { checksum::NO_CHANGE } else { address_delta };
        let field = self.bytes[at..].first_chunk_mut().expect("a transport header was found whole at the door");
        adjust(field, self.offload.checksum, udp, address_delta, payload_delta);
    }
}

/// Applies deltas to a transport checksum in this state.
#[inline(always)]
fn adjust(field: &mut [u8; 2], state: Checksum, udp: bool, address_delta: u16, payload_delta: u16) {
    let old = u16::from_be_bytes(*field);
    let new = match state {
        // The field holds the uncomplemented pseudo-header sum: only addresses are in it (datapath, "Checksums").
        Checksum::Partial { .. } => checksum::add(old, address_delta),
        // RFC 768: zero means "no checksum", and stays so (R21); over IPv6 it is not ours to repair (R22).
        Checksum::Complete | Checksum::Verified if udp && old == 0 => return,
        Checksum::Complete | Checksum::Verified => {
            let sum = checksum::update(old, checksum::add(address_delta, payload_delta));
            if udp && sum == 0 { 0xffff } else { sum }
        }
    };
    *field = new.to_be_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Offload, build};

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[test]
    fn translation_is_what_a_fresh_packet_would_be() {
        for (a, b, c, d) in [
            ("198.51.100.7:1000", "192.0.2.10:80", "10.99.0.10:4000", "10.0.0.1:8080"),
            ("[2001:db8:1::7]:1000", "[2001:db8::10]:80", "[fd00:99::10]:4000", "[fd00::1]:8080"),
        ] {
            let from = (endpoint(a), endpoint(b));
            let to = (endpoint(c), endpoint(d));
            let mut bytes = build::udp(from.0, from.1, b"hello");
            let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
            packet.translate(&Translation::new(from, to));
            assert!(packet.transport_checksum_ok());
            assert_eq!(packet.endpoints(), Some(to));
            assert_eq!(packet.ttl(), build::TTL - 1);
            let payload = &packet.transport()[8..];
            let mut fresh = build::udp(to.0, to.1, payload);
            let fresh = Packet::parse(&mut fresh, Offload::default()).unwrap();
            assert_eq!(packet.transport(), fresh.transport());
        }
    }

    #[test]
    fn r20_udp_checksum_that_becomes_zero_is_sent_as_all_ones() {
        // The payload word that makes the kernel's own NAT send ffff for this flow (requirements, R20).
        let from = (endpoint("198.51.100.7:1000"), endpoint("10.200.1.1:53"));
        let to = (from.0, endpoint("10.0.0.3:53"));
        let mut bytes = build::udp(from.0, from.1, &[0xc7, 0x7f]);
        let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        packet.translate(&Translation::new(from, to));
        assert_eq!(packet.transport()[6..8], [0xff, 0xff]);
    }
}
