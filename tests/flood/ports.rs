//! The source ports towards a backend are all lent.

use std::time::Duration;

use tungate::config::BackendId;
use tungate::engine::counters::Shortage;
use tungate::engine::{DropReason, Verdict};
use tungate::wire::Endpoint;

use super::world::{WEB, World, client};

/// 64,512 ports, and room for many more flows.
const ONE_BACKEND: &str = r#"
[gateway]
source-addresses = ["10.99.0.10"]
max-flows = 200_000
[[service]]
name = "web"
listen = "192.0.2.10:80"
backends = [{ address = "10.0.0.1:8080" }]
"#;

fn user_port(world: &mut World) -> Endpoint {
    std::iter::repeat_with(|| world.stranger()).find(|stranger| stranger.port >= 1024).unwrap()
}

#[test]
fn r31_a_flood_takes_ports_from_itself_and_clients_still_connect() {
    let mut world = World::new(ONE_BACKEND, 1);
    let established: Vec<_> = (0..300).map(|n| world.connect(client(n), WEB).unwrap()).collect();
    for n in 0..100_000 {
        world.wait(Duration::from_micros(10));
        let stranger = user_port(&mut world);
        world.syn(stranger, WEB).unwrap();
        if n % 1_000 == 0 {
            world.connect(client(1_000 + n), WEB).unwrap();
        }
    }
    assert_eq!(world.drops(DropReason::PortsExhausted), 0);
    assert_eq!(world.evicted(Shortage::Ports), 100_000 + 300 + 100 - 64_512);
    assert_eq!(world.leases(), 64_512);
    assert!(established.iter().all(|flow| world.ack(flow) == Verdict::Forward));
}

/// Connections that were closed hold their ports for the two minutes of TIME-WAIT: 537 a second would be the most.
#[test]
fn r31_ports_of_closed_connections_are_lent_again_when_there_are_no_others() {
    let mut world = World::new(ONE_BACKEND, 1);
    for n in 0..70_000 {
        world.wait(Duration::from_micros(100));
        let flow = world.connect(client(n), WEB).unwrap();
        world.close(&flow);
    }
    assert_eq!(world.evicted(Shortage::Ports), 70_000 - 64_512);
}

#[test]
fn r31_exhaustion_by_established_flows_is_a_refusal_that_is_counted() {
    let mut world = World::new(ONE_BACKEND, 1);
    let established: Vec<_> = (0..64_512).map(|n| world.connect(client(n), WEB).unwrap()).collect();
    // The first are told so, as many as may be told at once (R10).
    let refusal = |n| if n < 10 { Verdict::Reply } else { Verdict::Drop(DropReason::PortsExhausted) };
    for n in 0..100 {
        assert_eq!(world.syn(client(100_000 + n), WEB).unwrap_err(), refusal(n));
    }
    assert_eq!((world.drops(DropReason::PortsExhausted), world.refused("web")), (90, 100));
    assert_eq!(world.shared.counters.sum(|worker| &worker.backend(BackendId(0)).refused), 100);
    assert_eq!((world.shared.table.len(), world.leases()), (64_512, 64_512));
    assert!(established.iter().all(|flow| world.ack(flow) == Verdict::Forward));
    world.close(&established[0]);
    assert_eq!(world.connect(client(100_000), WEB).unwrap().source, established[0].source);
}

/// R30: what holds a port below 1024 cannot give one above.
#[test]
fn r31_ports_of_the_other_class_are_no_help() {
    let mut world = World::new(ONE_BACKEND, 1);
    let system = |n: u16| Endpoint::new(client(u32::from(n) * 10).address, 1 + n % 1_023);
    // Those from 768 on are kept for health checks by tunnels.
    let established: Vec<_> = (0..767).map(|n| world.connect(system(n), WEB).unwrap()).collect();
    world.syn(client(1), WEB).unwrap();
    assert_eq!(world.syn(system(2_000), WEB).unwrap_err(), Verdict::Reply);
    assert_eq!(world.evicted(Shortage::Ports), 0);
    assert!(established.iter().all(|flow| flow.source.port < 1024));
}
