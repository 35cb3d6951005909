//! A gateway with its clients and backends around it, and a clock that the test moves: tests read as what happens.
//!
//! ```text
//! let mut world = World::new(CONFIG);
//! let mut connection = world.client(1).opens("web");
//! world.client_sends(&mut connection, 1_000).forwarded();
//! world.backend_sends(&mut connection, 5_000).forwarded();
//! world.wait(7_441);
//! assert_all_counters!(world, "received" => 5, "forwarded" => 5, "opened" => 1, "closed" => 1);
//! ```

mod gateway;
mod hosts;
mod sight;

pub(crate) use gateway::World;
pub(crate) use hosts::{Client, Connection, flags, segment};
pub(crate) use sight::{Outcome, Sight, altered, with_ttl};

use std::net::SocketAddr;

use tungate::wire::{Address, Endpoint};

/// An endpoint as one writes it.
pub(crate) fn at(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

/// An address as one writes it.
pub(crate) fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

/// All counters that are not zero are these, with these values.
macro_rules! assert_all_counters {
    ($world:expr, $($name:literal => $count:expr),* $(,)?) => {
        assert_eq!($world.counters(), std::collections::BTreeMap::from([$(($name.to_string(), $count)),*]))
    };
}
