//! What happens to a packet of a flow that is known: the established path, without a lock, an allocation or a clock.

use super::conntrack::tcp::Outcome;
use super::conntrack::{Direction, Flow, State};
use super::counters::WorkerCounters;
use super::{DropReason, Instant, Route, TraceSink, Verdict, nat, tunnel};
use crate::wire::{Packet, TcpFlags};

/// What becomes of a packet of a known flow.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Done(Verdict),
    /// Forwarded, and the flow's state has changed: its timeout is another now.
    Moved,
    /// Its TTL has run out here.
    HopsExhausted,
    /// It does not fit the tunnel; this would.
    TooBig(u16),
    /// The flow is over, and this begins a new one.
    Reopen,
}

/// The established path: no lock, no allocation, no clock.
#[inline]
pub(super) fn pass<T: TraceSink>(
    flow: &Flow,
    direction: Direction,
    packet: &mut Packet<'_>,
    now: Instant,
    counters: &WorkerCounters,
    trace: &mut T,
) -> Step {
    trace.route(Route { service: Some(flow.service), backend: Some(flow.backend) });
    trace.stage("conntrack", || format!("flow known, {direction:?}, {}", flow.state().name()));
    if packet.ttl() <= 1 {
        return Step::HopsExhausted;
    }
    if flow.path().is_some() {
        return tunnel::pass(flow, direction, packet, now, counters, trace);
    }
    let before = flow.state();
    let after = match track(flow, before, direction, packet) {
        Track::Refresh(state) => {
            flow.touch(now);
            state
        }
        Track::Keep => before,
        Track::Reopen => return Step::Reopen,
        Track::Refuse(reason) => return Step::Done(Verdict::Drop(reason)),
    };
    count_traffic(flow, direction, packet.bytes().len(), counters);
    nat::apply(packet, flow, direction);
    trace.stage("rewrite", || describe(packet));
    if after == before {
        return Step::Done(Verdict::Forward);
    }
    flow.set_state(after);
    trace.stage("conntrack", || format!("{} -> {}", before.name(), after.name()));
    Step::Moved
}

#[inline]
pub(super) fn count_traffic(flow: &Flow, direction: Direction, len: usize, counters: &WorkerCounters) {
    flow.traffic[direction as usize].count(len);
    for sum in [counters.service(flow.service), counters.backend(flow.backend)] {
        sum.towards(direction).count(len);
    }
}

/// What a packet means for the state of its flow.
pub(super) enum Track {
    Refresh(State),
    /// Forward, but neither believe nor refresh.
    Keep,
    Reopen,
    Refuse(DropReason),
}

#[inline]
fn track(flow: &Flow, state: State, direction: Direction, packet: &Packet<'_>) -> Track {
    let Some(segment) = packet.tcp() else {
        return Track::Refresh(after_datagram(state, direction));
    };
    let control = segment.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) != 0;
    if control && !packet.transport_checksum_ok() {
        return Track::Refuse(DropReason::BadTransportChecksum);
    }
    match flow.step(state, direction, &segment) {
        // R33: a RST that ends nothing does not prolong anything either.
        Outcome::Accept(after) if after == state && segment.flags.has(TcpFlags::RST) => Track::Keep,
        Outcome::Accept(after) => Track::Refresh(after),
        Outcome::Pass => Track::Keep,
        Outcome::Reopen => Track::Reopen,
        Outcome::BadState if !segment.flags.valid() => Track::Refuse(DropReason::BadTcpFlags),
        Outcome::BadState => Track::Refuse(DropReason::TcpState),
        Outcome::BadWindow => Track::Refuse(DropReason::TcpWindow),
    }
}

/// UDP has no handshake: a client that goes on after an answer is taken to have got it.
#[inline]
fn after_datagram(state: State, direction: Direction) -> State {
    match (state, direction) {
        (State::Unreplied, Direction::Reply) => State::Replied,
        (State::Replied, Direction::Original) => State::Assured,
        (state, _) => state,
    }
}

/// A packet's endpoints as it leaves, for traces.
pub(super) fn describe(packet: &Packet<'_>) -> String {
    packet.endpoints().map_or_else(
        || format!("{:?}", packet.addresses()),
        |(source, destination)| format!("{source} -> {destination}, TTL {}", packet.ttl()),
    )
}
