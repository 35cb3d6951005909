//! The limits of services: new flows a second, of all clients and of each; flows at once.
//!
//! All workers share them: a client's connections spread over the workers, and a limit that is cut in as many parts
//! refuses what it should admit as soon as they spread unevenly. It costs an atomic operation or two for each *new* flow.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::bucket::SharedBucket;
use super::clients::Clients;
use crate::config::{self, ServiceId};
use crate::engine::{DropReason, Instant};
use crate::wire::Address;

/// What the services have taken of their limits.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Limits {
    services: Box<[Service]>,
    clients: Clients,
}

#[derive(Debug, Default)]
struct Service {
    new_flows: SharedBucket,
    flows: AtomicU32,
}

impl Clone for Service {
    /// As it is now, counted apart from then on.
    fn clone(&self) -> Self {
        Self { new_flows: self.new_flows.clone(), flows: AtomicU32::new(self.flows.load(Relaxed)) }
    }
}

impl Limits {
    /// Nothing taken yet.
    pub(in crate::engine) fn new(services: usize, seed: u64) -> Self {
        let services = std::iter::repeat_with(Service::default).take(services).collect();
        Self { services, clients: Clients::new(seed) }
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

    fn service(&self, id: ServiceId) -> &Service {
        &self.services[usize::from(id.0)]
    }
}
