//! Datagrams at random: headers, options, checksums, pieces in any order, and errors about them.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use tungate::wire::{Endpoint, build};

use super::runner;
use crate::packets::{a_hop_further, fragment, spoilt, transport, with_extensions, with_options};
use crate::pair::{Arrival, Flow, Met, Pair, Side};
use crate::support::{address, altered};

/// A datagram in one direction, or an error about one.
#[derive(Clone, Debug)]
enum Step {
    Datagram {
        from: Side,
        header: Header,
        len: usize,
        checksum: Checksum,
    },
    /// Cut at these eights of bytes, sent in this order; what is cut off at the front of each piece is sent twice.
    Pieces {
        from: Side,
        len: usize,
        cuts: Vec<u16>,
        order: Vec<usize>,
        overlap: u16,
    },
    Error {
        from: Side,
        kind: u8,
        code: u8,
        word: u32,
        quoted: usize,
        ttl: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum Checksum {
    Right,
    Absent,
    Wrong,
}

/// What stands in the IP header, and between it and the datagram.
#[derive(Clone, Debug)]
struct Header {
    ttl: u8,
    /// DSCP, ECN and, over IPv6, the flow label.
    class: [u8; 3],
    id: u16,
    between: usize,
}

/// Options that nobody writes into, and extension headers that nobody has to look at.
const OPTIONS: [&[u8]; 4] = [&[], &[1, 1, 1, 1], &[148, 4, 0, 0], &[136, 4, 1, 2]];
const EXTENSIONS: [&[(u8, &[u8])]; 4] =
    [&[], &[(0, &[5, 2, 0, 0, 1, 0])], &[(60, &[1, 4, 0, 0, 0, 0])], &[(0, &[1, 4, 0, 0, 0, 0]), (60, &[0; 22])]];

fn step() -> impl Strategy<Value = Step> {
    let side = || prop_oneof![2 => Just(Side::Clients), 1 => Just(Side::Backends)];
    let ttl = || prop_oneof![8 => Just(64u8), 1 => any::<u8>(), 1 => 0u8..4];
    let header = (ttl(), any::<[u8; 3]>(), any::<u16>(), 0..OPTIONS.len());
    let header = header.prop_map(|(ttl, class, id, between)| Header { ttl, class, id, between });
    let checksum = prop_oneof![8 => Just(Checksum::Right), 2 => Just(Checksum::Absent), 1 => Just(Checksum::Wrong)];
    let len = || prop_oneof![0usize..100, 0usize..1400];
    let pieces =
        (side(), 200usize..2000, vec(1u16..25, 1..5), vec(0usize..6, 2..8), prop_oneof![5 => Just(0u16), 1 => 1u16..3]);
    prop_oneof![
        6 => (side(), header, len(), checksum)
            .prop_map(|(from, header, len, checksum)| Step::Datagram { from, header, len, checksum }),
        2 => pieces.prop_map(|(from, len, cuts, order, overlap)| Step::Pieces { from, len, cuts, order, overlap }),
        2 => (side(), any::<u8>(), 0u8..16, any::<u32>(), 0usize..600, ttl())
            .prop_map(|(from, kind, code, word, quoted, ttl)| Step::Error { from, kind, code, word, quoted, ttl }),
    ]
}

struct Hosts<'p> {
    pair: &'p mut Pair,
    flow: Flow,
}

impl Hosts<'_> {
    /// A datagram from this side, changed in this way.
    fn arrival(&self, from: Side, len: usize, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Arrival {
        let Flow { client, vip, backend, .. } = self.flow;
        let payload: Vec<u8> = (0..len).map(|n| (n % 251).to_le_bytes()[0]).collect();
        match from {
            Side::Clients => self.pair.by_client(change(build::udp(client, vip, &payload))),
            Side::Backends => self.pair.by_backend(&self.flow, |to| change(build::udp(backend, to, &payload))),
        }
    }

    /// Whether the two gateways still know the same of the flow.
    fn take(&mut self, step: &Step) -> bool {
        let arrivals = match step {
            Step::Datagram { from, header, len, checksum } => {
                vec![self.arrival(*from, *len, |packet| with_header(&with_checksum(packet, *checksum), header))]
            }
            Step::Pieces { from, len, cuts, order, overlap } => self.pieces(*from, *len, cuts, order, *overlap),
            Step::Error { from, kind, code, word, quoted, ttl } => {
                vec![self.error(*from, (*kind, *code, *word), *quoted, *ttl)]
            }
        };
        match self.pair.receives(&self.flow, arrivals) {
            Met::Same(_) => true,
            Met::Decided(decision) => !decision.parts,
        }
    }

    fn pieces(&self, from: Side, len: usize, cuts: &[u16], order: &[usize], overlap: u16) -> Vec<Arrival> {
        let id = u32::try_from(self.pair.compared % 0x7000).unwrap() + 0x8000;
        let pieces = |packet: Vec<u8>| {
            let packet = if packet[0] >> 4 == 4 { altered(packet, |bytes| bytes[6] = 0) } else { packet };
            let end = packet.len() - transport(&packet);
            let mut places: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) * 8).collect();
            places.sort_unstable();
            places.dedup();
            let twice = usize::from(overlap) * 8;
            let starts = [0].into_iter().chain(places.iter().map(|place| place.saturating_sub(twice).max(8)));
            let ends = places.iter().copied().chain([end]);
            starts.zip(ends).map(|(start, stop)| fragment(&packet, id, start..stop, stop < end)).collect::<Vec<_>>()
        };
        let arrival = |n: &usize| {
            self.arrival(from, len, |packet| {
                let mut pieces = pieces(packet);
                let n = *n % pieces.len();
                pieces.swap_remove(n)
            })
        };
        order.iter().map(arrival).collect()
    }

    /// From a router on this side, about a datagram that was on its way there.
    fn error(&self, from: Side, (kind, code, word): (u8, u8, u32), quoted: usize, ttl: u8) -> Arrival {
        let is_v6 = !self.flow.client.address.is_v4();
        let kinds: &[u8] = if is_v6 { &[1, 2, 3, 4, 129, 137] } else { &[3, 5, 11, 12, 13, 0] };
        let kind = kinds[usize::from(kind) % kinds.len()];
        // The length attribute of RFC 4884 has a scene of its own.
        let word = if is_v6 { word & 0xff_ffff } else { word & 0xff00_ffff };
        let error = |source: Endpoint, destination: Endpoint, router: &str| {
            let quote = a_hop_further(build::udp(source, destination, &[7; 700]));
            let mut message = vec![kind, code, 0, 0];
            message.extend(word.to_be_bytes());
            message.extend(&quote[..(transport(&quote) + quoted).min(500)]);
            let packet = build::icmp(address(router), source.address, message);
            altered(packet, |bytes| bytes[if is_v6 { 7 } else { 8 }] = ttl)
        };
        let Flow { client, vip, backend, .. } = self.flow;
        match (from, is_v6) {
            (Side::Clients, false) => self.pair.by_client(error(vip, client, "203.0.113.9")),
            (Side::Clients, true) => self.pair.by_client(error(vip, client, "2001:db8:9::9")),
            (Side::Backends, false) => self.pair.by_backend(&self.flow, |to| error(to, backend, "10.0.0.77")),
            (Side::Backends, true) => self.pair.by_backend(&self.flow, |to| error(to, backend, "fd00::77")),
        }
    }
}

fn with_checksum(packet: Vec<u8>, checksum: Checksum) -> Vec<u8> {
    let at = transport(&packet) + 6;
    match checksum {
        Checksum::Right => packet,
        Checksum::Absent => altered(packet, |bytes| bytes[at..at + 2].fill(0)),
        Checksum::Wrong => spoilt(packet),
    }
}

fn with_header(packet: &[u8], header: &Header) -> Vec<u8> {
    let [a, b, c] = header.class;
    if packet[0] >> 4 == 6 {
        let packet = with_extensions(packet, EXTENSIONS[header.between]);
        return altered(packet, |bytes| {
            bytes[..4].copy_from_slice(&[0x60 | a >> 4, b, c, a]);
            bytes[7] = header.ttl;
        });
    }
    altered(with_options(packet, OPTIONS[header.between]), |bytes| {
        bytes[1] = a;
        bytes[4..6].copy_from_slice(&header.id.to_be_bytes());
        bytes[6] = b & 0xc0; // reserved bit, DF
        bytes[8] = header.ttl;
    })
}

#[test]
fn random_datagrams_leave_as_the_kernel_sends_them() {
    for source_nat in [true, false] {
        let Some(pair) = Pair::build("random_datagrams_leave_as_the_kernel_sends_them", source_nat) else { return };
        let pair = RefCell::new(pair);
        let result = runner().run(&(any::<bool>(), vec(step(), 1..30)), |(is_v6, steps)| {
            let mut pair = pair.borrow_mut();
            let flow = pair.flow("dns", is_v6);
            let mut hosts = Hosts { pair: &mut pair, flow };
            let _ = steps.iter().take_while(|step| hosts.take(step)).count();
            Ok(())
        });
        let pair = pair.into_inner();
        println!(
            "source-nat = {source_nat}: {} packets, {} left both alike: {:#?}",
            pair.compared, pair.same, pair.decided
        );
        result.unwrap_or_else(|failure| panic!("{failure}"));
    }
}
