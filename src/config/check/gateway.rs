//! Rules of `[gateway]` and `[timeouts]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::GatewayPlaces;
use crate::config::diagnostic::{Code, Diagnostic};
use crate::config::raw::{RawGateway, RawTimeouts};
use crate::config::values::{List, Set};
use crate::config::{Gateway, Timeouts, Workers, text};
use crate::wire::Address;

/// The longest timeout: beyond it, an idle flow is a leak.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// `sun_path` of a Unix socket address, without the closing zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

pub(super) fn check(raw: RawGateway, host_name: &str, out: &mut Vec<Diagnostic>) -> (Gateway, GatewayPlaces) {
    name(raw.name.as_ref(), out);
    interface(&raw.interface, out);
    announce_on(&raw.announce_on, &raw.interface.value, out);
    admin_socket(&raw.admin_socket, out);
    let sources = source_addresses(&raw.source_addresses, out);
    let gateway = Gateway {
        name: raw.name.map_or_else(|| host_name.to_string(), |name| name.value),
        interface: raw.interface.value,
        mtu: u16::try_from(raw.mtu.value).expect("within the limits of its key"),
        workers: raw.workers.map_or(Workers::Auto, |n| Workers::Count(u16::try_from(n).expect("within its limits"))),
        source_addresses: v4_first(&sources.items),
        announce_on: raw.announce_on.items.into_iter().map(Spanned::into_inner).collect(),
        routes: raw.routes,
        admin_socket: PathBuf::from(raw.admin_socket.value),
        state_dir: PathBuf::from(raw.state_dir.value),
        metrics_listen: metrics_listen(raw.metrics_listen.as_ref(), out),
        max_flows: u32::try_from(raw.max_flows.value).expect("within the limits of its key"),
    };
    (gateway, GatewayPlaces { mtu: raw.mtu.span, max_flows: raw.max_flows.span, source_addresses: sources })
}

/// One slice a family: [`crate::config::Snapshot::sources`].
fn v4_first(sources: &[Spanned<Address>]) -> Vec<Address> {
    let mut addresses: Vec<_> = sources.iter().map(|source| *source.get_ref()).collect();
    addresses.sort_by_key(|address| !address.is_v4());
    addresses
}

pub(super) fn timeouts(raw: &RawTimeouts, out: &mut Vec<Diagnostic>) -> Timeouts {
    least("tcp-established", &raw.tcp_established, 7440, "RFC 5382 REQ-5", out);
    least("tcp-closing", &raw.tcp_closing, 240, "RFC 5382 REQ-5", out);
    least("udp", &raw.udp, 120, "RFC 4787 REQ-5", out);
    least("udp-unreplied", &raw.udp_unreplied, 120, "RFC 4787 REQ-5", out);
    let mut limited = |name: &str, timeout: &Set<Duration>| {
        limits(name, timeout, out);
        timeout.value
    };
    Timeouts {
        tcp_syn_sent: limited("tcp-syn-sent", &raw.tcp_syn_sent),
        tcp_syn_received: limited("tcp-syn-received", &raw.tcp_syn_received),
        tcp_established: limited("tcp-established", &raw.tcp_established),
        tcp_closing: limited("tcp-closing", &raw.tcp_closing),
        tcp_time_wait: limited("tcp-time-wait", &raw.tcp_time_wait),
        tcp_close: limited("tcp-close", &raw.tcp_close),
        udp: limited("udp", &raw.udp),
        udp_unreplied: limited("udp-unreplied", &raw.udp_unreplied),
        fragment_v4: limited("fragment-v4", &raw.fragment_v4),
        fragment_v6: limited("fragment-v6", &raw.fragment_v6),
    }
}

/// A timeout of 0 would forget every flow at once.
pub(super) fn limits(name: &str, timeout: &Set<Duration>, out: &mut Vec<Diagnostic>) {
    let Some(span) = timeout.span.clone() else { return };
    if timeout.value.is_zero() || timeout.value > LONGEST {
        let message = format!("`{name}` has to be above 0 and at most 30 days");
        out.push(Diagnostic::new(Code::OutOfRange, span, message).label("outside"));
    }
}

/// Below what the RFC demands, hosts that keep to it lose their flows.
fn least(name: &str, timeout: &Set<Duration>, seconds: u64, source: &str, out: &mut Vec<Diagnostic>) {
    let Some(span) = timeout.span.clone() else { return };
    if !timeout.value.is_zero() && timeout.value < Duration::from_secs(seconds) {
        let message = format!("`{name}` is shorter than {source} allows");
        let help = format!("idle flows that are still in use will be cut off; \"{seconds}s\" is the least");
        out.push(Diagnostic::new(Code::ShortTimeout, span, message).help(help));
    }
}

fn name(name: Option<&Set<String>>, out: &mut Vec<Diagnostic>) {
    let Some(Set { value, span: Some(span) }) = name else { return };
    if let Some(why) = text::bad_name(value) {
        out.push(Diagnostic::new(Code::BadName, span.clone(), "the gateway cannot have this name").label(why));
    }
}

fn interface(interface: &Set<String>, out: &mut Vec<Diagnostic>) {
    let Set { value, span: Some(span) } = interface else { return };
    if let Some(why) = text::bad_interface(value) {
        out.push(Diagnostic::new(Code::BadName, span.clone(), "no interface can have this name").label(why));
    }
}

fn announce_on(names: &List<Spanned<String>>, tun: &str, out: &mut Vec<Diagnostic>) {
    for (n, name) in names.items.iter().enumerate() {
        let span = name.span();
        if let Some(why) = text::bad_interface(name.get_ref()) {
            out.push(Diagnostic::new(Code::BadName, span, "no interface can have this name").label(why));
        } else if name.get_ref() == tun {
            let message = "the TUN itself cannot announce: it has no neighbours";
            let help = "name the interfaces on which clients and backends are";
            out.push(Diagnostic::new(Code::AnnounceOnTun, span, message).help(help));
        } else if let Some(first) = names.items[..n].iter().find(|other| other.get_ref() == name.get_ref()) {
            out.push(twice("`announce-on` names an interface twice", first.span(), span));
        }
    }
}

fn metrics_listen(written: Option<&Set<String>>, out: &mut Vec<Diagnostic>) -> Option<SocketAddr> {
    let Some(Set { value, span: Some(span) }) = written else { return None };
    let address = value.parse().ok();
    if address.is_none() {
        let message = "metrics cannot be served there";
        let help = "write an address and a port, as \"127.0.0.1:9464\"";
        out.push(Diagnostic::new(Code::Malformed, span.clone(), message).label("no address with a port").help(help));
    }
    address
}

fn admin_socket(path: &Set<String>, out: &mut Vec<Diagnostic>) {
    let Set { value, span: Some(span) } = path else { return };
    let why = if value.is_empty() {
        "it is empty".to_string()
    } else if value.contains('\0') {
        "no path contains a zero byte".to_string()
    } else if value.len() > LONGEST_SOCKET_PATH {
        format!("it is {} bytes long, {LONGEST_SOCKET_PATH} at most", value.len())
    } else {
        return;
    };
    out.push(Diagnostic::new(Code::Malformed, span.clone(), "no socket can have this path").label(why));
}

fn source_addresses(written: &List<Spanned<String>>, out: &mut Vec<Diagnostic>) -> List<Spanned<Address>> {
    let mut items: Vec<Spanned<Address>> = Vec::with_capacity(written.items.len());
    let mut whole = written.whole;
    for source in &written.items {
        match source_address(source) {
            Ok(address) => {
                if let Some(first) = items.iter().find(|other| *other.get_ref() == address) {
                    out.push(twice("`source-addresses` lists an address twice", first.span(), source.span()));
                }
                items.push(Spanned::new(source.span(), address));
            }
            Err(diagnostic) => {
                out.push(diagnostic);
                whole = false;
            }
        }
    }
    List { items, whole, span: written.span.clone() }
}

fn source_address(written: &Spanned<String>) -> Result<Address, Diagnostic> {
    let address = text::address(written.get_ref()).map_err(|problem| problem.at(written.span()))?;
    let Some(why) = text::unusable(address, if address.is_v4() { 32 } else { 128 }) else { return Ok(address) };
    let message = format!("{address} cannot be a source address");
    Err(Diagnostic::new(Code::UnusableAddress, written.span(), message).label(why))
}

fn twice(message: &str, first: std::ops::Range<usize>, again: std::ops::Range<usize>) -> Diagnostic {
    let diagnostic =
        Diagnostic::new(Code::DuplicateEntry, again, message).label("again here").also(first, "first here");
    diagnostic.help("remove one of the two")
}
