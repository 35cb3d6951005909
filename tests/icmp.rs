//! ICMP errors through and from the gateway, and who a packet claims to be from.
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::net::SocketAddr;
use std::sync::Arc;

use tungate::config;
use tungate::engine::{DropReason, Engine, Instant, NoTrace, Shared, Verdict, WorkerId};
use tungate::wire::{Address, Endpoint, Offload, Packet, build, checksum};

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

fn at(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

struct World {
    engine: Engine,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let shared: Arc<Shared> = Shared::new(config::load(CONFIG, "test.toml", 0, "gw").unwrap(), 1, 7);
        let now = Instant::from_micros(1_000_000_000);
        Self { engine: Engine::new(&shared, WorkerId(0), now), now }
    }

    /// Sends a packet; what becomes of it, and what it has become.
    fn send(&mut self, mut bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
        let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        let verdict = self.engine.handle(&mut packet, self.now, &mut NoTrace);
        (verdict, packet.bytes().to_vec())
    }

    /// Opens a flow with one datagram; the datagram as the backend gets it.
    fn open(&mut self, client: Endpoint, vip: Endpoint) -> Vec<u8> {
        let (verdict, sent) = self.send(build::udp(client, vip, b"who is it?"));
        assert_eq!(verdict, Verdict::Forward);
        sent
    }
}

fn addresses(bytes: &mut [u8]) -> (Address, Address) {
    Packet::parse(bytes, Offload::default()).unwrap().addresses()
}

fn endpoints(bytes: &mut [u8]) -> (Endpoint, Endpoint) {
    Packet::parse(bytes, Offload::default()).unwrap().endpoints().unwrap()
}

/// Gives an IPv4 packet another byte of its header, and the checksum that goes with it.
fn with_byte(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    packet[10..12].fill(0);
    let sum = !checksum::sum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// "Port unreachable", IPv4, about this packet.
fn unreachable(from: Address, to: Address, about: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(about);
    build::icmp(from, to, message)
}

/// R7. With the client's address kept, an answer is for the client: we may not speak in his name.
#[test]
fn the_error_about_an_answer_is_from_the_gateway_and_not_from_the_client() {
    let client = at("198.51.100.7:4000");
    let backend = at("10.0.0.1:53");
    for (vip, seen_as, teller) in [
        (at("192.0.2.10:53"), at("10.99.0.10:4000"), at("10.99.0.10:0")),
        (at("192.0.2.11:53"), client, at("192.0.2.11:0")),
    ] {
        let mut world = World::new();
        let mut sent = world.open(client, vip);
        assert_eq!(endpoints(&mut sent), (seen_as, backend));
        let (verdict, _) = world.send(with_byte(build::udp(backend, seen_as, b"it is me"), 8, 1));
        assert_eq!(verdict, Verdict::Reply);
        let mut error = world.engine.outbox().next().unwrap().packet;
        assert_eq!(addresses(&mut error), (teller.address, backend.address));
    }
}

/// RFC 5508 REQ-4, REQ-5; what Linux calls "outer daddr does not match inner saddr".
#[test]
fn an_error_for_somebody_else_than_the_sender_of_its_quote_is_not_about_him() {
    let mut world = World::new();
    let sent = world.open(at("198.51.100.7:4000"), at("192.0.2.10:53"));
    let router = at("10.0.0.254:0").address;
    for other in ["192.0.2.10:0", "10.99.0.11:0"] {
        let (verdict, _) = world.send(unreachable(router, at(other).address, &sent));
        assert_eq!(verdict, Verdict::Drop(DropReason::IcmpNoFlow));
    }
    let (verdict, mut out) = world.send(unreachable(router, at("10.99.0.10:0").address, &sent));
    assert_eq!(verdict, Verdict::Forward);
    assert_eq!(addresses(&mut out), (at("192.0.2.10:0").address, at("198.51.100.7:0").address));
}

/// Its checksum covers fragments yet to come, and those will not be forwarded: they have no ports.
#[test]
fn an_error_in_fragments_is_dropped_from_the_first_on() {
    let mut world = World::new();
    let sent = world.open(at("198.51.100.7:4000"), at("192.0.2.10:53"));
    let mut padded = sent;
    padded.resize(padded.len().next_multiple_of(8), 0);
    let error = unreachable(at("10.0.0.254:0").address, at("10.99.0.10:0").address, &padded);
    let (verdict, _) = world.send(with_byte(error, 6, 0x20));
    assert!(matches!(verdict, Verdict::Drop(_)), "{verdict}");
}

/// R35: a backend that asks its own service would get a packet from itself.
#[test]
fn a_backend_that_is_its_own_client_is_asked_in_our_name() {
    for (client, vip, backend, source) in [
        ("10.0.0.1:4000", "192.0.2.11:53", "10.0.0.1:53", "10.99.0.10:4000"),
        ("[fd00::1]:4000", "[2001:db8::11]:53", "[fd00::1]:53", "[fd00:99::10]:4000"),
    ] {
        let (client, vip, backend, source) = (at(client), at(vip), at(backend), at(source));
        let mut world = World::new();
        let mut sent = world.open(client, vip);
        assert_eq!(endpoints(&mut sent), (source, backend));
        let (verdict, mut answer) = world.send(build::udp(backend, source, b"it is me"));
        assert_eq!(verdict, Verdict::Forward);
        assert_eq!(endpoints(&mut answer), (vip, client));
    }
}

/// RFC 1122 4.1.3.4: its port may be what was damaged.
#[test]
fn a_damaged_datagram_is_not_answered() {
    let mut world = World::new();
    let mut datagram = build::udp(at("198.51.100.7:4000"), at("192.0.2.10:54"), b"hello");
    assert_eq!(world.send(datagram.clone()).0, Verdict::Reply);
    *datagram.last_mut().unwrap() ^= 1;
    assert_eq!(world.send(datagram).0, Verdict::Drop(DropReason::NoService));
}
