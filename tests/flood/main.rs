//! Floods and limits: who gets room when there is too little of it, and at whose cost.
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

mod affinity;
#[path = "../common/allocator.rs"]
mod allocator;
mod limits;
mod memory;
mod ports;
mod property;
mod table;
mod world;
