//! What the peer says, and what is said to it.

use super::phase::Phase;
use super::{Core, Safeguard};
use crate::control::ha::peer::Peer;
use crate::control::ha::{Action, Echo, Flags, Heartbeat, MAX_PATHS, PathId, Replica, State, SyncReport, Timers};
use crate::engine::Instant;

impl Core {
    /// The heartbeat to send now on this path.
    pub fn heartbeat(&self, path: PathId, now: Instant) -> Heartbeat {
        let seen = self.paths.get(usize::from(path.0)).filter(|seen| seen.heard_at.is_some());
        let mut rx_age = [None; MAX_PATHS];
        for (age, path) in rx_age.iter_mut().zip(&self.paths) {
            *age = path.heard_at.map(|at| now.since(at));
        }
        Heartbeat {
            epoch: self.epoch,
            base: self.base,
            state: self.state(),
            prefer: self.settings.prefer,
            flags: self.flags(now),
            interval: self.settings.timers.heartbeat,
            dead: self.settings.timers.dead,
            seq: self.seq,
            sent_at: now,
            echo: seen.map(|seen| Echo { sent_at: seen.sent_at, held_for: now.since(seen.heard_at.unwrap_or(now)) }),
            rx_age,
            sync: self.sync.progress,
            data_plane_age: now.since(self.data_plane_at),
        }
    }

    fn flags(&self, now: Instant) -> Flags {
        Flags::default()
            .with(Flags::READY, matches!(self.state(), State::Standby | State::Drain) && self.unready().is_none())
            .with(Flags::SYNCED, self.sync.replica != Replica::Partial)
            .with(Flags::MAINT, self.state() == State::Maint)
            .with(Flags::UPSTREAM_OK, self.legs.upstream)
            .with(Flags::DP_OK, !self.data_plane_stalled(now))
            .with(Flags::LEG_EXT, self.legs.external)
            .with(Flags::LEG_INT, self.legs.internal)
            .with(Flags::FIFO, self.settings.real_time)
            .with(Flags::HOLD, self.flaps.held)
    }

    /// Takes a heartbeat. True if it is news from just now; one that lay in the socket while this process was held up tells
    /// only what was.
    pub(super) fn hear(&mut self, boot: u64, path: PathId, at: Instant, heartbeat: &Heartbeat, now: Instant) -> bool {
        let stall = self.timers.stall;
        let first = self.peer.is_none();
        let returns = self.peer.is_some_and(|peer| peer.boot() != boot) || self.peer_is_silent(now);
        let peer = self.peer.get_or_insert_with(|| Peer::new(boot, at, heartbeat, stall));
        let taken = first || peer.hear(boot, at, heartbeat, stall);
        if let Some(seen) = self.paths.get_mut(usize::from(path.0)) {
            seen.hear(usize::from(path.0), boot, at, heartbeat);
        }
        if !taken {
            return false;
        }
        self.timers = self.settings.timers.slower(heartbeat.interval, heartbeat.dead);
        if let Some(echo) = heartbeat.echo.filter(|echo| echo.sent_at >= self.claimed_since) {
            self.echoed = self.echoed.max(Some(echo.sent_at));
        }
        if returns {
            // Nobody knows whether it told neighbours of itself meanwhile.
            self.announcer.again(now);
        }
        if self.state().claims() {
            self.mind_rival(heartbeat, now);
        } else {
            self.epoch = self.epoch.max(heartbeat.epoch);
            // It forwards nothing until it has the answer.
            self.beat_wanted |= heartbeat.state == State::Fenced;
        }
        now.since(at) < self.timers.heartbeat
    }

    /// Another one that claims the role by a lower epoch is told at once that it is wrong, and neighbours that may have
    /// learnt its address are told again: while it lasts, and once more when it is over.
    fn mind_rival(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let rival = heartbeat.state.claims() && heartbeat.epoch < self.epoch;
        if rival {
            self.beat_wanted = true;
        }
        if rival || self.has_rival {
            self.announcer.again(now);
        }
        self.has_rival = rival;
    }

    /// The copying of flows has come further.
    pub(super) fn hear_sync(&mut self, report: SyncReport, now: Instant, actions: &mut Vec<Action>) {
        self.sync = report;
        self.differs_since = match report.replica {
            Replica::Differs => self.differs_since.or(Some(now)),
            Replica::Partial | Replica::Equal | Replica::Lost => None,
        };
        if self.phase == Phase::Syncing && report.replica == Replica::Lost {
            self.request_bulk(actions);
        }
    }

    /// Asks for all flows, once for each session that is no good.
    pub(super) fn request_bulk(&mut self, actions: &mut Vec<Action>) {
        let session = self.sync.progress.session;
        if self.unready().is_none() || self.old_session == Some(session) {
            return;
        }
        self.old_session = Some(session);
        actions.push(Action::RequestBulk);
    }

    /// Whether the copy was given up: not for a difference that may be repaired in time.
    pub(super) fn copy_is_bad(&self, now: Instant) -> bool {
        self.old_session == Some(self.sync.progress.session)
            || self.config_differs()
            || match self.sync.replica {
                Replica::Equal => false,
                Replica::Partial | Replica::Lost => true,
                Replica::Differs => self.differs_since.is_none_or(|since| now.since(since) >= Timers::REPAIR),
            }
    }

    pub(super) fn config_differs(&self) -> bool {
        self.peer.is_some_and(|peer| peer.last.sync.config_hash != self.sync.progress.config_hash)
    }

    /// Whether the data plane has not moved for the stall time.
    pub(super) fn data_plane_stalled(&self, now: Instant) -> bool {
        now.since(self.data_plane_at) >= self.timers.stall
    }

    /// Whether the peer was silent on all paths for the dead time, as far as this one could hear.
    pub(super) fn peer_is_silent(&self, now: Instant) -> bool {
        self.peer.is_none_or(|peer| {
            peer.gone().is_some() || now.since(peer.heard_at.max(self.watch_from)) >= self.timers.dead
        })
    }

    /// Whether the standby can take over at once.
    pub(super) fn peer_is_ready(&self, now: Instant) -> bool {
        !self.peer_is_silent(now) && !self.config_differs() && self.peer.is_some_and(|peer| peer.says_ready())
    }

    /// Whether the peer has shown that it had heard this one after `resumed_at`, and was passive then; or, after that, that
    /// it takes over only if told to.
    pub(super) fn peer_has_proved(&self, resumed_at: Instant) -> bool {
        let Some(peer) = self.peer.filter(|peer| !peer.claims() && peer.last.state != State::HandoffIn) else {
            return false;
        };
        let echo = peer.last.echo.is_some_and(|echo| echo.sent_at >= resumed_at);
        let idle = matches!(peer.last.state, State::Maint | State::Fault) && peer.heard_at >= resumed_at;
        peer.gone().is_none() && (echo || idle || self.lacks(Safeguard::EchoProof))
    }
}
