//! `[service.limits]`.

use std::net::Ipv6Addr;
use std::time::Duration;

use tungate::engine::counters::Shortage;
use tungate::engine::{DropReason, Verdict};
use tungate::wire::{Address, Endpoint};

use super::world::{DNS, WEB, World, client, limited};

fn world(limits: &str, workers: u16) -> World {
    World::new(&limited(100_000, limits), workers)
}

/// The same address with another port.
fn port(client: Endpoint, n: u16) -> Endpoint {
    Endpoint::new(client.address, 20_000 + n)
}

#[test]
fn a_service_takes_a_seconds_worth_at_once_and_then_its_rate() {
    for workers in [1, 4] {
        let mut world = world("new-flows = '100/s'", workers);
        let admitted =
            |world: &mut World, from: u32| (from..from + 500).filter(|n| world.syn(client(*n), WEB).is_ok()).count();
        assert_eq!(admitted(&mut world, 0), 100);
        assert_eq!((world.drops(DropReason::ServiceRate), world.refused("web")), (400, 400));
        world.wait(Duration::from_millis(250));
        assert_eq!(admitted(&mut world, 1_000), 25);
        world.datagram(client(1), DNS).unwrap();
    }
}

#[test]
fn a_limit_touches_no_flow_that_is_known() {
    let mut world = world("new-flows = '1/s'\nnew-flows-per-client = '1/h'", 1);
    let flow = world.connect(client(1), WEB).unwrap();
    assert_eq!(world.syn(client(20), WEB).unwrap_err(), Verdict::Drop(DropReason::ServiceRate));
    assert_eq!(world.ack(&flow), Verdict::Forward);
    assert_eq!(world.syn(client(1), WEB).unwrap(), flow, "a SYN again is no new flow");
}

/// One client has many connections, and they spread over the workers.
#[test]
fn a_client_is_limited_by_its_address_over_all_workers() {
    for workers in [1, 4] {
        let mut world = world("new-flows-per-client = '50/s'", workers);
        let greedy = client(1);
        assert_eq!((0..500).filter(|n| world.syn(port(greedy, *n), WEB).is_ok()).count(), 50);
        assert_eq!((world.drops(DropReason::ClientRate), world.refused("web")), (450, 450));
        world.syn(client(10), WEB).unwrap();
        world.wait(Duration::from_millis(100));
        assert_eq!((500..999).filter(|n| world.syn(port(greedy, *n), WEB).is_ok()).count(), 5);
    }
}

#[test]
fn what_a_client_is_refused_takes_nothing_from_the_others() {
    let mut world = world("new-flows = '100/s'\nnew-flows-per-client = '10/s'", 1);
    let admitted = (0..10_000).filter(|n| world.syn(port(client(1), *n), WEB).is_ok()).count();
    assert_eq!(admitted, 10);
    let others = (1..200).filter(|n| world.syn(client(n * 10), WEB).is_ok()).count();
    assert_eq!(others, 90);
}

#[test]
fn an_ipv6_client_is_its_slash_64() {
    let text = "[gateway]\nsource-addresses = ['fd00:99::10']\n[[service]]\nname = 'web'\nlisten = '[2001:db8::10]:80'\n\
                backends = [{ address = '[fd00::1]:8080' }]\n[service.limits]\nnew-flows-per-client = '10/s'\n";
    let mut world = World::new(text, 1);
    let vip = Endpoint::new(address("2001:db8::10"), 80);
    let admitted = |world: &mut World, network: &str| {
        let hosts = (1..100).map(|n| Endpoint::new(address(&format!("{network}::{n}")), 40_000));
        hosts.filter(|host| world.syn(*host, vip).is_ok()).count()
    };
    assert_eq!(admitted(&mut world, "2001:db8:1:2"), 10);
    assert_eq!(admitted(&mut world, "2001:db8:1:3"), 10);
}

fn address(text: &str) -> Address {
    Address::v6(text.parse::<Ipv6Addr>().unwrap().octets())
}

#[test]
fn max_flows_is_exact_over_all_workers() {
    for workers in [1, 4] {
        let mut world = world("max-flows = 300", workers);
        let connected: Vec<_> = (0..1_000).filter_map(|n| world.connect(client(n), WEB).ok()).collect();
        assert_eq!((connected.len(), world.open_flows("web")), (300, 300));
        assert_eq!((world.drops(DropReason::ServiceFlows), world.refused("web")), (700, 700));
        world.datagram(client(1), DNS).unwrap();
        for flow in &connected[..10] {
            world.close(flow);
        }
        // Flows that are over make room on their own worker.
        let more = (2_000..2_400).filter(|n| world.connect(client(*n), WEB).is_ok()).count();
        assert_eq!((more, world.open_flows("web")), (10, 300));
        assert_eq!(world.evicted(Shortage::Service), 10);
    }
}

#[test]
fn a_flood_of_one_service_evicts_its_own_flows_only() {
    let mut world = world("max-flows = 100", 1);
    let asked: Vec<_> = (0..200).map(|n| world.datagram(client(n), DNS).unwrap()).collect();
    let connected: Vec<_> = (0..50).map(|n| world.connect(client(n), WEB).unwrap()).collect();
    for _ in 0..10_000 {
        let stranger = world.stranger();
        world.syn(stranger, WEB).unwrap();
    }
    assert_eq!((world.open_flows("web"), world.evicted(Shortage::Service)), (100, 9_950));
    assert!(connected.iter().all(|flow| world.ack(flow) == Verdict::Forward));
    assert!(asked.iter().all(|flow| world.udp_answer(flow) == Verdict::Forward));
}

#[test]
fn a_flood_of_one_service_that_is_aimed_at_one_worker_leaves_room_to_the_others() {
    let mut world = world("max-flows = 400", 4);
    let mut through = 0;
    for n in 0..200 {
        (0..10).for_each(|_| {
            let stranger = world.stranger_of(0);
            let _ = world.syn(stranger, WEB);
        });
        through += usize::from(world.connect(client(n), WEB).is_ok());
    }
    assert!(through > 150, "{through} of 200");
}

/// Two gateways that see the same packets decide the same.
#[test]
fn limits_are_the_same_in_a_replay() {
    let run = || {
        let mut world = world("new-flows = '2k/s'\nnew-flows-per-client = '20/s'\nmax-flows = 500", 1);
        let verdict = |n: u32, world: &mut World| {
            world.wait(Duration::from_micros(u64::from(n % 7) * 100));
            let stranger = if n.is_multiple_of(3) {
                port(client(n % 50), u16::try_from(n % 9_000).unwrap())
            } else {
                world.stranger()
            };
            let flow = world.syn(stranger, WEB);
            if let Ok(flow) = &flow
                && n.is_multiple_of(5)
            {
                let _ = (world.syn_ack(flow), world.ack(flow));
            }
            flow
        };
        (0..20_000).map(|n| verdict(n, &mut world)).collect::<Vec<_>>()
    };
    let first = run();
    assert_eq!(first, run());
    for reason in [DropReason::ServiceRate, DropReason::ClientRate, DropReason::ServiceFlows] {
        assert!(first.contains(&Err(Verdict::Drop(reason))), "{reason:?}");
    }
}
