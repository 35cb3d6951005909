//! What is too big for a tunnel: R99-R102, R106.

use super::*;
use crate::generate::Spec;

/// Puts the fragments of an IPv4 datagram together.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut header = fragments[0][..20].to_vec();
    let mut payload: Vec<u8> = Vec::new();
    for (n, fragment) in fragments.iter().enumerate() {
        let ip = Ipv4Slice::from_slice(fragment).unwrap();
        assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
        assert_eq!(usize::from(ip.header().fragments_offset().value()) * 8, payload.len());
        assert_eq!(ip.header().more_fragments(), n + 1 < fragments.len());
        assert_eq!(ip.header().identification(), 0x7701);
        payload.extend(ip.payload().payload);
    }
    let len = u16::try_from(20 + payload.len()).unwrap();
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[6..8].fill(0);
    right_header(&mut header);
    header.extend(payload);
    header
}

#[test]
fn r99_without_df_the_inner_packet_is_cut_and_each_piece_wrapped() {
    for (encapsulation, outer) in tunnels() {
        for path_mtu in [600, 1400, 1499] {
            let packet = datagram(Family::V4, 1500, 0, false);
            let out = wrapped(&packet, Offload::default(), entry(encapsulation, outer, path_mtu));
            assert!(out.len() > 1 && out.iter().all(|outer| outer.len() <= usize::from(path_mtu)));
            let fragments: Vec<_> = out.iter().map(|outer| unwrapped(outer, encapsulation)).collect();
            assert_eq!(reassembled(&fragments), one_hop_later(&packet));
        }
    }
}

#[test]
fn r99_options_without_the_copied_flag_stay_in_the_first_fragment() {
    let mut packet = datagram(Family::V4, 1400, 0, false);
    // Record route (7), not copied; security (130), copied; end.
    packet.splice(20..20, [7, 3, 4, 130, 4, 0, 0, 0]);
    packet[0] = 0x47;
    packet[2..4].copy_from_slice(&1408_u16.to_be_bytes());
    right_header(&mut packet);
    let out = wrapped(&packet, Offload::default(), entry(Encapsulation::Gre, Family::V4, 1400));
    let options: Vec<_> = out.iter().map(|outer| unwrapped(outer, Encapsulation::Gre)[20..28].to_vec()).collect();
    assert_eq!(options, [[7, 3, 4, 130, 4, 0, 0, 0], [1, 1, 1, 130, 4, 0, 0, 0]]);
}

#[test]
fn r99_a_fragment_is_cut_again_and_keeps_its_place() {
    let mut packet = datagram(Family::V4, 1500, 0, false);
    packet[6..8].copy_from_slice(&(0x2000_u16 | 185).to_be_bytes());
    right_header(&mut packet);
    let out = wrapped(&packet, Offload::default(), entry(Encapsulation::Gre, Family::V4, 1000));
    let places: Vec<_> = out.iter().map(|o| oracle::word(&unwrapped(o, Encapsulation::Gre), 6)).collect();
    assert_eq!(places, [0x2000 | 185, 0x2000 | (185 + 952 / 8)]);
}

#[test]
fn r100_r101_the_sender_of_what_is_too_big_is_told_what_fits() {
    let fit = |inner, outer, path_mtu, len| {
        let mut bytes = datagram(inner, len, 0, true);
        let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        entry(Encapsulation::Gre, outer, path_mtu).fit(&packet)
    };
    let (v4, v6) = (Family::V4, Family::V6);
    assert_eq!(fit(v4, v4, 1500, 1476), Fit::Fits);
    assert_eq!(fit(v4, v4, 1500, 1477), Fit::TooBig(1476));
    assert_eq!(fit(v4, v6, 1500, 1500), Fit::TooBig(1456));
    assert_eq!(fit(v6, v6, 1500, 1457), Fit::TooBig(1456));
    assert_eq!(fit(v6, v4, 1290, 1281), Fit::TooBig(1280), "never less than the least of IPv6");
    assert_eq!(fit(v6, v4, 1290, 1280), Fit::Fits);
}

#[test]
fn r102_an_ipv6_packet_of_1280_bytes_passes_whatever_the_path_takes() {
    for encapsulation in Encapsulation::ALL {
        let packet = datagram(Family::V6, 1280, 0, true);
        let out = wrapped_whole(&packet, entry(encapsulation, Family::V4, 1280));
        assert_eq!((oracle::word(&out, 6), oracle::word(&out, 4)), (0, 7), "routers may cut it, so it has an id");
        assert_eq!(unwrapped(&out, encapsulation), one_hop_later(&packet));

        let pieces = wrapped(&packet, Offload::default(), entry(encapsulation, Family::V6, 1280));
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= 1280));
        let mut whole = pieces[0][..40].to_vec();
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!((piece[6], piece[41]), (44, 0));
            let place = oracle::word(piece, 42);
            assert_eq!(usize::from(place & !7), whole.len() - 40);
            assert_eq!(place & 1 == 1, n + 1 < pieces.len());
            assert_eq!(piece[44..48], [0xab, 0xcd, 0, 7]);
            whole.extend(&piece[48..]);
        }
        whole[6] = pieces[0][40];
        let len = u16::try_from(whole.len() - 40).unwrap();
        whole[4..6].copy_from_slice(&len.to_be_bytes());
        assert_eq!(unwrapped(&whole, encapsulation), one_hop_later(&packet));
    }
}

/// TCP with these options, and with the checksum complete or partial.
fn syn(family: Family, options: &[u8], flags: u8, state: State) -> Spec {
    let ends = match family {
        Family::V4 => (at("198.51.100.7:40000"), at("192.0.2.10:80")),
        Family::V6 => (at("[2001:db8:1::7]:40000"), at("[2001:db8::10]:80")),
    };
    let mut fixed = [0; 16];
    fixed[9] = flags;
    let transport = Transport::Tcp { fixed, options: options.to_vec() };
    let (options, extensions) = (Vec::new(), Vec::new());
    Spec {
        ends,
        ttl: 64,
        traffic: 0,
        label: 0,
        options,
        extensions,
        transport,
        payload: 0,
        seed: 1,
        state,
        segment: None,
    }
}

#[test]
fn r106_the_mss_of_a_syn_is_lowered_wherever_it_stands_and_never_raised() {
    let aligned = [2, 4, 0x05, 0xb4, 1, 1, 4, 2];
    let across = [1, 2, 4, 0x05, 0xb4, 4, 2, 0];
    for family in [Family::V4, Family::V6] {
        for state in [State::Right, State::Partial] {
            for options in [aligned, across] {
                for (most, expected) in [(1436, 1436), (1460, 1460), (9000, 1460)] {
                    let (mut bytes, offload) = syn(family, &options, 0x02, state).build();
                    let mut packet = Packet::parse(&mut bytes, offload).unwrap();
                    packet.clamp_mss(most);
                    let mss = packet.tcp().unwrap().options().find(|(kind, _)| *kind == 2).unwrap().1.to_vec();
                    assert_eq!(oracle::word(&mss, 0), expected);
                    packet.complete_checksum();
                    assert!(packet.transport_checksum_ok(), "{family:?} {state:?} {options:?} {most}");
                }
            }
        }
    }
}

#[test]
fn r106_nothing_but_the_mss_of_a_syn_is_touched() {
    let mss = [2, 4, 0x05, 0xb4];
    for (options, flags) in [(&mss[..], 0x10), (&[1, 1, 1, 1], 0x02), (&[], 0x02), (&[2, 3, 0x05, 0xb4], 0x02)] {
        let (mut bytes, offload) = syn(Family::V4, options, flags, State::Right).build();
        let before = bytes.clone();
        Packet::parse(&mut bytes, offload).unwrap().clamp_mss(536);
        assert_eq!(bytes, before);
    }
}
