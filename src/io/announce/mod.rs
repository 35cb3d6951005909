//! Tells the neighbours that VIPs and source addresses are here: answers ARP requests and neighbour solicitations for
//! them, and announces them when we start and whenever a link has come up: who is at its other end now knows nothing of
//! us, or has forgotten it.
//!
//! The kernel could answer for us (proxy ARP, proxy NDP), but it waits up to 0.8 s before it does, unless told
//! otherwise on interfaces that are not ours to configure, and it goes on answering for a gateway that is dead. So we
//! listen on packet sockets and answer ourselves, within microseconds, and exactly as long as we live.
//!
//! An address that the kernel holds is left to the kernel, which would answer as well. For a prefix, every address in it
//! is answered for; up to [`MOST_ANNOUNCED`] of its addresses are announced.
//!
//! The sockets pass only what concerns us, by a filter in the kernel. To hear solicitations at all, the groups that they
//! are sent to are joined properly: that programs the card's filter, and its MLD reports open the switches that snoop.
//!
//! An interface that is deleted and made again, as those of PPP, of VLANs and of virtual machines are, is heard again.

mod arp;
mod filter;
mod neighbour;
mod presence;
mod schedule;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::Instant;
use crate::wire::Family;

use super::netlink::{Link, Netlink, NetlinkError, Prefix, Watch};
use super::sys::{self, Waker};
use super::words::{in_words, with_remedy};
pub use presence::Presence;
use schedule::Schedule;

/// A prefix of more addresses than this is answered for, but not announced address by address.
pub const MOST_ANNOUNCED: u32 = 256;

/// Interfaces that one announcer can serve: a socket for each family, and three descriptors of its own.
const MOST_INTERFACES: usize = (sys::MAX_WAIT - 3) / 2;

/// Frames read from one socket before the others have their turn, and the end is looked for: a flood must not hold up
/// either.
const TURN: usize = 64;

/// Least time between two defences against a rival's claim (`DEFEND_INTERVAL`, RFC 5227 1.1).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

type Mac = [u8; 6];

/// What a frame means to us.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// None of our business.
    Nothing,
    /// Somebody asks for an address of ours; this frame is the answer.
    Question(Vec<u8>),
    /// Somebody else says that an address of ours is his.
    Claim(Claim),
}

/// A rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    address: IpAddr,
    by: Mac,
}

/// Answers and announces from its start until it is dropped.
#[derive(Debug)]
pub struct Announcer {
    interfaces: Vec<String>,
    addresses: Vec<Prefix>,
    stop: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// What becomes of an interface that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Refused,
    /// It is heard as soon as it is.
    Awaited,
}

impl Announcer {
    /// Starts to answer for the addresses on the interfaces, in the network namespace of the calling thread, and
    /// announces them there, while they are here by what `presence` says. When this returns, questions are heard.
    ///
    /// # Errors
    /// [`AnnounceError`].
    pub fn start(interfaces: &[String], addresses: &[Prefix], presence: Arc<Presence>) -> Result<Self, AnnounceError> {
        Self::begin(interfaces, addresses, presence, Absent::Refused)
    }

    /// As [`Self::start`], in place of one that has run: an interface that is not there has been, and is awaited.
    ///
    /// # Errors
    /// [`AnnounceError`].
    pub fn start_again(
        interfaces: &[String],
        addresses: &[Prefix],
        presence: Arc<Presence>,
    ) -> Result<Self, AnnounceError> {
        Self::begin(interfaces, addresses, presence, Absent::Awaited)
    }

    /// Whether these could be announced on.
    ///
    /// # Errors
    /// [`AnnounceError`].
    pub fn check<'a>(interfaces: impl IntoIterator<Item = &'a String>) -> Result<(), AnnounceError> {
        let mut netlink = Netlink::open()?;
        interfaces.into_iter().try_for_each(|name| hardware_address(&netlink.link(name)?, name).map(drop))
    }

    /// Whether it does that already.
    pub fn is_for(&self, interfaces: &[String], addresses: &[Prefix]) -> bool {
        self.interfaces == interfaces && self.addresses == addresses
    }

    fn begin(
        interfaces: &[String],
        addresses: &[Prefix],
        presence: Arc<Presence>,
        absent: Absent,
    ) -> Result<Self, AnnounceError> {
        if interfaces.len() > MOST_INTERFACES {
            return Err(AnnounceError::TooMany(interfaces.len()));
        }
        let mut netlink = Netlink::open()?;
        // Watch first, then list: an address that comes in between is noticed.
        let watch = Watch::links_and_addresses()?;
        let held = held_by_kernel(&mut netlink)?;
        let book = AddressBook { ours: addresses.to_vec(), held };
        let mut ears = Vec::new();
        for name in interfaces {
            match netlink.link(name) {
                Ok(link) => ears.extend(Ear::open(name, &link, &book.ours)?),
                Err(error) if absent == Absent::Awaited && error.errno() == Some(libc::ENODEV) => {
                    log::error!("{error}: our addresses are announced on {name} as soon as it is there");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let stop = Arc::new(Waker::new().map_err(AnnounceError::System)?);
        let (interfaces, addresses) = (interfaces.to_vec(), addresses.to_vec());
        let crier = Crier {
            interfaces: interfaces.clone(),
            ears,
            book,
            netlink,
            watch,
            presence,
            stop: stop.clone(),
            last_defence: None,
        };
        let thread = sys::spawn("announce", move || crier.run()).map_err(AnnounceError::System)?;
        Ok(Self { interfaces, addresses, stop, thread: Some(thread) })
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.stop.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that answers ARP and neighbour solicitations panicked");
        }
    }
}

/// Why nothing is announced.
#[derive(Debug)]
pub enum AnnounceError {
    /// An interface cannot be found, or the kernel not be asked.
    Netlink(NetlinkError),
    /// The interface has no ARP and no neighbour discovery.
    NotEthernet(String),
    /// More interfaces than can be served; how many.
    TooMany(usize),
    /// A packet socket on this interface was refused.
    Socket(String, io::Error),
    /// No thread or descriptor left.
    System(io::Error),
}

impl fmt::Display for AnnounceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netlink(error) => error.fmt(f),
            Self::NotEthernet(name) => {
                write!(f, "cannot announce on {name}: it is no Ethernet; take it out of `announce-on`")
            }
            Self::TooMany(count) => write!(f, "cannot announce on {count} interfaces, {MOST_INTERFACES} are possible"),
            Self::Socket(name, error) if error.raw_os_error() == Some(libc::EPERM) => {
                write!(f, "not allowed to listen for ARP on {name}: run as root or with CAP_NET_RAW")
            }
            Self::Socket(name, error) => write!(f, "cannot listen for ARP on {name}: {}", with_remedy(error)),
            Self::System(error) => write!(f, "cannot start to announce: {}", with_remedy(error)),
        }
    }
}

impl std::error::Error for AnnounceError {}

impl From<NetlinkError> for AnnounceError {
    fn from(error: NetlinkError) -> Self {
        Self::Netlink(error)
    }
}

/// Whose address is it?
#[derive(Debug)]
struct AddressBook {
    ours: Vec<Prefix>,
    held: Vec<IpAddr>,
}

impl AddressBook {
    fn answers_for(&self, address: IpAddr) -> bool {
        self.ours.iter().any(|prefix| prefix.contains(address)) && !self.held.contains(&address)
    }

    fn announced(&self) -> impl Iterator<Item = IpAddr> {
        self.ours.iter().flat_map(|prefix| prefix.addresses(MOST_ANNOUNCED)).filter(|ip| !self.held.contains(ip))
    }
}

/// One interface and family that we answer on.
#[derive(Debug)]
struct Ear {
    interface: String,
    /// Of the interface that had the name when this was opened.
    index: u32,
    mac: Mac,
    carrier: Option<u32>,
    family: Family,
    socket: File,
    /// Keeps the multicast groups joined.
    _groups: Option<UdpSocket>,
}

impl Ear {
    /// The ears that these addresses need on an interface: a family that is not asked for costs its traffic nothing.
    fn open(interface: &str, link: &Link, ours: &[Prefix]) -> Result<Vec<Self>, AnnounceError> {
        let mac = hardware_address(link, interface)?;
        let mut ears = Vec::new();
        for family in [Family::V4, Family::V6] {
            let (ethertype, checks) = match family {
                Family::V4 => (arp::ETHERTYPE, arp::CHECKS.as_slice()),
                Family::V6 => (neighbour::ETHERTYPE, neighbour::CHECKS.as_slice()),
            };
            if !ours.iter().any(|prefix| family_of(prefix.address()) == family) {
                continue;
            }
            let socket = sys::packet_socket(link.index, ethertype, &filter::program(link.index, checks))
                .map_err(|error| AnnounceError::Socket(interface.to_owned(), error))?;
            let groups = match family {
                Family::V4 => None, // ARP asks by broadcast
                Family::V6 => join_groups(link.index, ours).map_or_else(
                    |error| {
                        log::debug!(
                            "{interface}: cannot join the groups of neighbour solicitations: {}",
                            in_words(&error)
                        );
                        take_all_multicast(interface, &socket, link.index);
                        None
                    },
                    Some,
                ),
            };
            let (interface, index, carrier) = (interface.to_owned(), link.index, link.carrier);
            ears.push(Self { interface, index, mac, carrier, family, socket, _groups: groups });
        }
        Ok(ears)
    }

    /// Takes note of the interface's state; true if it has come up, or got another hardware address.
    fn look_at(&mut self, link: &Link) -> bool {
        let before = (self.carrier, self.mac);
        (self.carrier, self.mac) = (link.carrier, link.hardware_address.unwrap_or(self.mac));
        self.carrier.is_some() && (self.carrier, self.mac) != before
    }

    fn announce(&self, address: IpAddr) {
        let frame = match address {
            IpAddr::V4(v4) => arp::announcement(v4, self.mac),
            IpAddr::V6(v6) => neighbour::announcement(v6, self.mac),
        };
        if let Err(error) = (&self.socket).write(&frame) {
            log::debug!("{}: {address} not announced: {}", self.interface, in_words(&error)); // down; the next one may come through
        }
    }

    /// Reads and answers what waits, up to [`TURN`] frames. The last rival's claim, if there was one. Where the addresses
    /// are not here, all that is passed over.
    fn answer(&self, book: &AddressBook, presence: &Presence) -> Option<Claim> {
        let (mut socket, mut claim) = (&self.socket, None);
        let ours = |ip| presence.is_here() && book.answers_for(ip);
        let mut frame = [0; 2048];
        for _ in 0..TURN {
            // `WouldBlock`, or the error that tells of the interface going down, which is told once.
            let Ok(length) = socket.read(&mut frame) else { break };
            let heard = match self.family {
                Family::V4 => arp::hear(&frame[..length], self.mac, ours),
                Family::V6 => neighbour::hear(&frame[..length], self.mac, ours),
            };
            match heard {
                Heard::Nothing => {}
                Heard::Claim(rival) => claim = Some(rival),
                Heard::Question(answer) => {
                    if let Err(error) = socket.write(&answer) {
                        log::debug!("{}: a neighbour stays without answer: {}", self.interface, in_words(&error));
                    }
                }
            }
        }
        claim
    }
}

/// The thread's state.
#[derive(Debug)]
struct Crier {
    interfaces: Vec<String>,
    ears: Vec<Ear>,
    book: AddressBook,
    netlink: Netlink,
    watch: Watch,
    presence: Arc<Presence>,
    stop: Arc<Waker>,
    last_defence: Option<Instant>,
}

impl Crier {
    fn run(mut self) {
        let mut schedule = Schedule::new(sys::now());
        let mut told = self.presence.times_told();
        loop {
            if schedule.due(sys::now()) && self.presence.is_here() {
                self.announce_all();
            }
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.stop.as_fd(), self.watch.as_fd(), self.presence.as_fd()];
            fds.extend(self.ears.iter().map(|ear| ear.socket.as_fd()));
            let ready = match sys::wait(&fds, Some(schedule.poll_timeout().since(sys::now()))) {
                Ok(ready) => ready,
                Err(error) => {
                    return log::error!(
                        "ARP and neighbour solicitations go unanswered from now on: {}",
                        with_remedy(&error)
                    );
                }
            };
            if ready.contains(0) {
                return;
            }
            if ready.contains(1) && self.look_around() {
                schedule = Schedule::new(sys::now());
            }
            if ready.contains(2) {
                self.presence.clear();
            }
            // Somebody else sees to when this is to be repeated.
            if std::mem::replace(&mut told, self.presence.times_told()) != told && self.presence.is_here() {
                self.announce_all();
            }
            for n in 0..self.ears.len() {
                if ready.contains(3 + n)
                    && let Some(claim) = self.ears[n].answer(&self.book, &self.presence)
                {
                    self.defend(n, claim, sys::now());
                }
            }
        }
    }

    /// Takes note of what has changed; true if neighbours have to be told.
    fn look_around(&mut self) -> bool {
        self.watch.clear();
        match held_by_kernel(&mut self.netlink) {
            Ok(held) => self.book.held = held,
            Err(error) => log::warn!("{error}"),
        }
        let mut news = false;
        for n in 0..self.interfaces.len() {
            news |= self.look_at(n);
        }
        news
    }

    /// The same of one interface, which may be gone, or be another of the same name.
    fn look_at(&mut self, n: usize) -> bool {
        let name = &self.interfaces[n];
        let link = self.netlink.link(name).ok();
        let before = self.ears.len();
        self.ears.retain(|ear| ear.interface != *name || link.as_ref().is_some_and(|link| link.index == ear.index));
        if self.ears.len() < before {
            log::warn!("{name} is gone: our addresses are announced there as soon as there is one again");
        }
        let Some(link) = link else { return false };
        let known = self.ears.iter_mut().filter(|ear| ear.interface == *name);
        let news: Vec<bool> = known.map(|ear| ear.look_at(&link)).collect();
        if !news.is_empty() {
            return news.contains(&true);
        }
        match Ear::open(name, &link, &self.book.ours) {
            Ok(ears) if ears.is_empty() => false,
            Ok(ears) => {
                log::info!("{name} is there: our addresses are announced on it");
                self.ears.extend(ears);
                true
            }
            Err(error) => {
                log::warn!("{error}");
                false
            }
        }
    }

    fn announce_all(&self) {
        for address in self.book.announced() {
            let family = family_of(address);
            self.ears.iter().filter(|ear| ear.family == family).for_each(|ear| ear.announce(address));
        }
    }

    /// Says that the address is ours, but not so often that two who insist would flood the network (RFC 5227 2.4 b). No
    /// rival is another interface of ours in the same network, which has announced it.
    fn defend(&mut self, ear: usize, claim: Claim, now: Instant) {
        if self.ears.iter().any(|ear| ear.mac == claim.by) {
            return;
        }
        if self.last_defence.is_some_and(|last| now.since(last) < DEFEND_INTERVAL) {
            return;
        }
        self.last_defence = Some(now);
        let ear = &self.ears[ear];
        let by = claim.by.map(|byte| format!("{byte:02x}")).join(":");
        log::warn!("{}: {by} says that {} is his: two machines use the address", ear.interface, claim.address);
        ear.announce(claim.address);
    }
}

fn hardware_address(link: &Link, name: &str) -> Result<Mac, AnnounceError> {
    link.hardware_address.ok_or_else(|| AnnounceError::NotEthernet(name.to_owned()))
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn held_by_kernel(netlink: &mut Netlink) -> Result<Vec<IpAddr>, NetlinkError> {
    Ok(netlink.addresses()?.into_iter().map(|held| held.address).collect())
}

/// Joins the solicited-node groups of all IPv6 addresses on this interface, for as long as the socket lives.
fn join_groups(interface: u32, ours: &[Prefix]) -> io::Result<UdpSocket> {
    let mut groups: Vec<Ipv6Addr> = Vec::new();
    for prefix in ours.iter().filter(|prefix| prefix.address().is_ipv6()) {
        let before = groups.len();
        groups.extend(prefix.addresses(MOST_ANNOUNCED).filter_map(|ip| match ip {
            IpAddr::V6(v6) => Some(neighbour::solicited_node(v6)),
            IpAddr::V4(_) => None,
        }));
        if groups.len() == before {
            return Err(io::Error::other(format!("{prefix} has too many addresses")));
        }
    }
    groups.sort_unstable();
    groups.dedup(); // 2001:db8:1::10 and 2001:db8:2::10 share one
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?;
    for group in &groups {
        socket.join_multicast_v6(group, interface)?;
    }
    Ok(socket)
}

/// What remains where the groups cannot be joined. A switch that snoops MLD may still keep solicitations from us.
fn take_all_multicast(interface: &str, socket: &File, index: u32) {
    if let Err(error) = sys::receive_all_multicast(socket, index) {
        log::warn!("{interface}: neighbour solicitations may not be heard: {}", in_words(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_frames_leaves_a_turn_to_the_others() {
        let socket = File::open("/dev/zero").unwrap(); // a frame of zeros, whenever one is read
        let (interface, mac, carrier) = ("eth0".to_owned(), [2; 6], Some(1));
        let ear = Ear { interface, index: 1, mac, carrier, family: Family::V4, socket, _groups: None };
        let presence = Presence::new(true).unwrap();
        assert_eq!(ear.answer(&AddressBook { ours: Vec::new(), held: Vec::new() }, &presence), None);
    }
}
