//! What passes the door and what does not, packet by packet.

use tungate::wire::{Endpoint, Family, Malformed, Offload, Packet, Protocol, TcpFlags, build};

use crate::generate::noise;
use crate::oracle;

const V4: (&str, &str) = ("198.51.100.7:1000", "192.0.2.10:80");
const V6: (&str, &str) = ("[2001:db8::7]:1000", "[2001:db8::10]:80");

fn ends(texts: (&str, &str)) -> (Endpoint, Endpoint) {
    let end = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().into();
    (end(texts.0), end(texts.1))
}

fn syn(texts: (&str, &str)) -> Vec<u8> {
    let (a, b) = ends(texts);
    build::tcp(a, b, &build::Tcp { flags: TcpFlags::SYN, ..build::Tcp::default() })
}

fn udp(texts: (&str, &str), payload: &[u8]) -> Vec<u8> {
    let (a, b) = ends(texts);
    build::udp(a, b, payload)
}

/// Why the door refuses these bytes, or `None` if it does not.
fn refusal(bytes: &[u8]) -> Option<Malformed> {
    Packet::parse(&mut bytes.to_vec(), Offload::default()).err()
}

/// The ends that the door reads.
fn read(bytes: &[u8]) -> Option<(Endpoint, Endpoint)> {
    Packet::parse(&mut bytes.to_vec(), Offload::default()).unwrap().endpoints()
}

/// The IPv4 packet with these bytes changed, its header checksum right.
fn with(mut bytes: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        bytes[*at] = *value;
    }
    oracle::fix_ipv4(&mut bytes);
    bytes
}

/// The IPv4 packet with options put in.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut bytes = [&packet[..20], options, &packet[20..]].concat();
    bytes[0] += u8::try_from(options.len() / 4).unwrap();
    let len = u16::try_from(bytes.len()).unwrap();
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    oracle::fix_ipv4(&mut bytes);
    bytes
}

/// The IPv6 packet with extension headers put in: kind, and all bytes but the next header's kind.
fn with_extensions(packet: &[u8], extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = packet[..40].to_vec();
    let mut kind_at = 6;
    for (kind, body) in extensions {
        bytes[kind_at] = *kind;
        kind_at = bytes.len();
        bytes.push(packet[6]);
        bytes.extend(*body);
    }
    bytes.extend(&packet[40..]);
    let len = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// An IPv6 packet behind a fragment header.
fn v6_fragment(packet: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    with_extensions(packet, &[(44, &[0, high, low, 0, 0, 0, 9])])
}

/// An IPv4 packet as a fragment; the offset in bytes.
fn v4_fragment(packet: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = ((offset / 8) | (u16::from(more) << 13)).to_be_bytes();
    with(packet, &[(6, high), (7, low)])
}

/// An option that says: skip me if you do not know me.
const PADDING: (u8, &[u8]) = (60, &[0, 1, 4, 0, 0, 0, 0]);

#[test]
fn r1_a_header_checksum_that_is_wrong_in_any_bit_is_refused() {
    let packet = syn(V4);
    assert_eq!(refusal(&packet), None);
    for bit in 0..16 {
        let mut wrong = packet.clone();
        wrong[10 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refusal(&wrong), Some(Malformed::IpChecksum), "bit {bit}");
    }
}

#[test]
fn r2_headers_of_impossible_length_are_refused() {
    let packet = syn(V4);
    for len in 1..20 {
        assert_eq!(refusal(&packet[..len]), Some(Malformed::Truncated), "{len} bytes");
    }
    assert_eq!(refusal(&with(packet.clone(), &[(0, 0x44)])), Some(Malformed::IpHeader), "IHL 4");
    assert_eq!(
        refusal(&with(packet.clone(), &[(0, 0x4f), (3, 60)])),
        Some(Malformed::Truncated),
        "IHL beyond the buffer"
    );
    assert_eq!(refusal(&with(packet.clone(), &[(3, 19)])), Some(Malformed::IpHeader), "total length below IHL");
    assert_eq!(refusal(&with(packet, &[(3, 0)])), Some(Malformed::IpHeader), "total length 0");
    assert_eq!(refusal(&syn(V6)[..39]), Some(Malformed::Truncated));
}

#[test]
fn r3_a_packet_shorter_than_it_says_is_refused() {
    for packet in [syn(V4), syn(V6), udp(V4, b"12345678"), udp(V6, b"12345678")] {
        for len in 40..packet.len() {
            assert_eq!(refusal(&packet[..len]), Some(Malformed::Truncated), "{len} of {} bytes", packet.len());
        }
    }
}

#[test]
fn r4_bytes_behind_the_total_length_are_cut_and_outside_every_checksum() {
    for packet in [syn(V4), syn(V6), udp(V4, b"12345"), udp(V6, b"12345")] {
        let mut longer = [&packet[..], &noise(7, 31)].concat();
        let parsed = Packet::parse(&mut longer, Offload::default()).unwrap();
        assert_eq!(parsed.bytes(), packet);
        assert!(parsed.transport_checksum_ok());
    }
}

#[test]
fn r5_versions_but_4_and_6_are_refused_and_ipv6_bytes_are_no_ipv4() {
    for version in (0..16).filter(|version| ![4, 6].contains(version)) {
        for mut packet in [syn(V4), syn(V6)] {
            packet[0] = version << 4 | packet[0] & 0x0f;
            assert_eq!(refusal(&packet), Some(Malformed::IpHeader), "version {version}");
        }
    }
    let mut disguised = syn(V6);
    disguised[0] = 0x45;
    assert!(refusal(&disguised).is_some());
    assert_eq!(refusal(&[]), Some(Malformed::IpHeader));
}

#[test]
fn an_ipv4_address_in_an_ipv6_header_is_refused() {
    // Inside the data plane this is the form of an IPv4 address: it would meet the flows and services of IPv4.
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10];
    for at in [8, 24] {
        let mut packet = syn(V6);
        packet[at..at + 16].copy_from_slice(&mapped);
        assert_eq!(refusal(&packet), Some(Malformed::IpHeader));
    }
}

#[test]
fn r13_unknown_and_harmless_options_are_skipped_to_find_the_ports() {
    let known: [&[u8]; 4] = [&[1, 1, 1, 1], &[7, 7, 4, 0, 0, 0, 0, 0], &[68, 8, 5, 0, 0, 0, 0, 0], &[148, 4, 0, 0]];
    for options in known.into_iter().chain([&[0x9e, 3, 1, 0][..], &[0, 0xff, 0xff, 0xff]]) {
        assert_eq!(read(&with_options(&syn(V4), options)), Some(ends(V4)), "{options:?}");
    }
}

#[test]
fn a_source_route_is_flagged() {
    for kind in [131, 137] {
        let mut packet = with_options(&syn(V4), &[kind, 7, 4, 10, 0, 0, 1, 0]);
        assert!(Packet::parse(&mut packet, Offload::default()).unwrap().header().source_routed);
    }
    let mut packet = with_options(&syn(V4), &[7, 7, 4, 10, 0, 0, 1, 0]);
    assert!(!Packet::parse(&mut packet, Offload::default()).unwrap().header().source_routed, "record route is none");
}

#[test]
fn r15_options_of_impossible_length_are_refused() {
    for options in [[7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 4, 0], [1, 1, 7, 3], [1, 1, 1, 7], [7, 0xff, 0, 0]] {
        assert_eq!(refusal(&with_options(&syn(V4), &options)), Some(Malformed::IpOption), "{options:?}");
    }
}

#[test]
fn r26_the_pseudo_header_has_the_upper_layer_protocol_and_the_addresses_of_the_ends() {
    // Padding, and a routing header that is done: the checksum is that of the packet without them.
    let done: (u8, &[u8]) = (43, &[&[2, 0, 0, 0, 0, 0, 0][..], &[0x20; 16]].concat());
    let mut packet = with_extensions(&syn(V6), &[PADDING, done]);
    let parsed = Packet::parse(&mut packet, Offload::default()).unwrap();
    assert!(parsed.transport_checksum_ok() && !parsed.header().source_routed);
    packet[40 + 8 + 24 + 17] ^= 1;
    assert!(!Packet::parse(&mut packet, Offload::default()).unwrap().transport_checksum_ok());

    // Where the ends are not those of the IP header, the packet is flagged, and nothing is computed over the wrong ones.
    let left: (u8, &[u8]) = (43, &[&[2, 0, 1, 0, 0, 0, 0][..], &[0x20; 16]].concat());
    let home: (u8, &[u8]) = (60, &[&[2, 1, 2, 0, 0, 201, 16][..], &[0x20; 16]].concat());
    for chain in [[left, PADDING], [PADDING, left], [home, PADDING], [PADDING, home]] {
        let mut packet = with_extensions(&syn(V6), &chain);
        let parsed = Packet::parse(&mut packet, Offload::default()).unwrap();
        assert!(parsed.header().source_routed);
        assert!(parsed.transport_checksum_ok());
    }
}

#[test]
fn r37_udp_lengths_below_8_or_beyond_the_payload_are_refused() {
    for texts in [V4, V6] {
        let packet = udp(texts, b"12345678");
        let length_at = packet.len() - 8 - 4;
        for len in (0..8).chain([17, 18, 0xffff]) {
            let mut packet = packet.clone();
            packet[length_at..length_at + 2].copy_from_slice(&u16::to_be_bytes(len));
            assert_eq!(refusal(&packet), Some(Malformed::Transport), "length {len}");
        }
        for len in 8..=16 {
            let mut packet = packet.clone();
            packet[length_at..length_at + 2].copy_from_slice(&u16::to_be_bytes(len));
            assert_eq!(refusal(&packet), None, "length {len}");
        }
    }
}

#[test]
fn r55_tcp_headers_cut_or_with_an_impossible_data_offset_are_refused() {
    for texts in [V4, V6] {
        let packet = syn(texts);
        let (a, b) = ends(texts);
        let at = packet.len() - 20;
        for len in 0..20 {
            let short = build::ip(a.address, b.address, Protocol::TCP, 64, &packet[at..at + len]);
            assert_eq!(refusal(&short), Some(Malformed::Transport), "{len} bytes of TCP");
        }
        for offset in (0..5).chain(6..16) {
            let mut packet = packet.clone();
            packet[at + 12] = offset << 4;
            assert_eq!(refusal(&packet), Some(Malformed::Transport), "data offset {offset}");
        }
    }
}

#[test]
fn an_icmp_header_cut_is_refused_and_that_of_the_other_family_is_not_read() {
    for (texts, own, other) in [(V4, Protocol::ICMP, Protocol::ICMPV6), (V6, Protocol::ICMPV6, Protocol::ICMP)] {
        let (a, b) = ends(texts);
        let short = |protocol| build::ip(a.address, b.address, protocol, 64, &[8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(refusal(&short(own)), Some(Malformed::Transport));
        let mut other = short(other);
        let packet = Packet::parse(&mut other, Offload::default()).unwrap();
        assert_eq!(tungate::wire::icmp::kind(&packet), None);
    }
}

#[test]
fn r78_fragments_with_more_to_come_and_a_ragged_end_are_refused() {
    for len in 1..=32 {
        let refused = if (8 + len) % 8 == 0 { None } else { Some(Malformed::Fragment) };
        assert_eq!(refusal(&v4_fragment(udp(V4, &vec![7; len]), 64, true)), refused, "IPv4, {len} bytes");
        assert_eq!(refusal(&v6_fragment(&udp(V6, &vec![7; len]), 64, true)), refused, "IPv6, {len} bytes");
        assert_eq!(refusal(&v4_fragment(udp(V4, &vec![7; len]), 64, false)), None, "the last may be");
        assert_eq!(refusal(&v6_fragment(&udp(V6, &vec![7; len]), 64, false)), None, "the last may be");
    }
}

#[test]
fn r79_fragments_that_reach_beyond_65535_are_refused() {
    // Behind an IPv4 header of 20 bytes fit 65,515, behind that of IPv6 65,535, less what other headers take.
    let (a4, b4) = ends(V4);
    let (a6, b6) = ends(V6);
    for (more, refused) in [(0, None), (1, Some(Malformed::Fragment)), (1400, Some(Malformed::Fragment))] {
        let v4 = build::ip(a4.address, b4.address, Protocol::UDP, 64, &vec![7; 3 + more]);
        assert_eq!(refusal(&v4_fragment(v4, 65_512, false)), refused, "IPv4, {more} bytes beyond");
        let v6 = build::ip(a6.address, b6.address, Protocol::UDP, 64, &vec![7; 7 + more]);
        let fragment = v6_fragment(&v6, 65_528, false);
        assert_eq!(refusal(&fragment), refused, "IPv6, {more} bytes beyond");
        let hop_by_hop = [&[44, 0, 1, 4, 0, 0, 0, 0], &v6_fragment(&v6, 65_520, false)[40..]].concat();
        let fragment = build::ip(a6.address, b6.address, Protocol(0), 64, &hop_by_hop);
        assert_eq!(refusal(&fragment), refused, "IPv6 with hop-by-hop options, {more} bytes beyond");
    }
}

#[test]
fn a_first_fragment_without_its_whole_transport_header_is_refused() {
    let (a4, b4) = ends(V4);
    let (a6, b6) = ends(V6);
    let packet = syn(V4);
    for len in [8, 16] {
        let v4 = build::ip(a4.address, b4.address, Protocol::TCP, 64, &packet[20..20 + len]);
        let v6 = build::ip(a6.address, b6.address, Protocol::TCP, 64, &packet[20..20 + len]);
        assert_eq!(refusal(&v4_fragment(v4, 0, true)), Some(Malformed::Transport), "{len} bytes of TCP");
        assert_eq!(refusal(&v6_fragment(&v6, 0, true)), Some(Malformed::Transport), "{len} bytes of TCP");
    }
}

#[test]
fn r81_an_atomic_fragment_is_a_whole_packet() {
    let mut packet = v6_fragment(&syn(V6), 0, false);
    let parsed = Packet::parse(&mut packet, Offload::default()).unwrap();
    assert_eq!(parsed.fragment(), None);
    assert_eq!(parsed.endpoints(), Some(ends(V6)));
    assert!(parsed.transport_checksum_ok());
}

#[test]
fn fragments_tell_where_they_belong_and_take_another_identification() {
    let v4 = v4_fragment(with(udp(V4, &[7; 16]), &[(5, 9)]), 64, true);
    let v6 = v6_fragment(&udp(V6, &[7; 16]), 64, true);
    let v6_in_chain = with_extensions(&udp(V6, &[7; 16]), &[PADDING, (44, &[0, 0, 65, 0, 0, 0, 9])]);
    for (mut packet, id_at) in [(v4, 4..6), (v6, 44..48), (v6_in_chain, 52..56)] {
        let mut parsed = Packet::parse(&mut packet, Offload::default()).unwrap();
        let fragment = parsed.fragment().unwrap();
        assert_eq!((fragment.id, fragment.offset, fragment.more), (9, 64, true));
        assert_eq!(parsed.endpoints(), None);
        let before = parsed.bytes().to_vec();
        parsed.set_fragment_id(0x0203);
        let mut expected = before;
        expected[id_at.end - 2..id_at.end].copy_from_slice(&[2, 3]);
        oracle::fix_ipv4(&mut expected);
        assert_eq!(parsed.bytes(), expected);
    }
    let first = v4_fragment(udp(V4, &[7; 16]), 0, true);
    assert_eq!(read(&first), Some(ends(V4)), "the first has the ports");
    let mut whole = syn(V4);
    Packet::parse(&mut whole, Offload::default()).unwrap().set_fragment_id(9);
    assert_eq!(whole, syn(V4), "a whole packet has none to change");
}

#[test]
fn r82_a_first_fragment_without_its_whole_header_chain_is_refused() {
    let (a, b) = ends(V6);
    // Ends in the middle of an extension header, before the transport header, and within it.
    let options = [&[60u8, 2][..], &[0; 14]].concat();
    let fragment = |next: u8, body: &[u8]| {
        let packet = build::ip(a.address, b.address, Protocol(next), 64, body);
        refusal(&v6_fragment(&packet, 0, true))
    };
    assert_eq!(fragment(60, &options), Some(Malformed::ExtensionHeader));
    assert_eq!(fragment(60, &[17, 0, 1, 4, 0, 0, 0, 0]), Some(Malformed::Transport));
    assert_eq!(fragment(6, &syn(V6)[40..56]), Some(Malformed::Transport));
    assert_eq!(fragment(58, &[]), Some(Malformed::Fragment));
    assert_eq!(fragment(17, &udp(V6, &[7; 8])[40..]), None);
}

#[test]
fn r85_chains_of_more_than_8_headers_cut_or_out_of_order_are_refused() {
    let chain = |n: usize| with_extensions(&syn(V6), &vec![PADDING; n]);
    assert_eq!(read(&chain(8)), Some(ends(V6)));
    for n in [9, 10, 170] {
        assert_eq!(refusal(&chain(n)), Some(Malformed::ExtensionHeader), "{n} headers");
    }
    let hop: (u8, &[u8]) = (0, PADDING.1);
    let atomic: (u8, &[u8]) = (44, &[0, 0, 0, 0, 0, 0, 9]);
    for chain in [[hop, hop], [PADDING, hop], [atomic, hop], [atomic, atomic]] {
        assert_eq!(refusal(&with_extensions(&syn(V6), &chain)), Some(Malformed::ExtensionHeader), "{chain:?}");
    }
    // The length of a header reaches beyond the packet.
    for kind in [0, 43, 60] {
        let beyond = with_extensions(&syn(V6), &[(kind, &[3, 0, 0, 0, 0, 0, 0])]);
        assert_eq!(refusal(&beyond), Some(Malformed::ExtensionHeader), "kind {kind}");
        let cut = &with_extensions(&syn(V6), &[(kind, PADDING.1)])[..44];
        let cut = build::ip(ends(V6).0.address, ends(V6).1.address, Protocol(kind), 64, &cut[40..]);
        assert_eq!(refusal(&cut), Some(Malformed::ExtensionHeader), "kind {kind} cut");
    }
}

#[test]
fn r87_what_has_no_ports_is_not_read_as_if_it_had() {
    let (a, b) = ends(V6);
    // No next header, ESP, authentication header, mobility: whatever follows looks like ports.
    for protocol in [59, 50, 51, 135, 132, 33] {
        let mut packet = build::ip(a.address, b.address, Protocol(protocol), 64, &syn(V6)[40..]);
        let parsed = Packet::parse(&mut packet, Offload::default()).unwrap();
        assert_eq!((parsed.protocol(), parsed.endpoints()), (Protocol(protocol), None));
        assert!(parsed.tcp().is_none() && parsed.transport_checksum_ok());
    }
    // Payload length 0: nothing follows, whatever lies in the buffer.
    let mut empty = syn(V6);
    empty[4..6].fill(0);
    assert_eq!(refusal(&empty), Some(Malformed::Transport));
    empty[6] = 59;
    let parsed = Packet::parse(&mut empty, Offload::default()).unwrap();
    assert_eq!((parsed.bytes().len(), parsed.family()), (40, Family::V6));
}

#[test]
fn r88_hop_by_hop_options_that_ask_to_be_discarded_are_skipped() {
    // The two high bits of an option's kind say what a node that does not know it shall do (RFC 8200 4.2).
    for kind in [0x1e, 0x5e, 0x9e, 0xde] {
        let unknown: (u8, &[u8]) = (0, &[0, kind, 4, 0, 80, 0, 80]);
        assert_eq!(read(&with_extensions(&syn(V6), &[unknown])), Some(ends(V6)), "option {kind:#x}");
    }
}
