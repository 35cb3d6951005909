//! Direct server return: packets of clients go to the backend as they came, wrapped; its answers do not pass here.

use super::conntrack::{Direction, Flow, FlowKey};
use super::nat::Rewrite;
use super::path::Path;
use super::verdict::{DropReason, NoTrace, Route, TraceSink, Verdict};
use super::{Engine, Instant};
use crate::config::ServiceId;
use crate::wire::icmp::{self, Error};
use crate::wire::tunnel::{self, Fit, Quoted};
use crate::wire::{Address, Family, Packet};

/// Puts a packet of a tunnelled flow into its tunnel.
///
/// # Errors
/// It is too big, and this is the MTU that its sender is to be told.
#[inline(never)]
pub(super) fn enter<T: TraceSink>(
    flow: &Flow,
    packet: &mut Packet<'_>,
    now: Instant,
    trace: &mut T,
) -> Result<(), u16> {
    let Rewrite::Encapsulate { entropy } = flow.rewrite(Direction::Original) else {
        unreachable!("a flow with a path goes by a tunnel")
    };
    let path = flow.path();
    wrap(path.as_ref().expect("a flow that goes by a tunnel has a path"), entropy, packet, now, trace)
}

#[inline]
fn wrap<T: TraceSink>(
    path: &Path,
    entropy: u16,
    packet: &mut Packet<'_>,
    now: Instant,
    trace: &mut T,
) -> Result<(), u16> {
    let entry = path.entry(packet, entropy, now);
    let room = entry.tunnel.room(entry.path_mtu);
    if let Fit::TooBig(mtu) = entry.fit(packet) {
        trace.stage("tunnel", || format!("{} bytes, but {room} fit", packet.largest_segment()));
        return Err(mtu);
    }
    // R106. The backend's own SYN-ACK does not pass here: the route of its answers should have this MSS, too.
    packet.clamp_mss(room.saturating_sub(match packet.family() {
        Family::V4 => 20 + 20,
        Family::V6 => 40 + 20,
    }));
    packet.enter(entry);
    trace.stage("tunnel", || describe(&entry.tunnel, packet.bytes().len(), entry.path_mtu));
    Ok(())
}

fn describe(tunnel: &tunnel::Tunnel, len: usize, path_mtu: u16) -> String {
    let tunnel::Tunnel { encapsulation, source, destination } = tunnel;
    let whole = len + usize::from(encapsulation.overhead(tunnel.family()));
    format!("{} {source} -> {destination}, {len} bytes in {whole}, path MTU {path_mtu}", encapsulation.name())
}

impl Engine {
    /// R100, R101: it does not fit the tunnel, and may not be cut. The error is from the VIP.
    pub(super) fn too_big(&mut self, packet: &Packet<'_>, mtu: u16, now: Instant) -> Verdict {
        let (_, vip) = packet.addresses();
        let Some(answer) = icmp::error(packet, Error::TooBig(mtu), vip) else {
            return Verdict::Drop(DropReason::TooBig);
        };
        if !self.too_big_errors.take(now) {
            return Verdict::Drop(DropReason::TooBig); // R10
        }
        self.answer(answer)
    }

    /// An ICMP error about a packet that a backend has sent past us, to the VIP it was sent from (R67): to that backend.
    /// If the flow is not known (any more), to the backend that its packets would go to.
    pub(super) fn error_into_tunnel<T: TraceSink>(
        &self,
        flow: Option<&Flow>,
        original: &FlowKey,
        packet: &mut Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        let entered = match flow {
            Some(flow) => {
                trace.route(Route { service: Some(flow.service()), backend: Some(flow.backend()) });
                enter(flow, packet, now, trace)
            }
            None => {
                let Some((service, path)) = self.path_by_hash(original) else {
                    return Verdict::Drop(DropReason::IcmpNoFlow); // R66
                };
                trace.route(Route { service: Some(service), backend: None });
                wrap(path, entropy(original), packet, now, trace)
            }
        };
        // R9: no error about an error, however big.
        if entered.is_ok() { Verdict::Forward } else { Verdict::Drop(DropReason::TooBig) }
    }

    /// The packet that an ICMP error quotes, if it has no ports and a service's backend has sent it.
    pub(super) fn portless_quote(&self, error: &Packet<'_>) -> Option<FlowKey> {
        let (header, quoted) = icmp::quoted(error).ok()?;
        let (source, destination) = header.addresses(quoted);
        let carried = self.carries_portless(source, header.protocol);
        carried.then(|| FlowKey::portless(source, destination, header.protocol))
    }

    /// There is no room for the flow of this packet, or none is taken: it goes where it would be picked up. A flood of forged connections,
    /// which nobody can tell from true ones here, then costs the others nothing but new flows' choice of a backend.
    pub(super) fn pass_by_hash<T: TraceSink>(
        &mut self,
        key: &FlowKey,
        packet: &mut Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        let Some((_, path)) = self.path_by_hash(key) else { return Verdict::Drop(DropReason::FlowTableFull) };
        trace.stage("conntrack", || "no flow: by hash".to_owned());
        match wrap(path, entropy(key), packet, now, trace) {
            Ok(()) => Verdict::Forward,
            Err(mtu) => self.too_big(packet, mtu, now),
        }
    }

    /// The same for a later fragment of such a packet.
    ///
    /// # Errors
    /// Why it is dropped, of which its sender is not told (R9).
    pub(super) fn wrap_by_hash(
        &self,
        key: &FlowKey,
        fragment: &mut Packet<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if fragment.ttl() <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        let (_, path) = self.path_by_hash(key).ok_or(DropReason::FlowTableFull)?;
        wrap(path, entropy(key), fragment, now, &mut NoTrace).map_err(|_| DropReason::TooBig)
    }

    /// Where packets with this key go whose flow is not known, if they are for a DSR service.
    fn path_by_hash(&self, key: &FlowKey) -> Option<(ServiceId, &Path)> {
        let service = self.policy.snapshot.listeners.service(key.destination, key.protocol)?;
        let backend = self.policy.pick_up(service)?.pick(&self.request(key))?;
        Some((service, self.policy.path(backend)?))
    }

    /// An ICMP error about a packet of our own, between us and a backend (R103, R104): the client has not sent that, and
    /// learns only what concerns the packet inside. `None` if it is about something else.
    pub(super) fn tunnel_error<T: TraceSink>(
        &mut self,
        packet: &Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Option<Verdict> {
        let (_, told) = packet.addresses();
        if !self.policy.snapshot.is_own(told) {
            return None;
        }
        let quoted = tunnel::quoted(packet)?;
        if quoted.tunnel.source != told {
            return None;
        }
        let inner = quoted.inner.map(|inner| inner.key());
        let flow = inner.and_then(|(source, destination, protocol)| {
            let key = FlowKey { source, destination, protocol };
            self.shared.table.find(&key).map(|(flow, _)| flow)
        });
        // A flow keeps its tunnel when the configuration has lost it.
        let of_flow = flow.as_ref().and_then(|flow| flow.path().clone());
        let of_flow = of_flow.as_deref().filter(|path| *path.tunnel() == quoted.tunnel);
        if of_flow.is_none() && self.policy.paths_by(&quoted.tunnel).next().is_none() {
            return None;
        }
        if let Some(flow) = &flow {
            trace.route(Route { service: Some(flow.service()), backend: Some(flow.backend()) });
        }
        trace.stage("icmp", || format!("quotes a packet in the tunnel to {}", quoted.tunnel.destination));
        let Some(mtu) = icmp::told_mtu(packet) else {
            self.overhear(packet);
            let head = *packet.transport().first_chunk().expect("an ICMP message has a type and a code");
            self.policy.paths_by(&quoted.tunnel).chain(of_flow).for_each(|path| path.lost(head, now));
            for backend in self.policy.backends_by(&quoted.tunnel) {
                self.counters().backend(backend).unreachable.add(1);
            }
            if let Some(flow) = flow.as_ref().filter(|_| of_flow.is_some() && icmp::is_unreachable(packet)) {
                self.learn_from_error(flow);
            }
            return Some(Verdict::Drop(DropReason::TunnelUnreachable));
        };
        for path in self.policy.paths_by(&quoted.tunnel).chain(of_flow) {
            path.learn(mtu, now);
        }
        let Some(path) = of_flow else { return Some(Verdict::Consume) };
        trace.stage("tunnel", || format!("the path MTU is {} now", path.mtu(now)));
        let room = path.tunnel().room(path.mtu(now));
        Some(self.tell_client(&quoted, room, now).unwrap_or(Verdict::Consume))
    }

    /// Tells the client of a packet that was lost in a tunnel what would have fitted, if he can send less.
    fn tell_client(&mut self, quoted: &Quoted<'_>, room: u16, now: Instant) -> Option<Verdict> {
        let inner = quoted.inner.as_ref()?;
        let mtu = inner.too_big_for(room)?;
        if !self.too_big_errors.take(now) {
            return None;
        }
        let answer =
            icmp::error_quoting(inner.bytes, Error::TooBig(mtu), inner.destination.address, inner.source.address);
        Some(self.answer(answer))
    }
}

/// Spreads a flow's outer packets as the flow would be spread (RFC 6438): the same on every gateway.
pub(super) fn entropy(key: &FlowKey) -> u16 {
    let mix = |hash: u32, address: Address| {
        address
            .octets()
            .as_chunks::<4>()
            .0
            .iter()
            .fold(hash, |hash, word| (hash ^ u32::from_be_bytes(*word)).wrapping_mul(0x9e37_79b1).rotate_left(13))
    };
    let ports = u32::from(key.source.port) << 16 | u32::from(key.destination.port);
    let hash = mix(mix(ports, key.source.address), key.destination.address).wrapping_mul(0x85eb_ca77);
    u16::try_from(hash >> 16).expect("sixteen bits are left")
}
