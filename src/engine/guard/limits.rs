//! The limits of services: new flows a second, of all clients and of each; flows at once.
//!
//! All workers share them: a client's connections spread over the workers, and a limit that is cut in as many parts
//! refuses what it should admit as soon as they spread unevenly. It costs an atomic operation or two for each *new* flow.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytemuck::Zeroable;

use super::bucket::SharedBucket;
use super::clients::Clients;
use crate::config::{self, ServiceId};
use crate::engine::counters::{OfEach, of_each};
use crate::engine::{DropReason, Instant};
use crate::wire::Address;

/// What the services have taken of their limits.
#[derive(Debug)]
pub(in crate::engine) struct Limits {
    services: OfEach<Service>,
    clients: Clients,
}

#[derive(Debug, Zeroable)]
struct Service {
    new_flows: SharedBucket,
    flows: AtomicU32,
}

impl Clone for Limits {
    /// As they are now, counted apart from then on.
    fn clone(&self) -> Self {
        let services: OfEach<Service> = of_each();
        for (to, from) in services.iter().zip(&*self.services) {
            to.set(from);
        }
        Self { services, clients: self.clients.clone() }
    }
}

impl Service {
    fn set(&self, other: &Self) {
        self.new_flows.set(&other.new_flows);
        let flows = other.flows.load(Relaxed);
        if flows > 0 {
            self.flows.store(flows, Relaxed); // What is not written to takes no memory.
        }
    }
}

impl Limits {
    /// Nothing taken yet.
    pub(in crate::engine) fn new(seed: u64) -> Self {
        Self { services: of_each(), clients: Clients::new(seed) }
    }

    /// Whether one more flow from this client would not come too soon. The client first: what its own limit refuses
    /// takes nothing from the others.
    pub(in crate::engine) fn take(
        &self,
        id: ServiceId,
        limits: &config::Limits,
        client: Address,
        now: Instant,
    ) -> Result<(), DropReason> {
        if let Some(rate) = limits.new_flows_per_client
            && !self.clients.take(id, client, rate.into(), now)
        {
            return Err(DropReason::ClientRate);
        }
        match limits.new_flows {
            Some(rate) if !self.service(id).new_flows.take(rate.into(), now) => Err(DropReason::ServiceRate),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes room for one more flow, if the service has it: exact, however many workers ask at once.
    pub(in crate::engine) fn enter(&self, id: ServiceId, limits: &config::Limits) -> bool {
        let most = limits.max_flows.unwrap_or(u32::MAX);
        self.service(id).flows.fetch_update(Relaxed, Relaxed, |flows| (flows < most).then_some(flows + 1)).is_ok()
    }

    /// Gives it back.
    pub(in crate::engine) fn leave(&self, id: ServiceId) {
        let before = self.service(id).flows.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "service {id:?} lost a flow that it never had");
    }

    /// Begins again with a service that has no flow, and that no policy has.
    pub(in crate::engine) fn forget(&self, id: ServiceId) {
        let Service { new_flows, flows } = self.service(id);
        new_flows.refill();
        flows.store(0, Relaxed);
    }

    fn service(&self, id: ServiceId) -> &Service {
        &self.services[usize::from(id.0)]
    }
}
