//! Packets of our own making: answers of the gateway, probes, and the traffic of `explain` and of tests.

use super::ip::FRAGMENT;
use super::{Address, Endpoint, Fragment, Protocol, TcpFlags, checksum};

/// TTL and hop limit of packets that start here (IANA's recommended default).
pub const TTL: u8 = 64;

/// An IP packet with this payload: no options, no fragmentation, IPv4 with DF set and id 0 (RFC 6864 4.1: an atomic
/// datagram's id means nothing).
///
/// # Panics
/// Never for payloads below 65,496 bytes; longer ones do not fit an IP packet.
pub fn ip(source: Address, destination: Address, protocol: Protocol, ttl: u8, payload: &[u8]) -> Vec<u8> {
    if source.is_v4() {
        let len = u16::try_from(20 + payload.len()).expect("fits an IPv4 packet");
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, protocol.0, 0, 0];
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet.extend(source.v4_octets());
        packet.extend(destination.v4_octets());
        let sum = !checksum::sum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        return packet;
    }
    let len = u16::try_from(payload.len()).expect("fits an IPv6 packet");
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol.0, ttl];
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A fragment with this payload, at the place of another and with the identification of its datagram.
///
/// # Panics
/// As [`ip`].
pub fn fragment(source: Address, destination: Address, protocol: Protocol, place: Fragment, payload: &[u8]) -> Vec<u8> {
    let [.., id_high, id_low] = place.id.to_be_bytes();
    if source.is_v4() {
        let mut packet = ip(source, destination, protocol, TTL, payload);
        let flags_offset = (place.offset / 8) | (u16::from(place.more) << 13);
        packet[4..6].copy_from_slice(&[id_high, id_low]);
        packet[6..8].copy_from_slice(&flags_offset.to_be_bytes());
        packet[10..12].fill(0);
        let sum = !checksum::sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        return packet;
    }
    let mut header = vec![protocol.0, 0];
    header.extend((place.offset | u16::from(place.more)).to_be_bytes());
    header.extend(place.id.to_be_bytes());
    header.extend(payload);
    ip(source, destination, Protocol(FRAGMENT), TTL, &header)
}

/// The changing fields of a TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window.
    pub window: u16,
    /// Options, padded by the caller to a multiple of four, 40 bytes at most.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// A TCP segment in an IP packet.
pub fn tcp(source: Endpoint, destination: Endpoint, segment: &Tcp<'_>) -> Vec<u8> {
    let offset = u8::try_from((20 + segment.options.len()) / 4).expect("at most 40 bytes of options");
    let mut bytes = Vec::with_capacity(20 + segment.options.len() + segment.payload.len());
    bytes.extend(source.port.to_be_bytes());
    bytes.extend(destination.port.to_be_bytes());
    bytes.extend(segment.seq.to_be_bytes());
    bytes.extend(segment.ack.to_be_bytes());
    bytes.extend([offset << 4, segment.flags.0]);
    bytes.extend(segment.window.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(segment.options);
    bytes.extend(segment.payload);
    finish(source.address, destination.address, Protocol::TCP, &mut bytes, 16);
    ip(source.address, destination.address, Protocol::TCP, TTL, &bytes)
}

/// A UDP datagram in an IP packet.
pub fn udp(source: Endpoint, destination: Endpoint, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("fits a UDP datagram");
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend(source.port.to_be_bytes());
    bytes.extend(destination.port.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(payload);
    finish(source.address, destination.address, Protocol::UDP, &mut bytes, 6);
    if bytes[6..8] == [0, 0] {
        bytes[6..8].copy_from_slice(&[0xff, 0xff]);
    }
    ip(source.address, destination.address, Protocol::UDP, TTL, &bytes)
}

/// An ICMP or ICMPv6 message (whose checksum field is zero) in an IP packet.
pub fn icmp(source: Address, destination: Address, mut message: Vec<u8>) -> Vec<u8> {
    let protocol = if source.is_v4() { Protocol::ICMP } else { Protocol::ICMPV6 };
    finish(source, destination, protocol, &mut message, 2);
    ip(source, destination, protocol, TTL, &message)
}

/// Fills the checksum field at `at`, which holds zero.
fn finish(source: Address, destination: Address, protocol: Protocol, bytes: &mut [u8], at: usize) {
    let pseudo = match protocol {
        Protocol::ICMP => 0,
        _ => checksum::pseudo_header(source, destination, protocol, bytes.len()),
    };
    let sum = !checksum::add(pseudo, checksum::sum(bytes));
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
