//! A gateway of some workers, its clients and backends, and a clock that the test moves.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tungate::config::{self, BackendId, ServiceId};
use tungate::engine::conntrack::State;
use tungate::engine::counters::Shortage;
use tungate::engine::{DropReason, Engine, Instant, NoTrace, Shared, Verdict, WorkerId, steering};
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Address, Endpoint, Offload, Packet, TcpFlags};

/// The TCP and the UDP service of [`config`].
pub(crate) const WEB: Endpoint = Endpoint { address: Address::v4([192, 0, 2, 10]), port: 80 };
pub(crate) const DNS: Endpoint = Endpoint { address: Address::v4([192, 0, 2, 10]), port: 53 };

/// Two services with two backends each, and this much room in the table.
pub(crate) fn config(max_flows: u32) -> String {
    format!(
        r#"
        [gateway]
        source-addresses = ["10.99.0.10", "10.99.0.11"]
        max-flows = {max_flows}
        [[service]]
        name = "web"
        listen = "192.0.2.10:80"
        backends = [{{ address = "10.0.0.1:8080" }}, {{ address = "10.0.0.2:8080" }}]
        [[service]]
        name = "dns"
        listen = "192.0.2.10:53"
        protocol = "udp"
        backends = [{{ address = "10.0.0.3:53" }}, {{ address = "10.0.0.4:53" }}]
        "#
    )
}

/// The same, with these limits for the TCP service.
pub(crate) fn limited(max_flows: u32, limits: &str) -> String {
    let config = config(max_flows);
    let (web, dns) = config.rsplit_once("[[service]]").unwrap();
    format!("{web}[service.limits]\n{limits}\n[[service]]{dns}")
}

const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
/// First sequence numbers of clients and of backends.
const CLIENT_ISN: u32 = 1_000;
const BACKEND_ISN: u32 = 900_000;

pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    engines: Vec<Engine>,
    pub(crate) now: Instant,
    chance: u64,
}

/// What a backend sees of a flow: who it comes from, and where it went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flow {
    pub(crate) client: Endpoint,
    pub(crate) vip: Endpoint,
    pub(crate) source: Endpoint,
    pub(crate) backend: Endpoint,
}

impl World {
    pub(crate) fn new(config: &str, workers: u16) -> Self {
        let snapshot = config::load(config, "test.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
        let shared = Shared::new(snapshot, workers, 7);
        let now = Instant::from_micros(1_000_000_000);
        let engines = (0..workers).map(|n| Engine::new(&shared, WorkerId(n), now)).collect();
        Self { shared, engines, now, chance: 1 }
    }

    /// Time passes, and flows whose time is over are forgotten.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        for engine in &mut self.engines {
            while engine.handle_timeout(self.now) {}
        }
    }

    /// Takes a packet to a worker, and from there to its owner: what leaves, or why nothing does.
    pub(crate) fn send(&mut self, mut bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
        let mut worker = 0;
        loop {
            let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
            let verdict = self.engines[worker].handle(&mut packet, self.now, &mut NoTrace);
            if let Verdict::Handoff(owner) = verdict {
                worker = usize::from(owner.0);
                continue;
            }
            let sent = packet.bytes().to_vec();
            self.engines[worker].outbox().for_each(drop);
            return (verdict, sent);
        }
    }

    /// A client's first packet: the flow it opens, or why it opens none.
    fn open(&mut self, client: Endpoint, vip: Endpoint, packet: Vec<u8>) -> Result<Flow, Verdict> {
        match self.send(packet) {
            (Verdict::Forward, mut sent) => {
                let sent = Packet::parse(&mut sent, Offload::default()).unwrap();
                let (source, backend) = sent.endpoints().unwrap();
                Ok(Flow { client, vip, source, backend })
            }
            (refusal, _) => Err(refusal),
        }
    }

    pub(crate) fn syn(&mut self, client: Endpoint, vip: Endpoint) -> Result<Flow, Verdict> {
        self.open(client, vip, build::tcp(client, vip, &segment(TcpFlags::SYN, CLIENT_ISN, 0)))
    }

    pub(crate) fn datagram(&mut self, client: Endpoint, vip: Endpoint) -> Result<Flow, Verdict> {
        self.open(client, vip, build::udp(client, vip, b"question"))
    }

    pub(crate) fn syn_ack(&mut self, flow: &Flow) -> Verdict {
        let answer = segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1);
        self.send(build::tcp(flow.backend, flow.source, &answer)).0
    }

    /// The client's last packet of the handshake, or any later one.
    pub(crate) fn ack(&mut self, flow: &Flow) -> Verdict {
        self.acknowledge(flow, 0)
    }

    /// The same, but this far beyond what it should acknowledge.
    pub(crate) fn acknowledge(&mut self, flow: &Flow, beyond: u32) -> Verdict {
        let ack = segment(TcpFlags::ACK, CLIENT_ISN + 1, (BACKEND_ISN + 1).wrapping_add(beyond));
        self.send(build::tcp(flow.client, flow.vip, &ack)).0
    }

    /// Both sides close: TIME-WAIT.
    pub(crate) fn close(&mut self, flow: &Flow) {
        assert_eq!(self.try_close(flow), [Verdict::Forward; 3]);
    }

    pub(crate) fn try_close(&mut self, flow: &Flow) -> [Verdict; 3] {
        let fin = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
        let there = |flags, n| build::tcp(flow.client, flow.vip, &segment(flags, CLIENT_ISN + n, BACKEND_ISN + n));
        let back = build::tcp(flow.backend, flow.source, &segment(fin, BACKEND_ISN + 1, CLIENT_ISN + 2));
        [there(fin, 1), back, there(TcpFlags::ACK, 2)].map(|packet| self.send(packet).0)
    }

    pub(crate) fn udp_answer(&mut self, flow: &Flow) -> Verdict {
        self.send(build::udp(flow.backend, flow.source, b"answer")).0
    }

    /// A whole handshake at once.
    pub(crate) fn connect(&mut self, client: Endpoint, vip: Endpoint) -> Result<Flow, Verdict> {
        let flow = self.syn(client, vip)?;
        assert_eq!(self.syn_ack(&flow), Verdict::Forward);
        assert_eq!(self.ack(&flow), Verdict::Forward);
        Ok(flow)
    }

    /// A client that nobody has seen before, as those of a flood are.
    pub(crate) fn stranger(&mut self) -> Endpoint {
        // SplitMix64.
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [a, b, c, d, e, ..] = (z ^ (z >> 31)).to_be_bytes();
        Endpoint::new(Address::v4([20 + a % 100, b, c, d]), 1_024 + u16::from(e) * 200 + u16::from(a))
    }

    /// One whose flows are this worker's: the hash that steers is no secret.
    pub(crate) fn stranger_of(&mut self, worker: u16) -> Endpoint {
        loop {
            let stranger = self.stranger();
            if steering::owner(stranger, self.shared.workers).0 == worker {
                return stranger;
            }
        }
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.shared.counters.sum(|worker| worker.drops(reason))
    }

    pub(crate) fn evicted(&self, shortage: Shortage) -> u64 {
        self.shared.counters.sum(|worker| worker.evicted(shortage))
    }

    fn id(&self, service: &str) -> ServiceId {
        self.shared.policy.load().snapshot.find_service(service).unwrap()
    }

    pub(crate) fn refused(&self, service: &str) -> u64 {
        let id = self.id(service);
        self.shared.counters.sum(|worker| &worker.service(id).refused)
    }

    pub(crate) fn opened(&self, service: &str) -> u64 {
        let id = self.id(service);
        self.shared.counters.sum(|worker| &worker.service(id).opened)
    }

    /// Flows of the service now.
    pub(crate) fn open_flows(&self, service: &str) -> u64 {
        let id = self.id(service);
        self.opened(service) - self.shared.counters.sum(|worker| &worker.service(id).closed)
    }

    /// Source ports that are lent.
    pub(crate) fn leases(&self) -> u32 {
        self.engines.iter().flat_map(|engine| engine.ports().in_use()).map(|(_, _, leases)| leases).sum()
    }

    /// Flows of all backends as the schedulers see them.
    pub(crate) fn loads(&self) -> u32 {
        let backends = u16::try_from(self.shared.policy.load().snapshot.backends.len()).unwrap();
        (0..backends).map(|n| self.shared.loads.get(BackendId(n))).sum()
    }

    /// Whether any worker waits for a flow's time to be over.
    pub(crate) fn will_look_again(&self) -> bool {
        self.engines.iter().any(|engine| engine.poll_timeout().is_some())
    }

    /// Flows in this state.
    pub(crate) fn count(&self, state: State) -> usize {
        let mut count = 0;
        self.shared.table.for_each(|flow| count += usize::from(flow.state() == state));
        count
    }
}

/// A client of the real ones, by number.
pub(crate) fn client(n: u32) -> Endpoint {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + n / 10);
    Endpoint::new(Address::v4(address.octets()), 40_000 + u16::try_from(n % 10).unwrap())
}

pub(crate) fn segment(flags: TcpFlags, seq: u32, ack: u32) -> Tcp<'static> {
    Tcp { seq, ack, flags, window: 64_000, ..Tcp::default() }
}
