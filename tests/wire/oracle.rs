//! Checksums the slow and obvious way, by RFC 1071's words: nothing here is shared with the code under test.

use tungate::wire::Protocol;

/// One's complement sum of 16-bit words, one carry at a time. An odd last byte counts as the high one of its word.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        if total > 0xffff {
            total -= 0xffff;
        }
    }
    u16::try_from(total).unwrap()
}

/// Whether two checksums say the same: zero and all ones are one number in one's complement.
pub(crate) fn same(a: u16, b: u16) -> bool {
    u32::from(a) % 0xffff == u32::from(b) % 0xffff
}

/// The pseudo-header as RFC 793 3.1 and RFC 8200 8.1 draw it, of a packet whose ends are in its IP header.
pub(crate) fn pseudo_header(packet: &[u8], protocol: Protocol, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    match packet[0] >> 4 {
        4 if protocol == Protocol::ICMP => Vec::new(),
        4 => [&packet[12..20], &[0, protocol.0], &length[2..]].concat(),
        _ => [&packet[8..40], &length, &[0, 0, 0, protocol.0]].concat(),
    }
}

/// Offset of the checksum field in the transport header.
pub(crate) fn field(protocol: Protocol) -> usize {
    match protocol {
        Protocol::TCP => 16,
        Protocol::UDP => 6,
        _ => 2,
    }
}

/// The checksum that a sender computes for the transport message at `at..end`: what stands in the field is left out.
pub(crate) fn transport(packet: &[u8], at: usize, end: usize, protocol: Protocol) -> u16 {
    let mut message = packet[at..end].to_vec();
    message[field(protocol)..field(protocol) + 2].fill(0);
    let sum = !sum(&[&pseudo_header(packet, protocol, end - at), &message]);
    if protocol == Protocol::UDP && sum == 0 { 0xffff } else { sum }
}

/// Finishes a partial checksum as hardware does: sums from `start` to the end, stores the complement.
pub(crate) fn finish(packet: &mut [u8], start: usize, protocol: Protocol) {
    let sum = !sum(&[&packet[start..]]);
    let sum = if protocol == Protocol::UDP && sum == 0 { 0xffff } else { sum };
    let at = start + field(protocol);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Makes the IPv4 header checksum right, if there is a header to speak of.
pub(crate) fn fix_ipv4(packet: &mut [u8]) {
    let Some(first) = packet.first() else { return };
    let len = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || len < 20 || packet.len() < len {
        return;
    }
    packet[10..12].fill(0);
    let sum = !sum(&[&packet[..len]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The 16-bit word at this offset.
pub(crate) fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}
