//! Sockets that the standard library does not make: of whole frames, of any protocol, and with what it does not tell of
//! a packet.

use std::fs::File;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use super::{check, new_file, short, socklen};

/// A raw packet socket (link header included) on one interface, non-blocking, for one ethertype, with a socket filter
/// in force before the first frame can arrive. Read and write whole frames.
///
/// # Errors
/// `EPERM` without CAP_NET_RAW, `ENODEV` for an unknown interface, `EINVAL` for a filter that the kernel refuses.
pub fn packet_socket(interface: u32, ethertype: u16, filter: &[libc::sock_filter]) -> io::Result<File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Protocol 0 hears nothing: the filter is there before bind() opens the socket's ears.
    // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
    let socket = unsafe { new_file(libc::socket(libc::AF_PACKET, kind, 0)) }?;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: filter.as_ptr().cast_mut(),
    };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    // SAFETY: a sockaddr_ll is integers and an array of them; all zeros is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = short(libc::AF_PACKET);
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = interface_number(interface)?;
    // SAFETY: the address is a live sockaddr_ll of the length given.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), socklen::<libc::sockaddr_ll>()) })?;
    Ok(socket)
}

/// Has the interface accept every multicast frame for as long as this packet socket is open.
///
/// # Errors
/// `ENODEV` if the interface is gone.
pub fn receive_all_multicast(socket: &File, interface: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: interface_number(interface)?,
        mr_type: short(libc::PACKET_MR_ALLMULTI),
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// A raw socket, non-blocking, that hears IP packets of this protocol for this machine, put together from their
/// fragments. They are read behind their IP header if `v4`, else without it.
///
/// # Errors
/// `EPERM` without CAP_NET_RAW, `EAFNOSUPPORT` without IPv6.
pub fn raw_socket(v4: bool, protocol: u8) -> io::Result<File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
    unsafe { new_file(libc::socket(inet(v4), kind, libc::c_int::from(protocol))) }
}

/// A UDP socket, non-blocking, on this port of all addresses of one family.
///
/// # Errors
/// `EADDRINUSE`, `EAFNOSUPPORT` without IPv6.
pub fn udp_socket(v4: bool, port: u16) -> io::Result<File> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
    let socket = unsafe { new_file(libc::socket(inet(v4), kind, 0)) }?;
    if !v4 {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1)?;
    }
    // SAFETY: a sockaddr_in6 is integers and an array of them; all zeros is a valid value, and the any address.
    let mut address: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    // The families' addresses begin alike: family, then port.
    address.sin6_family = short(inet(v4));
    address.sin6_port = port.to_be();
    // SAFETY: the address is a live sockaddr_in6, which is longer than a sockaddr_in.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), socklen::<libc::sockaddr_in6>()) })?;
    Ok(socket)
}

/// A socket that sends echo requests and hears the answers to them, non-blocking: one of the kernel's ping sockets where
/// `net.ipv4.ping_group_range` lets our group have one, else a raw socket. The flag tells which: a raw one hears all ICMP
/// of its peer, and of IPv4 with the IP header in front.
///
/// # Errors
/// `EPERM` or `EACCES` if neither is allowed: the range does not have our group, and CAP_NET_RAW is missing.
pub fn ping_socket(v4: bool) -> io::Result<(File, bool)> {
    let protocol = if v4 { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
    if let Ok(socket) = unsafe { new_file(libc::socket(inet(v4), kind, protocol)) } {
        return Ok((socket, false));
    }
    raw_socket(v4, u8::try_from(protocol).expect("a protocol is a byte")).map(|socket| (socket, true))
}

/// Has a TCP socket end with a RST when it is closed, so that neither end remembers the connection.
///
/// # Errors
/// The socket is of another kind.
pub fn reset_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Has a socket of this family tell the TOS or traffic class of what it receives, and hold up to so many bytes of it.
///
/// # Errors
/// The socket is of another kind.
pub fn tell_traffic_class(socket: &File, v4: bool, buffer: libc::c_int) -> io::Result<()> {
    // Without CAP_NET_ADMIN the kernel's own limit holds.
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &buffer).is_err() {
        set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &buffer)?;
    }
    if v4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, &1)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, &1)
    }
}

/// What a socket has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes.
    pub len: usize,
    /// Who sent it.
    pub source: IpAddr,
    /// TOS or traffic class, if the socket [tells](tell_traffic_class) it; else 0.
    pub traffic_class: u8,
}

/// Receives one packet.
///
/// # Errors
/// `WouldBlock`: there is none.
pub fn receive_from(socket: &File, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: a sockaddr_in6 and a msghdr are integers, pointers and arrays of them; all zeros is a valid value.
    let (mut source, mut message): (libc::sockaddr_in6, libc::msghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut control = [0_u64; 8]; // aligned as a cmsghdr
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut source).cast();
    message.msg_namelen = socklen::<libc::sockaddr_in6>();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer of the message is to live memory of the length that stands beside it, borrowed until the call
    // returns.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(Received { len, source: address_of(&source), traffic_class: traffic_class(&message) })
}

/// The address in a socket address of either family.
fn address_of(socket: &libc::sockaddr_in6) -> IpAddr {
    if libc::c_int::from(socket.sin6_family) == libc::AF_INET6 {
        return IpAddr::from(socket.sin6_addr.s6_addr);
    }
    // SAFETY: a sockaddr_in is the shorter of the two, integers alone, and what the kernel wrote for this family.
    let v4: &libc::sockaddr_in = unsafe { &*std::ptr::from_ref(socket).cast() };
    IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes())
}

/// The TOS (one byte) or traffic class (an int) among a message's control data.
fn traffic_class(message: &libc::msghdr) -> u8 {
    // SAFETY: the message was filled in by the kernel; the CMSG calls walk its control data within the length it says,
    // and each entry's data is as long as its kind says: one byte at least, the lowest of a little-endian int.
    unsafe {
        let mut entry = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = entry.as_ref() {
            let data = libc::CMSG_DATA(entry);
            match (header.cmsg_level, header.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_TOS) => return data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    return data.cast::<libc::c_int>().read_unaligned().to_le_bytes()[0];
                }
                _ => entry = libc::CMSG_NXTHDR(message, entry),
            }
        }
    }
    0
}

const fn inet(v4: bool) -> libc::c_int {
    if v4 { libc::AF_INET } else { libc::AF_INET6 }
}

pub(super) fn set_option<T>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let place = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live value, and what the value points to (a filter program)
    // is borrowed by the caller until the call returns.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, place, socklen::<T>()) }).map(drop)
}

fn interface_number(index: u32) -> io::Result<libc::c_int> {
    libc::c_int::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}
