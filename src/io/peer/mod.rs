//! The other gateway of a pair: a thread of its own that hears it and is heard by it, and decides with it who is active.
//!
//! The thread has real-time priority where the kernel allows it, waits for nobody, and takes no lock. The workers see
//! what they may do in [`Duty`]; the control thread asks, and is told what has happened.

mod copies;
mod hearing;
mod heart;
mod paths;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::SegQueue;

use super::announce::Presence;
use super::duty::Duty;
use super::replication::Replication;
use super::sys::{self, Waker};
use super::words::{in_words, with_remedy};
use super::worker::Mailbox;
use crate::config::Ha;
use crate::control::ha::keys::KeyRing;
use crate::control::ha::{Command, Epoch, Refusal, Report, Transition};
use crate::engine::Shared;
use heart::Heart;

/// How long the thread may take to answer: it does so at once, unless the machine stands still.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the thread begins with.
#[derive(Debug)]
pub struct Setup {
    /// How the pair is configured.
    pub ha: Ha,
    /// The shared keys.
    pub keys: KeyRing,
    /// The epoch that was kept.
    pub epoch: Epoch,
    /// [`crate::config::Snapshot::translation_hash`].
    pub config_hash: u64,
    /// Of this start; not 0.
    pub boot: u64,
    /// Copies flows.
    pub replication: Replication,
    /// The flows.
    pub shared: Arc<Shared>,
    /// What workers may do.
    pub duty: Arc<Duty>,
    /// Whether the addresses are here.
    pub presence: Arc<Presence>,
    /// The workers'.
    pub mailboxes: Arc<[Mailbox]>,
}

/// The pair, as seen from one of its gateways. Dropping it hands the role over, or says goodbye.
#[derive(Debug)]
pub struct Pair {
    line: Arc<Line>,
    thread: Option<JoinHandle<()>>,
}

/// Between the heartbeat thread and the control thread.
#[derive(Debug)]
pub struct Line {
    duty: Arc<Duty>,
    asks: SegQueue<Ask>,
    news: SegQueue<News>,
    /// Wakes the control thread.
    told: Waker,
    /// The epoch that is to be kept.
    epoch: AtomicU64,
}

/// What the control thread wants.
#[derive(Debug)]
enum Ask {
    Report(SyncSender<Report>),
    Command(Command, SyncSender<Result<(), Refusal>>),
    Keys(KeyRing),
    ConfigHash(u64),
    Stop,
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum News {
    /// The gateway is something else now.
    Transition(Transition),
    /// All flows are to be told to the peer in this session.
    TellAll(u32),
    /// A handover that was asked for came to nothing.
    FlipFailed(Refusal),
    /// Heartbeats are sent without real-time priority.
    NoRealTime,
}

impl Pair {
    /// Starts the thread, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`PairError`].
    pub fn start(setup: Setup) -> Result<Self, PairError> {
        let now = sys::now();
        let mut paths = Vec::with_capacity(setup.ha.paths.len());
        for path in &setup.ha.paths {
            paths.push(paths::Path::open(path, now).map_err(|error| PairError::Path(path.listen, error))?);
        }
        let line = Arc::new(Line {
            duty: Arc::clone(&setup.duty),
            asks: SegQueue::new(),
            news: SegQueue::new(),
            told: Waker::new().map_err(PairError::System)?,
            epoch: AtomicU64::new(setup.epoch.to_bits()),
        });
        let for_thread = Arc::clone(&line);
        let run = move || Heart::begin(setup, paths, for_thread).run();
        let thread = sys::spawn("heartbeat", run).map_err(PairError::System)?;
        Ok(Self { line, thread: Some(thread) })
    }

    /// How it is; `None` if the thread does not answer.
    pub fn report(&self) -> Option<Report> {
        let (sender, receiver) = sync_channel(1);
        self.line.ask(Ask::Report(sender));
        receiver.recv_timeout(PATIENCE).ok()
    }

    /// What orders go by.
    pub fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// What has happened, oldest first.
    pub fn news(&self) -> impl Iterator<Item = News> {
        self.line.told.clear();
        std::iter::from_fn(|| self.line.news.pop())
    }

    /// The epoch that is to be known after a restart.
    pub fn epoch(&self) -> Epoch {
        Epoch::from_bits(self.line.epoch.load(Relaxed))
    }
}

/// Readable when there is news.
impl AsFd for Pair {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.told.as_fd()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.line.ask(Ask::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the heartbeat thread panicked: this is a bug of tungate");
        }
    }
}

impl Line {
    /// Has the gateway do what the operator says. A handover is only begun: the state tells how it ends.
    ///
    /// # Errors
    /// The precondition that fails, in words.
    pub fn command(&self, command: Command) -> Result<(), String> {
        let (sender, receiver) = sync_channel(1);
        self.ask(Ask::Command(command, sender));
        match receiver.recv_timeout(PATIENCE) {
            Ok(outcome) => outcome.map_err(|refusal| refusal.to_string()),
            Err(_) => Err("the heartbeat thread does not answer".to_owned()),
        }
    }

    /// From now on these keys are in force.
    pub fn set_keys(&self, keys: KeyRing) {
        self.ask(Ask::Keys(keys));
    }

    /// From now on the configuration has this hash.
    pub fn set_config_hash(&self, hash: u64) {
        self.ask(Ask::ConfigHash(hash));
    }

    fn ask(&self, ask: Ask) {
        self.asks.push(ask);
        self.duty.heart().wake();
    }

    fn tell(&self, news: News) {
        self.news.push(news);
        self.told.wake();
    }
}

/// Why there is no pair.
#[derive(Debug)]
pub enum PairError {
    /// This end of a path cannot be opened.
    Path(SocketAddr, io::Error),
    /// The system refused something ordinary.
    System(io::Error),
}

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(address, error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                write!(f, "`listen` in [ha]: {address} is not an address of this machine")
            }
            Self::Path(address, error) => write!(f, "`listen` in [ha]: {address}: {}", in_words(error)),
            Self::System(error) => write!(f, "cannot start to send heartbeats: {}", with_remedy(error)),
        }
    }
}

impl std::error::Error for PairError {}
