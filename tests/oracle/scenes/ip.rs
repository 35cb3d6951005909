//! What may stand in an IP header.

use tungate::wire::{Address, Endpoint, Protocol, build};

use super::Scene;
use crate::packets::{with_extensions, with_length, with_options};
use crate::pair::{Flow, Met, Pair};
use crate::support::{address, altered, segment, with_ttl};

pub(super) const SCENES: &[(&str, Scene)] = &[
    ("TTL", ttl),
    ("no hops left and no flow", no_hops_left_and_no_flow),
    ("everything else in the header", everything_else_in_the_header),
    ("bytes behind the packet", bytes_behind_the_packet),
    ("broken headers", broken_headers),
    ("options", options),
    ("source routes", source_routes),
    ("broken options", broken_options),
    ("extension headers", extension_headers),
    ("extension headers that nobody forwards", extension_headers_that_nobody_forwards),
    ("broken extension headers", broken_extension_headers),
    ("sources that no host has", sources_that_no_host_has),
    ("land", land),
    ("other protocols", other_protocols),
];

fn asks(flow: &Flow) -> Vec<u8> {
    build::udp(flow.client, flow.vip, b"a question")
}

fn answers(flow: &Flow, to: Endpoint) -> Vec<u8> {
    build::udp(flow.backend, to, b"an answer")
}

/// R7, for what is no flow's and opens none.
fn no_hops_left_and_no_flow(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("web", is_v6);
    let stray = |from, to| with_ttl(build::tcp(from, to, &segment("ACK", 7, 8)), 1);
    let met = pair.client_sends(&flow, stray(flow.client, flow.vip));
    met.decided("a packet of no flow without hops left");
    let met = pair.backend_sends(&flow, |to| stray(flow.backend, to));
    if pair.source_nat {
        met.decided("a segment of a connection that is not known");
    } else {
        met.decided("a packet for others without hops left");
    }
}

fn ttl(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let own = "the IP header of an error that the gateway sends";
    let answered = |met: Met| met.decided(own);
    answered(pair.client_sends(&flow, with_ttl(asks(&flow), 1)));
    for ttl in [2, 3, 64, 255] {
        pair.client_sends(&flow, with_ttl(asks(&flow), ttl)).same(1);
        pair.backend_sends(&flow, |to| with_ttl(answers(&flow, to), ttl)).same(1);
    }
    for ttl in [0, 1] {
        answered(pair.client_sends(&flow, with_ttl(asks(&flow), ttl)));
        let met = pair.backend_sends(&flow, |to| with_ttl(answers(&flow, to), ttl));
        if pair.source_nat {
            answered(met);
        } else {
            met.decided("the source of an error to a backend, without source NAT");
        }
    }
    let long = build::udp(flow.client, flow.vip, &[7; 1400]);
    answered(pair.client_sends(&flow, with_ttl(long, 1)));
}

fn everything_else_in_the_header(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    for n in 0..=255_u8 {
        let change = |packet: Vec<u8>| {
            altered(packet, |bytes| {
                if is_v6 {
                    bytes[..4].copy_from_slice(&[0x60 | n >> 4, n << 4 | 5, n, !n]); // class, flow label
                } else {
                    bytes[1] = n; // DSCP and ECN
                    bytes[4..6].copy_from_slice(&[n, !n]); // id
                    bytes[6] = n & 0xc0; // reserved bit, DF
                }
            })
        };
        pair.client_sends(&flow, change(asks(&flow))).same(1);
        pair.backend_sends(&flow, |to| change(answers(&flow, to))).same(1);
    }
}

/// R4.
fn bytes_behind_the_packet(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    for surplus in [1, 2, 100, 1000] {
        pair.client_sends(&flow, [asks(&flow), vec![0xee; surplus]].concat()).same(1);
        pair.backend_sends(&flow, |to| [answers(&flow, to), vec![0xee; surplus]].concat()).same(1);
    }
}

/// R1 to R5.
fn broken_headers(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, asks(&flow)).same(1);
    for len in [0, 1, 19, 20, 27, 28, 37] {
        pair.client_sends(&flow, asks(&flow)[..len].to_vec()).same(0);
    }
    let set = |at: usize, value: u8| {
        let mut packet = asks(&flow);
        packet[at] = value;
        packet
    };
    for first in
        [0x00, 0x35, 0x4f, 0x44, 0x55, 0x65, 0x45].into_iter().filter(|byte| byte >> 4 != if is_v6 { 6 } else { 4 })
    {
        pair.client_sends(&flow, set(0, first)).same(0);
    }
    if is_v6 {
        return;
    }
    for first in [0x40, 0x44, 0x46, 0x4f] {
        pair.client_sends(&flow, altered(asks(&flow), |bytes| bytes[1] = first)).same(1);
        pair.client_sends(&flow, set(0, first)).same(0);
    }
    for (at, value) in [(10, 1), (8, 63), (1, 1), (3, 1), (2, 255)] {
        pair.client_sends(&flow, set(at, value)).same(0);
    }
    for len in [0, 19, 20, 24] {
        pair.client_sends(&flow, altered(asks(&flow), |bytes| bytes[3] = len)).same(0);
    }
}

/// R13: record route, timestamps, router alert, stream id, security, an unknown one.
fn options(pair: &mut Pair, is_v6: bool) {
    if is_v6 {
        return;
    }
    let flow = pair.flow("dns", is_v6);
    let room = [[7, 39, 40].as_slice(), &[9; 36]].concat();
    for options in [&[1, 1, 1, 0][..], &[0, 0, 0, 0], &[136, 4, 0, 1], &[222, 6, 1, 2, 3, 4], &room] {
        pair.client_sends(&flow, with_options(&asks(&flow), options)).same(1);
        pair.backend_sends(&flow, |to| with_options(&answers(&flow, to), options)).same(1);
    }
    let decision = "an IPv4 option that routers write into";
    for options in [
        &[7, 7, 4, 0, 0, 0, 0][..],
        &[68, 8, 5, 0, 0, 0, 0, 0],
        &[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 7, 200, 0],
    ] {
        pair.client_sends(&flow, with_options(&asks(&flow), options)).decided(decision);
        pair.backend_sends(&flow, |to| with_options(&answers(&flow, to), options)).decided(decision);
    }
    let syn = build::tcp(flow.client, Endpoint::new(flow.vip.address, 80), &segment("SYN", 7, 0));
    let flow = Flow { vip: Endpoint::new(flow.vip.address, 80), protocol: Protocol::TCP, ..flow };
    pair.client_sends(&flow, with_options(&syn, &[1, 1, 1, 1])).same(1);
}

/// R14.
fn source_routes(pair: &mut Pair, is_v6: bool) {
    if is_v6 {
        return;
    }
    let flow = pair.flow("dns", is_v6);
    for kind in [131, 137] {
        pair.client_sends(&flow, with_options(&asks(&flow), &[kind, 7, 4, 9, 9, 9, 9])).same(0);
        pair.client_sends(&flow, with_options(&asks(&flow), &[kind, 7, 8, 9, 9, 9, 9])).same(0);
    }
}

/// R15.
fn broken_options(pair: &mut Pair, is_v6: bool) {
    if is_v6 {
        return;
    }
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, asks(&flow)).same(1);
    let decision = "a broken IPv4 option";
    for options in [&[7, 0, 0, 0][..], &[7, 1, 4, 0], &[7, 40, 4, 0], &[222, 0, 0, 0], &[222, 9, 1, 1], &[1, 1, 1, 7]] {
        pair.client_sends(&flow, with_options(&asks(&flow), options)).decided(decision);
    }
}

const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];

/// R84: hop-by-hop options, destination options, a routing header that has been followed.
fn extension_headers(pair: &mut Pair, is_v6: bool) {
    if !is_v6 {
        return;
    }
    let flow = pair.flow("dns", is_v6);
    let route = [&[0, 0, 0, 0, 0, 0][..], &[0x20; 16]].concat();
    let long = [&[1, 252][..], &[0; 252], PADDING].concat();
    let chains: &[&[(u8, &[u8])]] = &[
        &[(0, PADDING)],
        &[(60, PADDING)],
        &[(60, &long)],
        &[(43, &route)],
        &[(0, PADDING), (60, PADDING), (43, &route), (60, PADDING)],
        &[(0, &[5, 2, 0, 0, 1, 0])], // router alert
        &[(60, &[0x1e, 4, 0, 0, 0, 0])],
    ];
    for chain in chains {
        pair.client_sends(&flow, with_extensions(&asks(&flow), chain)).same(1);
        pair.backend_sends(&flow, |to| with_extensions(&answers(&flow, to), chain)).same(1);
    }
    let mut flow = Flow { vip: Endpoint::new(flow.vip.address, 80), protocol: Protocol::TCP, ..flow };
    flow.backend.port = 8080;
    let syn = build::tcp(flow.client, flow.vip, &segment("SYN", 7, 0));
    pair.client_sends(&flow, with_extensions(&syn, &[(60, PADDING)])).same(1);
}

/// R86, R88, R26.
fn extension_headers_that_nobody_forwards(pair: &mut Pair, is_v6: bool) {
    if !is_v6 {
        return;
    }
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, asks(&flow)).same(1);
    for kind in [0, 1, 2, 3, 4, 253] {
        let route = [&[kind, 1, 0, 0, 0, 0][..], &[0x20; 16]].concat();
        pair.client_sends(&flow, with_extensions(&asks(&flow), &[(43, &route)]))
            .decided("a broken IPv6 packet for a VIP");
    }
    let home = [&[1, 2, 0, 0, 201, 16][..], &[0x20; 16]].concat();
    pair.client_sends(&flow, with_extensions(&asks(&flow), &[(60, &home)])).decided("a home address");
    // To be skipped, discarded, discarded with an error, discarded with an error unless multicast.
    for action in [0x1e, 0x5e, 0x9e, 0xde] {
        let met = pair.client_sends(&flow, with_extensions(&asks(&flow), &[(0, &[action, 4, 0, 0, 0, 0])]));
        if action == 0x1e {
            met.same(1);
        } else {
            met.decided("a hop-by-hop option that is to be refused");
        }
        pair.client_sends(&flow, with_extensions(&asks(&flow), &[(60, &[action, 4, 0, 0, 0, 0])])).same(1);
    }
}

/// R85, R87.
fn broken_extension_headers(pair: &mut Pair, is_v6: bool) {
    if !is_v6 {
        return;
    }
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, asks(&flow)).same(1);
    let padded = |chain: &[(u8, &[u8])]| with_extensions(&asks(&flow), chain);
    let decision = "IPv6 extension headers in a wrong order, or too many";
    pair.client_sends(&flow, padded(&[(60, PADDING), (0, PADDING)])).decided(decision);
    pair.client_sends(&flow, padded(&[(60, PADDING); 9])).decided(decision);
    for kind in [0, 60] {
        let mut packet = padded(&[(kind, PADDING)]);
        packet[41] = 200; // far beyond the packet
        pair.client_sends(&flow, packet).same(0);
    }
    let mut jumbo = asks(&flow);
    jumbo[4..6].fill(0);
    pair.client_sends(&flow, jumbo).same(0);
    let cut = padded(&[(60, PADDING)]);
    pair.client_sends(&flow, with_length(cut[..48].to_vec())).same(0);
    pair.client_sends(&flow, with_length(cut[..50].to_vec())).same(0);
}

/// R16 to R18.
fn sources_that_no_host_has(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let (never, decided): (&[&str], &[&str]) = if is_v6 {
        (&["ff02::1", "::1", "::"], &["2001:db8::10", "fd00:99::10"])
    } else {
        (
            &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"],
            &["0.1.2.3", "240.0.0.1", "192.0.2.10", "10.99.0.10"],
        )
    };
    let with_source = |flow: &Flow, source: &str| {
        let flow = Flow { client: Endpoint::new(address(source), flow.client.port), ..*flow };
        (flow, asks(&flow))
    };
    for source in never {
        let (flow, packet) = with_source(&flow, source);
        pair.client_sends(&flow, packet).same(0);
    }
    for source in decided {
        let (flow, packet) = with_source(&flow, source);
        pair.client_sends(&flow, packet).decided("a source that cannot be");
    }
}

/// R17.
fn land(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let flow = Flow { client: flow.vip, ..flow };
    pair.client_sends(&flow, asks(&flow)).decided("a source that cannot be");
}

/// R107, R109.
fn other_protocols(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let ends: (Address, Address) = (flow.client.address, flow.vip.address);
    for protocol in [4, 33, 41, 47, 50, 51, 59, 132, 136, 253] {
        let inner = asks(&flow);
        pair.client_sends(&flow, build::ip(ends.0, ends.1, Protocol(protocol), 64, &inner)).same(0);
    }
    let other = if is_v6 { Protocol::ICMP } else { Protocol::ICMPV6 };
    pair.client_sends(&flow, build::ip(ends.0, ends.1, other, 64, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])).same(0);
}
