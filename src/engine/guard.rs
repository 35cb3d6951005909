//! What is refused whatever the service: at the door for every packet, and before a flow for its first.

use super::Instant;
use super::verdict::DropReason;
use crate::config::Snapshot;
use crate::wire::{Endpoint, Packet};

/// For every packet.
#[inline]
pub(super) fn admit(packet: &Packet<'_>) -> Result<(), DropReason> {
    // R14, R86: nobody chooses his own way through a gateway.
    if packet.header().source_routed { Err(DropReason::SourceRouting) } else { Ok(()) }
}

/// For a packet of no known flow: could it be from where it says (R16-R18, R38)?
pub(super) fn admit_new(source: Endpoint, destination: Endpoint, snapshot: &Snapshot) -> Result<(), DropReason> {
    if !source.address.is_host() || !destination.address.is_host() {
        return Err(DropReason::Martian);
    }
    if snapshot.is_own(source.address) {
        return Err(DropReason::SpoofedSource);
    }
    if source.port == 0 || destination.port == 0 {
        return Err(DropReason::PortZero);
    }
    Ok(())
}

/// A token bucket in microseconds: each event costs `interval`, at most `burst` of them are saved up.
#[derive(Debug)]
pub(super) struct TokenBucket {
    interval: u64,
    burst: u64,
    /// When the bucket would be full again.
    full_at: u64,
}

impl TokenBucket {
    /// `rate` events a second on average, `burst` at once.
    pub(super) const fn new(rate: u64, burst: u64) -> Self {
        Self { interval: 1_000_000 / rate, burst, full_at: 0 }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let start = self.full_at.max(now.as_micros());
        if start - now.as_micros() > self.interval * (self.burst - 1) {
            return false;
        }
        self.full_at = start + self.interval;
        true
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
}
