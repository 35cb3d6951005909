//! What the heartbeat thread keeps of the copying of flows.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::control::ha::{State, SyncReport};
use crate::engine::{Instant, Shared};
use crate::io::replication::Replication;

/// Packets of the old active that may wait for this gateway to have taken the role.
const MOST_RELAYED: usize = 4096;

#[derive(Debug)]
pub(super) struct Copies {
    pub(super) replication: Replication,
    shared: Arc<Shared>,
    /// The peer's life whose flows are known here.
    boot: Option<u64>,
    told: Option<SyncReport>,
    /// To be sent again at once.
    pub(super) texts: Vec<Vec<u8>>,
    pub(super) ack: Vec<u8>,
    /// All that was decided before is to be told.
    pub(super) flush_since: Option<Instant>,
    /// Packets that wait for this gateway to forward.
    pub(super) relayed: VecDeque<Vec<u8>>,
}

impl Copies {
    pub(super) fn new(replication: Replication, shared: Arc<Shared>) -> Self {
        let (texts, ack, relayed) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { replication, shared, boot: None, told: None, texts, ack, flush_since: None, relayed }
    }

    /// A message of this life of the peer: what another one has told is void.
    pub(super) fn meet(&mut self, boot: u64) {
        if self.boot.replace(boot).is_some_and(|before| before != boot) {
            self.replication.stop_hearing();
        }
    }

    /// What the gateway is has changed.
    pub(super) fn change(&mut self, from: State, to: State) {
        if to.claims() && !from.claims() {
            self.replication.stop_hearing();
        }
        if from.claims() && !to.claims() {
            self.replication.stop_telling();
        }
        if !matches!(to, State::HandoffIn) && !to.claims() {
            self.relayed.clear();
        }
    }

    /// A packet that the old active leaves to this one.
    pub(super) fn relay(&mut self, packet: &[u8], state: State) {
        let taken = state.forwards() || state == State::HandoffIn;
        if taken && self.relayed.len() < MOST_RELAYED {
            self.relayed.push_back(packet.to_vec());
        }
    }

    /// How far the copying is, if that is another report than the last.
    pub(super) fn news(&mut self, config_hash: u64) -> Option<SyncReport> {
        let report = self.replication.report(self.shared.table.len(), config_hash);
        (self.told.replace(report) != Some(report)).then_some(report)
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.replication.poll_timeout().unwrap_or(Instant::MAX)
    }
}
