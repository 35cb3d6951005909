//! What one that does not have the role decides.

use super::phase::{Phase, Purpose};
use super::{Core, Mode};
use crate::control::ha::peer::Peer;
use crate::control::ha::{Action, Cause, Flags, NodeId, State, Timers};
use crate::engine::Instant;

impl Core {
    pub(super) fn decide_init(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let silent = self.peer_is_silent(now);
        let peer = self.peer.filter(|_| !silent);
        if peer.is_some_and(|peer| peer.claims()) {
            return self.enter(Phase::Syncing, Cause::PeerIsActive, now, actions);
        }
        if !self.legs.all_up() {
            return self.enter(Phase::Fault, Cause::LegDown, now, actions);
        }
        if now.since(self.since) < Timers::LISTEN {
            return;
        }
        match peer {
            None if self.settings.mode == Mode::Pair => self.promote(Cause::NobodyHeard, now, actions),
            Some(peer) if self.goes_first(&peer) => self.promote(Cause::FirstOfTwo, now, actions),
            None | Some(_) => {}
        }
    }

    /// In [`Phase::Syncing`] or [`Phase::Standby`].
    pub(super) fn decide_passive(&mut self, now: Instant, news: bool, actions: &mut Vec<Action>) {
        if !self.legs.all_up() {
            return self.enter(Phase::Fault, Cause::LegDown, now, actions);
        }
        let is_standby = self.phase == Phase::Standby;
        if let Some(cause) = self.vacancy(now, news) {
            if is_standby || self.settings.emergency_promote {
                return self.promote(cause, now, actions);
            }
            return self.enter(Phase::Init, cause, now, actions);
        }
        if is_standby && self.copy_is_bad(now) {
            self.enter(Phase::Syncing, Cause::OutOfSync, now, actions);
        } else if !is_standby && self.unready().is_none() {
            self.enter(Phase::Standby, Cause::Synced, now, actions);
        }
    }

    pub(super) fn decide_drain(&mut self, now: Instant, news: bool, actions: &mut Vec<Action>) {
        let Phase::Drain { flip } = self.phase else { return };
        if let Some(cause) = self.vacancy(now, news).filter(|_| self.legs.all_up()) {
            return self.promote(cause, now, actions);
        }
        if now.since(self.since) < Timers::DRAIN {
            return;
        }
        let next = if flip.purpose == Purpose::Retire { Phase::Maint } else { self.follower() };
        self.enter(next, Cause::Drained, now, actions);
    }

    pub(super) fn decide_fault(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.legs.all_up() {
            return;
        }
        let follows = !self.peer_is_silent(now) && self.peer.is_some_and(|peer| peer.claims());
        self.enter(if follows { self.follower() } else { Phase::Init }, Cause::LegsUp, now, actions);
    }

    /// What one is beside an active peer.
    pub(super) fn follower(&self) -> Phase {
        if self.unready().is_none() { Phase::Standby } else { Phase::Syncing }
    }

    /// Why the role is free, if it is.
    pub(super) fn vacancy(&self, now: Instant, news: bool) -> Option<Cause> {
        let peer = self.peer?;
        // What was said before is no evidence: it may have become active since.
        if let Some(cause) =
            evidence(&peer).filter(|cause| news && (*cause != Cause::DataPlaneStalled || self.is_better(now)))
        {
            return Some(cause);
        }
        let dead = self.timers.dead;
        let silent = now.since(peer.heard_at.max(self.watch_from));
        if silent >= dead {
            // One that went to and fro is better than nobody, but nobody else has to be in sight.
            let patience = if self.flaps.held { Timers::LISTEN } else { dead };
            return (silent >= patience && self.settings.mode == Mode::Pair).then_some(Cause::PeerSilent);
        }
        if peer.claims() && !self.is_better(now) {
            return None;
        }
        let patience = if peer.claims() || self.goes_first(&peer) { dead } else { dead * 2 };
        let unclaimed = now.since(peer.claimed_at.max(self.watch_from));
        let cause = if peer.claims() { Cause::DataPlaneStalled } else { Cause::PeerGaveUp };
        (unclaimed >= patience).then_some(cause)
    }

    /// Whether this one would serve better than one that lives, has the role, and is held up now and then: where a machine
    /// has too much to do, both are, and the role would go to and fro between them with every message.
    fn is_better(&self, now: Instant) -> bool {
        !self.data_plane_stalled(now) && !self.flaps.held && self.unready().is_none()
    }

    /// Of two that are passive, who takes the role.
    fn goes_first(&self, peer: &Peer) -> bool {
        let rank = |state: State| match state {
            State::Standby | State::Drain | State::HandoffIn => Some(2),
            State::Syncing => Some(1),
            State::Init => Some(0),
            State::Active | State::Solo | State::Fenced | State::HandoffOut | State::Maint | State::Fault => None,
        };
        let own = (rank(self.state()), self.settings.prefer, self.settings.node == NodeId::A);
        own > (rank(peer.last.state), peer.last.prefer, self.settings.node != NodeId::A)
    }
}

/// Why the peer, alive, is not going to serve.
fn evidence(peer: &Peer) -> Option<Cause> {
    if let Some(reason) = peer.gone() {
        return Some(Cause::Goodbye(reason));
    }
    match peer.last.state {
        State::Init => Some(Cause::PeerRestarted),
        State::Maint | State::Fault => Some(Cause::PeerGaveUp),
        State::Fenced if !peer.last.flags.has(Flags::DP_OK) => Some(Cause::DataPlaneStalled),
        State::Fenced
        | State::Syncing
        | State::Standby
        | State::Active
        | State::Solo
        | State::HandoffOut
        | State::HandoffIn
        | State::Drain => None,
    }
}
