//! Connections at random: mostly what two hosts would say, with mistakes, repetitions, strangers and fragments in between.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Endpoint, TcpFlags};

use super::runner;
use crate::packets::{a_hop_further, fragments, transport};
use crate::pair::{Arrival, Flow, Met, Pair, Side};
use crate::support::{address, altered};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A segment, its numbers so far from what this side would say.
    Segment { from: Side, flags: u8, seq: i64, ack: i64, len: usize, options: usize, window: u16 },
    /// One of the last packets again.
    Again(usize),
    /// One of the last packets, but in pieces of so many bytes, and in this order.
    Pieces { back: usize, len: usize, order: [u8; 4] },
    /// An ICMP error of this kind about something that this side has got.
    Error { from: Side, kind: usize, quoted: usize },
    /// The client begins anew from the same port: this far in sequence space.
    Anew(u32),
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// No options; timestamps; a SACK block of nothing; those of a SYN: MSS, SACK permitted, window scale.
const OPTIONS: [&[u8]; 4] = [
    &[],
    &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
    &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2],
    &[2, 4, 5, 0xb4, 4, 2, 1, 1, 1, 3, 3, 5],
];

/// The kinds of errors, for IPv4 and IPv6.
const ERRORS: [[(u8, u8, u32); 4]; 2] =
    [[(3, 1, 0), (3, 4, 1400), (11, 0, 0), (3, 3, 0)], [(1, 3, 0), (2, 0, 1400), (3, 0, 0), (1, 4, 0)]];

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Clients), Just(Side::Backends)]
}

/// How far a number is off: seldom.
fn off(often: u32) -> BoxedStrategy<i64> {
    prop_oneof![
        often => Just(0i64),
        1 => -2i64..=2,
        1 => -3000i64..3000,
        1 => prop_oneof![Just(60_000i64), Just(-60_000), Just(-70_000), Just(1 << 20), Just(-1 << 20), Just(1 << 30)],
    ]
    .boxed()
}

fn segment() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        10 => Just(ACK),
        6 => Just(ACK | PSH),
        3 => Just(FIN | ACK),
        1 => Just(RST),
        1 => Just(RST | ACK),
        1 => Just(SYN),
        1 => Just(SYN | ACK),
    ];
    let len = prop_oneof![3 => Just(0usize), 3 => 1usize..1400, 1 => Just(1400usize)];
    let window = prop_oneof![6 => Just(64_000u16), 1 => Just(0u16), 1 => Just(1000u16)];
    (side(), flags, off(40), off(40), len, 0..OPTIONS.len() - 1, window).prop_map(
        |(from, flags, seq, ack, len, options, window)| {
            let len = if flags & (SYN | RST) == 0 { len } else { 0 };
            let options = if flags & SYN == 0 { options } else { options % 2 }; // no SYN has SACK blocks
            Step::Segment { from, flags, seq, ack, len, options, window }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![Just([0, 1, 2, 3]), Just([3, 2, 1, 0]), Just([2, 0, 3, 1]), Just([1, 1, 0, 0])];
    prop_oneof![
        20 => segment(),
        3 => (0usize..6).prop_map(Step::Again),
        1 => (0usize..3, prop_oneof![Just(40usize), Just(200usize)], order)
            .prop_map(|(back, len, order)| Step::Pieces { back, len, order }),
        2 => (side(), 0usize..4, prop_oneof![Just(8usize), Just(20), Just(600)])
            .prop_map(|(from, kind, quoted)| Step::Error { from, kind, quoted }),
        1 => prop_oneof![Just(100_000u32), any::<u32>()].prop_map(Step::Anew),
    ]
}

/// How it begins: the handshake, or a part of it.
#[derive(Clone, Copy, Debug)]
enum Beginning {
    Syn,
    SynAck,
    Open,
}

/// Two hosts and what they have said.
struct Hosts<'p> {
    pair: &'p mut Pair,
    flow: Flow,
    /// What each would send next, and the highest it has sent.
    next: [u32; 2],
    said: Vec<Arrival>,
}

impl Hosts<'_> {
    fn begin(&mut self, beginning: Beginning, options: usize) -> bool {
        let options = if options == 3 { OPTIONS[3] } else { &[] };
        let isns = self.next;
        let mut handshake = vec![(Side::Clients, SYN, 0, options)];
        if !matches!(beginning, Beginning::Syn) {
            handshake.push((Side::Backends, SYN | ACK, 1, options));
        }
        if matches!(beginning, Beginning::Open) {
            handshake.push((Side::Clients, ACK, 1, &[][..]));
        }
        self.next = isns.map(|isn| isn.wrapping_add(1));
        handshake.into_iter().all(|(from, flags, past, options)| {
            let (own, other) = (from as usize, 1 - from as usize);
            let seq = if flags & SYN != 0 { isns[own] } else { isns[own].wrapping_add(1) };
            let ack = if flags & ACK != 0 { isns[other].wrapping_add(past) } else { 0 };
            let arrival =
                self.arrival(from, &Tcp { seq, ack, flags: TcpFlags(flags), window: 64_000, options, payload: &[] });
            self.says(arrival)
        })
    }

    fn arrival(&self, from: Side, segment: &Tcp<'_>) -> Arrival {
        let Flow { client, vip, backend, .. } = self.flow;
        match from {
            Side::Clients => self.pair.by_client(build::tcp(client, vip, segment)),
            Side::Backends => self.pair.by_backend(&self.flow, |to| build::tcp(backend, to, segment)),
        }
    }

    fn says(&mut self, arrival: Arrival) -> bool {
        self.said.push(arrival.clone());
        self.send(vec![arrival])
    }

    /// Whether the two gateways still know the same of the connection.
    fn send(&mut self, arrivals: Vec<Arrival>) -> bool {
        match self.pair.receives(&self.flow, arrivals) {
            Met::Same(_) => true,
            Met::Decided(decision) => !decision.parts,
        }
    }

    fn take(&mut self, step: &Step) -> bool {
        match *step {
            Step::Segment { from, flags, seq, ack, len, options, window } => {
                let (own, other) = (from as usize, 1 - from as usize);
                let payload = vec![len.to_le_bytes()[0]; len];
                let at = relative(self.next[own], seq);
                let segment = Tcp {
                    seq: at,
                    ack: if flags & ACK == 0 { 0 } else { relative(self.next[other], ack) },
                    flags: TcpFlags(flags),
                    window,
                    options: OPTIONS[options],
                    payload: &payload,
                };
                let arrival = self.arrival(from, &segment);
                if seq == 0 && flags & (SYN | RST) == 0 {
                    let taken = u32::try_from(len).unwrap() + u32::from(flags & FIN);
                    self.next[own] = at.wrapping_add(taken);
                }
                self.says(arrival)
            }
            Step::Again(back) => {
                let again = self.said.iter().rev().nth(back).cloned();
                again.is_none_or(|again| self.send(vec![again]))
            }
            Step::Pieces { back, len, order } => self.in_pieces(back, len, order),
            Step::Error { from, kind, quoted } => self.error(from, kind, quoted),
            Step::Anew(far) => {
                self.next = self.next.map(|next| next.wrapping_add(far));
                self.begin(Beginning::Open, 0)
            }
        }
    }

    fn in_pieces(&mut self, back: usize, len: usize, order: [u8; 4]) -> bool {
        let Some(whole) = self.said.iter().rev().nth(back).filter(|whole| whole.len() > 60 + 3 * len).cloned() else {
            return true;
        };
        let id = u32::try_from(self.pair.compared % 0x7000).unwrap() + 0x8000;
        let pieces = |packet: Vec<u8>| {
            let packet = if packet[0] >> 4 == 4 { altered(packet, |bytes| bytes[6] = 0) } else { packet };
            fragments(&packet, id, &[len, 2 * len, 3 * len])
        };
        let arrivals = order.iter().map(|n| {
            let mut piece = whole.clone();
            piece.change(|packet| pieces(packet).swap_remove(usize::from(*n)));
            piece
        });
        let arrivals = arrivals.collect();
        self.send(arrivals)
    }

    /// From a router on this side, about a segment that was on its way there.
    fn error(&mut self, from: Side, kind: usize, quoted: usize) -> bool {
        let is_v6 = !self.flow.client.address.is_v4();
        let (kind, code, word) = ERRORS[usize::from(is_v6)][kind];
        let segment =
            Tcp { seq: self.next[1 - from as usize], payload: &[7; 600], flags: TcpFlags(ACK), ..Tcp::default() };
        let error = |source: Endpoint, destination: Endpoint, router: &str| {
            let quote = a_hop_further(build::tcp(source, destination, &segment));
            let mut message = vec![kind, code, 0, 0];
            message.extend(word.to_be_bytes());
            message.extend(&quote[..(transport(&quote) + quoted).min(540)]);
            build::icmp(address(router), source.address, message)
        };
        let Flow { client, vip, backend, .. } = self.flow;
        let arrival = match (from, is_v6) {
            (Side::Clients, false) => self.pair.by_client(error(vip, client, "203.0.113.9")),
            (Side::Clients, true) => self.pair.by_client(error(vip, client, "2001:db8:9::9")),
            (Side::Backends, false) => self.pair.by_backend(&self.flow, |to| error(to, backend, "10.0.0.77")),
            (Side::Backends, true) => self.pair.by_backend(&self.flow, |to| error(to, backend, "fd00::77")),
        };
        self.send(vec![arrival])
    }
}

fn relative(from: u32, bytes: i64) -> u32 {
    u32::try_from((i64::from(from) + bytes).rem_euclid(1 << 32)).unwrap()
}

#[test]
fn random_connections_leave_as_the_kernel_sends_them() {
    let beginning = prop_oneof![1 => Just(Beginning::Syn), 1 => Just(Beginning::SynAck), 6 => Just(Beginning::Open)];
    let connection = (any::<bool>(), beginning, 0..OPTIONS.len(), any::<[u32; 2]>(), vec(step(), 1..60));
    for source_nat in [true, false] {
        let Some(pair) = Pair::build("random_connections_leave_as_the_kernel_sends_them", source_nat) else { return };
        let (pair, steps_taken) = (RefCell::new(pair), RefCell::new((0, 0)));
        let result = runner().run(&connection, |(is_v6, beginning, options, next, steps)| {
            let mut pair = pair.borrow_mut();
            let flow = pair.flow("web", is_v6);
            let mut hosts = Hosts { pair: &mut pair, flow, next, said: Vec::new() };
            if hosts.begin(beginning, options) {
                let taken = steps.iter().take_while(|step| hosts.take(step)).count();
                let mut counts = steps_taken.borrow_mut();
                counts.0 += taken;
                counts.1 += steps.len();
            }
            Ok(())
        });
        let pair = pair.into_inner();
        println!(
            "source-nat = {source_nat}: {} packets, {} left both alike; {:?} steps: {:#?}",
            pair.compared, pair.same, steps_taken, pair.decided
        );
        result.unwrap_or_else(|failure| panic!("{failure}"));
    }
}
