//! The file as it was written: one struct a table, one field a key, each value with its place, defaults filled in.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::Rate;
use super::diagnostic::{Code, Diagnostic};
use super::keys;
use super::reader;
use super::values::{List, Set, Values};

/// The whole file.
#[derive(Debug)]
pub(super) struct RawFile {
    pub(super) gateway: RawGateway,
    pub(super) timeouts: RawTimeouts,
    pub(super) services: List<RawService>,
    pub(super) ha: Option<RawHa>,
}

/// `[gateway]`.
#[derive(Debug)]
pub(super) struct RawGateway {
    pub(super) name: Option<Set<String>>,
    pub(super) interface: Set<String>,
    pub(super) mtu: Set<i64>,
    /// `None` is "auto".
    pub(super) workers: Option<i64>,
    pub(super) source_addresses: List<Spanned<String>>,
    pub(super) announce_on: List<Spanned<String>>,
    pub(super) routes: bool,
    pub(super) admin_socket: Set<String>,
    pub(super) state_dir: Set<String>,
    pub(super) metrics_listen: Option<Set<String>>,
    pub(super) max_flows: Set<i64>,
}

/// `[ha]`.
#[derive(Debug)]
pub(super) struct RawHa {
    /// The header.
    pub(super) span: Range<usize>,
    pub(super) role: Option<&'static str>,
    pub(super) priority: i64,
    pub(super) listen: List<Spanned<String>>,
    pub(super) peer: List<Spanned<String>>,
    pub(super) key_file: Option<Set<String>>,
    pub(super) profile: Option<&'static str>,
    pub(super) split_brain: Option<&'static str>,
}

/// `[timeouts]`.
#[derive(Debug)]
pub(super) struct RawTimeouts {
    pub(super) tcp_syn_sent: Set<Duration>,
    pub(super) tcp_syn_received: Set<Duration>,
    pub(super) tcp_established: Set<Duration>,
    pub(super) tcp_closing: Set<Duration>,
    pub(super) tcp_time_wait: Set<Duration>,
    pub(super) tcp_close: Set<Duration>,
    pub(super) udp: Set<Duration>,
    pub(super) udp_unreplied: Set<Duration>,
    pub(super) fragment_v4: Set<Duration>,
    pub(super) fragment_v6: Set<Duration>,
}

/// `[[service]]`.
#[derive(Debug)]
pub(super) struct RawService {
    /// The header.
    pub(super) span: Range<usize>,
    /// `None` if it is missing; so below.
    pub(super) name: Option<Set<String>>,
    pub(super) listen: List<Spanned<String>>,
    pub(super) protocol: Option<Set<&'static str>>,
    pub(super) mode: Option<&'static str>,
    pub(super) encapsulation: Option<Set<&'static str>>,
    pub(super) gre_key: Option<Set<i64>>,
    pub(super) source_nat: Set<bool>,
    pub(super) balance: Option<&'static str>,
    pub(super) affinity: RawAffinity,
    pub(super) backends: List<RawBackend>,
    pub(super) discovery: RawDiscovery,
    pub(super) limits: RawLimits,
    pub(super) health: RawHealth,
    pub(super) passive: Option<RawPassive>,
}

/// `[service.discovery]`.
#[derive(Debug)]
pub(super) struct RawDiscovery {
    /// The header.
    pub(super) span: Range<usize>,
    pub(super) source: Option<Set<&'static str>>,
    pub(super) path: Option<Set<String>>,
    pub(super) name: Option<Set<String>>,
    pub(super) records: Option<Set<&'static str>>,
    pub(super) port: Option<Set<i64>>,
    pub(super) resolver: Option<Set<String>>,
    pub(super) url: Option<Set<String>>,
    pub(super) wait: Option<Set<Duration>>,
    pub(super) interval: Option<Set<Duration>>,
}

/// The keys of a service that begin so.
#[derive(Debug)]
pub(super) struct RawAffinity {
    pub(super) by: Option<&'static str>,
    pub(super) timeout: Set<Duration>,
    pub(super) max_clients: Set<i64>,
}

/// `[service.limits]`.
#[derive(Debug)]
pub(super) struct RawLimits {
    pub(super) new_flows: Option<Set<Rate>>,
    pub(super) new_flows_per_client: Option<Set<Rate>>,
    pub(super) max_flows: Option<Set<i64>>,
}

/// `[service.health]`.
#[derive(Debug)]
pub(super) struct RawHealth {
    pub(super) check: Option<Set<&'static str>>,
    pub(super) interval: Set<Duration>,
    pub(super) timeout: Set<Duration>,
    pub(super) rise: i64,
    pub(super) fall: i64,
    pub(super) port: Option<Set<i64>>,
    pub(super) path: Option<Set<String>>,
    pub(super) host: Option<Set<String>>,
    pub(super) expect: Option<Set<String>>,
    pub(super) body: Option<Set<String>>,
    pub(super) send: Option<Set<String>>,
    pub(super) on_down: Option<Set<&'static str>>,
    pub(super) slow_start: Set<Duration>,
    pub(super) panic_threshold: i64,
}

/// `[service.passive]`.
#[derive(Debug)]
pub(super) struct RawPassive {
    pub(super) failures: i64,
    pub(super) eject_for: Set<Duration>,
    pub(super) max_ejected: i64,
}

/// An entry of `backends`.
#[derive(Debug)]
pub(super) struct RawBackend {
    pub(super) name: Option<Set<String>>,
    pub(super) address: Option<Set<String>>,
    pub(super) weight: i64,
    pub(super) backup: bool,
}

impl RawFile {
    /// Reads the text. Of a text that is not TOML only that is said: what a repaired tree lacks may be lost, not missing.
    pub(super) fn parse(text: &str) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(syntax_errors(text, &errors));
        }
        let mut out = Vec::new();
        let mut values = reader::read(table.get_ref(), table.span(), keys::FILE, "the file", &mut out);
        let file = Self {
            gateway: RawGateway::new(values.table("gateway")),
            timeouts: RawTimeouts::new(values.table("timeouts")),
            services: values.tables("service").map(RawService::new),
            ha: RawHa::new(values.table("ha")),
        };
        values.all_read();
        Ok((file, out))
    }
}

impl RawGateway {
    fn new(mut values: Values) -> Self {
        let gateway = Self {
            name: values.text("name"),
            interface: values.text("interface").expect("has a default"),
            mtu: values.integer("mtu"),
            workers: values.integer_or_word("workers"),
            source_addresses: values.texts("source-addresses"),
            announce_on: values.texts("announce-on"),
            routes: values.flag("routes").value,
            admin_socket: values.text("admin-socket").expect("has a default"),
            state_dir: values.text("state-dir").expect("has a default"),
            metrics_listen: values.text("metrics-listen"),
            max_flows: values.integer("max-flows"),
        };
        values.all_read();
        gateway
    }
}

impl RawTimeouts {
    fn new(mut values: Values) -> Self {
        let timeouts = Self {
            tcp_syn_sent: values.duration("tcp-syn-sent"),
            tcp_syn_received: values.duration("tcp-syn-received"),
            tcp_established: values.duration("tcp-established"),
            tcp_closing: values.duration("tcp-closing"),
            tcp_time_wait: values.duration("tcp-time-wait"),
            tcp_close: values.duration("tcp-close"),
            udp: values.duration("udp"),
            udp_unreplied: values.duration("udp-unreplied"),
            fragment_v4: values.duration("fragment-v4"),
            fragment_v6: values.duration("fragment-v6"),
        };
        values.all_read();
        timeouts
    }
}

impl RawService {
    fn new(mut values: Values) -> Self {
        let service = Self {
            span: values.span.clone(),
            name: values.text("name"),
            listen: values.texts("listen"),
            protocol: values.word("protocol"),
            mode: values.word("mode").map(|word| word.value),
            encapsulation: values.word("encapsulation"),
            gre_key: values.integer_if_any("gre-key"),
            source_nat: values.flag("source-nat"),
            balance: values.word("balance").map(|word| word.value),
            affinity: RawAffinity {
                by: values.word("affinity").map(|word| word.value),
                timeout: values.duration("affinity-timeout"),
                max_clients: values.integer("affinity-max-clients"),
            },
            backends: values.tables("backends").map(RawBackend::new),
            discovery: RawDiscovery::new(values.table("discovery")),
            limits: RawLimits::new(values.table("limits")),
            health: RawHealth::new(values.table("health")),
            passive: RawPassive::new(values.table("passive")),
        };
        values.all_read();
        service
    }
}

impl RawDiscovery {
    fn new(mut values: Values) -> Self {
        let discovery = Self {
            span: values.span.clone(),
            source: values.word("source"),
            path: values.text("path"),
            name: values.text("name"),
            records: values.word("type"),
            port: values.integer_if_any("port"),
            resolver: values.text("resolver"),
            url: values.text("url"),
            wait: values.duration_if_any("wait"),
            interval: values.duration_if_any("interval"),
        };
        values.all_read();
        discovery
    }
}

impl RawLimits {
    fn new(mut values: Values) -> Self {
        let limits = Self {
            new_flows: values.rate("new-flows"),
            new_flows_per_client: values.rate("new-flows-per-client"),
            max_flows: values.integer_if_any("max-flows"),
        };
        values.all_read();
        limits
    }
}

impl RawHealth {
    fn new(mut values: Values) -> Self {
        let health = Self {
            check: values.word("check"),
            interval: values.duration("interval"),
            timeout: values.duration("timeout"),
            rise: values.integer("rise").value,
            fall: values.integer("fall").value,
            port: values.integer_if_any("port"),
            path: values.text("path"),
            host: values.text("host"),
            expect: values.text("expect"),
            body: values.text("body"),
            send: values.text("send"),
            on_down: values.word("on-down"),
            slow_start: values.duration("slow-start"),
            panic_threshold: values.integer("panic-threshold").value,
        };
        values.all_read();
        health
    }
}

impl RawPassive {
    /// The table switches something on: it is there only if it was written.
    fn new(mut values: Values) -> Option<Self> {
        let passive = Self {
            failures: values.integer("failures").value,
            eject_for: values.duration("eject-for"),
            max_ejected: values.integer("max-ejected").value,
        };
        values.all_read();
        (!values.span.is_empty()).then_some(passive)
    }
}

impl RawHa {
    /// The table switches something on: it is there only if it was written.
    fn new(mut values: Values) -> Option<Self> {
        let ha = Self {
            span: values.span.clone(),
            role: values.word("role").map(|word| word.value),
            priority: values.integer("priority").value,
            listen: values.texts("listen"),
            peer: values.texts("peer"),
            key_file: values.text("key-file"),
            profile: values.word("profile").map(|word| word.value),
            split_brain: values.word("split-brain").map(|word| word.value),
        };
        values.all_read();
        (!values.span.is_empty()).then_some(ha)
    }
}

impl RawBackend {
    fn new(mut values: Values) -> Self {
        let backend = Self {
            name: values.text("name"),
            address: values.text("address"),
            weight: values.integer("weight").value,
            backup: values.flag("backup").value,
        };
        values.all_read();
        backend
    }
}

/// The first error of each line: those behind it are mostly its consequences. And not more than eight, since a bracket
/// left open makes one of every line.
fn syntax_errors(text: &str, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let mut placed: Vec<_> = errors.iter().map(|e| (e.span().unwrap_or(0..0), e.message())).collect();
    placed.sort_by_key(|(span, _)| span.start);
    placed.dedup_by(|next, last| !text.as_bytes()[last.0.start..next.0.start].contains(&b'\n'));
    let one_line = |message: &str| message.split_whitespace().collect::<Vec<_>>().join(" ");
    placed.into_iter().take(8).map(|(span, message)| Diagnostic::new(Code::Syntax, span, one_line(message))).collect()
}
