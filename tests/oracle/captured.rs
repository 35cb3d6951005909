//! What others have captured, sent anew: each conversation becomes one of a client of ours with a service, in the order in
//! which it was had, with its ports, options, mistakes and fragments.

use std::collections::HashMap;

use tungate::wire::{Address, Endpoint, Offload, Packet, Protocol};

use crate::corpus::{is_v4, packets, readdress};
use crate::pair::{Arrival, Flow, Met, Pair, Side};
use crate::{common, sums};

/// Whether transport checksums are made right first: many of the captures were made where hardware was to do that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksums {
    Repaired,
    AsCaptured,
}

#[test]
fn captured_conversations_leave_as_the_kernel_sends_them() {
    let test = "captured_conversations_leave_as_the_kernel_sends_them";
    let Some(captured) = packets() else {
        common::skip(test, "no ../shared/pcaps", "copy the public captures that its README names there");
        return;
    };
    for (source_nat, checksums) in [(true, Checksums::Repaired), (false, Checksums::AsCaptured)] {
        let Some(pair) = Pair::build(test, source_nat) else { return };
        let mut replay = Replay { pair, checksums, flows: HashMap::new(), parted: 0 };
        for datagram in datagrams(&captured) {
            replay.send(&datagram);
        }
        let Replay { pair, flows, parted, .. } = replay;
        println!(
            "source-nat = {source_nat}, checksums {checksums:?}: {} packets of {} flows compared, {} left both \
             alike; {parted} came after a decision that leaves the two with different knowledge: {:#?}",
            pair.compared,
            flows.len(),
            pair.same,
            pair.decided
        );
        assert!(pair.compared > 40_000 && pair.same > 20_000, "only {} of {} packets", pair.same, pair.compared);
    }
}

/// The packets in order, the fragments of a datagram together: they leave the kernel together.
fn datagrams(captured: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut all: Vec<Vec<Vec<u8>>> = Vec::new();
    for packet in captured {
        let Some(key) = fragment_of(packet) else {
            all.push(vec![packet.clone()]);
            continue;
        };
        let place = *places.entry(key).or_insert(all.len());
        if place == all.len() {
            all.push(Vec::new());
        }
        all[place].push(packet.clone());
    }
    all
}

/// What makes fragments one datagram: addresses, identification and, over IPv4, the protocol.
type Key = (Address, Address, u32, Option<Protocol>);

/// The datagram that this is a fragment of.
fn fragment_of(packet: &[u8]) -> Option<Key> {
    let mut bytes = packet.to_vec();
    let packet = Packet::parse(&mut bytes, Offload::default()).ok()?;
    let (source, destination) = packet.addresses();
    let protocol = source.is_v4().then(|| packet.protocol());
    packet.fragment().map(|fragment| (source, destination, fragment.id, protocol))
}

/// A conversation: who spoke first, and as whom it is sent.
#[derive(Clone, Copy)]
struct Conversation {
    first: Endpoint,
    flow: Flow,
    /// A decision has left the two gateways with different knowledge of it.
    parted: bool,
}

struct Replay {
    pair: Pair,
    checksums: Checksums,
    /// By what the capture calls them, the lesser end first.
    flows: HashMap<(Endpoint, Endpoint, Protocol), Conversation>,
    /// Packets that were not sent, because their conversation has parted.
    parted: usize,
}

impl Replay {
    fn send(&mut self, datagram: &[Vec<u8>]) {
        let whose = datagram.iter().find_map(|packet| ends(packet));
        let Some((source, destination, protocol, opens)) = whose else {
            self.send_nameless(datagram);
            return;
        };
        let key = (source.min(destination), source.max(destination), protocol);
        if !self.flows.contains_key(&key) {
            let (client, server) = if opens { (source, destination) } else { (destination, source) };
            let flow = self.flow(client, server, protocol);
            self.flows.insert(key, Conversation { first: client, flow, parted: false });
        }
        let Conversation { first, flow, parted } = self.flows[&key];
        if parted {
            self.parted += datagram.len();
            return;
        }
        let from = if source == first { Side::Clients } else { Side::Backends };
        let arrivals = datagram.iter().map(|packet| self.arrival(packet, &flow, from)).collect();
        if let Met::Decided(decision) = self.pair.receives(&flow, arrivals)
            && decision.parts
        {
            self.flows.get_mut(&key).unwrap().parted = true;
        }
    }

    /// A packet without ports, or without sense: from a client to a VIP.
    fn send_nameless(&mut self, datagram: &[Vec<u8>]) {
        let is_v6 = !is_v4(&datagram[0]);
        let flow = self.pair.flow("web", is_v6);
        let arrivals = datagram.iter().map(|packet| self.arrival(packet, &flow, Side::Clients)).collect();
        let _ = self.pair.receives(&flow, arrivals);
    }

    /// The client with an address of its own, and the ports as they were.
    fn flow(&mut self, client: Endpoint, server: Endpoint, protocol: Protocol) -> Flow {
        let is_v6 = !client.address.is_v4();
        let fresh = self.pair.flow("web", is_v6).client;
        let (vip, backend) = if is_v6 { ("2001:db8::20", "fd00::2") } else { ("192.0.2.20", "10.0.0.2") };
        let at = |address| Endpoint::new(crate::support::address(address), server.port);
        Flow { client: Endpoint::new(fresh.address, client.port), vip: at(vip), backend: at(backend), protocol }
    }

    fn arrival(&self, packet: &[u8], flow: &Flow, from: Side) -> Arrival {
        let readdressed = |source: Endpoint, destination: Endpoint| {
            let mut bytes = packet.to_vec();
            readdress(&mut bytes, (source, destination));
            if self.checksums == Checksums::Repaired {
                repair(&mut bytes);
            }
            bytes
        };
        match from {
            Side::Clients => self.pair.by_client(readdressed(flow.client, flow.vip)),
            Side::Backends => self.pair.by_backend(flow, |to| readdressed(flow.backend, to)),
        }
    }
}

/// Source, destination and protocol of a TCP or UDP packet, and whether whoever sends it is the client.
fn ends(packet: &[u8]) -> Option<(Endpoint, Endpoint, Protocol, bool)> {
    let mut bytes = packet.to_vec();
    let packet = Packet::parse(&mut bytes, Offload::default()).ok()?;
    let (source, destination) = packet.endpoints()?;
    let is_answer = packet.tcp().is_some_and(|tcp| tcp.flags.0 & 0x12 == 0x12);
    Some((source, destination, packet.protocol(), !is_answer))
}

/// Makes the transport checksum right, where the packet has all of what it is over.
fn repair(bytes: &mut [u8]) {
    let Ok(packet) = Packet::parse(bytes, Offload::default()) else { return };
    let (protocol, at, len) = (packet.protocol(), usize::from(packet.header().payload), packet.bytes().len());
    if packet.endpoints().is_none() || packet.fragment().is_some() || packet.transport_checksum_ok() {
        return;
    }
    let end = if protocol == Protocol::UDP { at + usize::from(sums::word(bytes, at + 4)) } else { len };
    let sum = sums::transport(bytes, at, end, protocol);
    let field = at + sums::field(protocol);
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}
