//! ICMP through and from the gateway: errors about translated flows, echo, and answers of our own.

use super::conntrack::{Direction, FlowKey};
use super::verdict::{DropReason, Route, TraceSink, Verdict};
use super::{Engine, Instant, Outgoing};
use crate::wire::build::{self, Tcp};
use crate::wire::icmp::{self, Error, Kind, Quote};
use crate::wire::{Address, Endpoint, Packet, Problem, TcpFlags};

impl Engine {
    /// A packet without ports: ICMP, or a protocol that no service carries.
    pub(super) fn icmp<T: TraceSink>(&mut self, packet: &mut Packet<'_>, now: Instant, trace: &mut T) -> Verdict {
        // Of a message in fragments neither the checksum nor the end can be seen; an echo reply needs neither.
        let whole = packet.fragment().is_none();
        let Some(kind) = icmp::kind(packet).filter(|kind| whole || *kind == Kind::EchoRequest) else {
            return Verdict::Drop(DropReason::Protocol);
        };
        if whole && !packet.transport_checksum_ok() {
            return Verdict::Drop(DropReason::BadIcmpChecksum); // R61
        }
        let (source, destination) = packet.addresses();
        if !source.is_host() || !destination.is_host() {
            return Verdict::Drop(DropReason::Martian);
        }
        match kind {
            Kind::EchoRequest => self.echo(packet),
            Kind::EchoReply => self.echo_reply(packet),
            Kind::Error => self.error(packet, now, trace),
            Kind::Other => Verdict::Drop(DropReason::IcmpType), // R71
        }
    }

    /// R69: an own address answers, whatever the state of its backends; a gateway that is reached need not look at the
    /// TTL (R8).
    fn echo(&mut self, packet: &Packet<'_>) -> Verdict {
        let (source, destination) = packet.addresses();
        let snapshot = &self.policy.snapshot;
        if !snapshot.is_own(destination) {
            return Verdict::Drop(DropReason::NoService);
        }
        if snapshot.is_own(source) {
            return Verdict::Drop(DropReason::SpoofedSource);
        }
        self.answer_echo(packet)
    }

    /// Nobody's but a health check's: the gateway sends no other pings. Its identifier stands where a port would.
    fn echo_reply(&self, packet: &Packet<'_>) -> Verdict {
        let (_, destination) = packet.addresses();
        let to = icmp::echo_id(packet).map(|id| Endpoint::new(destination, id));
        if to.is_some_and(|to| self.is_for_checks(to)) { self.hear(packet) } else { Verdict::Drop(DropReason::NoFlow) }
    }

    /// Answers an echo request, or a fragment of one.
    pub(super) fn answer_echo(&mut self, packet: &Packet<'_>) -> Verdict {
        icmp::echo_reply(packet).map_or(Verdict::Drop(DropReason::Protocol), |reply| self.answer(reply))
    }

    /// An error about a packet of a flow goes to the end that sent that packet, with the quote as that end sent it.
    fn error<T: TraceSink>(&mut self, packet: &mut Packet<'_>, now: Instant, trace: &mut T) -> Verdict {
        if let Some(verdict) = self.tunnel_error(packet, now, trace) {
            return verdict;
        }
        let quote = icmp::quote(packet);
        let sent = match &quote {
            Ok(Quote { header, source, destination, .. }) => {
                Some(FlowKey { source: *source, destination: *destination, protocol: header.protocol })
            }
            Err(_) => self.portless_quote(packet),
        };
        let Some(sent) = sent else { return Verdict::Drop(DropReason::IcmpQuote) };
        if self.is_for_checks(sent.source) {
            return self.hear(packet);
        }
        let (outer_source, outer_destination) = packet.addresses();
        if self.policy.snapshot.is_own(outer_source) {
            return Verdict::Drop(DropReason::SpoofedSource); // R16
        }
        if outer_destination != sent.source.address {
            return Verdict::Drop(DropReason::IcmpNoFlow); // who is told is not who sent that
        }
        // The quoted packet had left us: its answer's key is the one we know it by.
        let known = self.shared.table.find(&sent.invert());
        let by_tunnel = known.as_ref().is_none_or(|(flow, _)| flow.is_tunnelled());
        if by_tunnel && packet.ttl() > 1 {
            let flow = known.as_ref().map(|(flow, _)| &**flow);
            return self.error_into_tunnel(flow, &sent.invert(), packet, now, trace);
        }
        let Some((flow, direction)) = known else {
            return Verdict::Drop(DropReason::IcmpNoFlow); // R66
        };
        trace.route(Route { service: Some(flow.service()), backend: Some(flow.backend()) });
        trace.stage("icmp", || format!("quotes {} -> {}, a packet of a flow", sent.source, sent.destination));
        if packet.ttl() <= 1 {
            return Verdict::Drop(DropReason::TtlExceeded); // R9: no error about an error
        }
        let Ok(quote) = quote else { return Verdict::Drop(DropReason::IcmpQuote) };
        if direction == Direction::Reply && icmp::is_unreachable(packet) {
            self.learn_from_error(&flow);
        }
        let as_sent = flow.key(direction.other());
        let outer = match direction {
            // R59: whoever reports it from outside stays visible to the backend.
            Direction::Original => (outer_source, as_sent.source.address),
            // R60: what is behind us does not show.
            Direction::Reply => (as_sent.destination.address, as_sent.source.address),
        };
        icmp::translate_error(packet, &quote, outer, (as_sent.source, as_sent.destination));
        trace.stage("rewrite", || super::established::describe(packet));
        Verdict::Forward
    }

    /// R7: the TTL ran out here, on the way to a service at this VIP or back. The error is from the address that the
    /// packet was for; but not if that is a client's, who has not sent it.
    pub(super) fn time_exceeded(&mut self, packet: &Packet<'_>, vip: Address, now: Instant) -> Verdict {
        let (_, destination) = packet.addresses();
        let source = if self.policy.snapshot.is_own(destination) { destination } else { vip };
        self.send_error(packet, Error::TimeExceeded, source, DropReason::TtlExceeded, now)
    }

    /// Nobody listens on this UDP port of a VIP, for this reason. A damaged datagram may have been for another (RFC 1122
    /// 4.1.3.4).
    pub(super) fn port_unreachable(&mut self, packet: &Packet<'_>, reason: DropReason, now: Instant) -> Verdict {
        if !packet.transport_checksum_ok() {
            return Verdict::Drop(reason);
        }
        let (_, vip) = packet.addresses();
        self.send_error(packet, Error::PortUnreachable, vip, reason, now)
    }

    /// A packet that is dropped for this reason. If it is IPv6 and for one of our addresses, its sender is told what was
    /// wrong with it where RFC 8200 says so (R78, R79, R82, R86).
    #[cold]
    pub(super) fn parameter_problem(&mut self, bytes: &[u8], reason: DropReason, now: Instant) -> Verdict {
        let Some(problem) = Problem::find(bytes) else { return Verdict::Drop(reason) };
        let snapshot = &self.policy.snapshot;
        let for_us = snapshot.is_own(problem.destination) && !snapshot.is_own(problem.sender);
        if !for_us || !self.icmp_errors.take(now) {
            return Verdict::Drop(reason); // R10
        }
        self.answer(problem.answer())
    }

    /// No source port is left for the flow (R31): who asks learns it now, and not when his patience is at its end.
    pub(super) fn prohibited(&mut self, packet: &Packet<'_>, now: Instant) -> Verdict {
        let (_, vip) = packet.addresses();
        self.send_error(packet, Error::Prohibited, vip, DropReason::PortsExhausted, now)
    }

    /// Sends an error, if one may be sent; drops the packet if not.
    fn send_error(
        &mut self,
        packet: &Packet<'_>,
        error: Error,
        source: Address,
        reason: DropReason,
        now: Instant,
    ) -> Verdict {
        let Some(answer) = icmp::error(packet, error, source) else { return Verdict::Drop(reason) };
        if !self.icmp_errors.take(now) {
            return Verdict::Drop(reason); // R10
        }
        self.answer(answer)
    }

    /// RFC 9293 3.10.7.1: the RST of a host that knows no such connection (R53). A RST gets none.
    pub(super) fn reset(&mut self, packet: &Packet<'_>, reason: DropReason) -> Verdict {
        let (Some(segment), Some((source, destination))) = (packet.tcp(), packet.endpoints()) else {
            return Verdict::Drop(reason);
        };
        if segment.flags.has(TcpFlags::RST) || !segment.flags.valid() || !packet.transport_checksum_ok() {
            return Verdict::Drop(reason);
        }
        let answer = if segment.flags.has(TcpFlags::ACK) {
            Tcp { seq: segment.ack, flags: TcpFlags::RST, ..Tcp::default() }
        } else {
            let ack = segment.seq.wrapping_add(segment.seq_len());
            Tcp { ack, flags: TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0), ..Tcp::default() }
        };
        let answer = build::tcp(destination, source, &answer);
        self.answer(answer)
    }

    pub(super) fn answer(&mut self, packet: Vec<u8>) -> Verdict {
        let cause = self.in_hand();
        self.outbox.push(Outgoing { cause, packet });
        Verdict::Reply
    }
}
