//! What one that has the role decides.

use super::Core;
use super::phase::{Phase, Purpose};
use crate::control::ha::peer::Peer;
use crate::control::ha::{Action, Cause, Goodbye, Legs, NodeId, Reason, State, Timers};
use crate::engine::Instant;

impl Core {
    /// In [`Phase::Active`] or [`Phase::Solo`].
    pub(super) fn decide_forwarding(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.data_plane_stalled(now) {
            return self.enter(Phase::Fenced { resumed_at: now }, Cause::DataPlaneStalled, now, actions);
        }
        if let Some(peer) = self.peer.filter(|peer| peer.last.epoch > self.epoch) {
            if peer.claims() && !self.outbids(&peer) {
                return self.step_down(now, actions);
            }
            self.raise_epoch(actions);
        }
        let ready = self.peer_is_ready(now);
        let is_active = self.phase == Phase::Active;
        if ready && !is_active {
            return self.enter(Phase::Active, Cause::StandbyReady, now, actions);
        }
        let answers = self.offer.is_some() && !self.peer_is_silent(now);
        if !ready && !answers && is_active {
            return self.enter(Phase::Solo, self.why_alone(now), now, actions);
        }
        let peer_is_better = !self.legs.all_up() && self.peer.is_some_and(|peer| peer.legs().all_up());
        if ready && peer_is_better && self.offer.is_none() {
            self.begin_flip(Purpose::LegDown, now, actions);
        }
    }

    /// In [`Phase::Fenced`].
    pub(super) fn decide_fenced(&mut self, resumed_at: Instant, now: Instant, actions: &mut Vec<Action>) {
        if self.peer.is_some_and(|peer| peer.claims_above(self.epoch)) {
            return self.step_down(now, actions);
        }
        if self.data_plane_stalled(now) {
            self.phase = Phase::Fenced { resumed_at: now };
            return;
        }
        if self.peer_has_proved(resumed_at) {
            let next = if self.peer_is_ready(now) { Phase::Active } else { Phase::Solo };
            return self.enter(next, Cause::Proved, now, actions);
        }
        let heard_at = self.peer.map_or(resumed_at, |peer| peer.heard_at.max(resumed_at));
        // A peer that is heard and does not hear has taken over by then, if it ever does.
        let Timers { dead, confirm, .. } = self.timers;
        let deaf = self.peer.is_some_and(|peer| !peer.claims()) && now.since(resumed_at) >= Timers::LISTEN + dead * 2;
        if deaf || now.since(heard_at) >= confirm {
            // A new term: should somebody have taken over unheard and be held up now, then this one served later.
            self.raise_epoch(actions);
            self.enter(Phase::Solo, Cause::PeerSilent, now, actions);
        }
    }

    /// Makes way for the peer, who holds a higher epoch.
    fn step_down(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let too_often = self.flaps.too_many(now);
        self.flaps.held |= too_often;
        self.epoch = self.known_epoch();
        let cause = if too_often { Cause::Flapping } else { Cause::HigherEpoch };
        self.enter(Phase::Syncing, cause, now, actions);
    }

    /// Gives the role up, and tells the peer.
    pub(super) fn give_up(&mut self, to: Phase, reason: Reason, now: Instant, actions: &mut Vec<Action>) {
        let cause = if reason == Reason::LegDown { Cause::LegDown } else { Cause::Operator };
        self.enter(to, cause, now, actions);
        actions.push(Action::SendGoodbye(Goodbye { epoch: self.epoch, reason }));
    }

    /// Both have taken over from the same one, unseen by each other. Only the one with the lower epoch asks this: so not
    /// both can give way, whatever each knows of the other.
    fn outbids(&self, peer: &Peer) -> bool {
        let worth = |legs: Legs, unshared, prefer, first| (legs.all_up(), unshared, prefer, first);
        let first = self.settings.node == NodeId::A;
        peer.last.base == self.base
            && worth(self.legs, self.sync.progress.unshared, self.settings.prefer, first)
                > worth(peer.legs(), peer.last.sync.unshared, peer.last.prefer, !first)
    }

    fn why_alone(&self, now: Instant) -> Cause {
        match self.peer.and_then(|peer| peer.gone()) {
            Some(reason) => Cause::Goodbye(reason),
            None if self.peer_is_silent(now) => Cause::PeerSilent,
            None if self.peer.is_some_and(|peer| peer.last.state == State::Init) => Cause::PeerRestarted,
            None => Cause::StandbyNotReady,
        }
    }
}
