//! Backends by HTTP: a server that answers with a list, and may wait for a change before it does (long poll).
//!
//! An answer that carries an index (`X-Consul-Index`, as Consul's blocking queries) or an entity tag (RFC 9110 8.8.3) is
//! asked for again at once, with what it carried and how long the server may wait. One that carries neither is asked for
//! now and then.

mod message;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::{Inquiry, Leave};
use crate::config::{Found, HttpSource, Url, read_backends};
use crate::control::discovery::{Answer, CONFIRM_AFTER};
use crate::engine::Instant;
use crate::io::sys;
use crate::io::words::in_words;
use message::{Mark, Reading, Reply, request};

/// How long a server has to answer, beyond what it was allowed to wait; and to take a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon it is asked again after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// How often it is asked if it does not wait.
const INTERVAL: Duration = Duration::from_secs(5);
/// Least time from one question to the next: a list that changes all the time is not followed any faster.
const APART: Duration = Duration::from_secs(1);
/// A list is told again so long after it was new: that is enough to be believed, even if the first was taken late.
const SETTLES: Duration = CONFIRM_AFTER.saturating_add(Duration::from_secs(1));
/// How often it is looked whether an answer is still wanted.
const GLANCE: Duration = Duration::from_millis(500);

/// A server that is asked again and again.
#[derive(Debug)]
pub(super) struct Http {
    source: HttpSource,
    /// Instead of what follows from the answers.
    interval: Option<Duration>,
    known: Option<Known>,
    patience: Duration,
}

/// The last good list.
#[derive(Debug)]
struct Known {
    found: Vec<Found>,
    /// What tells the server which list that is, if it can wait for another.
    mark: Option<Mark>,
    since: Instant,
}

impl Http {
    pub(super) const fn new(source: HttpSource, interval: Option<Duration>) -> Self {
        Self { source, interval, known: None, patience: Duration::ZERO }
    }

    /// What the server has to wait for, and how long; a new list is soon asked for again, to be told again.
    fn mark(&self, now: Instant) -> Option<(&Mark, Duration)> {
        let known = self.known.as_ref()?;
        let settling = (known.since + SETTLES).since(now);
        let wait = if settling.is_zero() { self.source.wait } else { settling.max(APART).min(self.source.wait) };
        Some((known.mark.as_ref()?, wait))
    }

    /// Takes a reply; the list that is told, and whether it is another one.
    fn take(&mut self, Reply { status, mark, body }: Reply, now: Instant) -> Result<(Vec<Found>, bool), String> {
        match (status, &mut self.known) {
            (304, Some(known)) => Ok((known.found.clone(), false)),
            (200, known) => {
                let text = String::from_utf8(body).map_err(|_| "its answer is not UTF-8".to_owned())?;
                let found = read_backends(&text, true)?;
                let before = known.take();
                let is_new = before.as_ref().is_none_or(|before| before.found != found);
                let since = before.as_ref().filter(|_| !is_new).map_or(now, |before| before.since);
                // A server whose index goes back has begun anew.
                let is_back =
                    before.and_then(|before| before.mark).zip(mark.clone()).is_some_and(|(a, b)| b.is_before(&a));
                *known = Some(Known { found: found.clone(), mark: mark.filter(|_| !is_back), since });
                Ok((found, is_new))
            }
            (301..=303 | 307 | 308, _) => {
                Err(format!("HTTP {status}: the list is elsewhere, and that is not followed"))
            }
            (_, _) => Err(format!("HTTP {status}")),
        }
    }

    /// How long to wait after an answer that came by now.
    fn pause(&self, asked: Instant, waited: Option<Duration>, is_new: bool, now: Instant) -> Duration {
        let took = now.since(asked);
        // Who is asked to wait, has no news, and does not wait, never does: as a server of files.
        let waits = waited.is_some_and(|wait| is_new || took * 2 >= wait.min(APART));
        let may_wait = self.known.as_ref().is_some_and(|known| known.mark.is_some());
        match self.interval {
            Some(interval) => interval,
            None if may_wait && (waits || waited.is_none()) => APART.saturating_sub(took),
            None => INTERVAL,
        }
    }
}

impl Inquiry for Http {
    fn ask(&mut self, asked: Instant, leave: &Leave) -> Option<Answer> {
        let mark = self.mark(asked);
        let waited = mark.map(|(_, wait)| wait);
        let reply = exchange(&self.source.url, mark, leave).transpose()?;
        let now = sys::now();
        let answer = reply.and_then(|reply| self.take(reply, now));
        self.patience = match &answer {
            Ok((_, is_new)) => self.pause(asked, waited, *is_new, now),
            Err(_) => {
                self.known = None;
                RETRY
            }
        };
        Some(answer.map(|(found, _)| found))
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

/// One question, and its answer; `None` if nobody wants it any more.
fn exchange(url: &Url, mark: Option<(&Mark, Duration)>, leave: &Leave) -> Result<Option<Reply>, String> {
    let told = |error: std::io::Error| in_words(&error);
    let wait = mark.map_or(Duration::ZERO, |(_, wait)| wait);
    // Consul adds up to a sixteenth, so that not all whom it has to answer are answered at once.
    let until = sys::now() + wait + wait / 16 + PATIENCE;
    let mut stream = connect(url)?;
    stream.set_read_timeout(Some(GLANCE)).map_err(told)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(told)?;
    stream.write_all(&request(url, mark)).map_err(told)?;
    let mut reading = Reading::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let reply = match stream.read(&mut buffer) {
            Ok(count) => reading.take(&buffer[..count])?,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                None
            }
            Err(error) => return Err(in_words(&error)),
        };
        if reply.is_some() || leave.is_given() {
            return Ok(reply);
        }
        if sys::now() > until {
            return Err("no answer".to_owned());
        }
    }
}

/// To the first of the host's addresses that takes a connection.
fn connect(url: &Url) -> Result<TcpStream, String> {
    let addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(|error| in_words(&error))?;
    let mut why = "its name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => why = in_words(&error),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests;
