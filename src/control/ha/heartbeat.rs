//! What two gateways say to each other about their roles. A heartbeat says all; nothing depends on an earlier message.

use std::time::Duration;

use super::{Epoch, Reason, State};
use crate::engine::Instant;

/// Most paths between two gateways.
pub const MAX_PATHS: usize = 4;

/// A path between the two, an index below [`MAX_PATHS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathId(pub u8);

/// All that a gateway says of itself, several times in each dead time, on each path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// The highest epoch it knows; its own if its state claims the role.
    pub epoch: Epoch,
    /// The epoch that its own followed.
    pub base: Epoch,
    /// What it is.
    pub state: State,
    /// Who goes first if both start at once: the higher one.
    pub prefer: u8,
    /// Yes and no.
    pub flags: Flags,
    /// Its time between heartbeats.
    pub interval: Duration,
    /// Its dead time.
    pub dead: Duration,
    /// One higher with each round of heartbeats; the same on all paths.
    pub seq: u32,
    /// When it was sent, by the sender's clock.
    pub sent_at: Instant,
    /// The last heartbeat that it has heard on this path.
    pub echo: Option<Echo>,
    /// By path, how long ago the last heartbeat came in; `None` before the first.
    pub rx_age: [Option<Duration>; MAX_PATHS],
    /// How far its copy of the flows is.
    pub sync: Progress,
    /// How long ago its data plane was last seen moving.
    pub data_plane_age: Duration,
}

/// What came back of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Echo {
    /// When that was sent, by the clock of who sent it.
    pub sent_at: Instant,
    /// How long it lay here until this one left.
    pub held_for: Duration,
}

/// Yes and no, as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// Its copy of the flows is proved equal: it can take over.
    pub const READY: Self = Self(1);
    /// It has got all flows once.
    pub const SYNCED: Self = Self(1 << 1);
    /// The operator keeps it passive.
    pub const MAINT: Self = Self(1 << 2);
    /// The way upstream is good.
    pub const UPSTREAM_OK: Self = Self(1 << 3);
    /// Its data plane moves.
    pub const DP_OK: Self = Self(1 << 4);
    /// The link to the clients is up.
    pub const LEG_EXT: Self = Self(1 << 5);
    /// The link to the backends is up.
    pub const LEG_INT: Self = Self(1 << 6);
    /// Its heartbeat thread has real-time priority.
    pub const FIFO: Self = Self(1 << 7);
    /// It went to and fro too often, and takes over only in need.
    pub const HOLD: Self = Self(1 << 8);

    /// From the wire; unknown bits of a later version stay.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// For the wire.
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With `other` too, if `so`.
    #[must_use]
    pub const fn with(self, other: Self, so: bool) -> Self {
        if so { Self(self.0 | other.0) } else { self }
    }
}

/// How far a gateway's flows are, for the other to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Which stream of records this is; a new one with each (re)join.
    pub session: u32,
    /// The number of the last record made here.
    pub produced_lsn: u64,
    /// The number up to which all of the peer's are in the table here.
    pub applied_lsn: u64,
    /// Flows in the table.
    pub flows: u32,
    /// What the table was at one point of the stream.
    pub digest: Digest,
    /// Of the parts of the configuration that decide where packets go.
    pub config_hash: u64,
    /// Flows made here that the peer has not confirmed.
    pub unshared: u32,
}

/// The sum of a table at one point of the stream of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest {
    /// The record after which it was taken.
    pub lsn: u64,
    /// Root over all buckets.
    pub root: u64,
}

/// A message of a planned change of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handoff {
    /// The one that the new active will have.
    pub epoch: Epoch,
    /// Which attempt of the old active, so that no message of an earlier one counts.
    pub intent: u32,
    /// What is said.
    pub step: Step,
}

/// The steps of a planned change of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Old to new: be ready to take the role.
    Prepare,
    /// New to old: I am.
    Ready,
    /// Old to new: after this record I have decided nothing more, and the table is this.
    Commit(Digest),
    /// New to old: I have the role.
    CommitAck,
    /// Either: it is off.
    Cancel,
}

/// Said on all paths by one that stops, or for it by its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Goodbye {
    /// The epoch it held.
    pub epoch: Epoch,
    /// Why.
    pub reason: Reason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_apart() {
        let flags = Flags::default().with(Flags::READY, true).with(Flags::FIFO, true).with(Flags::MAINT, false);
        assert!(flags.has(Flags::READY) && flags.has(Flags::FIFO));
        assert!(!flags.has(Flags::MAINT) && !flags.has(Flags::DP_OK));
        assert_eq!(Flags::from_bits(flags.to_bits()), flags);
    }
}
