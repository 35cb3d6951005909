//! What of a core makes a difference to what it will do, for the model: two that differ only in when it all happened are
//! the same.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::Core;
use super::phase::Phase;
use crate::control::ha::{Heartbeat, State};
use crate::engine::Instant;

/// Older than this is all the same: longer than any time but those to listen and to drain.
const OLD: u32 = 12;

impl Core {
    /// `peer_seq`: the number of the newest heartbeat that the peer has sent.
    pub(in crate::control::ha) fn fingerprint(&self, now: Instant, peer_seq: u32, into: &mut impl Hasher) {
        let old = self.timers.heartbeat * OLD;
        let age = |at: Instant| now.since(at).min(old);
        let (state, claims) = (self.state(), self.state().claims());
        match self.phase {
            Phase::Fenced { resumed_at } => {
                (age(resumed_at), self.peer.and_then(|peer| peer.last.echo).map(|echo| age(echo.sent_at))).hash(into);
            }
            Phase::HandoffOut { flip, last } => (flip.epoch, flip.intent, last).hash(into),
            Phase::Drain { flip } => flip.purpose.hash(into),
            Phase::HandoffIn { .. } => self.phase.hash(into),
            Phase::Init
            | Phase::Syncing
            | Phase::Standby
            | Phase::Active
            | Phase::Solo
            | Phase::Maint
            | Phase::Fault => {}
        }
        state.hash(into);
        match state {
            State::Init | State::Drain => now.since(self.since).hash(into),
            State::HandoffOut | State::HandoffIn => age(self.since).hash(into),
            State::Syncing
            | State::Standby
            | State::Active
            | State::Solo
            | State::Fenced
            | State::Maint
            | State::Fault => {}
        }
        if claims {
            (self.sent.map(age), age(self.claimed_since), self.echoed.map(age), self.base).hash(into);
        }
        (self.epoch, age(self.awake_at), self.next_beat.since(now), self.intent, self.flaps.held).hash(into);
        (self.sync, self.old_session, self.legs, age(self.data_plane_at), self.has_rival).hash(into);
        self.offer.map(|flip| (flip.epoch, age(flip.since))).hash(into);
        self.announcer.due().map(|due| (due.since(now).min(old), age(due))).hash(into);
        if let Some(peer) = &self.peer {
            let unclaimed = if claims { old } else { age(peer.claimed_at.max(self.watch_from)) };
            (age(peer.heard_at.max(self.watch_from)), unclaimed, peer.gone(), peer.boot()).hash(into);
            said(&peer.last, peer_seq, into);
        }
        for path in &self.paths {
            path.heard_at.map(|_| age(path.sent_at)).hash(into);
        }
    }
}

/// What makes a difference of a heartbeat, once it was heard.
fn said(heartbeat: &Heartbeat, newest: u32, into: &mut impl Hasher) {
    let Heartbeat { epoch, base, state, flags, sync, .. } = heartbeat;
    (epoch, base, state, flags, sync, newest.wrapping_sub(heartbeat.seq).min(OLD)).hash(into);
}

/// What makes a difference of a heartbeat that is on its way.
pub(in crate::control::ha) fn says(heartbeat: &Heartbeat, now: Instant, newest: u32, into: &mut impl Hasher) {
    let age = |at: Instant| now.since(at).min(Duration::from_millis(100));
    said(heartbeat, newest, into);
    (age(heartbeat.sent_at), heartbeat.data_plane_age, heartbeat.echo.map(|echo| age(echo.sent_at))).hash(into);
}
