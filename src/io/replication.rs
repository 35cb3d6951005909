//! The copying of flows, for the thread that talks to the peer: takes from the workers what is to be told, hands them what
//! was heard, and keeps both in order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::copying::Again;
use super::lanes::{News, PeerLane, WorkerLane, lane};
use super::worker::Mailbox;
use crate::control::ha::sync::{Ack, NotUnderstood, Receiver, Sender, Taken, Told};
use crate::control::ha::{Digest, Progress, Replica, SyncReport};
use crate::engine::{Instant, Shared, WorkerId};

/// What is taken from one worker at once.
const AT_ONCE: usize = 1024;
/// With more under way, flows are not told again: what changes goes first.
const MOST_UNDER_WAY: u64 = 2048;

/// Both directions of the copying of flows.
#[derive(Debug)]
pub struct Replication {
    lanes: Box<[Lane]>,
    sender: Sender,
    receiver: Receiver,
    /// Whether this session is still to begin with all flows.
    owes_all: bool,
    /// The peer's life that the sender's session is for.
    told_to: Option<u64>,
    /// The session that is no good: another one is asked for until it begins.
    unwanted: Option<u32>,
    /// Changes that found no place in a lane: nothing more is taken from the network meanwhile.
    delayed: VecDeque<Told>,
    /// Whether the last text is to be acknowledged.
    owes_ack: bool,
}

/// Has the owners of all flows tell them in this session, in their own time. Takes as long as to list them: not for a
/// thread that has anything else to do.
pub fn tell_all(shared: &Shared, mailboxes: &[Mailbox], session: u32) {
    shared.table.for_each(|flow| mailboxes[usize::from(flow.owner().0)].tell_again(Again::Flow(flow.hold())));
    mailboxes.iter().for_each(|mailbox| mailbox.tell_again(Again::Last(session)));
}

#[derive(Debug)]
struct Lane {
    ends: PeerLane,
    /// The session of what comes next.
    session: u32,
    /// Changes that the worker has told so far.
    told: u64,
    /// LSN of the last of each batch that was taken from it, and how many changes there had been by then.
    batches: VecDeque<(u64, u64)>,
}

impl Replication {
    /// For so many workers, whose ends of the lanes are given, too; texts have at most `room` bytes. Sessions are numbered
    /// from a place that depends on this process' life, so that no two have the same number.
    pub fn new(workers: u16, room: usize, boot: u64) -> (Self, Vec<WorkerLane>) {
        let (worker_ends, lanes) = (0..workers)
            .map(|_| {
                let (worker, ends) = lane();
                (worker, Lane { ends, session: 0, told: 0, batches: VecDeque::new() })
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let this = Self {
            lanes: lanes.into(),
            sender: Sender::new(room, boot),
            receiver: Receiver::default(),
            owes_all: false,
            told_to: None,
            unwanted: None,
            delayed: VecDeque::new(),
            owes_ack: false,
        };
        (this, worker_ends)
    }

    /// The peer, of this life, has the flows of this session only, and asks for all: true if another begins. Workers are to
    /// be woken then, so that they see it.
    pub fn asked_for_all(&mut self, boot: u64, has: u32) -> bool {
        if self.told_to == Some(boot) && self.sender.session() != has {
            return false; // It is on its way.
        }
        self.begin_anew(boot);
        true
    }

    /// Another session begins for the peer of this life.
    pub fn begin_anew(&mut self, boot: u64) {
        self.owes_all = true;
        self.told_to = Some(boot);
        self.sender.begin();
        let session = self.sender.session();
        for lane in &mut self.lanes {
            lane.ends.marks.overflow.store(false, Relaxed);
            lane.ends.marks.session.store(session, Release);
        }
    }

    /// The session for which all flows are to be [told](tell_all) now, once: every worker tells what it does in it, so that a
    /// flow is either seen by who goes through the table from now on, or told by its worker, or both.
    pub fn is_to_tell_all(&mut self) -> Option<u32> {
        let session = self.sender.session();
        let now = self.owes_all && self.lanes.iter().all(|lane| lane.ends.marks.telling.load(Acquire) == session);
        self.owes_all &= !now;
        now.then_some(session)
    }

    /// Nobody is told any more: this gateway does not serve, or the peer is gone.
    pub fn stop_telling(&mut self) {
        self.told_to = None;
        self.owes_all = false;
        self.lanes.iter().for_each(|lane| lane.ends.marks.session.store(0, Release));
    }

    /// Whether packets wait until the peer knows their flows.
    pub fn wait_for_commits(&self, so: bool) {
        self.lanes.iter().for_each(|lane| lane.ends.marks.commits.store(so, Relaxed));
    }

    /// Packets that left before the peer knew their flows, for it took too long.
    pub fn uncommitted(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.ends.marks.uncommitted.load(Relaxed)).sum()
    }

    /// Whether somebody is told.
    pub const fn is_telling(&self) -> bool {
        self.told_to.is_some()
    }

    /// Whether what was told is worth nothing, because some of it was lost.
    pub fn is_broken(&self) -> bool {
        self.sender.is_lost() || self.lanes.iter().any(|lane| lane.ends.marks.overflow.load(Acquire))
    }

    /// Sends what the workers have told since, and what seems to be lost; true if there is more.
    pub fn transmit(&mut self, now: Instant, send: impl FnMut(&[u8])) -> bool {
        let (session, broken) = (self.sender.session(), self.is_broken());
        let mut more = false;
        for (worker, lane) in (0..).map(WorkerId).zip(&mut self.lanes) {
            let mut last = None;
            more |= lane.ends.waiting() > AT_ONCE;
            for _ in 0..AT_ONCE {
                match lane.ends.next() {
                    Some(News::Session(session)) => lane.session = session,
                    Some(News::Change(change)) => {
                        lane.told += 1;
                        if lane.session == session && self.told_to.is_some() && !broken {
                            last = Some(self.sender.push(&Told { worker, change }));
                        }
                    }
                    None => break,
                }
            }
            last.into_iter().for_each(|lsn| lane.batches.push_back((lsn, lane.told)));
        }
        if self.told_to.is_some() {
            self.sender.transmit(now, send);
        }
        let is_full = self.sender.under_way() > MOST_UNDER_WAY;
        self.lanes.iter().for_each(|lane| lane.ends.marks.is_full.store(is_full, Relaxed));
        more
    }

    /// When [`Self::transmit`] wants to be called, if no worker has anything new.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.told_to.and_then(|_| self.sender.poll_timeout())
    }

    /// Hears what has reached the peer, and sends what it misses; `wake` wakes a worker that waits for it.
    ///
    /// # Errors
    /// It is no acknowledgment.
    pub fn hear_ack(
        &mut self,
        text: &[u8],
        now: Instant,
        send: impl FnMut(&[u8]),
        mut wake: impl FnMut(WorkerId),
    ) -> Result<(), NotUnderstood> {
        self.sender.acknowledge(&Ack::get(text)?, now, send);
        let acknowledged = self.sender.acknowledged();
        for (worker, lane) in (0..).map(WorkerId).zip(&mut self.lanes) {
            let mut committed = None;
            while let Some((_, told)) = lane.batches.pop_front_if(|(lsn, _)| *lsn <= acknowledged) {
                committed = Some(told);
            }
            if let Some(committed) = committed {
                lane.ends.marks.committed.store(committed, SeqCst);
            }
            // The worker says that it waits, and then looks: one of the two sees what the other has done.
            if lane.ends.marks.waits.swap(false, SeqCst) {
                wake(worker);
            }
        }
        Ok(())
    }

    /// Hears changes of the peer's flows; `wake` wakes a worker that has something to do.
    ///
    /// # Errors
    /// They are none.
    pub fn hear(&mut self, text: &[u8], wake: impl FnMut(WorkerId)) -> Result<(), NotUnderstood> {
        self.deliver();
        if !self.delayed.is_empty() {
            return Ok(()); // It will come again.
        }
        let taken = self.receiver.take(text, |told| self.delayed.push_back(told))?;
        if taken == Taken::NewSession {
            self.lanes.iter().for_each(|lane| lane.ends.marks.set_replica(Replica::Partial));
        }
        self.owes_ack = true;
        let workers = self.delayed.iter().map(|told| told.worker).collect::<BTreeSet<_>>();
        self.deliver();
        workers.into_iter().for_each(wake);
        Ok(())
    }

    /// Writes the acknowledgment that is owed; false if none is.
    pub fn acknowledge(&mut self, out: &mut Vec<u8>) -> bool {
        self.deliver();
        let owes = self.owes_ack && self.delayed.is_empty();
        if owes {
            self.owes_ack = false;
            self.receiver.ack().put(out);
        }
        owes
    }

    /// Hands workers what has waited for a place; false if some still waits.
    fn deliver(&mut self) -> bool {
        while let Some(told) = self.delayed.front() {
            let Some(lane) = self.lanes.get_mut(usize::from(told.worker.0)) else {
                self.delayed.pop_front(); // It has more workers than this one: the configurations differ.
                continue;
            };
            if !lane.ends.hand(told.change) {
                return false;
            }
            self.delayed.pop_front();
        }
        true
    }

    /// What is known of the peer's flows is no good: all of them are to be told anew.
    pub const fn want_all(&mut self) {
        self.unwanted = Some(self.receiver.session());
    }

    /// The session to be named when the peer is asked for all, now and then until another one begins.
    pub fn asks_for_all(&self) -> Option<u32> {
        self.unwanted.filter(|session| *session == self.receiver.session())
    }

    /// The peer lives another life, or this gateway serves now: what was heard of it is all that will be.
    pub fn stop_hearing(&mut self) {
        self.deliver();
        self.delayed.clear();
        self.receiver.reset();
        self.unwanted = None;
        self.owes_ack = false;
        self.lanes.iter().for_each(|lane| lane.ends.marks.set_replica(Replica::Partial));
    }

    /// What the copying has come to; `flows` and `config_hash` are those of this gateway.
    pub fn report(&self, flows: u32, config_hash: u64) -> SyncReport {
        let listening = !self.is_telling();
        let replicas = self.lanes.iter().map(|lane| lane.ends.marks.replica());
        let replica = if replicas.clone().any(|replica| replica == Replica::Partial) {
            Replica::Partial
        } else if replicas.into_iter().all(|replica| replica == Replica::Equal) {
            Replica::Equal
        } else {
            Replica::Differs
        };
        let produced_lsn = if listening { 0 } else { self.sender.produced() };
        let progress = Progress {
            session: if listening { self.receiver.session() } else { self.sender.session() },
            produced_lsn,
            applied_lsn: self.receiver.applied(),
            flows,
            digest: Digest { lsn: produced_lsn, root: 0 },
            config_hash,
            unshared: u32::try_from(self.unshared()).unwrap_or(u32::MAX),
        };
        SyncReport { progress, replica }
    }

    /// LSN of the last change that was told.
    pub const fn produced(&self) -> u64 {
        self.sender.produced()
    }

    /// Changes that the peer has not confirmed.
    pub const fn unshared(&self) -> u64 {
        if self.told_to.is_some() { self.sender.under_way() } else { 0 }
    }

    /// Since when the oldest of them has been under way.
    pub fn oldest(&self) -> Option<Instant> {
        self.told_to.and_then(|_| self.sender.oldest())
    }

    /// Texts that were sent again.
    pub const fn sent_again(&self) -> u64 {
        self.sender.sent_again()
    }

    /// Flows that could not be taken over.
    pub fn refused(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.ends.marks.refused.load(Relaxed)).sum()
    }

    /// Flows taken over, those that were told again included.
    pub fn imported(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.ends.marks.imported.load(Relaxed)).sum()
    }
}
