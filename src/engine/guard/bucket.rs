//! Token buckets, as one number: the time at which the bucket will be full again (the generic cell rate algorithm, ITU-T
//! I.371). Each event moves it by one interval; it may lie ahead by as much as the burst allows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytemuck::Zeroable;

use crate::config::Rate;
use crate::engine::Instant;

/// How fast, and how much at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// What one event costs, nanoseconds.
    interval: u64,
    /// How far the bucket may be from full before an event, nanoseconds.
    slack: u64,
}

impl Pace {
    const fn new(interval: u64, burst: u64) -> Self {
        Self { interval, slack: interval * (burst - 1) }
    }

    /// No bucket of this pace is further from full.
    pub(super) const fn most_debt(self) -> u64 {
        self.slack + self.interval
    }

    /// The debt after one more event, if it may come: both are times until the bucket is full, nanoseconds.
    pub(super) fn take(self, debt: u64) -> Option<u64> {
        (debt <= self.slack).then_some(debt + self.interval)
    }
}

impl From<Rate> for Pace {
    fn from(rate: Rate) -> Self {
        Self::new(rate.interval(), rate.burst().into())
    }
}

/// Nanoseconds since the driver's start.
pub(super) fn nanos(now: Instant) -> u64 {
    now.as_micros().saturating_mul(1_000)
}

/// A bucket of one worker.
#[derive(Debug)]
pub(in crate::engine) struct TokenBucket {
    pace: Pace,
    full_at: u64,
}

impl TokenBucket {
    /// `rate` events a second on average, `burst` at once.
    pub(in crate::engine) const fn new(rate: u64, burst: u64) -> Self {
        Self { pace: Pace::new(1_000_000_000 / rate, burst), full_at: 0 }
    }

    /// Takes a token, if there is one.
    pub(in crate::engine) fn take(&mut self, now: Instant) -> bool {
        let now = nanos(now);
        let debt = self.pace.take(self.full_at.saturating_sub(now));
        self.full_at = debt.map_or(self.full_at, |debt| now.saturating_add(debt));
        debt.is_some()
    }
}

/// A bucket that all workers take from.
#[derive(Debug, Default, Zeroable)]
pub(super) struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// Takes a token, if there is one.
    pub(super) fn take(&self, pace: Pace, now: Instant) -> bool {
        let now = nanos(now);
        let after = |full_at: u64| pace.take(full_at.saturating_sub(now)).map(|debt| now.saturating_add(debt));
        self.0.fetch_update(Relaxed, Relaxed, after).is_ok()
    }

    /// Is full again.
    pub(super) fn refill(&self) {
        self.0.store(0, Relaxed);
    }

    /// As full as the other one. A bucket that was never taken from is not written to.
    pub(super) fn set(&self, other: &Self) {
        let full_at = other.0.load(Relaxed);
        if full_at > 0 {
            self.0.store(full_at, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(10, 10);
        let at = |millis: u64| Instant::from_micros(5_000_000 + millis * 1000);
        assert_eq!((0..30).filter(|_| bucket.take(at(0))).count(), 10);
        assert!(!bucket.take(at(99)));
        assert!(bucket.take(at(100)));
        assert!(!bucket.take(at(100)));
        assert_eq!((0..30).filter(|_| bucket.take(at(60_000))).count(), 10);
    }

    #[test]
    fn a_shared_bucket_keeps_its_rate_over_a_long_time() {
        for (rate, seconds, expected) in [
            (Rate { events: 300_000, seconds: 1 }, 2, 3 * 300_000),
            (Rate { events: 90, seconds: 60 }, 600, 900 + 1),
            (Rate { events: 1, seconds: 3600 }, 7200, 3),
        ] {
            let bucket = SharedBucket::default();
            let steps = 1_000_000_u64;
            let at = |n| Instant::from_micros(7_000_000 + n * seconds);
            let taken: u64 =
                (0..=steps).map(|n| (0..2).filter(|_| bucket.take(rate.into(), at(n))).count() as u64).sum();
            assert!(taken.abs_diff(expected) <= 1 + expected / 10_000, "{rate:?}: {taken}, not {expected}");
        }
    }
}
