//! The workers over ports that need no kernel: memory, and captures; with faults, too.

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

mod capture;
#[expect(clippy::print_stdout, reason = "it says what it skips")]
#[path = "../common/mod.rs"]
mod common;
mod faults;
#[path = "../common/faulty.rs"]
mod faulty;
mod gather;
#[allow(dead_code, reason = "the tests of the wire floor use more of it")]
#[path = "../wire/oracle.rs"]
mod oracle;
#[path = "../wire/sound.rs"]
mod sound;
mod train;
mod workers;
mod world;
