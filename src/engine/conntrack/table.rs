//! The table: the truth about all flows, shared by all workers.
//!
//! A flow is in here under both keys or under neither. No guard of the index leaves this file, and no call holds one while
//! it takes another: two keys may share a shard, and a second guard would wait for the first for ever. So the two
//! entries of a flow come and go one after the other, and every step reckons with whoever is between its own two; the
//! schedules are explored in `table/model.rs`.
//!
//! The table holds the flows that are in it. What is found under the lock of its key is held by it, and can be held
//! by the finder before the lock is given up; a flow's owner, who alone ends it, need not hold it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::flow::{Flow, HOT_LINES, Plan};
use super::index::{Entry, Full, Index, Place};
use super::key::{Direction, FlowKey};
use super::memory::{FlowRef, Memory};
use super::sync::AtomicU32;
use crate::engine::seeded::Seeded;
use crate::engine::{Instant, WorkerId};
use crate::wire::{Protocol, Tuple};

/// Why a flow was not entered.
#[derive(Debug)]
pub enum Refused {
    /// Its original key is taken: another worker saw the first packet too, and this is its flow.
    Exists(FlowRef),
    /// Its reply key is taken by a flow of other endpoints: answers could not be told apart.
    Conflict,
    /// There are as many flows as there may be.
    Full,
}

impl From<Full> for Refused {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// What a worker sees of a key without a lock.
pub(in crate::engine) enum Seen<'a> {
    /// Its own flow, for it alone and until it ends the flow; its number, and which way such packets go.
    Own(&'a Flow, u32, Direction),
    /// A flow with another key, or another worker's: [`Table::find`] tells.
    Something,
    /// There is no flow with this key.
    Nothing,
}

/// All flows, by both keys.
#[derive(Debug)]
pub struct Table {
    memory: Arc<Memory>,
    index: Index,
    hasher: Seeded,
    count: AtomicU32,
    capacity: u32,
}

impl Table {
    /// An empty table for at most `capacity` flows. The seed makes hash collisions unpredictable from outside.
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self {
            memory: Arc::new(Memory::new(capacity)),
            index: Index::new(capacity),
            hasher: Seeded::new(seed),
            count: AtomicU32::new(0),
            capacity,
        }
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
    pub fn find(&self, key: &FlowKey) -> Option<(FlowRef, Direction)> {
        let tuple = key.tuple();
        self.index.look(self.place(&tuple, key.protocol), |here| {
            let (id, direction) = here.find(|entry| self.has_key(entry, &tuple, key.protocol))?;
            self.memory.flow(id).is_alive().then(|| (self.memory.hold(id), direction))
        })
    }

    /// What this worker sees of packets with this tuple, without a lock.
    #[inline(always)]
    pub(in crate::engine) fn look(&self, tuple: &Tuple, protocol: Protocol, worker: WorkerId) -> Seen<'_> {
        let mut seen = Seen::Nothing;
        for (id, direction) in self.index.candidates(self.place(tuple, protocol)) {
            let flow = self.memory.flow(id);
            if flow.is_alive() && flow.owner() == worker && flow.has_key(direction, tuple, protocol) {
                return Seen::Own(flow, id, direction);
            }
            seen = Seen::Something;
        }
        seen
    }

    /// The flow with this number, which the caller holds or owns.
    #[inline]
    pub(in crate::engine) fn flow(&self, id: u32) -> &Flow {
        self.memory.flow(id)
    }

    /// Holds the flow with this number, which the caller owns.
    pub(in crate::engine) fn hold(&self, id: u32) -> FlowRef {
        self.memory.hold(id)
    }

    /// Where packets with this tuple are looked for.
    #[inline(always)]
    pub(in crate::engine) fn place(&self, tuple: &Tuple, protocol: Protocol) -> Place {
        let protocol = u128::from(protocol.0);
        self.index.place(match *tuple {
            Tuple::V4 { addresses, ports } => {
                self.hasher.hash(u128::from(addresses) | u128::from(ports) << 64 | protocol << 96)
            }
            Tuple::V6 { addresses: [a, b, c, d], ports } => {
                let pair = |high, low| u128::from(high) << 64 | u128::from(low);
                self.hasher.hash((pair(a, b), pair(c, d), u128::from(ports) | protocol << 32))
            }
        })
    }

    /// Where the index is read for a place, to be fetched in time.
    #[inline]
    pub(in crate::engine) fn address_of_place(&self, place: Place) -> *const u8 {
        self.index.address(place)
    }

    /// Where the flow lies that is probably the one of a place.
    #[inline(always)]
    pub(in crate::engine) fn addresses_of_flow(&self, place: Place) -> impl Iterator<Item = *const u8> {
        let lines = |flow: &Flow| {
            let first: *const u8 = std::ptr::from_ref(flow).cast();
            (0..HOT_LINES).map(move |line| first.wrapping_add(64 * line))
        };
        self.index.likely(place).into_iter().flat_map(move |id| lines(self.memory.flow(id)))
    }

    /// A new flow, not entered yet.
    ///
    /// # Errors
    /// [`Refused::Full`]: so many are held that have left the table, that there is no memory for more.
    pub(in crate::engine) fn create(&self, plan: &Plan, now: Instant) -> Result<FlowRef, Refused> {
        self.memory.create(|flow| flow.begin(plan, now)).ok_or(Refused::Full)
    }

    /// As [`Self::create`]: a copy of a flow of another table, for a rehearsal.
    pub(in crate::engine) fn copy(&self, other: &Flow) -> Option<FlowRef> {
        self.memory.create(|flow| flow.copy(other))
    }

    /// Enters a new flow under both keys: the reply key first, since no packet can carry it before the original has
    /// left; undone if the original key turns out to be taken.
    ///
    /// # Errors
    /// [`Refused`]; the flow is not alive then.
    pub(in crate::engine) fn commit(&self, flow: &FlowRef) -> Result<(), Refused> {
        let room = |count: u32| (count < self.capacity).then(|| count + 1);
        if self.count.fetch_update(Relaxed, Relaxed, room).is_err() {
            flow.bury();
            return Err(Refused::Full);
        }
        self.memory.add_holder(flow.id());
        let entered = self.enter(flow);
        if entered.is_err() {
            self.remove(flow.id());
        }
        entered
    }

    fn enter(&self, flow: &FlowRef) -> Result<(), Refused> {
        while let Some(other) = self.insert(Direction::Reply, flow)? {
            if !self.memory.flow(other.id()).has_key(
                Direction::Original,
                &flow.tuple(Direction::Original),
                flow.protocol(),
            ) {
                return Err(Refused::Conflict);
            }
            // The other worker of a race, which may be between its two insertions: help it to its second, so that
            // both know who has won.
            match self.insert(Direction::Original, &other)? {
                Some(winner) => return Err(Refused::Exists(winner)),
                None if other.is_alive() => return Err(Refused::Exists(other)),
                None => {} // it has ended meanwhile: its place is free
            }
        }
        self.insert(Direction::Original, flow)?.map_or(Ok(()), |other| Err(Refused::Exists(other)))
    }

    /// Enters a flow under one of its keys, unless a living flow has that already, and returns that. What is dead is
    /// replaced: whoever buried it will find another in its place, and leave it alone.
    fn insert(&self, direction: Direction, flow: &FlowRef) -> Result<Option<FlowRef>, Full> {
        let (tuple, protocol) = (flow.tuple(direction), flow.protocol());
        let new = (flow.id(), direction);
        let other = self.index.at(self.place(&tuple, protocol), |here| {
            let Some(taken) = here.find(|entry| self.has_key(entry, &tuple, protocol)) else {
                return here.insert(new).map(|()| None);
            };
            if taken != new && self.memory.flow(taken.0).is_alive() {
                return Ok(Some(self.memory.hold(taken.0)));
            }
            here.replace(taken, new);
            Ok(None)
        })?;
        // Whoever removed it before it came here has not found it here.
        if other.is_none() && !flow.is_alive() {
            self.take_out(direction, flow.id());
        }
        Ok(other)
    }

    /// Takes a flow out under both keys; true for the one caller that did. Its number is void then, unless it is held.
    pub(in crate::engine) fn remove(&self, id: u32) -> bool {
        if !self.memory.flow(id).bury() {
            return false;
        }
        for direction in Direction::BOTH {
            self.take_out(direction, id);
        }
        self.count.fetch_sub(1, Relaxed);
        self.memory.release(id);
        true
    }

    fn take_out(&self, direction: Direction, id: u32) {
        let flow = self.memory.flow(id);
        self.index.at(self.place(&flow.tuple(direction), flow.protocol()), |here| here.remove((id, direction)));
    }

    fn has_key(&self, (id, direction): Entry, tuple: &Tuple, protocol: Protocol) -> bool {
        self.memory.flow(id).has_key(direction, tuple, protocol)
    }

    /// Whether there is such a flow: as [`Self::for_each`], up to the first.
    pub fn any(&self, mut is_one: impl FnMut(&Listed<'_>) -> bool) -> bool {
        self.index.any(|(id, direction)| {
            let listed = Listed { table: self, id };
            direction == Direction::Original && listed.is_alive() && is_one(&listed)
        })
    }

    /// Calls `visit` with every flow once, one shard at a time: for listings, never for a worker. While it visits, the
    /// shard is locked: `visit` must not call the table.
    pub fn for_each(&self, mut visit: impl FnMut(&Listed<'_>)) {
        self.any(|flow| {
            visit(flow);
            false
        });
    }
}

/// A flow in a listing, for as long as it is visited.
#[derive(Debug)]
pub struct Listed<'a> {
    table: &'a Table,
    id: u32,
}

impl Listed<'_> {
    /// Holds the flow for longer.
    pub fn hold(&self) -> FlowRef {
        self.table.memory.hold(self.id)
    }
}

impl std::ops::Deref for Listed<'_> {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        self.table.memory.flow(self.id)
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod model;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
