//! The slow path: a packet of no known flow, and what is planned for the flow that it opens.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::affinity::stay;
use super::conntrack::{Direction, FlowKey, FlowRef, Plan, Refused, Scope};
use super::established::{count_traffic, rewrite};
use super::nat::Rewrite;
use super::scheduler::Request;
use super::verdict::{DropReason, Route, TraceSink, Verdict};
use super::{Engine, Instant, guard, steering, tunnel};
use crate::config::{BackendId, Mode, ServiceId};
use crate::wire::{Endpoint, Packet, Protocol, TcpFlags, TcpSegment};

impl Engine {
    /// Opens a flow for the packet, if it may have one.
    pub(super) fn open<T: TraceSink>(
        &mut self,
        key: &FlowKey,
        packet: &mut Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        if self.is_for_checks(key.destination) {
            return self.hear(packet);
        }
        let snapshot = &self.policy.snapshot;
        if let Err(reason) = guard::admit_new(key, snapshot) {
            return Verdict::Drop(reason);
        }
        let Some(service) = snapshot.listeners.service(key.destination, key.protocol) else {
            return self.unserved(key, packet, now);
        };
        trace.route(Route { service: Some(service), backend: None });
        trace.stage("service", || snapshot.service(service).name.clone());
        if packet.ttl() <= 1 {
            return self.time_exceeded(packet, key.destination.address, now);
        }
        // A flow that begins with a fragment belongs to the worker that looks after the fragments.
        let owner = steering::owner(key.source, self.shared.workers);
        if owner != self.worker && packet.fragment().is_none() {
            return Verdict::Handoff(owner);
        }
        let tunnelled = snapshot.service(service).is_tunnelled();
        if let Err(verdict) = self.may_open(packet, tunnelled) {
            return verdict;
        }
        match self.plan(service, key, packet, now, trace) {
            Ok(flow) => self.launch(&flow, packet, now, trace),
            // Without memory of them, too, all packets of a connection go one way.
            Err(DropReason::FlowTableFull) if tunnelled => self.pass_by_hash(key, packet, now, trace),
            Err(DropReason::Draining) if tunnelled && is_of_the_middle(packet) => {
                self.pass_by_hash(key, packet, now, trace)
            }
            Err(reason) => {
                self.counters().service(service).refused.add(1);
                self.decline(packet, reason, now)
            }
        }
    }

    /// Refuses a flow. Where another try would do no better, or better elsewhere, its client is told at once.
    fn decline(&mut self, packet: &Packet<'_>, reason: DropReason, now: Instant) -> Verdict {
        if reason == DropReason::PortsExhausted {
            return self.prohibited(packet, now);
        }
        if !matches!(reason, DropReason::Draining | DropReason::NoBackend) {
            return Verdict::Drop(reason);
        }
        // As a host whose server has stopped: the client fails over at once, if it knows where to.
        if packet.protocol() == Protocol::TCP {
            self.reset(packet, reason)
        } else {
            self.port_unreachable(packet, reason, now)
        }
    }

    /// Whether this packet is one that begins a flow: a sound SYN, or any sound datagram. In a tunnel, a segment of the
    /// middle will do (R53): its backend knows the connection, whoever has lost it.
    fn may_open(&mut self, packet: &Packet<'_>, tunnelled: bool) -> Result<(), Verdict> {
        if let Some(segment) = packet.tcp() {
            if !segment.flags.valid() {
                return Err(Verdict::Drop(DropReason::BadTcpFlags));
            }
            let (syn, ack) = (segment.flags.has(TcpFlags::SYN), segment.flags.has(TcpFlags::ACK));
            if syn && ack || !syn && !tunnelled {
                return Err(self.reset(packet, DropReason::NoFlow));
            }
        }
        if packet.transport_checksum_ok() { Ok(()) } else { Err(Verdict::Drop(DropReason::BadTransportChecksum)) }
    }

    /// Chooses a backend and, for full NAT, a source; enters the flow into the table.
    fn plan<T: TraceSink>(
        &mut self,
        service: ServiceId,
        key: &FlowKey,
        packet: &Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Result<FlowRef, DropReason> {
        let policy = Arc::clone(&self.policy);
        let scheduler = policy.scheduler(service, packet.family()).ok_or(DropReason::Draining)?;
        let limits = &policy.snapshot.service(service).limits;
        self.shared.limits.take(service, limits, key.source.address, now)?;
        let by_hash = if is_of_the_middle(packet) { policy.pick_up(service) } else { None };
        let request = self.request(key);
        let (random, scheduler) = (request.random, by_hash.unwrap_or(scheduler));
        let backend = match policy.affinity(service) {
            None => scheduler.pick(&request).ok_or(DropReason::NoBackend)?,
            Some(affinity) => stay(&policy, affinity, service, scheduler, &request, now, trace)?,
        };
        let target = policy.snapshot.backend(backend).endpoint(key.destination.port);
        trace.route(Route { service: Some(service), backend: Some(backend) });
        trace.stage("schedule", || format!("{} at {target}", policy.snapshot.backend(backend).name));

        let flow = self.make_room(service, limits, now).and_then(|()| {
            let plan = if policy.path(backend).is_some() {
                Ok(self.tunnelled(service, backend, key))
            } else {
                self.translated(service, backend, key, target, random, now)
            };
            plan.and_then(|plan| self.enter(&plan, packet.tcp().as_ref(), now))
                .inspect_err(|_| self.shared.limits.leave(service))
        });
        if let Ok(flow) = &flow
            && !flow.is_tunnelled()
        {
            trace.stage("ports", || format!("towards the backend as {}", flow.key(Direction::Reply).destination));
        }
        flow.inspect_err(|_| {
            if let Some(affinity) = policy.affinity(service) {
                affinity.leave(key.source.address, backend, now);
            }
        })
    }

    /// What schedulers are asked. One hash of the flow and the seed is all the chance there is: the same flow meets the
    /// same luck on both gateways of a pair, and in a replay.
    pub(super) fn request(&self, key: &FlowKey) -> Request<'_> {
        Request {
            client: key.source,
            listen: key.destination,
            protocol: key.protocol,
            random: FixedState::with_seed(self.shared.seed).hash_one(key),
            loads: &self.shared.loads,
        }
    }

    /// A flow by the tunnel to this backend. What the backend answers goes past us; under its key, errors about it find
    /// the flow (R67).
    fn tunnelled(&self, service: ServiceId, backend: BackendId, key: &FlowKey) -> Plan {
        Plan {
            original: *key,
            reply: key.invert(),
            rewrites: [Rewrite::Encapsulate { entropy: tunnel::entropy(key) }, Rewrite::None],
            path: self.policy.path(backend).cloned(),
            service,
            backend,
            owner: self.worker,
            leased: false,
        }
    }

    /// A flow with both ends translated, or one; leases a source if it is both.
    fn translated(
        &mut self,
        service: ServiceId,
        backend: BackendId,
        key: &FlowKey,
        target: Endpoint,
        random: u64,
        now: Instant,
    ) -> Result<Plan, DropReason> {
        let Mode::Nat { source_nat } = self.policy.snapshot.service(service).mode else {
            unreachable!("a backend without path is one of a NAT service")
        };
        // R35: a backend that is its own client would not take a packet from itself, nor answer it through us.
        let source_nat = source_nat || target.address == key.source.address;
        let source = if source_nat {
            self.lease(target, key, random, now).inspect_err(|reason| {
                if *reason == DropReason::PortsExhausted {
                    self.counters().backend(backend).refused.add(1);
                }
            })?
        } else {
            key.source
        };
        let outgoing = FlowKey { source, destination: target, protocol: key.protocol };
        Ok(Plan {
            original: *key,
            reply: outgoing.invert(),
            rewrites: Rewrite::nat(key, &outgoing),
            path: None,
            service,
            backend,
            owner: self.worker,
            leased: source_nat,
        })
    }

    /// Where ports are short, a flow that may be evicted gives its own back (R31).
    fn lease(&mut self, target: Endpoint, key: &FlowKey, random: u64, now: Instant) -> Result<Endpoint, DropReason> {
        let policy = Arc::clone(&self.policy);
        let sources = policy.snapshot.sources(target.address.is_v4());
        if sources.is_empty() {
            return Err(DropReason::NoSourceAddress);
        }
        let client_port = key.source.port;
        let first = self.ports.lease(sources, target, key.protocol, client_port, random);
        let lease = first.or_else(|exhausted| {
            if !self.evict(&Scope::ports(target, key.protocol, client_port), now) {
                return Err(exhausted);
            }
            self.ports.lease(sources, target, key.protocol, client_port, random)
        });
        lease.map_err(|_| DropReason::PortsExhausted)
    }

    /// Enters the flow under both keys; gives its lease back if that cannot be. TCP's tracker begins with what opens it.
    pub(super) fn enter(
        &mut self,
        plan: &Plan,
        opening: Option<&TcpSegment<'_>>,
        now: Instant,
    ) -> Result<FlowRef, DropReason> {
        let table = &self.shared.table;
        let entered = table.create(plan, now).and_then(|flow| {
            // Before any other worker can find it.
            if let Some(segment) = opening {
                flow.begin_tracking(segment);
            }
            table.commit(&flow).map(|()| flow)
        });
        if entered.is_err() && plan.leased {
            self.ports.release(plan.reply.destination, plan.reply.source, plan.reply.protocol);
        }
        entered.map_err(|refused| match refused {
            // One client belongs to one worker, so its first packets cannot race here; the table allows for it.
            Refused::Exists(_) | Refused::Conflict => DropReason::FlowConflict,
            // Another worker has just taken the room that there was.
            Refused::Full => DropReason::FlowTableFull,
        })
    }

    /// Sends the first packet of a new flow on its way.
    fn launch<T: TraceSink>(
        &mut self,
        flow: &FlowRef,
        packet: &mut Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        self.expiry.arm(&self.shared.table, flow.id(), now, &self.policy.snapshot.timeouts);
        self.count_opened(flow);
        self.note_opened(flow);
        count_traffic(flow, Direction::Original, packet.bytes().len(), self.counters());
        match rewrite(flow, Direction::Original, packet, now, trace) {
            Ok(()) => Verdict::Forward,
            Err(mtu) => self.too_big(packet, mtu, now),
        }
    }

    pub(super) fn count_opened(&self, flow: &FlowRef) {
        self.shared.loads.opened(flow.backend());
        for counters in [self.counters().service(flow.service()), self.counters().backend(flow.backend())] {
            counters.opened.add(1);
        }
    }

    /// A packet for an address where nobody listens, or for none of ours: an own address answers as a host would
    /// (RFC 9293 3.10.7.1, RFC 1122 4.1.3.1), so that clients fail at once and traceroute ends.
    fn unserved(&mut self, key: &FlowKey, packet: &Packet<'_>, now: Instant) -> Verdict {
        let snapshot = &self.policy.snapshot;
        if !snapshot.is_own(key.destination.address) {
            return Verdict::Drop(DropReason::NoService);
        }
        let is_vip = snapshot.listeners.is_vip(key.destination.address);
        match key.protocol {
            Protocol::TCP => self.reset(packet, if is_vip { DropReason::NoService } else { DropReason::NoFlow }),
            Protocol::UDP if is_vip => self.port_unreachable(packet, DropReason::NoService, now),
            Protocol::UDP => Verdict::Drop(DropReason::NoFlow),
            _ => Verdict::Drop(DropReason::Protocol),
        }
    }
}

/// Whether this is a segment of a connection that was begun before, here or elsewhere.
fn is_of_the_middle(packet: &Packet<'_>) -> bool {
    packet.tcp().is_some_and(|segment| !segment.flags.has(TcpFlags::SYN))
}
