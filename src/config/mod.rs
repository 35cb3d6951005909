//! From `tungate.toml` to a [`Snapshot`]: the immutable, checked configuration that the engine works by.
//!
//! Parse, don't validate: only [`load`] makes a snapshot, and it makes one only when every rule holds; the engine never
//! asks again. All errors of a file are reported at once, each with its place and remedy ([`Report`]).

mod check;
mod diagnostic;
mod discovery;
pub mod ha;
mod health;
mod identity;
mod keys;
mod limits;
mod listeners;
mod names;
mod plan;
mod raw;
mod reader;
mod schema;
mod text;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::diagnostic::{Code, Diagnostic, Label, Report, Severity};
pub use self::discovery::{Discovery, DnsName, Found, HttpSource, Records, Source, Url, read_backends};
pub use self::ha::Ha;
pub use self::health::{Check, CheckedAt, Health, HttpCheck, OnDown, Passive, UdpCheck};
use self::identity::Places;
pub use self::identity::Retired;
pub use self::limits::{Limits, Rate};
pub use self::listeners::{Carried, Listen, Listeners};
pub use self::names::enumerate;
pub use self::plan::{Change, Effect, Plan, plan};
use self::raw::RawFile;
pub use self::schema::schema;
pub use self::text::bad_interface;
use crate::wire::tunnel::{Encapsulation, Tunnel};
use crate::wire::{Address, Endpoint, Prefix};

/// Reads and checks a configuration. `file_name` is only for messages; `previous` is the snapshot that this one will
/// replace, if there is one: what stays the same keeps its id ([`Retired`] what does not stay, too); `host_name` is the
/// gateway's name if the file gives none.
///
/// # Errors
/// Everything that is wrong with the text, and everything doubtful, in the order of the file. What is only doubtful is
/// in [`Snapshot::warnings`] if nothing is wrong.
pub fn load(text: &str, file_name: &str, previous: Option<&Snapshot>, host_name: &str) -> Result<Snapshot, Report> {
    let report = |diagnostics| Report::new(file_name, text, diagnostics);
    let (raw, mut diagnostics) = RawFile::parse(text).map_err(report)?;
    let snapshot = check::check(raw, previous, host_name, &mut diagnostics);
    let report = report(diagnostics);
    if report.has_errors() { Err(report) } else { Ok(Snapshot { warnings: report, ..snapshot }) }
}

/// A commented `tungate.toml` of all that can be written in one, valid as it stands: `config example`.
pub const fn example() -> &'static str {
    include_str!("example.toml")
}

/// Names a service, over all configurations that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

/// Names a backend, over all configurations that have it. The same address under two services is two backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u16);

/// A whole configuration, checked. Immutable: a reload makes another one and swaps it in.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows by one with every applied configuration; starts at 1.
    pub generation: u64,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// `[ha]`, if there is another gateway.
    pub ha: Option<ha::Ha>,
    /// All `[[service]]`, in the file's order.
    pub services: Vec<Service>,
    /// All backends of all services, grouped by service.
    pub backends: Vec<Backend>,
    /// What earlier configurations had and this one has not, as long as flows have it.
    pub retired: Retired,
    places: Places,
    /// Who listens where.
    pub listeners: Listeners,
    /// What is doubtful in the file, though it can be used.
    pub warnings: Report,
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
    /// Sources of full NAT and of tunnels, IPv4 first; routed to the TUN, never local addresses.
    pub source_addresses: Vec<Address>,
    /// Interfaces on which ARP/ND for VIPs and source addresses is answered.
    pub announce_on: Vec<String>,
    /// Whether `run` adds the routes of VIPs and source addresses to the TUN.
    pub routes: bool,
    /// Unix socket for the verbs that talk to a running daemon.
    pub admin_socket: PathBuf,
    /// Where overrides and applied configurations are kept over a restart.
    pub state_dir: PathBuf,
    /// Where metrics are served over HTTP, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Most flows held at once.
    pub max_flows: u32,
}

/// How many workers `run` starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One a CPU up to two, else half as many as CPUs.
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
            fragment_v4: seconds(30),
            fragment_v6: seconds(60),
        }
    }
}

/// One `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What flows and counters know it by.
    pub id: ServiceId,
    /// Unique name.
    pub name: String,
    /// Where clients connect, as written in the file.
    pub listen: Vec<Listen>,
    /// What it carries.
    pub protocol: Carried,
    /// How a flow reaches its backend.
    pub mode: Mode,
    /// How a backend is chosen for a new flow.
    pub balance: Balance,
    /// This service's backends.
    pub backends: Vec<BackendId>,
    /// How many flows it takes.
    pub limits: Limits,
    /// Whether a client's flows stay together.
    pub affinity: Option<Affinity>,
    /// Where more backends are found.
    pub discovery: Option<Discovery>,
    /// How its backends are asked how they are.
    pub health: Health,
    /// What its flows may tell of them; `None`: nothing.
    pub passive: Option<Passive>,
}

impl Service {
    /// Whether its packets go to backends in tunnels.
    pub const fn is_tunnelled(&self) -> bool {
        matches!(self.mode, Mode::Dsr { .. })
    }

    /// The first port that it listens on alone, not one of many.
    pub fn one_port(&self) -> Option<u16> {
        self.listen.iter().find(|listen| listen.ports.len() == 1).map(|listen| *listen.ports.start())
    }
}

/// How a flow reaches its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Destination becomes the backend; with `source_nat` the source becomes one of the gateway's source addresses.
    Nat {
        /// False keeps the client's address: replies must be routed back through the gateway.
        source_nat: bool,
    },
    /// Direct server return: the packet goes to the backend as it is, wrapped, from one of the gateway's source addresses;
    /// the backend answers the client itself.
    Dsr {
        /// How it is wrapped.
        encapsulation: Encapsulation,
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

/// `affinity = "client-ip"`: all flows of a client's address go to the backend that took its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// How long a client is remembered after its last flow has ended.
    pub timeout: Duration,
    /// Most clients that are remembered.
    pub max_clients: u32,
}

impl Balance {
    /// The name in the configuration, in listings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::LeastConnections => "least-connections",
            Self::PowerOfTwo => "power-of-two",
            Self::SourceHash => "source-hash",
        }
    }
}

/// One backend of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What flows and counters know it by.
    pub id: BackendId,
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
    /// Whether it was found, and is not listed in the configuration.
    pub discovered: bool,
}

impl Backend {
    /// Its address as it is listed: `10.0.0.1:8080`, `[fd00::1]:80`; without a port if the packet's is kept.
    pub fn place(&self) -> String {
        match self.port {
            Some(port) => Endpoint::new(self.address, port).to_string(),
            None => self.address.to_string(),
        }
    }

    /// Where a packet that came for `listen_port` goes.
    pub fn endpoint(&self, listen_port: u16) -> Endpoint {
        Endpoint::new(self.address, self.port.unwrap_or(listen_port))
    }
}

impl Snapshot {
    /// The service of this id, which may be a retired one.
    ///
    /// # Panics
    /// There is none: it was a flow's, and no flow is left.
    pub fn service(&self, id: ServiceId) -> &Service {
        let place = self.places.service(id).expect("a service stays for as long as a flow has it");
        self.services.get(place).unwrap_or_else(|| &self.retired.services[place - self.services.len()])
    }

    /// The backend of this id, which may be a retired one.
    ///
    /// # Panics
    /// There is none: it was a flow's, and no flow is left.
    pub fn backend(&self, id: BackendId) -> &Backend {
        let place = self.places.backend(id).expect("a backend stays for as long as a flow has it");
        self.backends.get(place).unwrap_or_else(|| &self.retired.backends[place - self.backends.len()])
    }

    /// Whether the configuration has the backend, and not only its flows.
    pub fn has_backend(&self, id: BackendId) -> bool {
        self.places.backend(id).is_some_and(|place| place < self.backends.len())
    }

    /// Whether the address is a VIP or a source address of the gateway, or was one, and flows still have it.
    pub fn is_own(&self, address: Address) -> bool {
        self.listeners.is_vip(address)
            || self.gateway.source_addresses.contains(&address)
            || self.retired.addresses.iter().any(|prefix| prefix.contains(address.ip()))
    }

    /// VIPs and source addresses in the order of the configuration, and what each is. Some may be there twice.
    pub fn addresses(&self) -> impl Iterator<Item = (Prefix, &'static str)> {
        addresses(&self.gateway, &self.services)
    }

    /// The source addresses of one family: IPv4 ones stand first.
    pub fn sources(&self, v4: bool) -> &[Address] {
        let split = self.gateway.source_addresses.partition_point(Address::is_v4);
        let (four, six) = self.gateway.source_addresses.split_at(split);
        if v4 { four } else { six }
    }

    /// The tunnel to a backend, if it is one of a DSR service. All tunnels of a family begin at its first source address.
    pub fn tunnel(&self, id: BackendId) -> Option<Tunnel> {
        let backend = self.backend(id);
        let Mode::Dsr { encapsulation } = self.service(backend.service).mode else { return None };
        let source = *self.sources(backend.address.is_v4()).first()?;
        Some(Tunnel { encapsulation, source, destination: backend.address })
    }

    /// The backends of a service with their ids.
    pub fn backends_of(&self, id: ServiceId) -> impl Iterator<Item = (BackendId, &Backend)> {
        self.service(id).backends.iter().map(|id| (*id, self.backend(*id)))
    }
}

fn addresses(gateway: &Gateway, services: &[Service]) -> impl Iterator<Item = (Prefix, &'static str)> {
    let listens = services.iter().flat_map(|service| &service.listen);
    let vips = listens.map(|listen| (Prefix::new(listen.address.ip(), listen.prefix), "a VIP"));
    vips.chain(gateway.source_addresses.iter().map(|address| (Prefix::host(address.ip()), "a source address")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Protocol;

    #[test]
    fn the_example_loads_and_leaves_nothing_to_say() {
        let snapshot = load(example(), "tungate.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
        assert!(snapshot.warnings.is_empty(), "{}", snapshot.warnings);
    }

    #[test]
    fn an_empty_file_and_an_empty_gateway_have_all_defaults() {
        for text in ["", "[gateway]\n", "service = []\n"] {
            let snapshot = load(text, "tungate.toml", None, "gw").unwrap();
            assert_eq!((snapshot.generation, snapshot.services.len()), (1, 0));
            assert_eq!(snapshot.timeouts, Timeouts::default());
            assert_eq!(snapshot.gateway.name, "gw");
            assert_eq!(snapshot.gateway.workers, Workers::Auto);
        }
    }

    #[test]
    fn a_service_is_read_as_written() {
        let text = r#"
            [gateway]
            source-addresses = ["10.99.0.10"]
            [[service]]
            name = "dns"
            listen = ["192.0.2.10:53", "192.0.2.64/28:5300-5399"]
            protocol = "udp"
            balance = "source-hash"
            backends = [{ address = "10.0.0.1" }, { name = "b2", address = "10.0.0.2:5353", weight = 0, backup = true }]
            [[service]]
            name = "web"
            listen = "[2001:db8::10]:*"
            source-nat = false
            backends = [{ name = "b1", address = "fd00::1" }]
        "#;
        let snapshot = load(text, "tungate.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
        let [dns, web] = snapshot.services.as_slice() else { panic!("two services") };
        assert_eq!(
            (dns.protocol, dns.balance, dns.mode),
            (Carried::One(Protocol::UDP), Balance::SourceHash, Mode::Nat { source_nat: true })
        );
        assert_eq!(
            (web.protocol, web.balance, web.mode),
            (Carried::One(Protocol::TCP), Balance::Maglev, Mode::Nat { source_nat: false })
        );
        assert_eq!(
            dns.listen.iter().map(Listen::to_string).collect::<Vec<_>>(),
            ["192.0.2.10:53", "192.0.2.64/28:5300-5399"]
        );

        let ids: Vec<_> = snapshot.backends_of(ServiceId(1)).map(|(id, backend)| (id, backend.name.as_str())).collect();
        assert_eq!(ids, [(BackendId(2), "b1")]);
        let first = snapshot.backend(BackendId(0));
        assert_eq!((first.name.as_str(), first.service, first.port, first.weight), ("10.0.0.1", ServiceId(0), None, 1));
        assert_eq!(first.endpoint(53).to_string(), "10.0.0.1:53");
        let second = snapshot.backend(BackendId(1));
        assert_eq!((second.port, second.weight, second.backup), (Some(5353), 0, true));
    }

    #[test]
    fn limits_are_read_and_absent_ones_are_none() {
        let limits = |lines: &str| {
            let service = "[[service]]\nname = 's'\nlisten = '192.0.2.1:1'\nbackends = []\n[service.limits]\n";
            load(&format!("{service}{lines}"), "tungate.toml", None, "gw").unwrap().services[0].limits
        };
        let rate = |events, seconds| Some(Rate { events, seconds });
        let all = limits("new-flows = '5k/s'\nnew-flows-per-client = '30/m'\nmax-flows = 100_000");
        let expected =
            Limits { new_flows: rate(5_000, 1), new_flows_per_client: rate(30, 60), max_flows: Some(100_000) };
        assert_eq!(all, expected);
        assert_eq!(limits(""), Limits::default());
        assert_eq!(limits("max-flows = 1"), Limits { max_flows: Some(1), ..Limits::default() });
    }

    #[test]
    fn every_balance_is_another_one() {
        let words = ["maglev", "round-robin", "random", "least-connections", "power-of-two", "source-hash"];
        let balances: std::collections::HashSet<_> = words
            .map(|word| {
                let text =
                    format!("[[service]]\nname = 's'\nlisten = '192.0.2.1:1'\nbalance = '{word}'\nbackends = []");
                load(&text, "tungate.toml", None, "gw").unwrap().services[0].balance
            })
            .into();
        assert_eq!(balances.len(), words.len());
    }
}
