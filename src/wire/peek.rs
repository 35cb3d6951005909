//! A glance at a packet before it is parsed.

use super::{Address, Endpoint, Protocol};

/// Source, destination and protocol that a packet probably has: where they stand in the usual one, which is TCP or UDP
/// right behind an IPv4 header without options or a bare IPv6 header. Nothing is checked; a fragment or a broken packet
/// gives something else than [`super::Packet::endpoints`] would. A hint, for what costs nothing when it is wrong.
#[inline]
pub fn likely_endpoints(bytes: &[u8]) -> Option<(Endpoint, Endpoint, Protocol)> {
    const V4: u8 = 0x45;
    let (source, destination, ports, protocol) = match bytes.first()? >> 4 {
        4 if bytes[0] == V4 => {
            let header: &[u8; 24] = bytes.first_chunk()?;
            let [a, b, c, d, e, f, g, h] = *header[12..].first_chunk()?;
            (Address::v4([a, b, c, d]), Address::v4([e, f, g, h]), header.last_chunk::<4>()?, header[9])
        }
        6 => {
            let header: &[u8; 44] = bytes.first_chunk()?;
            let (source, destination) = (header[8..].first_chunk()?, header[24..].first_chunk()?);
            (Address::v6(*source), Address::v6(*destination), header.last_chunk::<4>()?, header[6])
        }
        _ => return None,
    };
    let [a, b, c, d] = *ports;
    let source = Endpoint::new(source, u16::from_be_bytes([a, b]));
    let destination = Endpoint::new(destination, u16::from_be_bytes([c, d]));
    let has_ports = protocol == Protocol::TCP.0 || protocol == Protocol::UDP.0;
    has_ports.then_some((source, destination, Protocol(protocol)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Offload, Packet, build};

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[test]
    fn of_a_usual_packet_it_is_right() {
        for (a, b) in [("198.51.100.7:1000", "192.0.2.10:80"), ("[2001:db8:1::7]:1000", "[2001:db8::10]:80")] {
            let (a, b) = (endpoint(a), endpoint(b));
            for mut bytes in [build::udp(a, b, b"hello"), build::tcp(a, b, &build::Tcp::default())] {
                let likely = likely_endpoints(&bytes);
                let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
                let (source, destination) = packet.endpoints().unwrap();
                assert_eq!(likely, Some((source, destination, packet.protocol())));
            }
        }
    }

    #[test]
    fn of_anything_else_it_is_nothing_or_harmless() {
        let whole = build::udp(endpoint("[2001:db8:1::7]:1000"), endpoint("[2001:db8::10]:80"), b"hello");
        for len in 0..44 {
            assert_eq!(likely_endpoints(&whole[..len]), None);
        }
        let whole = build::udp(endpoint("198.51.100.7:1000"), endpoint("192.0.2.10:80"), b"hello");
        for len in 0..24 {
            assert_eq!(likely_endpoints(&whole[..len]), None);
        }
        let mut options = whole;
        options[0] = 0x46;
        assert_eq!(likely_endpoints(&options), None);
        for version in [0, 1, 5, 7, 15] {
            assert_eq!(likely_endpoints(&[version << 4; 100]), None);
        }
    }
}
