//! Checks that go the way of a DSR service's flows, sans-IO: from a source address to the VIP, wrapped to one backend,
//! which answers from the VIP by its own route.
//!
//! So one answer says that the tunnel is taken apart, that the VIP is there, that reverse-path filters let clients'
//! packets in, and that somebody listens. Where there is none, a ping of the backend's own address, and ICMP errors about
//! the outer packets, tell what is wrong.

mod talk;
mod web;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::{FixedState, RandomState};

use self::talk::Talk;
use super::{Answer, Outcome, Query, Question, QuestionId, Reason, TunnelFault, Way};
use crate::engine::Instant;
use crate::engine::nat::ports::FOR_CHECKS;
use crate::wire::tunnel::{self, Entry, Tunnel};
use crate::wire::{Endpoint, Offload, Packet, Protocol, build, icmp};

/// All questions that are asked by tunnels now.
#[derive(Debug)]
pub struct Tunnels {
    seed: u64,
    mtu: u16,
    /// By the port that they are asked from: no two have the same.
    asked: HashMap<u16, Asked, RandomState>,
    next_port: u16,
    count: u64,
    outgoing: Vec<Vec<u8>>,
    answers: Vec<(QuestionId, Answer)>,
}

/// One of them.
#[derive(Debug)]
struct Asked {
    id: QuestionId,
    query: Arc<Query>,
    tunnel: Tunnel,
    /// Where the answer goes.
    source: Endpoint,
    talk: Talk,
    begun: Instant,
    /// Whether half of its time is over: then it has been asked again, and the backend itself been pinged.
    repeated: bool,
    /// Whether the backend itself has answered.
    alive: bool,
    /// What an ICMP error has said of the tunnel.
    fault: Option<TunnelFault>,
}

impl Tunnels {
    /// None is asked. `mtu` is that of the gateway's TUN; `seed` is for sequence numbers.
    pub fn new(mtu: u16, seed: u64) -> Self {
        let first = *FOR_CHECKS.start();
        Self {
            seed,
            mtu,
            asked: HashMap::default(),
            next_port: first,
            count: 0,
            outgoing: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Asks. If no port is left, there are more questions without an answer than this can follow: it is not asked.
    ///
    /// # Panics
    /// It does not go by a tunnel.
    pub fn begin(&mut self, question: &Question, now: Instant) {
        let Way::Tunnel { tunnel, source } = question.what.way else { unreachable!("it goes by a tunnel") };
        let Some(port) = self.free_port() else {
            let outcome = Outcome::NotAsked("too many checks by tunnels are without an answer".to_owned());
            return self.answers.push((question.id, Answer { outcome, took: Duration::ZERO }));
        };
        self.count += 1;
        let random = FixedState::with_seed(self.seed).hash_one((self.count, port));
        let source = Endpoint::new(source, port);
        let talk = Talk::new(&question.what, source, random, now);
        let query = Arc::clone(&question.what);
        let begun = now;
        let mut asked =
            Asked { id: question.id, query, tunnel, source, talk, begun, repeated: false, alive: false, fault: None };
        for packet in asked.talk.open(&asked.query, source, now) {
            wrap(&asked, self.mtu, packet, &mut self.outgoing);
        }
        self.asked.insert(port, asked);
    }

    /// Takes a packet that the engine has passed on.
    pub fn hear(&mut self, mut bytes: Vec<u8>, now: Instant) {
        let Ok(packet) = Packet::parse(&mut bytes, Offload::default()) else { return };
        match packet.protocol() {
            Protocol::ICMP | Protocol::ICMPV6 => match icmp::kind(&packet) {
                Some(icmp::Kind::EchoReply) => self.hear_echo(&packet, now),
                Some(icmp::Kind::Error) => self.hear_error(&packet, now),
                Some(icmp::Kind::EchoRequest | icmp::Kind::Other) | None => {}
            },
            _ => self.hear_answer(&packet, now),
        }
    }

    /// Asks again, and gives up, where it is time to.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<u16> = self.asked.iter().filter(|(_, asked)| asked.next() <= now).map(|(port, _)| *port).collect();
        for port in due {
            let asked = self.asked.get_mut(&port).expect("it was just found");
            if now >= asked.begun + asked.query.timeout {
                let outcome = asked.given_up();
                self.end(port, outcome, now);
                continue;
            }
            if !asked.repeated && now >= asked.half() {
                asked.repeated = true;
                self.outgoing.push(asked.plain_ping());
            }
            for packet in asked.talk.repeat(&asked.query, asked.source, now) {
                wrap(asked, self.mtu, packet, &mut self.outgoing);
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asked.values().map(Asked::next).min()
    }

    /// Packets that are to leave, as they are; forgets them.
    pub fn outgoing(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.outgoing.drain(..)
    }

    /// What was answered; forgets it.
    pub fn answers(&mut self) -> Vec<(QuestionId, Answer)> {
        std::mem::take(&mut self.answers)
    }

    fn free_port(&mut self) -> Option<u16> {
        for _ in FOR_CHECKS {
            let port = self.next_port;
            self.next_port = if port == *FOR_CHECKS.end() { *FOR_CHECKS.start() } else { port + 1 };
            if !self.asked.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }

    fn hear_answer(&mut self, packet: &Packet<'_>, now: Instant) {
        let Some((from, to)) = packet.endpoints() else { return };
        let Some(asked) = self.asked.get_mut(&to.port).filter(|a| a.source == to && a.query.endpoint == from) else {
            return;
        };
        let (packets, outcome) = asked.talk.hear(&asked.query, asked.source, packet, now);
        for packet in packets {
            wrap(asked, self.mtu, packet, &mut self.outgoing);
        }
        if let Some(outcome) = outcome {
            self.end(to.port, outcome, now);
        }
    }

    fn hear_echo(&mut self, packet: &Packet<'_>, now: Instant) {
        let (from, to) = packet.addresses();
        let Some(port) = icmp::echo_id(packet) else { return };
        let Some(asked) = self.asked.get_mut(&port).filter(|asked| asked.talk.is_echoed(packet.transport())) else {
            return;
        };
        if from == asked.tunnel.destination {
            asked.alive = true;
        } else if asked.talk.is_echo() && from == asked.query.endpoint.address && to == asked.source.address {
            self.end(port, Outcome::Good, now);
        }
    }

    /// An ICMP error: about an outer packet, which is news of the tunnel, or about one inside, which has arrived.
    fn hear_error(&mut self, error: &Packet<'_>, now: Instant) {
        let Some(quoted) = tunnel::quoted(error) else { return self.hear_refusal(error, now) };
        let fault = TunnelFault::told_by(error);
        let own = quoted.inner.and_then(|inner| {
            let transport = inner.bytes.get(usize::from(inner.header.payload)..)?;
            let port = if inner.source.port == 0 { talk::echo_id(transport)? } else { inner.source.port };
            let asked = self.asked.get(&port)?;
            let is_own = asked.tunnel == quoted.tunnel
                && inner.source.address == asked.source.address
                && inner.destination.address == asked.query.endpoint.address
                && asked.talk.has_sent(transport);
            is_own.then_some(port)
        });
        if let Some(port) = own {
            return self.end(port, Outcome::Bad(Reason::Tunnel(fault)), now);
        }
        // Of a client's packet in the same tunnel: nobody shows that it was sent, so it decides nothing.
        for asked in self.asked.values_mut().filter(|asked| asked.tunnel == quoted.tunnel) {
            asked.fault = Some(fault);
        }
    }

    /// The host behind the tunnel has got the packet, and says no.
    fn hear_refusal(&mut self, error: &Packet<'_>, now: Instant) {
        let Ok(quote) = icmp::quote(error) else { return };
        let Some(asked) = self.asked.get(&quote.source.port) else { return };
        let quoted = icmp::quoted(error).ok().and_then(|(header, bytes)| bytes.get(usize::from(header.payload)..));
        let sent = quoted.is_some_and(|transport| asked.talk.has_sent(transport));
        if asked.source != quote.source || asked.query.endpoint != quote.destination || !sent {
            return;
        }
        let message = error.transport();
        let kind = (error.protocol(), message.first().copied(), message.get(1).copied());
        let reason = match kind {
            (Protocol::ICMP, Some(3), Some(3)) | (Protocol::ICMPV6, Some(1), Some(4)) => Reason::PortUnreachable,
            (Protocol::ICMP, Some(3), Some(9 | 10 | 13)) | (Protocol::ICMPV6, Some(1), Some(1)) => Reason::Prohibited,
            _ => Reason::Tunnel(TunnelFault::NoVip),
        };
        self.end(quote.source.port, Outcome::Bad(reason), now);
    }

    fn end(&mut self, port: u16, outcome: Outcome, now: Instant) {
        let asked = self.asked.remove(&port).expect("the caller has just seen it");
        self.answers.push((asked.id, Answer { outcome, took: now.since(asked.begun) }));
    }
}

impl Asked {
    fn half(&self) -> Instant {
        self.begun + self.query.timeout / 2
    }

    /// When there is something to do for it.
    fn next(&self) -> Instant {
        let end = self.begun + self.query.timeout;
        let half = if self.repeated { end } else { self.half() };
        self.talk.poll_timeout().into_iter().chain([half, end]).min().expect("there are two")
    }

    /// Its time is over.
    fn given_up(&self) -> Outcome {
        if self.talk.has_begun() {
            return Outcome::Bad(Reason::NoAnswer); // The tunnel works: what is behind it does not.
        }
        let silence = if self.alive { TunnelFault::NoAnswerButAlive } else { TunnelFault::NoAnswer };
        match self.fault {
            None if self.alive && self.query.allows_silence() => Outcome::Good,
            fault => Outcome::Bad(Reason::Tunnel(fault.unwrap_or(silence))),
        }
    }

    /// A ping of the backend itself, past the tunnel.
    fn plain_ping(&self) -> Vec<u8> {
        let Tunnel { source, destination, .. } = self.tunnel;
        build::icmp(source, destination, self.talk.echo(source.is_v4(), self.source.port))
    }
}

impl TunnelFault {
    /// What an error about an outer packet says: of its protocol or port, or of the way (RFC 792, RFC 4443 3).
    fn told_by(error: &Packet<'_>) -> Self {
        let message = error.transport();
        let kind = (error.protocol(), message.first().copied(), message.get(1).copied());
        match kind {
            (Protocol::ICMP, Some(3), Some(2 | 3)) | (Protocol::ICMPV6, Some(1), Some(4)) => Self::NotDecapsulated,
            // IPv6 calls an unknown protocol a problem with the header.
            (Protocol::ICMPV6, Some(4), Some(1)) => Self::NotDecapsulated,
            _ => Self::Unreachable,
        }
    }
}

/// Puts a packet into the tunnel.
fn wrap(asked: &Asked, mtu: u16, mut packet: Vec<u8>, out: &mut Vec<Vec<u8>>) {
    let mut packet = Packet::parse(&mut packet, Offload::default()).expect("made here");
    packet.enter(Entry { tunnel: asked.tunnel, path_mtu: mtu, entropy: asked.source.port, id: 0 });
    out.extend(tunnel::leaving(&mut packet));
}

#[cfg(test)]
mod tests;
