//! What a flood costs in memory.

use std::time::Duration;

use tungate::wire::{Address, Endpoint};

use super::allocator::usage;
use super::world::World;

/// Every port is listened on, and kept: there are ports to lend towards each port of each backend.
const ALL_PORTS: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "10.99.0.11"]
max-flows = 5_000
[[service]]
name = "all"
listen = "192.0.2.10:*"
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }]
[service.limits]
new-flows-per-client = "10/s"
"#;

fn flood(world: &mut World, packets: u32) {
    for _ in 0..packets {
        world.wait(Duration::from_micros(10));
        let (stranger, other) = (world.stranger(), world.stranger());
        let vip = Endpoint::new(Address::v4([192, 0, 2, 10]), other.port);
        let flow = world.syn(stranger, vip).unwrap();
        let _ = world.syn_ack(&flow);
    }
}

#[test]
fn r39_r108_a_full_table_is_all_the_memory_that_a_flood_can_take() {
    let mut world = World::new(ALL_PORTS, 1);
    let empty = usage().bytes;
    // Hash tables grow to what they need at most: that takes a while to come.
    flood(&mut world, 80_000);
    let full = usage().bytes - empty;
    flood(&mut world, 80_000);
    let later = usage().bytes - empty;
    assert!(full / 5_000 < 1_500, "{full} bytes for 5,000 flows");
    assert!(later <= full + full / 50, "{full} bytes grew to {later}");
}
