//! Whether this gateway of a pair forwards: what the heartbeat thread lets the workers do, and what they tell it.
//!
//! Atomics only. A worker asks once a batch; it is asked for a sign of life with each heartbeat.

use std::io;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;

use super::sys::Waker;
use crate::control::ha::{Epoch, Permit};
use crate::engine::{Instant, WorkerId};

/// Packets that may wait to be sent to the peer.
const RELAY_SLOTS: usize = 4096;

/// How long a worker may have to wait for the CPU: under sixteen hogs on two CPUs it was 30 ms.
const LATE: Duration = Duration::from_millis(100);

/// The permission to forward, and what workers say.
#[derive(Debug)]
pub struct Duty {
    /// Microseconds: no batch may begin at this time or later.
    until: AtomicU64,
    /// Under which epoch that is.
    epoch: AtomicU64,
    /// How often permission was given where there was none.
    lapses: AtomicU64,
    /// Packets go to the peer instead.
    relays: AtomicBool,
    /// Microseconds that a worker may be late without having to doubt what waits for it.
    stall: AtomicU64,
    workers: Box<[CachePadded<Place>]>,
    /// Packets for the peer to decide about, offload header included.
    relayed: ArrayQueue<Vec<u8>>,
    /// Wakes the heartbeat thread.
    heart: Waker,
}

#[derive(Debug, Default)]
struct Place {
    /// The epoch that the worker works by.
    seen: AtomicU64,
    /// When it last began a round, microseconds.
    ticked_at: AtomicU64,
}

/// What a worker does with the packets that it has just received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// What a gateway does.
    Forward,
    /// Nothing: the other one does it.
    Discard,
    /// Nothing: who knows how long they have waited.
    Flush,
    /// Let the other one do it.
    Relay,
}

impl Duty {
    /// Nobody may forward.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(workers: u16) -> io::Result<Self> {
        Ok(Self {
            until: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
            relays: AtomicBool::new(false),
            stall: AtomicU64::new(u64::MAX),
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
            relayed: ArrayQueue::new(RELAY_SLOTS),
            heart: Waker::new()?,
        })
    }

    /// Lets the workers forward for a while, from now on.
    pub fn permit(&self, permit: Permit, now: Instant) {
        if self.until.load(Relaxed) <= now.as_micros() {
            self.lapses.fetch_add(1, Relaxed);
        }
        self.epoch.store(permit.epoch.to_bits(), Relaxed);
        // Whoever sees the time sees the epoch, too.
        self.until.store(permit.until.as_micros(), Release);
    }

    /// Takes that back: no batch begins after this.
    pub fn stop(&self) {
        self.until.store(0, Release);
    }

    /// Whether packets go to the peer while forwarding is not permitted.
    pub fn relay(&self, so: bool) {
        self.relays.store(so, Relaxed);
    }

    /// How late a worker may be.
    pub fn set_stall(&self, stall: Duration) {
        self.stall.store(u64::try_from(stall.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The epoch that all workers work by; `None` while they differ.
    pub fn confirmed(&self) -> Option<Epoch> {
        let first = self.workers.first()?.seen.load(Acquire);
        self.workers.iter().all(|place| place.seen.load(Acquire) == first).then(|| Epoch::from_bits(first))
    }

    /// When the worker that is furthest behind has last moved; now, if that is not long ago. One that has to wait for the
    /// CPU forwards nothing that it may not, since it asks before each batch: another gateway would make nothing better.
    pub fn ticked_at(&self, now: Instant) -> Instant {
        let ticks = self.workers.iter().map(|place| place.ticked_at.load(Relaxed));
        let last = Instant::from_micros(ticks.min().unwrap_or(0));
        if now.since(last) < LATE { now } else { last }
    }

    /// The workers that have not moved since then.
    pub fn still_since(&self, then: Instant) -> impl Iterator<Item = usize> {
        let still = move |place: &Place| place.ticked_at.load(Relaxed) < then.as_micros();
        self.workers.iter().enumerate().filter(move |(_, place)| still(place)).map(|(id, _)| id)
    }

    /// A packet that is to be sent to the peer, if there is one.
    pub fn next_relayed(&self) -> Option<Vec<u8>> {
        self.relayed.pop()
    }

    /// Has the peer decide about a packet; false if too many wait already.
    pub fn hand_to_peer(&self, packet: Vec<u8>) -> bool {
        let taken = self.relayed.push(packet).is_ok();
        self.heart.wake();
        taken
    }

    /// Wakes the heartbeat thread.
    pub const fn heart(&self) -> &Waker {
        &self.heart
    }
}

/// One worker's side of it.
#[derive(Debug)]
pub struct Watch {
    duty: std::sync::Arc<Duty>,
    id: WorkerId,
    /// When this round began.
    round: Instant,
    /// The epoch that was last told.
    seen: u64,
    lapses: u64,
    /// What waits may be old.
    flushes: bool,
}

impl Watch {
    /// Of a worker that begins now.
    pub fn new(duty: std::sync::Arc<Duty>, id: WorkerId, now: Instant) -> Self {
        Self { duty, id, round: now, seen: 0, lapses: 0, flushes: false }
    }

    /// What to do with the batch that was received now; `full`: more may wait behind it. To be asked in every round, with
    /// or without packets.
    #[inline]
    pub fn order(&mut self, now: Instant, full: bool) -> Order {
        let duty = &*self.duty;
        let place = &duty.workers[usize::from(self.id.0)];
        place.ticked_at.store(now.as_micros(), Relaxed);
        let late = now.since(self.round).as_micros() > u128::from(duty.stall.load(Relaxed));
        self.round = now;
        let until = duty.until.load(Acquire);
        if now.as_micros() >= until {
            return if duty.relays.load(Relaxed) { Order::Relay } else { Order::Discard };
        }
        // A worker is woken with every heartbeat. One that was away for longer, while there was no permission for a time,
        // finds packets as old as its absence: the peer may have dealt with what was sent again.
        let lapses = duty.lapses.load(Relaxed);
        let flushes = self.flushes || (late && lapses != self.lapses);
        self.flushes = flushes && full;
        self.lapses = lapses;
        let epoch = duty.epoch.load(Relaxed);
        if epoch != self.seen {
            self.seen = epoch;
            place.seen.store(epoch, Release);
            duty.heart.wake();
        }
        if flushes { Order::Flush } else { Order::Forward }
    }

    /// The duty that is watched.
    pub fn duty(&self) -> &Duty {
        &self.duty
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn watched() -> (Arc<Duty>, Watch) {
        let duty = Arc::new(Duty::new(2).unwrap());
        duty.set_stall(Duration::from_millis(15));
        (Arc::clone(&duty), Watch::new(duty, WorkerId(0), at(0)))
    }

    fn permit(epoch: u64, until: u64) -> Permit {
        Permit { epoch: Epoch::from_bits(epoch), until: at(until) }
    }

    #[test]
    fn a_worker_forwards_as_long_as_it_may_and_not_a_microsecond_longer() {
        let (duty, mut watch) = watched();
        assert_eq!(watch.order(at(1), false), Order::Discard);
        duty.permit(permit(2, 100), at(0));
        assert_eq!(watch.order(at(99), false), Order::Forward);
        assert_eq!(watch.order(at(100), false), Order::Discard);
        duty.permit(permit(2, 200), at(0));
        assert_eq!(watch.order(at(101), false), Order::Forward);
        duty.stop();
        assert_eq!(watch.order(at(102), false), Order::Discard);
        duty.relay(true);
        assert_eq!(watch.order(at(103), false), Order::Relay);
    }

    #[test]
    fn an_epoch_is_confirmed_when_all_workers_go_by_it() {
        let (duty, mut first) = watched();
        let mut second = Watch::new(Arc::clone(&duty), WorkerId(1), at(0));
        duty.permit(permit(4, 1_000), at(0));
        assert_eq!(first.order(at(1), false), Order::Forward);
        assert_ne!(duty.confirmed(), Some(Epoch::from_bits(4)));
        assert_eq!(second.order(at(2), false), Order::Forward);
        assert_eq!(duty.confirmed(), Some(Epoch::from_bits(4)));
        assert_eq!((duty.ticked_at(at(99_000)), duty.ticked_at(at(100_001))), (at(99_000), at(1)));
        assert_eq!(duty.still_since(at(2)).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_worker_that_was_away_while_nobody_might_forward_empties_its_queue_first() {
        let (duty, mut watch) = watched();
        duty.permit(permit(2, 30_000), at(0));
        assert_eq!(watch.order(at(1_000), true), Order::Forward);
        assert_eq!(watch.order(at(29_000), true), Order::Forward, "late, but the permission has lasted");
        duty.permit(permit(2, 90_000), at(60_000));
        assert_eq!(watch.order(at(61_000), true), Order::Flush, "more waits");
        assert_eq!(watch.order(at(61_001), true), Order::Flush);
        assert_eq!(watch.order(at(61_002), false), Order::Flush, "the last of what waited");
        assert_eq!(watch.order(at(61_003), true), Order::Forward);
        duty.permit(permit(2, 200_000), at(90_001));
        assert_eq!(watch.order(at(90_002), true), Order::Flush, "late again");
        duty.stop();
        assert_eq!(watch.order(at(95_000), true), Order::Discard);
        duty.permit(permit(4, 300_000), at(95_001));
        assert_eq!(watch.order(at(95_002), false), Order::Flush, "it had not come to the end");
        assert_eq!(watch.order(at(95_003), false), Order::Forward);
        duty.stop();
        duty.permit(permit(6, 400_000), at(95_004));
        assert_eq!(watch.order(at(95_005), false), Order::Forward, "it was there all the time");
    }
}
