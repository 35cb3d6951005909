//! The workers over ports that need no kernel: memory, and captures.

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

mod capture;
#[allow(dead_code, reason = "the tests of the wire floor use more of it")]
#[path = "../wire/oracle.rs"]
mod oracle;
mod workers;
mod world;
