//! A worker's own memory of its flows: found without a lock, and never the truth.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::flow::{Direction, Flow, FlowKey};

/// Slots that one key may be in.
const WAYS: usize = 4;

/// One cache line of them.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Set([Slot; WAYS]);

/// A fixed-size cache of flows by key. It never grows and never allocates; a flow that falls out is found again in the
/// table. Entries of flows that have left the table are never returned.
#[derive(Debug)]
pub struct FlowCache {
    sets: Box<[Set]>,
    hasher: FixedState,
}

/// A key's set, and its tag there.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    set: usize,
    tag: u32,
}

/// The tag spares most misses the look into the flow.
#[derive(Clone, Debug, Default)]
struct Slot {
    tag: u32,
    flow: Option<Arc<Flow>>,
}

impl FlowCache {
    /// A cache for about this many flows (both their keys).
    pub fn new(flows: usize, seed: u64) -> Self {
        let sets = (flows * 2 / WAYS).next_power_of_two();
        Self { sets: vec![Set::default(); sets].into(), hasher: FixedState::with_seed(seed) }
    }

    /// The flow of packets with this key.
    #[inline]
    pub fn find(&self, key: &FlowKey) -> Option<(&Arc<Flow>, Direction)> {
        let Place { set, tag } = self.place(key);
        for slot in &self.sets[set].0 {
            if slot.tag == tag
                && let Some(flow) = &slot.flow
                && let Some(direction) = flow.direction(key)
                && flow.is_alive()
            {
                return Some((flow, direction));
            }
        }
        None
    }

    /// Remembers the flow under one of its keys, in place of a dead entry, an empty one, or the oldest of the set.
    pub fn insert(&mut self, key: &FlowKey, flow: &Arc<Flow>) {
        let Place { set, tag } = self.place(key);
        let ways = &mut self.sets[set].0;
        let free = ways.iter().position(|slot| slot.flow.as_ref().is_none_or(|flow| !flow.is_alive()));
        // Entries move towards the end of their set as newer ones come in.
        let victim = free.unwrap_or(WAYS - 1);
        ways[..=victim].rotate_right(1);
        ways[0] = Slot { tag, flow: Some(Arc::clone(flow)) };
    }

    /// Forgets the flow under this key: a flow that is gone shall not keep its memory until its slot is needed.
    pub fn remove(&mut self, key: &FlowKey, flow: &Arc<Flow>) {
        let Place { set, .. } = self.place(key);
        let of_flow = |slot: &&mut Slot| slot.flow.as_ref().is_some_and(|cached| Arc::ptr_eq(cached, flow));
        for slot in self.sets[set].0.iter_mut().filter(of_flow) {
            *slot = Slot::default();
        }
    }

    /// Where a key belongs.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the hash is split: high half for the tag, low bits for the set"
    )]
    pub fn place(&self, key: &FlowKey) -> Place {
        let hash = self.hasher.hash_one(key);
        Place { set: hash as usize & (self.sets.len() - 1), tag: (hash >> 32) as u32 }
    }

    /// Where the slots of a place lie, to be fetched in time.
    #[inline]
    pub fn address_of_set(&self, place: Place) -> *const u8 {
        (&raw const self.sets[place.set]).cast()
    }

    /// Where the flows lie that may be the one of a place: seldom more than one.
    #[inline]
    pub fn addresses_of_flows(&self, place: Place) -> impl Iterator<Item = *const u8> {
        let tagged = self.sets[place.set].0.iter().filter(move |slot| slot.tag == place.tag);
        tagged.filter_map(|slot| slot.flow.as_ref()).map(|flow| Arc::as_ptr(flow).cast())
    }
}
