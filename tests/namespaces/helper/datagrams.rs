//! Many UDP datagrams, each with a content of its own, each answered once with exactly that.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

/// Client ports, so that the datagrams make as many flows.
const SOCKETS: usize = 16;
/// Unanswered datagrams a socket: together less than a socket buffer.
const WINDOW: usize = 4;
const SILENCE: Duration = Duration::from_secs(5);

/// Exchanges `count` datagrams of 8 to 1400 bytes with an echo server; nothing may be lost, changed or doubled.
pub(super) fn exchange(to: SocketAddr, count: usize) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let any = SocketAddr::new(if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() }, 0);
    let mut sockets = Vec::new();
    for n in 0..SOCKETS {
        let mut socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        poll.registry().register(&mut socket, Token(n), Interest::READABLE)?;
        sockets.push(socket);
    }
    let mut exchange = Exchange { sockets, waiting: vec![HashMap::new(); SOCKETS], sent: 0, answered: 0, count };
    for n in 0..SOCKETS {
        exchange.fill_window(n)?;
    }
    let mut events = Events::with_capacity(SOCKETS);
    while exchange.answered < count {
        poll.poll(&mut events, Some(SILENCE))?;
        if events.is_empty() {
            let lost = exchange.sent - exchange.answered;
            return Err(io::Error::other(format!("{lost} of {} datagrams unanswered", exchange.sent)));
        }
        for event in &events {
            exchange.read(event.token().0)?;
        }
    }
    super::print(&format!("verified {count}\n"));
    Ok(())
}

struct Exchange {
    sockets: Vec<UdpSocket>,
    /// What each socket waits for, by number.
    waiting: Vec<HashMap<u64, Vec<u8>>>,
    sent: usize,
    answered: usize,
    count: usize,
}

impl Exchange {
    fn fill_window(&mut self, n: usize) -> io::Result<()> {
        while self.waiting[n].len() < WINDOW && self.sent < self.count {
            let number = self.sent as u64;
            let datagram = datagram(number);
            self.sockets[n].send(&datagram)?;
            self.waiting[n].insert(number, datagram);
            self.sent += 1;
        }
        Ok(())
    }

    fn read(&mut self, n: usize) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let length = match self.sockets[n].recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let number = buffer.first_chunk().map(|head| u64::from_be_bytes(*head));
            let expected = number.and_then(|number| self.waiting[n].remove(&number));
            if length < 8 || expected.as_deref() != Some(&buffer[..length]) {
                return Err(io::Error::other(format!("{length} bytes that nobody waits for (number {number:?})")));
            }
            self.answered += 1;
            self.fill_window(n)?;
        }
    }
}

/// The number, then bytes that depend on it in value and count.
fn datagram(number: u64) -> Vec<u8> {
    let length = 8 + usize::try_from(number.wrapping_mul(2_654_435_761) % 1393).expect("below 1393");
    let mut bytes = number.to_be_bytes().to_vec();
    let mut state = number ^ 0x9e37_79b9_7f4a_7c15;
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
