//! The sockets between the two gateways, one a path.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};

use crate::config::ha;
use crate::control::ha::PathReport;
use crate::engine::Instant;
use crate::io::sys;

/// Longest datagram that is understood: any.
const LONGEST: usize = 1 << 16;
/// Datagrams read from one path before something else has its turn: no flood may hold up heartbeats.
const TURN: usize = 1024;

/// One path: a socket that hears the peer's end alone.
#[derive(Debug)]
pub(super) struct Path {
    socket: UdpSocket,
    /// When the socket was last seen empty: what is read later has come later.
    empty_at: Instant,
    ends: ha::Path,
    sent: u64,
    refused: u64,
}

impl Path {
    /// Opens this gateway's end.
    ///
    /// # Errors
    /// The address is not this machine's, or taken.
    pub(super) fn open(path: &ha::Path, now: Instant) -> io::Result<Self> {
        let socket = UdpSocket::bind(path.listen)?;
        socket.connect(path.peer)?;
        socket.set_nonblocking(true)?;
        sys::tell_times(&socket)?;
        Ok(Self { socket, empty_at: now, ends: *path, sent: 0, refused: 0 })
    }

    /// What there is to tell about it.
    pub(super) const fn report(&self) -> PathReport {
        let Self { ends: ha::Path { listen, peer }, sent, refused, .. } = *self;
        PathReport { listen, peer, sent, refused }
    }

    /// Sends; what does not leave is lost, as on any network.
    pub(super) fn send(&mut self, datagram: &[u8]) {
        // The first call may tell of an earlier datagram that met no listener: it has sent nothing then.
        let sent = self.socket.send(datagram).or_else(|_| self.socket.send(datagram));
        match sent {
            Ok(_) => self.sent += 1,
            Err(_) => self.refused += 1,
        }
    }

    /// Reads all that waits, each with the time at which it came. True if more may wait.
    pub(super) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        now: Instant,
        mut each: impl FnMut(&mut [u8], Instant),
    ) -> bool {
        buffer.resize(LONGEST, 0);
        for _ in 0..TURN {
            match sys::receive_with_age(&self.socket, buffer) {
                Ok((len, age)) => each(&mut buffer[..len], (now - age).max(self.empty_at).min(now)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.empty_at = now;
                    return false;
                }
                // Of something that was sent: nobody listened there.
                Err(_) => {}
            }
        }
        true
    }
}

impl AsFd for Path {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
