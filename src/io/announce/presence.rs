//! Whether the addresses are here: of a pair, they are where the active one is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};

use crate::io::sys::Waker;

/// Asked before each answer; told by another thread, which does not wait for anything.
#[derive(Debug)]
pub struct Presence {
    here: AtomicBool,
    /// How often it was told that the neighbours are to hear of it.
    told: AtomicU64,
    waker: Waker,
}

impl Presence {
    /// Whether they are here at first.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(here: bool) -> io::Result<Self> {
        Ok(Self { here: AtomicBool::new(here), told: AtomicU64::new(0), waker: Waker::new()? })
    }

    /// They are here, and the neighbours are to hear of it now.
    pub fn announce(&self) {
        self.here.store(true, Release);
        self.told.fetch_add(1, Release);
        self.waker.wake();
    }

    /// They are here no more.
    pub fn withdraw(&self) {
        self.here.store(false, Release);
    }

    pub(super) fn is_here(&self) -> bool {
        self.here.load(Acquire)
    }

    pub(super) fn times_told(&self) -> u64 {
        self.told.load(Acquire)
    }

    pub(super) fn clear(&self) {
        self.waker.clear();
    }
}

impl AsFd for Presence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}
