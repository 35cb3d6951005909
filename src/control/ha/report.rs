//! All there is to tell about the pair, as one of its gateways sees it.

use std::net::SocketAddr;
use std::time::Duration;

use super::seal::Reject;
use super::{Status, Transition};
use crate::engine::Instant;

/// What the thread that talks to the peer tells when it is asked.
#[derive(Clone, Debug)]
pub struct Report {
    /// When that was.
    pub at: Instant,
    /// How it is.
    pub status: Status,
    /// The last changes of state, the newest first.
    pub transitions: Vec<Transition>,
    /// Changes of state since the start, by why they were made.
    pub causes: Vec<(&'static str, u64)>,
    /// Age of the oldest change of a flow that the peer has not confirmed.
    pub oldest_unsynced: Duration,
    /// Datagrams refused, by reason.
    pub rejects: [u64; Reject::ALL.len()],
    /// The heartbeat paths.
    pub paths: Vec<PathReport>,
}

/// One heartbeat path.
#[derive(Clone, Copy, Debug)]
pub struct PathReport {
    /// This gateway's end.
    pub listen: SocketAddr,
    /// The other's.
    pub peer: SocketAddr,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that the kernel did not take.
    pub refused: u64,
}
