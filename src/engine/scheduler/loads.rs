//! How many flows each backend has now.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::config::BackendId;

/// Live flows of each backend, counted by all workers.
///
/// Relaxed atomics: a pick that misses a flow opened this instant on another CPU is as good as one made an instant
/// earlier. Not padded to cache lines, because least-connections reads them all for each pick.
#[derive(Debug)]
pub struct Loads(Box<[AtomicU32]>);

impl Loads {
    /// No flows on backends `0..backends`.
    pub fn new(backends: usize) -> Self {
        Self((0..backends).map(|_| AtomicU32::new(0)).collect())
    }

    /// Counts a flow opened.
    #[inline]
    pub fn opened(&self, id: BackendId) {
        self.of(id).fetch_add(1, Relaxed);
    }

    /// Counts a flow ended: once for each [`Loads::opened`], or the backend starves.
    #[inline]
    pub fn closed(&self, id: BackendId) {
        let before = self.of(id).fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "backend {id:?} lost a flow that it never had");
    }

    /// Flows now.
    #[inline]
    pub fn get(&self, id: BackendId) -> u32 {
        self.of(id).load(Relaxed)
    }

    #[inline]
    fn of(&self, id: BackendId) -> &AtomicU32 {
        &self.0[usize::from(id.0)]
    }
}

impl Clone for Loads {
    /// The loads as they are now, counted apart from then on.
    fn clone(&self) -> Self {
        Self(self.0.iter().map(|load| AtomicU32::new(load.load(Relaxed))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_is_counted_apart() {
        let loads = Loads::new(2);
        loads.opened(BackendId(1));
        loads.opened(BackendId(1));
        loads.closed(BackendId(1));
        assert_eq!((loads.get(BackendId(0)), loads.get(BackendId(1))), (0, 1));
    }
}
