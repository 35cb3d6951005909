//! The control thread: signals, the admin socket, and an eye on the workers and the routes.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook_mio::v1_0::Signals as Caught;

use super::daemon::Daemon;
use super::routes::Routes;
use super::serve::Server;
use super::sys;
use super::words::with_remedy;
use crate::admin::{Request, Responses};
use crate::engine::Instant;

const SIGNALS: Token = Token(0);
const LINKS: Token = Token(1);
const ADDRESSES: Token = Token(2);
const NEWS: Token = Token(3);
const PAIR: Token = Token(4);
/// And all above, below [`HTTP`]: the clients.
const ADMIN: Token = Token(5);
/// And all above: the clients of `metrics-listen`. Nobody has as many before.
const HTTP: Token = Token(1 << 40);
/// Signals that would end the process if nobody caught them, and that nobody sends to end a gateway. SIGHUP has the
/// configuration read again.
const IDLE: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];
/// How often the workers are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The signals that the gateway knows. From the moment that it exists they end nothing by themselves.
pub struct Signals(Caught);

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

impl Signals {
    /// To be called before anything is made that has to be removed again.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn catch() -> Result<Self, ServeError> {
        // What nohup(1) has made deaf stays deaf.
        let idle = IDLE.into_iter().filter(|signal| !sys::is_ignored(*signal));
        Ok(Self(Caught::new(idle.chain([libc::SIGTERM, libc::SIGINT]))?))
    }
}

/// Serves until SIGTERM or SIGINT: then, at the latest `drain` later, or when no flow carries anything any more, returns.
/// A second signal ends the waiting. `answer` answers the admin socket's questions.
///
/// # Errors
/// [`ServeError`].
pub fn serve(
    mut daemon: Daemon,
    mut server: Server,
    Signals(mut signals): Signals,
    drain: Duration,
    answer: &mut dyn FnMut(&mut Daemon, Request) -> Responses,
) -> Result<(), ServeError> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    if let Some(routes) = daemon.routes() {
        poll.registry().register(&mut SourceFd(&routes.as_fd().as_raw_fd()), LINKS, Interest::READABLE)?;
    }
    poll.registry().register(&mut SourceFd(&daemon.addresses().as_fd().as_raw_fd()), ADDRESSES, Interest::READABLE)?;
    for news in daemon.news() {
        poll.registry().register(&mut SourceFd(&news.as_raw_fd()), NEWS, Interest::READABLE)?;
    }
    if let Some(news) = daemon.pair_news() {
        poll.registry().register(&mut SourceFd(&news.as_raw_fd()), PAIR, Interest::READABLE)?;
    }
    server.register(poll.registry(), ADMIN)?;
    daemon.register_http(poll.registry(), HTTP)?;
    let end = serve_until_over(&mut daemon, &mut server, &mut signals, &mut poll, drain, answer);
    server.finish(&mut poll, &mut |request| answer(&mut daemon, request));
    end
}

fn serve_until_over(
    daemon: &mut Daemon,
    server: &mut Server,
    signals: &mut Caught,
    poll: &mut Poll,
    drain: Duration,
    answer: &mut dyn FnMut(&mut Daemon, Request) -> Responses,
) -> Result<(), ServeError> {
    let mut events = Events::with_capacity(64);
    let mut phase = Phase::Serving;
    loop {
        if let Err(error) = poll.poll(&mut events, Some(phase.patience().min(until_due(daemon))))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            match event.token() {
                SIGNALS => {
                    for signal in signals.pending() {
                        if signal == libc::SIGHUP {
                            // What becomes of it is in the log.
                            answer(daemon, Request::Reload { confirm_s: None }).for_each(drop);
                            continue;
                        }
                        phase = phase.after_signal(signal, daemon, drain);
                    }
                }
                LINKS => restore_routes(daemon),
                ADDRESSES => daemon.look_at_addresses(),
                NEWS | PAIR => {} // The daemon takes the news with all that is due.
                token if token >= HTTP => daemon.handle_http(poll.registry(), token),
                token => server.handle(poll.registry(), token, sys::now(), &mut |request| answer(daemon, request)),
            }
        }
        daemon.handle_timeout();
        daemon.look_at_tunnels();
        if let Some(error) = daemon.failure() {
            return Err(ServeError::Worker(error));
        }
        if phase.is_over(daemon) {
            return Ok(());
        }
    }
}

fn until_due(daemon: &Daemon) -> Duration {
    daemon.poll_timeout().map_or(Duration::MAX, |at| at.since(sys::now()))
}

/// A link has changed. A TUN that is gone is its workers' to tell.
fn restore_routes(daemon: &mut Daemon) {
    if let Some(Err(error)) = daemon.routes().map(Routes::restore)
        && error.errno() != Some(libc::ENODEV)
    {
        log::warn!("a route to the TUN is missing: {error}");
    }
}

/// Where the daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// No new flows; those there are may go on until then.
    Draining(Instant),
    Over,
}

impl Phase {
    fn after_signal(self, signal: libc::c_int, daemon: &mut Daemon, drain: Duration) -> Self {
        if IDLE.contains(&signal) {
            log::warn!(signal; "this signal means nothing to tungate");
            return self;
        }
        match self {
            Self::Serving if !drain.is_zero() => {
                daemon.stop_new_flows();
                let flows = daemon.flows_in_use();
                log::info!(flows, seconds = drain.as_secs(); "draining: no new flows");
                Self::Draining(sys::now() + drain)
            }
            Self::Serving | Self::Draining(_) | Self::Over => Self::Over,
        }
    }

    fn is_over(self, daemon: &Daemon) -> bool {
        match self {
            Self::Serving => false,
            Self::Draining(until) if sys::now() < until => !daemon.has_flows_in_use(),
            Self::Draining(_) => {
                log::warn!(flows = daemon.flows_in_use(); "the time to drain is over: these flows are cut");
                true
            }
            Self::Over => true,
        }
    }

    fn patience(self) -> Duration {
        match self {
            Self::Serving | Self::Over => INTERVAL,
            Self::Draining(_) => Duration::from_millis(250),
        }
    }
}

/// Why serving ended before it was told to.
#[derive(Debug)]
pub enum ServeError {
    /// A packet worker could not go on.
    Worker(io::Error),
    /// The system refused something ordinary.
    System(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                f.write_str("the TUN was taken away while serving: somebody has removed it; start again")
            }
            Self::Worker(error) => write!(f, "a packet worker ended: {}", with_remedy(error)),
            Self::System(error) => write!(f, "the control thread cannot go on: {}", with_remedy(error)),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
