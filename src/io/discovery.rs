//! Asks sources for backends, each on a thread of its own: neither the workers nor the control thread ever wait for one,
//! and no source for another.

mod dns;
mod file;
mod http;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use super::sys;
use super::words::with_remedy;
use crate::config::{Discovery, ServiceId, Source};
use crate::control::discovery::Answer;
use crate::engine::Instant;
use dns::Dns;
use file::File;
use http::Http;

/// What a service's source has answered to what was asked.
#[derive(Debug)]
pub struct Heard {
    /// Whose source.
    pub service: ServiceId,
    /// What was asked.
    pub asked: Discovery,
    /// What it says.
    pub answer: Answer,
}

/// Who asks. Dropping this ends it: each thread within half a second, or when it has the answer that it waits for.
#[derive(Debug)]
pub struct Discoverer {
    asked: Vec<Asked>,
    answers: Sender<Heard>,
    heard: Receiver<Heard>,
    /// Readable when there are answers.
    news: Arc<sys::Waker>,
}

/// A source that is asked until this is dropped.
#[derive(Debug)]
struct Asked {
    service: ServiceId,
    discovery: Discovery,
    _stays: Sender<Infallible>,
}

impl Discoverer {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        let (answers, heard) = channel();
        Ok(Self { asked: Vec::new(), answers, heard, news: Arc::new(sys::Waker::new()?) })
    }

    /// From now on these are asked, and no others. Who was asked before goes on with what he knows.
    pub fn follow<'a>(&mut self, wanted: impl Iterator<Item = (ServiceId, &'a Discovery)>) {
        let mut before = std::mem::take(&mut self.asked);
        for (service, discovery) in wanted {
            match before.iter().position(|one| one.service == service && one.discovery == *discovery) {
                Some(known) => self.asked.push(before.swap_remove(known)),
                None => self.begin(service, discovery),
            }
        }
    }

    /// The answers that nobody has taken yet, oldest first.
    pub fn answers(&self) -> impl Iterator<Item = Heard> {
        self.news.clear();
        self.heard.try_iter()
    }

    fn begin(&mut self, service: ServiceId, discovery: &Discovery) {
        let (stays, leave) = channel();
        let (answers, news, asked) = (self.answers.clone(), Arc::clone(&self.news), discovery.clone());
        let tell = move |answer| {
            // Who has nobody to tell is about to leave.
            let _ = answers.send(Heard { service, asked: asked.clone(), answer });
            news.wake();
        };
        let (inquiry, tell_of_failure) = (inquiry(discovery), tell.clone());
        if let Err(error) = sys::spawn("discovery", move || ask(inquiry, &Leave(leave), tell)) {
            tell_of_failure(Err(format!("nobody can ask it: {}", with_remedy(&error))));
        }
        self.asked.push(Asked { service, discovery: discovery.clone(), _stays: stays });
    }
}

impl AsFd for Discoverer {
    /// Readable when there are [`Self::answers`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

fn inquiry(Discovery { source, interval }: &Discovery) -> Box<dyn Inquiry> {
    match source.clone() {
        Source::File(path) => Box::new(File::new(path, *interval)),
        Source::Dns(name) => Box::new(Dns::new(name, *interval)),
        Source::Http(source) => Box::new(Http::new(source, *interval)),
    }
}

fn ask(mut inquiry: Box<dyn Inquiry>, leave: &Leave, tell: impl Fn(Answer)) {
    while !leave.is_given() {
        if let Some(answer) = inquiry.ask(sys::now(), leave) {
            tell(answer);
        }
        leave.wait(inquiry.patience());
    }
}

/// A source of backends: what a registry or a mesh (etcd, ZooKeeper, xDS) would implement, and all that it would.
///
/// It has a thread of its own, so it may wait, and keeps what its protocol needs from one question to the next. It does
/// not judge: an empty list is told as one, and a failure as a failure. What is made of both is
/// [`Sources`](crate::control::discovery::Sources)' to say, the same for all, and it rests on two rules:
///
/// - An answer is the whole list, never a change of it, and one entry that cannot be understood is a failure.
/// - An answer that holds on is told again, at least once after
///   [`CONFIRM_AFTER`](crate::control::discovery::CONFIRM_AFTER): an unlikely one is not believed before.
trait Inquiry: Send {
    /// Asks, and waits for an answer, or until its `leave` is given: looks for that twice a second, unless it waits for a
    /// few seconds at most. `None`: what was told still holds.
    fn ask(&mut self, now: Instant, leave: &Leave) -> Option<Answer>;

    /// How long to wait now until the next question.
    fn patience(&self) -> Duration;
}

/// Whether a thread is still wanted.
#[derive(Debug)]
struct Leave(Receiver<Infallible>);

impl Leave {
    fn is_given(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits, unless it is given before.
    fn wait(&self, time: Duration) {
        // Nothing is ever sent: it is the time that is over, or the other end that is gone.
        let Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) = self.0.recv_timeout(time);
    }

    #[cfg(test)]
    fn never() -> Self {
        let (stays, leave) = channel();
        std::mem::forget(stays);
        Self(leave)
    }
}
