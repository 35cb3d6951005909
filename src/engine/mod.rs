//! The data plane, sans-IO: a packet and the time go in, a [`Verdict`] comes out.
//!
//! An [`Engine`] is one worker's. It never blocks, never asks the time, and touches nothing outside: the same engine runs
//! under the TUN, on a capture, in a bench, and in a simulated network. What all workers share is in [`Shared`].
//!
//! ```text
//! established  guard::admit -> table.look -> established::pass_usual: tracker.slide -> packet.translate
//! first        ... miss -> listeners.service -> scheduler.pick -> ports.lease -> table.commit -> packet.translate
//! DSR          ... a flow with a path: one_way.step -> rewrite: tunnel::enter; what is too big is answered
//! ICMP error   icmp::quote -> table.find(quote inverted) -> outer and quote rewritten
//! ```

mod affinity;
pub mod conntrack;
pub mod counters;
mod cut;
mod established;
pub mod failures;
mod foresight;
mod fragment;
mod guard;
mod heard;
mod icmp;
mod import;
mod journal;
pub mod nat;
mod open;
mod path;
mod policy;
mod random;
mod room;
pub mod scheduler;
mod seeded;
mod shared;
pub mod steering;
mod time;
mod tunnel;
pub mod verdict;

use std::sync::Arc;

use crossbeam_utils::CachePadded;

pub use affinity::Affinity;
pub use heard::Heard;
pub use import::{Imported, Refused};
pub use journal::{Change, Digest};
pub use path::Path;
pub use policy::Policy;
pub use shared::Shared;
pub use time::Instant;
pub use verdict::{DropReason, NoTrace, Route, TraceSink, Verdict};

use crate::wire::{Address, Endpoint, Malformed, Packet, Protocol, Tuple};
use conntrack::{Direction, Expiry, FlowKey, FlowRef, Seen};
use counters::WorkerCounters;
use established::{Step, pass, pass_usual};
use fragment::Fragments;
use guard::TokenBucket;
use journal::Journal;
use nat::ports::Ports;

/// Index of a packet worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

/// A packet that leaves beside the one in hand: an answer of the gateway, or a fragment that was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Which packet it leaves for: the how-manieth of those that this engine was given, from 1. For a fragment that was
    /// held that is the fragment itself.
    pub cause: u64,
    /// The packet.
    pub packet: Vec<u8>,
}

/// The packet engine of one worker.
#[derive(Debug)]
pub struct Engine {
    worker: WorkerId,
    shared: Arc<Shared>,
    policy: Arc<Policy>,
    counters: Arc<CachePadded<WorkerCounters>>,
    expiry: Expiry,
    ports: Ports,
    icmp_errors: TokenBucket,
    too_big_errors: TokenBucket,
    fragments: Fragments,
    next_fragment_id: u32,
    outbox: Vec<Outgoing>,
    /// If this is the engine of a pair's gateway.
    journal: Option<Box<Journal>>,
}

impl Engine {
    /// The engine of this worker of a gateway, starting now.
    pub fn new(shared: &Arc<Shared>, worker: WorkerId, now: Instant) -> Self {
        Self {
            worker,
            policy: shared.policy.load_full(),
            counters: shared.counters.share(worker),
            expiry: Expiry::new(now),
            ports: Ports::new(worker, shared.workers),
            // R10: 10 a second, 10 at once, for both families together.
            icmp_errors: TokenBucket::new(10, 10),
            // Apart, and more: without these, uploads into a tunnel would stand still, and a port scan uses up the others.
            too_big_errors: TokenBucket::new(100, 100),
            fragments: Fragments::default(),
            next_fragment_id: fragment::first_id(shared.seed, shared.workers, worker),
            outbox: Vec::new(),
            journal: None,
            shared: Arc::clone(shared),
        }
    }

    /// Takes over a newer configuration, if there is one; called between batches. Flows keep the way they have.
    pub fn adopt(&mut self) {
        if !std::ptr::eq(&**self.shared.policy.load(), &*self.policy) {
            self.policy = self.shared.policy.load_full();
        }
    }

    /// Decides about a packet, and rewrites it in place if it is to leave. What else is to leave because of it (an
    /// answer of the gateway) waits in [`Self::outbox`].
    #[inline]
    pub fn handle<T: TraceSink>(&mut self, packet: &mut Packet<'_>, now: Instant, trace: &mut T) -> Verdict {
        let verdict = self.decide(packet, now, trace);
        self.count(verdict, packet.bytes().len());
        trace.stage("verdict", || verdict.to_string());
        verdict
    }

    /// Decides about a packet that did not pass the door: these bytes of it came. Its sender may have to be told, by what
    /// then waits in [`Self::outbox`].
    pub fn malformed(&mut self, malformed: Malformed, bytes: &[u8], now: Instant) -> Verdict {
        let verdict = self.parameter_problem(bytes, malformed.into(), now);
        self.count(verdict, bytes.len());
        verdict
    }

    /// Counts a packet that came, and that this gateway is not to decide about.
    pub fn pass_over(&mut self, verdict: Verdict, len: usize) {
        self.count(verdict, len);
    }

    /// Packets that are to be sent besides, oldest first; empties the box.
    pub fn outbox(&mut self) -> impl Iterator<Item = Outgoing> {
        self.outbox.drain(..)
    }

    /// Whether there is something in the [`Self::outbox`].
    #[inline]
    pub fn has_mail(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// When [`Self::handle_timeout`] wants to be called, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.expiry.poll(), self.fragments.poll()].into_iter().flatten().min()
    }

    /// Forgets flows whose time is over, a bounded number; call again while it returns true.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let mut over = Vec::new();
        let more = self.expiry.advance(&self.shared.table, now, &self.policy.snapshot.timeouts, |flow| over.push(flow));
        for id in over {
            let flow = self.shared.table.hold(id);
            self.learn_from_end(&flow);
            self.close(&flow, now);
        }
        self.fragments.expire(now);
        self.count_forgotten();
        more
    }

    /// Ends a flow of this worker at once: nothing of it is remembered.
    pub fn close(&mut self, flow: &FlowRef, now: Instant) {
        if !self.shared.table.remove(flow.id()) {
            return;
        }
        self.note_closed(flow);
        self.expiry.disarm(&self.shared.table, flow.id());
        if flow.is_leased() {
            let answer = flow.key(Direction::Reply);
            self.ports.release(answer.destination, answer.source, answer.protocol);
        }
        self.shared.limits.leave(flow.service());
        if let Some(affinity) = self.policy.affinity(flow.service()) {
            affinity.leave(flow.key(Direction::Original).source.address, flow.backend(), now);
        }
        self.counters().service(flow.service()).closed.add(1);
        self.counters().backend(flow.backend()).closed.add(1);
        self.shared.loads.closed(flow.backend());
    }

    /// As [`Self::close`]: the flow with this number, which is one of this worker's.
    fn end(&mut self, id: u32, now: Instant) {
        let flow = self.shared.table.hold(id);
        self.close(&flow, now);
    }

    /// How many packets this engine has been given, the one in hand included.
    fn in_hand(&self) -> u64 {
        // A packet is counted when it has been decided about.
        self.counters().received.packets.get() + 1
    }

    /// This worker's counters.
    #[inline]
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Leased source ports towards each backend.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    #[inline(always)]
    fn decide<T: TraceSink>(&mut self, packet: &mut Packet<'_>, now: Instant, trace: &mut T) -> Verdict {
        if let Err(reason) = guard::admit(packet) {
            return self.parameter_problem(packet.bytes(), reason, now);
        }
        if let Some(fragment) = packet.fragment() {
            return self.fragment(packet, fragment, now, trace);
        }
        match packet.tuple() {
            Some(tuple @ Tuple::V4 { .. }) => self.follow(&tuple, packet, now, trace),
            Some(tuple) => self.follow_wide(&tuple, packet, now, trace),
            None => self.portless(packet, now, trace),
        }
    }

    /// A packet without ports: ICMP, or for a service that carries any protocol.
    fn portless<T: TraceSink>(&mut self, packet: &mut Packet<'_>, now: Instant, trace: &mut T) -> Verdict {
        match self.portless_key(packet) {
            Some(key) => self.follow_wide(&key.tuple(), packet, now, trace),
            None => self.icmp(packet, now, trace),
        }
    }

    /// The key of a packet whose protocol has no ports, if a service carries it. ICMP is ours to look at, and what comes in
    /// a tunnel is nobody's: there may be anything inside (R109).
    fn portless_key(&self, packet: &Packet<'_>) -> Option<FlowKey> {
        let (source, destination) = packet.addresses();
        let protocol = packet.protocol();
        self.carries_portless(destination, protocol).then(|| FlowKey::portless(source, destination, protocol))
    }

    /// Whether a service at this address carries this protocol, which has no ports.
    fn carries_portless(&self, vip: Address, protocol: Protocol) -> bool {
        let ours = matches!(
            protocol,
            Protocol::TCP
                | Protocol::UDP
                | Protocol::ICMP
                | Protocol::ICMPV6
                | Protocol::GRE
                | Protocol::IPV4
                | Protocol::IPV6
        );
        !ours && self.policy.snapshot.listeners.service(Endpoint::new(vip, 0), protocol).is_some()
    }

    /// As [`Self::follow`], for ends of IPv6: apart, since what the other family needs of registers is less.
    #[inline(never)]
    fn follow_wide<T: TraceSink>(
        &mut self,
        ends: &Tuple,
        packet: &mut Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        self.follow(ends, packet, now, trace)
    }

    /// A packet with these ends: of a flow of this worker, of another's, or of none yet.
    #[inline(always)]
    fn follow<T: TraceSink>(&mut self, ends: &Tuple, packet: &mut Packet<'_>, now: Instant, trace: &mut T) -> Verdict {
        let table = &self.shared.table;
        let (flow, id, direction) = match table.look(ends, packet.protocol(), self.worker) {
            Seen::Own(flow, id, direction) => (flow, id, direction),
            Seen::Something => return self.miss(ends, packet, now, trace),
            Seen::Nothing => return self.first(&FlowKey::new(ends, packet.protocol()), packet, now, trace),
        };
        if let Some(verdict) = pass_usual(flow, direction, packet, now, &self.counters, trace) {
            return verdict;
        }
        self.judge(id, direction, packet, now, trace)
    }

    /// A packet of this worker's flow with this number.
    #[inline(never)]
    fn judge<T: TraceSink>(
        &mut self,
        id: u32,
        direction: Direction,
        packet: &mut Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        let table = &self.shared.table;
        let step = pass(table.flow(id), direction, packet, now, &self.counters, trace);
        if let Step::Done(verdict) = step {
            return verdict;
        }
        let flow = table.hold(id);
        self.settle(step, &flow, packet, now, trace)
    }

    /// A packet that is of no flow of this worker.
    #[cold]
    fn miss<T: TraceSink>(&mut self, ends: &Tuple, packet: &mut Packet<'_>, now: Instant, trace: &mut T) -> Verdict {
        let key = FlowKey::new(ends, packet.protocol());
        let Some((flow, direction)) = self.shared.table.find(&key) else {
            return self.first(&key, packet, now, trace);
        };
        if flow.owner() != self.worker && packet.fragment().is_none() {
            return Verdict::Handoff(flow.owner());
        }
        let step = pass(&flow, direction, packet, now, self.counters(), trace);
        self.settle(step, &flow, packet, now, trace)
    }

    /// A packet of no flow.
    #[cold]
    fn first<T: TraceSink>(&mut self, key: &FlowKey, packet: &mut Packet<'_>, now: Instant, trace: &mut T) -> Verdict {
        trace.stage("conntrack", || format!("no flow {} -> {}", key.source, key.destination));
        self.open(key, packet, now, trace)
    }

    /// What a packet of a known flow asks for besides being forwarded.
    #[cold]
    fn settle<T: TraceSink>(
        &mut self,
        step: Step,
        flow: &FlowRef,
        packet: &mut Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        match step {
            Step::Done(verdict) => verdict,
            Step::Moved(before, direction) => {
                self.learn_from_change(flow, before, direction);
                if flow.owner() == self.worker {
                    self.expiry.arm(&self.shared.table, flow.id(), now, &self.policy.snapshot.timeouts);
                    self.note_moved(flow, direction);
                }
                self.prove_client(flow, now);
                Verdict::Forward
            }
            Step::Repeated => {
                self.learn_from_repetition(flow);
                Verdict::Forward
            }
            Step::TooBig(mtu) => self.too_big(packet, mtu, now),
            Step::HopsExhausted => self.time_exceeded(packet, flow.key(Direction::Original).destination.address, now),
            // A fragment of another worker's flow: only the owner may end it.
            Step::Reopen if flow.owner() != self.worker => Verdict::Drop(DropReason::TcpState),
            Step::Reopen => {
                trace.stage("conntrack", || "a SYN on a connection that is over: it begins anew".into());
                let key = flow.key(Direction::Original);
                self.close(flow, now);
                self.open(&key, packet, now, trace)
            }
        }
    }

    #[inline(always)]
    fn count(&self, verdict: Verdict, len: usize) {
        let counters = self.counters();
        counters.received.count(len);
        if verdict == Verdict::Forward {
            return counters.forwarded.add(1);
        }
        match verdict {
            Verdict::Forward => {}
            Verdict::Reply => counters.replied.add(1),
            Verdict::Consume => counters.consumed.add(1),
            Verdict::Handoff(_) => counters.handed_over.add(1),
            Verdict::Drop(reason) => counters.drops(reason).add(1),
        }
    }
}
