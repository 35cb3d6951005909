//! The gateway: its engines, which hand packets over to each other, and what they count.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tungate::config::{self, ServiceId};
use tungate::engine::conntrack::{Direction, FlowKey, FlowRef, State};
use tungate::engine::counters::{Counter, Shortage, WorkerCounters};
use tungate::engine::{DropReason, Engine, Instant, NoTrace, Policy, Shared, Verdict, WorkerId};
use tungate::wire::{Endpoint, Offload, Packet, Protocol, tunnel};

use super::Outcome;

/// A gateway and a clock.
pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engines: Vec<Engine>,
    pub(crate) now: Instant,
    /// The worker whose queue the next packets come to.
    pub(crate) queue: usize,
}

impl World {
    /// With one worker.
    pub(crate) fn new(config: &str) -> Self {
        Self::with_workers(config, 1)
    }

    pub(crate) fn with_workers(config: &str, workers: u16) -> Self {
        let snapshot = config::load(config, "test.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
        let shared = Shared::new(snapshot, workers, 7);
        let now = Instant::from_micros(1_000_000_000);
        let engines = (0..workers).map(|n| Engine::new(&shared, WorkerId(n), now)).collect();
        Self { shared, engines, now, queue: 0 }
    }

    /// Another configuration, from the next packet on.
    pub(crate) fn reload(&mut self, config: &str) {
        let policy = self.shared.policy.load_full();
        let snapshot = config::load(config, "test.toml", Some(&policy.snapshot), "gw");
        let snapshot = Arc::new(snapshot.unwrap_or_else(|report| panic!("{report}")));
        self.shared.policy.store(Arc::new(Policy::build(snapshot, |backend| backend.weight, Some(&policy))));
        self.engines.iter_mut().for_each(Engine::adopt);
    }

    /// Seconds pass, and what is over is forgotten.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.wait_for(Duration::from_secs(seconds));
    }

    pub(crate) fn wait_for(&mut self, time: Duration) {
        self.now = self.now + time;
        for engine in &mut self.engines {
            while engine.handle_timeout(self.now) {}
        }
    }

    /// A packet arrives, and goes from worker to worker until one decides about it.
    pub(crate) fn receives(&mut self, bytes: Vec<u8>) -> Outcome {
        self.receives_offloaded(bytes, Offload::default())
    }

    /// The same for a super-packet, or one whose checksum is partial.
    pub(crate) fn receives_offloaded(&mut self, mut bytes: Vec<u8>, offload: Offload) -> Outcome {
        let mut worker = self.queue;
        for _ in 0..=self.engines.len() {
            let engine = &mut self.engines[worker];
            let (verdict, leaving) = match Packet::parse(&mut bytes, offload) {
                Ok(mut packet) => {
                    let verdict = engine.handle(&mut packet, self.now, &mut NoTrace);
                    (verdict, if verdict == Verdict::Forward { tunnel::leaving(&mut packet) } else { Vec::new() })
                }
                Err(malformed) => (engine.malformed(malformed, &bytes, self.now), Vec::new()),
            };
            if let Verdict::Handoff(owner) = verdict {
                assert_ne!(usize::from(owner.0), worker, "handed over to itself");
                assert!(!engine.has_mail());
                worker = usize::from(owner.0);
                continue;
            }
            let own = engine.outbox().map(|outgoing| outgoing.packet).collect();
            return Outcome::new(verdict, leaving, own);
        }
        panic!("the workers hand the packet round for ever");
    }

    /// The flow of packets with these ends.
    pub(crate) fn flow(&self, source: Endpoint, destination: Endpoint, protocol: Protocol) -> Option<FlowRef> {
        self.shared.table.find(&FlowKey { source, destination, protocol }).map(|(flow, _)| flow)
    }

    /// State of each flow.
    pub(crate) fn states(&self) -> Vec<State> {
        let mut states = Vec::new();
        self.shared.table.for_each(|flow| states.push(flow.state()));
        states
    }

    pub(crate) fn service(&self, name: &str) -> ServiceId {
        self.shared.policy.load().snapshot.find_service(name).unwrap()
    }

    /// All counters that are not zero, of all workers together; of services, of all services together.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        let mut add = |name: &str, counter: &Counter| *all.entry(name.into()).or_default() += counter.get();
        let snapshot = Arc::clone(&self.shared.policy.load().snapshot);
        for worker in self.shared.counters.workers() {
            add("received", &worker.received.packets);
            for (name, counter) in verdicts(worker) {
                add(name, counter);
            }
            for reason in DropReason::ALL {
                add(&format!("drop {}", reason.name()), worker.drops(*reason));
            }
            for shortage in Shortage::ALL {
                add(&format!("evicted {}", shortage.reason().name()), worker.evicted(shortage));
            }
            for id in snapshot.all_services().map(|service| service.id) {
                let service = worker.service(id);
                add("opened", &service.opened);
                add("closed", &service.closed);
                add("refused", &service.refused);
            }
        }
        all.retain(|_, count| *count > 0);
        all
    }

    /// What always holds (the invariants in the crate's documentation).
    pub(crate) fn check_invariants(&self) {
        for worker in self.shared.counters.workers() {
            let dropped: u64 = DropReason::ALL.iter().map(|reason| worker.drops(*reason).get()).sum();
            let decided: u64 = verdicts(worker).map(|(_, counter)| counter.get()).iter().sum();
            assert_eq!(worker.received.packets.get(), decided + dropped, "every packet counts once");
        }
        let mut flows = Vec::new();
        self.shared.table.for_each(|flow| flows.push(flow.hold()));
        let (mut leases, mut loads) = (HashMap::new(), HashMap::new());
        for flow in &flows {
            *loads.entry(flow.backend()).or_insert(0) += 1;
            if flow.is_leased() {
                let to = flow.key(Direction::Reply);
                *leases.entry((flow.owner(), to.source, to.protocol)).or_insert(0) += 1;
            }
            for direction in [Direction::Original, Direction::Reply] {
                let found = self.shared.table.find(&flow.key(direction)).expect("under both keys");
                assert_eq!(found, (flow.clone(), direction));
            }
        }
        assert_eq!(self.shared.table.len() as usize, flows.len());
        assert!(self.shared.table.len() <= self.shared.table.capacity(), "max-flows is never exceeded");
        let mut lent = HashMap::new();
        for (worker, engine) in (0..).map(WorkerId).zip(&self.engines) {
            for (backend, protocol, count) in engine.ports().in_use() {
                *lent.entry((worker, backend, protocol)).or_insert(0) += count;
            }
        }
        assert_eq!(lent, leases, "a lease lives exactly as long as its flow");
        for id in self.shared.policy.load().snapshot.all_backends().map(|backend| backend.id) {
            assert_eq!(self.shared.loads.get(id), loads.get(&id).copied().unwrap_or(0), "loads are those of the flows");
        }
    }
}

fn verdicts(worker: &WorkerCounters) -> [(&'static str, &Counter); 4] {
    [
        ("forwarded", &worker.forwarded),
        ("replied", &worker.replied),
        ("consumed", &worker.consumed),
        ("handed-over", &worker.handed_over),
    ]
}
