//! The way to a backend of a DSR service: its tunnel, and what the network has said of it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Instant;
use super::random::another;
use crate::wire::tunnel::{Entry, LEAST_V6, Tunnel};
use crate::wire::{Family, Packet};

/// How long a path MTU is believed that an ICMP error has told (RFC 1191 6.3, RFC 8201 4): then the larger one is tried.
const BELIEVED_FOR: Duration = Duration::from_secs(600);
/// Less than what every IPv4 host takes (RFC 791 3.1) is not believed: whoever knows both ends of the tunnel can forge an
/// error, quoting a packet of his own flow, and shall not cut all others' packets to pieces (RFC 5927 7.2).
const LEAST_V4: u16 = 576;

/// The way to one backend, shared by all workers and by the flows that take it.
#[derive(Debug)]
pub struct Path {
    tunnel: Tunnel,
    /// Of the gateway's own link.
    mtu: u16,
    /// The path MTU that was told, in the upper sixteen bits, and until which microsecond it is believed; 0: none.
    learned: AtomicU64,
    /// The last ICMP error that said that a packet did not arrive: its type and code in the upper sixteen bits, and the
    /// microsecond it came in; 0: none. Type 0 is no error.
    lost: AtomicU64,
    next_id: AtomicU32,
}

impl Path {
    /// Nothing is known of the path but the MTU of its first link. Identifications begin at a number that depends on
    /// `nth`: the ways of several services to one backend must not count in step, in 16 bits neither.
    #[expect(clippy::cast_possible_truncation, reason = "some bits are enough")]
    pub fn new(tunnel: Tunnel, mtu: u16, nth: u16) -> Self {
        let next_id = AtomicU32::new(another(nth.into()) as u32);
        Self { tunnel, mtu, learned: AtomicU64::new(0), lost: AtomicU64::new(0), next_id }
    }

    /// The same way for a rehearsal: what is known of it now; what is learned there is not learned here.
    pub(super) fn rehearsed(&self) -> Self {
        Self {
            tunnel: self.tunnel,
            mtu: self.mtu,
            learned: AtomicU64::new(self.learned.load(Relaxed)),
            lost: AtomicU64::new(self.lost.load(Relaxed)),
            next_id: AtomicU32::new(self.next_id.load(Relaxed)),
        }
    }

    /// Whether the other one begins as this one did.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.tunnel == other.tunnel && self.mtu == other.mtu
    }

    /// Its tunnel.
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// The largest outer packet that is expected to pass, bytes.
    #[inline]
    pub fn mtu(&self, now: Instant) -> u16 {
        match self.learned.load(Relaxed) {
            0 => self.mtu,
            learned => Self::believed(learned, now).unwrap_or(self.mtu),
        }
    }

    /// For how long still a path MTU is believed that an ICMP error has told, if one has.
    pub fn learned_for(&self, now: Instant) -> Option<Duration> {
        let learned = self.learned.load(Relaxed);
        Self::believed(learned, now).map(|_| Instant::from_micros(learned & UNTIL).since(now))
    }

    /// Takes note of an ICMP error that says that a packet did not arrive (R104).
    pub(super) fn lost(&self, [kind, code]: [u8; 2], now: Instant) {
        let told = u64::from(u16::from_be_bytes([kind, code]));
        self.lost.store(told << UNTIL.count_ones() | now.as_micros() & UNTIL, Relaxed);
    }

    /// Type and code of the last such error, and when it came.
    pub fn last_loss(&self) -> Option<([u8; 2], Instant)> {
        let lost = self.lost.load(Relaxed);
        let told = u16::try_from(lost >> UNTIL.count_ones()).expect("sixteen bits are left");
        (lost != 0).then(|| (told.to_be_bytes(), Instant::from_micros(lost & UNTIL)))
    }

    /// Takes note of what an ICMP error says: true if that is less than was known. What no network says is ignored (R103).
    pub fn learn(&self, mtu: u32, now: Instant) -> bool {
        let least = match self.tunnel.family() {
            Family::V4 => LEAST_V4,
            Family::V6 => LEAST_V6,
        };
        let Ok(mtu) = u16::try_from(mtu) else { return false };
        if mtu < least || mtu >= self.mtu(now) {
            return false;
        }
        let until = (now + BELIEVED_FOR).as_micros() & UNTIL;
        self.learned.store(u64::from(mtu) << UNTIL.count_ones() | until, Relaxed);
        true
    }

    /// The way in for a packet of a flow with this entropy.
    #[inline]
    pub fn entry(&self, packet: &Packet<'_>, entropy: u16, now: Instant) -> Entry {
        let path_mtu = self.mtu(now);
        // Only what may be cut on its way needs an identification of its own (R97), and so does each segment.
        let whole = packet.largest_segment() <= usize::from(self.tunnel.room(path_mtu));
        let segments = || u32::try_from(packet.segments()).expect("below 64 Ki");
        let id = if whole { 0 } else { self.next_id.fetch_add(segments(), Relaxed) };
        Entry { tunnel: self.tunnel, path_mtu, entropy, id }
    }

    fn believed(learned: u64, now: Instant) -> Option<u16> {
        let mtu = u16::try_from(learned >> UNTIL.count_ones()).expect("sixteen bits are left");
        (now.as_micros() < learned & UNTIL).then_some(mtu)
    }
}

/// Microseconds in 48 bits: nine years since the clock began.
const UNTIL: u64 = (1 << 48) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Address;
    use crate::wire::tunnel::Encapsulation;

    fn path(source: Address, destination: Address) -> Path {
        Path::new(Tunnel { encapsulation: Encapsulation::Gre, source, destination }, 1500, 0)
    }

    #[test]
    fn r103_what_no_network_says_is_ignored_and_the_rest_believed_for_ten_minutes() {
        let v4 = path(Address::v4([10, 99, 0, 10]), Address::v4([10, 0, 0, 1]));
        let v6 = path(Address::v6([0xfd; 16]), Address::v6([0xfc; 16]));
        let now = Instant::from_micros(1_000_000);
        for (path, least) in [(v4, LEAST_V4), (v6, LEAST_V6)] {
            for nonsense in [0, u32::from(least) - 1, 1500, 9000, 70_000] {
                assert!(!path.learn(nonsense, now), "{nonsense}");
            }
            assert_eq!(path.mtu(now), 1500);
            assert!(path.learn(1400, now) && path.learn(least.into(), now) && !path.learn(1400, now));
            assert_eq!(path.mtu(now + BELIEVED_FOR - Duration::from_micros(1)), least);
            assert_eq!(path.learned_for(now), Some(BELIEVED_FOR));
            assert_eq!(path.learned_for(now + BELIEVED_FOR), None);
            assert_eq!(path.mtu(now + BELIEVED_FOR), 1500);
        }
    }
}
