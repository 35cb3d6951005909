//! tungate: a layer-4 load balancer that lives in user space on a TUN device.

pub mod admin;
pub mod cli;
pub mod config;
pub mod engine;
pub mod io;
pub mod wire;
