//! What a worker keeps of its flows: when each is to be forgotten, and who makes room when there is none left.
//!
//! A packet only stores when it was seen; a flow moves in here when its state changes. Nothing in here outlives its
//! flow, so the memory is that of the flows, whatever comes.

use super::queues::{Queues, Scope};
use super::table::Table;
use super::wheel::Wheel;
use crate::config::Timeouts;
use crate::engine::Instant;

/// Flows looked at in one call: bounds the pause of a worker to some microseconds.
const BUDGET: usize = 64;

/// The flows of one worker.
#[derive(Debug)]
pub struct Expiry {
    flows: u32,
    wheel: Wheel,
    queues: Queues,
    /// Before this nobody said when a flow was used.
    revived: Option<Instant>,
}

impl Expiry {
    /// No flows, starting now.
    pub fn new(now: Instant) -> Self {
        Self { flows: 0, wheel: Wheel::new(now), queues: Queues::default(), revived: None }
    }

    /// How many flows there are.
    pub fn flows(&self) -> u32 {
        self.flows
    }

    /// Notes a new flow, or that a flow's state has changed.
    pub(in crate::engine) fn arm(&mut self, table: &Table, id: u32, now: Instant, timeouts: &Timeouts) {
        let flow = table.flow(id);
        self.flows += u32::from(flow.slot().is_none());
        self.wheel.place(table, id, flow.deadline(now, timeouts), now);
        self.queues.place(table, id);
    }

    /// Lets go of a flow, if it is noted.
    pub(in crate::engine) fn disarm(&mut self, table: &Table, id: u32) {
        if table.flow(id).slot().is_none() {
            return;
        }
        self.wheel.remove(table, id);
        self.queues.remove(table, id);
        self.flows -= 1;
    }

    /// Looks at flows whose time may be over, a bounded number; lets go of those for which it is and hands them to
    /// `expire`. Returns whether there is more to do at once.
    pub(in crate::engine) fn advance(
        &mut self,
        table: &Table,
        now: Instant,
        timeouts: &Timeouts,
        mut expire: impl FnMut(u32),
    ) -> bool {
        for _ in 0..BUDGET {
            let Some(id) = self.wheel.due(now) else { return false };
            let flow = table.flow(id);
            let since = self.revived.map(|revived| revived + flow.state().timeout(timeouts));
            let deadline = since.into_iter().fold(flow.deadline(now, timeouts), Instant::max);
            if deadline <= now {
                self.disarm(table, id);
                expire(id);
            } else {
                self.wheel.place(table, id, deadline, now);
            }
        }
        true
    }

    /// All flows count as used now: what came before was another gateway's.
    pub(in crate::engine) fn revive(&mut self, now: Instant) {
        self.revived = Some(now);
    }

    /// When `advance` has something to do next.
    pub fn poll(&self) -> Option<Instant> {
        self.wheel.poll()
    }

    /// The flow that is to be ended if another is to have room; `None` if all flows there are in use.
    pub(in crate::engine) fn victim(&mut self, table: &Table, scope: &Scope) -> Option<u32> {
        self.queues.victim(table, scope)
    }
}
