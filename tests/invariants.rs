//! What holds of the engine whatever comes in (the invariants in the crate's documentation).

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tungate::config;
use tungate::engine::conntrack::Direction;
use tungate::engine::{DropReason, Engine, Instant, NoTrace, Shared, Verdict, WorkerId};
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Endpoint, Offload, Packet, TcpFlags};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
max-flows = 6

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.1:8080" }, { address = "10.0.0.2:8080" }, { address = "[fd00::1]:8080" }]

[[service]]
name = "dns"
protocol = "udp"
listen = "192.0.2.10:53"
source-nat = false
backends = [{ address = "10.0.0.1:53" }, { address = "10.0.0.2:53" }]

[[service]]
name = "tunnels"
listen = ["192.0.2.11:*", "[2001:db8::11]:*"]
protocol = "any"
mode = "dsr"
balance = "least-connections"
backends = [{ address = "10.0.0.3" }, { address = "fd00::3" }]
"#;

fn at(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

struct World {
    shared: Arc<Shared>,
    engine: Engine,
    now: Instant,
    sent: Vec<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let shared = Shared::new(config::load(CONFIG, "test.toml", None, "gw").unwrap(), 1, 7);
        let now = Instant::from_micros(1_000_000_000);
        Self { engine: Engine::new(&shared, WorkerId(0), now), shared, now, sent: Vec::new() }
    }

    fn receive(&mut self, mut bytes: Vec<u8>) {
        match Packet::parse(&mut bytes, Offload::default()) {
            Ok(mut packet) => {
                if self.engine.handle(&mut packet, self.now, &mut NoTrace) == Verdict::Forward {
                    self.sent.push(packet.bytes().to_vec());
                }
            }
            Err(malformed) => {
                let _counted = self.engine.malformed(malformed, &bytes, self.now);
            }
        }
        self.sent.extend(self.engine.outbox().map(|outgoing| outgoing.packet));
    }

    fn check(&self) {
        let counters = self.shared.counters.workers().next().unwrap();
        let dropped: u64 = DropReason::ALL.iter().map(|reason| counters.drops(*reason).get()).sum();
        let known = [&counters.forwarded, &counters.replied, &counters.consumed, &counters.handed_over];
        let accounted: u64 = known.iter().map(|counter| counter.get()).sum::<u64>() + dropped;
        assert_eq!(counters.received.packets.get(), accounted, "every packet counts once");

        let mut flows = Vec::new();
        self.shared.table.for_each(|flow| flows.push(flow.hold()));
        let mut leases: HashMap<Endpoint, u32> = HashMap::new();
        let mut loads: HashMap<u16, u32> = HashMap::new();
        for flow in &flows {
            let found = self.shared.table.find(&flow.key(Direction::Reply)).unwrap();
            assert_eq!(found, (flow.clone(), Direction::Reply), "under both keys");
            *loads.entry(flow.backend().0).or_default() += 1;
            if flow.is_leased() {
                *leases.entry(flow.key(Direction::Reply).source).or_default() += 1;
            }
        }
        assert_eq!(self.shared.table.len() as usize, flows.len());
        assert!(self.shared.table.len() <= self.shared.table.capacity());
        let leased: HashMap<Endpoint, u32> = self.engine.ports().in_use().map(|(backend, _, n)| (backend, n)).collect();
        assert_eq!(leased, leases, "a lease lives as long as its flow");
        for backend in 0..7 {
            let load = self.shared.loads.get(tungate::config::BackendId(backend));
            assert_eq!(load, loads.get(&backend).copied().unwrap_or(0), "load of backend {backend}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Tcp {
        client: u8,
        v6: bool,
        /// Last digit of the VIP: 0 for NAT, 1 for tunnels.
        vip: u8,
        flags: u8,
        seq: u32,
        ack: u32,
    },
    Udp {
        client: u8,
        vip: u8,
    },
    /// An answer to the nth packet that was sent.
    Answer {
        to: usize,
        flags: u8,
        seq: u32,
        ack: u32,
    },
    Garbage(Vec<u8>),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![0x02u8, 0x12, 0x10, 0x11, 0x04, 0x14, 0x18, 0x00, 0x03]);
    let number = prop::sample::select(vec![0u32, 1, 2, 1000, 1001, 5000, u32::MAX]);
    prop_oneof![
        4 => (0u8..12, any::<bool>(), 0u8..2, flags.clone(), number.clone(), number.clone())
            .prop_map(|(client, v6, vip, flags, seq, ack)| Step::Tcp { client, v6, vip, flags, seq, ack }),
        2 => (0u8..12, 0u8..2).prop_map(|(client, vip)| Step::Udp { client, vip }),
        4 => (any::<usize>(), flags, number.clone(), number)
            .prop_map(|(to, flags, seq, ack)| Step::Answer { to, flags, seq, ack }),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Step::Garbage),
        1 => prop::sample::select(vec![1u32, 11, 61, 130, 8000]).prop_map(Step::Wait),
    ]
}

impl World {
    fn take(&mut self, step: Step) {
        let segment = |flags: u8, seq, ack| Tcp { seq, ack, flags: TcpFlags(flags), window: 5000, ..Tcp::default() };
        match step {
            Step::Tcp { client, v6, vip, flags, seq, ack } => {
                let (from, to) = if v6 {
                    (format!("[2001:db8:1::{client:x}]:4000"), format!("[2001:db8::1{vip}]:80"))
                } else {
                    (format!("198.51.100.{client}:4000"), format!("192.0.2.1{vip}:80"))
                };
                self.receive(build::tcp(at(&from), at(&to), &segment(flags, seq, ack)));
            }
            Step::Udp { client, vip } => {
                let (from, to) = (format!("198.51.100.{client}:4000"), format!("192.0.2.1{vip}:53"));
                self.receive(build::udp(at(&from), at(&to), b"question"));
            }
            Step::Answer { to, flags, seq, ack } => {
                let Some(n) = to.checked_rem(self.sent.len()) else { return };
                let mut sent = self.sent[n].clone();
                let packet = Packet::parse(&mut sent, Offload::default()).unwrap();
                let Some((source, destination)) = packet.endpoints() else { return };
                let tcp = packet.tcp().is_some();
                self.receive(if tcp {
                    build::tcp(destination, source, &segment(flags, seq, ack))
                } else {
                    build::udp(destination, source, b"answer")
                });
            }
            Step::Garbage(bytes) => self.receive(bytes),
            Step::Wait(seconds) => {
                self.now = self.now + Duration::from_secs(seconds.into());
                while self.engine.handle_timeout(self.now) {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_books_balance_whatever_comes_in(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
        world.take(Step::Wait(30_000));
        world.check();
        prop_assert!(world.shared.table.is_empty(), "every flow is forgotten in time");
    }

    #[test]
    fn the_same_packets_make_the_same_packets(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut one, mut other) = (World::new(), World::new());
        for step in steps {
            one.take(step.clone());
            other.take(step);
        }
        prop_assert_eq!(one.sent, other.sent);
    }
}
