//! The admin socket: lines of JSON in, lines of JSON out, for as many clients as come, none of which can hold up the
//! thread that serves them.
//!
//! The server owns no thread: it is registered with the [`mio::Poll`] of the daemon's control thread, which hands it the
//! events of its tokens. A client that sends nothing, or does not read its answer, costs its place and no time; when
//! places run out, the one that has been still for longest goes.

mod bind;
mod client;
pub mod http;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::iter::Peekable;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::admin::{Answer, Question, Request, Response, Responses};
use crate::engine::Instant;
use crate::io::sys;
use crate::io::words::{in_words, with_remedy};

pub use bind::BindError;
use bind::Folders;
pub use client::{AskError, Client};

/// Clients served at once.
pub const MAX_CLIENTS: usize = 64;
/// Longest question, bytes: the plan of a configuration of 16 MiB, the largest that is read, fits as JSON.
pub const MAX_QUESTION: usize = 40 << 20;
/// Bytes sent to one client before the others and the thread's other work have their turn.
const TURN: usize = 256 << 10;
/// How long the end waits for clients that are slow to take their answers.
const FAREWELL: Duration = Duration::from_secs(2);

/// The admin socket. Removes its file when dropped, unless another has taken its place, and the folders it had to make.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file.
    identity: (u64, u64),
    listener_token: Token,
    next_token: usize,
    clients: HashMap<Token, Connection>,
    /// Dropped last: what they hold has to go first.
    _folders: Folders,
}

impl Server {
    /// Creates the socket, mode 0660, and the folders on its way that are missing. A socket file that nobody answers on
    /// is replaced.
    ///
    /// # Errors
    /// Another daemon answers there, something else has the name, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let (listener, identity, folders) = bind::listen(path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity,
            listener_token: Token(usize::MAX),
            next_token: 0,
            clients: HashMap::new(),
            _folders: folders,
        })
    }

    /// Puts the socket under the eyes of a poll. The token `first` and all above it belong to the server from now on.
    ///
    /// # Errors
    /// No memory or watches left.
    pub fn register(&mut self, registry: &Registry, first: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.listener.as_raw_fd()), first, Interest::READABLE)?;
        self.listener_token = first;
        self.next_token = first.0 + 1;
        Ok(())
    }

    /// Does what an event of one of the server's tokens asks for. Never blocks.
    pub fn handle(
        &mut self,
        registry: &Registry,
        token: Token,
        now: Instant,
        answer: &mut dyn FnMut(Request) -> Responses,
    ) {
        if token == self.listener_token {
            self.accept_all(registry, now);
            return;
        }
        let Some(client) = self.clients.get_mut(&token) else { return };
        match client.turn(now, answer) {
            Turn::Waits => {}
            // Registering anew makes epoll tell again what it has told already: this client is still writable.
            Turn::GoesOn if client.register_again(registry, token).is_ok() => {}
            Turn::GoesOn | Turn::Ends => drop(self.clients.remove(&token)),
        }
    }

    /// Answers what has been asked until now, and nothing else; then all clients are gone. Whoever ends the last flow
    /// with `flows kill` is still to hear of it. Takes two seconds at most, and the time that one question takes.
    pub fn finish(&mut self, poll: &mut Poll, answer: &mut dyn FnMut(Request) -> Responses) {
        let until = sys::now() + FAREWELL;
        self.accept_all(poll.registry(), sys::now());
        for client in self.clients.values() {
            // What has arrived can still be read, and behind it is the end.
            let _ = client.stream.shutdown(Shutdown::Read);
        }
        let mut events = Events::with_capacity(MAX_CLIENTS);
        loop {
            let mut busy = false;
            self.clients.retain(|_, client| {
                // With 64 clients, a turn of each may take longer than the time left.
                let now = sys::now();
                let turn = if now < until { client.turn(now, answer) } else { Turn::Ends };
                busy |= matches!(turn, Turn::GoesOn);
                !matches!(turn, Turn::Ends)
            });
            if self.clients.is_empty() {
                return;
            }
            let left = if busy { Duration::ZERO } else { until.since(sys::now()) };
            if poll.poll(&mut events, Some(left)).is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
                self.clients.clear();
                return;
            }
        }
    }

    fn accept_all(&mut self, registry: &Registry, now: Instant) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, registry, now),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::warn!(error:% = with_remedy(&error); "cannot accept a client of the admin socket");
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, registry: &Registry, now: Instant) {
        if let Err(why) = self.may_ask(&stream) {
            // If even the refusal does not fit into an empty socket buffer, closing says it.
            let _ = stream.set_nonblocking(true);
            let _ = (&stream).write(&Answer::line(Response::Refused(why), false));
            return;
        }
        if self.clients.len() >= MAX_CLIENTS {
            let stillest = self.clients.iter().min_by_key(|(_, client)| client.moved).map(|(token, _)| *token);
            stillest.and_then(|token| self.clients.remove(&token));
        }
        let token = Token(self.next_token);
        self.next_token += 1;
        let client = Connection::new(stream, now);
        match client.register(registry, token) {
            Ok(()) => drop(self.clients.insert(token, client)),
            Err(error) => log::warn!(error:% = with_remedy(&error); "cannot watch a client of the admin socket"),
        }
    }

    /// Root, our own user, and members of the socket's group may ask. The file's mode says the same; this holds even
    /// when somebody has opened the mode.
    fn may_ask(&self, stream: &UnixStream) -> Result<(), String> {
        let peer = sys::peer_credentials(stream)
            .map_err(|error| format!("who asks cannot be found out: {}", in_words(&error)))?;
        if peer.uid == 0 || peer.uid == sys::effective_user() {
            return Ok(());
        }
        let group = fs::metadata(&self.path).ok().map(|file| file.gid());
        let member = |gid| peer.gid == gid || sys::peer_groups(stream).is_ok_and(|groups| groups.contains(&gid));
        if group.is_some_and(member) {
            return Ok(());
        }
        Err(format!(
            "user {} may not ask: be root, the daemon's user, or a member of the group of {}",
            peer.uid,
            self.path.display()
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!(path:% = self.path.display(), error:% = with_remedy(&error); "cannot remove the admin socket");
        }
    }
}

/// One client.
struct Connection {
    stream: UnixStream,
    phase: Phase,
    /// Read and not yet understood.
    input: Vec<u8>,
    /// How many bytes of it have been searched for the end of a question.
    searched: usize,
    /// To be sent, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// When bytes last moved.
    moved: Instant,
}

enum Phase {
    /// Waiting for the next question.
    Listening,
    /// Sending the parts of an answer.
    Answering(Peekable<Responses>),
    /// Sending what is left, then gone.
    Closing,
}

/// How a client's turn ended.
enum Turn {
    /// It waits for the socket.
    Waits,
    /// It could go on, but others want to, too.
    GoesOn,
    /// The client is gone.
    Ends,
}

/// What a look for a question found.
enum Heard {
    /// One, which is answered. To find an answer may take a look at every flow, so it costs the turn, however few bytes
    /// question and answer have.
    Question,
    /// So many bytes of one.
    Part(usize),
    /// Nothing yet.
    Nothing,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).field("moved", &self.moved).finish_non_exhaustive()
    }
}

impl Connection {
    fn new(stream: UnixStream, now: Instant) -> Self {
        Self {
            stream,
            phase: Phase::Listening,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            sent: 0,
            moved: now,
        }
    }

    fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        registry.register(&mut SourceFd(&self.stream.as_raw_fd()), token, Interest::READABLE.add(Interest::WRITABLE))
    }

    fn register_again(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE.add(Interest::WRITABLE);
        registry.reregister(&mut SourceFd(&self.stream.as_raw_fd()), token, interest)
    }

    fn turn(&mut self, now: Instant, answer: &mut dyn FnMut(Request) -> Responses) -> Turn {
        let mut budget = TURN;
        loop {
            match self.send(&mut budget, now) {
                Ok(true) => {}
                Ok(false) => return Turn::Waits,
                Err(_) => return Turn::Ends,
            }
            if budget == 0 {
                return Turn::GoesOn;
            }
            match &mut self.phase {
                Phase::Closing => return Turn::Ends,
                Phase::Answering(responses) => match responses.next() {
                    Some(response) => self.output = Answer::line(response, responses.peek().is_some()),
                    None => self.phase = Phase::Listening,
                },
                Phase::Listening => match self.listen(now, answer) {
                    Ok(Heard::Part(count)) => budget = budget.saturating_sub(count),
                    Ok(Heard::Question) => return Turn::GoesOn,
                    Ok(Heard::Nothing) => return Turn::Waits,
                    Err(_) => return Turn::Ends,
                },
            }
        }
    }

    /// Sends what is to be sent; false if the client does not take it now.
    fn send(&mut self, budget: &mut usize, now: Instant) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    self.moved = now;
                    *budget = budget.saturating_sub(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Takes the next question, or some bytes of it.
    fn listen(&mut self, now: Instant, answer: &mut dyn FnMut(Request) -> Responses) -> io::Result<Heard> {
        let end = self.input[self.searched..].iter().position(|byte| *byte == b'\n');
        if let Some(end) = end.map(|end| self.searched + end) {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.searched = 0;
            match Question::parse(&line) {
                Ok(request) => self.phase = Phase::Answering(answer(request).peekable()),
                Err(why) => self.refuse(why),
            }
            return Ok(Heard::Question);
        }
        self.searched = self.input.len();
        if self.input.len() > MAX_QUESTION {
            self.refuse(format!("a question has at most {MAX_QUESTION} bytes"));
            return Ok(Heard::Question);
        }
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.input.extend(&buffer[..n]);
                self.moved = now;
                Ok(Heard::Part(n))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Heard::Part(0)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(error) => Err(error),
        }
    }

    fn refuse(&mut self, why: String) {
        self.output = Answer::line(Response::Refused(why), false);
        self.phase = Phase::Closing;
    }
}

#[cfg(test)]
mod tests;
