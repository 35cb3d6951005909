//! The pair: two gateways, one active and one standby, that hold the same flows.

pub mod header;
pub mod keys;
pub mod seal;
