//! `[service.health]` and `[service.passive]`: how backends are asked how they are, and what follows from it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{BackendId, Mode, ServiceId, Snapshot};
use crate::wire::{Address, Endpoint};

/// `[service.health]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers in a row after which a backend that was down is up.
    pub rise: u16,
    /// Bad ones after which one that was up is down.
    pub fall: u16,
    /// Where the question goes, if not where flows go.
    pub port: Option<u16>,
    /// What becomes of a backend's connections when it goes down.
    pub on_down: OnDown,
    /// How long a backend that comes up takes to get its whole share of new flows; zero: it has it at once.
    pub slow_start: Duration,
    /// With a smaller share of the backends up than this, percent, all get flows as if they were; 0: never.
    pub panic_threshold: u8,
}

/// `check`: what a backend is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// Nothing: it counts as up.
    None,
    /// To open a connection.
    Tcp,
    /// For a page.
    Http(HttpCheck),
    /// For an answer to a datagram.
    Udp(UdpCheck),
    /// For an echo.
    Icmp,
}

/// What makes an HTTP answer a good one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// Path and query.
    pub path: String,
    /// The `Host` header, if not the backend's address.
    pub host: Option<String>,
    /// The statuses that are good.
    pub status: RangeInclusive<u16>,
    /// What the body has to contain.
    pub body: Option<String>,
}

/// A datagram and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdpCheck {
    /// What is sent.
    pub send: String,
    /// What an answer has to contain. `None`: any answer is good, and so is silence, since only an ICMP error tells that
    /// nobody listens.
    pub expect: Option<String>,
}

impl Check {
    /// The word in the configuration.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Http(_) => "http",
            Self::Udp(_) => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// Whether it is asked at a port.
    pub const fn needs_port(&self) -> bool {
        match self {
            Self::Tcp | Self::Http(_) | Self::Udp(_) => true,
            Self::None | Self::Icmp => false,
        }
    }
}

/// `on-down`: what becomes of the TCP connections of a backend that goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    /// They go on, if they can.
    Keep,
    /// Both ends are told that they are over.
    Reset,
}

/// `[service.passive]`: what flows tell of their backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Flows in a row that fail before their backend has said anything.
    pub failures: u16,
    /// How long it then gets none.
    pub eject_for: Duration,
    /// Most of a service's backends that are ejected at once, percent; always one, never all.
    pub max_ejected: u8,
}

impl Passive {
    /// How many of so many backends may be ejected at once.
    pub fn most_ejected(&self, backends: usize) -> usize {
        let share = backends * usize::from(self.max_ejected) / 100;
        share.max(1).min(backends.saturating_sub(1))
    }
}

/// Where a backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CheckedAt {
    /// Address and port; the port is 0 where the check has none.
    pub endpoint: Endpoint,
    /// By the tunnel to it: then the address is the VIP.
    pub tunnelled: bool,
}

impl Snapshot {
    /// Where a backend of a service is asked: at its own address, or by its tunnel at the VIP, as its flows are served.
    /// `None` if it is not, or cannot be.
    pub fn checked_at(&self, id: BackendId) -> Option<CheckedAt> {
        let backend = self.backend(id);
        let service = self.service(backend.service);
        let port = match service.health.check {
            Check::None => return None,
            Check::Icmp => 0,
            Check::Tcp | Check::Http(_) | Check::Udp(_) => {
                service.health.port.or(backend.port).or_else(|| service.one_port())?
            }
        };
        match service.mode {
            Mode::Nat { .. } => Some(CheckedAt { endpoint: Endpoint::new(backend.address, port), tunnelled: false }),
            Mode::Dsr { .. } => {
                let vip = self.asked_vip(backend.service)?;
                Some(CheckedAt { endpoint: Endpoint::new(vip, port), tunnelled: true })
            }
        }
    }

    /// The VIP that stands for all of a DSR service: its first one for whose family there is a source address.
    fn asked_vip(&self, id: ServiceId) -> Option<Address> {
        let listens = &self.service(id).listen;
        let asked = listens.iter().find(|listen| !self.sources(listen.address.is_v4()).is_empty())?;
        Some(asked.first_host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    /// Where the first backend of a service with these lines is asked.
    fn asked(lines: &str) -> (Check, Option<(String, bool)>) {
        let text = format!("[gateway]\nsource-addresses = ['10.99.0.10']\n[[service]]\nname = 's'\n{lines}");
        let snapshot = load(&text, "tungate.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
        let at = snapshot.checked_at(BackendId(0));
        (snapshot.services[0].health.check.clone(), at.map(|at| (at.endpoint.to_string(), at.tunnelled)))
    }

    #[test]
    fn a_backend_is_asked_where_its_flows_go() {
        let backend = "backends = [{ address = '10.0.0.1' }]\n";
        let at = |text: &str, tunnelled| Some((text.to_owned(), tunnelled));
        let cases = [
            ("listen = '192.0.2.1:80'\n", "", Check::Tcp, at("10.0.0.1:80", false)),
            ("listen = ['192.0.2.1:8000-8009', '192.0.2.1:80']\n", "", Check::Tcp, at("10.0.0.1:80", false)),
            ("listen = '192.0.2.1:8000-8009'\n", "", Check::None, None),
            ("listen = '192.0.2.1:*'\n", "[service.health]\nport = 81\n", Check::Tcp, at("10.0.0.1:81", false)),
            ("listen = '192.0.2.1:53'\nprotocol = 'udp'\n", "", Check::None, None),
            ("listen = '192.0.2.1:80'\nmode = 'dsr'\n", "", Check::Tcp, at("192.0.2.1:80", true)),
            ("listen = '192.0.2.1:53'\nprotocol = 'udp'\nmode = 'dsr'\n", "", Check::Icmp, at("192.0.2.1:0", true)),
            ("listen = '192.0.2.0/28:*'\nprotocol = 'any'\nmode = 'dsr'\n", "", Check::Icmp, at("192.0.2.1:0", true)),
        ];
        for (listen, health, check, place) in cases {
            assert_eq!(asked(&format!("{listen}{backend}{health}")), (check, place), "{listen}");
        }
    }

    #[test]
    fn a_check_is_read_as_written() {
        let backend = "listen = '192.0.2.1:80'\nbackends = [{ address = '10.0.0.1:8080' }]\n[service.health]\n";
        let http = Check::Http(HttpCheck { path: "/".into(), host: None, status: 204..=204, body: Some("ok".into()) });
        let (check, at) = asked(&format!("{backend}check = 'http'\nexpect = 204\nbody = 'ok'"));
        assert_eq!((check, at), (http, Some(("10.0.0.1:8080".to_owned(), false))));
        let udp = Check::Udp(UdpCheck { send: "ping".into(), expect: None });
        assert_eq!(asked(&format!("{backend}check = 'udp'\nsend = 'ping'")).0, udp);
    }

    #[test]
    fn one_may_always_be_ejected_and_all_never() {
        let passive = |max_ejected| Passive { failures: 5, eject_for: Duration::from_secs(30), max_ejected };
        assert_eq!([0, 1, 2, 3, 10].map(|n| passive(50).most_ejected(n)), [0, 0, 1, 1, 5]);
        assert_eq!([2, 10].map(|n| passive(100).most_ejected(n)), [1, 9]);
        assert_eq!(passive(1).most_ejected(10), 1);
    }
}
