//! The kernel's links, addresses and routes, asked and changed over rtnetlink, one request at a time.
//!
//! A [`Netlink`] belongs to the network namespace of the thread that opened it, for as long as it lives. Every call waits
//! for the kernel's answer (microseconds: rtnetlink answers within the sending call). A refusal becomes a
//! [`NetlinkError`]: what was tried, what the kernel says, what to do.

mod link;
mod route;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::words::in_words;

pub use crate::wire::Prefix;
pub use link::{Ipv4Setting, Link, LinkChange};
pub use route::{AddedRule, LocalAddress, Route, Rule, Target, Way};

/// How a request that makes something treats what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Make {
    /// It must not be there.
    New,
    /// It takes the place of what is there.
    Replace,
}

/// A conversation with the kernel's network configuration.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a conversation about the network namespace of the calling thread.
    ///
    /// # Errors
    /// No descriptor or memory left.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::connect().map_err(|error| NetlinkError::new("open a netlink socket", error))
    }

    fn connect() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel's reason in words, and our request not quoted back. Kernels before 4.12 have neither: no harm.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self { socket, sequence: 0 })
    }

    /// Everything of one kind: the answers to a dump request. `attempt` completes "cannot ...".
    fn dump(&mut self, attempt: &str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.exchange(message, NLM_F_DUMP).map_err(|refusal| refusal.during(attempt))
    }

    /// One thing asked for by its name.
    fn get(&mut self, attempt: &str, message: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, NetlinkError> {
        let answers = self.exchange(message, NLM_F_ACK).map_err(|refusal| refusal.during(attempt))?;
        answers.into_iter().next().ok_or_else(|| NetlinkError::new(attempt, io::ErrorKind::NotFound.into()))
    }

    /// Adds something.
    fn make(&mut self, attempt: &str, message: RouteNetlinkMessage, make: Make) -> Result<(), NetlinkError> {
        let how = match make {
            Make::New => NLM_F_EXCL,
            Make::Replace => NLM_F_REPLACE,
        };
        self.change(attempt, message, NLM_F_CREATE | how)
    }

    /// Changes or removes something.
    fn change(&mut self, attempt: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_ACK | flags).map(drop).map_err(|refusal| refusal.during(attempt))
    }

    /// Sends a request and collects the answers up to the acknowledgement or the end of the dump.
    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if self.collect(&datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Takes the messages of one datagram; true when the kernel has said its last word.
    fn collect(&self, datagram: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> Result<bool, Refusal> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = usize::try_from(message.header.length).expect("a length that was just parsed");
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue; // the tail of an exchange that was given up half-way
            }
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => {
                    return Err(Refusal { error: error.to_io(), reason: reason_in_words(&error.header) });
                }
                NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS).into()),
                NetlinkPayload::Noop | _ => {}
            }
        }
        Ok(false)
    }
}

/// Readable whenever something has changed in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Watch(Socket);

impl Watch {
    /// Watches links and their addresses: one is added, removed, or changes its state.
    ///
    /// # Errors
    /// No descriptor or memory left.
    pub fn links_and_addresses() -> Result<Self, NetlinkError> {
        Self::open(&[libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR])
            .map_err(|error| NetlinkError::new("watch the interfaces and their addresses", error))
    }

    /// Watches links: one comes, goes, or is set up or down.
    ///
    /// # Errors
    /// No descriptor or memory left.
    pub fn links() -> Result<Self, NetlinkError> {
        Self::open(&[libc::RTNLGRP_LINK]).map_err(|error| NetlinkError::new("watch the interfaces", error))
    }

    fn open(groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self(socket))
    }

    /// Takes note of all changes so far. What there is now is asked of a [`Netlink`].
    pub fn clear(&self) {
        // Any end will do: nothing left, or messages lost for want of room, which asking makes good.
        while self.0.recv_from_full().is_ok() {}
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the kernel refused, why, and what to do about it.
#[derive(Debug)]
pub struct NetlinkError {
    attempt: String,
    error: io::Error,
    reason: Option<String>,
    remedy: Option<String>,
}

impl NetlinkError {
    fn new(attempt: &str, error: io::Error) -> Self {
        Refusal::from(error).during(attempt)
    }

    /// The error number of the kernel's answer, if it came from there.
    pub fn errno(&self) -> Option<i32> {
        self.error.raw_os_error()
    }

    /// Adds what the reader can do, for an error with this number.
    fn remedy_for(mut self, errno: i32, remedy: impl FnOnce() -> String) -> Self {
        if self.errno() == Some(errno) {
            self.remedy = Some(remedy());
        }
        self
    }
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.attempt, in_words(&self.error))?;
        if let Some(reason) = &self.reason {
            write!(f, " ({reason})")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NetlinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// A bare refusal, before it is known what was tried.
struct Refusal {
    error: io::Error,
    reason: Option<String>,
}

impl Refusal {
    fn during(self, attempt: &str) -> NetlinkError {
        let error = NetlinkError { attempt: attempt.to_owned(), error: self.error, reason: self.reason, remedy: None };
        error.remedy_for(libc::EPERM, || "run as root or with CAP_NET_ADMIN".to_owned())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { error, reason: None }
    }
}

/// The extended acknowledgement's text: behind the header of our own request, as attribute NLMSGERR_ATTR_MSG.
fn reason_in_words(after_code: &[u8]) -> Option<String> {
    const REQUEST_HEADER: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let attributes = NlasIterator::new(after_code.get(REQUEST_HEADER..)?);
    let text = |nla: NlaBuffer<&[u8]>| String::from_utf8_lossy(nla.value()).trim_end_matches('\0').to_owned();
    attributes.flatten().find(|nla| nla.kind() == NLMSGERR_ATTR_MSG).map(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_tried_what_happened_and_what_to_do() {
        let refusal =
            Refusal { error: io::Error::from_raw_os_error(libc::EEXIST), reason: Some("already there".to_owned()) };
        let error = refusal.during("add a route").remedy_for(libc::EEXIST, || "remove the other".to_owned());
        assert_eq!(error.to_string(), "cannot add a route: File exists (already there); remove the other");
        assert_eq!(error.errno(), Some(libc::EEXIST));
    }

    #[test]
    fn a_remedy_belongs_to_its_error_number_only() {
        let error = NetlinkError::new("do it", io::Error::from_raw_os_error(libc::EPERM));
        let error = error.remedy_for(libc::EEXIST, || "never said".to_owned());
        assert_eq!(error.to_string(), "cannot do it: Operation not permitted; run as root or with CAP_NET_ADMIN");
    }

    #[test]
    fn the_kernels_words_are_found_behind_the_quoted_header() {
        let mut answer = vec![0; 16];
        answer.extend([6, 0, 2, 0, 9, 9, 0, 0]); // NLMSGERR_ATTR_OFFS, padded
        answer.extend([8, 0, 1, 0, b'n', b'o', b'!', 0]);
        assert_eq!(reason_in_words(&answer).as_deref(), Some("no!"));
        assert_eq!(reason_in_words(&answer[..16]), None);
        assert_eq!(reason_in_words(&[]), None);
    }
}
