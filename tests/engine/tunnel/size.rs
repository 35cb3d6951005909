//! What is too big for a tunnel: R99-R102, R106.

use super::*;

#[test]
fn r99_what_may_be_cut_is_cut_before_it_is_wrapped_and_goes_one_way() {
    let mut world = World::new(CONFIG);
    let packet = without_df(datagram(CLIENT, "192.0.2.12:5000", 1500));
    let out = world.receives(packet).all_wrapped(GUE);
    assert_eq!(out.len(), 2);
    for piece in &out {
        assert!(piece.bytes.len() <= 1500);
        assert_eq!(piece.destination, address("10.0.0.2"));
    }
}

#[test]
fn r99_fragments_of_a_client_follow_their_first_into_the_tunnel_and_may_be_cut_again() {
    check_fragments(&mut World::new(CONFIG));
}

/// R39: the flow of the first one has no room.
#[test]
fn r99_fragments_follow_their_first_where_that_has_gone_by_hash() {
    let mut world = World::new(&CONFIG.replace("[gateway]", "[gateway]\nmax-flows = 1"));
    world.client(1).syn("web").wrapped(GRE);
    world.client(1).sends("web", &segment("ACK", 1_001, 1)).wrapped(GRE);
    check_fragments(&mut world);
    assert_eq!(world.states(), [State::Established]);
    world.check_invariants();
}

/// A datagram in two fragments, the second one first, arrives whole.
fn check_fragments(world: &mut World) {
    let whole = without_df(datagram(CLIENT, "192.0.2.12:5000", 2980));
    let fragment = |from: usize, to: usize, more: u8| {
        let mut packet = [&whole[..20], &whole[20 + from..20 + to]].concat();
        let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
        let place = u16::try_from(from / 8).unwrap().to_be_bytes();
        packet = altered(packet, |bytes| {
            bytes[2..4].copy_from_slice(&len);
            bytes[6..8].copy_from_slice(&[place[0] | more, place[1]]);
        });
        packet
    };
    let (first, second) = (fragment(0, 1480, 0x20), fragment(1480, 2960, 0));
    assert_eq!(world.receives(second).verdict, Verdict::Consume);
    let outcome = world.receives(first);
    assert_eq!((outcome.verdict, outcome.pieces.len(), outcome.own.len()), (Verdict::Forward, 1, 2));
    let all: Vec<Vec<u8>> = outcome.sent.into_iter().chain(outcome.pieces).chain(outcome.own).collect();
    let mut payload: Vec<u8> = Vec::new();
    for outer in &all {
        let inner = unwrap(outer, GUE).inner.bytes;
        let place = usize::from(u16::from_be_bytes([inner[6], inner[7]]) & 0x1fff) * 8;
        assert_eq!(place, payload.len());
        payload.extend(&inner[20..]);
    }
    assert_eq!(payload, whole[20..]);
}

#[test]
fn r100_who_forbids_to_cut_is_told_what_fits() {
    let mut world = World::new(CONFIG);
    let syn = |to: &str, len| {
        let payload = vec![7; len - 40];
        build::tcp(at(CLIENT), at(to), &Tcp { payload: &payload, ..segment("ACK", 1, 1) })
    };
    for (to, mtu) in [("192.0.2.10:80", 1476_u16), ("192.0.2.11:80", 1456)] {
        world.receives(syn(to, usize::from(mtu))).wrapped(GRE);
        let packet = syn(to, usize::from(mtu) + 1);
        let answer = world.receives(packet.clone()).answered();
        assert_eq!(answer.ends(), (Endpoint::new(at(to).address, 0), Endpoint::new(at(CLIENT).address, 0)));
        assert_eq!(answer.transport[4..8], [0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]]);
        let (kind, code, quote) = answer.icmp();
        assert_eq!((kind, code, quote), (3, 4, &packet[..548]));
    }
}

#[test]
fn r100_of_a_super_packet_the_first_segment_is_too_big() {
    let mut world = World::new(CONFIG);
    let payload = vec![7; 20_000];
    let bytes = build::tcp(at(CLIENT), at("192.0.2.10:80"), &Tcp { payload: &payload, ..segment("ACK", 1, 1) });
    let super_packet = |size| Offload {
        checksum: Checksum::Partial { start: 20, offset: 16 },
        gso: Gso::TcpV4 { ecn: false },
        segment_size: size,
        header_len: 40,
    };
    let answer = world.receives_offloaded(bytes.clone(), super_packet(1460)).answered();
    let (_, code, quote) = answer.icmp();
    assert_eq!((code, &quote[2..4]), (4, &1500_u16.to_be_bytes()[..]));
    assert_eq!(tungate::wire::checksum::sum(&quote[..20]), 0xffff);

    let segments = world.receives_offloaded(bytes, super_packet(1436)).all_wrapped(GRE);
    assert_eq!(segments.len(), 20_000_usize.div_ceil(1436));
    assert!(segments.iter().all(|segment| segment.bytes.len() <= 1500 && segment.inner.sound));
}

#[test]
fn r101_r102_ipv6_is_told_no_less_than_1280_and_that_passes() {
    let mut world = World::new(&CONFIG.replace("[gateway]", "[gateway]\nmtu = 1300"));
    for (to, told, encapsulation, pieces) in [
        ("[2001:db8::10]:80", 1280_u32, GRE, 1),
        ("[2001:db8::11]:80", 1280, GRE, 2),
        ("[2001:db8::13]:9", 1280, IPIP, 1),
    ] {
        let packet = |len: usize| {
            let payload = vec![7; len - 60];
            build::tcp(at(CLIENT_V6), at(to), &Tcp { payload: &payload, ..segment("ACK", 1, 1) })
        };
        let answer = world.receives(packet(1281)).answered();
        assert_eq!((answer.icmp().0, &answer.transport[4..8]), (2, &told.to_be_bytes()[..]));
        assert!(answer.bytes.len() <= 1280);
        let outcome = world.receives(packet(1280));
        assert_eq!((outcome.verdict, 1 + outcome.pieces.len()), (Verdict::Forward, pieces), "{to}");
        for outer in outcome.sent.iter().chain(&outcome.pieces) {
            // Over IPv4 whole, 4 bytes too long, and so without DF: routers cut it.
            assert!(outer.len() <= 1300 || outer[6] & 0x40 == 0);
            if outcome.pieces.is_empty() {
                unwrap(outer, encapsulation);
            }
        }
    }
}

/// Else the other end would put pieces of different packets together (RFC 8200 4.5, RFC 6864 4.3).
#[test]
fn r97_r101_each_segment_that_may_be_cut_has_an_identification_of_its_own() {
    let mut world = World::new(&CONFIG.replace("[gateway]", "[gateway]\nmtu = 1300"));
    for to in ["[2001:db8::10]:80", "[2001:db8::11]:80"] {
        let payload = vec![7; 10 * 1220];
        let bytes = build::tcp(at(CLIENT_V6), at(to), &Tcp { payload: &payload, ..segment("ACK", 1, 1) });
        let offload = Offload {
            checksum: Checksum::Partial { start: 40, offset: 16 },
            gso: Gso::TcpV6 { ecn: false },
            segment_size: 1220,
            header_len: 60,
        };
        let mut seen = std::collections::HashMap::new();
        for _super_packet in 0..2 {
            let outcome = world.receives_offloaded(bytes.clone(), offload);
            for outer in outcome.sent.iter().chain(&outcome.pieces) {
                let id = if outer[0] >> 4 == 4 { &outer[4..6] } else { &outer[44..48] };
                *seen.entry(id.to_vec()).or_insert(0) += 1;
            }
        }
        let pieces = if to.contains("::10") { 1 } else { 2 };
        assert_eq!(seen.values().collect::<Vec<_>>(), vec![&pieces; 20], "{to}");
    }
}

/// Their backend puts together what comes from one address, whichever service it is for.
#[test]
fn r97_services_that_share_a_backend_do_not_count_identifications_in_step() {
    let mut world = World::new(
        &CONFIG
            .replace("[gateway]", "[gateway]\nmtu = 1300")
            .replace("\"10.0.0.3\"", "\"10.0.0.1\"")
            .replace("ipip", "gre"),
    );
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10 {
        for to in ["[2001:db8::10]:80", "[2001:db8::13]:80"] {
            let packet = build::tcp(at(CLIENT_V6), at(to), &Tcp { payload: &[7; 1220], ..segment("ACK", 1, 1) });
            let out = world.receives(packet).wrapped(GRE);
            assert_eq!((out.destination, out.bytes[6] & 0x40), (address("10.0.0.1"), 0));
            assert!(seen.insert([out.bytes[4], out.bytes[5]]));
        }
    }
}

#[test]
fn r106_the_syn_announces_no_more_than_the_tunnel_takes() {
    let mut world = World::new(CONFIG);
    let mss = [2, 4, 0x05, 0xb4];
    for (from, to, expected) in [
        (CLIENT, "192.0.2.10:80", 1436_u16),
        (CLIENT, "192.0.2.11:80", 1416),
        (CLIENT_V6, "[2001:db8::10]:80", 1416),
        (CLIENT_V6, "[2001:db8::11]:80", 1396),
    ] {
        let syn = build::tcp(at(from), at(to), &Tcp { options: &mss, ..segment("SYN", 1, 0) });
        for _retransmission in 0..2 {
            let out = world.receives(syn.clone()).wrapped(GRE).inner;
            assert_eq!(out.transport[20..24], [2, 4, expected.to_be_bytes()[0], expected.to_be_bytes()[1]]);
            assert!(out.sound);
        }
    }
}
