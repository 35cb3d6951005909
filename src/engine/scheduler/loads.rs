//! How many flows each backend has now.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::BackendId;
use crate::engine::counters::{OfEach, of_each};

/// Live flows of each backend, counted by all workers.
///
/// Relaxed atomics: a pick that misses a flow opened this instant on another CPU is as good as one made an instant
/// earlier. Not padded to cache lines, because least-connections reads them all for each pick.
#[derive(Debug)]
pub struct Loads(OfEach<AtomicU32>);

impl Loads {
    /// No flows.
    pub fn new() -> Self {
        Self(of_each())
    }

    /// Counts a flow opened.
    #[inline]
    pub fn opened(&self, id: BackendId) {
        self.of(id).fetch_add(1, Relaxed);
    }

    /// Counts a flow ended: once for each [`Loads::opened`], or the backend starves. Nothing is counted of the flow after
    /// that: who sees by [`Loads::is_idle`] that it was the last may begin again with the backend's counters.
    #[inline]
    pub fn closed(&self, id: BackendId) {
        let before = self.of(id).fetch_sub(1, Release);
        debug_assert!(before > 0, "backend {id:?} lost a flow that it never had");
    }

    /// Flows now.
    #[inline]
    pub fn get(&self, id: BackendId) -> u32 {
        self.of(id).load(Relaxed)
    }

    /// Whether it has no flow, and all that was counted of those it had is to be seen.
    pub fn is_idle(&self, id: BackendId) -> bool {
        self.of(id).load(Acquire) == 0
    }

    #[inline]
    fn of(&self, id: BackendId) -> &AtomicU32 {
        &self.0[usize::from(id.0)]
    }
}

impl Default for Loads {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Loads {
    /// The loads as they are now, counted apart from then on.
    fn clone(&self) -> Self {
        let clone = Self::new();
        for (to, from) in clone.0.iter().zip(&*self.0) {
            let load = from.load(Relaxed);
            if load > 0 {
                to.store(load, Relaxed); // What is not written to takes no memory.
            }
        }
        clone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_is_counted_apart() {
        let loads = Loads::new();
        loads.opened(BackendId(1));
        loads.opened(BackendId(1));
        loads.closed(BackendId(1));
        assert_eq!((loads.get(BackendId(0)), loads.get(BackendId(1))), (0, 1));
    }
}
