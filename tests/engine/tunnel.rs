//! Direct server return: requests go to backends in tunnels, answers do not come by.

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
fn r99_what_may_be_cut_is_cut_before_it_is_wrapped_and_goes_one_way() {
    let mut world = World::new(CONFIG);
    let packet = without_df(datagram(CLIENT, "192.0.2.12:5000", 1500));
    let out = world.receives(packet).all_wrapped(GUE);
    assert_eq!(out.len(), 2);
    for piece in &out {
        assert!(piece.bytes.len() <= 1500);
        assert_eq!(piece.destination, address("10.0.0.2"));
    }
}

#[test]
fn r99_fragments_of_a_client_follow_their_first_into_the_tunnel_and_may_be_cut_again() {
    let mut world = World::new(CONFIG);
    let whole = without_df(datagram(CLIENT, "192.0.2.12:5000", 2980));
    let fragment = |from: usize, to: usize, more: u8| {
        let mut packet = [&whole[..20], &whole[20 + from..20 + to]].concat();
        let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
        let place = u16::try_from(from / 8).unwrap().to_be_bytes();
        packet = altered(packet, |bytes| {
            bytes[2..4].copy_from_slice(&len);
            bytes[6..8].copy_from_slice(&[place[0] | more, place[1]]);
        });
        packet
    };
    let (first, second) = (fragment(0, 1480, 0x20), fragment(1480, 2960, 0));
    assert_eq!(world.receives(second).verdict, Verdict::Consume);
    let outcome = world.receives(first);
    assert_eq!((outcome.verdict, outcome.pieces.len(), outcome.own.len()), (Verdict::Forward, 1, 2));
    let all: Vec<Vec<u8>> = outcome.sent.into_iter().chain(outcome.pieces).chain(outcome.own).collect();
    let mut payload: Vec<u8> = Vec::new();
    for outer in &all {
        let inner = unwrap(outer, GUE).inner.bytes;
        let place = usize::from(u16::from_be_bytes([inner[6], inner[7]]) & 0x1fff) * 8;
        assert_eq!(place, payload.len());
        payload.extend(&inner[20..]);
    }
    assert_eq!(payload, whole[20..]);
}

#[test]
fn r100_who_forbids_to_cut_is_told_what_fits() {
    let mut world = World::new(CONFIG);
    let syn = |to: &str, len| {
        let payload = vec![7; len - 40];
        build::tcp(at(CLIENT), at(to), &Tcp { payload: &payload, ..segment("ACK", 1, 1) })
    };
    for (to, mtu) in [("192.0.2.10:80", 1476_u16), ("192.0.2.11:80", 1456)] {
        world.receives(syn(to, usize::from(mtu))).wrapped(GRE);
        let packet = syn(to, usize::from(mtu) + 1);
        let answer = world.receives(packet.clone()).answered();
        assert_eq!(answer.ends(), (Endpoint::new(at(to).address, 0), Endpoint::new(at(CLIENT).address, 0)));
        assert_eq!(answer.transport[4..8], [0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]]);
        let (kind, code, quote) = answer.icmp();
        assert_eq!((kind, code, quote), (3, 4, &packet[..548]));
    }
}

#[test]
fn r100_of_a_super_packet_the_first_segment_is_too_big() {
    let mut world = World::new(CONFIG);
    let payload = vec![7; 20_000];
    let bytes = build::tcp(at(CLIENT), at("192.0.2.10:80"), &Tcp { payload: &payload, ..segment("ACK", 1, 1) });
    let super_packet = |size| Offload {
        checksum: Checksum::Partial { start: 20, offset: 16 },
        gso: Gso::TcpV4 { ecn: false },
        segment_size: size,
        header_len: 40,
    };
    let answer = world.receives_offloaded(bytes.clone(), super_packet(1460)).answered();
    let (_, code, quote) = answer.icmp();
    assert_eq!((code, &quote[2..4]), (4, &1500_u16.to_be_bytes()[..]));
    assert_eq!(tungate::wire::checksum::sum(&quote[..20]), 0xffff);

    let segments = world.receives_offloaded(bytes, super_packet(1436)).all_wrapped(GRE);
    assert_eq!(segments.len(), 20_000_usize.div_ceil(1436));
    assert!(segments.iter().all(|segment| segment.bytes.len() <= 1500 && segment.inner.sound));
}

#[test]
fn r101_r102_ipv6_is_told_no_less_than_1280_and_that_passes() {
    let mut world = World::new(&CONFIG.replace("[gateway]", "[gateway]\nmtu = 1300"));
    for (to, told, encapsulation, pieces) in [
        ("[2001:db8::10]:80", 1280_u32, GRE, 1),
        ("[2001:db8::11]:80", 1280, GRE, 2),
        ("[2001:db8::13]:9", 1280, IPIP, 1),
    ] {
        let packet = |len: usize| {
            let payload = vec![7; len - 60];
            build::tcp(at(CLIENT_V6), at(to), &Tcp { payload: &payload, ..segment("ACK", 1, 1) })
        };
        let answer = world.receives(packet(1281)).answered();
        assert_eq!((answer.icmp().0, &answer.transport[4..8]), (2, &told.to_be_bytes()[..]));
        assert!(answer.bytes.len() <= 1280);
        let outcome = world.receives(packet(1280));
        assert_eq!((outcome.verdict, 1 + outcome.pieces.len()), (Verdict::Forward, pieces), "{to}");
        for outer in outcome.sent.iter().chain(&outcome.pieces) {
            // Over IPv4 whole, 4 bytes too long, and so without DF: routers cut it.
            assert!(outer.len() <= 1300 || outer[6] & 0x40 == 0);
            if outcome.pieces.is_empty() {
                unwrap(outer, encapsulation);
            }
        }
    }
}

#[test]
fn r106_the_syn_announces_no_more_than_the_tunnel_takes() {
    let mut world = World::new(CONFIG);
    let mss = [2, 4, 0x05, 0xb4];
    for (from, to, expected) in [
        (CLIENT, "192.0.2.10:80", 1436_u16),
        (CLIENT, "192.0.2.11:80", 1416),
        (CLIENT_V6, "[2001:db8::10]:80", 1416),
        (CLIENT_V6, "[2001:db8::11]:80", 1396),
    ] {
        let syn = build::tcp(at(from), at(to), &Tcp { options: &mss, ..segment("SYN", 1, 0) });
        for _retransmission in 0..2 {
            let out = world.receives(syn.clone()).wrapped(GRE).inner;
            assert_eq!(out.transport[20..24], [2, 4, expected.to_be_bytes()[0], expected.to_be_bytes()[1]]);
            assert!(out.sound);
        }
    }
}

/// An ICMP error about what the backend has sent past us.
fn error_to_vip(family_v4: bool, sent: &[u8]) -> Vec<u8> {
    let (from, vip, kind) =
        if family_v4 { ("203.0.113.1", "192.0.2.10", 3) } else { ("2001:db8:f::1", "2001:db8::10", 2) };
    let mut message = vec![kind, if family_v4 { 4 } else { 0 }, 0, 0, 0, 0, 0x05, 0x14];
    message.extend(&sent[..sent.len().min(100)]);
    build::icmp(address(from), address(vip), message)
}

#[test]
fn r67_an_error_about_an_answer_goes_to_the_backend_that_sent_it() {
    let mut world = World::new(CONFIG);
    for n in 1..20 {
        let client = world.client(n).port(40_000).endpoint();
        let vip = at("192.0.2.10:81");
        let home = world.receives(build::tcp(client, vip, &segment("SYN", 1, 0))).wrapped(GRE).destination;
        let answer = build::tcp(vip, client, &Tcp { payload: &[1; 400], ..segment("ACK", 1, 1) });
        let error = error_to_vip(true, &answer);
        let out = world.receives(error.clone()).wrapped(GRE);
        assert_eq!((out.destination, out.inner.bytes), (home, with_ttl(error, 63)));
    }
    world.check_invariants();
}

#[test]
fn r67_without_flow_it_goes_where_the_flows_packets_would_go() {
    let mut world = World::new(CONFIG);
    for n in 1..20 {
        let client = world.client(n).endpoint();
        let vip = at("192.0.2.10:81");
        let answer = build::tcp(vip, client, &segment("ACK", 1, 1));
        let by_error = world.receives(error_to_vip(true, &answer)).wrapped(GRE).destination;
        let picked_up = world.receives(build::tcp(client, vip, &segment("ACK", 1, 1))).wrapped(GRE).destination;
        assert_eq!(by_error, picked_up);
    }
    let nobodys = build::tcp(at("192.0.2.10:9"), at(CLIENT), &segment("ACK", 1, 1));
    world.receives(error_to_vip(true, &nobodys)).dropped(DropReason::IcmpNoFlow);
    let v6 = build::tcp(at("[2001:db8::10]:80"), at(CLIENT_V6), &segment("ACK", 1, 1));
    assert_eq!(world.receives(error_to_vip(false, &v6)).wrapped(GRE).destination, address("10.0.0.1"));
}

/// The gateway's own packet to a backend came back with this.
fn error_about_outer(world: &mut World, outer: &[u8], head: (u8, u8, u32), quoted: usize) -> Outcome {
    let (from, to) = if outer[0] >> 4 == 4 { ("10.9.9.9", "10.99.0.10") } else { ("fd00:9::9", "fd00:99::10") };
    world.complains(address(from), address(to), head, &outer[..quoted.min(outer.len())])
}

#[test]
fn r103_the_path_mtu_is_learned_for_the_backend_and_the_client_told() {
    for (service, from, to, head, told) in [
        ("web", CLIENT, "192.0.2.10:80", (3, 4, 1400), 1376_u16),
        ("web", CLIENT_V6, "[2001:db8::10]:80", (3, 4, 1400), 1376),
        ("far", CLIENT, "192.0.2.11:80", (2, 0, 1400), 1356),
        ("far", CLIENT_V6, "[2001:db8::11]:80", (2, 0, 1400), 1356),
    ] {
        let mut world = World::new(CONFIG);
        let payload = [7; 1380];
        let data = build::tcp(at(from), at(to), &Tcp { payload: &payload, ..segment("ACK", 1, 1) });
        let outer = world.receives(data.clone()).wrapped(GRE).bytes;
        let answer = error_about_outer(&mut world, &outer, head, 200).answered();
        assert_eq!((answer.source.address, answer.destination.address), (at(to).address, at(from).address));
        assert_eq!(answer.transport[6..8], told.to_be_bytes(), "{service} {from}");
        let (kind, code, quote) = answer.icmp();
        assert_eq!((kind, code), if at(from).address.is_v4() { (3, 4) } else { (2, 0) });
        assert_eq!(quote[..40], with_ttl(data.clone(), 63)[..40]);

        // From now on the gateway knows: other clients, too, are told at once, for ten minutes.
        let other = world.client(9).endpoint();
        if at(from).address.is_v4() {
            let data = build::tcp(other, at(to), &Tcp { payload: &payload, ..segment("ACK", 1, 1) });
            assert_eq!(world.receives(data.clone()).answered().transport[6..8], told.to_be_bytes());
            world.wait(600);
            world.receives(data).wrapped(GRE);
        }
    }
}

#[test]
fn r103_what_is_cut_too_short_only_lowers_the_path_mtu() {
    let mut world = World::new(CONFIG);
    let data = build::tcp(at(CLIENT), at("192.0.2.10:80"), &Tcp { payload: &[7; 1400], ..segment("ACK", 1, 1) });
    let outer = world.receives(data.clone()).wrapped(GRE).bytes;
    for quoted in [28, 30, 44] {
        let outcome = error_about_outer(&mut world, &outer, (3, 4, 1300), quoted);
        assert_eq!((outcome.verdict, outcome.own.len()), (Verdict::Consume, 0), "{quoted}");
    }
    assert_eq!(world.receives(data).answered().transport[6..8], 1276_u16.to_be_bytes());
    for nonsense in [0, 67, 575, 1500, 9000] {
        error_about_outer(&mut world, &outer, (3, 4, nonsense), 28).verdict.to_string();
    }
    let fits = build::tcp(at(CLIENT), at("192.0.2.10:80"), &Tcp { payload: &[7; 1236], ..segment("ACK", 1, 1) });
    world.receives(fits).wrapped(GRE);
}

#[test]
fn r103_who_lets_his_packets_be_cut_is_not_told_but_served() {
    let mut world = World::new(CONFIG);
    let packet = without_df(datagram(CLIENT, "192.0.2.12:5000", 1400));
    let outer = world.receives(packet.clone()).wrapped(GUE).bytes;
    assert_eq!(error_about_outer(&mut world, &outer, (3, 4, 1000), 200).verdict, Verdict::Consume);
    let pieces = world.receives(packet).all_wrapped(GUE);
    assert!(pieces.len() == 2 && pieces.iter().all(|piece| piece.bytes.len() <= 1000));
}

#[test]
fn r104_other_errors_about_the_tunnel_never_reach_a_client() {
    let mut world = World::new(CONFIG);
    let outer = world.client(1).syn("web").wrapped(GRE).bytes;
    for head in [(3, 0, 0), (3, 1, 0), (3, 2, 0), (3, 13, 0), (11, 0, 0), (11, 1, 0), (12, 0, 0)] {
        error_about_outer(&mut world, &outer, head, 200).dropped(DropReason::TunnelUnreachable);
    }
    let outer = world.client(1).v6().syn("far").wrapped(GRE).bytes;
    for head in [(1, 0, 0), (1, 3, 0), (3, 0, 0), (4, 1, 0)] {
        error_about_outer(&mut world, &outer, head, 200).dropped(DropReason::TunnelUnreachable);
    }
    // About a tunnel that is not ours.
    let foreign = build::ip(address("10.99.0.10"), address("10.7.7.7"), Protocol::GRE, 64, &[0; 40]);
    error_about_outer(&mut world, &foreign, (3, 1, 0), 200).dropped(DropReason::IcmpQuote);
}

#[test]
fn r69_a_ping_to_a_vip_is_answered_here_whatever_the_service_carries() {
    let mut world = World::new(CONFIG);
    let ping = build::icmp(address("198.51.100.7"), address("192.0.2.13"), vec![8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(world.receives(ping).answered().transport[0], 0);
}
