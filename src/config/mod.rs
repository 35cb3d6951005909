//! From `tungate.toml` to a [`Snapshot`]: the immutable, checked configuration that the engine works by.
//!
//! Parse, don't validate: only [`load`] makes a snapshot, and it makes one only when every rule holds; the engine never
//! asks again. All errors of a file are reported at once, each with its place and remedy ([`diagnostic`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::{Address, Endpoint, Protocol};

/// Index of a service in [`Snapshot::services`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

/// Index of a backend in [`Snapshot::backends`]. The same address under two services is two backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u16);

/// A whole configuration, checked. Immutable: a reload makes another one and swaps it in.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every applied configuration; starts at 1.
    pub generation: u64,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// All `[[service]]`, in the file's order.
    pub services: Vec<Service>,
    /// All backends of all services, grouped by service.
    pub backends: Vec<Backend>,
    /// Who listens where.
    pub listeners: Listeners,
}

/// `[gateway]`: the machine and its TUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Name shown in listings and to the peer; default: the host name.
    pub name: String,
    /// Name of the TUN that `run` creates.
    pub interface: String,
    /// MTU of the TUN, bytes.
    pub mtu: u16,
    /// Packet workers, one TUN queue each.
    pub workers: Workers,
    /// Sources of full NAT and of tunnels; routed to the TUN, never local addresses.
    pub source_addresses: Vec<Address>,
    /// Interfaces on which ARP/ND for VIPs and source addresses is answered.
    pub announce_on: Vec<String>,
    /// Whether `run` adds the routes of VIPs and source addresses to the TUN.
    pub routes: bool,
    /// Unix socket for the verbs that talk to a running daemon.
    pub admin_socket: PathBuf,
    /// Where `/metrics` and the health routes are served; `None` = nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where overrides and applied configurations are kept.
    pub state_dir: PathBuf,
    /// Most flows held at once.
    pub max_flows: u32,
}

/// How many workers `run` starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One on one or two CPUs, else half of them.
    Auto,
    /// This many, 1 to 64.
    Count(u16),
}

/// Idle times after which a flow of each state is forgotten. Defaults: manual, chapter "Timeouts".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// SYN seen, no answer yet: 60 s.
    pub tcp_syn_sent: Duration,
    /// SYN-ACK seen, handshake not finished: 60 s.
    pub tcp_syn_received: Duration,
    /// Open connection: 7440 s, the least that RFC 5382 REQ-5 allows.
    pub tcp_established: Duration,
    /// One or both sides have sent FIN: 240 s (RFC 5382 REQ-5, transitory).
    pub tcp_closing: Duration,
    /// Both FINs acknowledged: 120 s.
    pub tcp_time_wait: Duration,
    /// After an accepted RST: 10 s.
    pub tcp_close: Duration,
    /// UDP with an answer: 300 s (RFC 4787 REQ-5).
    pub udp: Duration,
    /// UDP without an answer yet: 120 s, the least that RFC 4787 REQ-5 allows.
    pub udp_unreplied: Duration,
    /// ICMP query: 60 s (RFC 5508 REQ-2).
    pub icmp: Duration,
    /// IPv4 datagram waiting for its fragments: 30 s.
    pub fragment_v4: Duration,
    /// IPv6 datagram waiting for its fragments: 60 s (RFC 8200 4.5).
    pub fragment_v6: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            tcp_syn_sent: seconds(60),
            tcp_syn_received: seconds(60),
            tcp_established: seconds(7440),
            tcp_closing: seconds(240),
            tcp_time_wait: seconds(120),
            tcp_close: seconds(10),
            udp: seconds(300),
            udp_unreplied: seconds(120),
            icmp: seconds(60),
            fragment_v4: seconds(30),
            fragment_v6: seconds(60),
        }
    }
}

/// One `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Where clients connect, as written in the file.
    pub listen: Vec<Listen>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How a flow reaches its backend.
    pub mode: Mode,
    /// How a backend is chosen for a new flow.
    pub balance: Balance,
    /// This service's backends: a range of [`Snapshot::backends`].
    pub backends: Range<u16>,
}

/// A listen address: one address or a prefix, one port, a range, or all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// First address (the network address of a prefix).
    pub address: Address,
    /// Prefix length in bits of the family: 32 or 128 for a single address.
    pub prefix: u8,
    /// Ports; `1..=65535` for `*`.
    pub ports: RangeInclusive<u16>,
}

/// How a flow reaches its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Destination becomes the backend; with `source_nat` the source becomes one of the gateway's source addresses.
    Nat {
        /// False keeps the client's address: replies must be routed back through the gateway.
        source_nat: bool,
    },
}

/// `balance`: which scheduler picks the backend of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Consistent hashing of client and listen endpoints (Eisenbud et al., NSDI 2016).
    Maglev,
    /// Smooth weighted round-robin.
    RoundRobin,
    /// Weighted random.
    Random,
    /// Fewest flows per weight.
    LeastConnections,
    /// The less loaded of two random backends (Mitzenmacher 2001).
    PowerOfTwo,
    /// Consistent hashing of the client's address alone.
    SourceHash,
}

/// One backend of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Name, unique within the service; default: the address as written.
    pub name: String,
    /// The service it belongs to.
    pub service: ServiceId,
    /// Where flows go.
    pub address: Address,
    /// Port, or `None` to keep the packet's.
    pub port: Option<u16>,
    /// Share of new flows relative to the others; 0 = no new flows.
    pub weight: u16,
    /// Used only when no other is available.
    pub backup: bool,
}

impl Backend {
    /// Where a packet that came for `listen_port` goes.
    pub fn endpoint(&self, listen_port: u16) -> Endpoint {
        Endpoint::new(self.address, self.port.unwrap_or(listen_port))
    }
}

/// Who listens where: the answer to "which service is this packet for".
#[derive(Debug, Default)]
pub struct Listeners {
    /// Single addresses: the usual case, one hash lookup.
    exact: HashMap<(Address, Protocol), Vec<PortRange>, foldhash::fast::RandomState>,
    /// Prefixes, longest first.
    prefixes: Vec<(Listen, Protocol, ServiceId)>,
}

impl Listeners {
    /// Adds a listen address of a service. [`check`] has made sure that no two overlap.
    fn insert(&mut self, listen: &Listen, protocol: Protocol, service: ServiceId) {
        if listen.is_single() {
            self.exact.entry((listen.address, protocol)).or_default().push((listen.ports.clone(), service));
        } else {
            self.prefixes.push((listen.clone(), protocol, service));
            self.prefixes.sort_by_key(|(listen, _, _)| std::cmp::Reverse(listen.prefix));
        }
    }

    /// The service that listens on this endpoint, if any: a single address wins over a prefix, a longer prefix over a
    /// shorter one.
    pub fn service(&self, destination: Endpoint, protocol: Protocol) -> Option<ServiceId> {
        if let Some(ports) = self.exact.get(&(destination.address, protocol))
            && let Some((_, service)) = ports.iter().find(|(range, _)| range.contains(&destination.port))
        {
            return Some(*service);
        }
        let matches = |(listen, of, _): &&(Listen, Protocol, ServiceId)| {
            *of == protocol && listen.covers(destination.address) && listen.ports.contains(&destination.port)
        };
        self.prefixes.iter().find(matches).map(|(_, _, service)| *service)
    }

    /// Whether any service listens on this address, whatever protocol and port: such an address is ours.
    pub fn is_vip(&self, address: Address) -> bool {
        let known = |protocol| self.exact.contains_key(&(address, protocol));
        known(Protocol::TCP) || known(Protocol::UDP) || self.prefixes.iter().any(|(l, _, _)| l.covers(address))
    }
}

impl Listen {
    /// True for a single address, false for a prefix of several.
    pub fn is_single(&self) -> bool {
        self.prefix == if self.address.is_v4() { 32 } else { 128 }
    }

    /// Whether the address lies inside.
    pub fn covers(&self, address: Address) -> bool {
        if self.address.is_v4() != address.is_v4() {
            return false;
        }
        let mapped = if self.address.is_v4() { 96 } else { 0 };
        let bits = u32::from(self.prefix) + mapped;
        let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
        let number = |a: &Address| u128::from_be_bytes(*a.octets());
        number(&self.address) & mask == number(&address) & mask
    }
}

impl Snapshot {
    /// The service of this id.
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.services[usize::from(id.0)]
    }

    /// The backend of this id.
    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[usize::from(id.0)]
    }

    /// The backends of a service with their ids.
    pub fn backends_of(&self, id: ServiceId) -> impl Iterator<Item = (BackendId, &Backend)> {
        self.service(id).backends.clone().map(|n| (BackendId(n), self.backend(BackendId(n))))
    }
}

type PortRange = (RangeInclusive<u16>, ServiceId);
