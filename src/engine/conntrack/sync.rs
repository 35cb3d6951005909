//! The locks and atomics that the table's correctness rests on. With the feature `shuttle` they are those of the schedule
//! explorer, which may switch threads at each of them.

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::{
    Mutex,
    atomic::{AtomicU8, AtomicU32, AtomicU64},
};
#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::{
    Mutex,
    atomic::{AtomicU8, AtomicU32, AtomicU64},
};
