//! Fragments through the engine: R72-R83 of the requirements.

mod bounds;

use std::collections::HashSet;

use tungate::engine::conntrack::State;
use tungate::engine::{DropReason, Verdict};
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Address, Endpoint, Offload, Packet, Protocol};

use crate::support::{World, altered, at, segment, with_ttl};

pub(crate) const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]

[[service]]
name = "dns"
protocol = "udp"
listen = ["192.0.2.10:53", "[2001:db8::10]:53"]
backends = [{ name = "b4", address = "10.0.0.1:53" }, { name = "b6", address = "[fd00::1]:53" }]
"#;

/// Client, VIP, source address, backend of one family.
pub(crate) type Ends = (Endpoint, Endpoint, Endpoint, Endpoint);

pub(crate) fn families() -> [Ends; 2] {
    [
        (at("198.51.100.7:4000"), at("192.0.2.10:53"), at("10.99.0.10:4000"), at("10.0.0.1:53")),
        (at("[2001:db8:1::7]:4000"), at("[2001:db8::10]:53"), at("[fd00:99::10]:4000"), at("[fd00::1]:53")),
    ]
}

/// A UDP datagram cut into fragments whose payloads have these lengths (all but the last a multiple of 8).
fn cut(source: Endpoint, destination: Endpoint, id: u16, lengths: &[usize]) -> Vec<Vec<u8>> {
    let total: usize = lengths.iter().sum();
    cut_packet(&build::udp(source, destination, &payload(total - 8)), id, lengths)
}

/// A packet without options or extension headers cut into fragments.
pub(crate) fn cut_packet(packet: &[u8], id: u16, lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut copy = packet.to_vec();
    let whole = Packet::parse(&mut copy, Offload::default()).unwrap();
    let ((source, destination), protocol, total) = (whole.addresses(), whole.protocol(), whole.transport().len());
    let mut offset = 0;
    let pieces = lengths.iter().map(|len| {
        let start = offset;
        offset += len;
        let piece = &whole.transport()[start..offset];
        piece_of(protocol, source, destination, id, start, offset < total, piece)
    });
    pieces.collect()
}

pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn fragment(source: Address, destination: Address, id: u16, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    piece_of(Protocol::UDP, source, destination, id, offset, more, bytes)
}

pub(crate) fn piece_of(
    protocol: Protocol,
    source: Address,
    destination: Address,
    id: u16,
    offset: usize,
    more: bool,
    bytes: &[u8],
) -> Vec<u8> {
    let offset = u16::try_from(offset).unwrap();
    if source.is_v4() {
        let packet = build::ip(source, destination, protocol, build::TTL, bytes);
        return altered(packet, |bytes| {
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            bytes[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
        });
    }
    let mut header = vec![protocol.0, 0];
    header.extend((offset | u16::from(more)).to_be_bytes());
    header.extend(u32::from(id).to_be_bytes());
    header.extend(bytes);
    build::ip(source, destination, Protocol(44), build::TTL, &header)
}

impl World {
    /// A packet arrives; the verdict, and all that leaves because of it.
    pub(crate) fn send(&mut self, packet: &[u8]) -> (Verdict, Vec<Vec<u8>>) {
        let outcome = self.receives(packet.to_vec());
        (outcome.verdict, outcome.sent.into_iter().chain(outcome.own).collect())
    }

    pub(crate) fn send_all(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        packets.iter().flat_map(|packet| self.send(packet).1).collect()
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.shared.counters.sum(|worker| worker.drops(reason))
    }
}

/// What a host puts together from fragments: source, destination and the datagram, if it is whole. Also their ids.
pub(crate) fn reassemble(fragments: &[Vec<u8>]) -> (Vec<u8>, Vec<u32>) {
    let mut pieces = Vec::new();
    let mut ids = Vec::new();
    for bytes in fragments {
        let mut bytes = bytes.clone();
        let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        let fragment = packet.fragment().unwrap();
        ids.push(fragment.id);
        pieces.push((fragment.offset, packet.transport().to_vec()));
    }
    pieces.sort();
    let mut whole = Vec::new();
    for (offset, piece) in pieces {
        assert_eq!(usize::from(offset), whole.len(), "a gap or an overlap");
        whole.extend(piece);
    }
    (whole, ids)
}

fn assert_same_datagram(out: &[Vec<u8>], source: Endpoint, destination: Endpoint, total: usize) {
    let (whole, ids) = reassemble(out);
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "one datagram, one identification: {ids:?}");
    let expected = build::udp(source, destination, &payload(total - 8));
    assert_eq!(whole, expected[expected.len() - total..], "ports, checksum and payload of the translated datagram");
}

#[test]
fn r72_fragments_in_any_order_reach_the_same_real_within_their_boundaries() {
    let lengths = [64, 128, 40];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for (client, vip, source, backend) in families() {
            let mut world = World::new(CONFIG);
            let fragments = cut(client, vip, 77, &lengths);
            let sent: Vec<_> = order.iter().map(|n| fragments[*n].clone()).collect();
            let out = world.send_all(&sent);
            assert_eq!(out.len(), 3, "order {order:?}");
            assert_same_datagram(&out, source, backend, 232);
            let mut sizes: Vec<_> = out.iter().map(Vec::len).collect();
            let mut expected: Vec<_> = fragments.iter().map(Vec::len).collect();
            sizes.sort_unstable();
            expected.sort_unstable();
            assert_eq!(sizes, expected, "boundaries are kept");

            // And the answer, fragmented too, comes back the same way.
            let answer = world.send_all(&cut(backend, source, 9, &lengths));
            assert_same_datagram(&answer, vip, client, 232);
        }
    }
}

/// The first fragment alone does not say how long the segment is, and the receiver acknowledges all of it.
#[test]
fn r72_a_connection_goes_on_after_segments_in_fragments() {
    for v6 in [false, true] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut world = World::new(crate::CONFIG);
            let client = world.client(1);
            let mut connection = if v6 { client.v6() } else { client }.opens("web");
            for id in 0..3 {
                let data = Tcp { payload: &payload(3_000), ..connection.client_segment("ACK PSH") };
                let whole = build::tcp(connection.client, connection.vip, &data);
                let pieces = cut_packet(&whole, id, &[1_400, 1_400, 220]);
                assert_eq!(world.send_all(&order.map(|n| pieces[n].clone())).len(), 3);
                connection.client_next += 3_000;
                world.backend_says(&connection, &connection.backend_segment("ACK")).forwarded();
            }
            let last = Tcp { payload: &payload(1_000), ..connection.client_segment("FIN ACK") };
            let pieces = cut_packet(&build::tcp(connection.client, connection.vip, &last), 9, &[600, 400, 20]);
            assert_eq!(world.send_all(&order.map(|n| pieces[n].clone())).len(), 3);
            connection.client_next += 1_001;
            world.backend_sends(&mut connection, 1_000);
            world.backend_closes(&mut connection);
            assert_eq!(world.states(), [State::TimeWait]);
        }
    }
}

/// A forger who has guessed where the client is, but not what it has acknowledged (condition IV).
#[test]
fn r47_fragments_that_are_not_believed_move_no_window() {
    let mut world = World::new(crate::CONFIG);
    let connection = world.client(1).opens("web");
    let forged = Tcp {
        payload: &payload(3_000),
        ack: connection.backend_next.wrapping_sub(100_000),
        ..connection.client_segment("ACK PSH")
    };
    let whole = build::tcp(connection.client, connection.vip, &forged);
    assert_eq!(world.send_all(&cut_packet(&whole, 1, &[1_400, 1_620])).len(), 2);
    let ack = Tcp { ack: connection.client_next + 3_000, ..connection.backend_segment("ACK") };
    world.backend_says(&connection, &ack).dropped(DropReason::TcpWindow);
}

/// Where each would go by itself: to the next backend.
#[test]
fn r72_all_fragments_go_to_the_backend_that_the_first_was_given() {
    let turns = CONFIG
        .replace("10.0.0.1:53\" }", "10.0.0.1:53\" }, { address = \"10.0.0.2:53\" }, { address = \"[fd00::2]:53\" }")
        .replace("protocol = \"udp\"", "protocol = \"udp\"\nbalance = \"round-robin\"");
    let mut world = World::new(&turns);
    for (client, vip, ..) in families() {
        let mut backends = HashSet::new();
        for id in 0..20 {
            let from = Endpoint::new(client.address, 5_000 + id);
            let [first, second, third] = <[_; 3]>::try_from(cut(from, vip, id, &[64, 128, 40])).unwrap();
            let out = world.send_all(&[second, first, third]);
            let to: HashSet<Address> = out.iter().map(|packet| destination(packet)).collect();
            assert_eq!((out.len(), to.len()), (3, 1), "{to:?}");
            backends.extend(to);
        }
        assert_eq!(backends.len(), 2, "both backends are in use");
    }
}

fn destination(packet: &[u8]) -> Address {
    Packet::parse(&mut packet.to_vec(), Offload::default()).unwrap().addresses().1
}

#[test]
fn r81_an_atomic_fragment_is_no_fragment() {
    let (client, vip, _, backend) = families()[1];
    let mut world = World::new(CONFIG);
    // A real fragment of the same id is waiting; the atomic one neither completes nor disturbs it.
    let waiting = cut(client, vip, 5, &[64, 8]);
    assert_eq!(world.send(&waiting[1]).0, Verdict::Consume);
    let whole = build::udp(client, vip, b"atomic");
    let atomic = fragment(client.address, vip.address, 5, 0, false, &whole[40..]);
    let (verdict, mut out) = world.send(&atomic);
    assert_eq!((verdict, out.len()), (Verdict::Forward, 1));
    let sent = Packet::parse(&mut out[0], Offload::default()).unwrap();
    assert_eq!(sent.addresses().1, backend.address);
    assert!(sent.transport_checksum_ok());
    assert_eq!(world.send_all(&waiting[..1]).len(), 2);
}

/// Two hosts behind one source address, whose datagrams are under way at the same time.
#[test]
fn r83_equal_ids_of_two_clients_leave_as_different_ones() {
    for (client, vip, source, backend) in families() {
        let mut world = World::new(CONFIG);
        let [one, other] = [client, neighbour(client)].map(|from| cut(from, vip, 5, &[64, 8]));
        let mut ones = world.send(&one[0]).1;
        let others = world.send_all(&[other[1].clone(), other[0].clone()]);
        ones.extend(world.send(&one[1]).1);
        assert_same_datagram(&ones, source, backend, 72);
        let (whole, ids) = reassemble(&others);
        assert_eq!((whole.len(), ids[0]), (72, ids[1]));
        assert_ne!(ids[0], reassemble(&ones).1[0]);
    }
}

fn neighbour(of: Endpoint) -> Endpoint {
    let address = if of.address.is_v4() {
        Address::v4([198, 51, 100, 8])
    } else {
        let mut octets = *of.address.octets();
        octets[15] = 8;
        Address::v6(octets)
    };
    Endpoint::new(address, of.port)
}

#[test]
fn later_fragments_of_a_refused_first_are_refused() {
    let (client, vip, ..) = families()[0];
    let mut world = World::new(CONFIG);
    let elsewhere = Endpoint::new(vip.address, 54);
    let fragments = cut(client, elsewhere, 5, &[64, 64, 8]);
    assert_eq!(world.send(&fragments[2]).0, Verdict::Consume);
    let (verdict, out) = world.send(&fragments[0]);
    assert_eq!((verdict, out.len()), (Verdict::Reply, 1), "port unreachable, and nothing else");
    assert!(matches!(world.send(&fragments[1]).0, Verdict::Drop(_)));
}
