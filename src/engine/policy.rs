//! What new flows are decided by: a snapshot, and where each service's flows may go now.

use std::sync::{Arc, OnceLock};

use super::affinity::Affinity;
use super::path::Path;
use super::scheduler::{self, Candidate, Scheduler};
use crate::config::{Backend, BackendId, Balance, ServiceId, Snapshot};
use crate::wire::Family;
use crate::wire::tunnel::Tunnel;

/// A snapshot with its schedulers, built once, away from the workers (but see [`Shared::rehearsal`](super::Shared::rehearsal)).
#[derive(Debug)]
pub struct Policy {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// Whether no new flow is taken.
    closed: bool,
    /// Of each service that may have new flows, by its id.
    pools: Vec<Option<Arc<Pool>>>,
    /// Of each backend that has a tunnel, by its id.
    paths: Vec<Option<Arc<Path>>>,
    /// Of each service that remembers its clients, by its id.
    affinities: Vec<Option<Arc<Affinity>>>,
}

impl Policy {
    /// With the weights that the configuration gives.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self::build(snapshot, |backend| backend.weight, None)
    }

    /// Builds the schedulers of a snapshot, and the paths to its backends. `weight` is a backend's share of new flows now,
    /// 0 for one that is to have none. A service whose backends and weights are those of the previous policy keeps its
    /// schedulers, a tunnel what was learnt of its path, and a service its clients.
    ///
    /// A service that listens in both families has a scheduler for each: a flow never changes its family. A tunnel of
    /// either carries both.
    pub fn build(snapshot: Arc<Snapshot>, weight: impl Fn(&Backend) -> u16, previous: Option<&Self>) -> Self {
        let (mut pools, mut affinities) = (Vec::new(), Vec::new());
        for service in &snapshot.services {
            let candidates = Candidates::of(&snapshot, service.id, &weight);
            let known = previous.and_then(|previous| previous.pool(service.id));
            let pool = match known.filter(|pool| *pool.candidates == candidates) {
                Some(pool) => Arc::clone(pool),
                None => Arc::new(Pool::new(Arc::new(candidates))),
            };
            pool.schedulers();
            put(&mut pools, service.id.0, pool);
            if service.affinity.is_some() {
                let known = previous.and_then(|previous| previous.affinities.get(usize::from(service.id.0))?.clone());
                put(&mut affinities, service.id.0, known.unwrap_or_default());
            }
        }
        let mut paths = Vec::new();
        for backend in snapshot.all_backends() {
            let Some(tunnel) = snapshot.tunnel(backend.id) else { continue };
            let path = Path::new(tunnel, snapshot.gateway.mtu, backend.id.0);
            let known = previous.and_then(|previous| previous.path(backend.id));
            // Flows of a retired one go on as they did.
            let stays = |known: &&Arc<Path>| known.is_like(&path) || !snapshot.has_backend(backend.id);
            let path = known.filter(stays).map_or_else(|| Arc::new(path), Arc::clone);
            put(&mut paths, backend.id.0, path);
        }
        Self { snapshot, closed: false, pools, paths, affinities }
    }

    /// The same for a rehearsal: schedulers are built when they are asked for, and nothing is shared that can change.
    pub(super) fn rehearsal(&self) -> Self {
        let unbuilt = |pool: &Option<Arc<Pool>>| Some(Arc::new(Pool::new(Arc::clone(&pool.as_ref()?.candidates))));
        let paths = self.paths.iter().map(|path| path.as_deref().map(|path| Arc::new(path.rehearsed()))).collect();
        let pools = self.pools.iter().map(unbuilt).collect();
        let rehearsal = |affinity: &Option<Arc<Affinity>>| Some(Arc::new(affinity.as_ref()?.rehearsal()));
        let affinities = self.affinities.iter().map(rehearsal).collect();
        Self { closed: self.closed, pools, paths, affinities, snapshot: Arc::clone(&self.snapshot) }
    }

    /// The same configuration, but no new flow is taken: for a gateway that is about to stop.
    #[must_use]
    pub fn closed(&self) -> Self {
        let (pools, paths, affinities) = (self.pools.clone(), self.paths.clone(), self.affinities.clone());
        Self { closed: true, pools, paths, affinities, snapshot: Arc::clone(&self.snapshot) }
    }

    /// Whether no new flow is taken.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The scheduler for flows of this family; `None` if no new ones are taken.
    pub fn scheduler(&self, service: ServiceId, family: Family) -> Option<&dyn Scheduler> {
        if self.closed { None } else { Some(self.schedulers(service)?.of(family)) }
    }

    /// The scheduler of a DSR service for packets of the middle of a flow that is not known (R53): by hash, so that all
    /// packets of that flow, on all gateways, go one way; even where no new flows are taken. `None` for other services.
    pub fn pick_up(&self, service: ServiceId) -> Option<&dyn Scheduler> {
        if !self.snapshot.service(service).is_tunnelled() {
            return None;
        }
        let schedulers = self.schedulers(service)?;
        Some(schedulers.by_hash.as_deref().unwrap_or_else(|| schedulers.of(Family::V4)))
    }

    /// The way to a backend, if it goes by a tunnel.
    pub fn path(&self, backend: BackendId) -> Option<&Arc<Path>> {
        self.paths.get(usize::from(backend.0))?.as_ref()
    }

    /// All ways by this tunnel: services may share a backend.
    pub fn paths_by(&self, tunnel: &Tunnel) -> impl Iterator<Item = &Path> {
        self.paths.iter().flatten().map(|path| &**path).filter(move |path| path.tunnel() == tunnel)
    }

    /// The backends at the end of this tunnel.
    pub fn backends_by(&self, tunnel: &Tunnel) -> impl Iterator<Item = BackendId> {
        let ids = (0..).map(BackendId).zip(&self.paths);
        ids.filter(move |(_, path)| path.as_deref().is_some_and(|path| path.tunnel() == tunnel)).map(|(id, _)| id)
    }

    /// The clients of a service, if it remembers them.
    pub fn affinity(&self, service: ServiceId) -> Option<&Affinity> {
        self.affinities.get(usize::from(service.0))?.as_deref()
    }

    /// The clients of all services that remember them.
    pub(super) fn affinities(&self) -> impl Iterator<Item = &Affinity> {
        self.affinities.iter().flatten().map(|affinity| &**affinity)
    }

    /// Whether a backend may have new flows of clients of this family.
    pub(super) fn takes(&self, service: ServiceId, v4: bool, backend: BackendId) -> bool {
        self.pool(service).is_some_and(|pool| pool.candidates.has(v4, backend))
    }

    fn pool(&self, service: ServiceId) -> Option<&Arc<Pool>> {
        self.pools.get(usize::from(service.0))?.as_ref()
    }

    fn schedulers(&self, service: ServiceId) -> Option<&Schedulers> {
        Some(self.pool(service)?.schedulers())
    }
}

/// Puts it at the place of its id.
fn put<T>(all: &mut Vec<Option<T>>, id: u16, one: T) {
    let place = usize::from(id);
    if all.len() <= place {
        all.resize_with(place + 1, || None);
    }
    all[place] = Some(one);
}

/// Where the new flows of one service go.
#[derive(Debug)]
struct Pool {
    candidates: Arc<Candidates>,
    /// Empty in a rehearsal until they are asked for: to build those of a thousand services takes seconds, and one packet
    /// asks for one.
    built: OnceLock<Schedulers>,
}

impl Pool {
    const fn new(candidates: Arc<Candidates>) -> Self {
        Self { candidates, built: OnceLock::new() }
    }

    fn schedulers(&self) -> &Schedulers {
        self.built.get_or_init(|| Schedulers::build(&self.candidates))
    }
}

/// What schedulers are built from: the same again makes the same.
#[derive(Debug, PartialEq, Eq)]
struct Candidates {
    balance: Balance,
    is_tunnelled: bool,
    /// For IPv4 and IPv6.
    of_family: [Vec<Candidate>; 2],
}

impl Candidates {
    /// As many comparisons as there are backends, for each flow of a service that remembers its clients.
    fn has(&self, v4: bool, backend: BackendId) -> bool {
        self.of_family[usize::from(!v4)].iter().any(|candidate| candidate.id == backend)
    }

    fn of(snapshot: &Snapshot, id: ServiceId, weight: impl Fn(&Backend) -> u16) -> Self {
        let service = snapshot.service(id);
        let is_tunnelled = service.is_tunnelled();
        let of_family = [true, false].map(|v4| {
            let backends = snapshot.backends_of(id).map(|(_, backend)| (backend, weight(backend)));
            let usable = backends.filter(|(b, weight)| *weight > 0 && (is_tunnelled || b.address.is_v4() == v4));
            let (backup, main): (Vec<_>, Vec<_>) = usable.partition(|(backend, _)| backend.backup);
            let group = if main.is_empty() { backup } else { main };
            group
                .into_iter()
                .map(|(backend, weight)| Candidate { weight, ..Candidate::new(backend.id, backend) })
                .collect()
        });
        Self { balance: service.balance, is_tunnelled, of_family }
    }
}

/// The schedulers of one service.
#[derive(Debug)]
struct Schedulers {
    /// For IPv4 and IPv6.
    of_family: [Box<dyn Scheduler>; 2],
    /// If it is a DSR service and those are not by hash.
    by_hash: Option<Box<dyn Scheduler>>,
}

impl Schedulers {
    fn of(&self, family: Family) -> &dyn Scheduler {
        let [v4, v6] = &self.of_family;
        match family {
            Family::V4 => &**v4,
            Family::V6 => &**v6,
        }
    }

    fn build(candidates: &Candidates) -> Self {
        let Candidates { balance, is_tunnelled, of_family } = candidates;
        let lacks_hash = *is_tunnelled && !matches!(balance, Balance::Maglev | Balance::SourceHash);
        Self {
            of_family: of_family.each_ref().map(|candidates| scheduler::build(*balance, candidates)),
            by_hash: lacks_hash.then(|| scheduler::build(Balance::Maglev, &of_family[0])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Instant, Shared};

    /// The control thread waits for it.
    #[test]
    fn a_rehearsal_builds_the_schedulers_that_it_asks_for() {
        let service = |name: &str, port| {
            format!(
                "[[service]]\nname = '{name}'\nlisten = '192.0.2.1:{port}'\nsource-nat = false\nbackends = [{{ address = '10.0.0.1' }}]\n"
            )
        };
        let text = service("web", 80) + &service("dns", 53);
        let shared = Shared::new(crate::config::load(&text, "test.toml", None, "host").unwrap(), 1, 7);
        let built = |shared: &Shared| {
            let policy = shared.policy.load();
            policy.pools.iter().flatten().map(|pool| pool.built.get().is_some()).collect::<Vec<_>>()
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
        let shared = Shared::new(crate::config::load(text, "test.toml", None, "host").unwrap(), 1, 7);
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
