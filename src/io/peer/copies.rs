//! The heartbeat thread's part in the copying of flows.

use std::collections::VecDeque;
use std::sync::Arc;

use super::News;
use super::heart::Heart;
use crate::control::ha::header::Kind;
use crate::control::ha::message::Message;
use crate::control::ha::{Event, State, SyncReport};
use crate::engine::{Instant, Shared};
use crate::io::replication::Replication;
use crate::io::worker::Mailbox;

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

impl Heart {
    /// Tells the core how far the copying is, if that is news.
    pub(super) fn report_sync(&mut self, now: Instant) {
        if let Some(report) = self.copies.news(self.config_hash) {
            self.step(Event::Sync(report), now);
        }
    }

    /// Sends what is to be told of flows, and what was heard of the peer's.
    pub(super) fn copy(&mut self, now: Instant) {
        let path = self.best_path(now);
        let Self { channel, outgoing, paths, copies, .. } = self;
        let mut send = |kind, text: &[u8]| {
            if channel.seal(kind, 0, path, outgoing, |out| out.extend_from_slice(text)) {
                paths[usize::from(path)].send(outgoing);
            }
        };
        copies.texts.drain(..).for_each(|text| send(Kind::Sync, &text));
        while copies.replication.transmit(now, |text| send(Kind::Sync, text)) {}
        copies.ack.clear();
        if copies.replication.acknowledge(&mut copies.ack) {
            send(Kind::Ack, &copies.ack);
        }
        if let Some(session) = copies.replication.is_to_tell_all() {
            self.line.tell(News::TellAll(session));
        }
        self.mend_session(now);
        self.report_sync(now);
    }

    /// A session of which something is lost is worth nothing: the peer, if it is there, is told all anew.
    fn mend_session(&mut self, now: Instant) {
        if !self.copies.replication.is_broken() {
            return;
        }
        let status = self.core.status(now);
        let is_there = status.peer.is_some_and(|peer| now.since(peer.heard_at) < status.timers.dead);
        match self.channel.peer().filter(|_| is_there) {
            Some(boot) => {
                self.copies.replication.begin_anew(boot);
                self.mailboxes.iter().for_each(Mailbox::wake);
            }
            None => self.copies.replication.stop_telling(),
        }
    }

    /// Now and then, until the peer begins to tell all.
    pub(super) fn ask_for_all(&mut self, now: Instant) {
        if let Some(session) = self.copies.replication.asks_for_all() {
            self.say(Message::Bulk(&session.to_be_bytes()), self.best_path(now));
        }
    }
}
