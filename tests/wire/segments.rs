//! A super-packet cut in user space is what the kernel's GSO would have made of it.

use proptest::prelude::*;
use tungate::wire::{Checksum, Gso, Offload, Packet, Protocol, Translation, segment};

use crate::generate::{Spec, State, Transport, spec, translated};
use crate::oracle;
use crate::sound::payload_of;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

fn cut(bytes: &mut [u8], offload: Offload) -> Vec<Vec<u8>> {
    let mut packet = Packet::parse(bytes, offload).unwrap();
    let mut segments = Vec::new();
    segment::cut(&mut packet, &mut Vec::new(), |head, payload| segments.push([head, payload].concat()));
    segments
}

/// A super-packet as the kernel hands it over: the checksum partial.
fn super_packet(mut spec: Spec, size: u16, payload: usize) -> Spec {
    (spec.state, spec.segment, spec.payload) = (State::Partial, Some(size), payload);
    if let Transport::Udp { surplus } = &mut spec.transport {
        *surplus = 0;
    }
    spec
}

proptest! {
    #[test]
    fn segments_carry_the_payload_in_pieces_of_the_segment_size(
        spec in spec(), size in 1u16..2000, payload in 0usize..20_000,
    ) {
        let spec = super_packet(spec, size, payload);
        let (mut bytes, offload) = spec.build();
        let segments = cut(&mut bytes, offload);
        let pieces: Vec<&[u8]> = segments.iter().map(|s| payload_of(s)).collect();
        prop_assert_eq!(pieces.concat(), spec.payload_bytes());
        let (last, full) = pieces.split_last().unwrap();
        prop_assert!(full.iter().all(|piece| piece.len() == usize::from(size)));
        prop_assert!(last.len() <= usize::from(size) && (payload == 0 || !last.is_empty()));
    }

    #[test]
    fn headers_are_repeated_but_for_length_id_sequence_and_flags(
        spec in spec(), size in 1u16..2000, payload in 1usize..20_000,
    ) {
        let spec = super_packet(spec, size, payload);
        let (bytes, offload) = spec.build();
        let segments = cut(&mut bytes.clone(), offload);
        let at = spec.transport_at();
        for (n, segment) in segments.iter().enumerate() {
            let mut expected = bytes[..spec.headers()].to_vec();
            let length_at = if expected[0] >> 4 == 4 { 2 } else { 4 };
            expected[length_at..length_at + 2].copy_from_slice(&segment[length_at..length_at + 2]);
            if expected[0] >> 4 == 4 {
                let id = oracle::word(&bytes, 4).wrapping_add(u16::try_from(n).unwrap());
                expected[4..6].copy_from_slice(&id.to_be_bytes());
                oracle::fix_ipv4(&mut expected);
            }
            let checksum = spec.checksum_at()..spec.checksum_at() + 2;
            expected[checksum.clone()].copy_from_slice(&segment[checksum]);
            if spec.protocol() == Protocol::UDP {
                expected[at + 4..at + 6].copy_from_slice(&segment[at + 4..at + 6]);
            } else {
                let first = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap());
                let seq = first.wrapping_add(u32::try_from(n * usize::from(size)).unwrap());
                expected[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
                expected[at + 13] &= if n + 1 < segments.len() { !(FIN | PSH) } else { 0xff };
                expected[at + 13] &= if n > 0 { !CWR } else { 0xff };
            }
            prop_assert_eq!(&segment[..spec.headers()], &expected[..], "segment {}", n);
        }
    }

    #[test]
    fn cutting_and_translating_can_be_done_in_either_order((spec, to) in translated(), payload in 1usize..9000) {
        let spec = super_packet(spec, 1400, payload);
        let (mut bytes, offload) = spec.build();
        let change = Translation::new(spec.ends, to);
        let mut cut_first = cut(&mut bytes.clone(), offload);
        for segment in &mut cut_first {
            Packet::parse(segment, Offload::default()).unwrap().translate(&change);
        }
        Packet::parse(&mut bytes, offload).unwrap().translate(&change);
        prop_assert_eq!(cut(&mut bytes, offload), cut_first);
    }

    #[test]
    fn a_packet_that_is_no_super_packet_comes_out_with_its_checksum_completed(mut spec in spec()) {
        spec.segment = None;
        let (mut bytes, offload) = spec.build();
        let mut expected = bytes.clone();
        if spec.state == State::Partial {
            oracle::finish(&mut expected, spec.transport_at(), spec.protocol());
        }
        prop_assert_eq!(cut(&mut bytes, offload), [expected]);
    }

    #[test]
    fn datagrams_cut_from_one_without_a_checksum_have_none(mut spec in spec(), payload in 1usize..5000) {
        spec.transport = Transport::Udp { surplus: 0 };
        (spec.state, spec.segment, spec.payload) = (State::Absent, Some(700), payload);
        let (mut bytes, offload) = spec.build();
        for datagram in cut(&mut bytes, offload) {
            prop_assert_eq!(oracle::word(&datagram, spec.checksum_at()), 0);
        }
    }
}

#[test]
fn a_super_packet_of_the_largest_size_is_cut() {
    let ends = ("198.51.100.7:1000", "192.0.2.10:80");
    let ends = [ends.0, ends.1].map(|end| end.parse::<std::net::SocketAddr>().unwrap().into());
    let payload = vec![7; 65_535 - 40];
    let mut bytes = tungate::wire::build::tcp(
        ends[0],
        ends[1],
        &tungate::wire::build::Tcp { payload: &payload, ..Default::default() },
    );
    let checksum = Checksum::Partial { start: 20, offset: 16 };
    let offload = Offload { checksum, gso: Gso::TcpV4 { ecn: false }, segment_size: 1460, header_len: 0 };
    let segments = cut(&mut bytes, offload);
    assert_eq!(segments.len(), 45);
    assert_eq!(segments.iter().map(|s| payload_of(s).len()).sum::<usize>(), payload.len());
}
