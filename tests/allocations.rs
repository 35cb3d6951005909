//! The established path allocates nothing: not for a packet of a known flow, nor for one that is dropped.

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]
#![allow(dead_code, unused_macros, unused_imports, reason = "other tests use more of the world")]

#[path = "common/allocator.rs"]
mod allocator;
#[path = "support/mod.rs"]
mod support;

use support::{World, altered, at, segment, with_ttl};
use tungate::engine::{DropReason, NoTrace, Verdict};
use tungate::wire::build::{self, Tcp};
use tungate::wire::tunnel::{self, Scratch};
use tungate::wire::{Checksum, Gso, Offload, Packet};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
max-flows = 1000

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.1:8080" }, { address = "[fd00::1]:8080" }]

[[service]]
name = "dns"
listen = ["192.0.2.10:53", "[2001:db8::10]:53"]
protocol = "udp"
backends = [{ address = "10.0.0.1:53" }, { address = "[fd00::1]:53" }]

[[service]]
name = "plain"
listen = "192.0.2.20:80"
source-nat = false
backends = [{ address = "10.0.0.2:8080" }]

[[service]]
name = "tunnels"
listen = ["192.0.2.30:*", "[2001:db8::30]:*"]
protocol = "any"
mode = "dsr"
encapsulation = "gue"
backends = [{ address = "fd00::3" }]
"#;

/// Takes each packet through the gateway a thousand times.
#[track_caller]
fn assert_none_allocated(world: &mut World, packets: &[Vec<u8>], expected: Verdict) {
    let mut buffers = packets.to_vec();
    let before = allocator::usage();
    for _ in 0..1_000 {
        for (packet, buffer) in packets.iter().zip(&mut buffers) {
            buffer.copy_from_slice(packet);
            let mut packet = Packet::parse(buffer, Offload::default()).unwrap();
            assert_eq!(world.engines[0].handle(&mut packet, world.now, &mut NoTrace), expected);
        }
    }
    assert_eq!(allocator::usage(), before);
}

#[test]
fn packets_of_an_established_connection() {
    for (v6, service) in [(false, "web"), (true, "web"), (false, "plain")] {
        let mut world = World::new(CONFIG);
        let connection = if v6 { world.client(1).v6().opens(service) } else { world.client(1).opens(service) };
        let options = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let plain = connection.client_segment("ACK");
        let with_data = Tcp { payload: &[7; 1_000], ..connection.client_segment("ACK PSH") };
        let with_options = Tcp { options: &options, ..connection.client_segment("ACK") };
        let there = [plain, with_data, with_options].map(|s| build::tcp(connection.client, connection.vip, &s));
        let plain = connection.backend_segment("ACK");
        let with_data = Tcp { payload: &[7; 1_000], ..connection.backend_segment("ACK PSH") };
        let back = [plain, with_data].map(|s| build::tcp(connection.backend, connection.source, &s));
        let both: Vec<_> = there.into_iter().chain(back).collect();
        assert_none_allocated(&mut world, &both, Verdict::Forward);
    }
}

#[test]
fn datagrams_of_a_known_flow() {
    for v6 in [false, true] {
        let mut world = World::new(CONFIG);
        let client = if v6 { world.client(1).v6() } else { world.client(1) };
        let (client, vip) = (client.endpoint(), client.vip("dns"));
        let seen = world.receives(build::udp(client, vip, b"question")).forwarded();
        world.answers(seen.destination, seen.source, b"answer").forwarded();
        let there = build::udp(client, vip, b"question");
        let back = build::udp(seen.destination, seen.source, b"answer");
        world.receives(there.clone()).forwarded();
        assert_none_allocated(&mut world, &[there, back], Verdict::Forward);
    }
}

/// A super-packet, too: its segments leave from where they lie.
#[test]
fn packets_into_a_tunnel() {
    let ends = [("198.51.100.1:40000", "192.0.2.30:80"), ("[2001:db8:1::1]:40000", "[2001:db8::30]:80")];
    for (client, vip) in ends.map(|(client, vip)| (at(client), at(vip))) {
        let mut world = World::new(CONFIG);
        let v4 = client.address.is_v4();
        let ip_header = if v4 { 20 } else { 40 };
        let small = build::tcp(client, vip, &segment("ACK", 1, 1));
        let large = build::tcp(client, vip, &Tcp { payload: &[7; 9_000], ..segment("ACK", 1, 1) });
        let segmented = Offload {
            checksum: Checksum::Partial { start: ip_header, offset: 16 },
            gso: if v4 { Gso::TcpV4 { ecn: false } } else { Gso::TcpV6 { ecn: false } },
            segment_size: 1_300,
            header_len: ip_header + 20,
        };
        let mut scratch = Scratch::default();
        let mut wrap = |packet: &[u8], buffer: &mut [u8], offload| {
            buffer.copy_from_slice(packet);
            let mut packet = Packet::parse(buffer, offload).unwrap();
            assert_eq!(world.engines[0].handle(&mut packet, world.now, &mut NoTrace), Verdict::Forward);
            let mut sent = 0;
            tunnel::emit(&mut packet, &mut scratch, |_, _| sent += 1);
            sent
        };
        let mut buffers = [small.clone(), large.clone()];
        let before = [(); 2].map(|()| {
            for _ in 0..1_000 {
                assert_eq!(wrap(&small, &mut buffers[0], Offload::default()), 1);
                assert_eq!(wrap(&large, &mut buffers[1], segmented), 7);
            }
            allocator::usage()
        });
        assert_eq!(before[0], before[1], "all that is needed is there after the first packets");
    }
}

/// Nor do those that have to be cut, before they are wrapped (IPv4) or after (IPv6).
#[test]
fn packets_that_are_too_big_for_a_tunnel() {
    let mut world = World::new(&CONFIG.replacen("[gateway]", "[gateway]\nmtu = 1300", 1));
    let v4 = altered(build::udp(at("198.51.100.1:40000"), at("192.0.2.30:53"), &[7; 1_252]), |bytes| bytes[6] = 0);
    let v6 = build::udp(at("[2001:db8:1::1]:40000"), at("[2001:db8::30]:53"), &[7; 1_232]);
    let mut scratch = Scratch::default();
    let mut buffer = v4.clone();
    let before = [(); 2].map(|()| {
        for packet in [&v4, &v6].into_iter().cycle().take(1_000) {
            buffer.copy_from_slice(packet);
            let mut packet = Packet::parse(&mut buffer, Offload::default()).unwrap();
            assert_eq!(world.engines[0].handle(&mut packet, world.now, &mut NoTrace), Verdict::Forward);
            let mut sent = 0;
            tunnel::emit(&mut packet, &mut scratch, |_, _| sent += 1);
            assert_eq!(sent, 2);
        }
        allocator::usage()
    });
    assert_eq!(before[0], before[1], "all that is needed is there after the first packets");
}

/// What a flood of nonsense costs: no memory.
#[test]
fn packets_that_are_dropped() {
    let mut world = World::new(CONFIG);
    let connection = world.client(1).opens("web");
    let (client, nobody) = (world.client(2).endpoint(), at("203.0.113.1:80"));
    let far = connection.client_next.wrapping_add(1 << 30);
    for (packet, reason) in [
        (build::tcp(connection.client, connection.vip, &segment("ACK", far, 0)), DropReason::TcpWindow),
        (build::tcp(connection.client, connection.vip, &segment("", far, 0)), DropReason::BadTcpFlags),
        (build::tcp(client, connection.vip, &segment("RST", 1, 0)), DropReason::NoFlow),
        (build::tcp(client, connection.vip, &segment("SYN FIN", 1, 0)), DropReason::BadTcpFlags),
        (build::tcp(at("127.0.0.1:80"), connection.vip, &segment("SYN", 1, 0)), DropReason::Martian),
        (build::udp(client, nobody, b""), DropReason::NoService),
        (with_ttl(build::udp(client, nobody, b""), 1), DropReason::NoService),
    ] {
        assert_none_allocated(&mut world, &[packet], Verdict::Drop(reason));
    }
}
