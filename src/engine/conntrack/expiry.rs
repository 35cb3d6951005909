//! What a worker keeps of its flows: when each is to be forgotten, and who makes room when there is none left.
//!
//! A packet only stores when it was seen; a flow moves in here when its state changes. Nothing in here outlives its
//! flow, so the memory is that of the flows, whatever comes.

use std::sync::Arc;

use super::flow::Flow;
use super::list::{Entries, Entry};
use super::queues::{Queues, Scope};
use super::wheel::Wheel;
use crate::config::Timeouts;
use crate::engine::Instant;

/// Flows looked at in one call: bounds the pause of a worker to some microseconds.
const BUDGET: usize = 64;

/// The flows of one worker.
#[derive(Debug)]
pub struct Expiry {
    entries: Entries,
    wheel: Wheel,
    queues: Queues,
}

impl Expiry {
    /// No flows, starting now.
    pub fn new(now: Instant) -> Self {
        Self { entries: Entries::new(), wheel: Wheel::new(now), queues: Queues::default() }
    }

    /// How many flows there are.
    pub fn flows(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("as many as the table at most")
    }

    /// Notes a new flow, or that a flow's state has changed.
    pub fn arm(&mut self, flow: &Arc<Flow>, now: Instant, timeouts: &Timeouts) {
        let at = self.entry(flow);
        self.wheel.place(&mut self.entries, at, flow.deadline(now, timeouts), now);
        self.queues.place(&mut self.entries, at);
    }

    /// Lets go of a flow, if it is noted.
    pub fn disarm(&mut self, flow: &Flow) {
        let Some(at) = flow.entry() else { return };
        self.wheel.remove(&mut self.entries, at);
        self.queues.remove(&mut self.entries, at);
        self.entries.remove(at as usize);
        flow.set_entry(None);
    }

    /// Looks at flows whose time may be over, a bounded number; lets go of those for which it is and hands them to
    /// `expire`. Returns whether there is more to do at once.
    pub fn advance(&mut self, now: Instant, timeouts: &Timeouts, mut expire: impl FnMut(Arc<Flow>)) -> bool {
        for _ in 0..BUDGET {
            let Some(at) = self.wheel.due(now) else { return false };
            let flow = Arc::clone(&self.entries[at as usize].flow);
            let deadline = flow.deadline(now, timeouts);
            if deadline <= now {
                self.disarm(&flow);
                expire(flow);
            } else {
                self.wheel.place(&mut self.entries, at, deadline, now);
            }
        }
        true
    }

    /// When [`Self::advance`] has something to do next.
    pub fn poll(&self) -> Option<Instant> {
        self.wheel.poll()
    }

    /// The flow that is to be ended if another is to have room; `None` if all flows there are in use.
    pub fn victim(&mut self, scope: &Scope) -> Option<Arc<Flow>> {
        let at = self.queues.victim(&mut self.entries, scope)?;
        Some(Arc::clone(&self.entries[at as usize].flow))
    }

    fn entry(&mut self, flow: &Arc<Flow>) -> u32 {
        if let Some(at) = flow.entry() {
            return at;
        }
        let at = self.entries.insert(Entry::new(Arc::clone(flow)));
        let at = u32::try_from(at).expect("as many as the table at most");
        flow.set_entry(Some(at));
        at
    }
}
