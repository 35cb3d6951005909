//! Into a tunnel and out again, with etherparse for a second opinion on the outer headers.

mod size;

use etherparse::{IpSlice, Ipv4Slice, Ipv6Slice};
use proptest::prelude::*;
use tungate::wire::tunnel::{self, Encapsulation, Entry, Fit, GUE_PORT, Refused, Scratch, Tunnel};
use tungate::wire::{Address, Endpoint, Family, Gso, Offload, Packet, Protocol, build, checksum, segment};

use crate::generate::{State, Transport, spec};
use crate::oracle;

fn at(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

fn entry(encapsulation: Encapsulation, outer: Family, path_mtu: u16) -> Entry {
    let (source, destination) = match outer {
        Family::V4 => (Address::v4([10, 99, 0, 10]), Address::v4([10, 0, 0, 1])),
        Family::V6 => (at("[fd00:99::10]:0").address, at("[fd00::1]:0").address),
    };
    Entry { tunnel: Tunnel { encapsulation, source, destination }, path_mtu, entropy: 0x1234, id: 0xabcd_0007 }
}

/// All kinds of tunnel.
fn tunnels() -> impl Iterator<Item = (Encapsulation, Family)> {
    Encapsulation::ALL.into_iter().flat_map(|kind| [(kind, Family::V4), (kind, Family::V6)])
}

/// A datagram of so many bytes, IP header included, with this TOS or traffic class.
fn datagram(family: Family, len: usize, traffic_class: u8, dont_fragment: bool) -> Vec<u8> {
    let (from, to, headers) = match family {
        Family::V4 => (at("198.51.100.7:40000"), at("192.0.2.10:53"), 28),
        Family::V6 => (at("[2001:db8:1::7]:40000"), at("[2001:db8::10]:53"), 48),
    };
    let payload: Vec<u8> = (0..len - headers).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut bytes = build::udp(from, to, &payload);
    match family {
        Family::V4 => {
            bytes[1] = traffic_class;
            bytes[4..6].copy_from_slice(&[0x77, 0x01]);
            bytes[6] = if dont_fragment { 0x40 } else { 0 };
            right_header(&mut bytes);
        }
        Family::V6 => {
            bytes[0] = 0x60 | traffic_class >> 4;
            bytes[1] = traffic_class << 4;
        }
    }
    bytes
}

fn right_header(bytes: &mut [u8]) {
    let header = usize::from(bytes[0] & 15) * 4;
    bytes[10..12].fill(0);
    let sum = !oracle::sum(&[&bytes[..header]]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The packet as it stands after a router.
fn one_hop_later(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        right_header(&mut packet);
    } else {
        packet[7] -= 1;
    }
    packet
}

/// The outer packets that leave.
fn wrapped(bytes: &[u8], offload: Offload, entry: Entry) -> Vec<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let mut packet = Packet::parse(&mut bytes, offload).unwrap();
    assert_eq!(entry.fit(&packet), Fit::Fits);
    packet.enter(entry);
    let mut out = Vec::new();
    tunnel::emit(&mut packet, &mut Scratch::default(), |headers, payload| out.push([headers, payload].concat()));
    out
}

fn wrapped_whole(bytes: &[u8], entry: Entry) -> Vec<u8> {
    let [one] = wrapped(bytes, Offload::default(), entry).try_into().expect("one packet");
    one
}

/// The packet inside, after etherparse has found the outer headers right.
fn unwrapped(outer: &[u8], encapsulation: Encapsulation) -> Vec<u8> {
    let ip = IpSlice::from_slice(outer).unwrap();
    let (header, source, destination) = match &ip {
        IpSlice::Ipv4(ip) => {
            assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
            assert_eq!(usize::from(ip.header().total_len()), outer.len());
            (20, ip.header().source().to_vec(), ip.header().destination().to_vec())
        }
        IpSlice::Ipv6(ip) => {
            assert_eq!(usize::from(ip.header().payload_length()) + 40, outer.len());
            (40, ip.header().source().to_vec(), ip.header().destination().to_vec())
        }
    };
    let entry = entry(encapsulation, if header == 20 { Family::V4 } else { Family::V6 }, 1500);
    assert_eq!(source, entry.tunnel.source.header_bytes());
    assert_eq!(destination, entry.tunnel.destination.header_bytes());
    let protocol = Protocol(ip.payload().ip_number.0);
    let mut payload = outer[header..].to_vec();
    if encapsulation == Encapsulation::Gue {
        assert_eq!(oracle::word(&payload, 2), GUE_PORT);
        assert_eq!(usize::from(oracle::word(&payload, 4)), payload.len());
        let sum = oracle::sum(&[&oracle::pseudo_header(outer, Protocol::UDP, payload.len()), &payload]);
        let stands = oracle::word(&payload, 6);
        // IPv6 wants a checksum; over IPv4 that of the packet inside is enough.
        assert!(if header == 40 { stands != 0 && sum == 0xffff } else { stands == 0 });
        payload.drain(..8);
    }
    tunnel::open(encapsulation, protocol, &mut payload).unwrap().to_vec()
}

#[test]
fn r89_the_packet_lies_behind_four_bytes_of_gre_as_it_came() {
    for (inner, kind) in [(Family::V4, [0x08, 0x00]), (Family::V6, [0x86, 0xdd])] {
        for (outer, header) in [(Family::V4, 20), (Family::V6, 40)] {
            let packet = datagram(inner, 100, 0, true);
            let out = wrapped_whole(&packet, entry(Encapsulation::Gre, outer, 1500));
            assert_eq!(out[if header == 20 { 9 } else { 6 }], 47);
            assert_eq!(out[header..header + 4], [0, 0, kind[0], kind[1]]);
            assert_eq!(out[header + 4..], one_hop_later(&packet));
        }
    }
}

#[test]
fn r90_the_ttl_goes_down_by_one_and_the_outer_one_is_fresh() {
    for (outer, ttl_at, header) in [(Family::V4, 8, 24), (Family::V6, 7, 44)] {
        let out = wrapped_whole(&datagram(Family::V4, 100, 0, true), entry(Encapsulation::Gre, outer, 1500));
        assert_eq!((out[ttl_at], out[header + 8]), (64, 63));
    }
}

#[test]
fn r91_r92_no_flag_no_version_no_option_is_sent() {
    for outer in [Family::V4, Family::V6] {
        let out = wrapped_whole(&datagram(Family::V4, 100, 0xff, true), entry(Encapsulation::Gre, outer, 1500));
        let header = if outer == Family::V4 { 20 } else { 40 };
        assert_eq!(out[header..header + 2], [0, 0]);
        assert_eq!(out.len(), header + 4 + 100, "and so nothing else between the headers");
    }
}

#[test]
fn r93_gre_that_rfc_2784_forbids_is_refused() {
    let inner = datagram(Family::V4, 60, 0, true);
    let open = |flags: [u8; 2], kind: [u8; 2], options: &[u8]| {
        let mut payload = [&flags[..], &kind, options, &inner].concat();
        tunnel::open(Encapsulation::Gre, Protocol::GRE, &mut payload).map(|packet| packet.to_vec())
    };
    let v4 = [0x08, 0x00];
    assert_eq!(open([0, 0], v4, &[]), Ok(inner.clone()));
    for version in 1..=7 {
        assert_eq!(open([0, version], v4, &[]), Err(Refused::Version));
    }
    for flag in [0x40, 0x08, 0x04] {
        assert_eq!(open([flag, 0], v4, &[]), Err(Refused::Flags), "{flag:#x}");
    }
    assert_eq!(open([0x10, 0], v4, &[9; 4]), Ok(inner.clone()), "a sequence number is stepped over");
    for (flags, options) in [(0x20, 4), (0x30, 8)] {
        assert_eq!(open([flags, 0], v4, &vec![9; options]), Err(Refused::Key), "a tunnel without key takes none");
    }
    assert_eq!(open([0x03, 0xf8], v4, &[]), Ok(inner.clone()), "reserved bits that a receiver ignores");
    assert_eq!(open([0, 0], [0x88, 0x47], &[]), Err(Refused::Protocol));
    assert_eq!(open([0, 0], [0x86, 0xdd], &[]), Err(Refused::Protocol), "IPv4 inside");
    let right = !oracle::sum(&[&[0x80, 0, 0x08, 0x00], &inner]);
    assert_eq!(open([0x80, 0], v4, &[&right.to_be_bytes()[..], &[0, 0]].concat()), Ok(inner.clone()));
    let wrong = right.wrapping_add(1);
    assert_eq!(open([0x80, 0], v4, &[&wrong.to_be_bytes()[..], &[0, 0]].concat()), Err(Refused::Checksum));
    for len in 0..16 {
        let mut short = [&[0xb0, 0, 0x08, 0x00][..], &[0; 16]].concat();
        let opened = tunnel::open(Encapsulation::Gre, Protocol::GRE, &mut short[..len]);
        assert_eq!(opened.err(), Some(Refused::Truncated), "{len} bytes");
    }
}

#[test]
fn r91_a_key_lies_behind_the_header_and_only_that_key_is_taken() {
    let keyed = Encapsulation::KeyedGre(0x0102_0304);
    for (inner, kind) in [(Family::V4, [0x08, 0x00]), (Family::V6, [0x86, 0xdd])] {
        for (outer, header) in [(Family::V4, 20), (Family::V6, 40)] {
            let packet = datagram(inner, 100, 0, true);
            let mut out = wrapped_whole(&packet, entry(keyed, outer, 1500));
            assert_eq!(out[header..header + 8], [0x20, 0, kind[0], kind[1], 1, 2, 3, 4]);
            assert_eq!(out[header + 8..], one_hop_later(&packet));
            assert_eq!(entry(keyed, outer, 1500).tunnel.room(1500), 1500 - 8 - u16::try_from(header).unwrap());
            let payload = &mut out[header..];
            assert_eq!(tunnel::open(keyed, Protocol::GRE, payload).map(|packet| packet.len()), Ok(100));
            for other in [Encapsulation::Gre, Encapsulation::KeyedGre(1)] {
                assert_eq!(tunnel::open(other, Protocol::GRE, payload), Err(Refused::Key));
            }
        }
    }
}

#[test]
fn gue_with_options_or_of_an_unknown_version_is_refused() {
    let inner = datagram(Family::V6, 80, 0, true);
    let open = |header: &[u8]| {
        let mut payload = [header, &inner].concat();
        tunnel::open(Encapsulation::Gue, Protocol::UDP, &mut payload).map(|packet| packet.to_vec())
    };
    assert_eq!(open(&[0, 41, 0, 0]), Ok(inner.clone()));
    assert_eq!(open(&[]), Ok(inner.clone()), "variant 1 is the packet itself");
    assert_eq!(open(&[0, 4, 0, 0]), Err(Refused::Protocol));
    assert_eq!(open(&[0, 59, 0, 0]), Err(Refused::Protocol));
    assert_eq!(open(&[0x20, 41, 0, 0]), Err(Refused::Version), "neither 0 nor 4 nor 6");
    assert_eq!(open(&[0x01, 41, 0, 0]), Err(Refused::Flags));
    assert_eq!(open(&[0, 41, 0x80, 0]), Err(Refused::Flags));
}

#[test]
fn r94_r95_the_outer_header_has_the_dscp_and_ecn_of_the_inner() {
    for (encapsulation, outer) in tunnels() {
        for inner in [Family::V4, Family::V6] {
            for traffic_class in [0, 1, 2, 3, 0xb8, 0xbb, 0xff] {
                let packet = datagram(inner, 100, traffic_class, true);
                let out = wrapped_whole(&packet, entry(encapsulation, outer, 1500));
                let outside = if outer == Family::V4 { out[1] } else { out[0] << 4 | out[1] >> 4 };
                assert_eq!(outside, traffic_class);
                assert_eq!(unwrapped(&out, encapsulation), one_hop_later(&packet), "and the inner keeps its own");
            }
        }
    }
}

#[test]
fn r96_congestion_marked_on_the_way_reaches_the_packet_inside() {
    const CE: u8 = 3;
    // RFC 6040 figure 4: rows are the inner field, columns the outer: Not-ECT, ECT(1), ECT(0), CE.
    let table = [
        (0, [Some(0), Some(0), Some(0), None]),
        (1, [Some(1), Some(1), Some(1), Some(CE)]),
        (2, [Some(2), Some(1), Some(2), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];
    for family in [Family::V4, Family::V6] {
        for (inner, row) in table {
            for (outer, expected) in row.into_iter().enumerate() {
                let mut packet = datagram(family, 60, 0xb8 | inner, true);
                let found = tunnel::merge_congestion(&mut packet, 0x50 | u8::try_from(outer).unwrap());
                let Some(ecn) = expected else {
                    assert_eq!(found, Err(Refused::Congestion));
                    continue;
                };
                assert_eq!(packet, datagram(family, 60, 0xb8 | ecn, true), "{inner} in {outer}");
            }
        }
    }
}

#[test]
fn r97_an_outer_ipv4_header_that_none_may_cut_has_no_identification() {
    let out = wrapped_whole(&datagram(Family::V4, 100, 0, true), entry(Encapsulation::Gre, Family::V4, 1500));
    let ip = Ipv4Slice::from_slice(&out).unwrap();
    assert_eq!((ip.header().identification(), ip.header().dont_fragment(), ip.header().total_len()), (0, true, 124));
    let out = wrapped_whole(&datagram(Family::V4, 100, 0, true), entry(Encapsulation::Gre, Family::V6, 1500));
    assert_eq!(Ipv6Slice::from_slice(&out).unwrap().header().payload_length(), 104);
}

#[test]
fn r98_the_outer_packet_has_df_whatever_the_inner_has() {
    for dont_fragment in [false, true] {
        let packet = datagram(Family::V4, 100, 0, dont_fragment);
        let out = wrapped_whole(&packet, entry(Encapsulation::Ipip, Family::V4, 1500));
        assert_eq!(out[6..8], [0x40, 0]);
    }
}

/// What a packet is at the other end.
fn round_trip(bytes: &[u8], offload: Offload, encapsulation: Encapsulation, outer: Family) -> Vec<Vec<u8>> {
    let out = wrapped(bytes, offload, entry(encapsulation, outer, u16::MAX));
    out.iter().map(|outer| unwrapped(outer, encapsulation)).collect()
}

/// Every packet that passes the door comes out of every tunnel as it went in, one hop later.
pub(crate) fn comes_out_as_it_went_in(bytes: &[u8]) -> bool {
    let mut copy = bytes.to_vec();
    let Ok(packet) = Packet::parse(&mut copy, Offload::default()) else { return false };
    if packet.ttl() < 2 || packet.bytes().len() > 65_000 {
        return false;
    }
    let expected = one_hop_later(packet.bytes());
    for (encapsulation, outer) in tunnels() {
        let [inner] = round_trip(bytes, Offload::default(), encapsulation, outer).try_into().expect("one packet");
        // A header of more than 20 bytes is summed by the test as a whole, too.
        assert_eq!(inner, expected, "{encapsulation:?} over {outer:?}");
    }
    true
}

proptest! {
    /// `decap(encap(p)) == p` up to the TTL, for super-packets segment by segment.
    #[test]
    fn what_comes_out_is_what_went_in(mut spec in spec(), size in 8u16..1400, super_packet: bool) {
        spec.ttl = spec.ttl.max(2);
        if super_packet {
            (spec.state, spec.segment) = (State::Partial, Some(size));
            if let Transport::Udp { surplus } = &mut spec.transport {
                *surplus = 0;
            }
        }
        let (bytes, offload) = spec.build();
        let mut copy = bytes.clone();
        let Ok(mut packet) = Packet::parse(&mut copy, offload) else { return Ok(()) };
        prop_assume!(packet.offload().gso == Gso::None || packet.largest_segment() <= 1500);
        let mut expected = Vec::new();
        segment::cut(&mut packet, &mut Vec::new(), |head, payload| {
            expected.push(one_hop_later(&[head, payload].concat()));
        });
        for (encapsulation, outer) in tunnels() {
            prop_assert_eq!(&round_trip(&bytes, offload, encapsulation, outer), &expected);
        }
    }

    /// Nothing that arrives in a tunnel makes the way out panic, and what it lets through is an IP packet.
    #[test]
    fn r93_whatever_arrives_is_opened_or_refused(
        mut payload in proptest::collection::vec(any::<u8>(), 0..120), protocol: u8, traffic_class: u8, kind in 0usize..3
    ) {
        if let Ok(inner) = tunnel::open(Encapsulation::ALL[kind], Protocol(protocol), &mut payload) {
            let merged = tunnel::merge_congestion(inner, traffic_class);
            prop_assert!(merged.is_err() || inner[0] >> 4 == 6 || checksum::sum(&inner[..usize::from(inner[0] & 15) * 4]) == 0xffff);
        }
    }
}
