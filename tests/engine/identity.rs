//! Who a packet is from, and who an error about it is from.

use tungate::engine::DropReason;
use tungate::wire::{Address, build};

use crate::support::{World, address, altered, at, with_ttl};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]

[[service]]
name = "dns"
protocol = "udp"
listen = ["192.0.2.10:53", "[2001:db8::10]:53"]
backends = [{ name = "b4", address = "10.0.0.1:53" }, { name = "b6", address = "[fd00::1]:53" }]

[[service]]
name = "direct"
protocol = "udp"
listen = ["192.0.2.11:53", "[2001:db8::11]:53"]
source-nat = false
backends = [{ name = "b4", address = "10.0.0.1:53" }, { name = "b6", address = "[fd00::1]:53" }]
"#;

/// "Port unreachable", IPv4, about this packet.
fn unreachable(from: Address, to: Address, about: &[u8]) -> Vec<u8> {
    build::icmp(from, to, [&[3, 3, 0, 0, 0, 0, 0, 0], about].concat())
}

/// R7. With the client's address kept, an answer is for the client: we may not speak in his name.
#[test]
fn the_error_about_an_answer_is_from_the_gateway_and_not_from_the_client() {
    let client = at("198.51.100.7:4000");
    let backend = at("10.0.0.1:53");
    for (service, seen_as, teller) in [("dns", at("10.99.0.10:4000"), "10.99.0.10"), ("direct", client, "192.0.2.11")] {
        let mut world = World::new(CONFIG);
        assert_eq!(world.client_at(client).asks(service, b"who is it?").forwarded().ends(), (seen_as, backend));
        let error = world.receives(with_ttl(build::udp(backend, seen_as, b"it is me"), 1)).answered();
        assert_eq!((error.source.address, error.destination.address), (address(teller), backend.address));
    }
}

/// RFC 5508 REQ-4, REQ-5; what Linux calls "outer daddr does not match inner saddr".
#[test]
fn an_error_for_somebody_else_than_the_sender_of_its_quote_is_not_about_him() {
    let mut world = World::new(CONFIG);
    let client = at("198.51.100.7:4000");
    let sent = world.client_at(client).asks("dns", b"who is it?").forwarded().bytes;
    let router = address("10.0.0.254");
    for other in ["192.0.2.10", "10.99.0.11"] {
        world.receives(unreachable(router, address(other), &sent)).dropped(DropReason::IcmpNoFlow);
    }
    let error = world.receives(unreachable(router, address("10.99.0.10"), &sent)).forwarded();
    assert_eq!((error.source.address, error.destination.address), (address("192.0.2.10"), client.address));
}

/// Its checksum covers fragments yet to come, and those will not be forwarded: they have no ports.
#[test]
fn an_error_in_fragments_is_dropped_from_the_first_on() {
    let mut world = World::new(CONFIG);
    let mut sent = world.client_at(at("198.51.100.7:4000")).asks("dns", b"who is it?").forwarded().bytes;
    sent.resize(sent.len().next_multiple_of(8), 0);
    let error = unreachable(address("10.0.0.254"), address("10.99.0.10"), &sent);
    world.receives(altered(error, |bytes| bytes[6] = 0x20)).dropped(DropReason::Protocol);
}

const BACKENDS: [(&str, &str, &str); 2] =
    [("10.0.0.1:4000", "10.0.0.1:53", "10.99.0.10:4000"), ("[fd00::1]:4000", "[fd00::1]:53", "[fd00:99::10]:4000")];

#[test]
fn r35_a_backend_that_is_its_own_client_is_asked_in_our_name() {
    for (client, backend, source) in BACKENDS.map(|(client, backend, source)| (at(client), at(backend), at(source))) {
        let mut world = World::new(CONFIG);
        assert_eq!(world.client_at(client).asks("direct", b"who is it?").forwarded().ends(), (source, backend));
        let vip = world.client_at(client).vip("direct");
        assert_eq!(world.answers(backend, source, b"it is me").forwarded().ends(), (vip, client));
    }
}

#[test]
fn r35_without_a_source_address_a_backend_cannot_be_its_own_client() {
    let direct = &CONFIG[CONFIG.rfind("[[service]]").unwrap()..];
    for (client, ..) in BACKENDS {
        let mut world = World::new(direct);
        world.client_at(at(client)).asks("direct", b"who is it?").dropped(DropReason::NoSourceAddress);
        assert_all_counters!(world, "received" => 1, "drop no-source-address" => 1, "refused" => 1);
        world.check_invariants();
    }
}

/// RFC 1122 4.1.3.4: its port may be what was damaged.
#[test]
fn a_damaged_datagram_is_not_answered() {
    let mut world = World::new(CONFIG);
    let mut datagram = build::udp(at("198.51.100.7:4000"), at("192.0.2.10:54"), b"hello");
    let _ = world.receives(datagram.clone()).answered();
    *datagram.last_mut().unwrap() ^= 1;
    world.receives(datagram).dropped(DropReason::NoService);
}
