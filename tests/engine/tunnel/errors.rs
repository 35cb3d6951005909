//! ICMP errors, about what a backend has sent past us and about the tunnel itself: R67, R103, R104.

use super::*;
use tungate::config::BackendId;
use tungate::engine::counters::WorkerCounters;

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

#[test]
fn r67_an_error_about_a_packet_without_ports_finds_its_backend_too() {
    let mut world = World::new(&CONFIG.replace("\"10.0.0.3\"", "\"10.0.0.3\" }, { address = \"10.0.0.4\""));
    let mut backends = std::collections::HashSet::new();
    for (n, protocol) in (1..=20).flat_map(|n| [(n, 132), (n, 50)]) {
        let (client, vip) = (world.client(n).endpoint().address, address("192.0.2.13"));
        let answer = build::ip(vip, client, Protocol(protocol), 64, &[0; 400]);
        let mut message = vec![3, 4, 0, 0, 0, 0, 0x05, 0x14];
        message.extend(&answer[..28]);
        let error = build::icmp(address("203.0.113.1"), vip, message);
        let before = world.receives(error.clone()).wrapped(IPIP).destination;
        let request = build::ip(client, vip, Protocol(protocol), 64, &[0; 40]);
        let home = world.receives(request).wrapped(IPIP).destination;
        let after = world.receives(error.clone()).wrapped(IPIP);
        assert_eq!((before, after.destination, after.inner.bytes), (home, home, with_ttl(error, 63)));
        backends.insert(home);
    }
    assert_eq!(backends.len(), 2);
    // Neither pings nor tunnels are a backend's, nor anything of a service that carries TCP alone.
    for (vip, protocol) in [("192.0.2.13", 1), ("192.0.2.13", 47), ("192.0.2.10", 132)] {
        let answer = build::ip(address(vip), address("198.51.100.7"), Protocol(protocol), 64, &[0; 40]);
        let outcome = world.complains(address("203.0.113.1"), address(vip), (3, 4, 1300), &answer);
        outcome.dropped(DropReason::IcmpQuote);
    }
    world.check_invariants();
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
    for nonsense in [0, 67, 1500, 9000] {
        error_about_outer(&mut world, &outer, (3, 4, nonsense), 28).verdict.to_string();
    }
    let fits = build::tcp(at(CLIENT), at("192.0.2.10:80"), &Tcp { payload: &[7; 1236], ..segment("ACK", 1, 1) });
    world.receives(fits).wrapped(GRE);
}

/// Every client can quote a packet of a flow that is known: his own. He shall not cut the others' to pieces.
#[test]
fn r103_a_client_cannot_make_a_backend_useless_with_a_forged_error() {
    let mut world = World::new(CONFIG);
    let outer = world.client(1).syn("web").wrapped(GRE).bytes;
    for forged in [68, 100, 575] {
        let outcome = error_about_outer(&mut world, &outer, (3, 4, forged), 200);
        assert_eq!((outcome.verdict, outcome.own.len()), (Verdict::Consume, 0), "{forged}");
    }
    let data = build::tcp(at(CLIENT), at("192.0.2.10:80"), &Tcp { payload: &[7; 1400], ..segment("ACK", 1, 1) });
    world.receives(data).wrapped(GRE);
}

#[test]
fn r103_a_flow_by_a_tunnel_that_is_configured_no_more_learns_its_path_mtu() {
    let mut world = World::new(CONFIG);
    let data = build::tcp(at(CLIENT), at("192.0.2.10:80"), &Tcp { payload: &[7; 1400], ..segment("ACK", 1, 1) });
    let outer = world.receives(data.clone()).wrapped(GRE).bytes;
    world.reload(&CONFIG.replace("10.0.0.1", "10.0.0.9"));
    error_about_outer(&mut world, &outer, (3, 4, 1300), 200).answered();
    assert_eq!(world.receives(data).answered().transport[6..8], 1276_u16.to_be_bytes());
    // A tunnel that neither the configuration nor a flow has is nobody's.
    let foreign = build::ip(address("10.99.0.10"), address("10.0.0.7"), Protocol::GRE, 64, &[0; 40]);
    error_about_outer(&mut world, &foreign, (3, 4, 1200), 200).dropped(DropReason::IcmpQuote);
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
    // Whoever looks after that backend can see it.
    let policy = world.shared.policy.load();
    let told = |of: &str| {
        let service = policy.snapshot.services.iter().find(|service| service.name == of).unwrap();
        let of_backend = |worker: &WorkerCounters, id: &BackendId| worker.backend(*id).unreachable.get();
        let counted = |id: &BackendId| world.shared.counters.workers().map(|worker| of_backend(worker, id)).sum();
        service.backends.iter().map(counted).collect::<Vec<u64>>()
    };
    assert_eq!((told("web").iter().max(), told("far").iter().max()), (Some(&7), Some(&4)));
    let last = |of: &str| {
        let service = policy.snapshot.services.iter().find(|service| service.name == of).unwrap();
        policy.path(service.backends[0]).unwrap().last_loss().map(|(head, _)| head)
    };
    assert_eq!((last("web"), last("far"), last("media")), (Some([12, 0]), Some([4, 1]), None));
    // About a tunnel that is not ours.
    let foreign = build::ip(address("10.99.0.10"), address("10.7.7.7"), Protocol::GRE, 64, &[0; 40]);
    error_about_outer(&mut world, &foreign, (3, 1, 0), 200).dropped(DropReason::IcmpQuote);
}
