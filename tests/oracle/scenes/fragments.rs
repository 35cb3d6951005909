//! Fragments: in every order, doubled, overlapping, impossible.

use tungate::wire::{Endpoint, build};

use super::Scene;
use crate::packets::{fragment, fragments, with_extensions};
use crate::pair::{Arrival, Flow, Met, Pair, Side};
use crate::support::{altered, segment};
use crate::talk::Talk;

pub(super) const SCENES: &[(&str, Scene)] = &[
    ("three in every order", three_in_every_order),
    ("many, backwards", many_backwards),
    ("a flow that begins with fragments", a_flow_that_begins_with_fragments),
    ("doubled", doubled),
    ("overlapping", overlapping),
    ("one is missing", one_is_missing),
    ("segments in fragments", segments_in_fragments),
    ("tiny", tiny),
    ("impossible", impossible),
    ("atomic", atomic),
    ("one long and one short", one_long_and_one_short),
    ("fragments with DF", fragments_with_df),
    ("headers of fragments", headers_of_fragments),
];

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn question(flow: &Flow, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0]).collect();
    build::udp(flow.client, flow.vip, &payload)
}

fn answer(flow: &Flow, to: Endpoint, len: usize) -> Vec<u8> {
    build::udp(flow.backend, to, &vec![0xa5; len])
}

/// IPv4 datagrams that may be cut.
fn cut(packet: Vec<u8>, id: u16, cuts: &[usize]) -> Vec<Vec<u8>> {
    let id = 0x7000 + u32::from(id); // none that the engine chooses here
    let packet = if packet[0] >> 4 == 4 { altered(packet, |bytes| bytes[6] = 0) } else { packet };
    fragments(&packet, id, cuts)
}

fn send(pair: &mut Pair, flow: &Flow, packets: Vec<Vec<u8>>) -> Met {
    let arrivals: Vec<Arrival> = packets.into_iter().map(|packet| pair.by_client(packet)).collect();
    pair.receives(flow, arrivals)
}

fn send_back(pair: &mut Pair, flow: &Flow, order: &[usize], pieces: impl Fn(Endpoint) -> Vec<Vec<u8>>) -> Met {
    let arrivals = order.iter().map(|n| pair.by_backend(flow, |to| pieces(to)[*n].clone())).collect();
    pair.receives(flow, arrivals)
}

/// Fragments leave under another identification than they came with, unless the source stays.
fn passed(pair: &Pair, is_v6: bool, met: Met, from: Side, packets: usize) {
    if pair.source_nat || is_v6 || from == Side::Backends {
        met.decided("the identification of fragments");
    } else {
        met.same(packets);
    }
}

fn three_in_every_order(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, question(&flow, 5)).same(1);
    for (id, order) in (1..).zip(ORDERS) {
        let pieces = cut(question(&flow, 100), id, &[40, 80]);
        let met = send(pair, &flow, order.iter().map(|n| pieces[*n].clone()).collect());
        passed(pair, is_v6, met, Side::Clients, 3);
        let met = send_back(pair, &flow, &order, |to| cut(answer(&flow, to, 200), id, &[8, 160]));
        passed(pair, is_v6, met, Side::Backends, 3);
    }
}

fn many_backwards(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let cuts: Vec<usize> = (1..40).map(|n| n * 1000).collect();
    let mut pieces = cut(question(&flow, 39_500), 77, &cuts);
    pieces.reverse();
    let met = send(pair, &flow, pieces);
    passed(pair, is_v6, met, Side::Clients, 40);
}

fn a_flow_that_begins_with_fragments(pair: &mut Pair, is_v6: bool) {
    for order in ORDERS {
        let flow = pair.flow("dns", is_v6);
        let pieces = cut(question(&flow, 100), 5, &[40, 80]);
        let met = send(pair, &flow, order.iter().map(|n| pieces[*n].clone()).collect());
        passed(pair, is_v6, met, Side::Clients, 3);
        pair.backend_sends(&flow, |to| answer(&flow, to, 10)).same(1);
        pair.client_sends(&flow, question(&flow, 5)).same(1);
    }
}

/// R77: an exact copy is harmless.
fn doubled(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    for order in [[0, 0, 1, 2], [1, 1, 0, 2], [1, 0, 1, 2], [2, 0, 2, 1]] {
        let pieces = cut(question(&flow, 100), 9, &[40, 80]);
        let met = send(pair, &flow, order.iter().map(|n| pieces[*n].clone()).collect());
        passed(pair, is_v6, met, Side::Clients, 3);
    }
}

/// R76, R77: nothing of the datagram arrives whole. Its pieces in every order, the last of three never first.
fn overlapping(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let whole = if is_v6 { question(&flow, 100) } else { altered(question(&flow, 100), |bytes| bytes[6] = 0) };
    for (id, ranges) in (0x20..).zip([[0..40, 32..80, 80..108], [0..48, 40..80, 80..108], [0..40, 40..80, 72..108]]) {
        for (m, order) in (0..).zip(ORDERS) {
            let piece = |n: usize| fragment(&whole, id << 8 | m, ranges[n].clone(), n < 2);
            match send(pair, &flow, order.map(piece).to_vec()) {
                Met::Same(packets) => assert_eq!(packets, 0),
                met @ Met::Decided(_) => met.decided("a datagram that never becomes whole"),
            }
        }
    }
    let within = [0..80, 40..64, 80..108].map(|range| fragment(&whole, 0x6000, range.clone(), range.end < 108));
    send(pair, &flow, within.to_vec()).decided("fragments that overlap");
    let pieces =
        [48..108, 40..80, 0..40, 40..108].map(|range| fragment(&whole, 0x6001, range.clone(), range.end < 108));
    let met = send(pair, &flow, pieces.to_vec());
    met.decided("fragments that overlap");
}

/// R75.
fn one_is_missing(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    for (id, missing) in (40..).zip(0..3) {
        let mut pieces = cut(question(&flow, 100), id, &[40, 80]);
        pieces.remove(missing);
        let met = send(pair, &flow, pieces);
        if missing == 0 {
            met.same(0);
        } else {
            met.decided("a datagram that never becomes whole");
        }
    }
}

fn segments_in_fragments(pair: &mut Pair, is_v6: bool) {
    let talk = Talk::under_way(pair, is_v6);
    let Talk { flow, isns, .. } = talk;
    let pair = talk.pair;
    for order in ORDERS {
        let data = build::Tcp { payload: &[8; 600], ..segment("ACK PSH", isns[0].wrapping_add(101), isns[1] + 101) };
        let pieces = cut(build::tcp(flow.client, flow.vip, &data), 9, &[200, 400]);
        let met = send(pair, &flow, order.iter().map(|n| pieces[*n].clone()).collect());
        passed(pair, is_v6, met, Side::Clients, 3);
    }
}

/// R80: no room for the ports or the flags.
fn tiny(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let _ = pair.client_sends(&flow, question(&flow, 5));
    let talk = Talk::under_way(pair, is_v6);
    let Talk { flow, isns, .. } = talk;
    let pair = talk.pair;
    for cuts in [&[8][..], &[8, 16], &[16]] {
        let data = build::Tcp { payload: &[8; 600], ..segment("ACK PSH", isns[0].wrapping_add(101), isns[1] + 101) };
        let pieces = cut(build::tcp(flow.client, flow.vip, &data), 9, cuts);
        let decision = if is_v6 { "a broken IPv6 packet for a VIP" } else { "a TCP header in pieces" };
        send(pair, &flow, pieces).decided(decision);
    }
}

/// R78, R79.
fn impossible(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let whole = question(&flow, 100);
    let whole = if is_v6 { whole } else { altered(whole, |bytes| bytes[6] = 0) };
    let decided = |met: Met| if is_v6 { met.decided("a broken IPv6 packet for a VIP") } else { met.same(0) };
    decided(send(pair, &flow, vec![fragment(&whole, 1, 0..41, true)]));
    let place = |bytes: &mut [u8], at: u16| {
        if is_v6 {
            bytes[42..44].copy_from_slice(&at.to_be_bytes());
        } else {
            bytes[6..8].copy_from_slice(&(at / 8).to_be_bytes());
        }
    };
    let beyond = altered(fragment(&whole, 2, 40..108, false), |bytes| place(bytes, 0xfff8));
    decided(send(pair, &flow, vec![beyond]));
    // A byte more than a datagram may have: what lies before all fragments counts.
    let (last, len) = if is_v6 { (0xfff8, 8) } else { (0xffe8, 4) };
    let beyond = altered(fragment(&whole, 3, 40..40 + len, false), |bytes| place(bytes, last));
    decided(send(pair, &flow, vec![beyond]));
}

/// R81.
fn atomic(pair: &mut Pair, is_v6: bool) {
    if !is_v6 {
        return;
    }
    let flow = pair.flow("dns", is_v6);
    let pieces = cut(question(&flow, 100), 7, &[]);
    assert_eq!(pieces.len(), 1);
    send(pair, &flow, pieces).decided("an atomic fragment");
    let header: &[u8] = &[0, 0, 0, 0, 0, 7];
    let chain: &[(u8, &[u8])] = &[(60, &[1, 4, 0, 0, 0, 0]), (44, header)];
    pair.client_sends(&flow, with_extensions(&question(&flow, 3), chain)).decided("an atomic fragment");
    let met = pair.backend_sends(&flow, |to| with_extensions(&answer(&flow, to, 3), &[(44, header)]));
    met.decided("an atomic fragment");
}

fn one_long_and_one_short(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let met = send(pair, &flow, cut(question(&flow, 1000), 8, &[8]));
    if is_v6 {
        met.decided("an IPv6 datagram that fits where its longest fragment did");
    } else {
        passed(pair, is_v6, met, Side::Clients, 2);
    }
}

/// R12.
fn fragments_with_df(pair: &mut Pair, is_v6: bool) {
    if is_v6 {
        return;
    }
    let flow = pair.flow("dns", is_v6);
    let with_df = |packet: Vec<u8>| altered(packet, |bytes| bytes[6] |= 0x40);
    let pieces = cut(question(&flow, 100), 7, &[40, 80]).into_iter().map(with_df).collect();
    send(pair, &flow, pieces).decided("fragments with DF");
}

/// TOS, TTL; IPv6 hop limit.
fn headers_of_fragments(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let ttl = if is_v6 { 7 } else { 8 };
    let whole = altered(question(&flow, 100), |bytes| bytes[ttl] = 9);
    let met = send(pair, &flow, cut(whole, 3, &[48]));
    passed(pair, is_v6, met, Side::Clients, 2);
    if !is_v6 {
        let whole = altered(question(&flow, 100), |bytes| bytes[1] = 0xb8);
        let met = send(pair, &flow, cut(whole, 3, &[48]));
        passed(pair, is_v6, met, Side::Clients, 2);
    }
}
