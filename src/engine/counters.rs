//! Counters: one set a worker, written by that worker alone, read by anybody.
//!
//! A single writer needs no read-modify-write instruction: load, add, store, all relaxed. Each worker's set has its own
//! cache lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytemuck::Zeroable;
use crossbeam_utils::CachePadded;

use super::verdict::DropReason;

/// A counter with one writer.
#[derive(Debug, Default, Zeroable)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owner may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Begins again. Only while its owner cannot count: nothing is left of what it counts.
    pub(super) fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    /// Takes one back that was counted too early.
    fn retract(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// The count so far.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Packets and bytes of one direction. Bytes are those of the IP packet.
#[derive(Debug, Default, Zeroable)]
pub struct Traffic {
    /// Packets.
    pub packets: Counter,
    /// Bytes.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts one packet.
    #[inline]
    pub fn count(&self, bytes: usize) {
        self.packets.add(1);
        self.bytes.add(bytes as u64);
    }
}

/// What one worker counts of one service or one backend.
#[derive(Debug, Default, Zeroable)]
pub struct FlowCounters {
    /// From clients.
    pub inbound: Traffic,
    /// To clients.
    pub outbound: Traffic,
    /// Flows opened.
    pub opened: Counter,
    /// Flows ended, for whatever reason.
    pub closed: Counter,
    /// Flows refused: no backend, no port, table full, limits. Of a backend: no port towards it.
    pub refused: Counter,
    /// ICMP errors that say that a packet in the tunnel to this backend did not reach it (R104).
    pub unreachable: Counter,
}

impl FlowCounters {
    fn reset(&self) {
        let Self { inbound, outbound, opened, closed, refused, unreachable } = self;
        let traffic = [&inbound.packets, &inbound.bytes, &outbound.packets, &outbound.bytes];
        traffic.into_iter().chain([opened, closed, refused, unreachable]).for_each(Counter::reset);
    }

    /// The traffic of this direction.
    #[inline]
    pub const fn towards(&self, direction: super::conntrack::Direction) -> &Traffic {
        match direction {
            super::conntrack::Direction::Original => &self.inbound,
            super::conntrack::Direction::Reply => &self.outbound,
        }
    }
}

/// What a new flow may find no room in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The flow table.
    Table,
    /// The service's `max-flows`.
    Service,
    /// The source ports towards its backend.
    Ports,
}

impl Shortage {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Table, Self::Service, Self::Ports];

    /// Why the new flow is refused if nothing can be evicted for it: also the label of those evicted.
    pub const fn reason(self) -> DropReason {
        match self {
            Self::Table => DropReason::FlowTableFull,
            Self::Service => DropReason::ServiceFlows,
            Self::Ports => DropReason::PortsExhausted,
        }
    }
}

/// All that one worker counts.
#[derive(Debug)]
pub struct WorkerCounters {
    /// From the port.
    pub received: Traffic,
    /// To the port, answers of our own included.
    pub sent: Traffic,
    /// Super-packets among them that the kernel refused, and that left as the packets they stand for.
    pub segmented: Counter,
    /// Batches received.
    pub batches: Counter,
    /// Time not spent waiting, microseconds.
    pub busy_micros: Counter,
    /// Packets handed to the worker that owns their flow.
    pub handed_over: Counter,
    /// Packets held or absorbed.
    pub consumed: Counter,
    /// Packets answered by the gateway itself.
    pub replied: Counter,
    /// Packets forwarded.
    pub forwarded: Counter,
    evicted: [Counter; Shortage::ALL.len()],
    drops: [Counter; DropReason::COUNT],
    services: OfEach<FlowCounters>,
    backends: OfEach<FlowCounters>,
}

/// One for every id that there may be, so that a reload finds them there. Memory that is zero until it is written to, and
/// takes no room until then.
pub(super) type OfEach<T> = Box<[T; 1 << 16]>;

/// All zero.
pub(super) fn of_each<T: Zeroable>() -> OfEach<T> {
    bytemuck::zeroed_box()
}

impl WorkerCounters {
    fn new() -> Self {
        Self {
            received: Traffic::default(),
            sent: Traffic::default(),
            segmented: Counter::default(),
            batches: Counter::default(),
            busy_micros: Counter::default(),
            handed_over: Counter::default(),
            consumed: Counter::default(),
            replied: Counter::default(),
            forwarded: Counter::default(),
            evicted: Default::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            services: of_each(),
            backends: of_each(),
        }
    }

    /// A packet that was forwarded could not be sent after all: it counts as dropped, and only so.
    pub fn forward_failed(&self, reason: DropReason) {
        self.forwarded.retract();
        self.drops(reason).add(1);
    }

    /// A packet that was absorbed will never be sent: it counts as dropped, and only so.
    pub fn absorbed_dropped(&self, reason: DropReason) {
        self.consumed.retract();
        self.drops(reason).add(1);
    }

    /// A packet could not be handed over after all: it counts as dropped, and only so.
    pub fn handoff_failed(&self, reason: DropReason) {
        self.handed_over.retract();
        self.drops(reason).add(1);
    }

    /// The counter of this reason.
    #[inline]
    pub fn drops(&self, reason: DropReason) -> &Counter {
        &self.drops[reason as usize]
    }

    /// The counter of flows evicted for new ones that this was lacking for.
    pub fn evicted(&self, shortage: Shortage) -> &Counter {
        &self.evicted[shortage as usize]
    }

    /// The counters of the service.
    #[inline]
    pub fn service(&self, id: crate::config::ServiceId) -> &FlowCounters {
        &self.services[usize::from(id.0)]
    }

    /// The counters of the backend.
    #[inline]
    pub fn backend(&self, id: crate::config::BackendId) -> &FlowCounters {
        &self.backends[usize::from(id.0)]
    }
}

/// The counters of all workers.
#[derive(Debug)]
pub struct Counters {
    workers: Box<[Arc<CachePadded<WorkerCounters>>]>,
}

impl Counters {
    /// All zero.
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Arc::new(CachePadded::new(WorkerCounters::new()))).collect() }
    }

    /// Begins again with a service: no flow is its, and no policy has it.
    pub(super) fn forget_service(&self, id: crate::config::ServiceId) {
        self.workers().for_each(|worker| worker.service(id).reset());
    }

    /// The same with a backend.
    pub(super) fn forget_backend(&self, id: crate::config::BackendId) {
        self.workers().for_each(|worker| worker.backend(id).reset());
    }

    /// One worker's.
    #[inline]
    pub fn worker(&self, id: super::WorkerId) -> &WorkerCounters {
        &self.workers[usize::from(id.0)]
    }

    /// One worker's, to be kept by it.
    pub(super) fn share(&self, id: super::WorkerId) -> Arc<CachePadded<WorkerCounters>> {
        Arc::clone(&self.workers[usize::from(id.0)])
    }

    /// All workers', in order.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerCounters> {
        self.workers.iter().map(|w| &***w)
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, of: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.workers().map(|w| of(w).get()).sum()
    }
}
