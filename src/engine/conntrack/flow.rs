//! A flow: its two keys, where it goes, and the little of it that changes with every packet.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::sync::AtomicBool;
use super::tcp::{Outcome, Tracker, TrackerCell};
use crate::config::{BackendId, ServiceId, Timeouts};
use crate::engine::counters::Traffic;
use crate::engine::nat::Rewrite;
use crate::engine::path::Path;
use crate::engine::{Instant, WorkerId};
use crate::wire::{Address, Endpoint, Protocol, TcpSegment};

/// Identifies the packets of one flow in one direction. ICMP queries have their identifier where the port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Where the packet comes from.
    pub source: Endpoint,
    /// Where it goes.
    pub destination: Endpoint,
    /// TCP or UDP; another one in a tunnel, with ports of 0.
    pub protocol: Protocol,
}

impl FlowKey {
    /// The key of packets between these addresses whose protocol has no ports.
    pub const fn portless(source: Address, destination: Address, protocol: Protocol) -> Self {
        Self { source: Endpoint::new(source, 0), destination: Endpoint::new(destination, 0), protocol }
    }

    /// The key of an answer to a packet with this key.
    #[inline]
    pub const fn invert(&self) -> Self {
        Self { source: self.destination, destination: self.source, protocol: self.protocol }
    }
}

impl Hash for FlowKey {
    /// Few wide writes instead of one for each field: this runs for every packet.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(*self.source.address.octets()));
        state.write_u128(u128::from_ne_bytes(*self.destination.address.octets()));
        let ports = u64::from(self.source.port) << 16 | u64::from(self.destination.port);
        state.write_u64(ports << 8 | u64::from(self.protocol.0));
    }
}

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Original,
    /// From the backend.
    Reply,
}

impl Direction {
    /// The other one.
    #[inline]
    pub const fn other(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// State of a flow: for TCP that of RFC 9293 as a middlebox sees it (nf_conntrack's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The client has sent a SYN.
    SynSent,
    /// Both have sent a SYN: simultaneous open.
    SynSent2,
    /// The backend has answered SYN-ACK.
    SynReceived,
    /// Open.
    Established,
    /// One side has sent a FIN.
    FinWait,
    /// That FIN is acknowledged: half-closed.
    CloseWait,
    /// Both sides have sent a FIN.
    LastAck,
    /// Both FINs are acknowledged.
    TimeWait,
    /// Reset.
    Close,
    /// UDP, no answer yet.
    Unreplied,
    /// UDP with an answer.
    Replied,
    /// UDP, and the client has gone on after an answer.
    Assured,
}

/// How much a flow is worth when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifecycle {
    /// Half-open: the client has not shown that it gets what is sent to it; its address may be forged.
    HalfOpen,
    /// Over, kept for late packets.
    Closing,
    /// In use: never evicted.
    Established,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::SynSent,
        Self::SynSent2,
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::Unreplied,
        Self::Replied,
        Self::Assured,
    ];

    /// The name in listings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynSent2 => "syn-sent2",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::FinWait => "fin-wait",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::TimeWait => "time-wait",
            Self::Close => "close",
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
            Self::Assured => "assured",
        }
    }

    /// Its worth when there is no room. A connection is in use while data may be sent again: half-closed (R50), and
    /// until both FINs are acknowledged.
    pub const fn lifecycle(self) -> Lifecycle {
        match self {
            Self::SynSent | Self::SynSent2 | Self::SynReceived | Self::Unreplied | Self::Replied => Lifecycle::HalfOpen,
            Self::TimeWait | Self::Close => Lifecycle::Closing,
            Self::Established | Self::FinWait | Self::CloseWait | Self::LastAck | Self::Assured => {
                Lifecycle::Established
            }
        }
    }

    /// How long a flow in this state is remembered without a packet.
    pub const fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            Self::SynSent | Self::SynSent2 => timeouts.tcp_syn_sent,
            Self::SynReceived => timeouts.tcp_syn_received,
            Self::Established => timeouts.tcp_established,
            Self::FinWait | Self::CloseWait | Self::LastAck => timeouts.tcp_closing,
            Self::TimeWait => timeouts.tcp_time_wait,
            Self::Close => timeouts.tcp_close,
            Self::Unreplied => timeouts.udp_unreplied,
            Self::Replied | Self::Assured => timeouts.udp,
        }
    }
}

/// One flow. Its keys and its way never change; what changes is written by its owner alone, without a lock.
#[derive(Debug)]
pub struct Flow {
    original: FlowKey,
    reply: FlowKey,
    rewrites: [Rewrite; 2],
    path: Option<Arc<Path>>,
    /// The service it came for.
    pub service: ServiceId,
    /// The backend it goes to.
    pub backend: BackendId,
    /// The worker that handles its packets.
    pub owner: WorkerId,
    /// Whether its source port is leased (full NAT), and has to be given back.
    pub leased: bool,
    /// When its first packet came.
    pub opened: Instant,
    /// Packets and bytes from the client, and from the backend.
    pub traffic: [Traffic; 2],
    state: AtomicU8,
    alive: AtomicBool,
    last_seen: AtomicU32,
    entry: AtomicU32,
    tracker: TrackerCell,
}

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
    pub leased: bool,
}

impl Flow {
    /// A flow whose first packet arrives now.
    pub(in crate::engine) fn new(plan: &Plan, now: Instant) -> Self {
        let state = if plan.original.protocol == Protocol::TCP { State::SynSent } else { State::Unreplied };
        Self {
            original: plan.original,
            reply: plan.reply,
            rewrites: plan.rewrites,
            path: plan.path.clone(),
            service: plan.service,
            backend: plan.backend,
            owner: plan.owner,
            leased: plan.leased,
            opened: now,
            traffic: Default::default(),
            state: AtomicU8::new(state as u8),
            alive: AtomicBool::new(true),
            last_seen: AtomicU32::new(millis_up(now)),
            entry: AtomicU32::new(NOT_NOTED),
            tracker: TrackerCell::default(),
        }
    }

    /// A copy of this flow as it is now, owned by the one worker of a rehearsal. It holds no lease: its port is the
    /// original's.
    pub(in crate::engine) fn rehearsed(&self) -> Self {
        let copy = Self {
            original: self.original,
            reply: self.reply,
            rewrites: self.rewrites,
            path: self.path.as_deref().map(|path| Arc::new(path.rehearsed())),
            service: self.service,
            backend: self.backend,
            owner: WorkerId(0),
            leased: false,
            opened: self.opened,
            traffic: Default::default(),
            state: AtomicU8::new(self.state.load(Relaxed)),
            alive: AtomicBool::new(true),
            last_seen: AtomicU32::new(self.last_seen.load(Relaxed)),
            entry: AtomicU32::new(NOT_NOTED),
            tracker: TrackerCell::default(),
        };
        copy.tracker.store(&self.tracker.load());
        copy
    }

    /// Key of the packets of one direction.
    #[inline]
    pub const fn key(&self, direction: Direction) -> &FlowKey {
        match direction {
            Direction::Original => &self.original,
            Direction::Reply => &self.reply,
        }
    }

    /// What is done to the packets of one direction.
    #[inline]
    pub const fn rewrite(&self, direction: Direction) -> &Rewrite {
        &self.rewrites[direction as usize]
    }

    /// The way to its backend, if it goes by a tunnel. The flow keeps it, whatever becomes of the configuration.
    #[inline]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The direction of a packet with this key, if it is of this flow.
    #[inline]
    pub fn direction(&self, key: &FlowKey) -> Option<Direction> {
        if self.original == *key {
            Some(Direction::Original)
        } else if self.reply == *key {
            Some(Direction::Reply)
        } else {
            None
        }
    }

    /// The state now.
    #[inline]
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Relaxed))]
    }

    #[inline]
    pub(in crate::engine) fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    /// Has the TCP tracker judge a segment, and learn from it.
    #[inline]
    pub(in crate::engine) fn step(&self, state: State, direction: Direction, segment: &TcpSegment<'_>) -> Outcome {
        self.tracker.step(state, direction, segment)
    }

    /// Whether the TCP tracker has learned from this segment, which it has just judged: a forged one may be forwarded, but
    /// moves no window.
    pub(in crate::engine) fn believes(&self, direction: Direction, segment: &TcpSegment<'_>) -> bool {
        self.tracker.believes(direction, segment)
    }

    /// Tells the TCP tracker that a segment which it has judged reaches as far as this: it had come in fragments.
    pub(in crate::engine) fn extend(&self, direction: Direction, end: u32) {
        self.tracker.extend(direction, end);
    }

    #[inline]
    pub(in crate::engine) fn set_tracker(&self, tracker: &Tracker) {
        self.tracker.store(tracker);
    }

    /// False once it has left the table: caches and wheels that still point to it let go.
    #[inline]
    pub fn is_alive(&self) -> bool {
        self.alive.load(Relaxed)
    }

    /// Marks it as gone; true for the one caller that did.
    pub(super) fn bury(&self) -> bool {
        self.alive.swap(false, Relaxed)
    }

    /// A packet has refreshed it.
    #[inline]
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

    /// Its number among its worker's flows, if it is noted there.
    pub(super) fn entry(&self) -> Option<u32> {
        Some(self.entry.load(Relaxed)).filter(|entry| *entry != NOT_NOTED)
    }

    pub(super) fn set_entry(&self, entry: Option<u32>) {
        self.entry.store(entry.unwrap_or(NOT_NOTED), Relaxed);
    }
}

/// Cache lines that a flow lies in.
pub const FLOW_LINES: usize = size_of::<Flow>().div_ceil(64);

/// More than there can be flows.
const NOT_NOTED: u32 = u32::MAX;

/// Differences beyond 46 days are taken for a clock that is ahead.
const AHEAD: u32 = 1 << 28;

/// Milliseconds, wrapping every 49 days: four bytes are enough for idle times.
#[expect(clippy::cast_possible_truncation, reason = "wraps on purpose; only differences are used")]
const fn millis(micros: u64) -> u32 {
    (micros / 1000) as u32
}

/// Rounded up, so that no flow is forgotten early.
#[inline]
const fn millis_up(now: Instant) -> u32 {
    millis(now.as_micros() + 999)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Address;

    fn flow(now: Instant) -> Flow {
        let end = |n| Endpoint::new(Address::v4([10, 0, 0, n]), 53);
        let original = FlowKey { source: end(1), destination: end(2), protocol: Protocol::UDP };
        let plan = Plan {
            original,
            reply: original.invert(),
            rewrites: [Rewrite::nat(&original, &original); 2],
            path: None,
            service: ServiceId(0),
            backend: BackendId(0),
            owner: WorkerId(0),
            leased: false,
        };
        Flow::new(&plan, now)
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
