//! What the gateway takes no part in: chosen ways, broken fragments, protocols without ports, tunnels.

use tungate::engine::DropReason;
use tungate::wire::{Address, Endpoint, Protocol, build};

use crate::CONFIG;
use crate::support::{Outcome, World, address, altered, at, segment};

const FRAGMENT: u8 = 44;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// An IPv4 packet with these options, a multiple of four bytes.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    altered([&packet[..20], options, &packet[20..]].concat(), |bytes| {
        bytes[0] += u8::try_from(options.len() / 4).unwrap();
        let len = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
    })
}

/// An IPv6 packet with an extension header of this kind in front of its payload; the header's first byte is filled in.
fn with_header(packet: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
    let mut bytes = [&packet[..40], header, &packet[40..]].concat();
    bytes[40] = packet[6];
    bytes[6] = kind;
    let len = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// An IPv4 fragment: what lies behind the header is at this offset of its datagram.
fn v4_fragment(packet: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    altered(packet, |bytes| bytes[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes()))
}

fn v6_fragment(packet: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let [a, b] = (offset | u16::from(more)).to_be_bytes();
    with_header(packet, FRAGMENT, &[0, 0, a, b, 0, 0, 0, 9])
}

fn v4() -> (Endpoint, Endpoint) {
    (at("198.51.100.1:40000"), at("192.0.2.10:53"))
}

fn v6() -> (Endpoint, Endpoint) {
    (at("[2001:db8:1::1]:40000"), at("[2001:db8::10]:53"))
}

/// The IP header, and so many bytes, of a UDP datagram between these ends that is longer.
fn datagram((client, vip): (Endpoint, Endpoint), len: usize) -> Vec<u8> {
    let whole = build::udp(client, vip, &[7; 2_000]);
    let header = if client.address.is_v4() { 20 } else { 40 };
    build::ip(client.address, vip.address, Protocol::UDP, build::TTL, &whole[header..header + len])
}

/// Its sender is told by the VIP that the packet is wrong, how, and where.
#[track_caller]
fn assert_parameter_problem(outcome: Outcome, packet: &[u8], code: u8, pointer: u32) {
    let error = outcome.answered();
    let (client, vip) = v6();
    assert_eq!((error.source.address, error.destination.address), (vip.address, client.address));
    assert_eq!(error.icmp(), (4, code, &packet[..packet.len().min(1232)]));
    assert_eq!(error.transport[4..8], pointer.to_be_bytes());
}

#[test]
fn r14_nobody_chooses_his_way_through_the_gateway() {
    for kind in [131, 137] {
        let route = [kind, 7, 4, 203, 0, 113, 1, 0];
        let mut world = World::new(CONFIG);
        let (client, web) = (world.client(2).endpoint(), world.client(2).vip("web"));
        let connection = world.client(1).opens("web");
        for packet in [
            build::tcp(client, web, &segment("SYN", 1, 0)),
            build::udp(v4().0, v4().1, &[7; 100]),
            v4_fragment(datagram(v4(), 104), 0, true),
            build::icmp(client.address, web.address, vec![8, 0, 0, 0, 0, 1, 0, 1]),
            build::tcp(connection.client, connection.vip, &connection.client_segment("ACK")),
            build::tcp(connection.backend, connection.source, &connection.backend_segment("ACK")),
        ] {
            world.receives(with_options(&packet, &route)).dropped(DropReason::SourceRouting);
            // Behind another option, too.
            let behind = [&[7, 7, 4, 0, 0, 0, 0, 1][..], &route[..]].concat();
            world.receives(with_options(&packet, &behind)).dropped(DropReason::SourceRouting);
        }
        assert_eq!(world.shared.table.len(), 1, "only the connection is there");
        assert_all_counters!(world, "received" => 15, "forwarded" => 3, "opened" => 1, "drop source-routing" => 12);
    }
}

#[test]
fn r78_the_sender_of_a_ragged_fragment_is_told_over_ipv6() {
    for len in [9, 100, 1_001] {
        for offset in [0, 64] {
            let mut world = World::new(CONFIG);
            world.receives(v4_fragment(datagram(v4(), len), offset, true)).dropped(DropReason::BadFragment);
            let packet = v6_fragment(&datagram(v6(), len), offset, true);
            // The payload length is at fault.
            assert_parameter_problem(world.receives(packet.clone()), &packet, 0, 4);
            assert_eq!(world.engines[0].poll_timeout(), None, "nothing is kept of it");
        }
    }
}

#[test]
fn r79_the_sender_of_a_fragment_beyond_65535_bytes_is_told_over_ipv6() {
    let mut world = World::new(CONFIG);
    world.receives(v4_fragment(datagram(v4(), 8), 65_528, false)).dropped(DropReason::BadFragment);
    let packet = v6_fragment(&datagram(v6(), 8), 65_528, false);
    // The fragment offset, third field of the fragment header.
    assert_parameter_problem(world.receives(packet.clone()), &packet, 0, 42);
    assert_eq!(world.engines[0].poll_timeout(), None, "nothing is kept of it");
}

#[test]
fn r82_the_sender_of_a_first_fragment_without_its_headers_is_told() {
    let mut world = World::new(CONFIG);
    let (client, vip) = v6();
    let ip = |kind, payload: &[u8]| build::ip(client.address, vip.address, Protocol(kind), build::TTL, payload);
    let tcp = build::tcp(client, vip, &segment("SYN", 1, 0));
    for packet in
        [ip(DESTINATION, &[17, 3, 1, 4, 0, 0, 0, 0]), ip(DESTINATION, &[17, 0, 1, 4, 0, 0, 0, 0]), ip(6, &tcp[40..56])]
    {
        let packet = v6_fragment(&packet, 0, true);
        assert_parameter_problem(world.receives(packet.clone()), &packet, 3, 0);
    }
    // What is merely unknown is no incomplete chain.
    world.receives(v6_fragment(&ip(132, &[0; 16]), 0, true)).dropped(DropReason::Protocol);
}

#[test]
fn r86_a_routing_header_that_is_not_done_is_refused_and_its_type_named() {
    let (client, vip) = v6();
    // Type 0 of RFC 5095, one of mobile hosts, one of segment routing, and one that is nobody's.
    for kind in [0, 2, 4, 99] {
        let mut world = World::new(CONFIG);
        let connection = world.client(1).v6().opens("web");
        let header = |left| [&[0, 2, kind, left, 0, 0, 0, 0][..], address("2001:db8::99").octets()].concat();
        let first = build::udp(client, vip, &[7; 100]);
        let known = build::tcp(connection.client, connection.vip, &connection.client_segment("ACK"));
        for packet in [&first, &known] {
            let routed = with_header(packet, ROUTING, &header(1));
            assert_parameter_problem(world.receives(routed.clone()), &routed, 0, 42);
            // Behind other options, too.
            let behind = with_header(&routed, DESTINATION, &[0, 0, 1, 4, 0, 0, 0, 0]);
            assert_parameter_problem(world.receives(behind.clone()), &behind, 0, 50);
        }
        // Towards a backend as well, but it is not the gateway's to answer for other hosts.
        let elsewhere = build::udp(client, at("[2001:db8:9::1]:53"), b"x");
        world.receives(with_header(&elsewhere, ROUTING, &header(1))).dropped(DropReason::SourceRouting);
        assert_eq!(world.shared.table.len(), 1);
        // What has been where it was to go, passes.
        world.receives(with_header(&known, ROUTING, &header(0))).forwarded();
    }
}

#[test]
fn no_parameter_problem_is_sent_about_errors_to_nobody_for_others_or_in_a_flood() {
    let (client, vip) = v6();
    let ragged = |source: Address, destination: Address, kind, payload: &[u8]| {
        v6_fragment(&build::ip(source, destination, Protocol(kind), build::TTL, payload), 0, true)
    };
    let (client, vip) = (client.address, vip.address);
    let mut world = World::new(CONFIG);
    for packet in [
        ragged(client, vip, 58, &[1, 4, 0, 0, 0, 0, 0, 0, 0]),
        ragged(client, vip, 58, &[137, 0, 0, 0, 0, 0, 0, 0, 0]),
        ragged(address("::"), vip, 17, &[0; 9]),
        ragged(address("ff02::1"), vip, 17, &[0; 9]),
        ragged(client, address("ff02::1"), 17, &[0; 9]),
        ragged(vip, address("fd00:99::10"), 17, &[0; 9]),
        ragged(client, address("2001:db8:9::1"), 17, &[0; 9]),
    ] {
        world.receives(packet).dropped(DropReason::BadFragment);
    }
    let told = (0..100).filter(|_| !world.receives(ragged(client, vip, 17, &[0; 9])).own.is_empty()).count();
    assert_eq!(told, 10, "R10");
}

#[test]
fn r107_no_ports_are_read_of_other_protocols() {
    let (tcp, udp) = (segment("SYN", 1, 0), [0; 12]);
    for ends in [v4(), v6()] {
        let mut world = World::new(CONFIG);
        let header = if ends.0.address.is_v4() { 20 } else { 40 };
        // DCCP, ESP, AH, SCTP, UDP-Lite, no next header, and one for experiments: behind each a perfect SYN or datagram.
        for protocol in [33, 50, 51, 132, 136, 59, 253] {
            let web = Endpoint::new(ends.1.address, 80);
            for packet in [build::tcp(ends.0, web, &tcp), build::udp(ends.0, ends.1, &udp)] {
                let other = build::ip(ends.0.address, ends.1.address, Protocol(protocol), 64, &packet[header..]);
                world.receives(other).dropped(DropReason::Protocol);
            }
        }
        assert!(world.shared.table.is_empty());
        assert_all_counters!(world, "received" => 14, "drop protocol" => 14);
    }
}

#[test]
fn r109_a_tunnel_to_a_vip_is_no_service() {
    let inner = [
        build::tcp(v4().0, at("192.0.2.10:80"), &segment("SYN", 1, 0)),
        build::tcp(v6().0, at("[2001:db8::10]:80"), &segment("SYN", 1, 0)),
    ];
    for (client, vip, backend, source) in [
        ("198.51.100.1", "192.0.2.10", "10.0.0.1", "10.99.0.10"),
        ("2001:db8:1::1", "2001:db8::10", "fd00::1", "fd00:99::10"),
    ] {
        let mut world = World::new(CONFIG);
        for (protocol, head) in [(4, &[][..]), (41, &[]), (47, &[0, 0, 8, 0]), (47, &[0, 0, 0x86, 0xdd])] {
            for packet in &inner {
                let payload = [head, packet].concat();
                // From outside, and from a backend towards the address that a tunnel to it would come from.
                for (from, to) in [(client, vip), (backend, vip), (backend, source)] {
                    let tunnel = build::ip(address(from), address(to), Protocol(protocol), 64, &payload);
                    world.receives(tunnel).dropped(DropReason::Protocol);
                }
            }
        }
        assert!(world.shared.table.is_empty(), "what is inside was not looked at");
        assert_all_counters!(world, "received" => 24, "drop protocol" => 24);
    }
}
