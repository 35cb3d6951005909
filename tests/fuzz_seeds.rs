//! The seeds of the fuzz targets, through the same functions: what once broke something, and one of each kind.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says at which seed")]

#[path = "fuzz/cases/mod.rs"]
mod cases;

use std::fs;
use std::path::Path;

/// Runs every seed of a target.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&fs::read(path).unwrap());
        seeds += 1;
    }
    assert!(seeds > 10, "only {seeds} seeds of {target}");
}

#[test]
fn admin() {
    replay("admin", cases::admin::run);
}

#[test]
fn config() {
    replay("config", cases::config::run);
}

#[test]
fn engine() {
    replay("engine", cases::engine::run);
}

#[test]
fn ha() {
    replay("ha", cases::ha::run);
}

#[test]
fn parse() {
    replay("parse", cases::parse::run);
}

#[test]
fn pcap() {
    replay("pcap", cases::pcap::run);
}
