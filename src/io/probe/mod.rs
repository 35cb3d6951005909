//! Asks backends how they are: one thread, sockets that never wait, and [`Checks`] to say who is asked when.
//!
//! Plain checks go out as any program's connections do, from an address of this machine. A ping needs one of the
//! kernel's ping sockets (`net.ipv4.ping_group_range`) or CAP_NET_RAW. Checks by a tunnel leave by a worker, and what
//! comes back the engine [has heard](crate::engine::Heard).

mod echo;
mod session;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam_queue::SegQueue;
use mio::{Events, Poll, Token};
use slab::Slab;

use self::session::{Session, outcome_of};
use super::sys;
use super::worker::Mailbox;
use crate::config::Snapshot;
use crate::control::health::{Answer, Change, Checks, Outcome, Question, QuestionId, Reason, Record, Tunnels, Way};
use crate::engine::{Instant, Shared};

const WAKER: Token = Token(usize::MAX);
/// Sockets at once, at most, and at most half of those that this process may have, which is told to be as many as it may:
/// what is beyond waits.
const MOST_SOCKETS: u64 = 8192;

/// The thread that asks. Dropping it ends it.
#[derive(Debug)]
pub struct Prober {
    desk: Arc<Desk>,
    waker: Arc<mio::Waker>,
    thread: Option<JoinHandle<()>>,
}

/// What passes between the thread that asks and the one that wants to know.
#[derive(Debug)]
struct Desk {
    /// A configuration that is to be taken over.
    snapshot: ArcSwapOption<Snapshot>,
    stop: AtomicBool,
    changes: SegQueue<Change>,
    /// Readable when there are changes.
    news: sys::Waker,
}

impl Prober {
    /// Begins to ask, in the network namespace of the calling thread. Packets leave by the workers whose mailboxes these
    /// are; what is found goes into the record, too.
    ///
    /// # Errors
    /// No descriptor or thread left.
    pub fn start(shared: Arc<Shared>, mailboxes: Arc<[Mailbox]>, record: Arc<Record>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER)?);
        for mailbox in mailboxes.iter() {
            mailbox.set_listener(Arc::clone(&waker));
        }
        shared.heard.listen();
        let seed = shared.seed ^ 4;
        let tunnels = Tunnels::new(shared.policy.load().snapshot.gateway.mtu, seed);
        let desk = Arc::new(Desk {
            snapshot: ArcSwapOption::empty(),
            stop: AtomicBool::new(false),
            changes: SegQueue::new(),
            news: sys::Waker::new()?,
        });
        let asker = Asker {
            desk: Arc::clone(&desk),
            shared,
            mailboxes,
            checks: Checks::new(seed, record),
            tunnels,
            pending: Slab::new(),
            deadlines: BinaryHeap::new(),
            poll,
            most: usize::try_from((sys::raise_descriptor_limit() / 2).clamp(16, MOST_SOCKETS)).expect("a small number"),
        };
        let thread = sys::spawn("prober", move || asker.run())?;
        Ok(Self { desk, waker, thread: Some(thread) })
    }

    /// Asks whom this configuration wants asked, from now on.
    pub fn adopt(&self, snapshot: Arc<Snapshot>) {
        self.desk.snapshot.store(Some(snapshot));
        self.wake();
    }

    /// What has changed since this was last called, oldest first.
    pub fn changes(&self) -> Vec<Change> {
        self.desk.news.clear();
        std::iter::from_fn(|| self.desk.changes.pop()).collect()
    }

    fn wake(&self) {
        // An eventfd refuses only what would overflow it.
        let _ = self.waker.wake();
    }
}

impl AsFd for Prober {
    /// Readable when there are [`Self::changes`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.desk.news.as_fd()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.desk.stop.store(true, Relaxed);
        self.wake();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            log::warn!("the thread that asks backends panicked: this is a bug of tungate");
        }
    }
}

/// The thread's own.
struct Asker {
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    mailboxes: Arc<[Mailbox]>,
    checks: Checks,
    tunnels: Tunnels,
    pending: Slab<Pending>,
    /// When the time of each is over. Those of questions that were answered meanwhile are void.
    deadlines: BinaryHeap<Reverse<(Instant, usize, QuestionId)>>,
    poll: Poll,
    most: usize,
}

/// A question that was asked.
struct Pending {
    id: QuestionId,
    session: Session,
    asked: Instant,
}

impl Asker {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut adopted = Arc::clone(&self.shared.policy.load().snapshot);
        self.checks.adopt(&adopted, sys::now());
        while !self.desk.stop.load(Relaxed) {
            // The same again comes with each change of a backend's health.
            let other = self.desk.snapshot.swap(None).filter(|other| !Arc::ptr_eq(other, &adopted));
            if let Some(snapshot) = other {
                self.checks.adopt(&snapshot, sys::now());
                adopted = snapshot;
            }
            self.ask();
            self.serve_tunnels();
            self.report();
            let patience = self.patience(sys::now());
            if let Err(error) = self.poll.poll(&mut events, patience)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("backends are not asked any more: {}", super::words::in_words(&error));
                return;
            }
            let now = sys::now();
            for event in events.iter().filter(|event| event.token() != WAKER) {
                self.ready(event.token(), now);
            }
            self.expire(now);
        }
    }

    /// Asks what it is time for, as far as there are sockets.
    fn ask(&mut self) {
        while self.pending.len() < self.most {
            let now = sys::now();
            let Some(question) = self.checks.poll(now) else { return };
            let Question { id, what } = &question;
            let id = *id;
            if matches!(what.way, Way::Tunnel { .. }) {
                self.tunnels.begin(&question, now);
                continue;
            }
            let slot = self.pending.vacant_entry();
            let key = slot.key();
            match Session::begin(what, self.poll.registry(), Token(key)) {
                Ok(session) => {
                    slot.insert(Pending { id, session, asked: now });
                    self.deadlines.push(Reverse((now + what.timeout, key, id)));
                }
                Err(error) => self.answer(id, outcome_of(&error, Reason::Refused), Duration::ZERO, now),
            }
        }
    }

    /// Takes in what came back by tunnels, and sends what is to go out by them.
    fn serve_tunnels(&mut self) {
        let now = sys::now();
        while let Some(packet) = self.shared.heard.next() {
            self.tunnels.hear(packet, now);
        }
        self.tunnels.handle_timeout(now);
        for packet in self.tunnels.outgoing() {
            if let Some(mailbox) = self.mailboxes.first() {
                mailbox.send(packet);
            }
        }
        for (id, Answer { outcome, took }) in self.tunnels.answers() {
            self.answer(id, outcome, took, now);
        }
    }

    fn ready(&mut self, token: Token, now: Instant) {
        let Some(pending) = self.pending.get_mut(token.0) else { return };
        let Some(outcome) = pending.session.ready() else { return };
        self.end(token.0, outcome, now);
    }

    fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, key, id))) = self.deadlines.peek().copied() {
            if at > now {
                return;
            }
            self.deadlines.pop();
            let Some(pending) = self.pending.get(key).filter(|pending| pending.id == id) else { continue };
            let outcome = pending.session.timed_out();
            self.end(key, outcome, now);
        }
    }

    fn end(&mut self, key: usize, outcome: Outcome, now: Instant) {
        let mut pending = self.pending.remove(key);
        // The socket is about to be closed; that it cannot be forgotten first does no harm.
        let _ = self.poll.registry().deregister(pending.session.source());
        self.answer(pending.id, outcome, now.since(pending.asked), now);
    }

    fn answer(&mut self, id: QuestionId, outcome: Outcome, took: Duration, now: Instant) {
        if let Outcome::NotAsked(why) = &outcome {
            log::warn!("a backend could not be asked how it is: {why}");
        }
        self.checks.answered(id, &Answer { outcome, took }, now);
    }

    /// Tells what has changed.
    fn report(&mut self) {
        let mut any = false;
        for change in self.checks.changes() {
            self.desk.changes.push(change);
            any = true;
        }
        if any {
            self.desk.news.wake();
        }
    }

    /// Until when nothing has to be done.
    fn patience(&self, now: Instant) -> Option<Duration> {
        let question = self.checks.poll_timeout().filter(|_| self.pending.len() < self.most);
        let deadline = self.deadlines.peek().map(|Reverse((at, ..))| *at);
        question.into_iter().chain(deadline).chain(self.tunnels.poll_timeout()).min().map(|at| at.since(now))
    }
}

#[cfg(test)]
mod tests;
