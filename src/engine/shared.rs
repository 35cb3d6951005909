//! What all workers of a gateway share.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::conntrack::{Flow, Table};
use super::counters::Counters;
use super::guard::Limits;
use super::path::Path;
use super::scheduler::{self, Candidate, Loads, Scheduler};
use crate::config::{Backend, BackendId, Balance, ServiceId, Snapshot};
use crate::wire::Family;
use crate::wire::tunnel::Tunnel;

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
        let (services, backends) = (policy.snapshot.services.len(), policy.snapshot.backends.len());
        let table = Table::new(policy.snapshot.gateway.max_flows, self.seed);
        if let Some(flow) = flow {
            table.commit(&Arc::new(flow.rehearsed())).expect("the table is empty");
        }
        Arc::new(Self {
            table,
            counters: Counters::new(1, services, backends),
            loads: self.loads.clone(),
            limits: self.limits.clone(),
            policy: ArcSwap::from_pointee(policy.rehearsal()),
            seed: self.seed,
            workers: 1,
        })
    }
}

/// A snapshot with its schedulers, built once, away from the workers (but see [`Shared::rehearsal`]).
#[derive(Debug)]
pub struct Policy {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    intake: Intake,
    /// Where each service's flows go. Empty in a rehearsal until they are asked for: to build those of a thousand services
    /// takes seconds, and one packet asks for one.
    schedulers: Arc<[OnceLock<Schedulers>]>,
    /// Of each backend, if it has a tunnel.
    paths: Vec<Option<Arc<Path>>>,
}

/// Whether new flows are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// They are.
    Open,
    /// None is.
    Closed,
}

/// The schedulers of one service.
#[derive(Debug)]
struct Schedulers {
    /// For IPv4 and IPv6.
    of_family: [Box<dyn Scheduler>; 2],
    /// If it is a DSR service and those are not by hash.
    by_hash: Option<Box<dyn Scheduler>>,
}

impl Policy {
    /// Builds the schedulers of a snapshot, and the paths to its backends. A service that listens in both families has a
    /// scheduler for each: a flow never changes its family. A tunnel of either carries both.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let path = |id| Some(Arc::new(Path::new(snapshot.tunnel(id)?, snapshot.gateway.mtu, id.0)));
        let paths = (0..number(snapshot.backends.len())).map(BackendId).map(path).collect();
        let this = Self { intake: Intake::Open, schedulers: Self::unbuilt(&snapshot), paths, snapshot };
        for id in (0..number(this.snapshot.services.len())).map(ServiceId) {
            this.schedulers(id);
        }
        this
    }

    /// The same for a rehearsal: schedulers are built when they are asked for, and nothing is shared that can change.
    fn rehearsal(&self) -> Self {
        let paths = self.paths.iter().map(|path| path.as_deref().map(|path| Arc::new(path.rehearsed()))).collect();
        let (snapshot, schedulers) = (Arc::clone(&self.snapshot), Self::unbuilt(&self.snapshot));
        Self { intake: self.intake, schedulers, paths, snapshot }
    }

    /// The same configuration, but no new flow is taken: for a gateway that is about to stop.
    #[must_use]
    pub fn closed(&self) -> Self {
        let (snapshot, schedulers) = (Arc::clone(&self.snapshot), Arc::clone(&self.schedulers));
        Self { intake: Intake::Closed, schedulers, paths: self.paths.clone(), snapshot }
    }

    /// The scheduler of a DSR service for packets of the middle of a flow that is not known (R53): by hash, so that all
    /// packets of that flow, on all gateways, go one way; even where no new flows are taken. `None` for other services.
    pub fn pick_up(&self, service: ServiceId) -> Option<&dyn Scheduler> {
        if !self.snapshot.service(service).is_tunnelled() {
            return None;
        }
        let schedulers = self.schedulers(service);
        Some(schedulers.by_hash.as_deref().unwrap_or_else(|| schedulers.of(Family::V4)))
    }

    /// The way to a backend, if it goes by a tunnel.
    pub fn path(&self, backend: BackendId) -> Option<&Arc<Path>> {
        self.paths[usize::from(backend.0)].as_ref()
    }

    /// All ways by this tunnel: services may share a backend.
    pub fn paths_by(&self, tunnel: &Tunnel) -> impl Iterator<Item = &Path> {
        self.paths.iter().flatten().map(|path| &**path).filter(move |path| path.tunnel() == tunnel)
    }

    /// Whether no new flow is taken.
    pub const fn is_closed(&self) -> bool {
        matches!(self.intake, Intake::Closed)
    }

    /// The scheduler for flows of this family; `None` if no new ones are taken.
    pub fn scheduler(&self, service: ServiceId, family: Family) -> Option<&dyn Scheduler> {
        (self.intake == Intake::Open).then(|| self.schedulers(service).of(family))
    }

    fn unbuilt(snapshot: &Snapshot) -> Arc<[OnceLock<Schedulers>]> {
        snapshot.services.iter().map(|_| OnceLock::new()).collect()
    }

    fn schedulers(&self, service: ServiceId) -> &Schedulers {
        self.schedulers[usize::from(service.0)].get_or_init(|| Schedulers::build(&self.snapshot, service))
    }
}

impl Schedulers {
    fn of(&self, family: Family) -> &dyn Scheduler {
        let [v4, v6] = &self.of_family;
        match family {
            Family::V4 => &**v4,
            Family::V6 => &**v6,
        }
    }

    fn build(snapshot: &Snapshot, id: ServiceId) -> Self {
        let service = snapshot.service(id);
        let candidates = |v4: bool| {
            let backends = snapshot.backends_of(id).filter(|(_, b)| service.is_tunnelled() || b.address.is_v4() == v4);
            let (backup, main): (Vec<_>, Vec<_>) = backends.partition(|(_, backend)| backend.backup);
            let takes = |group: &[(_, &Backend)]| group.iter().any(|(_, b)| b.weight > 0);
            let group = if takes(&main) { main } else { backup };
            group.into_iter().map(|(id, backend)| Candidate::new(id, backend)).collect::<Vec<_>>()
        };
        let lacks_hash = service.is_tunnelled() && !matches!(service.balance, Balance::Maglev | Balance::SourceHash);
        Self {
            of_family: [true, false].map(|v4| scheduler::build(service.balance, &candidates(v4))),
            by_hash: lacks_hash.then(|| scheduler::build(Balance::Maglev, &candidates(true))),
        }
    }
}

fn number(count: usize) -> u16 {
    u16::try_from(count).expect("checked by config")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Instant;

    /// The control thread waits for it.
    #[test]
    fn a_rehearsal_builds_the_schedulers_that_it_asks_for() {
        let service = |name: &str, port| {
            format!(
                "[[service]]\nname = '{name}'\nlisten = '192.0.2.1:{port}'\nsource-nat = false\nbackends = [{{ address = '10.0.0.1' }}]\n"
            )
        };
        let text = service("web", 80) + &service("dns", 53);
        let shared = Shared::new(crate::config::load(&text, "test.toml", 0, "host").unwrap(), 1, 7);
        let built = |shared: &Shared| {
            let policy = shared.policy.load();
            policy.schedulers.iter().map(|one| one.get().is_some()).collect::<Vec<_>>()
        };
        assert_eq!(built(&shared), [true, true], "workers never wait for it");
        let rehearsal = shared.rehearsal(None);
        assert!(rehearsal.policy.load().scheduler(ServiceId(1), Family::V4).is_some());
        assert_eq!(built(&rehearsal), [false, true]);
    }

    /// An ICMP error may be explained, too.
    #[test]
    fn a_rehearsal_knows_the_path_mtu_and_teaches_the_gateway_none() {
        let text = "[gateway]\nsource-addresses = ['10.99.0.10']\n[[service]]\nname = 'web'\nmode = 'dsr'\n\
                    listen = '192.0.2.1:80'\nbackends = [{ address = '10.0.0.1' }]\n";
        let shared = Shared::new(crate::config::load(text, "test.toml", 0, "host").unwrap(), 1, 7);
        let now = Instant::from_micros(1_000_000);
        for (policy, mtu) in [(None, 1400), (Some(shared.policy.load().closed()), 1399)] {
            if let Some(policy) = policy {
                shared.policy.store(Arc::new(policy));
            }
            let path = |shared: &Shared| Arc::clone(shared.policy.load().path(BackendId(0)).unwrap());
            assert!(path(&shared).learn(u32::from(mtu), now));
            let rehearsal = shared.rehearsal(None);
            assert_eq!(path(&rehearsal).mtu(now), mtu);
            assert!(path(&rehearsal).learn(1000, now));
            assert_eq!(path(&shared).mtu(now), mtu);
        }
    }
}
