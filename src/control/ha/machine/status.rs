//! What there is to tell about the pair.

use std::fmt;

use super::{Core, Mode};
use crate::control::ha::peer::PathStatus;
use crate::control::ha::{Epoch, MAX_PATHS, Replica, State, SyncReport, Timers, Transition};
use crate::engine::Instant;

/// A gateway of a pair, as listings have it.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// What it is.
    pub state: State,
    /// The own epoch, if it has the role; else the highest known.
    pub epoch: Epoch,
    /// Why nobody could take over, or this one could not; `None` if it could.
    pub unready: Option<Unready>,
    /// It went to and fro too often, and takes over only in need.
    pub held: bool,
    /// What silence means.
    pub mode: Mode,
    /// The heartbeat thread has real-time priority.
    pub real_time: bool,
    /// In force.
    pub timers: Timers,
    /// The other one, once it was heard.
    pub peer: Option<PeerStatus>,
    /// By path.
    pub paths: [PathStatus; MAX_PATHS],
    /// How far the copy of the flows is.
    pub sync: SyncReport,
}

/// The other gateway, by its last heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct PeerStatus {
    /// What it is.
    pub state: State,
    /// The highest epoch that it knows.
    pub epoch: Epoch,
    /// When that came.
    pub heard_at: Instant,
    /// The last of this one's records that it has applied.
    pub applied_lsn: u64,
}

/// Why a take-over would lose flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// The active one's: no heartbeat of the peer.
    PeerSilent,
    /// The active one's: the peer is not ready.
    PeerNotReady(State),
    /// It takes no part.
    NoPart(State),
    /// Not all flows are here.
    Partial,
    /// The digests differ.
    Differs,
    /// Records are missing.
    Lost,
    /// The configurations differ.
    ConfigDiffers,
    /// A link or the way upstream is down.
    LegDown,
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerSilent => f.write_str("no heartbeat of the peer arrives"),
            Self::PeerNotReady(state) => write!(f, "the peer is {state}, and not ready"),
            Self::NoPart(state) => write!(f, "this gateway is {state}"),
            Self::Partial => f.write_str("not all flows are here yet"),
            Self::Differs => f.write_str("the digests of the flows differ"),
            Self::Lost => f.write_str("records of flows are missing"),
            Self::ConfigDiffers => f.write_str("the peer's configuration is another one"),
            Self::LegDown => f.write_str("a link or the way upstream is down"),
        }
    }
}

impl Core {
    /// How it is.
    pub fn status(&self, now: Instant) -> Status {
        let peer = self.peer.map(|peer| PeerStatus {
            state: peer.last.state,
            epoch: peer.last.epoch,
            heard_at: peer.heard_at,
            applied_lsn: peer.last.sync.applied_lsn,
        });
        let unready = if self.state().claims() { self.peer_unready(now) } else { self.unready() };
        Status {
            state: self.state(),
            epoch: self.epoch,
            unready,
            held: self.flaps.held,
            mode: self.settings.mode,
            real_time: self.settings.real_time,
            timers: self.timers,
            peer,
            paths: self.paths,
            sync: self.sync,
        }
    }

    /// The last changes of state, the newest first.
    pub fn transitions(&self) -> impl Iterator<Item = &Transition> {
        self.log.newest_first()
    }

    /// Why this one, passive, could not take over without loss.
    pub(super) fn unready(&self) -> Option<Unready> {
        if matches!(self.state(), State::Init | State::Maint | State::Fault) {
            return Some(Unready::NoPart(self.state()));
        }
        if self.old_session == Some(self.sync.progress.session) {
            return Some(Unready::Partial);
        }
        let copy = match self.sync.replica {
            Replica::Equal => None,
            Replica::Partial => Some(Unready::Partial),
            Replica::Differs => Some(Unready::Differs),
            Replica::Lost => Some(Unready::Lost),
        };
        let config = self.config_differs().then_some(Unready::ConfigDiffers);
        copy.or(config).or_else(|| (!self.legs.all_up()).then_some(Unready::LegDown))
    }

    fn peer_unready(&self, now: Instant) -> Option<Unready> {
        let Some(peer) = self.peer.filter(|_| !self.peer_is_silent(now)) else { return Some(Unready::PeerSilent) };
        if self.config_differs() {
            return Some(Unready::ConfigDiffers);
        }
        (!self.peer_is_ready(now)).then_some(Unready::PeerNotReady(peer.last.state))
    }
}
