//! The atomics that the table's correctness rests on. With the feature `shuttle` they are those of the schedule
//! explorer, which may switch threads at each of them.

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU32};
#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU32};
