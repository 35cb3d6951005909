//! Servers that answer with what they hear.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);

/// Echoes on every TCP connection until it is killed. Clients send little and wait, so an answer always fits the socket.
pub(super) fn tcp(at: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(at)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut streams: HashMap<Token, TcpStream> = HashMap::new();
    let mut events = Events::with_capacity(1024);
    let mut next = 1;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() != LISTENER {
                if let Some(stream) = streams.get_mut(&event.token())
                    && echo(stream).is_err()
                {
                    streams.remove(&event.token());
                }
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                let token = Token(next);
                next += 1;
                poll.registry().register(&mut stream, token, Interest::READABLE)?;
                streams.insert(token, stream);
            }
        }
    }
}

/// Answers all that has arrived; an error is the end of the connection.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => stream.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Echoes every datagram until it is killed.
pub(super) fn udp(at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(at)?;
    let mut buffer = [0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], from)?;
    }
}
