//! What all workers of a gateway share.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::conntrack::{Flow, Table};
use super::counters::Counters;
use super::guard::Limits;
use super::scheduler::{self, Candidate, Loads, Scheduler};
use crate::config::{ServiceId, Snapshot};
use crate::wire::Family;

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
        let (services, backends) = (snapshot.services.len(), snapshot.backends.len());
        Arc::new(Self {
            table: Table::new(snapshot.gateway.max_flows, seed),
            counters: Counters::new(usize::from(workers), services, backends),
            loads: Loads::new(backends),
            limits: Limits::new(services, seed ^ 3),
            policy: ArcSwap::from_pointee(Policy::new(Arc::new(snapshot))),
            seed,
            workers,
        })
    }

    /// A gateway of one worker, on which anything may be tried: the same configuration, seed, loads and limits as now, and of
    /// the flows a copy of this one. All ports are free there, and schedulers that take turns begin with the first.
    #[must_use]
    pub fn rehearsal(&self, flow: Option<&Arc<Flow>>) -> Arc<Self> {
        let policy = self.policy.load();
        let snapshot = Arc::clone(&policy.snapshot);
        let (services, backends) = (snapshot.services.len(), snapshot.backends.len());
        let table = Table::new(snapshot.gateway.max_flows, self.seed);
        if let Some(flow) = flow {
            table.commit(&Arc::new(flow.rehearsed())).expect("the table is empty");
        }
        Arc::new(Self {
            table,
            counters: Counters::new(1, services, backends),
            loads: self.loads.clone(),
            limits: self.limits.clone(),
            policy: ArcSwap::from_pointee(if policy.is_closed() { policy.closed() } else { Policy::new(snapshot) }),
            seed: self.seed,
            workers: 1,
        })
    }
}

/// A snapshot with its schedulers, built once, away from the workers.
#[derive(Debug)]
pub struct Policy {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    intake: Intake,
}

/// Whether new flows are taken.
#[derive(Debug)]
enum Intake {
    /// They are, and go where these say: a scheduler for each service and family.
    Open(Vec<[Box<dyn Scheduler>; 2]>),
    /// None is.
    Closed,
}

impl Policy {
    /// Builds the schedulers of a snapshot. A service that listens in both families has one for each: a flow never
    /// changes its family.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let of_family = |id: ServiceId, v4: bool| {
            let backends = snapshot.backends_of(id).filter(|(_, backend)| backend.address.is_v4() == v4);
            let (backup, main): (Vec<_>, Vec<_>) = backends.partition(|(_, backend)| backend.backup);
            let takes = |group: &[(_, &crate::config::Backend)]| group.iter().any(|(_, b)| b.weight > 0);
            let group = if takes(&main) { main } else { backup };
            let candidates: Vec<_> = group.into_iter().map(|(id, backend)| Candidate::new(id, backend)).collect();
            scheduler::build(snapshot.service(id).balance, &candidates)
        };
        let ids = (0..snapshot.services.len()).map(|n| ServiceId(u16::try_from(n).expect("checked by config")));
        let schedulers = ids.map(|id| [of_family(id, true), of_family(id, false)]).collect();
        Self { intake: Intake::Open(schedulers), snapshot }
    }

    /// The same configuration, but no new flow is taken: for a gateway that is about to stop.
    #[must_use]
    pub fn closed(&self) -> Self {
        Self { intake: Intake::Closed, snapshot: Arc::clone(&self.snapshot) }
    }

    /// Whether no new flow is taken.
    pub const fn is_closed(&self) -> bool {
        matches!(self.intake, Intake::Closed)
    }

    /// The scheduler for flows of this family; `None` if no new ones are taken.
    pub fn scheduler(&self, service: ServiceId, family: Family) -> Option<&dyn Scheduler> {
        let Intake::Open(schedulers) = &self.intake else { return None };
        let [v4, v6] = &schedulers[usize::from(service.0)];
        Some(match family {
            Family::V4 => &**v4,
            Family::V6 => &**v6,
        })
    }
}
