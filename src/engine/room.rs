//! Room for a new flow, and who makes it where there is none left (R39).
//!
//! What may be evicted are flows that are half-open or over ([`Scope`]), never one in use. A worker evicts flows of its
//! own only.

use super::conntrack::Scope;
use super::verdict::DropReason;
use super::{Engine, Instant};
use crate::config::{Limits, ServiceId};

/// Flows that are evicted for one new flow at most.
const MOST_EVICTED: u32 = 8;

impl Engine {
    /// Makes sure that the service and the table have room for one more flow, and takes that of the service.
    pub(super) fn make_room(&mut self, service: ServiceId, limits: &Limits, now: Instant) -> Result<(), DropReason> {
        if !self.shared.limits.enter(service, limits) {
            let room = limits.max_flows.expect("without it there is room");
            self.evict_for(&Scope::Service(service), self.held(service), room, now)?;
            if !self.shared.limits.enter(service, limits) {
                return Err(DropReason::ServiceFlows); // Another worker was quicker.
            }
        }
        if !self.shared.table.is_full() {
            return Ok(());
        }
        let (held, room) = (self.expiry.flows(), self.shared.table.capacity());
        self.evict_for(&Scope::Table, held, room, now).inspect_err(|_| self.shared.limits.leave(service))
    }

    /// This worker's flows of a service. Those of a rehearsal were opened elsewhere.
    fn held(&self, service: ServiceId) -> u32 {
        let counters = self.counters().service(service);
        let held = counters.opened.get().saturating_sub(counters.closed.get());
        u32::try_from(held).expect("as many as the table at most")
    }

    /// Evicts for a new flow in a room that all workers share, of which this one holds so much.
    ///
    /// A worker that holds more than its share leaves some of what it frees to the others: who can aim his flood at one
    /// worker shall not take the room of those that have nothing to evict. So a room that is full has places free again
    /// as often as the flood comes.
    fn evict_for(&mut self, scope: &Scope, held: u32, room: u32, now: Instant) -> Result<(), DropReason> {
        let beyond = held.saturating_sub(room / u32::from(self.shared.workers));
        let evicted = (0..beyond.clamp(1, MOST_EVICTED)).take_while(|_| self.evict(scope, now)).count();
        if evicted == 0 { Err(scope.shortage().reason()) } else { Ok(()) }
    }

    /// Ends a flow that may be evicted, if there is one.
    pub(super) fn evict(&mut self, scope: &Scope, now: Instant) -> bool {
        let Some(victim) = self.expiry.victim(&self.shared.table, scope) else { return false };
        self.end(victim, now);
        self.counters().evicted(scope.shortage()).add(1);
        true
    }
}
