//! Affinity: where a client's first flow went, its next ones go.

use std::collections::BTreeSet;

use tungate::engine::DropReason;
use tungate::wire::{Address, Endpoint, build};

use crate::support::{World, at};

/// One service by NAT at two addresses, one by tunnels; round-robin, which sends no two flows in a row the same way.
const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]

[[service]]
name = "web"
listen = ["192.0.2.10:80", "192.0.2.10:443", "[2001:db8::10]:80"]
balance = "round-robin"
affinity = "client-ip"
affinity-timeout = "10m"
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }, { address = "10.0.0.3" },
            { address = "fd00::1" }, { address = "fd00::2" }]

[[service]]
name = "media"
listen = "192.0.2.12:5000"
protocol = "udp"
mode = "dsr"
balance = "round-robin"
affinity = "client-ip"
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }, { address = "10.0.0.3" }]
"#;

fn client(n: u8, port: u16) -> Endpoint {
    Endpoint::new(Address::v4([198, 51, 100, n]), port)
}

impl World {
    /// The backend of a new connection from there.
    #[track_caller]
    fn connects(&mut self, from: Endpoint) -> Address {
        self.client_at(from).opens("web").backend.address
    }

    /// The backends of these clients' new connections.
    fn connect_all(&mut self, port: u16) -> Vec<Address> {
        (1..=9).map(|n| self.connects(client(n, port))).collect()
    }
}

fn without(config: &str, backend: &str) -> String {
    config.replacen(&format!("{{ address = \"{backend}\" }}"), "", 1).replacen(", ,", ",", 1).replacen("[, ", "[", 1)
}

#[test]
fn all_connections_of_a_client_to_all_addresses_of_a_service_meet_one_backend() {
    for workers in [1, 3] {
        let mut world = World::with_workers(CONFIG, workers);
        let first = world.connect_all(40_000);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "clients are spread");
        assert_eq!(world.connect_all(40_001), first);
        for (n, backend) in (1..).zip(&first) {
            let syn = build::tcp(client(n, 40_002), at("192.0.2.10:443"), &crate::support::segment("SYN", 1, 0));
            assert_eq!(world.receives(syn).forwarded().destination, Endpoint::new(*backend, 443));
        }
        let v6 = ["[2001:db8:1::1]:40000", "[2001:db8:1::1]:40001"].map(|from| world.connects(at(from)));
        assert!(!v6[0].is_v4() && v6[0] == v6[1]);
        world.check_invariants();
    }
}

#[test]
fn a_client_is_remembered_while_it_has_a_connection_and_for_a_while_after() {
    let mut world = World::new(CONFIG);
    let mut connection = world.client(1).opens("web");
    let backend = connection.backend.address;
    for port in 0..3 {
        world.wait(7_000);
        world.client_sends(&mut connection, 1);
        assert_eq!(world.connects(client(1, 41_000 + port)), backend);
    }
    world.wait(7_441);
    assert_eq!(world.shared.table.len(), 0);
    assert_eq!(world.shared.affinity_clients(world.service("web"), world.now), 1);
    world.wait(599);
    assert_eq!(world.connects(client(1, 42_000)), backend);
    world.wait(7_441);
    world.wait(601);
    assert_eq!(world.shared.affinity_clients(world.service("web"), world.now), 0);
}

#[test]
fn a_tunnelled_client_meets_one_backend_too() {
    let mut world = World::new(CONFIG);
    let mut asks = |n, port| {
        let sent = world.client_at(client(n, port)).asks("media", b"more");
        sent.sent.unwrap()[16..20].to_vec()
    };
    let first: Vec<_> = (1..=6).map(|n| asks(n, 40_000)).collect();
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!((1..=6).map(|n| asks(n, 40_001)).collect::<Vec<_>>(), first);
}

#[test]
fn other_backends_may_come_and_go_and_nobody_moves() {
    let mut world = World::new(CONFIG);
    let first = world.connect_all(40_000);
    world.reload(&CONFIG.replacen(
        "{ address = \"10.0.0.1\" }",
        "{ address = \"10.0.0.9\" }, { address = \"10.0.0.1\" }",
        1,
    ));
    assert_eq!(world.connect_all(40_001), first);

    world.reload(&without(CONFIG, "10.0.0.2"));
    let moved = world.connect_all(40_002);
    for (before, after) in first.iter().zip(&moved) {
        let gone = before.to_string() == "10.0.0.2";
        assert!(if gone { after.to_string() != "10.0.0.2" } else { before == after }, "{before} to {after}");
    }
    world.reload(CONFIG);
    assert_eq!(world.connect_all(40_003), moved, "who had to move does not move back");
}

#[test]
fn a_backend_of_weight_0_loses_its_clients_to_the_others() {
    let mut world = World::new(CONFIG);
    let first = world.connect_all(40_000);
    world.reload(&CONFIG.replacen("{ address = \"10.0.0.1\" }", "{ address = \"10.0.0.1\", weight = 0 }", 1));
    for (before, after) in first.iter().zip(world.connect_all(40_001)) {
        assert!(after.to_string() != "10.0.0.1" && (before.to_string() == "10.0.0.1" || *before == after));
    }
}

#[test]
fn a_flow_that_was_refused_is_not_counted_for_its_client() {
    let limited = CONFIG.replacen(
        "[[service]]\nname = \"media\"",
        "[service.limits]\nmax-flows = 1\n[[service]]\nname = \"media\"",
        1,
    );
    let mut world = World::new(&limited);
    let backend = world.connects(client(1, 40_000));
    for port in 41_000..41_010 {
        world.client_at(client(1, port)).syn("web").dropped(DropReason::ServiceFlows);
    }
    world.wait(7_441);
    assert_eq!(world.connects(client(1, 42_000)), backend, "it had no flow for less than its time");
    world.wait(7_441);
    world.wait(601);
    assert_eq!(world.shared.affinity_clients(world.service("web"), world.now), 0);
}
