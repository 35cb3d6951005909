//! Where flows are by their keys: a hash index that is written under locks, a thousandth of it each, and that a flow's
//! owner reads without.
//!
//! An entry is a tag and a number: what the flow is, its record says. Entries never move, so whoever reads without the lock
//! misses none that is there throughout; and one that he finds, and that is of a flow of his own, stays while he reads,
//! because only he would take it out.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::key::Direction;
use super::memory::on_heap;
use super::sync::{AtomicU64, Mutex};

/// Entries in a bucket, which is a cache line.
const SLOTS: usize = 7;
/// Buckets of a shard: 16 KiB, which are made at once, and as much as a listing locks. For the schedule explorer one shard
/// of one bucket, so that all keys meet.
const BUCKETS: usize = if cfg!(feature = "shuttle") { 1 } else { 256 };
/// How many keys there are in a shard if the index is as full as it may be: three slots of four are taken then, and one
/// key of thirty has to go to the next bucket.
const KEYS: u64 = 1_344;

/// The index of a table.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[Shard]>,
}

#[derive(Debug, Default)]
struct Shard {
    lock: Mutex<()>,
    buckets: OnceLock<Box<Buckets>>,
}

type Buckets = [Bucket; BUCKETS];

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    slots: [AtomicU64; SLOTS],
    /// How many keys whose first bucket this is, or that came by, are in a later one.
    passed: AtomicU64,
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Place {
    shard: usize,
    bucket: usize,
    tag: u64,
}

/// What is found at a place: a flow's number, and which of its keys it was entered under.
pub(super) type Entry = (u32, Direction);

/// No slot is free where one is needed.
#[derive(Debug)]
pub(super) struct Full;

impl Index {
    /// For so many flows, under two keys each.
    pub(super) fn new(flows: u32) -> Self {
        let shards = if cfg!(feature = "shuttle") { 1 } else { (u64::from(flows) * 2).div_ceil(KEYS).max(1) };
        Self { shards: (0..shards).map(|_| Shard::default()).collect() }
    }

    /// Where a key with this hash belongs.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the high half of the product is below the number of shards")]
    pub(super) fn place(&self, hash: u64) -> Place {
        let shard = ((hash >> 32) * self.shards.len() as u64) >> 32;
        Place { shard: shard as usize, bucket: hash as usize % BUCKETS, tag: (hash >> 8) & TAG | 1 }
    }

    /// What may be the entry of a key that belongs here, without the lock.
    #[inline(always)]
    pub(super) fn candidates(&self, place: Place) -> Candidates<'_> {
        Candidates { buckets: self.shards[place.shard].buckets.get().map(|buckets| &**buckets), place, n: 0, slot: 0 }
    }

    /// Where the entries of a place lie, to be fetched in time.
    #[inline]
    pub(super) fn address(&self, place: Place) -> *const u8 {
        self.shards[place.shard]
            .buckets
            .get()
            .map_or(std::ptr::null(), |buckets| (&raw const buckets[place.bucket % BUCKETS]).cast())
    }

    /// The number of the flow that is probably what would be found at a place.
    #[inline(always)]
    pub(super) fn likely(&self, place: Place) -> Option<u32> {
        let bucket = self.shards[place.shard].buckets.get()?.get(place.bucket)?;
        let slot = bucket.slots.iter().map(|slot| slot.load(Relaxed)).find(|slot| slot >> TAG_SHIFT == place.tag)?;
        Some(entry(slot).0)
    }

    /// Does something at a place, under the lock.
    pub(super) fn at<T>(&self, place: Place, act: impl FnOnce(&Locked<'_>) -> T) -> T {
        let shard = &self.shards[place.shard];
        let buckets = shard.buckets.get_or_init(|| on_heap(Bucket::default));
        let _guard = shard.lock.lock().expect("nobody panics under the lock");
        act(&Locked { buckets, place })
    }

    /// As [`Self::at`], unless nothing was ever in this shard: who only looks makes no memory.
    pub(super) fn look<T>(&self, place: Place, act: impl FnOnce(&Locked<'_>) -> Option<T>) -> Option<T> {
        let shard = &self.shards[place.shard];
        let buckets = shard.buckets.get()?;
        let _guard = shard.lock.lock().expect("nobody panics under the lock");
        act(&Locked { buckets, place })
    }

    /// Calls `visit` with all entries, under the lock of one shard at a time, up to the first for which it is true.
    pub(super) fn any(&self, mut visit: impl FnMut(Entry) -> bool) -> bool {
        self.shards.iter().any(|shard| {
            let Some(buckets) = shard.buckets.get() else { return false };
            let _guard = shard.lock.lock().expect("nobody panics under the lock");
            let slots = buckets.iter().flat_map(|bucket| &bucket.slots).map(|slot| slot.load(Relaxed));
            slots.filter(|slot| *slot != 0).any(|slot| visit(entry(slot)))
        })
    }

    /// How many shards have memory.
    #[cfg(all(test, not(feature = "shuttle")))]
    pub(super) fn shards_made(&self) -> usize {
        self.shards.iter().filter(|shard| shard.buckets.get().is_some()).count()
    }

    /// Whether no key is said to be in another bucket than its first.
    #[cfg(all(test, not(feature = "shuttle")))]
    pub(super) fn is_untouched(&self) -> bool {
        let buckets = self.shards.iter().filter_map(|shard| shard.buckets.get());
        buckets.flat_map(|buckets| buckets.iter()).all(|bucket| bucket.passed.load(Relaxed) == 0)
    }
}

/// Entries with the tag of a place, from that on.
pub(super) struct Candidates<'a> {
    buckets: Option<&'a Buckets>,
    place: Place,
    /// How many buckets have been gone through, and how many slots of the next.
    n: usize,
    slot: usize,
}

impl Iterator for Candidates<'_> {
    type Item = Entry;

    #[inline(always)]
    fn next(&mut self) -> Option<Entry> {
        let buckets = self.buckets?;
        while self.n < BUCKETS {
            let bucket = &buckets[(self.place.bucket + self.n) % BUCKETS];
            while let Some(slot) = bucket.slots.get(self.slot) {
                self.slot += 1;
                let slot = slot.load(Acquire);
                if slot >> TAG_SHIFT == self.place.tag {
                    return Some(entry(slot));
                }
            }
            if bucket.passed.load(Relaxed) == 0 {
                return None;
            }
            (self.n, self.slot) = (self.n + 1, 0);
        }
        None
    }
}

/// A place, and the lock of its shard.
pub(super) struct Locked<'a> {
    buckets: &'a Buckets,
    place: Place,
}

impl Locked<'_> {
    /// The first entry here that is the one.
    pub(super) fn find(&self, is: impl Fn(Entry) -> bool) -> Option<Entry> {
        self.position(is).map(|(n, slot)| entry(self.bucket(n).slots[slot].load(Relaxed)))
    }

    /// Enters a flow.
    ///
    /// # Errors
    /// [`Full`]: by so bad luck that somebody must have known the seed.
    pub(super) fn insert(&self, new: Entry) -> Result<(), Full> {
        let free = |bucket: &Bucket| bucket.slots.iter().position(|slot| slot.load(Relaxed) == 0);
        let (n, slot) = (0..BUCKETS).find_map(|n| Some((n, free(self.bucket(n))?))).ok_or(Full)?;
        for passed in (0..n).map(|n| &self.bucket(n).passed) {
            passed.store(passed.load(Relaxed) + 1, Relaxed);
        }
        // After this, and only then, its owner may find it without the lock, and all that was written before.
        self.bucket(n).slots[slot].store(packed(new, self.place.tag), Release);
        Ok(())
    }

    /// Puts an entry in the place of one that is there.
    pub(super) fn replace(&self, old: Entry, new: Entry) {
        if let Some((n, slot)) = self.position(|entry| entry == old) {
            self.bucket(n).slots[slot].store(packed(new, self.place.tag), Release);
        }
    }

    /// Takes an entry out, if it is there.
    pub(super) fn remove(&self, old: Entry) {
        let Some((n, slot)) = self.position(|entry| entry == old) else { return };
        self.bucket(n).slots[slot].store(0, Relaxed);
        for passed in (0..n).map(|n| &self.bucket(n).passed) {
            passed.store(passed.load(Relaxed) - 1, Relaxed);
        }
    }

    fn position(&self, is: impl Fn(Entry) -> bool) -> Option<(usize, usize)> {
        for n in 0..BUCKETS {
            let bucket = self.bucket(n);
            let found = bucket
                .slots
                .iter()
                .map(|slot| slot.load(Relaxed))
                .position(|slot| slot >> TAG_SHIFT == self.place.tag && is(entry(slot)));
            if let Some(slot) = found {
                return Some((n, slot));
            }
            if bucket.passed.load(Relaxed) == 0 {
                return None;
            }
        }
        None
    }

    /// The nth from the place on.
    fn bucket(&self, n: usize) -> &Bucket {
        &self.buckets[(self.place.bucket + n) % BUCKETS]
    }
}

/// A slot: 32 bits of the hash, of which the last is always 1, the direction, and the number; 0 if it is empty.
const TAG_SHIFT: u32 = 32;
const TAG: u64 = 0xffff_ffff;
const REPLY: u64 = 1 << 31;

fn packed((id, direction): Entry, tag: u64) -> u64 {
    let reply = if direction == Direction::Reply { REPLY } else { 0 };
    tag << TAG_SHIFT | reply | u64::from(id)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half of a slot")]
const fn entry(slot: u64) -> Entry {
    let direction = if slot & REPLY == 0 { Direction::Original } else { Direction::Reply };
    (slot as u32 & !(1 << 31), direction)
}
