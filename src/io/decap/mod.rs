//! A backend's half of direct server return, for a machine whose kernel cannot take tunnels apart, or may not.
//!
//! Wrapped packets are for an address of this machine, so they come through sockets: raw ones for GRE and IP in IP, a UDP
//! socket for GUE. The kernel has put them together from their fragments by then. What is inside goes back to the kernel
//! on a TUN, as if it had come in there: for a VIP, which is an address of the loopback. The answer leaves by the
//! ordinary route, from the VIP straight to the client.

mod gate;
mod local;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use super::netlink::{NetlinkError, Prefix};
use super::sys::{self, Waker};
use super::tun::{Offloads, Tun, TunConfig, TunError, TunQueue};
use crate::engine::Instant;
use crate::wire::tunnel::{Encapsulation, GUE_PORT};
use crate::wire::{OFFLOAD_LEN, Protocol};

pub use gate::{Gate, Refusal};
use local::Vips;

/// Bytes that each socket holds while we are busy.
const BUFFER: i32 = 8 << 20;
/// Packets of one socket before the next one's turn.
const BURST: usize = 64;
/// The TUN takes whatever was wrapped.
const TUN_MTU: u16 = u16::MAX;

/// What is taken apart, from whom, and for which addresses.
#[derive(Clone, Debug)]
pub struct DecapConfig {
    /// Name of the TUN; nothing of that name may exist.
    pub interface: String,
    /// What is taken apart.
    pub encapsulations: Vec<Encapsulation>,
    /// The gateways' source addresses. Nobody else's packets are taken.
    pub from: Vec<IpAddr>,
    /// The services' addresses.
    pub vips: Vec<Prefix>,
}

impl fmt::Display for DecapConfig {
    /// `gre, ipip from 10.99.0.10 for 192.0.2.10/32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |encapsulation: &Encapsulation| match encapsulation {
            Encapsulation::KeyedGre(key) => format!("gre with key {key}"),
            Encapsulation::Gre | Encapsulation::Ipip | Encapsulation::Gue => encapsulation.name().to_owned(),
        };
        let join = |items: Vec<String>| items.join(", ");
        let (encapsulations, from, vips) = (
            join(self.encapsulations.iter().map(named).collect()),
            join(self.from.iter().map(ToString::to_string).collect()),
            join(self.vips.iter().map(ToString::to_string).collect()),
        );
        write!(f, "{encapsulations} from {from} for {vips}")
    }
}

/// A running decapsulator. Dropping it removes the TUN, and the VIPs that it added.
#[derive(Debug)]
pub struct Decap {
    ears: Vec<Ear>,
    queue: TunQueue,
    gate: Gate,
    counts: Counts,
    complaints: Complaints,
    _vips: Vips,
    _tun: Tun,
}

/// How many packets were taken out, and how many were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Given to the kernel.
    pub delivered: u64,
    /// Given to the kernel, which did not take them.
    pub failed: u64,
    /// Refused, by reason.
    pub refused: [u64; Refusal::ALL.len()],
}

/// Says what is refused, since nobody else would: the first packet of each kind, and then one a minute.
#[derive(Debug)]
struct Complaints {
    taken: String,
    told: [Option<Instant>; Refusal::ALL.len()],
}

impl Complaints {
    const SILENCE: Duration = Duration::from_secs(60);

    fn tell(&mut self, refusal: Refusal, sender: IpAddr) {
        let (now, told) = (sys::now(), &mut self.told[refusal as usize]);
        if told.is_some_and(|told| now.since(told) < Self::SILENCE) {
            return;
        }
        *told = Some(now);
        log::warn!("refused a packet of {sender}: {}; taken is {}", refusal.meaning(), self.taken);
    }
}

/// A socket that wrapped packets come through.
#[derive(Debug)]
struct Ear {
    socket: File,
    encapsulation: Encapsulation,
    /// Protocol of the outer header.
    protocol: Protocol,
    /// Family of the outer header.
    v4: bool,
}

impl Ear {
    /// Whether packets come behind their IP header.
    fn is_headed(&self) -> bool {
        self.v4 && self.protocol != Protocol::UDP
    }
}

impl Decap {
    /// Opens sockets and TUN, and adds the VIPs to the loopback, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`DecapError`]; nothing is left behind.
    pub fn start(config: &DecapConfig) -> Result<Self, DecapError> {
        if let Some((vip, tun)) = local::gateway_here(config).map_err(DecapError::Vips)? {
            return Err(DecapError::Gateway(vip, tun));
        }
        if let Some((vip, interface)) = local::own_address(config).map_err(DecapError::Vips)? {
            return Err(DecapError::OwnAddress(vip, interface));
        }
        let ears = listen(config)?;
        let tun = TunConfig { name: &config.interface, mtu: TUN_MTU, queues: 1, offloads: Offloads::None };
        let (tun, mut queues) = Tun::create(&tun).map_err(DecapError::Tun)?;
        let mut vips = Vips::add(&config.vips, tun.index()).map_err(DecapError::Vips)?;
        for (vip, interface) in vips.told_by_arp(&config.vips).map_err(DecapError::Vips)? {
            log::warn!(
                "{interface} answers ARP for {vip}, which lies in its network: clients would come here past the gateway; \
                 sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
            );
        }
        Ok(Self {
            ears,
            queue: queues.remove(0),
            gate: Gate::new(&config.encapsulations, &config.from, &config.vips),
            counts: Counts::default(),
            complaints: Complaints { taken: config.to_string(), told: [None; Refusal::ALL.len()] },
            _vips: vips,
            _tun: tun,
        })
    }

    /// Takes packets apart until it is woken; what it has done.
    ///
    /// # Errors
    /// A socket or the TUN is broken.
    pub fn run(mut self, stop: &Waker) -> io::Result<Counts> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let sockets = self.ears.iter().map(|ear| ear.socket.as_fd());
            let watched: Vec<_> = [stop.as_fd()].into_iter().chain(sockets).collect();
            let ready = sys::wait(&watched, None)?;
            if ready.contains(0) {
                return Ok(self.counts);
            }
            for n in (0..self.ears.len()).filter(|n| ready.contains(n + 1)) {
                self.drain(n, &mut buffer)?;
            }
        }
    }

    /// Takes in what this socket has, up to a burst.
    fn drain(&mut self, ear: usize, buffer: &mut [u8]) -> io::Result<()> {
        let ear = &self.ears[ear];
        for _ in 0..BURST {
            let received = match sys::receive_from(&ear.socket, buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let packet = &mut buffer[..received.len];
            let headers = if ear.is_headed() { usize::from(packet.first().map_or(0, |byte| byte & 15)) * 4 } else { 0 };
            let payload = packet.get_mut(headers..).unwrap_or_default();
            let outer = (received.source.into(), ear.encapsulation, ear.protocol, received.traffic_class);
            match self.gate.admit(outer, payload) {
                Ok(inner) => match self.queue.write_vectored(&[&[0; OFFLOAD_LEN], &*inner].map(io::IoSlice::new)) {
                    Ok(_) => self.counts.delivered += 1,
                    Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Err(error),
                    Err(_) => self.counts.failed += 1,
                },
                Err(refusal) => {
                    self.counts.refused[refusal as usize] += 1;
                    self.complaints.tell(refusal, received.source);
                }
            }
        }
        Ok(())
    }
}

/// One socket for each protocol, in the families of the gateways.
fn listen(config: &DecapConfig) -> Result<Vec<Ear>, DecapError> {
    let mut ears = Vec::new();
    for v4 in [true, false].into_iter().filter(|v4| config.from.iter().any(|address| address.is_ipv4() == *v4)) {
        for encapsulation in &config.encapsulations {
            let protocols = match encapsulation {
                Encapsulation::Gre | Encapsulation::KeyedGre(_) => &[Protocol::GRE][..],
                Encapsulation::Ipip => &[Protocol::IPV4, Protocol::IPV6],
                Encapsulation::Gue => &[Protocol::UDP],
            };
            for protocol in protocols {
                // Tunnels that differ in their keys come through one socket, which would hear each packet again.
                if ears.iter().any(|ear: &Ear| ear.protocol == *protocol && ear.v4 == v4) {
                    continue;
                }
                let socket = open(*protocol, v4).map_err(|error| DecapError::Socket(*encapsulation, error))?;
                ears.push(Ear { socket, encapsulation: *encapsulation, protocol: *protocol, v4 });
            }
        }
    }
    Ok(ears)
}

fn open(protocol: Protocol, v4: bool) -> io::Result<File> {
    let socket = match protocol {
        Protocol::UDP => sys::udp_socket(v4, GUE_PORT)?,
        protocol => sys::raw_socket(v4, protocol.0)?,
    };
    sys::tell_traffic_class(&socket, v4, BUFFER)?;
    Ok(socket)
}

/// Why it did not start.
#[derive(Debug)]
pub enum DecapError {
    /// This is the gateway: packets for this VIP and from its source address go to its TUN, of this name.
    Gateway(Prefix, String),
    /// This VIP is an address of this machine's, on this interface, where it would be found without the gateway.
    OwnAddress(Prefix, String),
    /// No socket for this encapsulation.
    Socket(Encapsulation, io::Error),
    /// No TUN.
    Tun(TunError),
    /// The VIPs cannot be added.
    Vips(NetlinkError),
}

impl DecapError {
    /// Whether it is for lack of privileges, or because its name is taken.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Gateway(..) | Self::OwnAddress(..) => true,
            Self::Socket(_, error) => error.kind() == io::ErrorKind::PermissionDenied,
            Self::Tun(error) => {
                matches!(error, TunError::NotPermitted | TunError::DeviceForbidden(_) | TunError::NameTaken(_))
            }
            Self::Vips(error) => error.errno() == Some(libc::EPERM),
        }
    }
}

impl fmt::Display for DecapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(vip, tun) => write!(
                f,
                "this is the gateway: {vip} leads to {tun}, where it would get no packet any more; decap is for the backends"
            ),
            Self::OwnAddress(vip, interface) => write!(
                f,
                "{} is this machine's own address on {interface}, which tunnels lead to: a VIP is the service's, and on the \
                 loopback alone",
                vip.address()
            ),
            Self::Socket(_, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                f.write_str("not allowed to open raw sockets: run as root or with CAP_NET_RAW and CAP_NET_ADMIN")
            }
            Self::Socket(Encapsulation::Gue, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "UDP port {GUE_PORT}, that of GUE, is taken by another program")
            }
            Self::Socket(encapsulation, error) => {
                let error = super::words::in_words(error);
                write!(f, "no socket for {}: {error}", encapsulation.name())
            }
            Self::Tun(TunError::NameTaken(name)) => write!(
                f,
                "an interface named {name} exists already: if another decap has it, end that one, or take another name with \
                 --interface NAME"
            ),
            Self::Tun(error) => error.fmt(f),
            Self::Vips(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DecapError {}
