//! Lanes between a worker and the thread that talks to the peer: changes of its flows one way, those of the other gateway's
//! the other.
//!
//! The talking thread has real-time priority, so nothing here may make it wait for a worker that was interrupted: rings
//! of one producer and one consumer, which never spin (`rtrb`), and atomics.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

use crossbeam_utils::CachePadded;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::control::ha::Replica;
use crate::engine::Change;

/// Changes that may wait in a lane: as many as may be under way to the peer.
const SLOTS: usize = 1 << 16;

/// What a worker tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// What follows is told in this session.
    Session(u32),
    /// A change of a flow.
    Change(Change),
}

/// What both ends of a worker's lanes see.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The session in which the worker is to tell what it does; 0: nobody listens.
    pub session: AtomicU32,
    /// The one that it tells in.
    pub telling: AtomicU32,
    /// Of the changes that it has ever told, so many have reached the peer.
    pub committed: AtomicU64,
    /// It waits for an acknowledgment.
    pub waits: AtomicBool,
    /// Packets wait until the peer knows their flows.
    pub commits: AtomicBool,
    /// Packets that left before it did, for it took too long.
    pub uncommitted: AtomicU64,
    /// So much is under way that what need not be told now is not.
    pub is_full: AtomicBool,
    /// A change found no place: the session is worth nothing.
    pub overflow: AtomicBool,
    /// How good the worker's part of the copy is.
    replica: AtomicU8,
    /// Flows that could not be taken over.
    pub refused: AtomicU64,
    /// Flows taken over, those that were told again included.
    pub imported: AtomicU64,
}

impl Marks {
    pub(super) fn replica(&self) -> Replica {
        match self.replica.load(Acquire) {
            0 => Replica::Partial,
            1 => Replica::Equal,
            _ => Replica::Differs,
        }
    }

    pub(super) fn set_replica(&self, replica: Replica) {
        let code = match replica {
            Replica::Partial => 0,
            Replica::Equal => 1,
            Replica::Differs | Replica::Lost => 2,
        };
        self.replica.store(code, Release);
    }
}

/// The worker's ends.
#[derive(Debug)]
pub struct WorkerLane {
    pub(super) marks: Arc<CachePadded<Marks>>,
    out: Producer<News>,
    inward: Consumer<Change>,
    /// Changes told so far.
    told: u64,
}

/// The other ends.
#[derive(Debug)]
pub(super) struct PeerLane {
    pub marks: Arc<CachePadded<Marks>>,
    out: Consumer<News>,
    inward: Producer<Change>,
}

/// The lanes of one worker.
pub(super) fn lane() -> (WorkerLane, PeerLane) {
    let marks = Arc::new(CachePadded::new(Marks::default()));
    let (out, from_worker) = RingBuffer::new(SLOTS);
    let (to_worker, inward) = RingBuffer::new(SLOTS);
    let worker = WorkerLane { marks: Arc::clone(&marks), out, inward, told: 0 };
    (worker, PeerLane { marks, out: from_worker, inward: to_worker })
}

impl WorkerLane {
    /// Tells that what follows belongs to this session.
    pub(super) fn begin(&mut self, session: u32) {
        self.push(News::Session(session));
        self.marks.telling.store(session, Release);
    }

    /// Tells a change, and gives the number by which it can be seen to have [reached](Self::committed) the peer.
    pub(super) fn tell(&mut self, change: Change) -> u64 {
        self.told += 1;
        self.push(News::Change(change));
        self.told
    }

    fn push(&mut self, news: News) {
        if self.out.push(news).is_err() {
            self.marks.overflow.store(true, Release);
        }
    }

    /// How many of the changes told have reached the peer.
    pub(super) fn committed(&self) -> u64 {
        self.marks.committed.load(SeqCst)
    }

    /// A change to be made here.
    pub(super) fn next(&mut self) -> Option<Change> {
        self.inward.pop().ok()
    }
}

impl PeerLane {
    /// How much the worker has told that was not taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.out.slots()
    }

    /// What the worker has told.
    pub(super) fn next(&mut self) -> Option<News> {
        self.out.pop().ok()
    }

    /// Hands the worker a change to be made; false if there is no place.
    pub(super) fn hand(&mut self, change: Change) -> bool {
        self.inward.push(change).is_ok()
    }
}
