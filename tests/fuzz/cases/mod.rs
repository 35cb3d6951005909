//! What the fuzz targets do with their input, one module a target: `run` takes any bytes and panics where an invariant
//! is broken. `cargo test --test fuzz_seeds` runs the same over the seeds.

#![allow(dead_code, unused_macros, unused_imports, reason = "each target runs one case")]

pub(crate) mod admin;
#[path = "../../wire/agree.rs"]
mod agree;
pub(crate) mod config;
pub(crate) mod engine;
#[path = "../../wire/exercise.rs"]
mod exercise;
pub(crate) mod ha;
#[path = "../../wire/oracle.rs"]
mod oracle;
pub(crate) mod parse;
pub(crate) mod pcap;
#[path = "../../support/mod.rs"]
mod support;
