//! What the gateway that serves tells the other one of a pair: every change of its flows, in order.
//!
//! A change is noted where it is made, on the slow path; the worker takes the notes after the packet. A flow is always told
//! by the worker that owns it, also where all flows are told anew (a bulk), so that of each flow there is one order and
//! the other side needs no versions.

use std::vec::Drain;

use super::Engine;
use super::conntrack::{Direction, Flow, FlowKey, FlowRecord, FlowRef, State};
use crate::wire::Protocol;

/// A change of the flows of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// What the other side has, and does not hear of until [`Self::End`], is no more.
    Begin,
    /// There is such a flow, or it stands elsewhere now.
    Upsert(FlowRecord),
    /// The flow with this original key is no more.
    Delete(FlowKey),
    /// All flows have been told.
    End,
    /// Here the flows of the two sides are the same, if all is well.
    Mark(Digest),
}

/// What two tables have in common that hold the same flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many there are.
    pub flows: u32,
    /// [`FlowRecord::digest`] of each, by exclusive or.
    pub sum: u64,
}

/// What one worker has to tell.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Whether anybody is to hear of it.
    told: bool,
    changes: Vec<Change>,
    /// Whether the packet in hand must not leave before the other side knows.
    commits: bool,
    /// Of this worker's flows.
    pub(super) digest: Digest,
    /// The colour of what was heard of since [`Change::Begin`]; see [`Flow::is_coloured`].
    pub(super) colour: bool,
}

impl Journal {
    fn push(&mut self, change: Change) {
        if self.told {
            self.changes.push(change);
        }
    }

    pub(super) fn opened(&mut self, record: &FlowRecord) {
        self.digest.flows += 1;
        self.digest.sum ^= record.digest();
    }

    pub(super) fn closed(&mut self, record: &FlowRecord) {
        self.digest.flows -= 1;
        self.digest.sum ^= record.digest();
        self.push(Change::Delete(record.original));
    }
}

impl Engine {
    /// This engine is that of a gateway with a peer: it keeps account of its flows from now on. To be called before there
    /// are any.
    pub fn pair(&mut self) {
        debug_assert_eq!(self.expiry.flows(), 0, "they are not accounted for");
        self.journal = Some(Box::default());
    }

    /// Whether changes are noted: while this gateway serves and the other one listens.
    pub fn tell(&mut self, told: bool) {
        if let Some(journal) = &mut self.journal {
            journal.told = told;
            journal.changes.clear();
            journal.commits = false;
        }
    }

    /// Whether there is something to be told.
    #[inline(always)]
    pub fn has_news(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| !journal.changes.is_empty())
    }

    /// What is to be told, oldest first, and whether the packet in hand must not leave before it is known on the other side:
    /// what its receiver does when he has got it would make no sense there (output commit). Of a connection by NAT that is
    /// the SYN-ACK to the client, by a tunnel the SYN; of other flows by full NAT the first packet, from a port that is
    /// known here only.
    pub fn news(&mut self) -> (Drain<'_, Change>, bool) {
        let journal = self.journal.as_mut().expect("there is something to be told");
        (journal.changes.drain(..), std::mem::take(&mut journal.commits))
    }

    /// Notes that all is to be told anew from here on: [`Self::tell_again`] of every flow follows, then [`Self::tell_end`].
    pub fn tell_begin(&mut self) {
        self.note(Change::Begin);
    }

    /// Notes a flow of this worker as it is, if it is still there.
    pub fn tell_again(&mut self, flow: &FlowRef) {
        if flow.is_alive() {
            self.note(Change::Upsert(flow.record()));
        }
    }

    /// See [`Self::tell_begin`].
    pub fn tell_end(&mut self) {
        self.note(Change::End);
        self.tell_mark();
    }

    /// Notes what the flows are now, so that the other side can compare.
    pub fn tell_mark(&mut self) {
        self.note(Change::Mark(self.digest()));
    }

    /// Of the flows of this worker, if it belongs to a pair.
    pub fn digest(&self) -> Digest {
        self.journal.as_ref().map_or_else(Digest::default, |journal| journal.digest)
    }

    fn note(&mut self, change: Change) {
        if let Some(journal) = &mut self.journal {
            journal.push(change);
        }
    }

    /// A flow begins with the packet in hand.
    pub(super) fn note_opened(&mut self, flow: &Flow) {
        let Some(journal) = &mut self.journal else { return };
        let record = flow.record();
        journal.opened(&record);
        journal.push(Change::Upsert(record));
        let commits = match flow.protocol() {
            Protocol::TCP => flow.is_tunnelled(), // by NAT, its SYN-ACK
            _ => flow.is_leased(),
        };
        journal.commits |= journal.told && commits;
    }

    /// The packet in hand, which goes this way, has moved a flow of this worker.
    pub(super) fn note_moved(&mut self, flow: &Flow, direction: Direction) {
        let Some(journal) = &mut self.journal else { return };
        if journal.told {
            journal.push(Change::Upsert(flow.record()));
            journal.commits |= direction == Direction::Reply && flow.state() == State::SynReceived;
        }
    }

    /// A flow of this worker has ended.
    pub(super) fn note_closed(&mut self, flow: &Flow) {
        if let Some(journal) = &mut self.journal {
            journal.closed(&flow.record());
        }
    }
}
