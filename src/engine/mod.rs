//! The data plane, sans-IO.

pub mod counters;
mod random;
pub mod scheduler;
mod time;
pub mod verdict;

pub use time::Instant;

/// Index of a packet worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);
