//! UDP, and what may be wrong with a datagram or a segment.

use tungate::wire::build;

use super::Scene;
use crate::packets::{spoilt, transport, with_length};
use crate::pair::{Pair, Side};
use crate::support::altered;
use crate::talk::Talk;

pub(super) const SCENES: &[(&str, Scene)] = &[
    ("datagrams of all lengths", datagrams_of_all_lengths),
    ("no checksum", no_checksum),
    ("a checksum that becomes zero", a_checksum_that_becomes_zero),
    ("a wrong checksum", a_wrong_checksum),
    ("a wrong checksum in TCP", a_wrong_checksum_in_tcp),
    ("impossible lengths", impossible_lengths),
    ("shorter than its packet", shorter_than_its_packet),
    ("port zero", port_zero),
    ("nobody listens", nobody_listens),
    ("the backend speaks first", the_backend_speaks_first),
    ("broken TCP headers", broken_tcp_headers),
];

fn datagrams_of_all_lengths(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    for len in (0..64).chain([500, 1400, 1432, 1452]) {
        let payload = vec![0x5a; len];
        pair.client_sends(&flow, build::udp(flow.client, flow.vip, &payload)).same(1);
        pair.backend_sends(&flow, |to| build::udp(flow.backend, to, &payload)).same(1);
    }
}

fn no_checksum(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let without = |packet: Vec<u8>| {
        let at = transport(&packet) + 6;
        altered(packet, |bytes| bytes[at..at + 2].fill(0))
    };
    for payload in [&b"any"[..], &[]] {
        pair.client_sends(&flow, without(build::udp(flow.client, flow.vip, payload))).same(1);
        pair.backend_sends(&flow, |to| without(build::udp(flow.backend, to, payload))).same(1);
    }
}

/// R20: the payload is what makes the checksum of the translated datagram zero, and its neighbours.
fn a_checksum_that_becomes_zero(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, build::udp(flow.client, flow.vip, b"first")).same(1);
    let [_, source] = pair.sources(&flow);
    for (from, to, by) in [(source, flow.backend, Side::Clients), (flow.vip, flow.client, Side::Backends)] {
        let translated = build::udp(from, to, &[0, 0]);
        let field = transport(&translated) + 6;
        let zero = u16::from_be_bytes([translated[field], translated[field + 1]]);
        for payload in [zero, zero.wrapping_sub(1), zero.wrapping_add(1), 0, 0xffff].map(u16::to_be_bytes) {
            let met = match by {
                Side::Clients => pair.client_sends(&flow, build::udp(flow.client, flow.vip, &payload)),
                Side::Backends => pair.backend_sends(&flow, |to| build::udp(flow.backend, to, &payload)),
            };
            met.same(1);
        }
    }
}

fn a_wrong_checksum(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, spoilt(build::udp(flow.client, flow.vip, b"first"))).same(0);
    pair.client_sends(&flow, build::udp(flow.client, flow.vip, b"sound")).same(1);
    let decision = "a wrong checksum on a packet of an open flow";
    pair.client_sends(&flow, spoilt(build::udp(flow.client, flow.vip, b"spoilt"))).decided(decision);
    pair.backend_sends(&flow, |to| spoilt(build::udp(flow.backend, to, b"spoilt"))).decided(decision);
    pair.backend_sends(&flow, |to| build::udp(flow.backend, to, b"sound")).same(1);
}

fn a_wrong_checksum_in_tcp(pair: &mut Pair, is_v6: bool) {
    let spoil = |talk: &mut Talk<'_>, from: Side, names: &str, at, len| {
        let mut arrival = talk.arrival(from, names, at, &[], len);
        arrival.change(spoilt);
        talk.pair.receives(&talk.flow, vec![arrival])
    };
    let mut talk = Talk::new(pair, is_v6);
    spoil(&mut talk, Side::Clients, "SYN", (0, 0), 0).same(0);
    talk.client("SYN", 0, 0, 0).same(1);
    spoil(&mut talk, Side::Backends, "SYN ACK", (0, 1), 0).same(0);
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    talk.client("ACK", 1, 1, 0).same(1);
    spoil(&mut talk, Side::Clients, "RST", (1, 0), 0).same(0);
    spoil(&mut talk, Side::Clients, "FIN ACK", (1, 1), 0).same(0);
    let decision = "a wrong checksum on a packet of an open flow";
    spoil(&mut talk, Side::Clients, "ACK PSH", (1, 1), 100).decided(decision);
    spoil(&mut talk, Side::Backends, "ACK", (1, 101), 100).decided(decision);
    talk.client("ACK PSH", 1, 1, 100).same(1);
    talk.backend("ACK PSH", 1, 101, 100).same(1);
}

fn impossible_lengths(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, build::udp(flow.client, flow.vip, b"sound")).same(1);
    for length in [0_u16, 1, 7, 14, 100, u16::MAX] {
        let packet = build::udp(flow.client, flow.vip, b"sound");
        let at = transport(&packet) + 4;
        let packet = altered(packet, |bytes| bytes[at..at + 2].copy_from_slice(&length.to_be_bytes()));
        pair.client_sends(&flow, packet).same(0);
    }
}

/// R37: bytes behind the datagram, within the packet.
fn shorter_than_its_packet(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    for surplus in [1, 4, 7] {
        let mut packet = build::udp(flow.client, flow.vip, b"datagram");
        packet.extend(vec![0xee; surplus]);
        pair.client_sends(&flow, with_length(packet)).decided("a datagram that is shorter than its packet");
    }
}

fn port_zero(pair: &mut Pair, is_v6: bool) {
    let mut flow = pair.flow("dns", is_v6);
    flow.client.port = 0;
    pair.client_sends(&flow, build::udp(flow.client, flow.vip, b"from port 0")).decided("a flow from or to port 0");
}

fn nobody_listens(pair: &mut Pair, is_v6: bool) {
    let mut flow = pair.flow("dns", is_v6);
    flow.vip.port = 54;
    let decision = "a port of a VIP where nobody listens";
    pair.client_sends(&flow, build::udp(flow.client, flow.vip, b"anybody?")).decided(decision);
    let mut talk = Talk::new(pair, is_v6);
    talk.flow.vip.port = 81;
    talk.client("SYN", 0, 0, 0).decided(decision);
}

fn the_backend_speaks_first(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    pair.backend_sends(&flow, |to| build::udp(flow.backend, to, b"hello?")).same(0);
    let mut talk = Talk::new(pair, is_v6);
    let met = talk.backend("SYN", 0, 0, 0);
    if talk.pair.source_nat {
        met.decided("a port of a VIP where nobody listens"); // a source address is an own one, too
    } else {
        met.same(0);
    }
}

/// R55.
fn broken_tcp_headers(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    for offset in [0_u8, 4, 6, 15] {
        let mut arrival = talk.arrival(Side::Clients, "ACK", (101, 101), &[], 0);
        arrival.change(|packet| {
            let at = transport(&packet) + 12;
            altered(packet, |bytes| bytes[at] = offset << 4)
        });
        talk.pair.receives(&talk.flow, vec![arrival]).same(0);
    }
    talk.client("ACK", 101, 101, 50).same(1);
}
