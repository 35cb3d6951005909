//! A ping: by a ping socket, or a raw one, which needs CAP_NET_RAW.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use mio::Token;
use mio::net::UdpSocket;

use crate::control::health::Outcome;
use crate::io::sys;
use crate::wire::checksum;

/// Echo and its answer, ICMP and ICMPv6 (RFC 792, RFC 4443 4.1, 4.2).
const REQUEST: [u8; 2] = [8, 128];
const REPLY: [u8; 2] = [0, 129];
const MARK: &[u8; 8] = b"tungate:";

/// A ping that waits for its answer.
#[derive(Debug)]
pub(super) struct Echo {
    v4: bool,
    /// The IP header comes along, and so do other people's answers.
    raw: bool,
    sequence: u16,
}

impl Echo {
    /// Sends it. A ping socket does not need the checksum, and sets the identifier itself.
    ///
    /// # Errors
    /// This process may do neither, or there is no way to that host.
    pub(super) fn begin(address: IpAddr, token: Token) -> io::Result<(UdpSocket, Self)> {
        let v4 = address.is_ipv4();
        let (socket, raw) = sys::ping_socket(v4).map_err(|error| without_errno(&error))?;
        // What std calls a UDP socket is any that takes connect(2), send(2) and recv(2).
        let socket = UdpSocket::from_std(std::net::UdpSocket::from(OwnedFd::from(socket)));
        socket.connect(SocketAddr::new(address, 0))?;
        let [.., high, low] = token.0.to_be_bytes();
        let echo = Self { v4, raw, sequence: u16::from_be_bytes([high, low]) };
        socket.send(&echo.request())?;
        Ok((socket, echo))
    }

    /// Looks for the answer in what the socket has.
    ///
    /// # Errors
    /// The host is not reached.
    pub(super) fn hear(&self, socket: &UdpSocket) -> io::Result<Option<Outcome>> {
        let mut buffer = [0; 512];
        loop {
            match socket.recv(&mut buffer) {
                Ok(count) if self.is_answered_by(&buffer[..count]) => return Ok(Some(Outcome::Good)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn request(&self) -> Vec<u8> {
        let mut message = vec![REQUEST[usize::from(!self.v4)], 0, 0, 0, 0x74, 0x67];
        message.extend(self.sequence.to_be_bytes());
        message.extend(MARK);
        if self.v4 {
            let sum = !checksum::sum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    fn is_answered_by(&self, packet: &[u8]) -> bool {
        let header = if self.raw && self.v4 { usize::from(packet.first().map_or(0, |byte| byte & 15)) * 4 } else { 0 };
        let Some(message) = packet.get(header..) else { return false };
        message.len() >= 16
            && message[0] == REPLY[usize::from(!self.v4)]
            && message[6..8] == self.sequence.to_be_bytes()
            && message[8..16] == *MARK
    }
}

/// That this process may not ping is no news of the backend, as `EACCES` of the network would be.
fn without_errno(error: &io::Error) -> io::Error {
    io::Error::other(format!("no right to ping ({error}): give CAP_NET_RAW, or set net.ipv4.ping_group_range"))
}
