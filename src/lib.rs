//! tungate: a layer-4 load balancer that lives in user space on a TUN device.
//!
//! The kernel routes packets for a service's address (a *VIP*) into the TUN; tungate picks a *backend* for each new
//! *flow*, rewrites addresses and ports, and hands the packets back to the kernel, which routes them on. It never ends
//! a connection itself: what client and backend say to each other passes byte for byte.
//!
//! Who runs it reads the [`manual`]. Who changes it reads on.
//!
//! # A small house
//!
//! Imports go down only; `tests/layering.rs` reads the `use crate::` lines and fails on an upward one. A packet walks
//! through [`wire`], [`config`]'s snapshot and [`engine`], and never climbs.
//!
//! ```text
//! cli      what people type                                           -> admin, io
//! io       every file descriptor, thread, signal, clock, unsafe       -> all below
//! admin    one Request and Response for the admin socket and the CLI  -> control
//! control  slow state: what each backend is for new flows, and why    -> engine
//! engine   the data plane, sans-IO: conntrack, NAT, schedulers        -> config, wire
//! config   text -> Snapshot                                           -> wire (addresses only)
//! wire     bytes: headers, checksums, the offload header              -> nothing
//! ```
//!
//! The four floors at the bottom touch no clock, thread, socket, file or output: `clippy.toml` says so. Time is our own
//! [`engine::Instant`], handed in with every call. So the same engine runs under the TUN ([`io::worker`]), on a capture
//! (`tungate replay`), on one packet (`tungate explain`) and in memory (`tungate bench engine`, the tests).
//!
//! # The life of a packet
//!
//! ```text
//! established  port.receive -> Packet::parse -> guard -> table.look -> tracker.slide -> packet.translate -> port.send
//! first        ... miss -> listeners.service -> scheduler.pick -> ports.lease -> table.commit -> packet.translate
//! DSR          ... a flow with a path: one_way.step -> tunnel::enter -> tunnel::emit -> port.send_pieces
//! ICMP error   ... icmp::quote -> table.find(quote inverted) -> outer packet and quote rewritten
//! fragment     ... held until the first of its datagram has found its flow, then as that one
//! ```
//!
//! What is decided once for a flow is decided on the slow path and kept as plain data ([`engine::nat::Rewrite`], with
//! precomputed checksum deltas); the fast path only applies it.
//!
//! # Core types
//!
//! | type | what it is |
//! |---|---|
//! | [`wire::Packet`] | parsed once at the door; from then on reads cannot fail, and setters keep every checksum right |
//! | [`config::Snapshot`] | a whole configuration, immutable, made only by [`config::load`] when every rule holds |
//! | [`engine::conntrack::FlowKey`] | protocol, source and destination; [`invert`](engine::conntrack::FlowKey::invert) gives the answer's |
//! | [`engine::conntrack::Flow`] | both keys, service and backend, a rewrite for each direction, the TCP tracker, when it was last seen |
//! | [`engine::Verdict`] | what becomes of a packet: every packet gets exactly one |
//! | [`engine::DropReason`] | the one list that feeds counters, JSON, traces and the [manual](manual::drops) |
//! | [`engine::Engine`] | one worker's engine: a packet and the time in, a verdict out |
//! | [`control::Controller`] | what configuration, operator and health checks say; makes the policy that new flows are decided by |
//! | [`engine::Shared`] | what the workers share: the table of all flows, counters, the configuration in force |
//!
//! The truth about flows is one table, locked in small parts, which every worker and every listing sees. One worker owns
//! a flow and handles all of its packets; what he has put into the table himself he finds there without a lock. A packet
//! that arrives elsewhere is handed over ([`engine::steering`]).
//!
//! # Invariants
//!
//! - A packet leaves at most once.
//! - A flow is in the table under both keys or under neither.
//! - A port lease lives exactly as long as its flow.
//! - The same snapshot, seed and packets give the same verdicts, byte for byte.
//! - The established path allocates nothing and takes no lock; [`Engine::handle`](engine::Engine::handle) never blocks.
//! - Every dropped packet counts under exactly one reason, and
//!   received = forwarded + replied + consumed + handed over + dropped.
//! - Nothing that a packet contains makes us panic, loop or grow without bound, or write more into the log.

pub mod admin;
pub mod cli;
pub mod config;
pub mod control;
pub mod engine;
pub mod io;
pub mod manual;
pub mod wire;
