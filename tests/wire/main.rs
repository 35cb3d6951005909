//! The wire floor against oracles that share no code with it: a naive checksum, etherparse, and 43,094 packets that
//! nobody of this project wrote. Tests that show a sentence of requirements.md carry its number.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod agree;
#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod door;
mod errors;
mod exercise;
mod generate;
mod oracle;
mod panics;
mod parse;
mod segments;
mod sound;
mod translate;
mod tunnel;
