//! Which backend a client of a service has been sent to, so that its next flows go there, too.
//!
//! Only what opens a flow, first shows that its client gets answers, or ends one looks here: the established path does
//! not, and takes no lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use super::conntrack::{Direction, Flow, State};
use super::scheduler::{Request, Scheduler};
use super::{DropReason, Engine, Instant, Policy, TraceSink};
use crate::config::{self, BackendId, ServiceId};
use crate::wire::Address;

/// Clients whose time is over and that are forgotten when another one is looked for, at most: more than come.
const FORGOTTEN_AT_ONCE: usize = 2;
/// And while they are counted, before the lock is given up for a moment.
const FORGOTTEN_FOR_COUNT: usize = 64;

/// The clients of one service, shared by all workers and kept from one configuration to the next.
#[derive(Debug, Default)]
pub struct Affinity {
    clients: Mutex<Clients>,
    /// In a rehearsal: what the gateway knows. It is looked at, and not changed.
    known: Option<Arc<Self>>,
}

/// Why a client's flow goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// Its earlier flows did.
    Kept,
    /// No flow of it was remembered.
    New,
    /// Its earlier flows went to this backend, which takes no new ones now.
    Moved(BackendId),
}

impl Affinity {
    /// The same for a rehearsal.
    pub(super) fn rehearsal(self: &Arc<Self>) -> Self {
        Self { clients: Mutex::default(), known: Some(Arc::clone(self)) }
    }

    /// The backend for another flow of this client: that of its earlier ones, if it `takes` new flows; or else the one
    /// that is picked now, for this flow and those to come. `None` only if none could be picked.
    ///
    /// The flow counts as the client's until [`Self::leave`].
    fn choose(
        &self,
        config: &config::Affinity,
        client: Address,
        now: Instant,
        takes: impl Fn(BackendId) -> bool,
        pick: impl FnOnce() -> Option<BackendId>,
    ) -> Option<(BackendId, Choice)> {
        let mut clients = self.clients();
        clients.forget_over(config, now, FORGOTTEN_AT_ONCE);
        let known = clients.backend(config, client, now);
        // Two flows of a new client may race: the lock is held until one of them has picked for both.
        let (backend, choice) = match known.or_else(|| self.known.as_ref()?.clients().backend(config, client, now)) {
            Some(backend) if takes(backend) => (backend, Choice::Kept),
            Some(gone) => (pick()?, Choice::Moved(gone)),
            None => (pick()?, Choice::New),
        };
        clients.open(config, client, backend, now);
        Some((backend, choice))
    }

    /// A flow of this client to this backend has shown that its client gets what is sent to it. If it was forgotten
    /// meanwhile, among many that had not shown it, it is known again.
    fn prove(&self, config: &config::Affinity, client: Address, backend: BackendId, now: Instant) {
        let mut clients = self.clients();
        if clients.backend(config, client, now).is_none() {
            clients.open(config, client, backend, now);
        }
        clients.update(client, backend, |entry| entry.proven = true);
    }

    /// A flow of this client to this backend was opened on the other gateway of a pair.
    pub(super) fn adopt(&self, config: &config::Affinity, client: Address, backend: BackendId, now: Instant) {
        self.clients().open(config, client, backend, now);
    }

    /// A flow of this client to this backend has ended, or was not opened after all.
    pub(super) fn leave(&self, client: Address, backend: BackendId, now: Instant) {
        self.clients().update(client, backend, |entry| {
            entry.flows = entry.flows.saturating_sub(1);
            entry.used = now;
        });
    }

    /// These backends are no more, and their ids will be others': who was at one of them is new again.
    pub(super) fn forget(&self, gone: &[BackendId]) {
        let mut clients = self.clients();
        let there = clients.entries.iter().filter(|(_, entry)| gone.contains(&entry.backend));
        let there: Vec<Address> = there.map(|(client, _)| *client).collect();
        there.into_iter().for_each(|client| clients.forget(client));
    }

    /// How many clients are remembered.
    pub fn count(&self, config: &config::Affinity, now: Instant) -> usize {
        while self.clients().forget_over(config, now, FORGOTTEN_FOR_COUNT) == FORGOTTEN_FOR_COUNT {}
        self.clients().entries.len()
    }

    /// What a panic of another worker would leave here is whole: each change is made by calls that do not panic.
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The backend for a flow of a service that remembers its clients.
pub(super) fn stay<T: TraceSink>(
    policy: &Policy,
    affinity: &Affinity,
    service: ServiceId,
    scheduler: &dyn Scheduler,
    request: &Request<'_>,
    now: Instant,
    trace: &mut T,
) -> Result<BackendId, DropReason> {
    let config = policy.snapshot.service(service).affinity.as_ref().expect("it remembers its clients");
    let client = request.client.address;
    let takes = |backend| policy.takes(service, request.listen.address.is_v4(), backend);
    let chosen = affinity.choose(config, client, now, takes, || scheduler.pick(request));
    let (backend, choice) = chosen.ok_or(DropReason::NoBackend)?;
    trace.stage("affinity", || match choice {
        Choice::Kept => format!("{client} stays where its earlier flows went"),
        Choice::New => format!("{client} is new here, and stays where this flow goes"),
        Choice::Moved(_) => format!("{client} was at a backend that takes no new flows; it stays where this one goes"),
    });
    Ok(backend)
}

impl Engine {
    /// A flow has changed its state: if the client has shown by it that it gets what is sent to it, it is not forgotten
    /// for one that has not.
    pub(super) fn prove_client(&self, flow: &Flow, now: Instant) {
        let Some(affinity) = self.policy.affinity(flow.service()) else { return };
        let config = self.policy.snapshot.service(flow.service()).affinity.as_ref();
        if matches!(flow.state(), State::Established | State::Assured)
            && let Some(config) = config
        {
            affinity.prove(config, flow.key(Direction::Original).source.address, flow.backend(), now);
        }
    }
}

/// How much it is worth to remember a client: the order in which clients are forgotten where there is no room.
///
/// Who only sends first packets, from addresses that need not be his, makes room for himself by his own earlier ones:
/// he never pushes out more than one of those who have shown that they get what is sent to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Its address may be forged.
    Unproven,
    /// It has no flow now.
    Idle,
    /// It has flows.
    InUse,
}

/// A place in the order of forgetting: within a standing, the one that was used last goes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    standing: Standing,
    turn: u64,
}

#[derive(Debug)]
struct Entry {
    backend: BackendId,
    /// Flows that it has: never more than there are, fewer if it was forgotten meanwhile.
    flows: u32,
    proven: bool,
    /// When a flow last began or ended.
    used: Instant,
    rank: Rank,
}

impl Entry {
    const fn standing(&self) -> Standing {
        match (self.proven, self.flows) {
            (false, _) => Standing::Unproven,
            (true, 0) => Standing::Idle,
            (true, _) => Standing::InUse,
        }
    }

    fn is_over(&self, config: &config::Affinity, now: Instant) -> bool {
        self.flows == 0 && now.since(self.used) >= config.timeout
    }
}

#[derive(Debug, Default)]
struct Clients {
    /// Its hasher's seed decides nothing but who shares a bucket: it may be another in each run.
    entries: HashMap<Address, Entry, RandomState>,
    order: BTreeMap<Rank, Address>,
    turn: u64,
}

impl Clients {
    /// Where its flows go, if that is remembered and its time is not over.
    fn backend(&self, config: &config::Affinity, client: Address, now: Instant) -> Option<BackendId> {
        self.entries.get(&client).filter(|entry| !entry.is_over(config, now)).map(|entry| entry.backend)
    }

    /// Counts a flow to this backend, which all to come will go to.
    fn open(&mut self, config: &config::Affinity, client: Address, backend: BackendId, now: Instant) {
        if self.entries.get(&client).is_none_or(|entry| entry.backend != backend || entry.is_over(config, now)) {
            self.forget(client);
            while self.entries.len() >= config.max_clients as usize {
                let Some(oldest) = self.order.first_key_value().map(|(_, client)| *client) else { break };
                self.forget(oldest);
            }
            let rank = self.next(Standing::Unproven);
            self.entries.insert(client, Entry { backend, flows: 0, proven: false, used: now, rank });
            self.order.insert(rank, client);
        }
        self.update(client, backend, |entry| {
            entry.flows += 1;
            entry.used = now;
        });
    }

    /// Changes what is remembered of a client, if it is about this backend, and with it its place in the order.
    fn update(&mut self, client: Address, backend: BackendId, change: impl FnOnce(&mut Entry)) {
        let turn = self.next(Standing::Unproven).turn;
        let Some(entry) = self.entries.get_mut(&client).filter(|entry| entry.backend == backend) else { return };
        change(entry);
        self.order.remove(&entry.rank);
        entry.rank = Rank { standing: entry.standing(), turn };
        self.order.insert(entry.rank, client);
    }

    fn forget(&mut self, client: Address) {
        if let Some(entry) = self.entries.remove(&client) {
            self.order.remove(&entry.rank);
        }
    }

    /// Forgets those whose time is over, so many at most, and says how many they were.
    fn forget_over(&mut self, config: &config::Affinity, now: Instant, most: usize) -> usize {
        let mut forgotten = 0;
        for standing in [Standing::Unproven, Standing::Idle] {
            while forgotten < most {
                let oldest = self.order.range(Rank { standing, turn: 0 }..).next();
                let Some((_, client)) = oldest.filter(|(rank, _)| rank.standing == standing) else { break };
                let client = *client;
                if !self.entries.get(&client).is_none_or(|entry| entry.is_over(config, now)) {
                    break;
                }
                self.forget(client);
                forgotten += 1;
            }
        }
        forgotten
    }

    fn next(&mut self, standing: Standing) -> Rank {
        self.turn += 1;
        Rank { standing, turn: self.turn }
    }
}

#[cfg(test)]
mod tests;
