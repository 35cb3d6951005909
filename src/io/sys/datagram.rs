//! Datagrams with the time at which the kernel got them.

use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::socket::set_option;
use super::wall_clock;

/// Has a socket tell when each of its datagrams came.
///
/// # Errors
/// The socket is of another kind.
pub fn tell_times(socket: &UdpSocket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1)
}

/// Receives one datagram of a socket that [tells times](tell_times): its length, and how long it has lain there. The
/// kernel's time is the time of day, so a clock that is set at this moment makes that wrong.
///
/// # Errors
/// `WouldBlock`: there is none. Others tell of an earlier datagram that did not arrive.
pub fn receive_with_age(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
    // SAFETY: a msghdr is integers and pointers; all zeros is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    let mut control = [0_u64; 8]; // aligned as a cmsghdr
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer of the message is to live memory of the length that stands beside it, borrowed until the call
    // returns.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let age = stamp(&message).map_or(Duration::ZERO, |stamp| wall_clock().saturating_sub(stamp));
    Ok((len, age))
}

/// The kernel's time among a message's control data.
fn stamp(message: &libc::msghdr) -> Option<Duration> {
    // SAFETY: the message was filled in by the kernel; the CMSG calls walk its control data within the length it says, and
    // an entry of this kind holds a timespec.
    unsafe {
        let mut entry = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = entry.as_ref() {
            if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
                let time = libc::CMSG_DATA(entry).cast::<libc::timespec>().read_unaligned();
                let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
                return Some(Duration::new(seconds, nanos));
            }
            entry = libc::CMSG_NXTHDR(message, entry);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sys::wait;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_datagram_tells_how_long_it_has_lain_there() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        tell_times(&socket).unwrap();
        let idle = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut buffer = [0; 16];
        // The kernel begins to look at the clock a moment after it is told to.
        let told = (0..100).any(|_| {
            let before = wall_clock();
            socket.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
            wait(&[socket.as_fd()], None).unwrap();
            // Nothing ever comes here: it is the time that is waited for.
            wait(&[idle.as_fd()], Some(Duration::from_millis(30))).unwrap();
            let (len, age) = receive_with_age(&socket, &mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"hello");
            assert!(age <= wall_clock() - before, "{age:?}");
            age >= Duration::from_millis(25)
        });
        assert!(told, "no datagram told that it had lain there");
        let error = receive_with_age(&socket, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
