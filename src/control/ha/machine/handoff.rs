//! The planned change of roles.
//!
//! ```text
//! old, ACTIVE              new, STANDBY
//!   Prepare ------------------->          HANDOFF_IN: waits for the commit, for `hand_in`
//!   <--------------------- Ready
//! HANDOFF_OUT: decides no more, relays; waits for `hand_out`
//!   Commit(last record) ------->          applies up to it, takes the role by a new epoch
//!   <----------------- CommitAck
//! DRAIN: relays stragglers
//! ```
//!
//! The new one has been in HANDOFF_IN before the old one comes to HANDOFF_OUT, and its time is shorter: when the old one
//! gives up, no commit counts any more. Even then it forwards only when it has proof, as after having been held up.

use super::Core;
use super::phase::{Flip, Phase, Purpose};
use crate::control::ha::{Action, Cause, Digest, Handoff, NodeId, Reason, Refusal, State, Step};
use crate::engine::Instant;

impl Core {
    /// Why the role cannot be handed over without loss, or, with `force`, at all.
    pub(super) fn flip_refusal(&self, force: bool, now: Instant) -> Option<Refusal> {
        if self.offer.is_some() || matches!(self.phase, Phase::HandoffOut { .. }) {
            return Some(Refusal::FlipInProgress);
        }
        if !self.state().forwards() {
            return Some(Refusal::NotActive(self.state()));
        }
        let Some(peer) = self.peer.filter(|_| !self.peer_is_silent(now)) else { return Some(Refusal::PeerSilent) };
        let able = |state| matches!(state, State::Standby | State::Drain) || (force && state == State::Syncing);
        // What is younger than a heartbeat there and one here is on its way; the commit waits for it.
        let behind = self.made[2].saturating_sub(peer.last.sync.applied_lsn);
        [
            (!force && self.config_differs(), Refusal::ConfigDiffers),
            (!able(peer.last.state), Refusal::PeerIs(peer.last.state)),
            (!peer.legs().all_up(), Refusal::PeerLegDown),
            (!force && peer.is_held(), Refusal::PeerHeld),
            (!force && !peer.says_ready(), Refusal::PeerNotReady),
            (!force && behind > 0, Refusal::PeerBehind { records: behind }),
        ]
        .into_iter()
        .find_map(|(fails, refusal)| fails.then_some(refusal))
    }

    pub(super) fn begin_flip(&mut self, purpose: Purpose, now: Instant, actions: &mut Vec<Action>) {
        self.intent = self.intent.wrapping_add(1);
        let epoch = self.known_epoch().next(self.settings.node.peer());
        let flip = Flip { epoch, intent: self.intent, since: now, purpose };
        self.offer = Some(flip);
        actions.push(flip.says(Step::Prepare));
    }

    /// With each round of heartbeats: messages get lost.
    pub(super) fn repeat_handoff(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some(flip) = self.offer {
            if now.since(flip.since) >= self.timers.hand_in() {
                actions.push(flip.says(Step::Cancel));
                self.offer_failed(Refusal::NoAnswer, now, actions);
            } else {
                actions.push(flip.says(Step::Prepare));
            }
        } else if let Phase::HandoffOut { flip, last: Some(last) } = self.phase {
            actions.push(flip.says(Step::Commit(last)));
        }
    }

    pub(super) fn hear_handoff(&mut self, message: Handoff, now: Instant, actions: &mut Vec<Action>) {
        match message.step {
            Step::Prepare => self.asked_to_take(message, now, actions),
            Step::Ready => {
                if let Some(flip) = self.offer.filter(|flip| flip.is_of(message)) {
                    self.enter(Phase::HandoffOut { flip, last: None }, Cause::HandoffAgreed, now, actions);
                }
            }
            Step::Commit(last) => self.committed(message, last, now, actions),
            Step::CommitAck => {
                if let Phase::HandoffOut { flip, .. } = self.phase
                    && flip.intent == message.intent
                    && flip.epoch <= message.epoch
                {
                    self.epoch = self.known_epoch().max(message.epoch);
                    self.enter(Phase::Drain { flip }, Cause::HandoffDone, now, actions);
                }
            }
            Step::Cancel => self.cancelled(message, now, actions),
        }
    }

    /// All that was decided is on its way: this was the last of it.
    pub(super) fn flushed(&mut self, digest: Digest, actions: &mut Vec<Action>) {
        if let Phase::HandoffOut { flip, last } = &mut self.phase {
            *last = Some(digest);
            actions.push(flip.says(Step::Commit(digest)));
        }
    }

    pub(super) fn decide_handoff_out(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::HandoffOut { flip, .. } = self.phase else { return };
        if self.peer.is_some_and(|peer| peer.claims_above(self.epoch)) {
            self.epoch = self.known_epoch();
            self.enter(Phase::Drain { flip }, Cause::HandoffDone, now, actions);
        } else if now.since(self.since) >= self.timers.hand_out() {
            actions.push(flip.says(Step::Cancel));
            self.take_back(Refusal::NoAnswer, now, actions);
        }
    }

    pub(super) fn decide_handoff_in(&mut self, now: Instant, news: bool, actions: &mut Vec<Action>) {
        let Phase::HandoffIn { intent, commit, .. } = self.phase else { return };
        if let Some(cause) = self.vacancy(now, news).filter(|_| self.legs.all_up()) {
            return self.promote(cause, now, actions);
        }
        let time = if commit.is_some() { self.timers.hand_out() } else { self.timers.hand_in() };
        if now.since(self.since) >= time || !self.legs.all_up() {
            return self.leave_handoff_in(Cause::HandoffFailed, now, actions);
        }
        let Some(last) = commit.filter(|last| self.sync.progress.applied_lsn >= last.lsn) else { return };
        let own = self.sync.progress.digest;
        if own.lsn == last.lsn && own.root != last.root {
            return self.leave_handoff_in(Cause::OutOfSync, now, actions);
        }
        self.promote(Cause::HandoffDone, now, actions);
        actions.push(Action::SendHandoff(Handoff { epoch: self.epoch, intent, step: Step::CommitAck }));
    }

    /// Does not take the role after all, and says so.
    pub(super) fn leave_handoff_in(&mut self, cause: Cause, now: Instant, actions: &mut Vec<Action>) {
        let Phase::HandoffIn { epoch, intent, .. } = self.phase else { return };
        actions.push(Action::SendHandoff(Handoff { epoch, intent, step: Step::Cancel }));
        self.enter(self.follower(), cause, now, actions);
    }

    fn asked_to_take(&mut self, message: Handoff, now: Instant, actions: &mut Vec<Action>) {
        let Handoff { epoch, intent, .. } = message;
        let answer = |step| Action::SendHandoff(Handoff { epoch, intent, step });
        match self.phase {
            Phase::HandoffIn { epoch: agreed, intent: of, .. } if (agreed, of) == (epoch, intent) => {
                actions.push(answer(Step::Ready));
            }
            Phase::Standby | Phase::Syncing if self.may_take(epoch) => {
                self.enter(Phase::HandoffIn { epoch, intent, commit: None }, Cause::HandoffAgreed, now, actions);
                actions.push(answer(Step::Ready));
            }
            Phase::Init
            | Phase::Syncing
            | Phase::Standby
            | Phase::Drain { .. }
            | Phase::Maint
            | Phase::Fault
            | Phase::HandoffIn { .. } => actions.push(answer(Step::Cancel)),
            // Its heartbeats say who is right.
            Phase::Active | Phase::Solo | Phase::Fenced { .. } | Phase::HandoffOut { .. } => {}
        }
    }

    fn may_take(&self, epoch: super::Epoch) -> bool {
        let own: NodeId = self.settings.node;
        epoch.node() == own && epoch > self.epoch && self.legs.all_up() && self.peer.is_some_and(|peer| peer.claims())
    }

    fn committed(&mut self, message: Handoff, last: Digest, now: Instant, actions: &mut Vec<Action>) {
        let in_time = now.since(self.since) < self.timers.hand_in();
        match &mut self.phase {
            Phase::HandoffIn { epoch, intent, commit } if (*epoch, *intent) == (message.epoch, message.intent) => {
                if in_time {
                    *commit = Some(last);
                }
            }
            // The answer was lost.
            Phase::Active | Phase::Solo if self.epoch >= message.epoch => {
                let answer = Handoff { epoch: self.epoch, intent: message.intent, step: Step::CommitAck };
                actions.push(Action::SendHandoff(answer));
            }
            Phase::Init
            | Phase::Syncing
            | Phase::Standby
            | Phase::Active
            | Phase::Solo
            | Phase::Fenced { .. }
            | Phase::HandoffOut { .. }
            | Phase::HandoffIn { .. }
            | Phase::Drain { .. }
            | Phase::Maint
            | Phase::Fault => {}
        }
    }

    fn cancelled(&mut self, message: Handoff, now: Instant, actions: &mut Vec<Action>) {
        if self.offer.is_some_and(|flip| flip.is_of(message)) {
            return self.offer_failed(Refusal::Cancelled, now, actions);
        }
        match self.phase {
            Phase::HandoffOut { flip, .. } if flip.is_of(message) => self.take_back(Refusal::Cancelled, now, actions),
            Phase::HandoffIn { epoch, intent, .. } if (epoch, intent) == (message.epoch, message.intent) => {
                self.enter(self.follower(), Cause::HandoffFailed, now, actions);
            }
            Phase::Init
            | Phase::Syncing
            | Phase::Standby
            | Phase::Active
            | Phase::Solo
            | Phase::Fenced { .. }
            | Phase::HandoffOut { .. }
            | Phase::HandoffIn { .. }
            | Phase::Drain { .. }
            | Phase::Maint
            | Phase::Fault => {}
        }
    }

    /// The role was not handed over; whether it was taken all the same has to be proved.
    fn take_back(&mut self, why: Refusal, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::FlipFailed(why));
        self.enter(Phase::Fenced { resumed_at: now }, Cause::HandoffFailed, now, actions);
    }

    fn offer_failed(&mut self, why: Refusal, now: Instant, actions: &mut Vec<Action>) {
        let leg_down = self.offer.take().is_some_and(|flip| flip.purpose == Purpose::LegDown);
        actions.push(Action::FlipFailed(why));
        // It still lives and could serve, so it has to do without a handover.
        if leg_down && self.peer_is_ready(now) {
            self.give_up(Phase::Fault, Reason::LegDown, now, actions);
        }
    }
}

impl Flip {
    const fn says(&self, step: Step) -> Action {
        Action::SendHandoff(Handoff { epoch: self.epoch, intent: self.intent, step })
    }

    fn is_of(&self, message: Handoff) -> bool {
        (self.epoch, self.intent) == (message.epoch, message.intent)
    }
}
