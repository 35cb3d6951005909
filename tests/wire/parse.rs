//! Whatever is generated, the door reads it as etherparse does.

use proptest::collection::vec;
use proptest::prelude::*;
use tungate::wire::{Family, Offload, Packet};

use crate::agree::agree;
use crate::generate::{Spec, Transport, noise, spec};
use crate::oracle;

/// A packet with bytes changed where headers are, cut or prolonged.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((0usize..90, prop_oneof![any::<u8>(), Just(0u8), Just(44), Just(0x20), Just(0xff)]), 0..4);
    let length = prop_oneof![4 => Just(0isize), 1 => -60isize..60];
    (spec(), changes, length, any::<bool>()).prop_map(|(spec, changes, length, fix)| {
        let (mut bytes, _) = Spec { segment: None, ..spec }.build();
        for (at, value) in changes {
            if at < bytes.len() {
                bytes[at] = value;
            }
        }
        bytes.resize(bytes.len().saturating_add_signed(length), 0x5a);
        if fix {
            oracle::fix_ipv4(&mut bytes);
        }
        bytes
    })
}

/// An IPv4 or IPv6 fragment with any offset and length.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let place = prop_oneof![0u16..4, 0u16..0x2000];
    (spec(), place, any::<bool>(), 0usize..50, any::<u32>()).prop_map(|(mut spec, offset, more, payload, id)| {
        (spec.segment, spec.payload) = (None, payload);
        if let Transport::Udp { surplus } = &mut spec.transport {
            *surplus = 0;
        }
        if spec.family() == Family::V6 {
            let word = (offset << 3 | u16::from(more)).to_be_bytes();
            spec.extensions.retain(|(kind, _)| *kind != 44);
            spec.extensions.push((44, [&[0], &word[..], &id.to_be_bytes()].concat()));
            return spec.build().0;
        }
        let (mut bytes, _) = spec.build();
        bytes[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        oracle::fix_ipv4(&mut bytes);
        bytes
    })
}

/// An IPv6 packet with extension headers in any order and number, of honest length or not.
fn chain() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(0u8), Just(43), Just(44), Just(60), Just(51), Just(59), Just(50), Just(135)];
    let header = (kind, prop_oneof![5 => Just(0u8), 1 => any::<u8>()], any::<u32>());
    (spec(), vec(header, 0..11)).prop_map(|(mut spec, headers)| {
        let from = |kind, len, seed| {
            let mut body = noise(seed, 7);
            body[0] = len;
            // Fragments have their own generator; here they are atomic.
            body[1..3].fill(0);
            (kind, body)
        };
        if spec.family() == Family::V6 {
            spec.extensions = headers.into_iter().map(|(kind, len, seed)| from(kind, len, seed)).collect();
        }
        Spec { segment: None, ..spec }.build().0
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn whole_packets_are_read_as_etherparse_reads_them(spec in spec()) {
        let (mut bytes, _) = Spec { segment: None, ..spec.clone() }.build();
        prop_assert_eq!(agree(&bytes), Ok(()));
        let len = bytes.len();
        let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        prop_assert_eq!(packet.endpoints(), Some(spec.ends));
        prop_assert_eq!(usize::from(packet.header().payload), spec.transport_at());
        prop_assert_eq!(packet.bytes().len(), len);
        prop_assert!(!packet.header().source_routed);
    }

    #[test]
    fn damaged_packets_are_refused_or_read_as_etherparse_does(bytes in damaged()) {
        prop_assert_eq!(agree(&bytes), Ok(()));
    }

    #[test]
    fn fragments_are_refused_or_read_as_etherparse_does(bytes in fragment()) {
        prop_assert_eq!(agree(&bytes), Ok(()));
    }

    #[test]
    fn extension_chains_are_refused_or_walked_as_etherparse_does(bytes in chain()) {
        prop_assert_eq!(agree(&bytes), Ok(()));
    }
}
