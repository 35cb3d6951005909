//! What the core is told, what it wants done, and what an operator may ask of it.

use std::fmt;

use super::{Digest, Epoch, Goodbye, Handoff, Heartbeat, PathId, Progress, State, Transition};
use crate::engine::Instant;

/// What the core is told. Messages of the peer have been authenticated, are of its present boot, and come only once.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A heartbeat of the peer.
    Heartbeat {
        /// The peer's boot: another one has forgotten all it was.
        boot: u64,
        /// The path by which it came.
        path: PathId,
        /// When the kernel got it: not when it was read.
        at: Instant,
        /// What it says.
        heartbeat: &'a Heartbeat,
    },
    /// The peer, or its supervisor, says that it stops.
    Goodbye(Goodbye),
    /// A message of a planned change of roles.
    Handoff(Handoff),
    /// [`Core::poll_timeout`](super::Core::poll_timeout) is over. First the time is taken, then all sockets are read empty,
    /// then this is said with that time: so silence is not what has come and was not read.
    Tick,
    /// What the copying of flows has come to.
    Sync(SyncReport),
    /// The data plane was seen moving; to be told before each tick.
    DataPlane {
        /// When it last moved.
        ticked_at: Instant,
    },
    /// The data plane has seen the permission to forward under this epoch, and works by it.
    Forwarding(Epoch),
    /// What was decided before [`Action::Flush`] is on its way to the peer.
    Flushed(Digest),
    /// What this gateway can reach.
    Legs(Legs),
}

/// What the copying of flows has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SyncReport {
    /// How far.
    pub progress: Progress,
    /// How good the copy here is.
    pub replica: Replica,
}

/// How good a passive gateway's copy of the flows is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Replica {
    /// Not all flows are here yet.
    #[default]
    Partial,
    /// All are, and the digests were equal at the last mark.
    Equal,
    /// All were, but the digests differ; being repaired.
    Differs,
    /// Records are missing that cannot be had any more.
    Lost,
}

/// What a gateway can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Legs {
    /// The link to the clients is up.
    pub external: bool,
    /// The link to the backends is up.
    pub internal: bool,
    /// The way upstream answers.
    pub upstream: bool,
}

impl Legs {
    /// All is well.
    pub const UP: Self = Self { external: true, internal: true, upstream: true };

    /// Whether all is well.
    pub const fn all_up(self) -> bool {
        self.external && self.internal && self.upstream
    }
}

/// What the core wants done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send [`Core::heartbeat`](super::Core::heartbeat) on each path.
    SendHeartbeat,
    /// Send on all paths.
    SendGoodbye(Goodbye),
    /// Send on all paths.
    SendHandoff(Handoff),
    /// Let the data plane forward, as long as this lasts.
    Forward(Permit),
    /// Take the permission back: no batch may begin after this.
    Stop,
    /// Tell neighbours that the VIPs are here: gratuitous ARP requests, neighbour advertisements.
    Announce,
    /// Answer no more for the VIPs.
    Withdraw,
    /// Send packets that come in to the peer, instead of deciding about them.
    Relay(bool),
    /// Send the peer all records of what was decided, then say [`Event::Flushed`].
    Flush,
    /// Ask the peer for all its flows, in a new session.
    RequestBulk,
    /// Whether new flows wait until the standby has them.
    CommitWait(bool),
    /// Write the epoch to the state directory. `before_use`: do what follows only when it is on the disk.
    PersistEpoch {
        /// To write.
        epoch: Epoch,
        /// At a cold start, when there is no peer who remembers it.
        before_use: bool,
    },
    /// For the log.
    Transition(Transition),
    /// For the log: what was asked for has come to nothing.
    FlipFailed(Refusal),
}

/// Permission to forward. It ends by itself, so that a process which was held up stops before it sends anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permit {
    /// Under which epoch.
    pub epoch: Epoch,
    /// No batch may begin at this time or later.
    pub until: Instant,
}

impl Permit {
    /// Whether a batch may begin.
    #[inline]
    pub fn holds(&self, now: Instant) -> bool {
        now < self.until
    }
}

/// What an operator may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Hand over to the standby without loss. `force`: even if it is not ready.
    Flip {
        /// Although flows may be lost.
        force: bool,
    },
    /// Take over. `force`: even from a peer that lives, or with a partial copy.
    Promote {
        /// Although flows may be lost.
        force: bool,
    },
    /// Give up the role and stay passive; with a standby that is ready, without loss. `force`: even if nobody takes over.
    /// That, too, is what a gateway does before it ends.
    Standby {
        /// Although nobody may take over.
        force: bool,
    },
    /// Take part again.
    Resume,
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only the active can hand over.
    NotActive(State),
    /// It is active already.
    AlreadyActive,
    /// No heartbeat within the dead time.
    PeerSilent,
    /// The peer is in another state than is needed.
    PeerIs(State),
    /// Its copy of the flows is not proved equal.
    PeerNotReady,
    /// It lacks records that it should have got before its last heartbeat.
    PeerBehind {
        /// How many.
        records: u64,
    },
    /// The configurations differ.
    ConfigDiffers,
    /// It cannot reach clients, backends or the way upstream.
    PeerLegDown,
    /// It went to and fro too often.
    PeerHeld,
    /// One is in progress.
    FlipInProgress,
    /// The peer lives, and is active.
    PeerIsActive,
    /// This one's copy of the flows is not proved equal.
    NotReady,
    /// This one cannot reach clients, backends or the way upstream.
    LegDown,
    /// There is nothing to end.
    NotHeld(State),
    /// The peer did not answer in time.
    NoAnswer,
    /// The peer called it off.
    Cancelled,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotActive(state) => write!(f, "this gateway is {state}: ask the active one"),
            Self::AlreadyActive => f.write_str("this gateway is active already"),
            Self::PeerSilent => f.write_str("no heartbeat of the peer arrives"),
            Self::PeerIs(state) => write!(f, "the peer is {state}, not STANDBY"),
            Self::PeerNotReady => f.write_str("the peer is not ready: its copy of the flows is not proved equal"),
            Self::PeerBehind { records } => write!(f, "the peer lacks {records} records of flows that are not new"),
            Self::ConfigDiffers => f.write_str("the peer's configuration is another one"),
            Self::PeerLegDown => f.write_str("the peer has a link down, or no way upstream"),
            Self::PeerHeld => f.write_str("the peer changed its role too often: `ha resume` there ends that"),
            Self::FlipInProgress => f.write_str("a handover is in progress"),
            Self::PeerIsActive => f.write_str("the peer is alive and active: `ha flip` there loses nothing"),
            Self::NotReady => f.write_str("this gateway's copy of the flows is not proved equal"),
            Self::LegDown => f.write_str("this gateway has a link down, or no way upstream"),
            Self::NotHeld(state) => write!(f, "this gateway is {state}: there is nothing to resume from"),
            Self::NoAnswer => f.write_str("the peer did not answer in time"),
            Self::Cancelled => f.write_str("the peer called the handover off"),
        }
    }
}

impl std::error::Error for Refusal {}
