//! The world: every file descriptor, thread, signal and clock. All below is sans-IO and is driven from here.

pub mod addresses;
pub mod announce;
pub mod capture;
pub mod control;
pub mod daemon;
pub mod decap;
pub mod diagnosis;
pub mod discovery;
pub mod key_file;
pub mod log;
pub mod memory;
pub mod namespace;
pub mod netlink;
pub mod pcap;
pub mod port;
pub mod probe;
pub mod routes;
pub mod segmenting;
pub mod serve;
pub mod state;
mod steering;
pub mod sys;
pub mod tun;
pub mod tun_port;
mod unreachable;
pub mod words;
pub mod worker;
