//! Packets in a line of words.

use crate::wire::{Family, Packet, icmp};

/// Protocol, what it is, its ends, its TTL and size: `tcp 198.51.100.7:40000 -> 192.0.2.10:80, SYN, TTL 64, 40 bytes`,
/// `icmp echo reply 192.0.2.10 -> 198.51.100.7, TTL 64, 84 bytes`.
pub(super) fn describe(packet: &Packet<'_>) -> String {
    let (source, destination) = packet.addresses();
    let ends = packet.endpoints().map_or_else(|| format!("{source} -> {destination}"), |(s, d)| format!("{s} -> {d}"));
    let message = icmp::kind(packet).map(|_| format!("{} ", icmp_message(packet))).unwrap_or_default();
    let flags = packet.tcp().map(|segment| format!(", {:?}", segment.flags)).unwrap_or_default();
    let fragment = packet.fragment().map(|fragment| {
        let more = if fragment.more { "more follow" } else { "the last" };
        format!(", fragment at {} ({more})", fragment.offset)
    });
    let fragment = fragment.unwrap_or_default();
    let (protocol, ttl, len) = (packet.protocol(), packet.ttl(), packet.bytes().len());
    format!("{protocol} {message}{ends}{flags}{fragment}, TTL {ttl}, {len} bytes")
}

/// The name of an ICMP message, or its numbers.
fn icmp_message(packet: &Packet<'_>) -> String {
    let message = packet.transport();
    icmp_name(packet.family(), message[0], message[1])
}

/// The name of an ICMP message of this type and code, or the numbers (RFC 792, RFC 1812 5.2.7.1, RFC 4443).
pub fn icmp_name(family: Family, kind: u8, code: u8) -> String {
    let name = match (family, kind, code) {
        (Family::V4, 0, _) | (Family::V6, 129, _) => "echo reply",
        (Family::V4, 8, _) | (Family::V6, 128, _) => "echo request",
        (Family::V4, 3, 0) | (Family::V6, 1, 0) => "network unreachable",
        (Family::V4, 3, 1) | (Family::V6, 1, 3) => "host unreachable",
        (Family::V4, 3, 2) => "protocol unreachable",
        (Family::V4, 3, 3) | (Family::V6, 1, 4) => "port unreachable",
        (Family::V4, 3, 4) => "fragmentation needed",
        (Family::V4, 3, 13) | (Family::V6, 1, 1) => "administratively prohibited",
        (Family::V4, 3, _) | (Family::V6, 1, _) => "destination unreachable",
        (Family::V4, 11, _) | (Family::V6, 3, _) => "time exceeded",
        (Family::V6, 4, 1) => "protocol unreachable",
        (Family::V4, 12, _) | (Family::V6, 4, _) => "parameter problem",
        (Family::V6, 2, _) => "packet too big",
        (Family::V4 | Family::V6, ..) => return format!("type {kind} code {code}"),
    };
    name.to_owned()
}
