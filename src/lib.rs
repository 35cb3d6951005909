//! tungate: a layer-4 load balancer that lives in user space on a TUN device.
//!
//! The crate is a house with floors; a packet walks through [`wire`], [`config`]'s snapshot and [`engine`], and never
//! climbs. Imports go down only (`tests/layering.rs`).
//!
//! ```text
//! cli      what people type                                              -> admin, io
//! io       every file descriptor, thread, signal, clock; all unsafe code -> all below
//! admin    one Request and Response for the socket and the CLI           -> engine
//! engine   the data plane, sans-IO: conntrack, NAT, schedulers           -> config, wire
//! config   text -> Snapshot, all errors at once                          -> wire (addresses)
//! wire     bytes: headers, checksums, the offload header                 -> nothing
//! ```
//!
//! `wire`, `config`, `engine` and `admin` touch no clock, thread, socket or file: time is handed in
//! ([`engine::Instant`]), next to a `poll_timeout` that says when to call again. So one engine runs under the TUN
//! ([`io::worker`]), on a capture (`replay`), in memory (`bench`), and in tests with virtual time.
//!
//! # Invariants
//! Each has a property or model test.
//! - A packet leaves at most once; every packet that does not leave counts under exactly one [`engine::DropReason`], and
//!   received = forwarded + replied + consumed + handed over + dropped.
//! - A flow is in the table under both its keys or under neither.
//! - A port lease lives exactly as long as its flow.
//! - Same snapshot, seed and packets: same verdicts, byte for byte.
//! - The established path allocates nothing and takes no lock; [`engine::Engine::handle`] never blocks.

pub mod admin;
pub mod cli;
pub mod config;
pub mod engine;
pub mod io;
pub mod manual;
pub mod wire;
