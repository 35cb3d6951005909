//! What health checks have found so far, for metrics: written by whoever asks, read by whoever wants to know.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config::BackendId;

/// How many answers there have been of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Good ones.
    pub good: u64,
    /// Bad ones.
    pub bad: u64,
    /// Questions that could not be asked.
    pub not_asked: u64,
}

/// The answers, and how long each backend took for its last one.
#[derive(Debug)]
pub struct Record {
    good: AtomicU64,
    bad: AtomicU64,
    not_asked: AtomicU64,
    /// Microseconds, and one more: 0 stands for none.
    took: Box<[AtomicU32; 1 << 16]>,
}

impl Default for Record {
    fn default() -> Self {
        let [good, bad, not_asked] = [const { AtomicU64::new(0) }; 3];
        Self { good, bad, not_asked, took: bytemuck::zeroed_box() }
    }
}

impl Record {
    /// How many answers there have been.
    pub fn tally(&self) -> Tally {
        let [good, bad, not_asked] = [&self.good, &self.bad, &self.not_asked].map(|count| count.load(Relaxed));
        Tally { good, bad, not_asked }
    }

    /// How long the last answer of a backend took, or its silence.
    pub fn took(&self, backend: BackendId) -> Option<Duration> {
        let micros = self.took[usize::from(backend.0)].load(Relaxed).checked_sub(1)?;
        Some(Duration::from_micros(micros.into()))
    }

    pub(super) fn count(&self, good: bool) {
        (if good { &self.good } else { &self.bad }).fetch_add(1, Relaxed);
    }

    pub(super) fn count_not_asked(&self) {
        self.not_asked.fetch_add(1, Relaxed);
    }

    pub(super) fn note(&self, backend: BackendId, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX - 1).saturating_add(1);
        self.took[usize::from(backend.0)].store(micros, Relaxed);
    }

    /// It is not asked any more.
    pub(super) fn forget(&self, backend: BackendId) {
        self.took[usize::from(backend.0)].store(0, Relaxed);
    }
}
