//! Direct server return: requests go to backends in tunnels, answers do not come by.

mod errors;
mod size;

use tungate::engine::conntrack::State;
use tungate::engine::{DropReason, Verdict};
use tungate::wire::build::{self, Tcp};
use tungate::wire::tunnel::{self, Encapsulation};
use tungate::wire::{Address, Checksum, Endpoint, Gso, Offload, Packet, Protocol};

use super::support::{Outcome, Sight, World, address, altered, at, flags, segment, with_ttl};

/// Services by each encapsulation, with backends in both families. One backend each: what is asked is how, not where.
const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
mode = "dsr"
backends = [{ address = "10.0.0.1" }]

[[service]]
name = "far"
listen = ["192.0.2.11:80", "[2001:db8::11]:80"]
mode = "dsr"
encapsulation = "gre"
backends = [{ address = "fd00::1" }]

[[service]]
name = "media"
listen = ["192.0.2.12:5000-5099", "[2001:db8::12]:5000-5099"]
protocol = "udp"
mode = "dsr"
encapsulation = "gue"
backends = [{ address = "10.0.0.2" }]

[[service]]
name = "all"
listen = ["192.0.2.13:*", "[2001:db8::13]:*"]
protocol = "any"
mode = "dsr"
encapsulation = "ipip"
backends = [{ address = "10.0.0.3" }]

[[service]]
name = "many"
listen = ["192.0.2.14:80", "192.0.2.10:81"]
mode = "dsr"
balance = "round-robin"
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }, { address = "fd00::1" }]
"#;

/// What leaves in a tunnel.
struct Wrapped {
    source: Address,
    destination: Address,
    bytes: Vec<u8>,
    inner: Sight,
}

/// Takes an outer packet apart, as the backend would.
#[track_caller]
fn unwrap(bytes: &[u8], encapsulation: Encapsulation) -> Wrapped {
    let mut copy = bytes.to_vec();
    let outer = Packet::parse(&mut copy, Offload::default()).expect("the outer packet is sound");
    let (source, destination) = outer.addresses();
    let skipped = if encapsulation == Encapsulation::Gue { 8 } else { 0 };
    let mut payload = outer.transport()[skipped..].to_vec();
    let inner = tunnel::open(encapsulation, outer.protocol(), &mut payload).expect("a packet inside").to_vec();
    Wrapped { source, destination, bytes: bytes.to_vec(), inner: Sight::of(inner) }
}

impl Outcome {
    /// All outer packets that left.
    #[track_caller]
    fn all_wrapped(self, encapsulation: Encapsulation) -> Vec<Wrapped> {
        assert_eq!((self.verdict, &self.own), (Verdict::Forward, &Vec::new()));
        self.sent.iter().chain(&self.pieces).map(|bytes| unwrap(bytes, encapsulation)).collect()
    }

    #[track_caller]
    fn wrapped(self, encapsulation: Encapsulation) -> Wrapped {
        let all: Result<[Wrapped; 1], _> = self.all_wrapped(encapsulation).try_into();
        all.ok().expect("one packet").into_iter().next().unwrap()
    }
}

/// A datagram of so many bytes in all, DF set.
fn datagram(from: &str, to: &str, len: usize) -> Vec<u8> {
    let headers = if from.starts_with('[') { 48 } else { 28 };
    build::udp(at(from), at(to), &vec![7; len - headers])
}

fn without_df(packet: Vec<u8>) -> Vec<u8> {
    altered(packet, |bytes| {
        bytes[6] &= !0x40;
        bytes[5] = 9;
    })
}

const CLIENT: &str = "198.51.100.7:40000";
const CLIENT_V6: &str = "[2001:db8:1::7]:40000";
const GRE: Encapsulation = Encapsulation::Gre;
const GUE: Encapsulation = Encapsulation::Gue;
const IPIP: Encapsulation = Encapsulation::Ipip;

#[test]
fn r89_requests_of_both_families_reach_backends_of_both_families_unchanged() {
    let mut world = World::new(CONFIG);
    for (service, source, backend) in [("web", "10.99.0.10", "10.0.0.1"), ("far", "fd00:99::10", "fd00::1")] {
        for is_v6 in [false, true] {
            let client = if is_v6 { world.client(1).v6() } else { world.client(1) };
            let (from, to) = (client.endpoint(), client.vip(service));
            let out = client.syn(service).wrapped(GRE);
            assert_eq!((out.source, out.destination), (address(source), address(backend)));
            assert_eq!(out.inner.ends(), (from, to));
            let sent = build::tcp(from, to, &segment("SYN", 1_000, 0));
            assert_eq!(out.inner.bytes, with_ttl(sent, 63));
        }
    }
    assert_all_counters!(world, "received" => 4, "forwarded" => 4, "opened" => 4);
    world.check_invariants();
}

#[test]
fn r25_the_inner_checksum_is_left_alone_right_or_wrong() {
    let mut world = World::new(CONFIG);
    world.client(1).syn("web").wrapped(GRE);
    let from = world.client(1).endpoint();
    let data = Tcp { payload: b"data", ..segment("ACK", 1_001, 1) };
    let mut packet = build::tcp(from, at("192.0.2.10:80"), &data);
    packet[36] ^= 0x55;
    let out = world.receives(packet.clone()).wrapped(GRE).inner;
    assert_eq!((out.sound, out.bytes), (false, with_ttl(packet, 63)));
}

#[test]
fn r90_what_has_one_hop_left_is_answered_by_the_vip() {
    let mut world = World::new(CONFIG);
    world.client(1).syn("web").wrapped(GRE);
    for client in [1, 2] {
        let from = world.client(client).endpoint();
        let syn = with_ttl(build::tcp(from, at("192.0.2.10:80"), &segment("SYN", 1_000, 0)), 1);
        let answer = world.receives(syn.clone()).answered();
        assert_eq!((answer.source.address, answer.destination.address), (address("192.0.2.10"), from.address));
        let (kind, code, quote) = answer.icmp();
        assert_eq!((kind, code, &quote[..28]), (11, 0, &syn[..28]));
    }
}

#[test]
fn r53_segments_of_the_middle_are_picked_up_by_hash_and_stay() {
    // Two gateways that have never seen the flow, one of them with another idea of whose turn it is.
    let (mut one, mut other) = (World::new(CONFIG), World::new(CONFIG));
    other.client(99).syn("many").wrapped(GRE);
    let mut backends = std::collections::HashSet::new();
    for n in 1..40 {
        let ack = segment("ACK", 5_000, 6_000);
        let chosen = one.client(n).sends("many", &ack).wrapped(GRE).destination;
        assert_eq!(other.client(n).sends("many", &ack).wrapped(GRE).destination, chosen);
        assert_eq!(one.client(n).sends("many", &ack).wrapped(GRE).destination, chosen);
        backends.insert(chosen);
    }
    assert_eq!(backends.len(), 3, "the load is spread");
    assert!(one.states().iter().all(|state| *state == State::Established));
    one.check_invariants();
}

#[test]
fn r39_where_there_is_no_room_for_a_flow_its_packets_go_by_hash() {
    let mut world = World::new(&CONFIG.replace("[gateway]", "[gateway]\nmax-flows = 2"));
    for n in 1..=2 {
        world.client(n).syn("web").wrapped(GRE);
        world.client(n).sends("web", &segment("ACK", 1_001, 1)).wrapped(GRE);
    }
    let mut backends = std::collections::HashSet::new();
    for n in 10..40 {
        let chosen = world.client(n).syn("many").wrapped(GRE).destination;
        assert_eq!(world.client(n).sends("many", &segment("ACK", 1_001, 1)).wrapped(GRE).destination, chosen);
        backends.insert(chosen);
    }
    assert_eq!((backends.len(), world.states().len()), (3, 2));
    world.check_invariants();
}

#[test]
fn r53_a_syn_ack_begins_nothing() {
    let mut world = World::new(CONFIG);
    let answer = world.client(1).sends("web", &segment("SYN ACK", 1, 2)).answered();
    assert_eq!(answer.tcp.unwrap().0, flags("RST"));
}

#[test]
fn a_client_that_has_closed_gets_a_long_answer_as_long_as_it_acknowledges() {
    let mut world = World::new(CONFIG);
    world.client(1).syn("web").wrapped(GRE);
    world.client(1).sends("web", &segment("ACK", 1_001, 1)).wrapped(GRE);
    world.client(1).sends("web", &segment("FIN ACK", 1_001, 1)).wrapped(GRE);
    for n in 0..100 {
        world.wait(200);
        world.client(1).sends("web", &segment("ACK", 1_002, 5_000 * n)).wrapped(GRE);
        assert_eq!(world.states(), [State::FinWait]);
    }
    world.wait(241);
    assert_eq!(world.states(), []);
    world.check_invariants();
}

/// Else the next segment of an idle connection would go where the scheduler sends it.
#[test]
fn a_forged_rst_takes_no_backend_from_an_idle_connection() {
    let mut world = World::new(CONFIG);
    let homes: Vec<Address> = (1..20).map(|n| world.client(n).syn("many").wrapped(GRE).destination).collect();
    for n in 1..20 {
        world.client(n).sends("many", &segment("ACK", 1_001, 1)).wrapped(GRE);
        world.client(n).sends("many", &segment("RST", 0x8000_0000, 0)).wrapped(GRE);
    }
    world.wait(60);
    for (n, home) in (1..20).zip(homes) {
        assert_eq!(world.client(n).sends("many", &segment("ACK", 1_001, 1)).wrapped(GRE).destination, home);
    }
    world.client(1).sends("many", &segment("RST", 1_001, 0)).wrapped(GRE);
    world.wait(60);
    assert_eq!(world.states().len(), 18, "its own RST ends it");
}

#[test]
fn a_flow_stays_with_its_backend_across_reloads_weights_and_new_backends() {
    let mut world = World::new(CONFIG);
    let homes: Vec<Address> = (1..20).map(|n| world.client(n).syn("many").wrapped(GRE).destination).collect();
    let turned = CONFIG.replace(
        r#"[{ address = "10.0.0.1" }, { address = "10.0.0.2" }, { address = "fd00::1" }]"#,
        r#"[{ address = "fd00::9" }, { address = "10.0.0.1", weight = 0 }, { address = "10.0.0.8" }]"#,
    );
    world.reload(&turned);
    for (n, home) in (1..20).zip(homes) {
        assert_eq!(world.client(n).sends("many", &segment("ACK", 1_001, 1)).wrapped(GRE).destination, home);
    }
    let new = world.client(50).syn("many").wrapped(GRE).destination;
    assert!([address("fd00::9"), address("10.0.0.8")].contains(&new));
}

#[test]
fn port_ranges_keep_the_port_and_udp_flows_their_backend() {
    let mut world = World::new(CONFIG);
    for port in [5000, 5042, 5099] {
        for (from, to) in [(CLIENT, format!("192.0.2.12:{port}")), (CLIENT_V6, format!("[2001:db8::12]:{port}"))] {
            let out = world.receives(datagram(from, &to, 100)).wrapped(GUE);
            assert_eq!((out.destination, out.inner.ends()), (address("10.0.0.2"), (at(from), at(&to))));
        }
    }
    assert_eq!(world.receives(datagram(CLIENT, "192.0.2.12:5100", 100)).answered().icmp().0, 3);
}

#[test]
fn r97_a_flow_has_one_entropy_and_others_have_others() {
    let mut world = World::new(CONFIG);
    let mut port = |n: u8, len| {
        let from = format!("198.51.100.{n}:40000");
        let bytes = world.receives(datagram(&from, "192.0.2.12:5000", len)).wrapped(GUE).bytes;
        u16::from_be_bytes([bytes[20], bytes[21]])
    };
    let ports: std::collections::HashSet<u16> = (1..=50).map(|n| port(n, 60)).collect();
    assert!(ports.len() > 45 && ports.iter().all(|port| *port >= 0xc000));
    assert_eq!(port(3, 60), port(3, 900));
}

#[test]
fn r107_a_service_for_any_protocol_takes_those_without_ports_by_address() {
    let mut world = World::new(CONFIG);
    for protocol in [50, 51, 132, 136, 253] {
        for (from, to) in [("198.51.100.7", "192.0.2.13"), ("2001:db8:1::7", "2001:db8::13")] {
            let packet = build::ip(address(from), address(to), Protocol(protocol), 64, &[0; 40]);
            let out = world.receives(packet.clone()).wrapped(IPIP);
            assert_eq!(out.inner.bytes, with_ttl(packet, 63));
        }
    }
    for (from, to) in [(CLIENT, "192.0.2.13:1"), (CLIENT_V6, "[2001:db8::13]:65535")] {
        let out = world.receives(datagram(from, to, 100)).wrapped(IPIP);
        assert_eq!((out.destination, out.inner.ends()), (address("10.0.0.3"), (at(from), at(to))));
        let syn = build::tcp(at(from), at(to), &segment("SYN", 1, 0));
        assert_eq!(world.receives(syn).wrapped(IPIP).inner.ends(), (at(from), at(to)));
    }
    let elsewhere = build::ip(address("198.51.100.7"), address("192.0.2.10"), Protocol(50), 64, &[0; 40]);
    world.receives(elsewhere).dropped(DropReason::Protocol);
    world.check_invariants();
}

#[test]
fn r105_r109_what_comes_in_a_tunnel_is_no_service_and_a_vip_no_client() {
    let mut world = World::new(CONFIG);
    for protocol in [Protocol::GRE, Protocol::IPV4, Protocol::IPV6] {
        let packet = build::ip(address("198.51.100.7"), address("192.0.2.13"), protocol, 64, &[0; 40]);
        world.receives(packet).dropped(DropReason::Protocol);
    }
    // A backend's answer that comes by here after all, to a client for whom the gateway has a route to itself.
    world.client(1).syn("web").wrapped(GRE);
    let client = world.client(1).endpoint();
    let stray = build::tcp(at("192.0.2.10:80"), client, &segment("SYN ACK", 1, 1_001));
    world.receives(stray).dropped(DropReason::SpoofedSource);
}

#[test]
fn r69_a_ping_to_a_vip_is_answered_here_whatever_the_service_carries() {
    let mut world = World::new(CONFIG);
    let ping = build::icmp(address("198.51.100.7"), address("192.0.2.13"), vec![8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(world.receives(ping).answered().transport[0], 0);
}
