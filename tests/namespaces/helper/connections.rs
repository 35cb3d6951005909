//! Many TCP connections, all open at the same time, each checked twice, or all the time.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

/// Handshakes under way at a time: fewer than any listen queue on the way holds.
const OPENING: usize = 256;
/// Silence for that long means that an answer is lost.
const SILENCE: Duration = Duration::from_secs(20);
/// Between the rounds of connections that talk.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens `count` connections and sends a word of its own over each; says `open` once all have been answered and waits
/// for the end of standard input; then each sends another word, and the connections are closed.
pub(super) fn hold(to: SocketAddr, count: usize) -> io::Result<()> {
    let mut crowd = Crowd::new()?;
    crowd.open_all(to, count)?;
    super::print(&format!("open {count}\n"));
    io::stdin().read_to_end(&mut Vec::new())?;
    crowd.ask_all(2)?;
    super::print(&format!("verified {count}\n"));
    Ok(())
}

/// Opens `count` connections to each of these and says `open`; then all of them send a word of their own and hear it
/// again, round after round, until the end of standard input.
pub(super) fn talk(to: &[SocketAddr], count: usize) -> io::Result<()> {
    let mut crowd = Crowd::new()?;
    for address in to {
        crowd.open_all(*address, crowd.members.len() + count)?;
    }
    super::print(&format!("open {}\n", crowd.members.len()));
    let over = until_the_end_of_input();
    let mut round = 1;
    while !over.load(Ordering::Relaxed) {
        round += 1;
        crowd.ask_all(round)?;
        thread::sleep(PAUSE);
    }
    super::print(&format!("verified {} in {round} rounds\n", crowd.members.len()));
    Ok(())
}

/// Opens so many connections a second, one after the other; each sends a word, hears it again and closes. Says how many
/// were served at the end of standard input.
pub(super) fn visit(to: SocketAddr, rate: usize) -> io::Result<()> {
    let over = until_the_end_of_input();
    let pause = Duration::from_secs(1) / u32::try_from(rate).expect("a rate of people's size");
    let (mut served, mut failed) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        match visit_once(to) {
            Ok(()) => served += 1,
            Err(error) => {
                failed += 1;
                super::print(&format!("visit {}: {error}\n", served + failed));
            }
        }
        thread::sleep(pause);
    }
    super::print(&format!("served {served}, failed {failed}\n"));
    Ok(())
}

fn visit_once(to: SocketAddr) -> io::Result<()> {
    let mut stream = std::net::TcpStream::connect_timeout(&to, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut heard = [0; 5];
    stream.write_all(b"hello")?;
    stream.read_exact(&mut heard)
}

/// True from the end of standard input on.
fn until_the_end_of_input() -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&over);
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        heard.store(true, Ordering::Relaxed);
    });
    over
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
        round: u32,
        answered: usize,
    },
    Answered,
}

impl Crowd {
    fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(1024), members: Vec::new() })
    }

    /// Opens connections until there are so many, all of them answered once.
    fn open_all(&mut self, to: SocketAddr, count: usize) -> io::Result<()> {
        let mut answered = self.members.len();
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

    fn ask_all(&mut self, round: u32) -> io::Result<()> {
        for (n, member) in self.members.iter_mut().enumerate() {
            member.ask(n, round).map_err(|error| io::Error::new(error.kind(), format!("connection {n}: {error}")))?;
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

    fn ask(&mut self, n: usize, round: u32) -> io::Result<()> {
        self.state = State::Asked { round, answered: 0 };
        self.stream.write_all(&word(n, round))
    }

    fn listen(&mut self, n: usize, round: u32, answered: usize) -> io::Result<bool> {
        let expected = word(n, round);
        let mut buffer = [0; 2048];
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

/// What connection `n` says in a round: nobody else says it. From the third round on it is of any length up to 1,000.
fn word(n: usize, round: u32) -> Vec<u8> {
    let mut word = format!("connection {n:05} round {round}").into_bytes();
    if round > 2 {
        let length = (n * 37 + round as usize * 101) % 1_000;
        word.extend((word.len()..length).map(|at| b'a' + u8::try_from((at + n) % 26).expect("a letter")));
    }
    word
}
