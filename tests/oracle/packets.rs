//! Packets that no well-behaved host sends, made from those that one does.

use tungate::wire::{Offload, Packet};

use crate::support::altered;

/// Where the transport header of a packet without options or extension headers begins.
pub(crate) fn transport(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

/// The last byte is not what it was when the checksum was computed.
pub(crate) fn spoilt(packet: Vec<u8>) -> Vec<u8> {
    let last = packet.len() - 1;
    altered(packet, |bytes| bytes[last] ^= 0x10)
}

/// Sets the length in the IP header to that of the packet.
pub(crate) fn with_length(packet: Vec<u8>) -> Vec<u8> {
    let (at, less) = if packet[0] >> 4 == 4 { (2, 0) } else { (4, 40) };
    let len = u16::try_from(packet.len() - less).unwrap();
    altered(packet, |bytes| bytes[at..at + 2].copy_from_slice(&len.to_be_bytes()))
}

/// An IPv4 packet with options, padded to whole words.
pub(crate) fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let mut with = [&packet[..20], &options, &packet[20..]].concat();
    with[0] = 0x40 | u8::try_from(5 + options.len() / 4).unwrap();
    with_length(with)
}

/// An IPv6 packet with extension headers: kind, and what follows the first two bytes, padded to whole eights.
pub(crate) fn with_extensions(packet: &[u8], extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let (mut chain, mut next) = (Vec::new(), packet[6]);
    for (kind, body) in extensions.iter().rev() {
        let len = (2 + body.len()).next_multiple_of(8);
        let mut header = vec![next, if *kind == 44 { 0 } else { u8::try_from(len / 8 - 1).unwrap() }];
        header.extend(*body);
        header.resize(len, 0);
        header.extend(chain);
        (chain, next) = (header, *kind);
    }
    let mut with = [&packet[..40], &chain, &packet[40..]].concat();
    with[6] = next;
    with_length(with)
}

/// The datagram in fragments, cut behind these bytes of its payload (multiples of 8), the last with the rest.
pub(crate) fn fragments(packet: &[u8], id: u32, cuts: &[usize]) -> Vec<Vec<u8>> {
    let payload = packet.len() - transport(packet);
    let mut from = 0;
    let mut pieces = Vec::new();
    for to in cuts.iter().copied().chain([payload]) {
        pieces.push(fragment(packet, id, from..to, to < payload));
        from = to;
    }
    pieces
}

/// One fragment of a datagram: these bytes of its payload.
pub(crate) fn fragment(packet: &[u8], id: u32, range: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let at = transport(packet);
    let mut piece = packet[..at].to_vec();
    let offset = u16::try_from(range.start).unwrap();
    if at == 20 {
        piece[4..6].copy_from_slice(&id.to_be_bytes()[2..]);
        piece[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
    } else {
        let [a, b] = (offset | u16::from(more)).to_be_bytes();
        piece.extend([piece[6], 0, a, b]);
        piece.extend(id.to_be_bytes());
        piece[6] = 44;
    }
    let payload = &packet[at..];
    piece.extend(&payload[range.start..range.end]);
    with_length(piece)
}

/// What a router that received this packet would quote of it.
pub(crate) fn quoted(packet: &[u8], most: usize) -> &[u8] {
    &packet[..packet.len().min(most)]
}

/// The packet a hop further: as routers on its way see it.
pub(crate) fn a_hop_further(packet: Vec<u8>) -> Vec<u8> {
    let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
    altered(packet, |bytes| bytes[at] -= 1)
}

/// Whether the packet passes the door, and its transport checksum is right as far as anybody can tell.
pub(crate) fn is_sound(packet: &[u8]) -> bool {
    let mut bytes = packet.to_vec();
    Packet::parse(&mut bytes, Offload::default()).is_ok_and(|packet| packet.transport_checksum_ok())
}

/// Whether this is a first fragment that ends within the TCP header, or one that lies there.
pub(crate) fn is_tiny(packet: &[u8]) -> bool {
    let (at, protocol, offset) = if packet[0] >> 4 == 4 {
        (20, packet[9], usize::from(u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff) * 8)
    } else if packet[6] == 44 {
        (48, packet[40], usize::from(u16::from_be_bytes([packet[42], packet[43]]) & !7))
    } else {
        return false;
    };
    protocol == 6 && (offset == 8 || offset == 0 && packet.len() - at < 20)
}
