//! Both ends of a packet as they stand in its headers: what a flow is found by, and what translation writes.

use super::{Address, Endpoint, Packet, Protocol, checksum};

/// Addresses and ports, source first, as words in the packet's own order: taken from headers, compared and put back
/// without looking at a single byte. Without ports, these are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuple {
    /// IPv4: header bytes 12 to 20, and the first four behind the header.
    V4 {
        /// Both addresses.
        addresses: u64,
        /// Both ports.
        ports: u32,
    },
    /// IPv6: header bytes 8 to 40, and the first four behind the headers.
    V6 {
        /// Both addresses, two words each.
        addresses: [u64; 4],
        /// Both ports.
        ports: u32,
    },
}

impl Tuple {
    /// Of a packet from `source` to `destination`, of one family.
    pub fn new(source: Endpoint, destination: Endpoint) -> Self {
        let ([a, b], [c, d]) = (source.port.to_be_bytes(), destination.port.to_be_bytes());
        let ports = u32::from_ne_bytes([a, b, c, d]);
        if source.address.is_v4() {
            let ([a, b, c, d], [e, f, g, h]) = (source.address.v4_octets(), destination.address.v4_octets());
            return Self::V4 { addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]), ports };
        }
        let ([a, b], [c, d]) = (words(source.address), words(destination.address));
        Self::V6 { addresses: [a, b, c, d], ports }
    }

    /// What such a packet has.
    #[inline(always)]
    pub(super) fn v4(header: &[u8; 20], ports: [u8; 4]) -> Self {
        let addresses = header[12..].first_chunk().expect("eight bytes of twenty");
        Self::V4 { addresses: u64::from_ne_bytes(*addresses), ports: u32::from_ne_bytes(ports) }
    }

    /// What such a packet has.
    #[inline(always)]
    pub(super) fn v6(header: &[u8; 40], ports: [u8; 4]) -> Self {
        let (words, _) = header[8..].as_chunks::<8>();
        let addresses = [words[0], words[1], words[2], words[3]].map(u64::from_ne_bytes);
        Self::V6 { addresses, ports: u32::from_ne_bytes(ports) }
    }

    /// The tuple of an answer.
    #[inline(always)]
    #[must_use]
    pub const fn invert(self) -> Self {
        match self {
            Self::V4 { addresses, ports } => {
                Self::V4 { addresses: addresses.rotate_left(32), ports: ports.rotate_left(16) }
            }
            Self::V6 { addresses: [a, b, c, d], ports } => {
                Self::V6 { addresses: [c, d, a, b], ports: ports.rotate_left(16) }
            }
        }
    }

    /// Where it comes from.
    pub fn source(&self) -> Endpoint {
        match *self {
            Self::V4 { addresses, ports } => {
                let ([a, b, c, d, ..], [p, q, ..]) = (addresses.to_ne_bytes(), ports.to_ne_bytes());
                Endpoint::new(Address::v4([a, b, c, d]), u16::from_be_bytes([p, q]))
            }
            Self::V6 { addresses: [a, b, ..], ports } => {
                let [p, q, ..] = ports.to_ne_bytes();
                Endpoint::new(address(a, b), u16::from_be_bytes([p, q]))
            }
        }
    }

    /// Where it goes.
    pub fn destination(&self) -> Endpoint {
        self.invert().source()
    }

    /// The ports as they stand in a transport header.
    #[inline(always)]
    pub const fn ports(&self) -> u32 {
        match *self {
            Self::V4 { ports, .. } | Self::V6 { ports, .. } => ports,
        }
    }

    /// What the addresses add to a checksum.
    pub(super) fn sum_of_addresses(&self) -> u16 {
        let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
        u16::from_be(match *self {
            Self::V4 { addresses, .. } => checksum::fold(addresses),
            Self::V6 { addresses, .. } => checksum::fold(addresses.into_iter().map(halves).sum()),
        })
    }

    /// What the ports add to a checksum.
    pub(super) fn sum_of_ports(&self) -> u16 {
        u16::from_be(checksum::fold(self.ports().into()))
    }

    /// What a packet probably has: what stands where they are in the usual one, which is TCP or UDP right behind an IPv4
    /// header without options or a bare IPv6 header. Nothing is checked; a fragment or a broken packet gives something
    /// else than [`Packet::tuple`] would. A hint, for what costs nothing when it is wrong.
    #[inline(always)]
    pub fn likely(bytes: &[u8]) -> Option<(Self, Protocol)> {
        const V4: u8 = 0x45;
        let (tuple, protocol) = match bytes.first()? >> 4 {
            4 if bytes[0] == V4 => {
                let (header, rest) = bytes.split_first_chunk::<20>()?;
                (Self::v4(header, *rest.first_chunk()?), header[9])
            }
            6 => {
                let (header, rest) = bytes.split_first_chunk::<40>()?;
                (Self::v6(header, *rest.first_chunk()?), header[6])
            }
            _ => return None,
        };
        let has_ports = protocol == Protocol::TCP.0 || protocol == Protocol::UDP.0;
        has_ports.then_some((tuple, Protocol(protocol)))
    }
}

fn words(address: Address) -> [u64; 2] {
    let (words, _) = address.octets().as_chunks::<8>();
    [words[0], words[1]].map(u64::from_ne_bytes)
}

fn address(high: u64, low: u64) -> Address {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&high.to_ne_bytes());
    octets[8..].copy_from_slice(&low.to_ne_bytes());
    Address::v6(octets)
}

impl Packet<'_> {
    /// The tuple of a TCP or UDP packet that is no later fragment.
    #[inline(always)]
    pub fn tuple(&self) -> Option<Tuple> {
        if !self.has_ports() {
            return None;
        }
        let ports = *self.transport().first_chunk().expect("a transport header was found whole at the door");
        let bytes = self.bytes();
        Some(match self.family() {
            super::Family::V4 => Tuple::v4(bytes.first_chunk().expect("a parsed IPv4 header has 20 bytes"), ports),
            super::Family::V6 => Tuple::v6(bytes.first_chunk().expect("a parsed IPv6 header has 40 bytes"), ports),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Offload, build};

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    const ENDS: [(&str, &str); 2] =
        [("198.51.100.7:1000", "192.0.2.10:80"), ("[2001:db8:1::7]:1000", "[2001:db8::10]:80")];

    #[test]
    fn it_is_what_stands_in_the_packet() {
        for (a, b) in ENDS.map(|(a, b)| (endpoint(a), endpoint(b))) {
            for mut bytes in [build::udp(a, b, b"hello"), build::tcp(a, b, &build::Tcp::default())] {
                let likely = Tuple::likely(&bytes);
                let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
                let tuple = packet.tuple().unwrap();
                assert_eq!(tuple, Tuple::new(a, b));
                assert_eq!((tuple.source(), tuple.destination()), (a, b));
                assert_eq!(tuple.invert(), Tuple::new(b, a));
                assert_eq!(likely, Some((tuple, packet.protocol())));
            }
        }
    }

    #[test]
    fn of_anything_else_the_likely_one_is_nothing_or_harmless() {
        let [v4, v6] = ENDS.map(|(a, b)| build::udp(endpoint(a), endpoint(b), b"hello"));
        for (whole, least) in [(&v4, 24), (&v6, 44)] {
            assert!((0..least).all(|len| Tuple::likely(&whole[..len]).is_none()));
            assert!(Tuple::likely(&whole[..least]).is_some());
        }
        let mut options = v4;
        options[0] = 0x46;
        assert_eq!(Tuple::likely(&options), None);
        for version in [0, 1, 5, 7, 15] {
            assert_eq!(Tuple::likely(&[version << 4; 100]), None);
        }
    }
}
