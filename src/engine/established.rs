//! What happens to a packet of a flow that is known: the established path, without a lock, an allocation or a clock.

use super::conntrack::tcp::Outcome;
use super::conntrack::{Direction, Fit, Flow, State};
use super::counters::WorkerCounters;
use super::{DropReason, Instant, Route, TraceSink, Verdict, tunnel};
use crate::wire::{Packet, TcpFlags};

/// What becomes of a packet of a known flow.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Done(Verdict),
    /// Forwarded, and the flow's state has changed from this, by a packet of this direction: its timeout is another now.
    Moved(State, Direction),
    /// Forwarded: a SYN that has not been answered yet, again.
    Repeated,
    /// Its TTL has run out here.
    HopsExhausted,
    /// It does not fit the tunnel; this would.
    TooBig(u16),
    /// The flow is over, and this begins a new one.
    Reopen,
}

/// The usual packet, from the first look to the last: of a flow without a tunnel, whose state it does not change. `None`,
/// and nothing is done, if it is another: [`pass`] is for all.
#[inline(always)]
pub(super) fn pass_usual<T: TraceSink>(
    flow: &Flow,
    direction: Direction,
    packet: &mut Packet<'_>,
    now: Instant,
    counters: &WorkerCounters,
    trace: &mut T,
) -> Option<Verdict> {
    if packet.ttl() <= 1 || flow.is_tunnelled() {
        return None;
    }
    let fit = match packet.tcp() {
        Some(segment) if segment.flags.is_plain_ack() && flow.is_in(State::Established) => {
            flow.slide(direction, &segment)?
        }
        None if after_datagram(flow.state(), direction) == flow.state() => Fit::Inside,
        Some(_) | None => return None,
    };
    describe_flow(flow, direction, trace);
    if fit == Fit::Outside {
        return Some(Verdict::Drop(DropReason::TcpWindow));
    }
    if fit == Fit::Inside {
        flow.touch(now);
    }
    let len = packet.bytes().len();
    translate(flow, direction, packet, trace);
    count_traffic(flow, direction, len, counters);
    Some(Verdict::Forward)
}

/// Any packet of a known flow: no lock, no allocation, no clock.
pub(super) fn pass<T: TraceSink>(
    flow: &Flow,
    direction: Direction,
    packet: &mut Packet<'_>,
    now: Instant,
    counters: &WorkerCounters,
    trace: &mut T,
) -> Step {
    describe_flow(flow, direction, trace);
    if packet.ttl() <= 1 {
        return Step::HopsExhausted;
    }
    let tunnelled = flow.is_tunnelled();
    if direction == Direction::Reply && tunnelled {
        // The backend answers past us, and nobody else may use a VIP as his own address (R16).
        return Step::Done(Verdict::Drop(DropReason::SpoofedSource));
    }
    let before = flow.state();
    let (after, refreshes, repeated) = match track(flow, before, direction, tunnelled, packet) {
        Track::Refresh(state) => (state, true, false),
        Track::Repeat => (before, true, true),
        Track::Keep => (before, false, false),
        Track::Reopen => return Step::Reopen,
        Track::Refuse(reason) => return Step::Done(Verdict::Drop(reason)),
    };
    let len = packet.bytes().len();
    if let Err(mtu) = rewrite(flow, direction, packet, now, trace) {
        return Step::TooBig(mtu);
    }
    if refreshes {
        flow.touch(now);
    }
    count_traffic(flow, direction, len, counters);
    if after == before {
        return if repeated { Step::Repeated } else { Step::Done(Verdict::Forward) };
    }
    flow.set_state(after);
    trace.stage("conntrack", || format!("{} -> {}", before.name(), after.name()));
    Step::Moved(before, direction)
}

/// Does to a packet what its flow does to all of this direction.
///
/// # Errors
/// It is too big for the flow's tunnel, and this is the MTU that its sender is to be told.
pub(super) fn rewrite<T: TraceSink>(
    flow: &Flow,
    direction: Direction,
    packet: &mut Packet<'_>,
    now: Instant,
    trace: &mut T,
) -> Result<(), u16> {
    if flow.is_tunnelled() {
        return tunnel::enter(flow, packet, now, trace);
    }
    translate(flow, direction, packet, trace);
    Ok(())
}

#[inline(always)]
fn translate<T: TraceSink>(flow: &Flow, direction: Direction, packet: &mut Packet<'_>, trace: &mut T) {
    packet.translate(&flow.translation(direction));
    trace.stage("rewrite", || describe(packet));
}

#[inline(always)]
fn describe_flow<T: TraceSink>(flow: &Flow, direction: Direction, trace: &mut T) {
    trace.route(Route { service: Some(flow.service()), backend: Some(flow.backend()) });
    trace.stage("conntrack", || format!("flow known, {direction:?}, {}", flow.state().name()));
}

#[inline(always)]
pub(super) fn count_traffic(flow: &Flow, direction: Direction, len: usize, counters: &WorkerCounters) {
    flow.traffic[direction as usize].count(len);
    for sum in [counters.service(flow.service()), counters.backend(flow.backend())] {
        sum.towards(direction).count(len);
    }
}

/// What a packet means for the state of its flow.
enum Track {
    Refresh(State),
    /// Refresh; it is the flow's SYN again.
    Repeat,
    /// Forward, but neither believe nor refresh.
    Keep,
    Reopen,
    Refuse(DropReason),
}

fn track(flow: &Flow, state: State, direction: Direction, tunnelled: bool, packet: &Packet<'_>) -> Track {
    let Some(segment) = packet.tcp() else {
        return Track::Refresh(after_datagram(state, direction));
    };
    let control = segment.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) != 0;
    if control && !packet.transport_checksum_ok() {
        return Track::Refuse(DropReason::BadTransportChecksum);
    }
    let outcome = if tunnelled { flow.step_one_way(state, &segment) } else { flow.step(state, direction, &segment) };
    match outcome {
        Outcome::Accept(after) if control && after == state => {
            if segment.flags.has(TcpFlags::RST) {
                Track::Keep // R33: a RST that ends nothing does not prolong anything either.
            } else if state == State::SynSent && direction == Direction::Original {
                Track::Repeat
            } else {
                Track::Refresh(after)
            }
        }
        Outcome::Accept(after) => Track::Refresh(after),
        Outcome::Pass => Track::Keep,
        Outcome::Reopen => Track::Reopen,
        Outcome::BadState if !segment.flags.valid() => Track::Refuse(DropReason::BadTcpFlags),
        Outcome::BadState => Track::Refuse(DropReason::TcpState),
        Outcome::BadWindow => Track::Refuse(DropReason::TcpWindow),
    }
}

/// UDP has no handshake: a client that goes on after an answer is taken to have got it.
#[inline(always)]
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
