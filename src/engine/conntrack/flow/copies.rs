//! What a flow is elsewhere: in a rehearsal, and on the other gateway of a pair.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{COLOURED, Flow, Plan};
use crate::engine::conntrack::Direction;
use crate::engine::conntrack::record::{FlowRecord, Way};
use crate::engine::conntrack::tcp::TrackerCell;
use crate::engine::{Instant, WorkerId};
use crate::wire::Protocol;

impl Flow {
    /// Makes it a copy of another as that is now, owned by the one worker of a rehearsal. It holds no lease: its port is
    /// the original's.
    pub(in crate::engine::conntrack) fn copy(&self, other: &Self) {
        let way = |direction: Direction| (other.key(direction), other.rewrite(direction));
        let [(original, there), (reply, back)] = Direction::BOTH.map(way);
        let plan = Plan {
            original,
            reply,
            rewrites: [there, back],
            path: other.path().as_ref().map(|path| Arc::new(path.rehearsed())),
            service: other.service(),
            backend: other.backend(),
            owner: WorkerId(0),
            leased: false,
        };
        self.begin(&plan, Instant::ZERO);
        self.set_state(other.state());
        self.opened.store(other.opened.load(Relaxed), Relaxed);
        self.last_seen.store(other.last_seen(), Relaxed);
        self.tracker.store(&other.tracker.load());
    }

    /// What the other gateway of a pair is to know of it.
    pub(in crate::engine) fn record(&self) -> FlowRecord {
        let tracker = match self.protocol() {
            Protocol::TCP if !self.is_tunnelled() => {
                TrackerCell::of(&self.tracker.load().for_peer(self.state())).words()
            }
            _ => self.tracker.words(),
        };
        let answers = self.key(Direction::Reply);
        let way = match &*self.path() {
            Some(path) => Way::Tunnel { to: path.tunnel().destination },
            None => Way::Nat { backend: answers.source, source: answers.destination },
        };
        FlowRecord { original: self.key(Direction::Original), way, state: self.state(), tracker }
    }

    /// Goes on as the other gateway knew it.
    pub(in crate::engine) fn resume(&self, record: &FlowRecord, now: Instant) {
        self.set_state(record.state);
        self.tracker.set_words(&record.tracker);
        if self.is_tunnelled() {
            self.tracker.lose_reached();
        }
        self.touch(now);
    }

    /// Which of two colours it has: whoever compares two tables gives all that he has seen the same.
    pub(in crate::engine) fn is_coloured(&self) -> bool {
        self.has(COLOURED)
    }

    pub(in crate::engine) fn colour(&self, coloured: bool) {
        if coloured {
            self.kind.fetch_or(COLOURED, Relaxed);
        } else {
            self.kind.fetch_and(!COLOURED, Relaxed);
        }
    }
}
