//! The gateway, and what becomes of packets.

use std::sync::Arc;
use std::time::Duration;

use tungate::engine::conntrack::FlowRef;
use tungate::engine::{NoTrace, Policy, Route, TraceSink, Verdict};
use tungate::wire::{Offload, Packet, tunnel};

use super::super::support::World;
use super::{Step, packets};

/// Configurations of one shape, as many services and backends in each, so that one may follow the other. The last is
/// never the first: filling a Maglev table takes longer than a whole tape.
const NAT: [&str; 4] =
    [include_str!("small.toml"), include_str!("large.toml"), include_str!("limits.toml"), include_str!("moved.toml")];

/// Configurations of another shape: direct server return, where there is always such a table.
const DSR: [&str; 2] = [include_str!("gre.toml"), include_str!("gue.toml")];

/// Configurations that come into force in one tape at most, since they take most of the time.
const MOST_ADOPTED: u8 = 3;

/// A packet that left.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) packet: Vec<u8>,
    /// The packet that came.
    pub(super) came: Vec<u8>,
}

pub(super) struct Gateway {
    world: World,
    configs: &'static [&'static str],
    traced: bool,
    adopted: u8,
    received: Vec<Vec<u8>>,
    sent: Vec<Sent>,
}

impl Gateway {
    pub(super) fn new(kind: u8, workers: u8) -> Self {
        let (configs, first): (&[&str], _) = match kind % 16 {
            n @ 0..12 => (&NAT, n % 3),
            n => (&DSR, n % 2),
        };
        let world = World::with_workers(configs[usize::from(first)], u16::from(workers % 3) + 1);
        Self { world, configs, traced: kind & 0x40 != 0, adopted: 0, received: Vec::new(), sent: Vec::new() }
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Wait { how_long } => {
                const MILLISECONDS: [u64; 10] =
                    [1, 100, 1_000, 6_000, 11_000, 31_000, 61_000, 130_000, 301_000, 8_000_000];
                self.wait(Duration::from_millis(MILLISECONDS[usize::from(*how_long) % MILLISECONDS.len()]));
            }
            Step::Adopt { which } => self.adopt(*which),
            Step::Kill { nth } => self.kill(*nth),
            Step::Queue { worker } => self.world.queue = usize::from(*worker) % self.world.engines.len(),
            Step::Client { .. }
            | Step::Answer { .. }
            | Step::Next { .. }
            | Step::Frame { .. }
            | Step::Readdressed { .. }
            | Step::Again { .. }
            | Step::Fragment { .. }
            | Step::IcmpError { .. }
            | Step::Echo { .. } => {
                if let Some((packet, offload)) = packets::of(step, &self.received, &self.sent) {
                    self.receive(packet, offload);
                }
            }
        }
    }

    /// What holds after every step.
    pub(super) fn check(&self) {
        self.world.check_invariants();
    }

    /// A week later nothing of all that is left.
    pub(super) fn end(&mut self) {
        self.wait(Duration::from_secs(7 * 86_400));
        self.check();
        assert!(self.world.shared.table.is_empty(), "every flow is forgotten in time");
        for engine in &self.world.engines {
            assert_eq!(engine.ports().in_use().count(), 0);
            assert_eq!(engine.poll_timeout(), None, "nothing is waited for");
        }
    }

    pub(super) fn into_sent(self) -> Vec<Vec<u8>> {
        self.sent.into_iter().map(|sent| sent.packet).collect()
    }

    fn wait(&mut self, time: Duration) {
        self.world.wait_for(time);
        for engine in &self.world.engines {
            assert!(engine.poll_timeout().is_none_or(|at| at > self.world.now), "what was due is done");
        }
    }

    /// One of the configurations, the one in force once more, or that of a gateway which is about to stop.
    fn adopt(&mut self, which: u8) {
        if self.adopted == MOST_ADOPTED {
            return;
        }
        self.adopted += 1;
        match (usize::from(which % 6), self.world.shared.policy.load_full()) {
            (4, current) => self.put_in_force(current.closed()),
            (5, current) => self.put_in_force(Policy::new(Arc::clone(&current.snapshot))),
            (n, _) => self.world.reload(self.configs[n % self.configs.len()]),
        }
    }

    fn put_in_force(&mut self, policy: Policy) {
        self.world.shared.policy.store(Arc::new(policy));
        self.world.engines.iter_mut().for_each(tungate::engine::Engine::adopt);
    }

    fn kill(&mut self, nth: u8) {
        let mut flows: Vec<FlowRef> = Vec::new();
        self.world.shared.table.for_each(|flow| flows.push(flow.hold()));
        if let Some(n) = usize::from(nth).checked_rem(flows.len()) {
            let now = self.world.now;
            self.world.engines[usize::from(flows[n].owner().0)].close(&flows[n], now);
        }
    }

    /// A packet goes from worker to worker until one decides about it.
    fn receive(&mut self, mut bytes: Vec<u8>, mut offload: Offload) {
        let came = bytes.clone();
        self.received.push(came.clone());
        let mut worker = self.world.queue;
        for _ in 0..=self.world.engines.len() {
            let engine = &mut self.world.engines[worker];
            engine.foresee([&bytes[..]; 4].into_iter(), |_| ());
            let mut packet = match Packet::parse(&mut bytes, offload) {
                Ok(packet) => packet,
                Err(malformed) => {
                    let verdict = engine.malformed(malformed, &bytes, self.world.now);
                    assert!(matches!(verdict, Verdict::Drop(_) | Verdict::Reply));
                    let own: Vec<Vec<u8>> = engine.outbox().map(|outgoing| outgoing.packet).collect();
                    assert_eq!(own.len(), usize::from(verdict == Verdict::Reply));
                    return self.leave(&came, own);
                }
            };
            let before = Before::of(&packet);
            let verdict = if self.traced {
                engine.handle(&mut packet, self.world.now, &mut Reader)
            } else {
                engine.handle(&mut packet, self.world.now, &mut NoTrace)
            };
            let own: Vec<Vec<u8>> = engine.outbox().map(|outgoing| outgoing.packet).collect();
            if let Verdict::Handoff(owner) = verdict {
                assert_ne!(usize::from(owner.0), worker, "handed over to itself");
                assert_eq!(packet.bytes(), before.bytes, "handed over as it is");
                assert_eq!(own.len(), 0);
                offload = *packet.offload();
                worker = usize::from(owner.0);
                continue;
            }
            before.check(verdict, &packet, &own);
            let forwarded = if verdict == Verdict::Forward { tunnel::leaving(&mut packet) } else { Vec::new() };
            return self.leave(&came, forwarded.into_iter().chain(own));
        }
        panic!("the workers hand the packet round for ever");
    }

    /// These leave because of the packet that came.
    fn leave(&mut self, came: &[u8], packets: impl IntoIterator<Item = Vec<u8>>) {
        for packet in packets {
            let (_, destination) = Packet::parse(&mut packet.clone(), Offload::default())
                .map_or_else(|malformed| panic!("{malformed:?}: {packet:02x?}"), |packet| packet.addresses());
            assert!(!self.world.shared.policy.load().snapshot.listeners.is_vip(destination), "a loop");
            self.sent.push(Sent { packet, came: came.to_vec() });
        }
    }
}

/// A packet as it came.
struct Before {
    bytes: Vec<u8>,
    ttl: u8,
    right: bool,
}

impl Before {
    fn of(packet: &Packet<'_>) -> Self {
        Self { bytes: packet.bytes().to_vec(), ttl: packet.ttl(), right: packet.transport_checksum_ok() }
    }

    fn check(&self, verdict: Verdict, packet: &Packet<'_>, own: &[Vec<u8>]) {
        match verdict {
            Verdict::Forward => {
                assert_eq!(packet.bytes().len(), self.bytes.len());
                assert_eq!(packet.ttl(), self.ttl - 1);
                assert_eq!(packet.transport_checksum_ok(), self.right, "a checksum is as right as it was");
                assert!(own.is_empty() || packet.fragment().is_some(), "only fragments take others along");
            }
            Verdict::Reply => assert_eq!(own.len(), 1),
            Verdict::Consume | Verdict::Drop(_) => assert_eq!(own.len(), 0),
            Verdict::Handoff(_) => unreachable!("followed before"),
        }
        for packet in own {
            let mut packet = packet.clone();
            let packet = Packet::parse(&mut packet, Offload::default()).expect("what leaves is sound");
            assert!(packet.transport_checksum_ok() && packet.ttl() > 0);
        }
    }
}

/// Reads every stage.
struct Reader;

impl TraceSink for Reader {
    const ENABLED: bool = true;

    fn stage(&mut self, stage: &'static str, text: impl FnOnce() -> String) {
        assert!(!stage.is_empty() && !text().is_empty());
    }

    fn route(&mut self, _: Route) {}
}
