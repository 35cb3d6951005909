//! The states with what belongs to each, and what is remembered of changes between them.

use std::time::Duration;

use crate::control::ha::{Cause, Digest, Epoch, State, Transition};
use crate::engine::Instant;

/// A state with its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Init,
    Syncing,
    Standby,
    Active,
    Solo,
    /// Since `resumed_at` it has not been held up again.
    Fenced {
        resumed_at: Instant,
    },
    /// `last` is known when all that was decided is on its way.
    HandoffOut {
        flip: Flip,
        last: Option<Digest>,
    },
    HandoffIn {
        epoch: Epoch,
        intent: u32,
        commit: Option<Digest>,
    },
    Drain {
        flip: Flip,
    },
    Maint,
    Fault,
}

impl Phase {
    pub(super) const fn state(&self) -> State {
        match self {
            Self::Init => State::Init,
            Self::Syncing => State::Syncing,
            Self::Standby => State::Standby,
            Self::Active => State::Active,
            Self::Solo => State::Solo,
            Self::Fenced { .. } => State::Fenced,
            Self::HandoffOut { .. } => State::HandoffOut,
            Self::HandoffIn { .. } => State::HandoffIn,
            Self::Drain { .. } => State::Drain,
            Self::Maint => State::Maint,
            Self::Fault => State::Fault,
        }
    }
}

/// A handover, as the old active sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flip {
    /// The one that the new active will have.
    pub(super) epoch: Epoch,
    pub(super) intent: u32,
    /// When the peer was asked.
    pub(super) since: Instant,
    pub(super) purpose: Purpose,
}

/// What a handover is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// The other one is to be active.
    Flip,
    /// This one is to be passive until told otherwise.
    Retire,
    /// A link or the way upstream is down here.
    LegDown,
}

/// Changes of the role within this time are too often...
const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// ...if they are as many.
const FLAPS: usize = 3;

/// The last times this one took over unasked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flaps {
    at: [Option<Instant>; FLAPS],
    /// It went to and fro too often.
    pub(super) held: bool,
}

impl Flaps {
    pub(super) fn note(&mut self, cause: Cause, now: Instant) {
        if matches!(cause, Cause::PeerSilent | Cause::PeerGaveUp | Cause::Goodbye(_) | Cause::DataPlaneStalled) {
            self.at.rotate_right(1);
            self.at[0] = Some(now);
        }
    }

    /// Whether the role, lost now, was taken too often.
    pub(super) fn too_many(&self, now: Instant) -> bool {
        self.at[FLAPS - 1].is_some_and(|first| now.since(first) < FLAP_WINDOW)
    }
}

/// Transitions that are kept.
const KEPT: usize = 10;

/// The last transitions, the newest first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Log([Option<Transition>; KEPT]);

impl Log {
    pub(super) fn push(&mut self, transition: Transition) {
        self.0.rotate_right(1);
        self.0[0] = Some(transition);
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Transition> {
        self.0.iter().flatten()
    }
}
