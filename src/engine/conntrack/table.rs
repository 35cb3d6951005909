//! The table: the truth about all flows, shared by all workers. The only user of dashmap.
//!
//! A flow is in here under both keys or under neither. No guard of the map leaves this file, and no call holds one while
//! it takes another: two keys may share a shard, and a second guard would wait for the first for ever. So the two
//! entries of a flow come and go one after the other, and every step reckons with whoever is between its own two; the
//! schedules are explored in `table/model.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::flow::{Direction, Flow, FlowKey};
use super::sync::AtomicU32;
use map::{Entry, Flows};

#[cfg(not(feature = "shuttle"))]
mod map {
    use foldhash::fast::FixedState;

    use super::{Arc, Flow, FlowKey};

    pub(super) use dashmap::Entry;
    pub(super) type Flows = dashmap::DashMap<FlowKey, Arc<Flow>, FixedState>;

    /// Many small shards: growing one rehashes, and a listing locks, only a thousandth of the table.
    const SHARDS: usize = 1024;

    pub(super) fn empty(seed: u64) -> Flows {
        Flows::with_capacity_and_hasher_and_shard_amount(0, FixedState::with_seed(seed), SHARDS)
    }
}

/// The schedule explorer's map: one lock for all keys, so that whoever waits for a second guard waits for ever.
#[cfg(feature = "shuttle")]
mod map {
    use super::{Arc, Flow, FlowKey};

    pub(super) use shuttle_dashmap::Entry;
    pub(super) type Flows = shuttle_dashmap::DashMap<FlowKey, Arc<Flow>>;

    pub(super) fn empty(_: u64) -> Flows {
        Flows::new()
    }
}

/// Why a flow was not entered.
#[derive(Debug)]
pub enum Refused {
    /// Its original key is taken: another worker saw the first packet too, and this is its flow.
    Exists(Arc<Flow>),
    /// Its reply key is taken by a flow of other endpoints: answers could not be told apart.
    Conflict,
    /// There are as many flows as there may be.
    Full,
}

/// All flows, by both keys.
#[derive(Debug)]
pub struct Table {
    flows: Flows,
    count: AtomicU32,
    capacity: u32,
}

impl Table {
    /// An empty table for at most `capacity` flows. The seed makes hash collisions unpredictable from outside.
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self { flows: map::empty(seed), count: AtomicU32::new(0), capacity }
    }

    /// Flows now, those that are just being entered included.
    pub fn len(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most flows it will hold.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Whether no more flow fits.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// The flow of packets with this key, and which way they go.
    pub fn find(&self, key: &FlowKey) -> Option<(Arc<Flow>, Direction)> {
        let flow = Arc::clone(&*self.flows.get(key)?);
        let direction = flow.direction(key).expect("a flow is in the table under its own keys only");
        flow.is_alive().then_some((flow, direction))
    }

    /// Enters a new flow under both keys: the reply key first, since no packet can carry it before the original has
    /// left; undone if the original key turns out to be taken.
    ///
    /// # Errors
    /// [`Refused`]; the flow is not alive then.
    pub fn commit(&self, flow: &Arc<Flow>) -> Result<(), Refused> {
        let room = |count: u32| (count < self.capacity).then(|| count + 1);
        if self.count.fetch_update(Relaxed, Relaxed, room).is_err() {
            flow.bury();
            return Err(Refused::Full);
        }
        let entered = self.enter(flow);
        if entered.is_err() {
            self.remove(flow);
        }
        entered
    }

    fn enter(&self, flow: &Arc<Flow>) -> Result<(), Refused> {
        while let Some(other) = self.insert(Direction::Reply, flow) {
            if other.key(Direction::Original) != flow.key(Direction::Original) {
                return Err(Refused::Conflict);
            }
            // The other worker of a race, which may be between its two insertions: help it to its second, so that
            // both know who has won.
            match self.insert(Direction::Original, &other) {
                Some(winner) => return Err(Refused::Exists(winner)),
                None if other.is_alive() => return Err(Refused::Exists(other)),
                None => {} // it has ended meanwhile: its place is free
            }
        }
        self.insert(Direction::Original, flow).map_or(Ok(()), |other| Err(Refused::Exists(other)))
    }

    /// Enters a flow under one of its keys, unless a living flow has that already, and returns that. What is dead is
    /// replaced: whoever buried it will find another in its place, and leave it alone.
    fn insert(&self, direction: Direction, flow: &Arc<Flow>) -> Option<Arc<Flow>> {
        match self.flows.entry(*flow.key(direction)) {
            Entry::Occupied(taken) if Arc::ptr_eq(taken.get(), flow) => {}
            Entry::Occupied(taken) if taken.get().is_alive() => return Some(Arc::clone(taken.get())),
            Entry::Occupied(mut dead) => drop(dead.insert(Arc::clone(flow))),
            Entry::Vacant(free) => drop(free.insert(Arc::clone(flow))),
        }
        // Whoever removed it before it came here has not found it here.
        if !flow.is_alive() {
            self.take_out(direction, flow);
        }
        None
    }

    /// Takes a flow out under both keys; true for the one caller that did.
    pub fn remove(&self, flow: &Arc<Flow>) -> bool {
        if !flow.bury() {
            return false;
        }
        for direction in [Direction::Original, Direction::Reply] {
            self.take_out(direction, flow);
        }
        self.count.fetch_sub(1, Relaxed);
        true
    }

    fn take_out(&self, direction: Direction, flow: &Arc<Flow>) {
        self.flows.remove_if(flow.key(direction), |_, entered| Arc::ptr_eq(entered, flow));
    }

    /// Whether there is such a flow: as [`Self::for_each`], up to the first.
    pub fn any(&self, mut is_one: impl FnMut(&Arc<Flow>) -> bool) -> bool {
        let original = |flow: &Arc<Flow>, key: &FlowKey| key == flow.key(Direction::Original) && flow.is_alive();
        self.flows.iter().any(|entry| original(entry.value(), entry.key()) && is_one(entry.value()))
    }

    /// Calls `visit` with every flow once, one shard at a time: for listings, never for a worker. While it visits, the
    /// shard is locked: `visit` must not call the table.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Flow>)) {
        for entry in self.flows.iter() {
            if entry.key() == entry.value().key(Direction::Original) && entry.value().is_alive() {
                visit(entry.value());
            }
        }
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod model;
