//! The kernel as oracle: its NAT and tungate's engine get the same packets, and what leaves has to be the same, byte for
//! byte. Where it is not, it must be one of the decisions in `decisions.rs`.
//!
//! The kernel stands in a network namespace of its own between two TUNs, one for the clients' side and one for the
//! backends'; a packet that is written into one of them has left by the other, or been dropped, when the write returns.
//! Nothing is waited for, and nothing depends on the time.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod captured;
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../common/corpus.rs"]
mod corpus;
mod decisions;
mod difference;
mod history;
mod kernel;
mod manual;
mod packets;
mod pair;
mod random;
mod scenes;
mod show;
#[allow(dead_code, reason = "the tests of the wire floor use more of it")]
#[path = "../wire/oracle.rs"]
mod sums;
#[allow(dead_code, unused_macros, unused_imports, reason = "other tests use more of the world")]
#[path = "../support/mod.rs"]
mod support;
mod talk;

/// The services of `kernel.rs` once more.
const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
max-flows = 200_000

[timeouts]
tcp-syn-sent = "100000s"
tcp-syn-received = "100000s"
tcp-established = "100000s"
tcp-closing = "100000s"
tcp-time-wait = "100000s"
tcp-close = "100000s"
udp = "100000s"
udp-unreplied = "100000s"

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
source-nat = SOURCE_NAT
backends = [{ address = "10.0.0.1:8080" }, { address = "[fd00::1]:8080" }]

[[service]]
name = "dns"
listen = ["192.0.2.10:53", "[2001:db8::10]:53"]
protocol = "udp"
source-nat = SOURCE_NAT
backends = [{ address = "10.0.0.1:5353" }, { address = "[fd00::1]:5353" }]

[[service]]
name = "every-tcp"
listen = ["192.0.2.20:*", "[2001:db8::20]:*"]
source-nat = SOURCE_NAT
backends = [{ address = "10.0.0.2" }, { address = "fd00::2" }]

[[service]]
name = "every-udp"
listen = ["192.0.2.20:*", "[2001:db8::20]:*"]
protocol = "udp"
source-nat = SOURCE_NAT
backends = [{ address = "10.0.0.2" }, { address = "fd00::2" }]
"#;
