//! What is known of the peer, by its heartbeats.

use std::time::Duration;

use super::{Epoch, Flags, Goodbye, Heartbeat, Legs, Reason, State};
use crate::engine::Instant;

/// The peer, once it was heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    boot: u64,
    /// The newest heartbeat.
    pub(super) last: Heartbeat,
    /// When that came.
    pub(super) heard_at: Instant,
    /// When one came that claims the role, of a peer whose data plane moves.
    pub(super) claimed_at: Instant,
    /// It has said goodbye.
    goodbye: Option<Goodbye>,
}

impl Peer {
    pub(super) fn new(boot: u64, at: Instant, heartbeat: &Heartbeat, stall: Duration) -> Self {
        let mut peer = Self { boot, last: *heartbeat, heard_at: at, claimed_at: Instant::ZERO, goodbye: None };
        peer.take(at, heartbeat, stall);
        peer
    }

    /// Takes a heartbeat; false for one that a newer one has overtaken, or a goodbye.
    pub(super) fn hear(&mut self, boot: u64, at: Instant, heartbeat: &Heartbeat, stall: Duration) -> bool {
        if boot != self.boot {
            *self = Self { claimed_at: self.claimed_at, ..Self::new(boot, at, heartbeat, stall) };
            return true;
        }
        let overtaken = heartbeat.seq.wrapping_sub(self.last.seq).cast_signed() < 0;
        let given_up = self.goodbye.is_some_and(|goodbye| heartbeat.state.claims() && heartbeat.epoch <= goodbye.epoch);
        if overtaken || given_up {
            return false;
        }
        self.take(at, heartbeat, stall);
        true
    }

    pub(super) const fn boot(&self) -> u64 {
        self.boot
    }

    fn take(&mut self, at: Instant, heartbeat: &Heartbeat, stall: Duration) {
        self.last = *heartbeat;
        self.goodbye = None;
        self.heard_at = self.heard_at.max(at);
        // A heartbeat thread that lives must not hide a data plane that does not.
        if heartbeat.state.claims() && heartbeat.data_plane_age <= stall {
            self.claimed_at = self.claimed_at.max(at);
        }
    }

    /// It stops; of an epoch that it has left behind, that says nothing.
    pub(super) fn says_goodbye(&mut self, goodbye: Goodbye) -> bool {
        let of_now = goodbye.epoch >= self.last.epoch;
        if of_now {
            self.goodbye = Some(goodbye);
        }
        of_now
    }

    /// Why it has gone, if it said so.
    pub(super) fn gone(&self) -> Option<Reason> {
        self.goodbye.map(|goodbye| goodbye.reason)
    }

    /// Whether it has the role, by what it said last.
    pub(super) fn claims(&self) -> bool {
        self.goodbye.is_none() && self.last.state.claims()
    }

    /// Whether it has the role by an epoch above this one.
    pub(super) fn claims_above(&self, epoch: Epoch) -> bool {
        self.claims() && self.last.epoch > epoch
    }

    /// Its copy is proved equal, and it would take over at once.
    pub(super) fn says_ready(&self) -> bool {
        matches!(self.last.state, State::Standby | State::Drain) && self.last.flags.has(Flags::READY)
    }

    /// It went to and fro too often.
    pub(super) fn is_held(&self) -> bool {
        self.last.flags.has(Flags::HOLD)
    }

    pub(super) const fn legs(&self) -> Legs {
        Legs {
            external: self.last.flags.has(Flags::LEG_EXT),
            internal: self.last.flags.has(Flags::LEG_INT),
            upstream: self.last.flags.has(Flags::UPSTREAM_OK),
        }
    }
}

/// What came by one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStatus {
    /// When the last heartbeat came in.
    pub heard_at: Option<Instant>,
    /// How long ago the peer has heard us by it, when that was sent.
    pub peer_heard: Option<Duration>,
    /// There and back, of the last heartbeat that came back.
    pub rtt: Option<Duration>,
    /// Heartbeats that came in.
    pub received: u64,
    /// Heartbeats that are missing between those.
    pub lost: u64,
    /// The peer's life that sent the last, and how many rounds it had sent by then.
    boot: u64,
    seq: u32,
    /// When the last was sent, by the peer's clock: to be echoed.
    pub(super) sent_at: Instant,
}

impl PathStatus {
    pub(super) fn hear(&mut self, index: usize, boot: u64, at: Instant, heartbeat: &Heartbeat) {
        if self.heard_at.is_some() && boot == self.boot {
            let Some(missing) = heartbeat.seq.wrapping_sub(self.seq).checked_sub(1).filter(|n| *n < 1 << 16) else {
                return;
            };
            self.lost += u64::from(missing);
        }
        (self.boot, self.seq) = (boot, heartbeat.seq);
        self.received += 1;
        self.heard_at = Some(at);
        self.sent_at = heartbeat.sent_at;
        self.peer_heard = heartbeat.rx_age.get(index).copied().flatten();
        if let Some(echo) = heartbeat.echo {
            self.rtt = Some(at.since(echo.sent_at).saturating_sub(echo.held_for));
        }
    }
}
