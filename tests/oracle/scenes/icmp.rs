//! ICMP: errors about a flow's packets, from both sides, and what is no error.

use tungate::wire::{Address, Endpoint, build};

use super::Scene;
use crate::packets::{a_hop_further, quoted, spoilt, with_options};
use crate::pair::{Flow, Met, Pair};
use crate::support::{address, altered, segment, with_ttl};
use crate::talk::Talk;

pub(super) const SCENES: &[(&str, Scene)] = &[
    ("errors about answers", errors_about_answers),
    ("errors about questions", errors_about_questions),
    ("errors about a connection", errors_about_a_connection),
    ("short quotes", short_quotes),
    ("quotes with options", quotes_with_options),
    ("quotes with extensions", quotes_with_extensions),
    ("broken errors", broken_errors),
    ("errors about nothing", errors_about_nothing),
    ("errors without hops left", errors_without_hops_left),
    ("errors that are not forwarded", errors_that_are_not_forwarded),
    ("ping", ping),
    ("queries", queries),
];

/// Types and codes that are forwarded, with their second word.
const ERRORS: [&[(u8, u8, u32)]; 2] = [
    &[(3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 4, 1400), (3, 13, 0), (11, 0, 0), (11, 1, 0), (12, 0, 20 << 24)],
    &[(1, 0, 0), (1, 1, 0), (1, 4, 0), (2, 0, 1400), (3, 0, 0), (3, 1, 0), (4, 0, 6)],
];

fn message((kind, code, word): (u8, u8, u32), quote: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(quote);
    message
}

/// From outside: with source NAT the source of the error is a decision.
fn from_outside(pair: &Pair, met: Met) {
    if pair.source_nat { met.decided("the source of an ICMP error from outside, with source NAT") } else { met.same(1) }
}

/// A flow with an answer.
fn answered(pair: &mut Pair, is_v6: bool) -> Flow {
    let flow = pair.flow("dns", is_v6);
    pair.client_sends(&flow, build::udp(flow.client, flow.vip, b"a question")).same(1);
    pair.backend_sends(&flow, |to| build::udp(flow.backend, to, b"an answer")).same(1);
    flow
}

/// A router between the gateway and the client.
fn outside(is_v6: bool) -> Address {
    address(if is_v6 { "2001:db8:9::9" } else { "203.0.113.9" })
}

/// A router between the gateway and the backend.
fn inside(is_v6: bool) -> Address {
    address(if is_v6 { "fd00::77" } else { "10.0.0.77" })
}

/// An answer on its way to the client, as a router there sees it.
fn answer(flow: &Flow, payload: &[u8]) -> Vec<u8> {
    a_hop_further(build::udp(flow.vip, flow.client, payload))
}

/// A question on its way to the backend.
fn question(flow: &Flow, from: Endpoint, payload: &[u8]) -> Vec<u8> {
    a_hop_further(build::udp(from, flow.backend, payload))
}

/// R58, R59: from a router, and from the client itself.
fn errors_about_answers(pair: &mut Pair, is_v6: bool) {
    let flow = answered(pair, is_v6);
    for head in ERRORS[usize::from(is_v6)] {
        for from in [outside(is_v6), flow.client.address] {
            for len in [0, 9, 500, 1400] {
                let packet = answer(&flow, &vec![3; len]);
                let quote = quoted(&packet, if is_v6 { 1232 } else { 548 });
                let met = pair.client_sends(&flow, build::icmp(from, flow.vip.address, message(*head, quote)));
                from_outside(pair, met);
            }
        }
    }
}

/// R60.
fn errors_about_questions(pair: &mut Pair, is_v6: bool) {
    let flow = answered(pair, is_v6);
    for head in ERRORS[usize::from(is_v6)] {
        for from in [inside(is_v6), flow.backend.address] {
            for len in [0, 9, 500, 1400] {
                let error = |to: Endpoint| {
                    let packet = question(&flow, to, &vec![3; len]);
                    let quote = quoted(&packet, if is_v6 { 1232 } else { 548 });
                    build::icmp(from, to.address, message(*head, quote))
                };
                pair.backend_sends(&flow, error).same(1);
            }
        }
    }
}

fn errors_about_a_connection(pair: &mut Pair, is_v6: bool) {
    let too_big = if is_v6 { (2, 0, 1300) } else { (3, 4, 1300) };
    let mut talk = Talk::under_way(pair, is_v6);
    let flow = talk.flow;
    let payload = [1; 1300];
    let data = |from, to| {
        let segment = build::Tcp { payload: &payload, ..segment("ACK PSH", 7, 8) };
        a_hop_further(build::tcp(from, to, &segment))
    };
    let quote = data(flow.vip, flow.client);
    let error = build::icmp(outside(is_v6), flow.vip.address, message(too_big, quoted(&quote, 548)));
    let met = talk.pair.client_sends(&flow, error);
    from_outside(talk.pair, met);
    let error =
        |to: Endpoint| build::icmp(inside(is_v6), to.address, message(too_big, quoted(&data(to, flow.backend), 548)));
    talk.pair.backend_sends(&flow, error).same(1);
    talk.client("ACK PSH", 101, 101, 50).same(1);
}

/// R64: down to the ports and four bytes more.
fn short_quotes(pair: &mut Pair, is_v6: bool) {
    let flow = answered(pair, is_v6);
    let head = ERRORS[usize::from(is_v6)][0];
    let header = if is_v6 { 40 } else { 20 };
    for transport in [8, 9, 12] {
        let packet = answer(&flow, b"an answer");
        let quote = quoted(&packet, header + transport);
        let met = pair.client_sends(&flow, build::icmp(outside(is_v6), flow.vip.address, message(head, quote)));
        from_outside(pair, met);
        let error = |to: Endpoint| {
            let packet = question(&flow, to, b"a question");
            build::icmp(inside(is_v6), to.address, message(head, quoted(&packet, header + transport)))
        };
        pair.backend_sends(&flow, error).same(1);
    }
    for transport in [0, 3, 7] {
        let packet = answer(&flow, b"an answer");
        let quote = quoted(&packet, header + transport);
        pair.client_sends(&flow, build::icmp(outside(is_v6), flow.vip.address, message(head, quote))).same(0);
    }
    let mut talk = Talk::under_way(pair, is_v6);
    let flow = talk.flow;
    for transport in [8, 16, 17, 18, 19, 20] {
        let packet = a_hop_further(build::tcp(flow.vip, flow.client, &segment("ACK", 7, 8)));
        let quote = quoted(&packet, header + transport);
        let met = talk.pair.client_sends(&flow, build::icmp(outside(is_v6), flow.vip.address, message(head, quote)));
        if (18..20).contains(&transport) {
            met.decided("a quoted TCP header that ends behind its checksum");
        } else {
            from_outside(talk.pair, met);
        }
    }
    talk.client("ACK PSH", 101, 101, 50).same(1);
}

/// R63.
fn quotes_with_options(pair: &mut Pair, is_v6: bool) {
    if is_v6 {
        return;
    }
    let flow = answered(pair, is_v6);
    let quote = with_options(&answer(&flow, b"an answer"), &[7, 7, 8, 1, 2, 3, 4]);
    let met = pair.client_sends(&flow, build::icmp(outside(is_v6), flow.vip.address, message((3, 1, 0), &quote)));
    from_outside(pair, met);
    let error = |to: Endpoint| {
        let quote = with_options(&question(&flow, to, b"a question"), &[1, 1, 1, 1]);
        build::icmp(inside(is_v6), to.address, message((11, 0, 0), &quote))
    };
    pair.backend_sends(&flow, error).same(1);
}

/// R65: RFC 4884, an MPLS label stack behind a padded quote.
fn quotes_with_extensions(pair: &mut Pair, is_v6: bool) {
    let flow = answered(pair, is_v6);
    let mut quote = answer(&flow, &[3; 60]);
    quote.resize(128, 0);
    quote.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3]);
    let (kind, length) = if is_v6 { (3, 16 << 24) } else { (11, 32 << 16) };
    let met =
        pair.client_sends(&flow, build::icmp(outside(is_v6), flow.vip.address, message((kind, 0, length), &quote)));
    from_outside(pair, met);
}

/// R61, R62.
fn broken_errors(pair: &mut Pair, is_v6: bool) {
    let flow = answered(pair, is_v6);
    let head = ERRORS[usize::from(is_v6)][0];
    let error = |quote: &[u8]| build::icmp(outside(is_v6), flow.vip.address, message(head, quote));
    let quote = answer(&flow, b"an answer");
    pair.client_sends(&flow, spoilt(error(&quote))).same(0);
    for len in 0..8 {
        let packet = build::icmp(outside(is_v6), flow.vip.address, message(head, &quote)[..len.max(4)].to_vec());
        pair.client_sends(&flow, packet).same(0);
    }
    // The quote's transport checksum is not looked at.
    let met = pair.client_sends(&flow, error(&spoilt(quote.clone())));
    from_outside(pair, met);
    let set = |at: usize, value: u8| {
        let mut broken = quote.clone();
        broken[at] = value;
        error(&broken)
    };
    let decision = "an ICMP error with a broken quote";
    pair.client_sends(&flow, set(0, 0x55)).decided(decision);
    if !is_v6 {
        pair.client_sends(&flow, set(1, 7)).decided(decision);
        pair.client_sends(&flow, set(0, 0x42)).same(0);
        pair.client_sends(&flow, set(0, 0x4f)).same(0);
    }
}

/// R66: no such flow; the right flow the wrong way round; an error to somebody else.
fn errors_about_nothing(pair: &mut Pair, is_v6: bool) {
    let flow = answered(pair, is_v6);
    let head = ERRORS[usize::from(is_v6)][0];
    let stranger = Endpoint::new(flow.client.address, 9);
    let quote = a_hop_further(build::udp(flow.vip, stranger, b"an answer"));
    pair.client_sends(&flow, build::icmp(outside(is_v6), flow.vip.address, message(head, &quote))).same(0);
    let quote = a_hop_further(build::udp(flow.client, flow.vip, b"a question"));
    pair.client_sends(&flow, build::icmp(outside(is_v6), flow.vip.address, message(head, &quote))).same(0);
    let quote = answer(&flow, b"an answer");
    let other = address(if is_v6 { "2001:db8::20" } else { "192.0.2.20" });
    pair.client_sends(&flow, build::icmp(outside(is_v6), other, message(head, &quote))).same(0);
}

/// R9.
fn errors_without_hops_left(pair: &mut Pair, is_v6: bool) {
    let flow = answered(pair, is_v6);
    let head = ERRORS[usize::from(is_v6)][0];
    let quote = answer(&flow, b"an answer");
    let error = build::icmp(outside(is_v6), flow.vip.address, message(head, &quote));
    pair.client_sends(&flow, with_ttl(error.clone(), 1)).same(0);
    let met = pair.client_sends(&flow, with_ttl(error, 2));
    from_outside(pair, met);
}

/// R71: source quench, redirects; errors of kinds that are not known.
fn errors_that_are_not_forwarded(pair: &mut Pair, is_v6: bool) {
    let flow = answered(pair, is_v6);
    let kinds: &[u8] = if is_v6 { &[5, 100, 127, 137] } else { &[4, 5, 6, 31] };
    for kind in kinds {
        let error = |quote: &[u8]| build::icmp(outside(is_v6), flow.vip.address, message((*kind, 0, 0), quote));
        let met = pair.client_sends(&flow, error(&answer(&flow, b"an answer")));
        if *kind == 4 && !is_v6 {
            met.decided("source quench");
        } else if *kind < 128 && is_v6 {
            met.decided("an ICMPv6 error of a kind that is not known");
        } else {
            met.same(0);
        }
    }
}

/// R69.
fn ping(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let head = if is_v6 { (128, 0, 0x1234_0001) } else { (8, 0, 0x1234_0001) };
    let ping = build::icmp(flow.client.address, flow.vip.address, message(head, b"are you there?"));
    pair.client_sends(&flow, ping.clone()).decided("a ping to a VIP");
    pair.client_sends(&flow, spoilt(ping)).same(0);
}

fn queries(pair: &mut Pair, is_v6: bool) {
    let flow = pair.flow("dns", is_v6);
    let kinds: &[u8] = if is_v6 { &[129, 133, 134, 135, 136, 143] } else { &[0, 9, 10, 13, 14, 15, 17] };
    for kind in kinds {
        let packet = build::icmp(flow.client.address, flow.vip.address, message((*kind, 0, 7), &[0; 24]));
        let packet = altered(packet, |bytes| bytes[if is_v6 { 7 } else { 8 }] = 255);
        pair.client_sends(&flow, packet).same(0);
    }
}
