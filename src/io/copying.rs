//! The copying of flows, for a worker of a pair's gateway: tells what it has decided, waits with what must not leave before
//! the other side knows; or, while that one serves, does here what was done there.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::time::Duration;

use super::lanes::WorkerLane;
use crate::control::ha::Replica;
use crate::engine::conntrack::FlowRef;
use crate::engine::{Change, Engine, Imported, Instant};

/// Changes made, or flows told again, in one round of the worker.
const AT_ONCE: usize = 256;
/// A packet is held back no longer than this for a standby that does not answer (`ha.md`: pfsync defers by 10 to 20 ms).
const MOST_HELD_FOR: Duration = Duration::from_millis(10);
/// And no more of them than these: those behind leave at once.
const MOST_HELD: usize = 4096;
/// How often the two sides compare.
const BETWEEN_MARKS: Duration = Duration::from_secs(1);

/// A worker's part in the copying of flows.
#[derive(Debug)]
pub struct Copying {
    lane: WorkerLane,
    held: VecDeque<Held>,
    /// In which all that is decided is told; 0: nobody listens.
    session: u32,
    next_mark: Instant,
    /// Changes were made that had been made elsewhere: this gateway has not served since.
    follows: bool,
    /// It served in the last round.
    leads: bool,
    /// Something was told since anybody asked.
    has_told: bool,
}

/// A packet that waits until the other side knows its flow.
#[derive(Debug)]
struct Held {
    /// So many changes are to have come there.
    told: u64,
    until: Instant,
    packet: Waiting,
}

/// What is to be told once more.
#[derive(Debug)]
pub enum Again {
    /// This flow.
    Flow(FlowRef),
    /// Nothing more in this session: all flows have been.
    Last(u32),
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Waiting {
    /// As it came, rewritten, offload header included.
    Sealed(Vec<u8>),
    /// Wrapped for a tunnel, in as many pieces as it takes.
    Pieces(Vec<Vec<u8>>),
}

impl Copying {
    /// By this lane; the engine is to be a [paired](Engine::pair) one.
    pub fn new(lane: WorkerLane) -> Self {
        Self {
            lane,
            held: VecDeque::new(),
            session: 0,
            next_mark: Instant::ZERO,
            follows: false,
            leads: false,
            has_told: false,
        }
    }

    /// This gateway does not serve now: makes changes that were made by the other one. True if there may be more.
    pub fn follow(&mut self, engine: &mut Engine, now: Instant) -> bool {
        // Somebody may wait for the end of what was decided here.
        self.has_told |= std::mem::take(&mut self.leads);
        self.look_at_session(engine, now);
        for _ in 0..AT_ONCE {
            let Some(change) = self.lane.next() else { return false };
            self.import(&change, engine, now);
        }
        true
    }

    /// What is held back is not for this gateway to send any more.
    pub fn forget_held(&mut self) {
        self.held.clear();
    }

    /// This gateway serves. `again` gives what is to be told once more. True if there may be more to do at once.
    pub fn lead(&mut self, engine: &mut Engine, mut again: impl FnMut() -> Option<Again>, now: Instant) -> bool {
        self.leads = true;
        while let Some(change) = self.lane.next() {
            self.import(&change, engine, now);
        }
        if std::mem::take(&mut self.follows) {
            engine.take_over(now);
        }
        self.look_at_session(engine, now);
        let more = self.tell_again(engine, &mut again);
        if self.session != 0 && now >= self.next_mark {
            self.next_mark = now + BETWEEN_MARKS;
            engine.tell_mark();
        }
        more
    }

    /// Tells some of what is to be told once more, if there is room for it on the way.
    fn tell_again(&self, engine: &mut Engine, again: &mut impl FnMut() -> Option<Again>) -> bool {
        for _ in 0..AT_ONCE {
            if self.lane.marks.is_full.load(Relaxed) {
                // An acknowledgment wakes who waits, and makes room first.
                self.lane.marks.waits.store(true, SeqCst);
                return false;
            }
            match again() {
                Some(Again::Flow(flow)) => engine.tell_again(&flow),
                Some(Again::Last(session)) if session == self.session => engine.tell_end(),
                Some(Again::Last(_)) => {}
                None => return false,
            }
        }
        true
    }

    /// Whether anybody listens, and since when.
    fn look_at_session(&mut self, engine: &mut Engine, now: Instant) {
        let session = self.lane.marks.session.load(Acquire);
        if session == self.session {
            return;
        }
        self.session = session;
        engine.tell(session != 0);
        self.lane.begin(session);
        self.has_told = true;
        if session != 0 {
            engine.tell_begin();
            self.next_mark = now + BETWEEN_MARKS;
        }
    }

    fn import(&mut self, change: &Change, engine: &mut Engine, now: Instant) {
        self.follows = true;
        let marks = &self.lane.marks;
        match engine.import(change, now) {
            Ok(Imported::Done) => {
                if let Change::Upsert(_) = change {
                    marks.imported.fetch_add(1, Relaxed);
                }
            }
            // Whether it is good, the mark behind it says.
            Ok(Imported::Complete) => {}
            Ok(Imported::Compared { theirs, ours }) => {
                marks.set_replica(if theirs == ours { Replica::Equal } else { Replica::Differs });
            }
            Err(_) => {
                marks.refused.fetch_add(1, Relaxed);
            }
        }
    }

    /// Passes on what the engine has to tell. Gives the number to wait for, if the packet in hand has to.
    pub fn tell(&mut self, engine: &mut Engine) -> Option<u64> {
        let (changes, commits) = engine.news();
        let told = changes.map(|change| self.lane.tell(change)).last()?;
        self.has_told = true;
        let waits = commits && self.lane.marks.commits.load(Relaxed) && self.held.len() < MOST_HELD;
        waits.then_some(told)
    }

    /// Whether something was told since this was last asked: whoever passes it on is to be woken.
    pub const fn has_told(&mut self) -> bool {
        std::mem::replace(&mut self.has_told, false)
    }

    /// Keeps a packet until so many changes have come.
    pub fn hold(&mut self, packet: Waiting, told: u64, now: Instant) {
        self.held.push_back(Held { told, until: now + MOST_HELD_FOR, packet });
    }

    /// A packet that need not wait any longer.
    pub fn release(&mut self, now: Instant) -> Option<Waiting> {
        let first = self.held.front()?;
        // Whoever raises the number looks afterwards whether somebody waits; so that is to be said first.
        self.lane.marks.waits.store(true, SeqCst);
        let committed = first.told <= self.lane.committed();
        if !committed && now < first.until {
            return None;
        }
        if !committed {
            self.lane.marks.uncommitted.fetch_add(1, Relaxed);
        }
        self.held.pop_front().map(|held| held.packet)
    }

    /// When a packet that is held leaves, come what may.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mark = (self.session != 0).then_some(self.next_mark);
        [self.held.front().map(|held| held.until), mark].into_iter().flatten().min()
    }
}
