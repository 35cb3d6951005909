//! A flow: its two keys, where it goes, and the little of it that changes with every packet.

mod copies;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};

use super::key::{Direction, FlowKey};
use super::list::{Link, Strand};
use super::one_way;
use super::state::State;
use super::sync;
use super::tcp::{Outcome, Tracker, TrackerCell};
use super::window::Fit;
use crate::config::{BackendId, ServiceId, Timeouts};
use crate::engine::counters::Traffic;
use crate::engine::nat::Rewrite;
use crate::engine::path::Path;
use crate::engine::{Instant, WorkerId};
use crate::wire::{Protocol, TcpSegment, Translation, Tuple};

/// One flow, in three cache lines; a packet of an open connection needs the first two.
///
/// Records are used again and again (`memory`), so all of it is written through shared references. Its keys and
/// its way are written before it is entered into the table, and stay as long as anybody holds it; what changes is written
/// by its owner alone, without a lock.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Flow {
    addresses: [AtomicU64; 2],
    /// Packets and bytes from the client, and from the backend.
    pub traffic: [Traffic; 2],
    ports: [AtomicU32; 2],
    /// What its [`Rewrite`]s say: two words for each direction, or the entropy of its tunnel.
    changes: [AtomicU32; 2],

    tracker: TrackerCell,
    service: AtomicU16,
    backend: AtomicU16,
    last_seen: AtomicU32,
    protocol: AtomicU8,
    state: AtomicU8,
    owner: AtomicU8,
    kind: sync::AtomicU8,

    class: AtomicU8,
    slot: AtomicU16,
    queued_at: AtomicU32,
    opened: AtomicU32,
    pub(super) holders: sync::AtomicU32,
    links: [Link; Strand::COUNT],
    /// IPv6 addresses have no room here.
    wide: ArcSwapOption<Wide>,
    path: ArcSwapOption<Path>,
}

const _: () = assert!(cfg!(feature = "shuttle") || size_of::<Flow>() == 192, "three cache lines");

/// Cache lines of a flow that a packet needs.
pub(super) const HOT_LINES: usize = 2;

/// Addresses of both keys.
type Wide = [[u64; 4]; 2];

/// Bits of `kind`: its source port is leased; it goes by a tunnel; its addresses are those of IPv6; it has not left the
/// table.
const LEASED: u8 = 1;
const TUNNELLED: u8 = 2;
const WIDE: u8 = 4;
/// See [`Flow::is_coloured`].
const COLOURED: u8 = 8;
const ALIVE: u8 = 16;

/// What the slow path plans for a new flow.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Plan {
    pub original: FlowKey,
    pub reply: FlowKey,
    pub rewrites: [Rewrite; 2],
    /// Where [`Rewrite::Encapsulate`] leads.
    pub path: Option<Arc<Path>>,
    pub service: ServiceId,
    pub backend: BackendId,
    pub owner: WorkerId,
    /// Whether its source port is leased (full NAT), and has to be given back.
    pub leased: bool,
}

impl Flow {
    /// Makes it a flow whose first packet arrives now. Of what TCP needs, see [`Self::begin_tracking`].
    pub(super) fn begin(&self, plan: &Plan, now: Instant) {
        let mut wide = Wide::default();
        for (direction, key) in Direction::BOTH.into_iter().zip([&plan.original, &plan.reply]) {
            let tuple = key.tuple();
            match tuple {
                Tuple::V4 { addresses, .. } => self.addresses[direction as usize].store(addresses, Relaxed),
                Tuple::V6 { addresses, .. } => wide[direction as usize] = addresses,
            }
            self.ports[direction as usize].store(tuple.ports(), Relaxed);
            self.changes[direction as usize].store(plan.rewrites[direction as usize].pack(), Relaxed);
            let traffic = &self.traffic[direction as usize];
            traffic.packets.reset();
            traffic.bytes.reset();
        }
        let is_wide = !plan.original.source.address.is_v4();
        if is_wide {
            self.wide.store(Some(Arc::new(wide)));
        }
        if plan.path.is_some() {
            self.path.store(plan.path.clone());
        }
        self.service.store(plan.service.0, Relaxed);
        self.backend.store(plan.backend.0, Relaxed);
        self.owner.store(u8::try_from(plan.owner.0).expect("fewer workers than 256"), Relaxed);
        self.protocol.store(plan.original.protocol.0, Relaxed);
        self.set_state(if plan.original.protocol == Protocol::TCP { State::SynSent } else { State::Unreplied });
        self.opened.store(seconds(now), Relaxed);
        self.touch(now);
        self.class.store(0, Relaxed);
        self.slot.store(NO_SLOT, Relaxed);
        let bit = |bit, is| if is { bit } else { 0 };
        let kind = bit(LEASED, plan.leased) | bit(TUNNELLED, plan.path.is_some()) | bit(WIDE, is_wide);
        self.kind.store(kind | ALIVE, Relaxed);
    }

    /// Lets go of what it has elsewhere: nobody holds it.
    pub(super) fn end(&self) {
        if self.has(WIDE) {
            self.wide.store(None);
        }
        if self.has(TUNNELLED) {
            self.path.store(None);
        }
    }

    /// Key of the packets of one direction.
    pub fn key(&self, direction: Direction) -> FlowKey {
        FlowKey::new(&self.tuple(direction), self.protocol())
    }

    /// What stands in the packets of one direction.
    #[inline(always)]
    pub(in crate::engine) fn tuple(&self, direction: Direction) -> Tuple {
        let ports = self.ports[direction as usize].load(Relaxed);
        if !self.has(WIDE) {
            return Tuple::V4 { addresses: self.addresses[direction as usize].load(Relaxed), ports };
        }
        Tuple::V6 { addresses: self.wide_addresses(direction), ports }
    }

    #[inline(never)]
    fn wide_addresses(&self, direction: Direction) -> [u64; 4] {
        // Of a record that is being used again, whose addresses another thread is about to write, anything will do.
        self.wide.load().as_ref().map_or([0; 4], |wide| wide[direction as usize])
    }

    /// Whether packets of this direction have this key.
    #[inline(always)]
    pub(super) fn has_key(&self, direction: Direction, tuple: &Tuple, protocol: Protocol) -> bool {
        if self.ports[direction as usize].load(Relaxed) != tuple.ports() || self.protocol() != protocol {
            return false;
        }
        match *tuple {
            Tuple::V4 { addresses, .. } => {
                self.addresses[direction as usize].load(Relaxed) == addresses && !self.has(WIDE)
            }
            Tuple::V6 { addresses, .. } => self.has(WIDE) && self.wide_addresses(direction) == addresses,
        }
    }

    /// TCP or UDP, or another for a service that carries any.
    #[inline(always)]
    pub fn protocol(&self) -> Protocol {
        Protocol(self.protocol.load(Relaxed))
    }

    /// What is done to the packets of one direction.
    #[inline(always)]
    pub fn rewrite(&self, direction: Direction) -> Rewrite {
        let changes = self.changes[direction as usize].load(Relaxed);
        if self.is_tunnelled() { Rewrite::unpack_tunnelled(direction, changes) } else { Rewrite::unpack_nat(changes) }
    }

    /// What translates the packets of one direction, if it goes by none.
    #[inline(always)]
    pub(in crate::engine) fn translation(&self, direction: Direction) -> Translation {
        let (address_delta, port_delta) = Rewrite::deltas(self.changes[direction as usize].load(Relaxed));
        Translation { to: self.tuple(direction.other()).invert(), address_delta, port_delta }
    }

    /// Whether it goes by a tunnel.
    #[inline(always)]
    pub fn is_tunnelled(&self) -> bool {
        self.has(TUNNELLED)
    }

    /// The way to its backend, if it goes by a tunnel. The flow keeps it, whatever becomes of the configuration.
    #[inline(always)]
    pub fn path(&self) -> Guard<Option<Arc<Path>>> {
        self.path.load()
    }

    /// The service it came for.
    #[inline(always)]
    pub fn service(&self) -> ServiceId {
        ServiceId(self.service.load(Relaxed))
    }

    /// The backend it goes to.
    #[inline(always)]
    pub fn backend(&self) -> BackendId {
        BackendId(self.backend.load(Relaxed))
    }

    /// The worker that handles its packets.
    #[inline(always)]
    pub fn owner(&self) -> WorkerId {
        WorkerId(self.owner.load(Relaxed).into())
    }

    /// Whether its source port is leased (full NAT), and has to be given back.
    pub fn is_leased(&self) -> bool {
        self.has(LEASED)
    }

    #[inline(always)]
    fn has(&self, kind: u8) -> bool {
        self.kind.load(Relaxed) & kind != 0
    }

    /// Time since its first packet came, to the second.
    pub fn age(&self, now: Instant) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.opened.load(Relaxed)).into())
    }

    /// The state now.
    #[inline(always)]
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Relaxed))]
    }

    /// Whether that is its state.
    #[inline(always)]
    pub(in crate::engine) fn is_in(&self, state: State) -> bool {
        self.state.load(Relaxed) == state as u8
    }

    #[inline(always)]
    pub(in crate::engine) fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    /// Has the TCP tracker judge a bare ACK of an open connection, and learn from it.
    #[inline(always)]
    pub(in crate::engine) fn slide(&self, direction: Direction, segment: &TcpSegment<'_>) -> Option<Fit> {
        self.tracker.slide(direction, segment)
    }

    /// Has the TCP tracker judge a segment, and learn from it.
    pub(in crate::engine) fn step(&self, state: State, direction: Direction, segment: &TcpSegment<'_>) -> Outcome {
        self.tracker.step(state, direction, segment)
    }

    /// Has the TCP tracker begin with this segment. Of a connection whose other half does not pass here it may be any,
    /// of others it is a SYN.
    pub(in crate::engine) fn begin_tracking(&self, segment: &TcpSegment<'_>) {
        if self.is_tunnelled() {
            self.set_state(one_way::begin(segment.flags));
            self.tracker.set_reached(segment.seq.wrapping_add(segment.seq_len()));
        } else {
            self.tracker.store(&Tracker::open(segment));
        }
    }

    /// Has the tracker of such a connection judge a segment, and learn from it.
    #[inline]
    pub(in crate::engine) fn step_one_way(&self, state: State, segment: &TcpSegment<'_>) -> Outcome {
        let reached = self.tracker.reached();
        let outcome = one_way::step(state, segment, reached);
        if matches!(outcome, Outcome::Accept(_)) {
            match one_way::reach(segment, reached) {
                Some(there) => self.tracker.set_reached(there),
                None => self.tracker.find_reached(segment.seq.wrapping_add(segment.seq_len())),
            }
        }
        outcome
    }

    /// Whether the TCP tracker has learned from this segment, which it has just judged: a forged one may be forwarded, but
    /// moves no window.
    pub(in crate::engine) fn believes(&self, direction: Direction, segment: &TcpSegment<'_>) -> bool {
        self.tracker.believes(direction, segment)
    }

    /// Sequence and acknowledgment number that the sender of this direction expects next.
    pub(in crate::engine) fn expects(&self, sender: Direction) -> (u32, u32) {
        self.tracker.expects(sender)
    }

    /// Tells the TCP tracker that a segment which it has judged reaches as far as this: it had come in fragments.
    pub(in crate::engine) fn extend(&self, direction: Direction, end: u32) {
        self.tracker.extend(direction, end);
    }

    /// False once it has left the table.
    #[inline(always)]
    pub fn is_alive(&self) -> bool {
        self.has(ALIVE)
    }

    /// Marks it as gone; true for the one caller that did.
    pub(super) fn bury(&self) -> bool {
        self.kind.fetch_and(!ALIVE, Relaxed) & ALIVE != 0
    }

    /// A packet has refreshed it.
    #[inline(always)]
    pub(in crate::engine) fn touch(&self, now: Instant) {
        self.last_seen.store(millis_up(now), Relaxed);
    }

    /// Time since the last packet that refreshed it: at most 2 ms less, never more; exact up to 46 days. Zero if that
    /// packet is yet to come by this clock: a worker that has only fragments of the flow may be ahead of its owner.
    pub fn idle(&self, now: Instant) -> Duration {
        let idle = millis(now.as_micros()).wrapping_sub(self.last_seen.load(Relaxed));
        Duration::from_millis(if idle > u32::MAX - AHEAD { 0 } else { idle.into() })
    }

    /// When it will be forgotten, if nothing comes.
    pub fn deadline(&self, now: Instant, timeouts: &Timeouts) -> Instant {
        let timeout = self.state().timeout(timeouts);
        now + timeout.saturating_sub(self.idle(now))
    }

    /// The millisecond of the last packet that refreshed it.
    pub(super) fn last_seen(&self) -> u32 {
        self.last_seen.load(Relaxed)
    }

    /// Its place in a list; see there.
    pub(super) fn link(&self, strand: Strand) -> &Link {
        &self.links[strand as usize]
    }

    /// The slot of its owner's wheel in which it lies.
    pub(super) fn slot(&self) -> Option<u16> {
        Some(self.slot.load(Relaxed)).filter(|slot| *slot != NO_SLOT)
    }

    pub(super) fn set_slot(&self, slot: Option<u16>) {
        self.slot.store(slot.unwrap_or(NO_SLOT), Relaxed);
    }

    /// Which of its owner's queues it stands in, and when it had last been seen as it took that place.
    pub(super) fn queued(&self) -> Option<(Class, u32)> {
        let class = match self.class.load(Relaxed) {
            0 => return None,
            1 => Class::HalfOpen,
            _ => Class::Closing,
        };
        Some((class, self.queued_at.load(Relaxed)))
    }

    pub(super) fn set_queued(&self, class: Option<Class>) {
        self.class.store(class.map_or(0, |class| class as u8 + 1), Relaxed);
        self.queued_at.store(self.last_seen(), Relaxed);
    }
}

/// What may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    HalfOpen,
    Closing,
}

/// More than a wheel has slots.
const NO_SLOT: u16 = u16::MAX;

/// Differences beyond 46 days are taken for a clock that is ahead.
const AHEAD: u32 = 1 << 28;

/// Milliseconds, wrapping every 49 days: four bytes are enough for idle times.
#[expect(clippy::cast_possible_truncation, reason = "wraps on purpose; only differences are used")]
const fn millis(micros: u64) -> u32 {
    (micros / 1000) as u32
}

/// Rounded up, so that no flow is forgotten early.
#[inline(always)]
const fn millis_up(now: Instant) -> u32 {
    millis(now.as_micros() + 999)
}

fn seconds(now: Instant) -> u32 {
    u32::try_from(now.as_micros() / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Address, Endpoint};

    fn flow(now: Instant) -> Flow {
        let end = |n| Endpoint::new(Address::v4([10, 0, 0, n]), 53);
        let original = FlowKey { source: end(1), destination: end(2), protocol: Protocol::UDP };
        let plan = Plan {
            original,
            reply: original.invert(),
            rewrites: Rewrite::nat(&original, &original),
            path: None,
            service: ServiceId(0),
            backend: BackendId(0),
            owner: WorkerId(0),
            leased: false,
        };
        let flow = Flow::default();
        flow.begin(&plan, now);
        flow
    }

    #[test]
    fn no_flow_has_been_idle_for_longer_than_it_was() {
        for start in [0, 1, 999, 1_000, 4_294_967_295_500, 1 << 50] {
            let seen = Instant::from_micros(start);
            let flow = flow(seen);
            for idle in [0, 1, 999, 1_000, 60_000_000, 46 * 86_400_000_000].map(Duration::from_micros) {
                let found = flow.idle(seen + idle);
                assert!(
                    found <= idle && idle.saturating_sub(found) <= Duration::from_millis(2),
                    "{found:?} of {idle:?}"
                );
            }
        }
    }

    /// Another worker, a little ahead, has passed a fragment of it on.
    #[test]
    fn a_flow_that_is_seen_in_the_future_is_not_idle() {
        for ahead in [1, 1_000, 3_000_000, 86_400_000_000].map(Duration::from_micros) {
            let now = Instant::from_micros(1 << 40);
            let flow = flow(now + ahead);
            assert_eq!(flow.idle(now), Duration::ZERO);
            assert!(flow.deadline(now, &Timeouts::default()) > now);
        }
    }
}
