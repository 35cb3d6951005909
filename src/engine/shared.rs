//! What all workers of a gateway share.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Instant;
use super::conntrack::{FlowRef, Table};
use super::counters::Counters;
use super::failures::Failures;
use super::guard::Limits;
use super::heard::Heard;
use super::policy::Policy;
use super::scheduler::Loads;
use crate::config::{BackendId, ServiceId, Snapshot};

/// The flow table, the counters and the configuration in force. One for a gateway, behind an [`Arc`].
#[derive(Debug)]
pub struct Shared {
    /// All flows.
    pub table: Table,
    /// All counters.
    pub counters: Counters,
    /// Live flows of each backend.
    pub loads: Loads,
    /// What the services have taken of their limits.
    pub(super) limits: Limits,
    /// What flows tell of their backends.
    pub failures: Failures,
    /// What health checks hear.
    pub heard: Heard,
    /// What new flows are decided by.
    pub policy: ArcSwap<Policy>,
    /// Makes hashes unpredictable; a capture replayed with the same seed comes out the same.
    pub seed: u64,
    /// Number of workers.
    pub workers: u16,
}

impl Shared {
    /// An empty gateway.
    pub fn new(snapshot: Snapshot, workers: u16, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            table: Table::new(snapshot.gateway.max_flows, seed),
            counters: Counters::new(usize::from(workers)),
            loads: Loads::new(),
            limits: Limits::new(seed ^ 3),
            failures: Failures::default(),
            heard: Heard::default(),
            policy: ArcSwap::from_pointee(Policy::new(Arc::new(snapshot))),
            seed,
            workers,
        })
    }

    /// A gateway of one worker, on which anything may be tried: the same configuration, seed, loads and limits as now, and of
    /// the flows a copy of this one. All ports are free there, and schedulers that take turns begin with the first.
    #[must_use]
    pub fn rehearsal(&self, flow: Option<&FlowRef>) -> Arc<Self> {
        let policy = self.policy.load();
        let table = Table::new(policy.snapshot.gateway.max_flows, self.seed);
        if let Some(flow) = flow {
            let copy = table.copy(flow).expect("the table is empty");
            table.commit(&copy).expect("the table is empty");
        }
        Arc::new(Self {
            table,
            counters: Counters::new(1),
            loads: self.loads.clone(),
            limits: self.limits.clone(),
            failures: Failures::default(),
            heard: Heard::default(),
            policy: ArcSwap::from_pointee(policy.rehearsal()),
            seed: self.seed,
            workers: 1,
        })
    }

    /// How many clients a service remembers.
    pub fn affinity_clients(&self, service: ServiceId, now: Instant) -> u64 {
        let policy = self.policy.load();
        let config = policy.snapshot.service(service).affinity.as_ref();
        let affinity = config.and_then(|config| Some(policy.affinity(service)?.count(config, now)));
        affinity.unwrap_or(0) as u64
    }

    /// These ids are free: they will be given to others, whose counters begin at zero, and who have no clients and no
    /// failures yet. To be called when no flow has them, and no policy that a worker may still go by.
    pub fn forget(&self, services: impl IntoIterator<Item = ServiceId>, backends: impl IntoIterator<Item = BackendId>) {
        for id in services {
            self.counters.forget_service(id);
            self.limits.forget(id);
        }
        let backends: Vec<BackendId> = backends.into_iter().collect();
        for id in &backends {
            debug_assert_eq!(self.loads.get(*id), 0, "{id:?} has flows");
            self.counters.forget_backend(*id);
            self.failures.restart(*id, 0);
        }
        self.policy.load().affinities().for_each(|affinity| affinity.forget(&backends));
    }
}
