//! The flow table is full: established flows stay, floods displace themselves.

use std::collections::VecDeque;
use std::time::Duration;

use tungate::engine::conntrack::State;
use tungate::engine::counters::Shortage;
use tungate::engine::{DropReason, Verdict};
use tungate::wire::{Address, Endpoint, TcpFlags, build};

use super::world::{DNS, Flow, WEB, World, client, config, segment};

/// 300 connections that go on while a flood of 100,000 first packets comes in.
fn established_flows_survive(each: impl Fn(&mut World, Endpoint)) {
    let mut world = World::new(&config(1_000), 1);
    let established: Vec<_> = (0..300).map(|n| world.connect(client(n), WEB).unwrap()).collect();
    for n in 0..100_000 {
        world.wait(Duration::from_micros(10));
        let stranger = world.stranger();
        each(&mut world, stranger);
        if n % 500 == 0 {
            let flow = &established[n / 500];
            assert_eq!(world.ack(flow), Verdict::Forward);
        }
        assert!(world.shared.table.len() <= 1_000);
    }
    assert_eq!(world.drops(DropReason::FlowTableFull), 0);
    assert!(world.evicted(Shortage::Table) > 90_000);
    for flow in &established {
        assert_eq!(world.ack(flow), Verdict::Forward);
    }
}

#[test]
fn r39_a_flood_of_syns_costs_no_established_flow() {
    established_flows_survive(|world, stranger| {
        world.syn(stranger, WEB).unwrap();
    });
}

#[test]
fn r39_a_flood_of_syns_that_are_answered_costs_no_established_flow() {
    established_flows_survive(|world, stranger| {
        let flow = world.syn(stranger, WEB).unwrap();
        assert_eq!(world.syn_ack(&flow), Verdict::Forward);
    });
}

#[test]
fn r39_a_flood_of_datagrams_costs_no_established_flow() {
    established_flows_survive(|world, stranger| {
        world.datagram(stranger, DNS).unwrap();
    });
}

#[test]
fn r39_a_flood_of_datagrams_that_are_answered_costs_no_established_flow() {
    established_flows_survive(|world, stranger| {
        let flow = world.datagram(stranger, DNS).unwrap();
        assert_eq!(world.udp_answer(&flow), Verdict::Forward);
    });
}

/// Clients connect over a way of 200 ms while a flood comes: how many get through, of how many.
fn handshakes(world: &mut World, rate: u32, flood: impl Fn(&mut World, Endpoint)) -> (usize, usize) {
    let trip = usize::try_from(rate / 5).unwrap();
    let mut under_way: VecDeque<Option<Flow>> = VecDeque::new();
    let (mut through, mut begun) = (0, 0);
    for n in 0..3 * rate {
        world.wait(Duration::from_secs(1) / rate);
        let stranger = world.stranger();
        flood(world, stranger);
        // The backend is near: it answers at once, and the client is who lets the gateway wait.
        let opened = (n % 100 == 0).then(|| world.syn(client(n), WEB).unwrap());
        begun += usize::from(opened.is_some());
        if let Some(flow) = &opened {
            assert_eq!(world.syn_ack(flow), Verdict::Forward);
        }
        under_way.push_back(opened);
        if under_way.len() > trip
            && let Some(flow) = under_way.pop_front().unwrap()
        {
            through += usize::from(world.ack(&flow) == Verdict::Forward);
        }
    }
    let waiting = under_way.iter().flatten().count();
    (through, begun - waiting)
}

/// A flow that is half-open goes when as many others have come as there is room for: 700 at 2,000 a second last 350 ms.
#[test]
fn r39_clients_connect_during_a_flood_while_there_is_room_for_a_round_trip_of_it() {
    let mut world = World::new(&config(1_000), 1);
    let established: Vec<_> = (0..300).map(|n| world.connect(client(1_000_000 + n), WEB).unwrap()).collect();
    let (through, begun) = handshakes(&mut world, 2_000, |world, stranger| {
        world.syn(stranger, WEB).unwrap();
    });
    assert_eq!((through, begun), (56, 56));
    assert!(established.iter().all(|flow| world.ack(flow) == Verdict::Forward));
}

/// Datagrams may wait for an answer twice as long as SYNs: that shall not make them worth more.
#[test]
fn r39_clients_connect_during_a_flood_of_datagrams() {
    for answered in [false, true] {
        let mut world = World::new(&config(1_000), 1);
        let flood = |world: &mut World, stranger| {
            let flow = world.datagram(stranger, DNS).unwrap();
            if answered {
                assert_eq!(world.udp_answer(&flow), Verdict::Forward);
            }
        };
        let (through, begun) = handshakes(&mut world, 2_000, flood);
        assert_eq!(through, begun, "answered: {answered}");
    }
}

/// A busy service without a flood: most of the table are connections that are over.
#[test]
fn flows_that_are_over_make_room_before_clients_in_mid_handshake() {
    let mut world = World::new(&config(100), 1);
    let waiting: Vec<_> = (0..40).map(|n| world.syn(client(n), WEB).unwrap()).collect();
    for n in 100..1_000 {
        let flow = world.connect(client(n), WEB).unwrap();
        world.close(&flow);
    }
    assert_eq!(world.count(State::TimeWait), 60);
    for flow in waiting {
        assert_eq!(world.syn_ack(&flow), Verdict::Forward);
        assert_eq!(world.ack(&flow), Verdict::Forward);
    }
}

#[test]
fn a_datagram_stream_that_is_never_answered_survives_a_flood() {
    let mut world = World::new(&config(100), 1);
    let stream = world.datagram(client(1), DNS).unwrap();
    for n in 0..10_000 {
        world.wait(Duration::from_millis(1));
        let stranger = world.stranger();
        world.datagram(stranger, DNS).unwrap();
        if n % 50 == 0 {
            assert_eq!(world.datagram(client(1), DNS).unwrap(), stream);
        }
    }
    assert_eq!(world.opened("dns"), 10_001);
}

/// A forger sees no SYN-ACK. Were any number in the window good enough, one in 65,000 of his ACKs would make a flow that is
/// kept for two hours.
#[test]
fn r39_an_ack_that_is_guessed_makes_no_flow_established() {
    let mut world = World::new(&config(1_000), 1);
    let flow = world.syn(client(1), WEB).unwrap();
    assert_eq!(world.syn_ack(&flow), Verdict::Forward);
    for distance in [1, 2, 100, 1_460, 65_535, 66_000, 66_001, 1 << 30, 1 << 31, u32::MAX - 65_535, u32::MAX] {
        let _ = world.acknowledge(&flow, 0_u32.wrapping_sub(distance));
        assert_eq!(world.count(State::SynReceived), 1, "{distance}");
    }
    assert_eq!(world.ack(&flow), Verdict::Forward);
    assert_eq!(world.count(State::Established), 1);
}

#[test]
fn r39_a_table_of_established_flows_refuses_new_ones_and_counts_them() {
    let mut world = World::new(&config(100), 1);
    let established: Vec<_> = (0..100).map(|n| world.connect(client(n), WEB).unwrap()).collect();
    for n in 100..200 {
        assert_eq!(world.syn(client(n), WEB).unwrap_err(), Verdict::Drop(DropReason::FlowTableFull));
    }
    assert_eq!(world.drops(DropReason::FlowTableFull), 100);
    assert_eq!(world.refused("web"), 100);
    for flow in &established {
        assert_eq!(world.ack(flow), Verdict::Forward);
    }
    // ICMP goes on: about what a client was sent, and to the gateway itself.
    let router = Address::v4([203, 0, 113, 9]);
    let quote = build::tcp(WEB, established[0].client, &segment(TcpFlags::ACK, 1, 1));
    let error = build::icmp(router, WEB.address, [&[3, 1, 0, 0, 0, 0, 0, 0], &quote[..]].concat());
    assert_eq!(world.send(error).0, Verdict::Forward);
    assert_eq!(world.send(build::icmp(router, WEB.address, vec![8, 0, 0, 0, 0, 1, 0, 1])).0, Verdict::Reply);
    world.close(&established[0]);
    world.connect(client(200), WEB).unwrap();
}

#[test]
fn r39_a_flood_aimed_at_one_worker_leaves_room_to_the_others() {
    let mut world = World::new(&config(1_000), 4);
    let aimed = |world: &mut World| {
        let stranger = world.stranger_of(0);
        let _ = world.syn(stranger, WEB);
    };
    (0..2_000).for_each(|_| aimed(&mut world));
    let mut through = 0;
    for n in 0..400 {
        (0..5).for_each(|_| aimed(&mut world));
        through += usize::from(world.connect(client(n), WEB).is_ok());
    }
    // Each has a quarter of the table; who is refused tries again after a second.
    assert!(through > 300, "{through} of 400");
}

/// What never makes an entry, however full or empty the table is.
#[test]
fn r38_r54_port_0_and_impossible_flags_open_no_flow() {
    let mut world = World::new(&config(1_000), 1);
    for flags in [0x00, 0x01, 0x03, 0x06, 0x07, 0x29, 0x3f] {
        let flags = segment(TcpFlags(flags), 1, 0);
        let (verdict, _) = world.send(build::tcp(client(1), WEB, &flags));
        assert_eq!(verdict, Verdict::Drop(DropReason::BadTcpFlags));
    }
    let nowhere = Endpoint::new(client(1).address, 0);
    assert_eq!(world.syn(nowhere, WEB).unwrap_err(), Verdict::Drop(DropReason::PortZero));
    assert_eq!(world.datagram(nowhere, DNS).unwrap_err(), Verdict::Drop(DropReason::PortZero));
    assert_eq!(world.syn(client(1), Endpoint::new(WEB.address, 0)).unwrap_err(), Verdict::Drop(DropReason::PortZero));
    assert!(world.shared.table.is_empty());
}
