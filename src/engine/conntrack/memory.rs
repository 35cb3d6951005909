//! The memory of all flows: records with numbers, which are used again when nobody holds them any more.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, OnceLock};

use super::flow::Flow;
use super::list::Strand;
use super::sync::{AtomicU32, AtomicU64};

/// Records that are made at once: to make them is a pause of a worker of some twenty microseconds.
const CHUNK: u32 = 256;

/// Flows that fragments hold, at most: 1,024 datagrams of 64 workers.
const HELD_BY_FRAGMENTS: u64 = 1 << 16;

type Chunk = [Flow; CHUNK as usize];

/// An array that never was on the stack, which may be small: under the model checker it is.
pub(super) fn on_heap<T: fmt::Debug, const N: usize>(one: impl Fn() -> T) -> Box<[T; N]> {
    let all: Box<[T]> = (0..N).map(|_| one()).collect();
    all.try_into().expect("there are as many as were made")
}

/// Records with numbers from 0. They are made as they are needed, and never unmade: the memory is that of the most flows
/// there have been.
#[derive(Debug)]
pub(super) struct Memory {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
    /// How many numbers have been given out for the first time.
    fresh: AtomicU32,
    /// The first of the numbers that were given back, each of which knows the next; in the upper half a count of changes,
    /// lest whoever takes the first puts an old second in its place.
    free: AtomicU64,
}

/// A flow that stays what it is while this is held, even if it leaves the table meanwhile.
pub struct FlowRef {
    memory: Arc<Memory>,
    id: u32,
}

/// No number.
const NOTHING: u32 = u32::MAX;

impl Memory {
    /// Room for `capacity` flows, and for as many again that have left the table while a listing holds them, and so on;
    /// however few that are, for those that are held by the datagrams in work.
    pub(super) fn new(capacity: u32) -> Self {
        let chunks = (u64::from(capacity) * 4 + HELD_BY_FRAGMENTS).div_ceil(CHUNK.into());
        let chunks = chunks.min(u64::from(u32::MAX >> 1) / u64::from(CHUNK));
        let free = AtomicU64::new(NOTHING.into());
        Self { chunks: (0..chunks).map(|_| OnceLock::new()).collect(), fresh: AtomicU32::new(0), free }
    }

    /// The record with this number.
    #[inline(always)]
    pub(super) fn flow(&self, id: u32) -> &Flow {
        let chunk = self.chunks[(id / CHUNK) as usize].get().expect("a number is given out when there is its record");
        &chunk[(id % CHUNK) as usize]
    }

    /// Makes a flow of a free record, which the caller holds; `None` if there is no more room.
    pub(super) fn create(self: &Arc<Self>, make: impl FnOnce(&Flow)) -> Option<FlowRef> {
        let id = self.take_free().or_else(|| self.take_fresh())?;
        let flow = self.flow(id);
        make(flow);
        flow.holders.store(1, Relaxed);
        Some(FlowRef { memory: Arc::clone(self), id })
    }

    /// Holds a flow that somebody else holds for as long as this call lasts.
    pub(super) fn hold(self: &Arc<Self>, id: u32) -> FlowRef {
        self.add_holder(id);
        FlowRef { memory: Arc::clone(self), id }
    }

    /// As [`Self::hold`], without a handle: [`Self::release`] is to be called for it.
    pub(super) fn add_holder(&self, id: u32) {
        self.flow(id).holders.fetch_add(1, Relaxed);
    }

    pub(super) fn release(&self, id: u32) {
        let flow = self.flow(id);
        if flow.holders.fetch_sub(1, AcqRel) == 1 {
            flow.end();
            self.put_free(id);
        }
    }

    /// How many records somebody holds, while nobody takes or gives back any.
    #[cfg(all(test, not(feature = "shuttle")))]
    pub(super) fn held(&self) -> u32 {
        let first = Some(halves(self.free.load(Relaxed)).1).filter(|id| *id != NOTHING);
        let after = |id: &u32| Some(self.flow(*id).link(Strand::Wheel).after()).filter(|id| *id != NOTHING);
        let free = std::iter::successors(first, after).count();
        self.fresh.load(Relaxed) - u32::try_from(free).expect("fewer than were made")
    }

    fn take_fresh(&self) -> Option<u32> {
        let most = u32::try_from(self.chunks.len()).ok()? * CHUNK;
        let id = self.fresh.fetch_update(Relaxed, Relaxed, |id| (id < most).then(|| id + 1)).ok()?;
        self.chunks[(id / CHUNK) as usize].get_or_init(|| on_heap(Flow::default));
        Some(id)
    }

    fn take_free(&self) -> Option<u32> {
        let next = |free: u64| {
            let (changes, id) = halves(free);
            (id != NOTHING).then(|| whole(changes.wrapping_add(1), self.flow(id).link(Strand::Wheel).after()))
        };
        let taken = self.free.fetch_update(AcqRel, Acquire, next).ok()?;
        Some(halves(taken).1)
    }

    fn put_free(&self, id: u32) {
        let link = self.flow(id).link(Strand::Wheel);
        let mut free = self.free.load(Relaxed);
        loop {
            let (changes, first) = halves(free);
            link.set_after(first);
            match self.free.compare_exchange_weak(free, whole(changes.wrapping_add(1), id), AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => free = now,
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
const fn halves(free: u64) -> (u32, u32) {
    ((free >> 32) as u32, free as u32)
}

const fn whole(changes: u32, id: u32) -> u64 {
    (changes as u64) << 32 | id as u64
}

impl FlowRef {
    /// Its number, while it is held.
    #[inline]
    pub(in crate::engine) fn id(&self) -> u32 {
        self.id
    }
}

impl Deref for FlowRef {
    type Target = Flow;

    #[inline]
    fn deref(&self) -> &Flow {
        self.memory.flow(self.id)
    }
}

impl Clone for FlowRef {
    fn clone(&self) -> Self {
        self.memory.hold(self.id)
    }
}

impl Drop for FlowRef {
    fn drop(&mut self) {
        self.memory.release(self.id);
    }
}

impl PartialEq for FlowRef {
    /// Whether they are the same flow, not only alike.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory) && self.id == other.id
    }
}

impl Eq for FlowRef {}

impl fmt::Debug for FlowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FlowRef").field(&self.id).field(&**self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(memory: &Arc<Memory>) -> FlowRef {
        memory.create(|_| {}).unwrap()
    }

    #[test]
    fn a_record_is_used_again_when_nobody_holds_it() {
        let memory = Arc::new(Memory::new(10));
        let (one, other) = (create(&memory), create(&memory));
        let (id, again) = (one.id, one.clone());
        drop(one);
        assert_ne!(create(&memory).id, id, "it is held");
        drop(again);
        assert_eq!(create(&memory).id, id);
        drop(other);
    }

    #[test]
    fn records_end_where_the_room_does() {
        let memory = Arc::new(Memory::new(1));
        let mut held: Vec<_> = std::iter::from_fn(|| memory.create(|_| {})).collect();
        assert_eq!(held.len() % CHUNK as usize, 0);
        let mut ids: Vec<u32> = held.iter().map(FlowRef::id).collect();
        ids.dedup();
        assert_eq!(ids.len(), held.len());
        held.truncate(1);
        assert!(memory.create(|_| {}).is_some());
    }
}
