//! Pings to the gateway's own addresses that come in fragments, and pings of several clients.

use tungate::engine::{DropReason, Verdict};
use tungate::wire::{Address, Offload, Packet, Protocol, build};

use crate::fragments::{CONFIG, cut_packet, families, payload, piece_of, reassemble};
use crate::support::{World, address, with_ttl};

#[test]
fn r70_pings_with_one_identifier_are_answered_to_whom_each_is_from_and_make_no_flow() {
    for (client, vip, ..) in families() {
        let mut world = World::new(CONFIG);
        let other = if client.address.is_v4() { address("198.51.100.8") } else { address("2001:db8:1::8") };
        for client in [client.address, other, client.address] {
            let kind = if client.is_v4() { 8 } else { 128 };
            let reply =
                world.receives(build::icmp(client, vip.address, vec![kind, 0, 0, 0, 0x12, 0x34, 0, 7])).answered();
            assert_eq!((reply.destination.address, &reply.transport[4..6]), (client, &[0x12, 0x34][..]));
        }
        assert!(world.shared.table.is_empty());
    }
}

/// An echo request with so much data, cut.
fn ping(client: Address, vip: Address, id: u16, lengths: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let total: usize = lengths.iter().sum();
    let kind = if client.is_v4() { 8 } else { 128 };
    let whole = build::icmp(client, vip, [&[kind, 0, 0, 0, 0x12, 0x34, 0, 7], &payload(total - 8)[..]].concat());
    let pieces = cut_packet(&whole, id, lengths);
    (whole[whole.len() - total..].to_vec(), pieces)
}

#[test]
fn r69_a_ping_in_fragments_is_answered_in_the_same_ones() {
    let lengths = [1_480, 1_480, 40];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for (client, vip, ..) in families() {
            let mut world = World::new(CONFIG);
            let (request, pieces) = ping(client.address, vip.address, 77, &lengths);
            let sent: Vec<_> = order.iter().map(|n| with_ttl(pieces[*n].clone(), 1)).collect();
            let out = world.send_all(&sent);
            let (message, ids) = reassemble(&out);
            assert_eq!(ids, [77; 3]);
            // The checksum covers all of them.
            let kind = if client.address.is_v4() { 0 } else { 129 };
            let expected = build::icmp(vip.address, client.address, [&[kind, 0, 0, 0], &request[4..]].concat());
            assert_eq!(message, expected[expected.len() - request.len()..]);
            for mut piece in out {
                let piece = Packet::parse(&mut piece, Offload::default()).unwrap();
                assert_eq!((piece.addresses(), piece.ttl()), ((vip.address, client.address), build::TTL));
            }
            let held = u64::try_from(order.iter().position(|n| *n == 0).unwrap()).unwrap();
            let counters = world.counters();
            assert_eq!((counters["replied"], counters.get("consumed").copied().unwrap_or(0)), (3 - held, held));
            world.check_invariants();
        }
    }
}

#[test]
fn a_ping_in_fragments_is_answered_only_by_whom_it_is_for_and_as_wrong_as_it_came() {
    for (client, vip, source, _) in families() {
        let stranger = if client.address.is_v4() { address("192.0.2.99") } else { address("2001:db8::99") };
        for (from, to, reason) in [
            (client.address, stranger, DropReason::NoService),
            (source.address, vip.address, DropReason::SpoofedSource),
        ] {
            let mut world = World::new(CONFIG);
            let (_, pieces) = ping(from, to, 5, &[64, 8]);
            assert_eq!(world.send(&pieces[1]).0, Verdict::Consume);
            assert_eq!(world.send(&pieces[0]), (Verdict::Drop(reason), vec![]));
            assert_eq!(world.drops(reason), 2, "the one that was held, too");
        }
        let mut world = World::new(CONFIG);
        let (_, mut pieces) = ping(client.address, vip.address, 5, &[64, 8]);
        *pieces[1].last_mut().unwrap() ^= 1;
        let (message, _) = reassemble(&world.send_all(&pieces));
        let mut reply = build::ip(vip.address, client.address, protocol_of(client.address), build::TTL, &message);
        assert!(!Packet::parse(&mut reply, Offload::default()).unwrap().transport_checksum_ok());
    }
}

fn protocol_of(address: Address) -> Protocol {
    if address.is_v4() { Protocol::ICMP } else { Protocol::ICMPV6 }
}

/// Offsets in the reply would not be those in the request.
#[test]
fn a_ping_in_fragments_with_a_header_in_between_is_not_answered() {
    let (client, vip, ..) = families()[1];
    let (_, pieces) = ping(client.address, vip.address, 5, &[64, 8]);
    let mut world = World::new(CONFIG);
    // Destination options of 8 bytes, padding, before the message: in the first fragment.
    let options = [58, 0, 1, 4, 0, 0, 0, 0];
    let first = piece_of(Protocol(60), client.address, vip.address, 5, 0, true, &[&options, &pieces[0][48..]].concat());
    assert_eq!(world.send(&first), (Verdict::Drop(DropReason::Protocol), vec![]));
}
