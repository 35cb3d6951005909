//! Bytes: addresses, headers, checksums, the offload header. Imports nothing of the crate.

mod address;

pub use address::{Address, Endpoint, Protocol};
