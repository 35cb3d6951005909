//! The TUN: the door through which packets come from the kernel's routing and go back to it.
//!
//! Opened with virtio headers and, unless told otherwise, with all segmentation offloads: what is read may be one packet
//! or a super-packet of up to 64 KiB, always behind the 10 bytes that say which. This module moves bytes; their meaning
//! is [`crate::wire`]'s.
//!
//! # What the interface is told
//! Only our own interface is touched, and through netlink, because `/proc/sys` is read-only in most containers. IPv4:
//! `forwarding = 1`, `rp_filter = 0`, `send_redirects = 0`, `accept_local = 1` (this machine's own ICMP errors about what
//! we forward come back from us translated, still from its address). IPv6: no address generation and no multicast;
//! without these two the kernel sends router solicitations and MLD reports into the TUN as soon as it is up. Two IPv6
//! settings exist in `/proc/sys` alone and are made where it can be written: `disable_ipv6 = 0` and
//! `force_forwarding = 1`. Ring of 4096 slots (500 overflow under bulk TCP), no queueing discipline (each costs 40-90 ns
//! a packet).
//!
//! # What the operator has to allow
//! Found by experiment on Linux 6.18, by what a packet comes in on:
//!
//! | packet | IPv4 | IPv6 |
//! |---|---|---|
//! | written to the TUN, to be forwarded | `forwarding` of the TUN: set here | `net.ipv6.conf.all.forwarding`, or (Linux 6.17 and later) `force_forwarding` of the TUN: set here where `/proc/sys` allows |
//! | from the network, for the TUN | `forwarding` of that interface; `net.ipv4.ip_forward = 1` sets it on all | `net.ipv6.conf.all.forwarding = 1`, or `force_forwarding` of that interface; its plain `forwarding` has no effect on this |
//! | written with a client's address as its source (`source-nat = false`) | where rules by mark bring the answers back: `net.ipv4.conf.all.rp_filter = 0`. The greater of `all` and the TUN's own counts, and 2 is as strict as 1 on an interface without an address | - |
//!
//! With full NAT a strict `rp_filter` is no obstacle: VIPs and source addresses are routed to the TUN, so it is where
//! packets from them are expected. Nor is it where rules by interface or source bring answers to clients into the TUN: the
//! kernel looks for the way back by the same rules. None of these addresses may be local to the machine: the kernel would keep what comes
//! for them. Below an MTU of 1280 the kernel runs no IPv6 on an interface.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::netlink::{Ipv4Setting, LinkChange, Netlink, NetlinkError};
use super::sys;
use super::words::{in_words, with_remedy};
use crate::config::bad_interface;

/// Slots of each queue's ring. A full ring drops; each slot may hold 64 KiB of kernel memory.
const RING_SLOTS: u32 = 4096;

/// RFC 8200 5: below it the kernel runs no IPv6 on an interface.
const IPV6_LEAST_MTU: u32 = 1280;

/// What to create.
#[derive(Clone, Copy, Debug)]
pub struct TunConfig<'a> {
    /// Name of the interface, 1 to 15 bytes; nothing of that name may exist.
    pub name: &'a str,
    /// Largest packet that the kernel hands over unsegmented, bytes; at least 1280 for IPv6.
    pub mtu: u16,
    /// Queues, one a worker, at least 1.
    pub queues: u16,
    /// Which super-packets we take.
    pub offloads: Offloads,
}

/// Which super-packets the kernel may hand over and accepts back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// All that this kernel has.
    All,
    /// None: single packets with complete checksums. To measure what the others are worth.
    None,
}

/// Which offloads the kernel granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// TCP and UDP segmentation and checksums.
    TcpAndUdp,
    /// TCP segmentation and checksums: Linux before 6.2.
    Tcp,
    /// None.
    Nothing,
}

/// A TUN interface. It exists as long as this value (or, should its removal fail, as long as its queues), and with it
/// exist its routes.
#[derive(Debug)]
pub struct Tun {
    name: String,
    index: u32,
    granted: Granted,
    netlink: Netlink,
}

/// One queue of a TUN, non-blocking. Packets are read and written whole, behind their 10-byte virtio header.
///
/// With several queues the kernel does as `steering` has told it. Until then it spreads flows by hash, and
/// brings a flow's answers to the queue that wrote it last.
#[derive(Debug)]
pub struct TunQueue(File);

impl Tun {
    /// Creates the interface, up and ready, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`TunError`]; nothing is left behind.
    pub fn create(config: &TunConfig<'_>) -> Result<(Self, Vec<TunQueue>), TunError> {
        let name = config.name;
        if let Some(why) = bad_interface(name) {
            return Err(TunError::BadName(name.to_owned(), why));
        }
        let several = if config.queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several;
        let mut queues = vec![attach(name, flags | libc::IFF_TUN_EXCL)?];
        while queues.len() < usize::from(config.queues) {
            queues.push(attach(name, flags)?);
        }
        let granted = match config.offloads {
            Offloads::All => offer_all(&queues[0].0),
            Offloads::None => Granted::Nothing,
        };
        let mut netlink = Netlink::open()?;
        let index = netlink.link(name)?.index;
        configure(&mut netlink, index, config)?;
        Ok((Self { name: name.to_owned(), index, granted, netlink }, queues))
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, for routes to it.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Which offloads the kernel granted.
    pub fn offloads(&self) -> Granted {
        self.granted
    }
}

impl Drop for Tun {
    /// Removes the interface even while a worker holds a queue: its reads and writes fail with `EBADFD` from now on.
    fn drop(&mut self) {
        // Without privileges (given up since), or when somebody else was quicker, closing the queues does it.
        let _ = self.netlink.delete_link(self.index);
    }
}

impl TunQueue {
    /// Another descriptor of the same queue.
    ///
    /// # Errors
    /// No descriptor left.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Has the kernel pick the queue of each packet by this program, for all queues of the interface.
    ///
    /// # Errors
    /// As [`sys::tun_set_steering`].
    pub(super) fn steer_by(&self, program: &File) -> io::Result<()> {
        sys::tun_set_steering(&self.0, program)
    }

    /// Reads one packet with its virtio header; the number of bytes. A buffer of less than 65,545 bytes may cut a packet
    /// short without notice.
    ///
    /// # Errors
    /// `WouldBlock`: none there. `EBADFD`: the interface is gone.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    /// Writes one packet with its virtio header. The kernel routes and forwards it before this returns.
    ///
    /// # Errors
    /// `EINVAL`: the kernel refuses the virtio header. `EIO`: the interface is down. `EBADFD`: it is gone.
    #[inline]
    pub fn write(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.0).write(packet)
    }

    /// Writes one packet that lies in pieces, as [`write`](Self::write) does.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[inline]
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.0).write_vectored(pieces)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TcpAndUdp => "TCP and UDP segmentation",
            Self::Tcp => "TCP segmentation (UDP needs Linux 6.2)",
            Self::Nothing => "none",
        })
    }
}

/// Why there is no TUN.
#[derive(Debug)]
pub enum TunError {
    /// There is no `/dev/net/tun`, or no driver behind it.
    NoDevice,
    /// `/dev/net/tun` may not be opened.
    DeviceForbidden(io::Error),
    /// No CAP_NET_ADMIN.
    NotPermitted,
    /// An interface of that name exists. It is left alone.
    NameTaken(String),
    /// No interface can have this name, and why.
    BadName(String, &'static str),
    /// The kernel refused for another reason.
    Refused(io::Error),
    /// Created, but not to be configured; it is removed again.
    Configuration(NetlinkError),
}

impl fmt::Display for TunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str(
                "no /dev/net/tun: load the driver with `modprobe tun`; \
                 a container needs the device passed in (`--device /dev/net/tun`)",
            ),
            Self::DeviceForbidden(error) => write!(
                f,
                "cannot open /dev/net/tun: {}; run as root, or let everybody open it, as most systems do \
                 (`chmod 666 /dev/net/tun`: to create a TUN takes CAP_NET_ADMIN all the same)",
                in_words(error)
            ),
            Self::NotPermitted => f.write_str(
                "not allowed to create a TUN: run as root or with CAP_NET_ADMIN (a container: `--cap-add NET_ADMIN`)",
            ),
            Self::NameTaken(name) => write!(
                f,
                "an interface named {name} exists already: give `interface` in [gateway] another name, or remove that one \
                 (`ip link del {name}`) if nothing uses it"
            ),
            Self::BadName(name, why) => write!(f, "`{name}` cannot name an interface: {why}"),
            Self::Refused(error) => write!(f, "the kernel refuses to create a TUN: {}", with_remedy(error)),
            Self::Configuration(error) => write!(f, "the TUN cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for TunError {}

impl From<NetlinkError> for TunError {
    fn from(error: NetlinkError) -> Self {
        Self::Configuration(error)
    }
}

/// Opens `/dev/net/tun`, which creates nothing yet.
pub(super) fn open_device() -> Result<File, TunError> {
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    open.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDevice,
        _ => TunError::DeviceForbidden(error),
    })
}

/// Opens one queue. With `IFF_TUN_EXCL` it is the first, and the kernel refuses to join what exists.
fn attach(name: &str, flags: libc::c_int) -> Result<TunQueue, TunError> {
    let queue = open_device()?;
    sys::tun_attach(&queue, name, flags).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => TunError::NotPermitted,
        Some(libc::EBUSY) => TunError::NameTaken(name.to_owned()),
        _ => TunError::Refused(error),
    })?;
    Ok(TunQueue(queue))
}

/// Offers to take everything; a kernel that knows less refuses the whole set, so ask for less then.
fn offer_all(queue: &File) -> Granted {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    if sys::tun_set_offload(queue, tcp | udp).is_ok() {
        return Granted::TcpAndUdp;
    }
    if sys::tun_set_offload(queue, tcp).is_ok() { Granted::Tcp } else { Granted::Nothing }
}

fn configure(netlink: &mut Netlink, index: u32, config: &TunConfig<'_>) -> Result<(), TunError> {
    // On a router the kernel has joined the routers' multicast groups by now and would report that. Too small an MTU makes
    // it forget all about IPv6 here; with the right one it starts anew, this time on an interface without multicast.
    let ipv6_off = LinkChange { multicast: Some(false), mtu: Some(IPV6_LEAST_MTU - 1), ..LinkChange::default() };
    netlink.change_link(index, &ipv6_off)?;
    let (mtu, queue_length) = (Some(u32::from(config.mtu)), Some(RING_SLOTS));
    netlink.change_link(index, &LinkChange { mtu, queue_length, ..LinkChange::default() })?;

    let ipv4 = [
        (Ipv4Setting::Forwarding, 1),
        (Ipv4Setting::SendRedirects, 0),
        (Ipv4Setting::ReversePathFilter, 0),
        // A link before us is too small: the error about it is the kernel's own, and a backend's to read. Not a martian.
        (Ipv4Setting::AcceptLocal, 1),
    ];
    netlink.set_ipv4(index, &ipv4)?;
    match netlink.disable_ipv6_autoconfiguration(index) {
        Err(error) if error.errno() != Some(libc::EAFNOSUPPORT) => return Err(error.into()),
        Ok(()) | Err(_) => {} // a kernel without IPv6, or too small an MTU for it: nothing to disable
    }
    // Not to be had through netlink, and not needed everywhere: where /proc/sys is read-only, `doctor` tells.
    for (setting, value) in [("disable_ipv6", "0"), ("force_forwarding", "1")] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/{setting}", config.name), value);
    }
    if let Err(error) = netlink.remove_queueing(index) {
        log::warn!("the TUN keeps its queueing discipline, which costs some speed: {error}");
    }
    netlink.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    Ok(())
}
