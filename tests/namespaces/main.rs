//! Real programs through the real binary: clients, a gateway and backends in network namespaces of this machine.
//!
//! Every case builds a lab of its own (`netns-scripts/lab.sh`), starts backends in it, puts a gateway in front of them and
//! looks at what the clients see. The gateway is `tungate`, or as the control the kernel's own NAT by nft: a case that
//! fails with the kernel is a broken case.
//!
//! ```text
//! cargo test --release --test namespaces                    all (as root)
//! cargo test --release --test namespaces -- --list          their names
//! cargo test --release --test namespaces -- curl/v6 kernel  those whose name contains one of the words
//! ```
#![allow(clippy::disallowed_methods, reason = "these tests run real programs in real time")]

mod cases;
#[path = "../common/corpus.rs"]
mod corpus;
mod counters;
mod gateway;
mod helper;
mod lab;
mod process;
mod runner;
mod servers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == helper::FLAG) {
        arguments.remove(0);
        return helper::main(&arguments);
    }
    runner::main(&arguments, &cases::all())
}
