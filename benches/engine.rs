//! What a packet costs in the engine: parsed, forwarded on a flow that is known, and when it opens one.
//!
//! Each packet is copied from a template and given its client, so that the figures contain a copy of some 60 bytes, and
//! what the flow table's memory costs, but none of the memory of a million packets.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant as Wall};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tungate::config;
use tungate::engine::{DropReason, Engine, Instant, NoTrace, Shared, Verdict, WorkerId};
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Address, Endpoint, Offload, Packet, Protocol, TcpFlags, checksum};

/// Eight backends and four sources: ports for two million flows of each service.
fn config(max_flows: u32, limits: &str) -> String {
    let backends: Vec<_> = (1..=8).map(|n| format!("{{ address = \"10.0.0.{n}\" }}")).collect();
    let service = |name: &str, port: u16, protocol: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nlisten = \"192.0.2.10:{port}\"\nprotocol = \"{protocol}\"\nbackends = [{}]\n",
            backends.join(", ")
        )
    };
    let sources = "source-addresses = [\"10.99.0.10\", \"10.99.0.11\", \"10.99.0.12\", \"10.99.0.13\"]";
    let gateway = format!("[gateway]\nmax-flows = {max_flows}\n{sources}\n");
    format!("{gateway}{}{}[service.limits]\n{limits}\n", service("dns", 53, "udp"), service("web", 80, "tcp"))
}

const START: Instant = Instant::from_micros(1_000_000_000);
const WEB: Endpoint = Endpoint::new(Address::v4([192, 0, 2, 10]), 80);
const DNS: Endpoint = Endpoint::new(Address::v4([192, 0, 2, 10]), 53);

fn engine() -> (Arc<Shared>, Engine) {
    engine_with(2_000_000, "")
}

fn engine_with(max_flows: u32, limits: &str) -> (Arc<Shared>, Engine) {
    let snapshot =
        config::load(&config(max_flows, limits), "bench.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
    let shared = Shared::new(snapshot, 1, 7);
    let engine = Engine::new(&shared, WorkerId(0), START);
    (shared, engine)
}

/// The nth client: an address, and a port that no other client of the same address has.
fn client(n: u32) -> Endpoint {
    let [_, a, b, c] = (n >> 2).to_be_bytes();
    Endpoint::new(Address::v4([101, a, b, c]), 40_000 + u16::try_from(n & 3).expect("two bits"))
}

/// A packet that is copied again and again, each time from another client.
struct Template {
    bytes: Vec<u8>,
    buffer: Vec<u8>,
}

impl Template {
    fn new(bytes: Vec<u8>) -> Self {
        Self { buffer: bytes.clone(), bytes }
    }

    fn udp() -> Self {
        Self::new(build::udp(client(0), DNS, &[0x5a; 18]))
    }

    fn tcp(flags: TcpFlags, seq: u32, ack: u32) -> Self {
        let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        Self::new(build::tcp(client(0), WEB, &Tcp { seq, ack, flags, window: 60_000, options: &options, payload: b"" }))
    }

    /// The packet of client n; its transport checksum is right, too.
    #[inline]
    fn of(&mut self, n: u32) -> &mut [u8] {
        self.buffer.copy_from_slice(&self.bytes);
        let (old, new) = (client(0), client(n));
        let addresses = checksum::delta(old.address.header_bytes(), new.address.header_bytes());
        let both = checksum::add(addresses, checksum::word_delta(old.port, new.port));
        let at = if self.bytes[9] == Protocol::UDP.0 { 26 } else { 36 };
        for (at, change) in [(10, addresses), (at, both)] {
            let sum = u16::from_be_bytes([self.buffer[at], self.buffer[at + 1]]);
            self.buffer[at..at + 2].copy_from_slice(&checksum::update(sum, change).to_be_bytes());
        }
        self.buffer[12..16].copy_from_slice(new.address.header_bytes());
        self.buffer[20..22].copy_from_slice(&new.port.to_be_bytes());
        &mut self.buffer
    }
}

#[inline]
fn handle(engine: &mut Engine, bytes: &mut [u8]) -> Verdict {
    let mut packet = Packet::parse(bytes, Offload::default()).expect("a sound packet");
    engine.handle(&mut packet, START, &mut NoTrace)
}

fn forward(engine: &mut Engine, bytes: &mut [u8]) {
    assert_eq!(handle(engine, bytes), Verdict::Forward);
}

/// Opens a TCP connection: SYN, SYN-ACK, ACK.
fn connect(engine: &mut Engine, n: u32, syn: &mut Template, ack: &mut Template) {
    let bytes = syn.of(n);
    forward(engine, bytes);
    let (source, backend) = Packet::parse(bytes, Offload::default()).expect("sound").endpoints().expect("has ports");
    let flags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
    let synack = Tcp { seq: 500, ack: 101, flags, window: 60_000, ..Tcp::default() };
    forward(engine, &mut build::tcp(backend, source, &synack));
    forward(engine, ack.of(n));
}

/// A random order that visits clients again and again.
struct Visits {
    state: u64,
    clients: u64,
}

impl Visits {
    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(((self.state >> 33) * self.clients) >> 31).expect("below the number of clients")
    }
}

fn parse(c: &mut Criterion) {
    let mut tcp = Template::tcp(TcpFlags::ACK, 101, 501);
    c.bench_function("parse/tcp", |b| {
        b.iter(|| {
            let packet = Packet::parse(tcp.of(black_box(77)), Offload::default()).expect("sound");
            black_box(packet.endpoints())
        });
    });
}

/// Aim: 60 ns a packet at a million flows.
fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("established");
    for flows in [10_000, 1_000_000] {
        let mut visits = Visits { state: 1, clients: u64::from(flows) };
        let (_shared, mut engine) = engine();
        let mut datagram = Template::udp();
        (0..flows).for_each(|n| forward(&mut engine, datagram.of(n)));
        group.bench_function(BenchmarkId::new("udp", flows), |b| {
            b.iter(|| handle(&mut engine, datagram.of(visits.next())));
        });
    }
    for flows in [10_000, 1_000_000] {
        let mut visits = Visits { state: 1, clients: u64::from(flows) };
        let (_shared, mut engine) = engine();
        let (mut syn, mut ack) = (Template::tcp(TcpFlags::SYN, 100, 0), Template::tcp(TcpFlags::ACK, 101, 501));
        (0..flows).for_each(|n| connect(&mut engine, n, &mut syn, &mut ack));
        group.bench_function(BenchmarkId::new("tcp", flows), |b| {
            b.iter(|| handle(&mut engine, ack.of(visits.next())));
        });
    }
}

/// Aim: 400 ns.
fn new_flow(c: &mut Criterion) {
    const AT_ONCE: u32 = 100_000;
    let mut group = c.benchmark_group("new-flow");
    let mut templates = [("udp", Template::udp()), ("tcp", Template::tcp(TcpFlags::SYN, 100, 0))];
    for (name, template) in &mut templates {
        group.bench_function(*name, |b| {
            b.iter_custom(|mut left| {
                let mut spent = Duration::ZERO;
                while left > 0 {
                    let (_shared, mut engine) = engine();
                    let count = AT_ONCE.min(u32::try_from(left).unwrap_or(u32::MAX));
                    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
                    let start = Wall::now();
                    (0..count).for_each(|n| forward(&mut engine, template.of(n)));
                    spent += start.elapsed();
                    left -= u64::from(count);
                }
                spent
            });
        });
    }
}

/// A SYN of a flood from random sources: it opens a flow and ends another, or is refused.
fn flood(c: &mut Criterion) {
    let mut group = c.benchmark_group("flood");
    let cases = [
        ("table-full", 100_000, "", Verdict::Forward),
        ("service-full", 2_000_000, "max-flows = 100_000", Verdict::Forward),
        ("client-limit", 100_000, "new-flows-per-client = \"100/s\"", Verdict::Forward),
        ("service-rate", 100_000, "new-flows = \"1/h\"", Verdict::Drop(DropReason::ServiceRate)),
    ];
    for (name, max_flows, limits, verdict) in cases {
        let (_shared, mut engine) = engine_with(max_flows, limits);
        let mut syn = Template::tcp(TcpFlags::SYN, 100, 0);
        let mut strangers = 0..;
        let mut next = move || strangers.next().expect("enough of them");
        for _ in 0..200_000 {
            let _filled = handle(&mut engine, syn.of(next()));
        }
        group.bench_function(name, |b| b.iter(|| assert_eq!(handle(&mut engine, syn.of(next())), verdict)));
    }
}

criterion_group!(benches, parse, established, new_flow, flood);
criterion_main!(benches);
