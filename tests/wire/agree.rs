//! The door and etherparse: the same packets accepted, the same offsets and values read, or a difference with a reason.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use tungate::wire::{Family, Malformed, Offload, Packet, Protocol};

use super::oracle;

const AUTHENTICATION: u8 = 51;
const EXTENSIONS: [u8; 4] = [0, 43, 44, 60];

/// Compares the two on these bytes.
///
/// # Errors
/// With both views, if they differ for none of the known reasons.
pub(crate) fn agree(bytes: &[u8]) -> Result<(), String> {
    let mut copy = bytes.to_vec();
    let ours = Packet::parse(&mut copy, Offload::default());
    let theirs = SlicedPacket::from_ip(bytes);
    // An IPv6 payload length of 0 is 0 to us (R87): etherparse takes all bytes for a jumbogram.
    let jumbo = bytes.len() > 40 && bytes[0] >> 4 == 6 && oracle::word(bytes, 4) == 0;
    let explained = match (&ours, &theirs) {
        _ if jumbo => true,
        (Err(_), Err(_)) => true,
        (Ok(ours), Ok(theirs)) => etherparse_walks_on(ours) || same(ours, theirs, bytes),
        (Ok(ours), Err(_)) => etherparse_walks_on(ours) || etherparse_knows_more(ours),
        (Err(ours), Ok(theirs)) => refused_by_us(*ours, theirs, bytes),
    };
    if explained { Ok(()) } else { Err(format!("ours: {ours:?}\ntheirs: {theirs:?}\nbytes: {bytes:02x?}")) }
}

/// Where etherparse reads on and we do not:
/// - an authentication header is an upper layer to us (what it protects cannot be translated);
/// - what follows the fragment header of a later fragment is the middle of a datagram, not a header.
fn etherparse_walks_on(ours: &Packet<'_>) -> bool {
    let later = ours.family() == Family::V6 && !ours.has_transport();
    let protocol = ours.protocol().0;
    protocol == AUTHENTICATION || (later && EXTENSIONS.contains(&protocol))
}

/// What etherparse checks of messages that we do not read: IGMP, timestamps, and ICMP of the other family.
fn etherparse_knows_more(ours: &Packet<'_>) -> bool {
    let (family, message) = (ours.family(), ours.transport());
    match ours.protocol() {
        Protocol(2) => true,
        Protocol::ICMP => family == Family::V6 || matches!(message[..2], [13 | 14, 0]),
        Protocol::ICMPV6 => family == Family::V4,
        _ => false,
    }
}

/// Whether we refuse for a reason that etherparse does not know, and that is really there.
fn refused_by_us(ours: Malformed, theirs: &SlicedPacket<'_>, bytes: &[u8]) -> bool {
    let net = theirs.net.as_ref().unwrap();
    let payload = net.ip_payload_ref().unwrap();
    let kinds = match net {
        NetSlice::Ipv6(ip) => etherparse_chain(ip.header().next_header().0, ip.extensions().slice()),
        NetSlice::Ipv4(_) | NetSlice::Arp(_) => Vec::new(),
    };
    match ours {
        Malformed::IpHeader => bytes[0] >> 4 == 6 && [&bytes[8..20], &bytes[24..36]].contains(&&MAPPED[..]),
        Malformed::IpChecksum => oracle::sum(&[&bytes[..usize::from(bytes[0] & 15) * 4]]) != 0xffff,
        Malformed::IpOption => !options_ok(&bytes[20..usize::from(bytes[0] & 15) * 4]),
        Malformed::Fragment => payload.fragmented && !fragment_ok(net, &kinds),
        // Walked to the end by etherparse; too long for us, fragmented twice, or going on in the middle of a datagram.
        Malformed::ExtensionHeader => kinds.len() > 8 || kinds.iter().filter(|k| **k == 44).count() > 1,
        Malformed::Transport => match &theirs.transport {
            // A first fragment without its whole transport header, whose payload etherparse does not open.
            None => payload.fragmented && !transport_ok(payload.ip_number.0, payload.payload),
            // "Length 0 means as long as the packet" is for jumbograms only (RFC 2675 4).
            Some(transport) => matches!(transport, TransportSlice::Udp(udp) if udp.length() == 0),
        },
        Malformed::NotIp | Malformed::Truncated | Malformed::Offload => false,
    }
}

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Kinds of the extension headers, in order.
fn etherparse_chain(mut kind: u8, mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while !bytes.is_empty() {
        kinds.push(kind);
        let len = match kind {
            44 => 8,
            AUTHENTICATION => (usize::from(bytes[1]) + 2) * 4,
            _ => (usize::from(bytes[1]) + 1) * 8,
        };
        kind = bytes[0];
        bytes = &bytes[len..];
    }
    kinds
}

/// RFC 791 3.1: kinds 0 and 1 are one byte, all others have a length that covers kind and length.
fn options_ok(options: &[u8]) -> bool {
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        let len = if options[at] == 1 { 1 } else { options.get(at + 1).map_or(0, |l| usize::from(*l)) };
        if len == 0 || (len == 1 && options[at] != 1) || at + len > options.len() {
            return false;
        }
        at += len;
    }
    true
}

fn fragment_ok(net: &NetSlice<'_>, kinds: &[u8]) -> bool {
    let (offset, more, before, len) = match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let len = usize::from(header.total_len()) - header.slice().len();
            (header.fragments_offset().byte_offset(), header.more_fragments(), header.slice().len(), len)
        }
        NetSlice::Ipv6(ip) => {
            let position = kinds.iter().position(|k| *k == 44).unwrap();
            let extensions = ip.extensions().slice();
            let mut at = 0;
            for _ in 0..position {
                at += (usize::from(extensions[at + 1]) + 1) * 8;
            }
            let word = oracle::word(extensions, at + 2);
            let len = usize::from(ip.header().payload_length()) - at - 8;
            (word & !7, word & 1 == 1, at, len)
        }
        NetSlice::Arp(_) => unreachable!("an IP packet"),
    };
    len > 0 && before + usize::from(offset) + len <= 0xffff && (!more || len % 8 == 0)
}

fn transport_ok(protocol: u8, bytes: &[u8]) -> bool {
    match protocol {
        6 => bytes.len() >= 20 && bytes[12] >> 4 >= 5 && bytes.len() >= usize::from(bytes[12] >> 4) * 4,
        17 => bytes.len() >= 8 && oracle::word(bytes, 4) >= 8,
        1 | 58 => bytes.len() >= 8,
        _ => true,
    }
}

/// Both accept: the same header, the same place of the upper layer, the same values there.
fn same(ours: &Packet<'_>, theirs: &SlicedPacket<'_>, bytes: &[u8]) -> bool {
    let net = theirs.net.as_ref().unwrap();
    let payload = net.ip_payload_ref().unwrap();
    let at = payload.payload.as_ptr() as usize - bytes.as_ptr() as usize;
    let (source, destination) = ours.addresses();
    let (their_source, their_destination, ttl): (IpAddr, IpAddr, u8) = match net {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.header().ttl())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.header().hop_limit())
        }
        NetSlice::Arp(_) => unreachable!("an IP packet"),
    };
    let ip = source.ip() == their_source
        && destination.ip() == their_destination
        && ours.ttl() == ttl
        && usize::from(ours.header().payload) == at
        && ours.bytes().len() == at + payload.payload.len()
        && ours.protocol().0 == payload.ip_number.0
        && ours.fragment().is_some() == payload.fragmented;
    let ports = ours.endpoints().map(|(a, b)| (a.port, b.port));
    ip && match &theirs.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let segment = ours.tcp().unwrap();
            ports == Some((tcp.source_port(), tcp.destination_port()))
                && segment.seq == tcp.sequence_number()
                && segment.ack == tcp.acknowledgment_number()
                && segment.window == tcp.window_size()
                && segment.flags.0 == tcp.slice()[13]
                && segment.options == tcp.options()
                && segment.payload_len as usize == tcp.payload().len()
                && usize::from(ours.offload().header_len) == at + tcp.header_len()
        }
        Some(TransportSlice::Udp(udp)) => ports == Some((udp.source_port(), udp.destination_port())),
        _ => ports.is_none() || payload.fragmented,
    }
}
