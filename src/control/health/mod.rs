//! Health checks, sans-IO: when which backend is asked what, and what its answers say.
//!
//! [`Checks`] is handed the configuration, the answers and the time; it hands out [`Question`]s and [`Change`]s. Whoever
//! drives it owns the sockets, and gives exactly one [`Answer`] to each question.
//!
//! ```text
//! Checks::adopt(snapshot) -> poll(now) -> Question -> (io::probe) -> Answer -> answered(..) -> changes()
//! ```

mod checks;
pub mod http;
mod observations;
mod reason;
mod record;
mod tunnel;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

pub use checks::Checks;
pub use observations::{Event, EventKind, Observations};
pub use reason::{Reason, TunnelFault};
pub use record::{Record, Tally};
pub use tunnel::Tunnels;
pub use verdict::Verdict;

use crate::config::{BackendId, Check};
use crate::wire::tunnel::Tunnel;
use crate::wire::{Address, Endpoint};

/// What is to be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Comes back with the answer.
    pub id: QuestionId,
    /// What.
    pub what: Arc<Query>,
}

/// Tells one question from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId {
    target: u32,
    round: u32,
}

/// A question that several backends may share: the same server under several services is asked once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// What is asked.
    pub check: Check,
    /// Whom; the port is 0 where the check has none.
    pub endpoint: Endpoint,
    /// By which way.
    pub way: Way,
    /// How long the answer may take.
    pub timeout: Duration,
    /// From one question to the next.
    pub interval: Duration,
}

impl Query {
    /// Whether the other one asks the same, be it at other times.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.check, self.endpoint, self.way) == (&other.check, other.endpoint, other.way)
    }

    /// Whether no answer is as good as one.
    pub fn allows_silence(&self) -> bool {
        matches!(&self.check, Check::Udp(check) if check.expect.is_none())
    }
}

/// By which way a backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// As any host asks another.
    Plain,
    /// At the VIP, by its tunnel.
    Tunnel {
        /// To the backend.
        tunnel: Tunnel,
        /// Whom it answers to: a source address of the gateway, of the VIP's family.
        source: Address,
    },
}

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub outcome: Outcome,
    /// From the question to it.
    pub took: Duration,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend serves.
    Good,
    /// It does not, for this reason.
    Bad(Reason),
    /// It was not asked: this machine lacks what is needed for it. That says nothing of the backend.
    NotAsked(String),
}

/// A backend is another than it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub backend: BackendId,
    /// Whether it serves; `None`: nobody asks any more.
    pub up: Option<bool>,
    /// Why not. A backend that stays down for another reason is a change, too.
    pub reason: Option<Reason>,
}

#[cfg(test)]
mod tests;
