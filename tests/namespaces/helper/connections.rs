//! Many TCP connections, all open at the same time, each checked twice.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

/// Handshakes under way at a time: fewer than any listen queue on the way holds.
const OPENING: usize = 256;
/// Silence for that long means that an answer is lost.
const SILENCE: Duration = Duration::from_secs(20);

/// Opens `count` connections and sends a word of its own over each; says `open` once all have been answered and waits
/// for the end of standard input; then each sends another word, and the connections are closed.
pub(super) fn hold(to: SocketAddr, count: usize) -> io::Result<()> {
    let mut crowd = Crowd { poll: Poll::new()?, events: Events::with_capacity(1024), members: Vec::new() };
    crowd.open_all(to, count)?;
    super::print(&format!("open {count}\n"));
    io::stdin().read_to_end(&mut Vec::new())?;
    crowd.ask_all_again()?;
    super::print(&format!("verified {count}\n"));
    Ok(())
}

struct Crowd {
    poll: Poll,
    events: Events,
    members: Vec<Member>,
}

struct Member {
    stream: TcpStream,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    /// The word is sent, this many bytes of the answer are here.
    Asked {
        round: u8,
        answered: usize,
    },
    Answered,
}

impl Crowd {
    fn open_all(&mut self, to: SocketAddr, count: usize) -> io::Result<()> {
        let mut answered = 0;
        while answered < count {
            while self.members.len() < count && self.members.len() - answered < OPENING {
                let mut stream = TcpStream::connect(to)?;
                let token = Token(self.members.len());
                self.poll.registry().register(&mut stream, token, Interest::WRITABLE)?;
                self.members.push(Member { stream, state: State::Connecting });
            }
            answered += self.step(answered)?;
        }
        Ok(())
    }

    fn ask_all_again(&mut self) -> io::Result<()> {
        for (n, member) in self.members.iter_mut().enumerate() {
            member.ask(n, 2)?;
        }
        let mut answered = 0;
        while answered < self.members.len() {
            answered += self.step(answered)?;
        }
        Ok(())
    }

    /// Waits for events and handles them; returns how many members got their whole answer.
    fn step(&mut self, answered: usize) -> io::Result<usize> {
        self.poll.poll(&mut self.events, Some(SILENCE))?;
        if self.events.is_empty() {
            let text = format!("silence for {SILENCE:?} with {answered} of {} answered", self.members.len());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let mut done = 0;
        for event in &self.events {
            let n = event.token().0;
            let step = self.members[n].step(n, self.poll.registry());
            let finished = step.map_err(|error| io::Error::new(error.kind(), format!("connection {n}: {error}")))?;
            done += usize::from(finished);
        }
        Ok(done)
    }
}

impl Member {
    /// Goes on where the connection stands; true when that completed an answer.
    fn step(&mut self, n: usize, registry: &Registry) -> io::Result<bool> {
        match self.state {
            State::Connecting => {
                if let Some(error) = self.stream.take_error()? {
                    return Err(error);
                }
                if self.stream.peer_addr().is_err() {
                    return Ok(false);
                }
                registry.reregister(&mut self.stream, Token(n), Interest::READABLE)?;
                self.ask(n, 1)?;
                Ok(false)
            }
            State::Asked { round, answered } => self.listen(n, round, answered),
            State::Answered => {
                let mut byte = [0];
                match self.stream.read(&mut byte) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                    Err(error) => Err(error),
                    Ok(_) => Err(io::Error::other("it ended, or was answered twice")),
                }
            }
        }
    }

    fn ask(&mut self, n: usize, round: u8) -> io::Result<()> {
        self.state = State::Asked { round, answered: 0 };
        self.stream.write_all(&word(n, round))
    }

    fn listen(&mut self, n: usize, round: u8, answered: usize) -> io::Result<bool> {
        let expected = word(n, round);
        let mut buffer = [0; 64];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        if expected.get(answered..answered + length) != Some(&buffer[..length]) {
            return Err(io::Error::other("the answer is not what was sent"));
        }
        let answered = answered + length;
        let whole = answered == expected.len();
        self.state = if whole { State::Answered } else { State::Asked { round, answered } };
        Ok(whole)
    }
}

/// What connection `n` says in a round: nobody else says it.
fn word(n: usize, round: u8) -> Vec<u8> {
    format!("connection {n:05} round {round}").into_bytes()
}
