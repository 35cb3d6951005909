//! The io floor against the real kernel: namespaces, links, routes, TUNs and neighbours. Everything happens in network
//! namespaces of our own, which vanish with the test.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod common;

#[path = "io_net/announce.rs"]
mod announce;
#[path = "io_net/diagnosis.rs"]
mod diagnosis;
#[path = "io_net/faults.rs"]
mod faults;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "io_net/mirror.rs"]
mod mirror;
#[path = "io_net/netlink.rs"]
mod netlink;
#[path = "io_net/tun.rs"]
mod tun;
#[path = "io_net/world.rs"]
mod world;
