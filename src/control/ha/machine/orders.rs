//! What an operator may ask for.

use super::Core;
use super::phase::{Phase, Purpose};
use crate::control::ha::{Action, Cause, Command, Reason, Refusal, State};
use crate::engine::Instant;

impl Core {
    /// Does what the operator says, or says why not. A handover is only begun: [`Action::FlipFailed`] or a transition to
    /// [`State::Drain`] tells how it ends.
    ///
    /// # Errors
    /// The precondition that fails.
    pub fn command(&mut self, command: Command, now: Instant, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        self.notice_pause(now, actions);
        let outcome = match command {
            Command::Flip { force } => self.flip(force, now, actions),
            Command::Promote { force } => self.take_over(force, now, actions),
            Command::Standby { force } => self.retire(force, now, actions),
            Command::Resume => self.resume(now, actions),
        };
        self.settle(now, false, actions);
        outcome
    }

    fn flip(&mut self, force: bool, now: Instant, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        self.flip_refusal(force, now).map_or(Ok(()), Err)?;
        self.begin_flip(Purpose::Flip, now, actions);
        Ok(())
    }

    fn take_over(&mut self, force: bool, now: Instant, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        if self.state().claims() {
            return Err(Refusal::AlreadyActive);
        }
        if !force {
            if !self.legs.all_up() {
                return Err(Refusal::LegDown);
            }
            if !self.peer_is_silent(now) && self.peer.is_some_and(|peer| peer.claims()) {
                return Err(Refusal::PeerIsActive);
            }
            if self.unready().is_some() {
                return Err(Refusal::NotReady);
            }
        }
        self.flaps.held = false;
        self.promote(Cause::Operator, now, actions);
        Ok(())
    }

    fn retire(&mut self, force: bool, now: Instant, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        match self.state() {
            State::Maint => Ok(()),
            State::Active | State::Solo | State::Fenced | State::HandoffOut => {
                match self.flip_refusal(false, now) {
                    None => self.begin_flip(Purpose::Retire, now, actions),
                    Some(refusal) if !force => return Err(refusal),
                    Some(_) => self.give_up(Phase::Maint, Reason::Shutdown, now, actions),
                }
                Ok(())
            }
            State::Init | State::Syncing | State::Standby | State::HandoffIn | State::Drain | State::Fault => {
                self.give_up(Phase::Maint, Reason::Shutdown, now, actions);
                Ok(())
            }
        }
    }

    fn resume(&mut self, now: Instant, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let was_held = std::mem::take(&mut self.flaps.held);
        if self.phase == Phase::Maint {
            self.enter(Phase::Init, Cause::Operator, now, actions);
        } else if !was_held {
            return Err(Refusal::NotHeld(self.state()));
        }
        Ok(())
    }
}
