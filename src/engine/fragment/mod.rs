//! Virtual reassembly: fragments go where their first one goes, within their own boundaries (R72-R83).
//!
//! Nothing is put together. What comes before the first fragment, the only one with ports, is held; once the first has
//! found its flow, held and later ones follow with their addresses rewritten. All state is bounded in datagrams, bytes
//! and time; when there is no room the oldest datagram is given up, so that a flood only harms other fragments (R74).

mod cache;

use super::conntrack::{Direction, Flow, FlowKey};
use super::established::{count_traffic, rewrite};
use super::verdict::{DropReason, NoTrace, Route, TraceSink, Verdict};
use super::{Engine, Instant, Outgoing, WorkerId, steering};
use crate::wire::{Fragment, Offload, Packet, Protocol, icmp, tunnel};
pub(super) use cache::Fragments;
use cache::{Admission, DatagramKey, Way};

impl Engine {
    /// A fragment goes where the first one of its datagram goes. All of them are looked after by one worker, which is not
    /// always the owner of their flow: what it then writes into that flow (a count, a time, how far its segments reach) a race
    /// may lose, and the next packet brings again.
    pub(super) fn fragment<T: TraceSink>(
        &mut self,
        packet: &mut Packet<'_>,
        fragment: Fragment,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        // RFC 3128 3: such a fragment is made to change the flags of a header that was let through.
        if packet.protocol() == Protocol::TCP && fragment.offset == 8 {
            return Verdict::Drop(DropReason::BadFragment);
        }
        let key = DatagramKey::of(packet, fragment);
        let owner = steering::owner_of_datagram(key.source, key.destination, key.id, self.shared.workers);
        if owner != self.worker {
            return Verdict::Handoff(owner);
        }
        let until = now + key.timeout(&self.policy.snapshot.timeouts);
        let admission = self.fragments.admit(&key, fragment, packet, (self.in_hand(), until));
        trace.stage("fragment", || format!("at {}, more: {}: {}", fragment.offset, fragment.more, admission.name()));
        let verdict = match admission {
            Admission::First => self.first_fragment(&key, packet, now, trace),
            Admission::Known(way) => {
                if let Way::Flow { flow, .. } = &way {
                    trace.route(Route { service: Some(flow.service()), backend: Some(flow.backend()) });
                }
                self.later_fragment(&way, packet, now)
            }
            Admission::Absorbed => Verdict::Consume,
            Admission::Refused(reason) => Verdict::Drop(reason),
        };
        self.count_forgotten();
        verdict
    }

    /// The first fragment has the ports: it decides for the whole datagram.
    fn first_fragment<T: TraceSink>(
        &mut self,
        datagram: &DatagramKey,
        packet: &mut Packet<'_>,
        now: Instant,
        trace: &mut T,
    ) -> Verdict {
        let protocol = packet.protocol();
        let with_ports = packet.endpoints().map(|(source, destination)| FlowKey { source, destination, protocol });
        let Some(key) = with_ports.or_else(|| self.portless_key(packet)) else {
            let verdict = self.icmp(packet, now, trace);
            if let Verdict::Drop(reason) = verdict {
                self.fragments.kill(datagram, reason);
            } else {
                self.release(datagram, &Way::Echo, now);
            }
            return verdict;
        };
        let verdict = self.follow(&key.tuple(), packet, now, trace);
        if verdict == Verdict::Forward && self.shared.table.find(&key).is_none() && packet.tunnel().is_some() {
            self.release(datagram, &Way::ByHash(key), now);
            return verdict;
        }
        let known = if verdict == Verdict::Forward { self.shared.table.find(&key) } else { None };
        let Some((flow, direction)) = known else {
            let reason = if let Verdict::Drop(reason) = verdict { reason } else { DropReason::NoFlow };
            self.fragments.kill(datagram, reason);
            return verdict;
        };
        let id = self.fragment_id(datagram, &flow, direction);
        let sequence = packet.tcp().filter(|first| flow.believes(direction, first)).map(|first| {
            // So that what the tracker has taken for the end of the segment lies behind it as far as the fragment is long.
            first.seq.wrapping_add(first.seq_len()).wrapping_sub(length(packet))
        });
        packet.set_fragment_id(id);
        self.release(datagram, &Way::Flow { flow, direction, id, sequence }, now);
        verdict
    }

    /// Those that were held for the first one go its way.
    fn release(&mut self, datagram: &DatagramKey, way: &Way, now: Instant) {
        for Outgoing { cause, packet: mut bytes } in self.fragments.route(datagram, way.clone()) {
            let mut fragment = Packet::parse(&mut bytes, Offload::default()).expect("it was parsed before it was held");
            let leaves = match way {
                Way::Flow { flow, direction, id, sequence } => {
                    let passed = self.pass_fragment(flow, *direction, (*id, *sequence), &mut fragment, now);
                    passed.map(|()| tunnel::leaving(&mut fragment))
                }
                Way::ByHash(key) => self.wrap_by_hash(key, &mut fragment, now).map(|()| tunnel::leaving(&mut fragment)),
                Way::Echo => icmp::echo_reply(&fragment).map(|reply| vec![reply]).ok_or(DropReason::Protocol),
            };
            match leaves {
                Ok(packets) => self.outbox.extend(packets.into_iter().map(|packet| Outgoing { cause, packet })),
                Err(reason) => self.counters().absorbed_dropped(reason),
            }
        }
    }

    fn later_fragment(&mut self, way: &Way, packet: &mut Packet<'_>, now: Instant) -> Verdict {
        match way {
            Way::Flow { flow, direction, id, sequence } => {
                let passed = self.pass_fragment(flow, *direction, (*id, *sequence), packet, now);
                passed.map_or_else(Verdict::Drop, |()| Verdict::Forward)
            }
            Way::ByHash(key) => self.wrap_by_hash(key, packet, now).map_or_else(Verdict::Drop, |()| Verdict::Forward),
            Way::Echo => self.answer_echo(packet),
        }
    }

    fn pass_fragment(
        &self,
        flow: &Flow,
        direction: Direction,
        (id, sequence): (u32, Option<u32>),
        packet: &mut Packet<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if packet.ttl() <= 1 {
            return Err(DropReason::TtlExceeded); // R9: no error about a later fragment
        }
        let len = packet.bytes().len();
        if rewrite(flow, direction, packet, now, &mut NoTrace).is_err() {
            return Err(DropReason::TooBig); // R9 again
        }
        if !flow.is_tunnelled() {
            packet.set_fragment_id(id);
        }
        // Only the last one tells how long the segment is, all of which its receiver will acknowledge.
        if let (Some(sequence), Some(last)) = (sequence, packet.fragment().filter(|fragment| !fragment.more)) {
            flow.extend(direction, sequence.wrapping_add(u32::from(last.offset)).wrapping_add(length(packet)));
        }
        count_traffic(flow, direction, len, self.counters());
        Ok(())
    }

    /// R83: two clients whose datagrams have the same identification must not meet behind one source address. Where the
    /// source stays, so does the identification.
    fn fragment_id(&mut self, datagram: &DatagramKey, flow: &Flow, direction: Direction) -> u32 {
        if flow.key(direction.other()).destination.address == datagram.source {
            return datagram.id;
        }
        // Each worker has its own residue, as with ports.
        self.next_fragment_id = self.next_fragment_id.wrapping_add(u32::from(self.shared.workers));
        self.next_fragment_id
    }

    /// Held fragments that were given up are dropped packets, no longer absorbed ones.
    pub(super) fn count_forgotten(&mut self) {
        for (reason, held) in self.fragments.take_forgotten() {
            (0..held).for_each(|_| self.counters().absorbed_dropped(reason));
        }
    }
}

/// Bytes of its datagram that are in a fragment.
fn length(fragment: &Packet<'_>) -> u32 {
    u32::try_from(fragment.piece().len()).expect("within an IP packet")
}

/// Where a worker's fragment identifications begin: somewhere (RFC 7739), in its own residue class.
#[expect(clippy::cast_possible_truncation, reason = "some bits of the seed are enough")]
pub(super) fn first_id(seed: u64, workers: u16, worker: WorkerId) -> u32 {
    let somewhere = (seed >> 16) as u32;
    somewhere - somewhere % u32::from(workers) + u32::from(worker.0)
}
