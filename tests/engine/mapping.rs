//! NAT mappings: one for each 5-tuple, until it expires.

use std::collections::HashSet;

use tungate::engine::DropReason;
use tungate::engine::conntrack::State;
use tungate::wire::{Protocol, build};

use crate::CONFIG;
use crate::support::{Client, World, address, at, segment};

#[test]
fn r27_a_flow_keeps_its_backend_and_translation_whatever_the_pool_becomes() {
    let mut world = World::new(CONFIG);
    let first: Vec<_> = (1..=20).map(|n| world.client(n).asks("dns", b"1").forwarded().ends()).collect();
    assert_eq!(first.iter().map(|ends| ends.1).collect::<HashSet<_>>().len(), 2, "both backends are in use");
    // One backend takes no new flows any more, and flows are given out another way.
    world.reload(
        &CONFIG
            .replace("10.0.0.1:53\" }", "10.0.0.1:53\", weight = 0 }")
            .replace("protocol = \"udp\"", "protocol = \"udp\"\nbalance = \"round-robin\""),
    );
    for (n, ends) in (1..=20).zip(&first) {
        for _ in 0..3 {
            assert_eq!(world.client(n).asks("dns", b"2").forwarded().ends(), *ends);
        }
    }
    for n in 21..=40 {
        let fresh = world.client(n).asks("dns", b"1").forwarded();
        assert_eq!(fresh.destination, at("10.0.0.2:53"));
    }
}

#[test]
fn r28_an_answer_comes_from_the_vip_to_the_client() {
    for v6 in [false, true] {
        let mut world = World::new(CONFIG);
        let (client, vip) = if v6 {
            (world.client(1).v6().endpoint(), world.client(1).v6().vip("dns"))
        } else {
            (world.client(1).endpoint(), world.client(1).vip("dns"))
        };
        let seen = world.receives(build::udp(client, vip, b"question")).forwarded();
        assert!(seen.sound);
        let answer = world.answers(seen.destination, seen.source, b"answer").forwarded();
        assert_eq!((answer.ends(), answer.sound), ((vip, client), true));
        assert_eq!(answer.transport[8..], *b"answer");

        let connection = if v6 { world.client(1).v6().opens("web") } else { world.client(1).opens("web") };
        let answer = world.backend_says(&connection, &connection.backend_segment("ACK")).forwarded();
        assert_eq!(answer.ends(), (connection.vip, connection.client));
    }
}

/// Without source NAT the backend sees the client, and its answers are routed back through the gateway.
#[test]
fn r28_the_clients_address_stays_without_source_nat() {
    let mut world = World::new(CONFIG);
    let mut connection = world.client(1).opens("plain");
    assert_eq!(connection.source, connection.client);
    world.client_sends(&mut connection, 100);
    let answer = world.backend_says(&connection, &connection.backend_segment("ACK")).forwarded();
    assert_eq!(answer.ends(), (connection.vip, connection.client));
}

#[test]
fn r29_no_two_flows_look_the_same_to_a_backend() {
    let mut world = World::new(CONFIG);
    let mut seen = HashSet::new();
    for n in 1..=100 {
        // Two clients of the same port, and one client of two.
        for port in [40_000, 40_001] {
            let connection = world.client(n).port(port).opens("web");
            assert!(seen.insert((connection.source, connection.backend)), "{connection:?}");
        }
    }
    // The same source port serves another backend: there are more flows than sources.
    let sources: HashSet<_> = seen.iter().map(|(source, _)| source).collect();
    assert!(sources.len() < seen.len());
    world.check_invariants();
}

#[test]
fn r30_the_class_of_the_source_port_is_kept() {
    let mut world = World::new(CONFIG);
    for port in [1, 80, 1023, 1024, 40_000, 65_535] {
        for n in 1..=30 {
            let seen = world.client(n).port(port).asks("dns", b"").forwarded();
            assert_eq!(seen.source.port < 1024, port < 1024, "{port} became {}", seen.source.port);
            assert_ne!(seen.source.port, 0);
        }
    }
}

fn client_of(world: &mut World, n: u8, v6: bool) -> Client<'_> {
    if v6 { world.client(n).v6() } else { world.client(n) }
}

/// Ports below 1024 are soon lent: 1,023 of them towards a backend.
#[test]
fn r31_who_finds_every_port_lent_is_told_so() {
    const ONE_BACKEND: &str = r#"
        [gateway]
        source-addresses = ["10.99.0.10", "fd00:99::10"]
        [[service]]
        name = "web"
        listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
        backends = [{ address = "10.0.0.1:8080" }, { address = "[fd00::1]:8080" }]
    "#;
    for (v6, prohibited) in [(false, (3, 13)), (true, (1, 1))] {
        let mut world = World::new(ONE_BACKEND);
        let mut established: Vec<_> =
            (1..768).map(|port| client_of(&mut world, 1, v6).port(port).opens("web")).collect();

        let late = client_of(&mut world, 2, v6).port(80);
        let (client, vip) = (late.endpoint(), late.vip("web"));
        let syn = build::tcp(client, vip, &segment("SYN", 1, 0));
        let refusal = world.receives(syn.clone()).answered();
        assert_eq!((refusal.source.address, refusal.destination.address), (vip.address, client.address));
        assert_eq!(refusal.icmp(), (prohibited.0, prohibited.1, &syn[..]));
        // Not more often than others are told things (R10).
        let told = (0..20).filter(|_| !world.receives(syn.clone()).own.is_empty()).count();
        assert_eq!((told, world.counters()["drop ports-exhausted"], world.counters()["refused"]), (9, 11, 21));

        for connection in &mut established {
            world.client_sends(connection, 10);
        }
        // What one gives back is lent to the next.
        world.client_says(&established[0], &established[0].client_segment("RST ACK")).forwarded();
        world.wait(11);
        world.receives(syn).forwarded();
        world.check_invariants();
    }
}

#[test]
fn r32_a_udp_mapping_outlives_two_minutes_and_the_client_refreshes_it() {
    let mut world = World::new(CONFIG);
    let first = world.client(1).asks("dns", b"").forwarded();
    for _ in 0..5 {
        world.wait(119);
        assert_eq!(world.client(1).asks("dns", b"").forwarded().ends(), first.ends());
    }
    world.wait(121);
    assert!(world.shared.table.is_empty());

    let first = world.client(1).asks("dns", b"").forwarded();
    world.answers(first.destination, first.source, b"").forwarded();
    for _ in 0..3 {
        world.wait(299);
        world.client(1).asks("dns", b"").forwarded();
    }
    world.wait(301);
    assert!(world.shared.table.is_empty());
    assert_all_counters!(world, "received" => 11, "forwarded" => 11, "opened" => 2, "closed" => 2);
}

#[test]
fn r32_the_timeout_is_the_configured_one() {
    let mut world = World::new(&format!("{CONFIG}\n[timeouts]\nudp-unreplied = \"7s\"\n"));
    world.client(1).asks("dns", b"").forwarded();
    world.wait(6);
    assert_eq!(world.shared.table.len(), 1);
    world.wait(2);
    assert!(world.shared.table.is_empty());
}

#[test]
fn r33_answers_refresh_and_errors_do_not() {
    let mut world = World::new(CONFIG);
    let (client, vip) = (world.client(1).endpoint(), world.client(1).vip("dns"));
    let first = world.client(1).asks("dns", b"").forwarded();
    world.answers(first.destination, first.source, b"").forwarded();
    for _ in 0..5 {
        world.wait(299);
        world.answers(first.destination, first.source, b"").forwarded();
    }
    let quote = build::udp(vip, client, b"");
    world.wait(299);
    world.complains(client.address, vip.address, (3, 3, 0), &quote).forwarded();
    world.wait(2);
    assert!(world.shared.table.is_empty(), "an ICMP error has not prolonged it");

    let connection = world.client(1).opens("web");
    world.wait(7_439);
    world.client_says(&connection, &segment("RST", connection.client_next + 10, 0)).forwarded();
    world.wait(2);
    assert!(world.shared.table.is_empty(), "a RST that ends nothing has not prolonged it");
}

#[test]
fn r34_tcp_and_udp_of_the_same_ports_are_apart() {
    let both = CONFIG.replace("\"192.0.2.10:53\", ", "\"192.0.2.10:80\", ").replace("10.0.0.1:53", "10.0.0.1:8080");
    let mut world = World::new(&both.replace("10.0.0.2:53", "10.0.0.2:8080"));
    let mut connection = world.client(1).opens("web");
    let datagram = world.client(1).asks("dns", b"").forwarded();
    assert_eq!(datagram.source, connection.source, "both have the client's port");
    let (client, vip) = (connection.client, connection.vip);
    let flows = [Protocol::TCP, Protocol::UDP].map(|protocol| world.flow(client, vip, protocol).unwrap());
    assert_eq!(flows.map(|flow| flow.state()), [State::Established, State::Unreplied]);
    world.wait(121);
    assert!(world.flow(client, vip, Protocol::UDP).is_none());
    world.client_sends(&mut connection, 100);
    world.check_invariants();
}

/// A backend that is a client of its own service: it must not see its own address, or it would answer directly.
#[test]
fn r35_a_backend_may_connect_to_the_vip() {
    let mut world = World::new(CONFIG);
    for backend in ["10.0.0.1:5000", "10.0.0.2:5000", "[fd00::1]:5000"] {
        let mut connection = world.client_at(at(backend)).opens("web");
        assert!([address("10.99.0.10"), address("fd00:99::10")].contains(&connection.source.address));
        world.client_sends(&mut connection, 100);
        world.backend_sends(&mut connection, 100);
    }
}

#[test]
fn r36_an_empty_datagram_is_translated_like_any_other() {
    let mut world = World::new(CONFIG);
    let seen = world.client(1).asks("dns", b"").forwarded();
    assert_eq!((seen.transport.len(), seen.sound), (8, true));
    let answer = world.answers(seen.destination, seen.source, b"").forwarded();
    assert_eq!((answer.transport.len(), answer.sound), (8, true));
}

#[test]
fn nobody_listens_there() {
    let mut world = World::new(CONFIG);
    world.receives(build::udp(at("198.51.100.7:4000"), at("203.0.113.5:80"), b"x")).dropped(DropReason::NoService);
    // At a VIP there is somebody to say so.
    let refusal = world.receives(build::udp(at("198.51.100.7:4000"), at("192.0.2.10:99"), b"x")).answered();
    assert_eq!((refusal.icmp().0, refusal.icmp().1), (3, 3));
    let refusal = world.receives(build::tcp(at("198.51.100.7:4000"), at("192.0.2.10:99"), &segment("SYN", 9, 0)));
    assert_eq!(refusal.answered().tcp.map(|(flags, _, ack)| (flags.to_string(), ack)), Some(("RST,ACK".into(), 10)));
}

#[test]
fn a_service_whose_backends_all_have_weight_zero_refuses_new_flows_only() {
    let mut world = World::new(CONFIG);
    let mut connection = world.client(1).opens("plain");
    let drained = CONFIG.replace(
        "source-nat = false\nbackends = [{ address = \"10.0.0.1:8080\" }]",
        "source-nat = false\nbackends = [{ address = \"10.0.0.1:8080\", weight = 0 }]",
    );
    assert_ne!(drained, CONFIG);
    world.reload(&drained);
    // As a host whose server has stopped: the client fails over at once.
    let refusal = world.client(2).syn("plain").answered();
    assert_eq!(refusal.tcp.map(|(flags, ..)| flags.to_string()), Some("RST,ACK".into()));
    world.client_sends(&mut connection, 100);
    assert_all_counters!(world, "received" => 6, "forwarded" => 5, "opened" => 1, "refused" => 1, "replied" => 1);
}
