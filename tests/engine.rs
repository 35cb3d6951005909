//! The engine by itself: packets in, packets out, state in between.
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::net::SocketAddr;
use std::sync::Arc;

use tungate::config;
use tungate::engine::{DropReason, Engine, Instant, NoTrace, Shared, Verdict, WorkerId};
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Endpoint, Offload, Packet, TcpFlags};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ name = "b1", address = "10.0.0.1:8080" }, { name = "b6", address = "[fd00::1]:8080" }]
"#;

fn at(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

struct World {
    shared: Arc<Shared>,
    engine: Engine,
    now: Instant,
}

impl World {
    fn new(config: &str) -> Self {
        let snapshot = config::load(config, "test.toml", 0, "gw").unwrap();
        let shared = Shared::new(snapshot, 1, 7);
        let now = Instant::from_micros(1_000_000_000);
        let engine = Engine::new(&shared, WorkerId(0), now);
        Self { shared, engine, now }
    }

    fn send(&mut self, mut bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
        let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        let verdict = self.engine.handle(&mut packet, self.now, &mut NoTrace);
        (verdict, packet.bytes().to_vec())
    }
}

fn segment(flags: TcpFlags, seq: u32, ack: u32) -> Tcp<'static> {
    Tcp { seq, ack, flags, window: 64_000, ..Tcp::default() }
}

#[test]
fn a_connection_is_translated_there_and_back() {
    for (client, vip, source, backend) in [
        ("198.51.100.7:40000", "192.0.2.10:80", "10.99.0.10:40000", "10.0.0.1:8080"),
        ("[2001:db8:1::7]:40000", "[2001:db8::10]:80", "[fd00:99::10]:40000", "[fd00::1]:8080"),
    ] {
        let mut world = World::new(CONFIG);
        let (client, vip, source, backend) = (at(client), at(vip), at(source), at(backend));
        let (verdict, mut out) = world.send(build::tcp(client, vip, &segment(TcpFlags::SYN, 100, 0)));
        assert_eq!(verdict, Verdict::Forward);
        let sent = Packet::parse(&mut out, Offload::default()).unwrap();
        assert_eq!(sent.endpoints(), Some((source, backend)));
        assert!(sent.transport_checksum_ok());

        let synack = segment(TcpFlags(0x12), 500, 101);
        let (verdict, mut out) = world.send(build::tcp(backend, source, &synack));
        assert_eq!(verdict, Verdict::Forward);
        let sent = Packet::parse(&mut out, Offload::default()).unwrap();
        assert_eq!(sent.endpoints(), Some((vip, client)));
        assert!(sent.transport_checksum_ok());

        let (verdict, _) = world.send(build::tcp(client, vip, &segment(TcpFlags::ACK, 101, 501)));
        assert_eq!(verdict, Verdict::Forward);
        assert_eq!(world.shared.table.len(), 1);
    }
}

#[test]
fn mid_stream_without_a_flow_is_reset() {
    let mut world = World::new(CONFIG);
    let (client, vip) = (at("198.51.100.7:40000"), at("192.0.2.10:80"));
    let (verdict, _) = world.send(build::tcp(client, vip, &segment(TcpFlags::ACK, 101, 501)));
    assert_eq!(verdict, Verdict::Reply);
    let mut answer = world.engine.outbox().next().unwrap().packet;
    let answer = Packet::parse(&mut answer, Offload::default()).unwrap();
    assert_eq!(answer.tcp().unwrap().seq, 501);
    assert_eq!(answer.endpoints(), Some((vip, client)));
}

#[test]
fn nobody_listens_there() {
    let mut world = World::new(CONFIG);
    let (verdict, _) = world.send(build::udp(at("198.51.100.7:4000"), at("203.0.113.5:80"), b"x"));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoService));
}
