//! ICMP through the gateway and from it.

use tungate::engine::DropReason;
use tungate::engine::conntrack::State;
use tungate::wire::{Address, Packet, build};

use crate::CONFIG;
use crate::support::{Connection, Sight, World, address, altered, at, with_ttl};

/// A connection of each family, its client, and a router on the way.
fn for_each_family(check: impl Fn(&mut World, Connection, Address)) {
    for (v6, router) in [(false, "203.0.113.9"), (true, "2001:db8:9::9")] {
        let mut world = World::new(CONFIG);
        let connection = if v6 { world.client(1).v6().opens("web") } else { world.client(1).opens("web") };
        check(&mut world, connection, address(router));
        world.check_invariants();
    }
}

/// Too big: type, code, second word.
fn too_big(to: Address) -> (u8, u8, u32) {
    if to.is_v4() { (3, 4, 1_400) } else { (2, 0, 1_400) }
}

/// What the backend has sent, as it left towards the client, and as it came.
fn from_backend(world: &mut World, connection: &Connection) -> (Vec<u8>, Vec<u8>) {
    let came = build::tcp(connection.backend, connection.source, &connection.backend_segment("ACK"));
    let left = world.receives(came.clone()).forwarded().bytes;
    (left, came)
}

fn from_client(world: &mut World, connection: &Connection) -> (Vec<u8>, Vec<u8>) {
    let came = build::tcp(connection.client, connection.vip, &connection.client_segment("ACK"));
    let left = world.receives(came.clone()).forwarded().bytes;
    (left, came)
}

/// The packet with its TTL one lower, as the quote of one that the gateway has forwarded shows it.
fn one_hop_on(packet: Vec<u8>) -> Vec<u8> {
    with_ttl(packet, build::TTL - 1)
}

#[test]
fn r58_r59_an_error_from_outside_reaches_the_backend_about_its_own_packet() {
    for_each_family(|world, connection, router| {
        let (left, came) = from_backend(world, &connection);
        let head = too_big(router);
        let error = world.complains(router, connection.vip.address, head, &left).forwarded();
        assert_eq!((error.source.address, error.destination.address), (router, connection.backend.address));
        let (kind, code, quote) = error.icmp();
        assert_eq!((kind, code), (head.0, head.1));
        assert_eq!(error.transport[4..8], head.2.to_be_bytes(), "the MTU stays");
        // Addresses, ports and checksums are those that the backend has sent.
        assert_eq!(quote, one_hop_on(came));
        assert!(Sight::of(quote.to_vec()).sound);
    });
}

#[test]
fn r60_an_error_from_behind_reaches_the_client_as_from_the_vip() {
    for_each_family(|world, connection, _| {
        let router = if connection.client.address.is_v4() { address("10.0.0.77") } else { address("fd00::77") };
        for reporter in [connection.backend.address, router] {
            let (left, came) = from_client(world, &connection);
            let error = world.complains(reporter, connection.source.address, too_big(router), &left).forwarded();
            assert_eq!(
                (error.source.address, error.destination.address),
                (connection.vip.address, connection.client.address)
            );
            assert_eq!(error.icmp().2, one_hop_on(came));
        }
    });
}

#[test]
fn r61_a_wrong_icmp_checksum_dropped() {
    for_each_family(|world, connection, router| {
        let (left, _) = from_backend(world, &connection);
        let mut message = vec![too_big(router).0, too_big(router).1, 0, 0, 0, 0, 5, 120];
        message.extend(left);
        let error = build::icmp(router, connection.vip.address, message);
        let last = error.len() - 1;
        let wrong = altered(error.clone(), |bytes| bytes[last] ^= 1);
        world.receives(wrong).dropped(DropReason::BadIcmpChecksum);
        world.receives(error).forwarded();
    });
}

#[test]
fn r62_a_quote_with_a_wrong_header_checksum_is_dropped_and_a_wrong_tcp_checksum_is_not_looked_at() {
    let mut world = World::new(CONFIG);
    let (connection, router) = (world.client(1).opens("web"), address("203.0.113.9"));
    let (left, _) = from_backend(&mut world, &connection);
    let mut wrong = left.clone();
    wrong[10] ^= 1;
    world.complains(router, connection.vip.address, (3, 1, 0), &wrong).dropped(DropReason::IcmpQuote);
    let mut wrong = left;
    wrong[36] ^= 1;
    world.complains(router, connection.vip.address, (3, 1, 0), &wrong).forwarded();
}

#[test]
fn r63_r64_ports_are_found_behind_options_and_in_eight_bytes() {
    let mut world = World::new(CONFIG);
    let (connection, router) = (world.client(1).opens("web"), address("203.0.113.9"));
    let (left, _) = from_backend(&mut world, &connection);
    let (header, transport) = left.split_at(20);
    let options = [7, 7, 4, 0, 0, 0, 0, 0];
    let with_options = altered([header, &options, transport].concat(), |bytes| {
        bytes[0] = 0x47;
        let len = u16::from_be_bytes([bytes[2], bytes[3]]) + 8;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
    });
    for (quote, at) in [(with_options.as_slice(), 28), (&with_options[..36], 28), (&left[..28], 20)] {
        let error = world.complains(router, connection.vip.address, (11, 0, 0), quote).forwarded();
        let (_, _, seen) = error.icmp();
        assert_eq!(seen.len(), quote.len());
        let port = |n: usize| u16::from_be_bytes([seen[at + n], seen[at + n + 1]]);
        assert_eq!((port(0), port(2)), (connection.backend.port, connection.source.port));
        assert_eq!(seen[12..16], connection.backend.address.v4_octets());
    }
}

#[test]
fn r108_a_quote_that_says_it_ends_before_its_ports_is_no_quote() {
    for_each_family(|world, connection, router| {
        let (left, _) = from_backend(world, &connection);
        let (at, len) = if router.is_v4() { (2, [0, 20]) } else { (4, [0, 0]) };
        let short = altered(left, |bytes| bytes[at..at + 2].copy_from_slice(&len));
        world.complains(router, connection.vip.address, (3, 1, 0), &short).dropped(DropReason::IcmpQuote);
    });
}

#[test]
fn r65_extensions_behind_the_quote_pass_under_the_outer_checksum() {
    let mut world = World::new(CONFIG);
    let (connection, router) = (world.client(1).opens("web"), address("203.0.113.9"));
    let (left, _) = from_backend(&mut world, &connection);
    // RFC 4884: the quote padded to 128 bytes, its length in words, then an MPLS label stack.
    let mut padded = left;
    padded.resize(128, 0);
    padded.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0x11, 0x01]);
    let error = world.complains(router, connection.vip.address, (11, 0, 32 << 16), &padded).forwarded();
    let (_, _, seen) = error.icmp();
    assert_eq!(seen[40..], padded[40..], "padding and extension as they were");
    assert_eq!(error.transport[5], 32);
}

#[test]
fn r66_an_error_about_no_flow_is_dropped_in_silence() {
    for_each_family(|world, connection, router| {
        let stranger = if router.is_v4() { at("198.51.100.99:1") } else { at("[2001:db8:1::99]:1") };
        let quote = build::udp(connection.vip, stranger, b"never sent");
        world.complains(router, connection.vip.address, too_big(router), &quote).dropped(DropReason::IcmpNoFlow);
        // Nor is one believed whose packet would have gone the other way.
        let quote = build::tcp(connection.client, connection.vip, &connection.client_segment("ACK"));
        world.complains(router, connection.vip.address, too_big(router), &quote).dropped(DropReason::IcmpNoFlow);
        assert_eq!(world.shared.table.len(), 1);
    });
}

#[test]
fn r68_no_icmp_message_ends_or_shortens_a_flow() {
    for_each_family(|world, mut connection, router| {
        let errors: &[(u8, u8)] = if router.is_v4() {
            &[(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 10), (3, 13), (11, 0), (11, 1), (12, 0)]
        } else {
            &[(1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1)]
        };
        let (to_client, _) = from_backend(world, &connection);
        let (to_backend, _) = from_client(world, &connection);
        world.wait(7_000);
        for (kind, code) in errors {
            let head = (*kind, *code, 1_400);
            world.complains(router, connection.vip.address, head, &to_client).forwarded();
            world.complains(connection.backend.address, connection.source.address, head, &to_backend).forwarded();
            assert_eq!(world.states(), [State::Established]);
        }
        world.wait(400);
        assert_eq!(world.states(), [State::Established]);
        world.client_sends(&mut connection, 1_000);
    });

    // A datagram's flow, of which somebody says that nobody listens there.
    let mut world = World::new(CONFIG);
    let (client, vip) = (world.client(1).endpoint(), world.client(1).vip("dns"));
    let sent = world.client(1).asks("dns", b"").forwarded();
    world.complains(sent.destination.address, sent.source.address, (3, 3, 0), &sent.bytes).forwarded();
    world.complains(client.address, vip.address, (3, 3, 0), &build::udp(vip, client, b"")).forwarded();
    world.wait(119);
    assert_eq!(world.client(1).asks("dns", b"").forwarded().ends(), sent.ends());
}

#[test]
fn r69_a_ping_to_a_vip_is_answered_even_when_no_backend_takes_flows() {
    let drained = CONFIG.replace(":8080\" }", ":8080\", weight = 0 }").replace(":53\" }", ":53\", weight = 0 }");
    for (vip, client, request, reply) in [
        ("192.0.2.10", "198.51.100.7", 8, 0),
        ("2001:db8::10", "2001:db8:1::7", 128, 129),
        ("10.99.0.10", "198.51.100.7", 8, 0),
    ] {
        let mut world = World::new(&drained);
        let message = [vec![request, 0, 0, 0, 0x12, 0x34, 0, 7], (0..=255).collect()].concat();
        let answer = world.receives(build::icmp(address(client), address(vip), message.clone())).answered();
        assert_eq!((answer.source.address, answer.destination.address), (address(vip), address(client)));
        assert_eq!((answer.icmp().0, answer.icmp().1), (reply, 0));
        assert_eq!(answer.transport[4..], message[4..], "identifier, sequence and data");
        assert_eq!(answer.ttl, build::TTL);
        assert_all_counters!(world, "received" => 1, "replied" => 1);
    }
    let mut world = World::new(CONFIG);
    let elsewhere = build::icmp(address("198.51.100.7"), address("192.0.2.99"), vec![8, 0, 0, 0, 0, 0, 0, 0]);
    world.receives(elsewhere).dropped(DropReason::NoService);
}

#[test]
fn r71_what_is_no_business_of_a_gateway_stays_outside() {
    let mut world = World::new(CONFIG);
    let (client, vip) = (address("198.51.100.7"), address("192.0.2.10"));
    let connection = world.client(1).opens("web");
    let (left, _) = from_backend(&mut world, &connection);
    // Source quench and redirects, quoting a flow of ours; timestamp, information, address mask, router discovery.
    for kind in [4, 5, 6, 9, 10, 13, 14, 15, 16, 17, 18, 30] {
        world.complains(client, vip, (kind, 0, 0), &left).dropped(DropReason::IcmpType);
    }
    let (client, vip) = (address("2001:db8:1::7"), address("2001:db8::10"));
    // Multicast listeners, router and neighbour discovery, redirects.
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend([0; 16]);
        let packet = build::icmp(client, vip, message);
        assert!(Packet::parse(&mut packet.clone(), tungate::wire::Offload::default()).is_ok());
        world.receives(packet).dropped(DropReason::IcmpType);
    }
}
