//! One question at one backend: a socket, and what it has said so far.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::event::Source;
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};

use super::echo;
use crate::config::{Check, HttpCheck, UdpCheck};
use crate::control::health::http::{self, Reading};
use crate::control::health::{Outcome, Query, Reason};
use crate::io::sys;

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) enum Session {
    /// Whether a connection is made.
    Connecting(TcpStream),
    /// What a server says.
    Http { stream: TcpStream, check: HttpCheck, request: Vec<u8>, reading: Reading, connected: bool },
    /// What a datagram is answered with.
    Udp { socket: UdpSocket, check: UdpCheck },
    /// Whether a ping is answered.
    Echo { socket: UdpSocket, echo: echo::Echo },
}

impl Session {
    /// Asks.
    ///
    /// # Errors
    /// The socket could not be made, or says at once that nothing will come of it.
    pub(super) fn begin(query: &Query, registry: &Registry, token: Token) -> io::Result<Self> {
        let address = SocketAddr::from(query.endpoint);
        let mut session = match &query.check {
            Check::Tcp => Self::Connecting(connect(address)?),
            Check::Http(check) => Self::Http {
                stream: connect(address)?,
                check: check.clone(),
                request: http::request(check, query.endpoint),
                reading: Reading::default(),
                connected: false,
            },
            Check::Udp(check) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any.parse().expect("an address"))?;
                socket.connect(address)?;
                socket.send(check.send.as_bytes())?;
                Self::Udp { socket, check: check.clone() }
            }
            Check::Icmp => {
                let (socket, echo) = echo::Echo::begin(address.ip(), token)?;
                Self::Echo { socket, echo }
            }
            Check::None => unreachable!("who is not to be asked has no query"),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(session.source(), token, interest)?;
        Ok(session)
    }

    /// Something has happened at the socket; what that says, as soon as it is clear.
    pub(super) fn ready(&mut self) -> Option<Outcome> {
        match self {
            Self::Connecting(stream) => is_connected(stream).transpose().map(|connected| match connected {
                Ok(()) => Outcome::Good,
                Err(error) => outcome_of(&error, Reason::Refused),
            }),
            Self::Http { stream, check, request, reading, connected } => {
                exchange(stream, check, request, reading, connected).unwrap_or_else(|error| {
                    Some(outcome_of(&error, if *connected { Reason::Reset } else { Reason::Refused }))
                })
            }
            Self::Udp { socket, check } => {
                datagram(socket, check).unwrap_or_else(|error| Some(outcome_of(&error, Reason::PortUnreachable)))
            }
            Self::Echo { socket, echo } => {
                echo.hear(socket).unwrap_or_else(|error| Some(outcome_of(&error, Reason::HostUnreachable)))
            }
        }
    }

    /// Its time is over: what that says.
    pub(super) fn timed_out(&self) -> Outcome {
        match self {
            Self::Connecting(_) | Self::Http { connected: false, .. } => Outcome::Bad(Reason::ConnectTimeout),
            // Only an ICMP error would have told that nobody listens.
            Self::Udp { check, .. } if check.expect.is_none() => Outcome::Good, // as Query::allows_silence
            Self::Http { .. } | Self::Udp { .. } | Self::Echo { .. } => Outcome::Bad(Reason::NoAnswer),
        }
    }

    /// The socket, to be watched and no longer watched.
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Connecting(stream) | Self::Http { stream, .. } => stream,
            Self::Udp { socket, .. } | Self::Echo { socket, .. } => socket,
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    // A check leaves nothing behind, least of all thousands of sockets in time-wait.
    sys::reset_on_close(&stream)?;
    Ok(stream)
}

/// `None`: that is not clear yet (mio: `TcpStream::connect`).
fn is_connected(stream: &TcpStream) -> io::Result<Option<()>> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(None),
        Err(error) => Err(error),
    }
}

/// Goes on with an HTTP exchange until the socket has no more to give.
fn exchange(
    stream: &mut TcpStream,
    check: &HttpCheck,
    request: &mut Vec<u8>,
    reading: &mut Reading,
    connected: &mut bool,
) -> io::Result<Option<Outcome>> {
    if !*connected {
        if is_connected(stream)?.is_none() {
            return Ok(None);
        }
        *connected = true;
    }
    while !request.is_empty() {
        match stream.write(request) {
            Ok(written) => drop(request.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Some(reading.end())),
            Ok(count) => {
                if let Some(outcome) = reading.take(&buffer[..count], check) {
                    return Ok(Some(outcome));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn datagram(socket: &UdpSocket, check: &UdpCheck) -> io::Result<Option<Outcome>> {
    let mut buffer = [0; 2048];
    match socket.recv(&mut buffer) {
        Ok(count) => {
            let expected = check.expect.as_deref().unwrap_or_default();
            let good = http::contains(&buffer[..count], expected.as_bytes());
            Ok(Some(if good { Outcome::Good } else { Outcome::Bad(Reason::Unexpected) }))
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an error of a socket says of the backend, if it says anything of it. `refused` is what a refusal means here.
pub(super) fn outcome_of(error: &io::Error, refused: Reason) -> Outcome {
    Outcome::Bad(match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => refused,
        Some(libc::ECONNRESET | libc::EPIPE) => Reason::Reset,
        Some(libc::ETIMEDOUT) => Reason::ConnectTimeout,
        Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => Reason::HostUnreachable,
        Some(libc::ENETUNREACH | libc::ENETDOWN) => Reason::NetworkUnreachable,
        // A route or a firewall of this machine; and so says the network (ICMP type 3, code 13).
        Some(libc::EACCES) => Reason::Prohibited,
        _ => return Outcome::NotAsked(crate::io::words::in_words(error)),
    })
}
