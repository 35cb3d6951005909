//! Nothing that arrives makes the wire floor panic, loop or grow (the part of R108 that is decided here).

use proptest::collection::vec;
use proptest::prelude::*;
use tungate::wire::{Address, Checksum, Offload};

use crate::exercise::exercise;
use crate::generate::{any_offload, noise, spec};
use crate::oracle;

/// Bytes that start like an IP packet of honest length and go on like nothing.
fn almost_ip() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), prop_oneof![Just(0x45u8), 0x40u8..0x50], any::<u8>(), vec(any::<u8>(), 0..200)).prop_map(
        |(v4, first, protocol, rest)| {
            let mut bytes = noise(u32::from(protocol), if v4 { 20 } else { 40 });
            bytes.extend(rest);
            let protocol = [1, 6, 17, 58, 0, 43, 44, 60, 47][usize::from(protocol) % 9];
            let len = u16::try_from(bytes.len()).unwrap();
            if v4 {
                (bytes[0], bytes[9]) = (first, protocol);
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[6] &= 0xc0;
                oracle::fix_ipv4(&mut bytes);
            } else {
                (bytes[0], bytes[6]) = (0x60, protocol);
                bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            }
            bytes
        },
    )
}

/// An ICMP error that quotes such bytes.
fn almost_icmp() -> impl Strategy<Value = Vec<u8>> {
    (almost_ip(), 0usize..200, prop_oneof![Just(3u8), Just(11), Just(12), Just(1), Just(2)], any::<[u8; 3]>()).prop_map(
        |(mut quote, cut, kind, word)| {
            let v4 = quote[0] >> 4 == 4;
            quote.truncate(cut);
            let message = [&[kind, 0, 0, 0, word[0] % 40, word[1] % 60, word[2], 0], &quote[..]].concat();
            let address = if v4 { Address::v4([192, 0, 2, 1]) } else { Address::v6([0x20; 16]) };
            tungate::wire::build::icmp(address, address, message)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..120), offload in any_offload()) {
        exercise(&bytes, offload);
    }

    #[test]
    fn bytes_behind_an_honest_ip_header_never_panic(bytes in almost_ip(), offload in any_offload()) {
        exercise(&bytes, offload);
    }

    #[test]
    fn icmp_errors_that_quote_nonsense_never_panic(bytes in almost_icmp(), offload in any_offload()) {
        exercise(&bytes, offload);
    }

    #[test]
    fn whole_packets_with_a_lying_offload_header_never_panic(spec in spec(), offload in any_offload()) {
        exercise(&spec.build().0, offload);
    }

    #[test]
    fn any_offload_header_is_read_or_refused_and_written_back_as_it_was_read(bytes in any::<[u8; 10]>()) {
        let Ok(offload) = Offload::parse(&bytes) else { return Ok(()) };
        let mut written = [0xee; 10];
        offload.write(&mut written);
        let again = Offload::parse(&written).unwrap();
        // That the receiving device has looked is not passed on.
        let expected = match offload.checksum {
            Checksum::Verified => Offload { checksum: Checksum::Complete, ..offload },
            Checksum::Complete | Checksum::Partial { .. } => offload,
        };
        prop_assert_eq!(again, expected);
    }
}
