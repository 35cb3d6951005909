//! Rules within one `[[service]]`.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;

use super::discovery;
use super::gateway::limits as limits_of_timeout;
use super::health;
use crate::config::diagnostic::{Code, Diagnostic};
use crate::config::raw::{RawAffinity, RawBackend, RawLimits, RawService};
use crate::config::values::{List, Set};
use crate::config::{Affinity, Balance, Carried, Discovery, Health, Limits, Listen, Mode, Passive, text};
use crate::wire::tunnel::Encapsulation;
use crate::wire::{Address, Protocol};

/// A service that was read, with the places of its parts.
#[derive(Debug)]
pub(super) struct CheckedService {
    /// `[[service]]`.
    pub(super) header: Range<usize>,
    /// `None` if it is missing.
    pub(super) name: Option<Spanned<String>>,
    /// `None` if it is missing or unreadable: then nothing is said about who listens where.
    pub(super) protocol: Option<Carried>,
    pub(super) mode: Mode,
    pub(super) balance: Balance,
    pub(super) listen: List<Spanned<Listen>>,
    pub(super) backends: List<CheckedBackend>,
    pub(super) limits: Limits,
    pub(super) affinity: Option<Affinity>,
    pub(super) discovery: Option<Discovery>,
    pub(super) health: Health,
    pub(super) passive: Option<Passive>,
    /// Where `max-flows` is written.
    pub(super) max_flows: Option<Range<usize>>,
}

/// A backend that was read.
#[derive(Debug)]
pub(in crate::config) struct CheckedBackend {
    pub(in crate::config) name: Spanned<String>,
    pub(in crate::config) address: Address,
    pub(in crate::config) port: Option<u16>,
    /// Of address and port.
    pub(super) place: Range<usize>,
    pub(super) weight: u16,
    pub(super) backup: bool,
}

impl CheckedService {
    /// How messages call it.
    pub(super) fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("service `{}`", name.get_ref().escape_debug()),
            None => "a service without name".to_string(),
        }
    }

    /// The first listen address of the family.
    pub(super) fn listens_in(&self, v4: bool) -> Option<&Spanned<Listen>> {
        self.listen.items.iter().find(|listen| listen.get_ref().address.is_v4() == v4)
    }

    /// Whether its flows hold source ports.
    pub(super) fn has_source_nat(&self) -> bool {
        self.mode == Mode::Nat { source_nat: true }
    }

    /// Whether backends get the packets in a tunnel.
    pub(super) fn has_tunnels(&self) -> bool {
        matches!(self.mode, Mode::Dsr { .. })
    }

    /// Whether it has a backend of the family.
    pub(super) fn has_backend_in(&self, v4: bool) -> bool {
        self.backends.items.iter().any(|backend| backend.address.is_v4() == v4)
    }
}

pub(super) fn check(raw: RawService, out: &mut Vec<Diagnostic>) -> CheckedService {
    let mut service = CheckedService {
        header: raw.span.clone(),
        mode: mode(&raw),
        protocol: raw.protocol.as_ref().map(|word| protocol(word.value)),
        name: name(raw.name, out),
        balance: raw.balance.map_or(Balance::Maglev, balance),
        listen: listen(&raw.listen, out),
        backends: backends(raw.backends, raw.mode == Some("dsr"), out),
        limits: limits(&raw.limits),
        affinity: affinity(&raw.affinity, out),
        discovery: discovery::check(&raw.discovery, out),
        health: health::unchecked(),
        passive: raw.passive.as_ref().map(|passive| health::passive(passive, out)),
        max_flows: raw.limits.max_flows.as_ref().and_then(|most| most.span.clone()),
    };
    rates(&raw.limits, out);
    backend_names(&service, out);
    backend_addresses(&service, out);
    weights(&service, out);
    families(&service, out);
    collapsing_ports(&service, out);
    // What a mode that was misspelt would have allowed, nobody knows.
    if raw.mode.is_some() {
        without_tunnel(&service, raw.protocol, raw.encapsulation, out);
        without_gre(&service, raw.gre_key, out);
    }
    without_nat(&service, raw.source_nat, out);
    ports_behind_tunnels(&service, out);
    service.health = health::check(raw.health, &service, out);
    service
}

fn mode(raw: &RawService) -> Mode {
    if raw.mode != Some("dsr") {
        return Mode::Nat { source_nat: raw.source_nat.value };
    }
    let encapsulation = match raw.encapsulation.as_ref().map(|word| word.value) {
        Some("ipip") => Encapsulation::Ipip,
        Some("gue") => Encapsulation::Gue,
        Some(_) | None => raw.gre_key.as_ref().map_or(Encapsulation::Gre, |key| {
            Encapsulation::KeyedGre(u32::try_from(key.value).expect("within its limits"))
        }),
    };
    Mode::Dsr { encapsulation }
}

/// What only a tunnel can do, or needs.
fn without_tunnel(
    service: &CheckedService,
    protocol: Option<Set<&str>>,
    encapsulation: Option<Set<&str>>,
    out: &mut Vec<Diagnostic>,
) {
    if service.has_tunnels() {
        return;
    }
    let title = service.title();
    if let Some(Set { value: "any", span: Some(span) }) = protocol {
        let message = format!("{title} cannot carry any protocol: NAT has to know the ports");
        let help = "write one service for \"tcp\" and one for \"udp\", or set `mode = \"dsr\"`";
        out.push(Diagnostic::new(Code::AnyWithoutTunnel, span, message).help(help));
    }
    if let Some(Set { span: Some(span), .. }) = encapsulation {
        let message = format!("{title} has an encapsulation, but no tunnel");
        let help = "remove the key, or set `mode = \"dsr\"`";
        out.push(Diagnostic::new(Code::EncapsulationWithoutTunnel, span, message).help(help));
    }
}

/// A key lies in the header of GRE.
fn without_gre(service: &CheckedService, key: Option<Set<i64>>, out: &mut Vec<Diagnostic>) {
    let keyed = matches!(service.mode, Mode::Dsr { encapsulation: Encapsulation::KeyedGre(_) });
    if let Some(Set { span: Some(span), .. }) = key.filter(|_| !keyed) {
        let message = format!("{} has a GRE key, but no GRE", service.title());
        let help = "remove the key, or set `mode = \"dsr\"` and `encapsulation = \"gre\"`";
        out.push(Diagnostic::new(Code::EncapsulationWithoutTunnel, span, message).help(help));
    }
}

/// In a tunnel nothing is translated: what is said of NAT is without effect, and may be meant otherwise.
fn without_nat(service: &CheckedService, source_nat: Set<bool>, out: &mut Vec<Diagnostic>) {
    if let Set { span: Some(span), .. } = source_nat
        && service.has_tunnels()
    {
        let message = format!("{} has a word on NAT, but no NAT", service.title());
        let label = "with direct server return, backends see the client's address in any case";
        let help = "remove the key, or set `mode = \"nat\"`";
        out.push(Diagnostic::new(Code::IdleSourceNat, span, message).label(label).help(help));
    }
}

/// A tunnelled packet arrives as it was sent: at the service's port.
fn ports_behind_tunnels(service: &CheckedService, out: &mut Vec<Diagnostic>) {
    if !service.has_tunnels() {
        return;
    }
    for backend in &service.backends.items {
        let Some(port) = backend.port else { continue };
        let other = |listen: &&Spanned<Listen>| listen.get_ref().ports != (port..=port);
        let Some(listen) = service.listen.items.iter().find(other) else { continue };
        let message =
            format!("backend `{}` has a port that no packet will come to", backend.name.get_ref().escape_debug());
        let diagnostic = Diagnostic::new(Code::PortBehindTunnel, backend.place.clone(), message);
        let diagnostic = diagnostic.label("with direct server return, packets arrive as they were sent");
        let address =
            if backend.address.is_v4() { backend.address.to_string() } else { format!("[{}]", backend.address) };
        let help = format!("write \"{address}\" without port, or listen on port {port}");
        out.push(diagnostic.also(listen.span(), "sent to here").help(help));
    }
}

fn affinity(raw: &RawAffinity, out: &mut Vec<Diagnostic>) -> Option<Affinity> {
    limits_of_timeout("affinity-timeout", &raw.timeout, out);
    let max_clients = u32::try_from(raw.max_clients.value).expect("within the limits of its key");
    if raw.by == Some("client-ip") {
        return Some(Affinity { timeout: raw.timeout.value, max_clients });
    }
    // What is written in place of a word that was misspelt has been told.
    if raw.by == Some("none")
        && let Some(span) = raw.timeout.span.clone().or_else(|| raw.max_clients.span.clone())
    {
        let diagnostic = Diagnostic::new(Code::IdleAffinity, span, "no client is remembered, for however long");
        out.push(diagnostic.help("set `affinity = \"client-ip\"`, or remove the key"));
    }
    None
}

fn limits(raw: &RawLimits) -> Limits {
    let max_flows = raw.max_flows.as_ref();
    Limits {
        new_flows: raw.new_flows.as_ref().map(|rate| rate.value),
        new_flows_per_client: raw.new_flows_per_client.as_ref().map(|rate| rate.value),
        max_flows: max_flows.map(|most| u32::try_from(most.value).expect("within the limits of its key")),
    }
}

/// One client alone cannot come faster than all together.
fn rates(raw: &RawLimits, out: &mut Vec<Diagnostic>) {
    let (Some(all), Some(each)) = (&raw.new_flows, &raw.new_flows_per_client) else { return };
    if all.value.interval() <= each.value.interval() {
        return;
    }
    let (Some(all), Some(each)) = (all.span.clone(), each.span.clone()) else { return };
    let message = "`new-flows-per-client` is more than `new-flows`, and never reached";
    let diagnostic = Diagnostic::new(Code::IdleLimit, each, message).also(all, "all clients together");
    out.push(diagnostic.help("lower it, or remove it"));
}

fn protocol(word: &str) -> Carried {
    match word {
        "udp" => Carried::One(Protocol::UDP),
        "any" => Carried::Any,
        _ => Carried::One(Protocol::TCP),
    }
}

fn balance(word: &str) -> Balance {
    match word {
        "round-robin" => Balance::RoundRobin,
        "random" => Balance::Random,
        "least-connections" => Balance::LeastConnections,
        "power-of-two" => Balance::PowerOfTwo,
        "source-hash" => Balance::SourceHash,
        _ => Balance::Maglev,
    }
}

fn name(name: Option<Set<String>>, out: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
    let Set { value, span } = name?;
    let span = span.expect("a name has no default");
    if let Some(why) = text::bad_name(&value) {
        out.push(Diagnostic::new(Code::BadName, span.clone(), "a service cannot have this name").label(why));
    }
    Some(Spanned::new(span, value))
}

fn listen(written: &List<Spanned<String>>, out: &mut Vec<Diagnostic>) -> List<Spanned<Listen>> {
    let mut items = Vec::with_capacity(written.items.len());
    for entry in &written.items {
        match text::listen(entry.get_ref()) {
            Err(problem) => out.push(problem.at(entry.span())),
            Ok(listen) => match text::unusable(listen.address, listen.prefix) {
                Some(why) => {
                    let message = format!("no service can listen on {listen}");
                    out.push(Diagnostic::new(Code::UnusableAddress, entry.span(), message).label(why));
                }
                None => items.push(Spanned::new(entry.span(), listen)),
            },
        }
    }
    if written.whole && written.items.is_empty() {
        let span = written.span.clone().unwrap_or_default();
        let message = "a service has to listen somewhere";
        out.push(Diagnostic::new(Code::MissingKey, span, message).help("add an address, as \"192.0.2.10:80\""));
    }
    List { whole: written.whole && items.len() == written.items.len(), items, span: written.span.clone() }
}

fn backends(raw: List<RawBackend>, tunnelled: bool, out: &mut Vec<Diagnostic>) -> List<CheckedBackend> {
    let count = raw.items.len();
    let items: Vec<_> = raw.items.into_iter().filter_map(|entry| backend(entry, tunnelled, out)).collect();
    List { whole: raw.whole && items.len() == count, items, span: raw.span }
}

fn backend(raw: RawBackend, tunnelled: bool, out: &mut Vec<Diagnostic>) -> Option<CheckedBackend> {
    if let Some(Set { value, span: Some(span) }) = &raw.name
        && let Some(why) = text::bad_name(value)
    {
        out.push(Diagnostic::new(Code::BadName, span.clone(), "a backend cannot have this name").label(why));
    }
    let Set { value: written, span } = raw.address?;
    let place = span.expect("an address has no default");
    let read = text::backend(&written).map_err(|problem| {
        let help = "write \"10.0.0.1\" or \"2001:db8::1\": with direct server return, packets keep their port";
        out.push(if tunnelled { problem.help(help) } else { problem }.at(place.clone()));
    });
    let (address, port) = read.ok()?;
    if let Some(why) = text::unusable(address, if address.is_v4() { 32 } else { 128 }) {
        let message = format!("{address} cannot be a backend");
        out.push(Diagnostic::new(Code::UnusableAddress, place, message).label(why));
        return None;
    }
    let name = match raw.name {
        Some(Set { value, span: Some(span) }) => Spanned::new(span, value),
        Some(_) | None => Spanned::new(place.clone(), written),
    };
    let weight = u16::try_from(raw.weight).expect("within the limits of its key");
    Some(CheckedBackend { name, address, port, place, weight, backup: raw.backup })
}

fn backend_names(service: &CheckedService, out: &mut Vec<Diagnostic>) {
    let mut seen = HashMap::new();
    for backend in &service.backends.items {
        let name = &backend.name;
        if let Some(first) = seen.insert(name.get_ref(), name.span()) {
            let message = format!("{} has two backends named `{}`", service.title(), name.get_ref().escape_debug());
            let diagnostic = Diagnostic::new(Code::DuplicateBackendName, name.span(), message);
            out.push(diagnostic.label("again here").also(first, "first here").help("give one of the two another name"));
        }
    }
}

/// Two entries for one server would each get a share, and drain apart.
fn backend_addresses(service: &CheckedService, out: &mut Vec<Diagnostic>) {
    let mut seen = HashMap::new();
    for backend in &service.backends.items {
        let Some(first) = seen.insert((backend.address, backend.port), backend) else { continue };
        if first.name.get_ref() == backend.name.get_ref() {
            continue; // That has been said of the names.
        }
        let message = format!("{} has two backends at one address", service.title());
        let diagnostic = Diagnostic::new(Code::DuplicateBackendAddress, backend.place.clone(), message);
        let diagnostic = diagnostic.label("again here").also(first.place.clone(), "first here");
        out.push(diagnostic.help("remove one of the two; `weight` gives a backend a larger share"));
    }
}

fn weights(service: &CheckedService, out: &mut Vec<Diagnostic>) {
    if !service.backends.whole || service.discovery.is_some() {
        return;
    }
    let span = service.backends.span.clone().unwrap_or_default();
    if service.backends.items.is_empty() {
        let message = format!("{} has no backends", service.title());
        out.push(Diagnostic::new(Code::NoBackends, span, message).label("every packet to it is dropped"));
    } else if service.backends.items.iter().all(|backend| backend.weight == 0) {
        let message = format!("all backends of {} have weight 0", service.title());
        out.push(Diagnostic::new(Code::AllWeightsZero, span, message).label("no new flow is taken"));
    }
}

/// NAT keeps the family: a packet can only go to a backend of its own. A tunnel of either carries both.
fn families(service: &CheckedService, out: &mut Vec<Diagnostic>) {
    if service.has_tunnels()
        || service.discovery.is_some()
        || !service.backends.whole
        || service.backends.items.is_empty()
    {
        return;
    }
    let lacks = |v4: &bool| service.listens_in(*v4).is_some() && !service.has_backend_in(*v4);
    for v4 in [true, false].into_iter().filter(lacks) {
        let listen = service.listens_in(v4).expect("it lacks backends for it");
        let family = family(v4);
        let message =
            format!("{} listens on {family}, but none of its backends has an {family} address", service.title());
        let diagnostic = Diagnostic::new(Code::NoBackendOfFamily, listen.span(), message);
        let all = service.backends.span.clone().unwrap_or_default();
        let help = format!("NAT keeps the family: add an {family} backend, or remove this listen address");
        out.push(diagnostic.also(all, "its backends").help(help));
    }
    if !service.listen.whole || [true, false].iter().any(lacks) {
        return;
    }
    for backend in service.backends.items.iter().filter(|b| service.listens_in(b.address.is_v4()).is_none()) {
        let family = family(backend.address.is_v4());
        let message = format!("backend `{}` is never used", backend.name.get_ref().escape_debug());
        let diagnostic = Diagnostic::new(Code::UnusedBackend, backend.place.clone(), message);
        let label = format!("{} does not listen on {family}", service.title());
        out.push(diagnostic.label(label).help(format!("add an {family} address to `listen`")));
    }
}

/// With a port of its own, a backend gets the flows of all listen ports at that one.
fn collapsing_ports(service: &CheckedService, out: &mut Vec<Diagnostic>) {
    if service.has_tunnels() {
        return;
    }
    let many = |listen: &&Spanned<Listen>| listen.get_ref().ports.len() > 1;
    let Some(listen) = service.listen.items.iter().find(many) else { return };
    let Some((backend, port)) = service.backends.items.iter().find_map(|b| Some((b, b.port?))) else { return };
    let message = format!("{} listens on many ports, and all of them end at port {port}", service.title());
    let diagnostic = Diagnostic::new(Code::PortsCollapse, backend.place.clone(), message);
    let help = format!("to keep the packet's port, write \"{}\" without port", backend.address);
    out.push(diagnostic.also(listen.span(), "many ports").help(help));
}

pub(super) const fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}
