//! The engine by itself: packets in, packets out, state in between. Tests are named after the requirements they show.
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod affinity;
mod cut;
mod draining;
mod forwarding;
mod fragments;
mod icmp;
mod identity;
mod mapping;
mod pair;
mod pings;
mod refused;
mod tcp;
mod tunnel;
mod workers;

/// Services in both families and both kinds of NAT.
const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
max-flows = 1000

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.1:8080" }, { address = "10.0.0.2:8080" },
            { address = "[fd00::1]:8080" }, { address = "[fd00::2]:8080" }]

[[service]]
name = "dns"
listen = ["192.0.2.10:53", "[2001:db8::10]:53"]
protocol = "udp"
backends = [{ address = "10.0.0.1:53" }, { address = "10.0.0.2:53" }, { address = "[fd00::1]:53" }]

[[service]]
name = "plain"
listen = "192.0.2.20:80"
source-nat = false
backends = [{ address = "10.0.0.1:8080" }]

[[service]]
name = "same-port"
listen = ["192.0.2.30:8080"]
backends = [{ address = "10.0.0.1:8080" }]
"#;
