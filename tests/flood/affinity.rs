//! Affinity in a flood: who is remembered when there is no room for all.

use std::time::Duration;

use tungate::config::ServiceId;
use tungate::wire::{Address, Endpoint};

use super::world::{WEB, World, client, config};

/// Forged first packets: none of those who have shown that they get what is sent to them is forgotten for more than one
/// of them, and there are never more than may be.
#[test]
fn a_million_forged_clients_move_nobody() {
    let text = config(10_000).replacen(
        "name = \"web\"",
        "name = \"web\"\nbalance = \"round-robin\"\naffinity = \"client-ip\"\naffinity-max-clients = 500",
        1,
    );
    let mut world = World::new(&text, 2);
    let service = ServiceId(0);
    // Each from an address of its own.
    let from = |n: u16, port| Endpoint::new(Address::v4([11, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]), port);
    let first: Vec<_> = (0..300).map(|n| world.connect(from(n, 40_000), WEB).unwrap().backend).collect();
    for n in 0..1_000_000 {
        world.wait(Duration::from_micros(10));
        let stranger = world.stranger();
        let _ = world.syn(stranger, WEB);
        if n % 100_000 == 0 {
            assert!(world.shared.affinity_clients(service, world.now) <= 500);
        }
    }
    let again: Vec<_> = (0..300).map(|n| world.connect(from(n, 40_001), WEB).unwrap().backend).collect();
    assert_eq!(again, first);
    // Nor is a newcomer sent to and fro.
    let newcomer = client(7).address;
    let backend = world.connect(Endpoint::new(newcomer, 50_000), WEB).unwrap().backend;
    for port in 50_001..50_020 {
        for _ in 0..1_000 {
            let stranger = world.stranger();
            let _ = world.syn(stranger, WEB);
        }
        assert_eq!(world.connect(Endpoint::new(newcomer, port), WEB).unwrap().backend, backend);
    }
}
