//! An HTTP exchange inside a tunnel: TCP is smoltcp's, with one socket of its own.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::talk::Heard;
use crate::config::HttpCheck;
use crate::control::health::http::{self, Reading};
use crate::control::health::{Outcome, Reason, TunnelFault};
use crate::engine::Instant;
use crate::wire::{Endpoint, Packet};

/// What fits every tunnel that IPv6 fits.
const MTU: usize = 1280;
/// Of each direction.
const BUFFER: usize = 8 << 10;

/// One exchange.
pub(super) struct Web {
    check: HttpCheck,
    request: Vec<u8>,
    reading: Reading,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    link: Link,
    /// Sequence numbers of what was sent.
    sent: Vec<[u8; 4]>,
    next: Option<Instant>,
    connected: bool,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("check", &self.check).field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Web {
    pub(super) fn new(check: &HttpCheck, to: Endpoint, from: Endpoint, random: u64, now: Instant) -> Self {
        let mut link = Link::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = random;
        let mut interface = Interface::new(config, &mut link, smol(now));
        // All the world is behind the tunnel.
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(from.address.ip().into(), 0)).expect("there is room for one");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let remote = (to.address.ip(), to.port);
        socket.connect(interface.context(), remote, (from.address.ip(), from.port)).expect("two endpoints with ports");
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        let (request, reading) = (http::request(check, to), Reading::default());
        let check = check.clone();
        Self {
            check,
            request,
            reading,
            interface,
            sockets,
            socket,
            link,
            sent: Vec::new(),
            next: None,
            connected: false,
        }
    }

    /// Goes on; what is to be sent.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.interface.poll(smol(now), &mut self.link, &mut self.sockets);
        let delay = self.interface.poll_delay(smol(now), &self.sockets);
        self.next = delay.map(|delay| now + Duration::from_micros(delay.total_micros().max(1)));
        let packets = std::mem::take(&mut self.link.outgoing);
        let sequence = |packet: &Vec<u8>| {
            let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
            packet.get(header + 4..).and_then(|rest| rest.first_chunk().copied())
        };
        self.sent.extend(packets.iter().filter_map(sequence));
        packets
    }

    /// Takes a packet of the other end.
    pub(super) fn hear(&mut self, packet: &Packet<'_>, now: Instant) -> Heard {
        self.link.incoming.push_back(packet.bytes().to_vec());
        let mut packets = self.poll(now);
        let outcome = self.go_on();
        if outcome.is_some() {
            self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
        }
        packets.extend(self.poll(now));
        (packets, outcome)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn has_sent(&self, sequence: &[u8]) -> bool {
        self.sent.iter().any(|sent| sent == sequence)
    }

    /// Asks, and reads what there is.
    fn go_on(&mut self) -> Option<Outcome> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if socket.state() == tcp::State::SynSent {
            return None;
        }
        if !socket.is_active() && !self.connected {
            return Some(Outcome::Bad(Reason::Tunnel(TunnelFault::Refused)));
        }
        self.connected = true;
        if socket.can_send() && !self.request.is_empty() {
            let sent = socket.send_slice(&self.request).expect("it can");
            self.request.drain(..sent);
        }
        while socket.can_recv() {
            let (check, reading) = (&self.check, &mut self.reading);
            let outcome = socket.recv(|bytes| (bytes.len(), reading.take(bytes, check))).expect("it can");
            if outcome.is_some() {
                return outcome;
            }
        }
        if socket.state() == tcp::State::Closed {
            return Some(Outcome::Bad(Reason::Reset));
        }
        (!socket.may_recv()).then(|| self.reading.end())
    }
}

pub(super) fn smol(now: Instant) -> SmolInstant {
    SmolInstant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// The two ends of the tunnel, for smoltcp.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) incoming: VecDeque<Vec<u8>>,
    pub(super) outgoing: Vec<Vec<u8>>,
}

pub(super) struct Incoming(Vec<u8>);
pub(super) struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Link {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Incoming, Outgoing<'_>)> {
        Some((Incoming(self.incoming.pop_front()?), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // A neighbour on this machine leaves checksums to whoever sends the packet on, who never does.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}
