//! What a gateway of a pair is at the moment, and why it became that.

use std::fmt;

use super::Epoch;
use crate::engine::Instant;

/// The states of a gateway of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It has just started, and listens for a peer.
    Init,
    /// It gets the flows of the active one, and does not have them all yet.
    Syncing,
    /// It has the flows, and waits.
    Standby,
    /// It forwards, and a standby that is ready follows.
    Active,
    /// It forwards, and nobody is ready to take over.
    Solo,
    /// It forwarded, was held up, and does not know yet whether the peer has taken over meanwhile.
    Fenced,
    /// It hands over, as asked: decides no more, and relays all packets.
    HandoffOut,
    /// It is being handed the role, and waits for the last records.
    HandoffIn,
    /// It has handed over, and relays what still comes to it.
    Drain,
    /// The operator, or too many changes, keep it passive.
    Maint,
    /// It cannot serve: a link or the way upstream is down.
    Fault,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Init,
        Self::Syncing,
        Self::Standby,
        Self::Active,
        Self::Solo,
        Self::Fenced,
        Self::HandoffOut,
        Self::HandoffIn,
        Self::Drain,
        Self::Maint,
        Self::Fault,
    ];

    /// The name in listings, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Syncing => "SYNCING",
            Self::Standby => "STANDBY",
            Self::Active => "ACTIVE",
            Self::Solo => "SOLO",
            Self::Fenced => "FENCED",
            Self::HandoffOut => "HANDOFF_OUT",
            Self::HandoffIn => "HANDOFF_IN",
            Self::Drain => "DRAIN",
            Self::Maint => "MAINT",
            Self::Fault => "FAULT",
        }
    }

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Init => 0,
            Self::Syncing => 1,
            Self::Standby => 2,
            Self::Active => 3,
            Self::Solo => 4,
            Self::Fenced => 5,
            Self::HandoffOut => 6,
            Self::HandoffIn => 7,
            Self::Drain => 8,
            Self::Maint => 9,
            Self::Fault => 10,
        }
    }

    /// From the number on the wire; `None` for one of a later version.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Whether packets of clients are decided about and sent on.
    pub const fn forwards(self) -> bool {
        matches!(self, Self::Active | Self::Solo)
    }

    /// Whether the role is its own, even if it forwards nothing at the moment: the peer has to keep away.
    pub const fn claims(self) -> bool {
        matches!(self, Self::Active | Self::Solo | Self::Fenced | Self::HandoffOut)
    }

    /// The role in listings and JSON: `active`, `standby` or `none`.
    pub const fn role(self) -> &'static str {
        match self {
            Self::Active | Self::Solo | Self::Fenced | Self::HandoffOut => "active",
            Self::Syncing | Self::Standby | Self::HandoffIn | Self::Drain => "standby",
            Self::Init | Self::Maint | Self::Fault => "none",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a state was left for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The peer has the role.
    PeerIsActive,
    /// Nobody was there after the time to listen.
    NobodyHeard,
    /// Both are new, and this one goes first.
    FirstOfTwo,
    /// The peer was silent on all paths for the dead time.
    PeerSilent,
    /// The peer has said goodbye.
    Goodbye(Reason),
    /// The peer has started anew, and has forgotten its role.
    PeerRestarted,
    /// The peer is there, but does not have the role any more.
    PeerGaveUp,
    /// All flows are here, and the digests are equal.
    Synced,
    /// The copy of the flows is not good any more, or the configurations differ.
    OutOfSync,
    /// A standby is ready.
    StandbyReady,
    /// The standby is not ready any more.
    StandbyNotReady,
    /// The thread that sends heartbeats was held up for longer than the stall time.
    HeldUp,
    /// The data plane was held up for longer than the stall time.
    DataPlaneStalled,
    /// The peer has proved that it did not take over while this one was held up.
    Proved,
    /// The peer holds a higher epoch.
    HigherEpoch,
    /// A link or the way upstream is down.
    LegDown,
    /// It is up again.
    LegsUp,
    /// The operator said so.
    Operator,
    /// The handover is agreed with the peer.
    HandoffAgreed,
    /// The handover is complete.
    HandoffDone,
    /// The handover came to no end in time, or was cancelled.
    HandoffFailed,
    /// The time to relay stragglers is over.
    Drained,
    /// The role went to and fro too often.
    Flapping,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::PeerIsActive,
        Self::NobodyHeard,
        Self::FirstOfTwo,
        Self::PeerSilent,
        Self::Goodbye(Reason::Shutdown),
        Self::Goodbye(Reason::Crash),
        Self::Goodbye(Reason::DataPlaneStalled),
        Self::Goodbye(Reason::LegDown),
        Self::PeerRestarted,
        Self::PeerGaveUp,
        Self::Synced,
        Self::OutOfSync,
        Self::StandbyReady,
        Self::StandbyNotReady,
        Self::HeldUp,
        Self::DataPlaneStalled,
        Self::Proved,
        Self::HigherEpoch,
        Self::LegDown,
        Self::LegsUp,
        Self::Operator,
        Self::HandoffAgreed,
        Self::HandoffDone,
        Self::HandoffFailed,
        Self::Drained,
        Self::Flapping,
    ];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerIsActive => "peer-is-active",
            Self::NobodyHeard => "nobody-heard",
            Self::FirstOfTwo => "first-of-two",
            Self::PeerSilent => "peer-silent",
            Self::Goodbye(Reason::Shutdown) => "goodbye-shutdown",
            Self::Goodbye(Reason::Crash) => "goodbye-crash",
            Self::Goodbye(Reason::DataPlaneStalled) => "goodbye-data-plane-stalled",
            Self::Goodbye(Reason::LegDown) => "goodbye-leg-down",
            Self::PeerRestarted => "peer-restarted",
            Self::PeerGaveUp => "peer-gave-up",
            Self::Synced => "synced",
            Self::OutOfSync => "out-of-sync",
            Self::StandbyReady => "standby-ready",
            Self::StandbyNotReady => "standby-not-ready",
            Self::HeldUp => "held-up",
            Self::DataPlaneStalled => "data-plane-stalled",
            Self::Proved => "proved",
            Self::HigherEpoch => "higher-epoch",
            Self::LegDown => "leg-down",
            Self::LegsUp => "legs-up",
            Self::Operator => "operator",
            Self::HandoffAgreed => "handoff-agreed",
            Self::HandoffDone => "handoff-done",
            Self::HandoffFailed => "handoff-failed",
            Self::Drained => "drained",
            Self::Flapping => "flapping",
        }
    }

    /// In words, for the log, listings and JSON.
    pub const fn text(self) -> &'static str {
        match self {
            Self::PeerIsActive => "the peer is active",
            Self::NobodyHeard => "no peer was heard after the start",
            Self::FirstOfTwo => "both have just started, and this one goes first",
            Self::PeerSilent => "the peer was silent on all paths",
            Self::Goodbye(reason) => reason.text(),
            Self::PeerRestarted => "the peer has started anew",
            Self::PeerGaveUp => "the peer gave up the role",
            Self::Synced => "all flows are here, the digests are equal",
            Self::OutOfSync => "the copy of the flows is not good any more, or the configurations differ",
            Self::StandbyReady => "the standby is ready",
            Self::StandbyNotReady => "the standby is not ready any more",
            Self::HeldUp => "this process was held up for too long",
            Self::DataPlaneStalled => "the data plane was held up for too long",
            Self::Proved => "the peer has proved that it did not take over",
            Self::HigherEpoch => "the peer holds a higher epoch",
            Self::LegDown => "a link or the way upstream is down",
            Self::LegsUp => "links and the way upstream are up again",
            Self::Operator => "by the operator",
            Self::HandoffAgreed => "the handover is agreed",
            Self::HandoffDone => "the handover is complete",
            Self::HandoffFailed => "the handover was not completed",
            Self::Drained => "the time to relay stragglers is over",
            Self::Flapping => "the role went to and fro too often",
        }
    }
}

/// Why a gateway says goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It ends as asked, or goes into maintenance.
    Shutdown,
    /// Its worker has died; the supervisor says it.
    Crash,
    /// Its data plane does not move.
    DataPlaneStalled,
    /// A link or the way upstream is down.
    LegDown,
}

impl Reason {
    /// All of them, by their number on the wire.
    pub const ALL: [Self; 4] = [Self::Shutdown, Self::Crash, Self::DataPlaneStalled, Self::LegDown];

    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Shutdown => "the peer said goodbye: it was shut down",
            Self::Crash => "the peer said goodbye: its worker died",
            Self::DataPlaneStalled => "the peer said goodbye: its data plane does not move",
            Self::LegDown => "the peer said goodbye: a link or its way upstream is down",
        }
    }
}

/// One change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Instant,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// The epoch in force after it.
    pub epoch: Epoch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_from_its_number() {
        for state in State::ALL {
            assert_eq!(State::from_code(state.code()), Some(state));
        }
        assert_eq!(State::from_code(11), None);
    }

    #[test]
    fn who_forwards_claims() {
        for state in State::ALL {
            assert!(state.claims() || !state.forwards(), "{state}");
        }
    }
}
