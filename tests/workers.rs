//! Several workers: wherever the kernel puts a packet, it finds its flow, and every flow has one owner to the end.
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tungate::config;
use tungate::engine::conntrack::Direction;
use tungate::engine::{DropReason, Engine, Instant, NoTrace, Shared, Verdict, WorkerId};
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Endpoint, Offload, Packet, TcpFlags, checksum};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10"]
max-flows = 8

[[service]]
name = "web"
listen = "192.0.2.10:80"
backends = [{ address = "10.0.0.1:8080" }, { address = "10.0.0.2:8080" }]

[[service]]
name = "dns"
protocol = "udp"
listen = "192.0.2.10:53"
backends = [{ address = "10.0.0.1:53" }]

[[service]]
name = "direct"
protocol = "udp"
listen = "192.0.2.11:53"
source-nat = false
backends = [{ address = "10.0.0.1:53" }]
"#;

const WORKERS: u16 = 3;

fn at(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn client(n: u8) -> Endpoint {
    at(&format!("198.51.100.{}:{}", 1 + n % 4, 4000 + u16::from(n / 4)))
}

/// The two fragments of a datagram of 24 bytes, the ports in the first.
fn halves(datagram: &[u8], id: u8) -> [Vec<u8>; 2] {
    let piece = |from: usize, to: usize, flags: [u8; 2]| {
        let mut packet = datagram[..20].to_vec();
        packet.extend(&datagram[20 + from..20 + to]);
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[4..6].copy_from_slice(&[0, id]);
        packet[6..8].copy_from_slice(&flags);
        packet[10..12].fill(0);
        let sum = !checksum::sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    [piece(0, 16, [0x20, 0]), piece(16, 24, [0, 2])]
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Tcp { client: u8, flags: u8 },
    Udp { client: u8, direct: bool },
    Fragments { client: u8, direct: bool, id: u8, order: bool },
    Answer { to: usize, flags: u8 },
    AnswerInFragments { to: usize, id: u8 },
    Kill { flow: usize },
    Later { seconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![0x02u8, 0x10, 0x11, 0x12, 0x04, 0x14]);
    prop_oneof![
        4 => (any::<u8>(), flags.clone()).prop_map(|(client, flags)| Step::Tcp { client: client % 16, flags }),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(client, direct)| Step::Udp { client: client % 16, direct }),
        4 => (any::<u8>(), any::<bool>(), any::<u8>(), any::<bool>())
            .prop_map(|(client, direct, id, order)| Step::Fragments { client: client % 16, direct, id: id % 8, order }),
        6 => (any::<usize>(), flags).prop_map(|(to, flags)| Step::Answer { to, flags }),
        3 => (any::<usize>(), any::<u8>()).prop_map(|(to, id)| Step::AnswerInFragments { to, id: id % 8 }),
        1 => any::<usize>().prop_map(|flow| Step::Kill { flow }),
        2 => (0u32..200).prop_map(|seconds| Step::Later { seconds }),
    ]
}

struct World {
    shared: Arc<Shared>,
    engines: Vec<Engine>,
    now: Instant,
    given: u64,
    sent: Vec<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let shared = Shared::new(config::load(CONFIG, "test.toml", None, "gw").unwrap(), WORKERS, 7);
        let now = Instant::from_micros(1_000_000_000);
        let engines = (0..WORKERS).map(|n| Engine::new(&shared, WorkerId(n), now)).collect();
        Self { shared, engines, now, given: 0, sent: Vec::new() }
    }

    /// The kernel puts a packet into the queue of this worker.
    fn receive(&mut self, queue: u16, bytes: Vec<u8>) {
        self.given += 1;
        let mut queues = VecDeque::from([(queue, bytes)]);
        let mut hops = 0;
        while let Some((worker, mut bytes)) = queues.pop_front() {
            let engine = &mut self.engines[usize::from(worker)];
            let before = bytes.clone();
            let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
            match engine.handle(&mut packet, self.now, &mut NoTrace) {
                Verdict::Forward => self.sent.push(packet.bytes().to_vec()),
                Verdict::Handoff(owner) => {
                    hops += 1;
                    assert!(owner.0 != worker && owner.0 < WORKERS && hops <= 2, "handed from {worker} to {owner:?}");
                    assert_eq!(packet.bytes(), before, "a packet is handed over as it is");
                    queues.push_back((owner.0, before));
                }
                Verdict::Reply | Verdict::Consume | Verdict::Drop(_) => {}
            }
            self.sent.extend(engine.outbox().map(|outgoing| outgoing.packet));
        }
    }

    fn take(&mut self, step: Step, queue: u16) {
        match step {
            Step::Tcp { client: n, flags } => {
                let segment = Tcp { flags: TcpFlags(flags), window: 1000, ..Tcp::default() };
                self.receive(queue, build::tcp(client(n), at("192.0.2.10:80"), &segment));
            }
            Step::Udp { client: n, direct } => self.receive(queue, build::udp(client(n), vip(direct), b"hello")),
            Step::Fragments { client: n, direct, id, order } => {
                let [first, second] = halves(&build::udp(client(n), vip(direct), &[7; 16]), id);
                let [one, other] = if order { [first, second] } else { [second, first] };
                self.receive(queue, one);
                self.receive((queue + 1) % WORKERS, other);
            }
            Step::Answer { to, flags } => {
                let Some((from, source, tcp)) = self.nth(to) else { return };
                let segment = Tcp { flags: TcpFlags(flags), ack: 1, window: 1000, ..Tcp::default() };
                let answer = if tcp { build::tcp(from, source, &segment) } else { build::udp(from, source, b"yes") };
                self.receive(queue, answer);
            }
            Step::AnswerInFragments { to, id } => {
                let Some((from, source, false)) = self.nth(to) else { return };
                for half in halves(&build::udp(from, source, &[9; 16]), id) {
                    self.receive(queue, half);
                }
            }
            Step::Kill { flow } => {
                let mut flows = Vec::new();
                self.shared.table.for_each(|flow| flows.push(flow.hold()));
                if !flows.is_empty() {
                    let flow = &flows[flow % flows.len()];
                    self.engines[usize::from(flow.owner().0)].close(flow, self.now);
                }
            }
            Step::Later { seconds } => {
                self.now = self.now + Duration::from_secs(seconds.into());
                let now = self.now;
                self.engines.iter_mut().for_each(|engine| while engine.handle_timeout(now) {});
            }
        }
    }

    /// Whom a packet that was sent went to, and from whom.
    fn nth(&self, n: usize) -> Option<(Endpoint, Endpoint, bool)> {
        let mut bytes = self.sent.get(n.checked_rem(self.sent.len())?)?.clone();
        let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        let (source, destination) = packet.endpoints()?;
        Some((destination, source, packet.tcp().is_some()))
    }

    fn check(&self) {
        let counters = &self.shared.counters;
        let drops: u64 = DropReason::ALL.iter().map(|reason| counters.sum(|w| w.drops(*reason))).sum();
        let ends =
            counters.sum(|w| &w.forwarded) + counters.sum(|w| &w.replied) + counters.sum(|w| &w.consumed) + drops;
        assert_eq!(ends, self.given, "every packet has one end");
        assert_eq!(counters.sum(|w| &w.received.packets), self.given + counters.sum(|w| &w.handed_over));

        let mut leases: HashMap<(u16, Endpoint), u32> = HashMap::new();
        let mut flows = Vec::new();
        self.shared.table.for_each(|flow| flows.push(flow.hold()));
        for flow in &flows {
            let found = self.shared.table.find(&flow.key(Direction::Reply)).unwrap();
            assert_eq!(found, (flow.clone(), Direction::Reply), "under both keys");
            if flow.is_leased() {
                *leases.entry((flow.owner().0, flow.key(Direction::Reply).source)).or_default() += 1;
            }
        }
        assert_eq!(self.shared.table.len() as usize, flows.len());
        let held: HashMap<(u16, Endpoint), u32> = (0..)
            .zip(&self.engines)
            .flat_map(|(n, engine)| engine.ports().in_use().map(move |(backend, _, ports)| ((n, backend), ports)))
            .collect();
        assert_eq!(held, leases, "a lease lives as long as its flow, with its owner");
    }
}

fn vip(direct: bool) -> Endpoint {
    at(if direct { "192.0.2.11:53" } else { "192.0.2.10:53" })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wherever_packets_arrive_each_has_one_end_and_each_flow_one_owner(
        steps in prop::collection::vec((step(), 0..WORKERS), 1..150),
    ) {
        let mut world = World::new();
        for (step, queue) in steps {
            world.take(step, queue);
            world.check();
        }
        world.take(Step::Later { seconds: 1_000_000 }, 0);
        world.check();
        prop_assert!(world.shared.table.is_empty());
        prop_assert!(world.engines.iter().all(|engine| engine.poll_timeout().is_none()), "nothing is left to wait for");
    }
}
