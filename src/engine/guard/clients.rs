//! A bucket for each client: a table of fixed size, in which whoever owes least is forgotten.
//!
//! One word a bucket, so that all workers share the table without a lock: a client's connections spread over them, and
//! its limit is one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::bucket::{Pace, nanos};
use crate::config::ServiceId;
use crate::engine::Instant;
use crate::engine::seeded::Seeded;
use crate::wire::Address;

/// Places: 1 MiB.
const BUCKETS: usize = 1 << 17;
/// Places that one client may have its bucket in: one cache line.
const WAYS: usize = 8;
/// Tries against other workers at the same place.
const TRIES: usize = 8;
/// Unit of the time in a bucket, nanoseconds.
const TICK: u64 = 64;
/// Bits of that time: it wraps after 13 days.
const TIME_BITS: u32 = 44;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// Buckets of those clients that owe most.
///
/// Where there is no place for another client, the one is forgotten that owes least, and may begin again with a full
/// bucket. So a flood from random sources wears the limit down for those who stay far below it, and never locks anybody
/// out: a client that is not known has all its tokens.
#[derive(Debug)]
pub(super) struct Clients {
    /// The high bits tell clients apart, the low ones are the time at which the bucket will be full.
    buckets: Box<[AtomicU64]>,
    hasher: Seeded,
}

impl Clients {
    /// All buckets full. The seed makes it unpredictable which clients meet.
    pub(super) fn new(seed: u64) -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect();
        Self { buckets, hasher: Seeded::new(seed) }
    }

    /// Takes a token of this client at this service, if it has one.
    pub(super) fn take(&self, service: ServiceId, client: Address, pace: Pace, now: Instant) -> bool {
        let hash = self.hasher.hash((service, network(client)));
        let tag = hash & !TIME;
        #[expect(clippy::cast_possible_truncation, reason = "taken modulo the number of buckets")]
        let set = hash as usize & (BUCKETS - 1) & !(WAYS - 1);
        let ways = &self.buckets[set..set + WAYS];
        let now = nanos(now) / TICK;
        for _ in 0..TRIES {
            let (bucket, old) = choose(ways, tag, now);
            let debt = if old & !TIME == tag { debt(old, now) * TICK } else { 0 };
            // No client owes more than the pace lets it: a time beyond is one long past.
            let debt = if debt > pace.most_debt() + TICK { 0 } else { debt };
            let Some(debt) = pace.take(debt) else { return false };
            // Rounded up, lest a rate of less than a tick be none.
            let new = tag | (now + debt.div_ceil(TICK)) & TIME;
            if bucket.compare_exchange(old, new, Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        true
    }
}

impl Clone for Clients {
    fn clone(&self) -> Self {
        let buckets = self.buckets.iter().map(|bucket| AtomicU64::new(bucket.load(Relaxed))).collect();
        Self { buckets, hasher: self.hasher.clone() }
    }
}

/// Who shares a bucket: an IPv6 client has its whole /64 to choose addresses from (RFC 4291 2.5.1).
fn network(client: Address) -> u128 {
    let bits = u128::from_be_bytes(*client.octets());
    if client.is_v4() { bits } else { bits >> 64 << 64 }
}

/// The client's bucket, or else that of whoever owes least.
fn choose(ways: &[AtomicU64], tag: u64, now: u64) -> (&AtomicU64, u64) {
    let all = ways.iter().map(|bucket| (bucket, bucket.load(Relaxed)));
    let best = all.min_by_key(|(_, word)| (word & !TIME != tag, debt(*word, now)));
    best.expect("a set has places")
}

/// How far the bucket is from full, ticks. What lies ahead by half of all time or more is past.
const fn debt(word: u64, now: u64) -> u64 {
    let debt = word.wrapping_sub(now) & TIME;
    if debt <= TIME / 2 { debt } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    const SERVICE: ServiceId = ServiceId(0);
    const START: u64 = 1_000_000_000;

    fn pace(events: u32, seconds: u32) -> Pace {
        Rate { events, seconds }.into()
    }

    fn address(n: u32) -> Address {
        Address::v4(n.to_be_bytes())
    }

    /// Ten million strangers a second: of those that owe something, ten times as many as there are buckets.
    #[test]
    fn strangers_lock_nobody_out_and_let_nobody_off() {
        let clients = Clients::new(7);
        let (greedy, pace) = (address(1), pace(10, 1));
        let (mut asked, mut admitted) = (0, 0);
        for n in 0..5_000_000 {
            let now = Instant::from_micros(START + u64::from(n) / 10);
            assert!(clients.take(SERVICE, address(1_000 + n), pace, now), "a client that comes for the first time");
            if n % 1_000 == 0 {
                asked += 1;
                admitted += u32::from(clients.take(SERVICE, greedy, pace, now));
            }
        }
        // Ten at once and five in half a second; a few more if it is forgotten while it owes little.
        assert_eq!(asked, 5_000);
        assert!((14..=20).contains(&admitted), "{admitted}");
    }

    #[test]
    fn services_count_their_clients_apart() {
        let (clients, now) = (Clients::new(7), Instant::from_micros(START));
        let admitted = |service| (0..100).filter(|_| clients.take(service, address(1), pace(10, 1), now)).count();
        assert_eq!([admitted(SERVICE), admitted(ServiceId(1))], [10, 10]);
    }

    #[test]
    fn a_client_that_comes_back_after_any_time_has_its_tokens() {
        let hour = 3_600_000_000;
        for hours in [1, 24, 150, 200, 312, 400, 1_000] {
            let (clients, start) = (Clients::new(7), Instant::from_micros(START));
            while clients.take(SERVICE, address(1), pace(10, 1), start) {}
            assert!(
                clients.take(SERVICE, address(1), pace(10, 1), Instant::from_micros(START + hours * hour)),
                "{hours}"
            );
        }
    }

    #[test]
    fn fast_and_slow_rates_are_kept() {
        for (events, seconds, expected) in [(1_000_000, 1, 1_500_000), (90_000, 1, 135_000), (1, 3600, 1), (30, 60, 1)]
        {
            let clients = Clients::new(7);
            let mut admitted = 0_u64;
            for n in 0..500_000 {
                let now = Instant::from_micros(START + n);
                let take = |_: &u32| clients.take(SERVICE, address(1), pace(events, seconds), now);
                admitted += (0..4).take_while(take).count() as u64;
            }
            // A tick of 64 ns is the least difference between two rates.
            let least = expected - expected / 10;
            assert!((least..=expected).contains(&admitted), "{events}/{seconds} s: {admitted}, not {expected}");
        }
    }
}
