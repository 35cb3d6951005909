//! The table: the truth about all flows, shared by all workers. The only user of dashmap.
//!
//! A flow is in here under both keys or under neither. No guard of the map leaves this file, and no call holds one while
//! it takes another: two keys may share a shard, and a second guard would wait for the first for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use foldhash::fast::FixedState;

use super::flow::{Direction, Flow, FlowKey};

#[cfg(not(feature = "shuttle"))]
use dashmap::{DashMap, Entry};
#[cfg(feature = "shuttle")]
use shuttle_dashmap::{DashMap, mapref::entry::Entry};

/// Many small shards: growing one rehashes, and a listing locks, only a thousandth of the table.
const SHARDS: usize = 1024;

/// Why a flow was not entered.
#[derive(Debug)]
pub enum Refused {
    /// Its original key is taken: another worker saw the first packet too, and this is its flow.
    Exists(Arc<Flow>),
    /// Its reply key is taken by a flow of other endpoints: answers could not be told apart.
    Conflict,
}

/// All flows, by both keys.
#[derive(Debug)]
pub struct Table {
    flows: DashMap<FlowKey, Arc<Flow>, FixedState>,
    count: AtomicU32,
    capacity: u32,
}

impl Table {
    /// An empty table for at most `capacity` flows. The seed makes hash collisions unpredictable from outside.
    pub fn new(capacity: u32, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            flows: DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS),
            count: AtomicU32::new(0),
            capacity,
        }
    }

    /// Flows now.
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
        Some((flow, direction))
    }

    /// Enters a flow under both keys: the reply key first, since no packet can carry it before the original has left;
    /// undone if the original key turns out to be taken.
    pub fn commit(&self, flow: &Arc<Flow>) -> Result<(), Refused> {
        let reply = *flow.key(Direction::Reply);
        match self.flows.entry(reply) {
            Entry::Occupied(taken) => {
                let other = Arc::clone(taken.get());
                drop(taken);
                // The other worker of a race may be between its two insertions.
                let same = other.key(Direction::Original) == flow.key(Direction::Original);
                return Err(if same { Refused::Exists(other) } else { Refused::Conflict });
            }
            Entry::Vacant(free) => drop(free.insert(Arc::clone(flow))),
        }
        let taken = match self.flows.entry(*flow.key(Direction::Original)) {
            Entry::Occupied(taken) => Some(Arc::clone(taken.get())),
            Entry::Vacant(free) => {
                drop(free.insert(Arc::clone(flow)));
                None
            }
        };
        if let Some(other) = taken {
            self.flows.remove_if(&reply, |_, entered| Arc::ptr_eq(entered, flow));
            return Err(Refused::Exists(other));
        }
        self.count.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Takes a flow out under both keys; true for the one caller that did.
    pub fn remove(&self, flow: &Arc<Flow>) -> bool {
        if !flow.bury() {
            return false;
        }
        for direction in [Direction::Original, Direction::Reply] {
            self.flows.remove_if(flow.key(direction), |_, entered| Arc::ptr_eq(entered, flow));
        }
        self.count.fetch_sub(1, Relaxed);
        true
    }

    /// Calls `visit` with every flow once, one shard at a time: for listings, never for a worker.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Flow>)) {
        for entry in &self.flows {
            if entry.key() == entry.value().key(Direction::Original) {
                visit(entry.value());
            }
        }
    }
}
