//! Everything that anybody has captured, sent to a service in random order, around connections that are in use.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]
#![allow(dead_code, unused_macros, unused_imports, reason = "other tests use more of the world")]

#[path = "common/allocator.rs"]
mod allocator;
mod common;
#[path = "common/corpus.rs"]
mod corpus;
#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use corpus::{Chance, is_v4, readdress};
use support::{Connection, World, at};
use tungate::wire::Endpoint;

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
max-flows = 2_000

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.1:8080" }, { address = "10.0.0.2:8080" }, { address = "[fd00::1]:8080" }]

[[service]]
name = "all"
listen = ["192.0.2.10:*", "[2001:db8::10]:*"]
protocol = "udp"
backends = [{ address = "10.0.0.1" }, { address = "[fd00::1]" }]
"#;

/// Who sends a packet to whom: strangers to the services, backends to the gateway.
fn ends(v4: bool, chance: &mut Chance) -> (Endpoint, Endpoint) {
    let [a, b, c, d, ..] = chance.next().to_be_bytes();
    let port = 1_024 + u16::from_be_bytes([a, b]) % 60_000;
    let stranger = match (v4, chance.below(8)) {
        (true, 0) => format!("{a}.{b}.{c}.{d}:{port}"),
        (true, _) => format!("203.0.{c}.{d}:{port}"),
        (false, 0) => format!("[{a:02x}{b:02x}::{c:x}]:{port}"),
        (false, _) => format!("[2001:db8:9::{c:x}:{d:x}]:{port}"),
    };
    let (vip, source, backend) =
        if v4 { ("192.0.2.10", "10.99.0.10", "10.0.0.1") } else { ("[2001:db8::10]", "[fd00:99::10]", "[fd00::1]") };
    match chance.below(4) {
        0 => (at(&format!("{backend}:8080")), at(&format!("{source}:{port}"))),
        1 => (at(&stranger), at(&format!("{vip}:{port}"))),
        _ => (at(&stranger), at(&format!("{vip}:80"))),
    }
}

/// Sends all packets once, in random order, two of three to our addresses; every hundredth time a connection in use says
/// something, and hears something.
fn storm(world: &mut World, packets: &[Vec<u8>], live: &mut [Connection], chance: &mut Chance) {
    let mut order: Vec<usize> = (0..packets.len()).collect();
    chance.shuffle(&mut order);
    for (n, packet) in order.into_iter().enumerate() {
        let mut bytes = packets[packet].clone();
        if chance.below(3) > 0 {
            readdress(&mut bytes, ends(is_v4(&packets[packet]), chance));
        }
        world.queue = chance.below(world.engines.len());
        let _whatever = world.receives(bytes);
        world.wait_for(Duration::from_micros(500));
        if n % 100 == 0 {
            let connection = chance.below(live.len());
            world.client_sends(&mut live[connection], 100);
            world.backend_sends(&mut live[connection], 1_000);
        }
    }
}

#[test]
fn r108_all_that_was_ever_captured_disturbs_no_connection_and_leaves_nothing_behind() {
    let Some(packets) = corpus::packets() else {
        let command = "copy the public captures that its README names there";
        return common::skip("r108_all_that_was_ever_captured", "no ../shared/pcaps", command);
    };
    assert_eq!(packets.len(), 43_094);
    for workers in [1, 2] {
        let mut world = World::with_workers(CONFIG, workers);
        // Counters for all ids that there can be are in untouched memory from the start.
        let without = allocator::usage().bytes;
        let mut chance = Chance(u64::from(workers));
        let mut live: Vec<Connection> = (1..=10).map(|n| world.client(n).opens("web")).collect();
        live.extend((1..=10).map(|n| world.client(n).v6().opens("web")));
        let before = live.clone();

        let mut kept = Vec::new();
        for _ in 0..6 {
            storm(&mut world, &packets, &mut live, &mut chance);
            world.check_invariants();
            world.wait(7_000);
            live.iter_mut().for_each(|connection| world.client_sends(connection, 10));
            kept.push(allocator::usage().bytes - without);
        }
        // Hash tables still grow to what they need at most, at random; but a tenth is 7 bytes for each packet of a storm.
        // 2,000 flows need no more than 1.5 KiB each.
        assert!(kept[5] <= kept[4] + kept[4] / 10, "bytes in use after each storm: {kept:?}");
        assert!(kept[5] < 2_000 * 1_536 + (1 << 20), "bytes in use after each storm: {kept:?}");
        assert!(live.iter().zip(&before).all(|(a, b)| (a.source, a.backend) == (b.source, b.backend)));
        println!("{workers} workers: {:?}, bytes in use {kept:?}", world.counters());
    }
}
