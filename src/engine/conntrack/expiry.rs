//! When flows are forgotten: lazy timing wheels (Varghese and Lauck 1987), one for each class of the life cycle.
//!
//! A packet only stores when it was seen. A wheel's entry is looked at when it fires: a flow that lives on is armed
//! again, one that has moved to another class changes the wheel. Entries lie at most one turn ahead, so that what is
//! left behind by flows that ended early is let go within a minute.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::flow::{Flow, Lifecycle};
use crate::config::Timeouts;
use crate::engine::Instant;

/// Length of a tick: flows outlive their timeout by at most this.
const TICK_MICROS: u64 = 1 << 17;
const SLOTS: usize = 512;
/// Entries looked at in one call: bounds the pause of a worker to some microseconds.
const BUDGET: usize = 64;

/// The wheels of one worker.
#[derive(Debug)]
pub struct Expiry {
    wheels: [Wheel; 3],
}

impl Expiry {
    /// Empty, starting now.
    pub fn new(now: Instant) -> Self {
        Self { wheels: std::array::from_fn(|_| Wheel::new(tick(now))) }
    }

    /// Arms the wheel for a new flow, or for one whose state has changed: an older entry becomes stale.
    pub fn arm(&mut self, flow: &Arc<Flow>, now: Instant, timeouts: &Timeouts) {
        let class = flow.state().lifecycle();
        self.wheels[class as usize].insert(Arc::clone(flow), flow.deadline(now, timeouts));
    }

    /// Looks at entries that are due, a bounded number; calls `expire` for flows whose time is over. Returns whether
    /// there is more to do at once.
    pub fn advance(&mut self, now: Instant, timeouts: &Timeouts, mut expire: impl FnMut(&Arc<Flow>)) -> bool {
        let mut budget = BUDGET;
        for class in 0..self.wheels.len() {
            while let Some(flow) = self.wheels[class].due(tick(now), &mut budget) {
                if flow.deadline(now, timeouts) <= now {
                    expire(&flow);
                } else {
                    self.arm(&flow, now, timeouts);
                }
            }
        }
        budget == 0
    }

    /// When [`Self::advance`] has something to do next.
    pub fn poll(&self) -> Option<Instant> {
        self.wheels.iter().filter_map(Wheel::next_tick).min().map(|tick| Instant::from_micros(tick * TICK_MICROS))
    }

    /// Finds a flow to evict for a new one: a half-open one, else one that is over; among them one that would be
    /// forgotten soon. Looks at a bounded number of entries, and moves those it finds in the wrong class, so that a
    /// search is never repeated.
    pub fn victim(&mut self, now: Instant, timeouts: &Timeouts) -> Option<Arc<Flow>> {
        for class in [Lifecycle::HalfOpen, Lifecycle::Closing] {
            for _ in 0..BUDGET {
                let Some(flow) = self.wheels[class as usize].soonest() else { break };
                if flow.state().lifecycle() <= class {
                    return Some(flow);
                }
                self.arm(&flow, now, timeouts);
            }
        }
        None
    }
}

const fn tick(now: Instant) -> u64 {
    now.as_micros() / TICK_MICROS
}

#[derive(Debug)]
struct Wheel {
    slots: Box<[Vec<Arc<Flow>>]>,
    /// The tick whose slot is being emptied: everything before it has fired.
    current: u64,
    entries: usize,
}

impl Wheel {
    fn new(current: u64) -> Self {
        Self { slots: vec![Vec::new(); SLOTS].into(), current, entries: 0 }
    }

    fn insert(&mut self, flow: Arc<Flow>, deadline: Instant) {
        // One tick later than the deadline's own: at the start of that tick the deadline has not passed.
        let at = (tick(deadline) + 1).clamp(self.current + 1, self.current + SLOTS as u64 - 1);
        flow.armed().store(mark(at), Relaxed);
        self.slot(at).push(flow);
        self.entries += 1;
    }

    /// Takes one valid entry that is due, within the budget; lets go of stale ones.
    fn due(&mut self, now: u64, budget: &mut usize) -> Option<Arc<Flow>> {
        while *budget > 0 && self.current <= now {
            let Some(flow) = self.pop(self.current) else {
                // An empty wheel need not be turned slot by slot.
                self.current = if self.entries == 0 { now + 1 } else { self.current + 1 };
                continue;
            };
            *budget -= 1;
            if is_valid(&flow, self.current) {
                return Some(flow);
            }
        }
        None
    }

    /// Takes the valid entry that will fire soonest.
    fn soonest(&mut self) -> Option<Arc<Flow>> {
        let mut at = self.current;
        while self.entries > 0 && at < self.current + SLOTS as u64 {
            match self.pop(at) {
                Some(flow) if is_valid(&flow, at) => return Some(flow),
                Some(_) => {}
                None => at += 1,
            }
        }
        None
    }

    fn pop(&mut self, at: u64) -> Option<Arc<Flow>> {
        let slot = self.slot(at);
        let flow = slot.pop();
        if flow.is_some() {
            self.entries -= 1;
        } else if slot.capacity() > BUDGET {
            // A burst's memory is not kept for ever.
            *self.slot(at) = Vec::new();
        }
        flow
    }

    fn next_tick(&self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        (self.current..self.current + SLOTS as u64).find(|at| !self.slots[index(*at)].is_empty())
    }

    fn slot(&mut self, at: u64) -> &mut Vec<Arc<Flow>> {
        &mut self.slots[index(at)]
    }
}

/// Whether the entry at this tick is the flow's newest: a flow that was armed again has left older ones behind.
fn is_valid(flow: &Flow, at: u64) -> bool {
    flow.is_alive() && flow.armed().load(Relaxed) == mark(at)
}

#[expect(clippy::cast_possible_truncation, reason = "2^32 ticks are 17 years")]
const fn mark(at: u64) -> u32 {
    at as u32
}

#[expect(clippy::cast_possible_truncation, reason = "taken modulo the number of slots")]
const fn index(at: u64) -> usize {
    at as usize % SLOTS
}
