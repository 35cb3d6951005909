//! NAT of a TCP or UDP packet changes addresses, ports, TTL and checksums, and nothing else.

use proptest::prelude::*;
use tungate::wire::{Checksum, Endpoint, Family, Offload, Packet, Protocol, Translation, build};

use crate::generate::{Spec, State, Transport, ends, family, spec_of, translated};
use crate::oracle;

/// What comes out when a packet goes in and its ends become `to`.
fn translate(bytes: &[u8], offload: Offload, to: (Endpoint, Endpoint)) -> (Vec<u8>, Offload) {
    let mut bytes = bytes.to_vec();
    let mut packet = Packet::parse(&mut bytes, offload).unwrap();
    let change = Translation::new(packet.endpoints().unwrap(), to);
    packet.translate(&change);
    let offload = *packet.offload();
    (bytes, offload)
}

/// The packet with a finished checksum, by the oracle.
fn finished(spec: &Spec, mut bytes: Vec<u8>) -> Vec<u8> {
    if spec.state == State::Partial {
        oracle::finish(&mut bytes, spec.transport_at(), spec.protocol());
    }
    bytes
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

/// Offsets that NAT may change: addresses, ports, TTL, checksums.
fn may_change(spec: &Spec) -> Vec<usize> {
    let at = spec.transport_at();
    let (ttl, addresses) = match spec.family() {
        Family::V4 => (8..9, 10..20),
        Family::V6 => (7..8, 8..40),
    };
    [ttl, addresses, at..at + 4, spec.checksum_at()..spec.checksum_at() + 2].into_iter().flatten().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_translated_packet_is_the_packet_its_new_ends_would_have_sent((spec, to) in translated()) {
        let spec = if matches!(spec.state, State::Wrong(_)) { Spec { state: State::Right, ..spec } } else { spec };
        let (bytes, offload) = spec.build();
        let (out, out_offload) = translate(&bytes, offload, to);
        let fresh = Spec { ends: to, ttl: spec.ttl - 1, ..spec.clone() };
        prop_assert_eq!(&out, &fresh.build().0);
        let header_len = u16::try_from(spec.headers()).unwrap();
        prop_assert_eq!(out_offload, Offload { header_len, ..offload }, "all but the header length was to be trusted");
    }

    #[test]
    fn finished_in_software_both_packets_have_the_checksum_of_a_naive_computation(
        (spec, to) in translated(), state in prop_oneof![Just(State::Right), Just(State::Verified), Just(State::Partial)],
    ) {
        let surplus = matches!(spec.transport, Transport::Udp { surplus } if surplus > 0);
        let spec = Spec { state: if surplus { State::Right } else { state }, ..spec };
        let (bytes, offload) = spec.build();
        let (out, _) = translate(&bytes, offload, to);
        for packet in [finished(&spec, bytes), finished(&spec, out)] {
            let right = oracle::transport(&packet, spec.transport_at(), spec.checksummed_end(), spec.protocol());
            prop_assert_eq!(oracle::word(&packet, spec.checksum_at()), right);
        }
    }

    #[test]
    fn r12_traffic_class_flags_id_label_options_and_payload_pass_unchanged((spec, to) in translated()) {
        let (bytes, offload) = spec.build();
        let (out, _) = translate(&bytes, offload, to);
        let may_change = may_change(&spec);
        prop_assert_eq!(out.len(), bytes.len());
        for at in (0..bytes.len()).filter(|at| !may_change.contains(at)) {
            prop_assert_eq!(out[at], bytes[at], "byte {}", at);
        }
    }

    #[test]
    fn r13_options_are_skipped_not_changed(
        (spec, to) in (spec_of(Family::V4), ends(Family::V4))
            .prop_filter("with options", |(spec, _)| !spec.options.is_empty()),
    ) {
        let (mut bytes, offload) = spec.build();
        prop_assert_eq!(Packet::parse(&mut bytes, offload).unwrap().endpoints(), Some(spec.ends));
        let (out, _) = translate(&bytes, offload, to);
        prop_assert_eq!(&out[20..spec.transport_at()], &spec.options[..]);
        prop_assert_eq!(oracle::sum(&[&out[..spec.transport_at()]]), 0xffff, "header checksum");
    }

    #[test]
    fn r84_extension_headers_are_walked_and_kept_byte_for_byte(
        (spec, to) in (spec_of(Family::V6), ends(Family::V6))
            .prop_filter("with extension headers", |(spec, _)| !spec.extensions.is_empty()),
    ) {
        let (mut bytes, offload) = spec.build();
        prop_assert_eq!(Packet::parse(&mut bytes, offload).unwrap().endpoints(), Some(spec.ends));
        let (out, _) = translate(&bytes, offload, to);
        prop_assert_eq!(&out[40..spec.transport_at()], &bytes[40..spec.transport_at()]);
    }

    #[test]
    fn r20_a_udp_checksum_that_translates_to_zero_is_sent_as_all_ones(
        (mut spec, to) in translated(), port in any::<u16>(),
    ) {
        spec.transport = Transport::Udp { surplus: 0 };
        (spec.state, spec.segment, spec.payload) = (State::Right, None, 2);
        // The new source port is the one that makes the sum of everything else zero.
        let to = (Endpoint::new(to.0.address, 0), Endpoint::new(to.1.address, port));
        let (bare, _) = Spec { ends: to, ..spec.clone() }.build();
        let to = (Endpoint::new(to.0.address, oracle::word(&bare, spec.checksum_at())), to.1);
        let (bytes, offload) = spec.build();
        let (out, _) = translate(&bytes, offload, to);
        prop_assert_eq!(oracle::word(&out, spec.checksum_at()), 0xffff);
    }

    #[test]
    fn r21_r22_udp_without_a_checksum_stays_without((mut spec, to) in translated(), verified: bool) {
        // R21 is IPv4's, where zero is legal; R22 IPv6's, where we let it pass and never write a partial sum into it.
        spec.transport = Transport::Udp { surplus: 0 };
        spec.state = State::Absent;
        let (bytes, mut offload) = spec.build();
        offload.checksum = if verified { Checksum::Verified } else { Checksum::Complete };
        let (out, _) = translate(&bytes, offload, to);
        prop_assert_eq!(oracle::word(&out, spec.checksum_at()), 0);
    }

    #[test]
    fn r23_a_tcp_checksum_of_zero_is_written_as_zero((mut spec, to) in translated(), port in any::<u16>()) {
        spec.transport = Transport::Tcp { fixed: [7; 16], options: Vec::new() };
        (spec.state, spec.segment) = (State::Right, None);
        let to = (Endpoint::new(to.0.address, 0), Endpoint::new(to.1.address, port));
        let (bare, _) = Spec { ends: to, ..spec.clone() }.build();
        let to = (Endpoint::new(to.0.address, oracle::word(&bare, spec.checksum_at())), to.1);
        let (bytes, offload) = spec.build();
        let (out, _) = translate(&bytes, offload, to);
        prop_assert_eq!(oracle::word(&out, spec.checksum_at()), 0);
    }

    #[test]
    fn r24_a_wrong_checksum_stays_wrong_by_the_same_amount((mut spec, to) in translated(), error in 1u16..0xffff) {
        (spec.state, spec.segment) = (State::Wrong(error), None);
        let (mut bytes, offload) = spec.build();
        prop_assert!(!Packet::parse(&mut bytes, offload).unwrap().transport_checksum_ok());
        let (mut out, _) = translate(&bytes, offload, to);
        let fresh = Spec { ends: to, ttl: spec.ttl - 1, ..spec.clone() }.build().0;
        let at = spec.checksum_at();
        prop_assert!(oracle::same(oracle::word(&out, at), oracle::word(&fresh, at)));
        prop_assert!(!Packet::parse(&mut out, offload).unwrap().transport_checksum_ok());
    }

    #[test]
    fn a_right_checksum_is_found_right_before_and_after((mut spec, to) in translated()) {
        (spec.state, spec.segment) = (State::Right, None);
        let (mut bytes, offload) = spec.build();
        prop_assert!(Packet::parse(&mut bytes, offload).unwrap().transport_checksum_ok());
        let (mut out, _) = translate(&bytes, offload, to);
        prop_assert!(Packet::parse(&mut out, offload).unwrap().transport_checksum_ok());
    }

    #[test]
    fn the_way_back_restores_every_byte_but_the_ttl((mut spec, to) in translated()) {
        spec.ttl = spec.ttl.max(3);
        let (bytes, offload) = spec.build();
        let (there, offload) = translate(&bytes, offload, to);
        let (mut back, _) = translate(&there, offload, spec.ends);
        let ttl_at = if spec.family() == Family::V4 { 8 } else { 7 };
        prop_assert_eq!(back[ttl_at], spec.ttl - 2);
        back[ttl_at] = spec.ttl;
        oracle::fix_ipv4(&mut back);
        // All ones is the other zero: a wrong checksum may come back as it.
        let at = spec.checksum_at();
        prop_assert!(oracle::same(oracle::word(&back, at), oracle::word(&bytes, at)));
        back[at..at + 2].copy_from_slice(&bytes[at..at + 2]);
        prop_assert_eq!(back, bytes);
    }

    #[test]
    fn r36_udp_without_payload_is_translated_like_any_other((mut spec, to) in translated()) {
        spec.transport = Transport::Udp { surplus: 0 };
        (spec.payload, spec.segment) = (0, None);
        let (bytes, offload) = spec.build();
        prop_assert_eq!(oracle::word(&bytes, spec.transport_at() + 4), 8);
        let (mut out, _) = translate(&bytes, offload, to);
        prop_assert_eq!(Packet::parse(&mut out, offload).unwrap().endpoints(), Some(to));
    }

    #[test]
    fn r37_a_udp_surplus_passes_and_lies_outside_the_checksum((mut spec, to) in translated(), surplus in 1usize..20) {
        spec.transport = Transport::Udp { surplus };
        (spec.state, spec.segment) = (State::Right, None);
        let (bytes, offload) = spec.build();
        let (mut out, _) = translate(&bytes, offload, to);
        prop_assert_eq!(&out[out.len() - surplus..], &bytes[bytes.len() - surplus..]);
        let end = out.len() - surplus;
        let right = oracle::transport(&out, spec.transport_at(), end, Protocol::UDP);
        prop_assert_eq!(oracle::word(&out, spec.checksum_at()), right);
        prop_assert!(Packet::parse(&mut out, offload).unwrap().transport_checksum_ok());
    }

    #[test]
    fn fragments_translated_one_by_one_make_the_translated_datagram(
        (mut spec, to) in (spec_of(Family::V4), ends(Family::V4)), wrong: bool, cut in 8usize..12,
    ) {
        // Only the first has ports and checksum; both travel on as if the whole datagram had been translated.
        (spec.segment, spec.payload) = (None, 100);
        spec.state = if wrong { State::Wrong(7) } else { State::Right };
        let (whole, offload) = spec.build();
        let (expected, _) = translate(&whole, offload, to);
        let at = spec.transport_at();
        let cut = at + cut * 8;
        let change = Translation::new(spec.ends, to);
        let mut out: Vec<u8> = Vec::new();
        for (from, until, offset_and_more) in [(at, cut, 0x2000), (cut, whole.len(), (cut - at) / 8)] {
            let mut fragment = [&whole[..at], &whole[from..until]].concat();
            let len = u16::try_from(fragment.len()).unwrap();
            fragment[2..4].copy_from_slice(&len.to_be_bytes());
            fragment[6..8].copy_from_slice(&u16::try_from(offset_and_more).unwrap().to_be_bytes());
            oracle::fix_ipv4(&mut fragment);
            Packet::parse(&mut fragment, offload).unwrap().translate(&change);
            prop_assert_eq!(oracle::sum(&[&fragment[..at]]), 0xffff, "header checksum");
            prop_assert_eq!(&fragment[12..20], &expected[12..20], "addresses");
            out.extend(&fragment[at..]);
        }
        prop_assert_eq!(&out[..], &expected[at..]);
    }

    #[test]
    fn an_echo_keeps_its_identifier_and_a_right_checksum(
        (from, to) in family().prop_flat_map(|family| (ends(family), ends(family))), body in any::<[u8; 12]>(),
    ) {
        let v4 = from.0.address.is_v4();
        let message = [&[if v4 { 8 } else { 128 }, 0, 0, 0], &body[..]].concat();
        let mut bytes = build::icmp(from.0.address, from.1.address, message);
        let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        packet.translate(&Translation::new(from, to));
        prop_assert_eq!(packet.addresses(), (to.0.address, to.1.address));
        prop_assert_eq!(&packet.transport()[4..], &body[..]);
        prop_assert!(packet.transport_checksum_ok());
    }
}

#[test]
fn r57_a_syn_with_data_is_forwarded_with_its_data() {
    let from = (endpoint("198.51.100.7:1000"), endpoint("192.0.2.10:80"));
    let to = (endpoint("10.99.0.10:4000"), endpoint("10.0.0.1:8080"));
    // A TCP Fast Open cookie (RFC 7413 4.1.1), and data that looks like an address NAT might be tempted to change.
    let options = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    let segment = build::Tcp {
        flags: tungate::wire::TcpFlags::SYN,
        options: &options,
        payload: b"PORT 192,0,2,10,0,80",
        ..build::Tcp::default()
    };
    let (out, _) = translate(&build::tcp(from.0, from.1, &segment), Offload::default(), to);
    let mut fresh = build::tcp(to.0, to.1, &segment);
    fresh[8] -= 1;
    oracle::fix_ipv4(&mut fresh);
    assert_eq!(out, fresh);
}

#[test]
fn ttl_two_leaves_as_one() {
    for (a, b) in [("198.51.100.7:1000", "192.0.2.10:80"), ("[2001:db8::7]:1000", "[2001:db8::10]:80")] {
        let ends = (endpoint(a), endpoint(b));
        let mut bytes = build::udp(ends.0, ends.1, b"");
        let ttl_at = if bytes[0] >> 4 == 4 { 8 } else { 7 };
        bytes[ttl_at] = 2;
        oracle::fix_ipv4(&mut bytes);
        let (mut out, _) = translate(&bytes, Offload::default(), (ends.1, ends.0));
        assert_eq!(Packet::parse(&mut out, Offload::default()).unwrap().ttl(), 1);
    }
}
