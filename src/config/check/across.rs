//! Rules between services, and between services and `[gateway]`.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;

use super::GatewayPlaces;
use super::service::{CheckedService, family};
use crate::config::diagnostic::{Code, Diagnostic};
use crate::config::text::grouped;
use crate::config::values::List;
use crate::config::{Carried, Gateway, Listen, Listeners, ServiceId};
use crate::wire::{Address, Protocol};

/// Source ports that one source address lends towards one backend endpoint: 1024 to 65535.
const PORTS_PER_SOURCE: u64 = 64_512;

/// The least MTU of IPv6 (RFC 8200 5).
const LEAST_MTU_V6: u16 = 1280;

pub(super) fn check(
    gateway: &Gateway,
    places: &GatewayPlaces,
    services: &List<CheckedService>,
    out: &mut Vec<Diagnostic>,
) {
    let vips = Vips::new(&services.items);
    names(&services.items, out);
    listens(&services.items, out);
    backends(&services.items, &vips, &places.source_addresses.items, out);
    sources(&vips, &places.source_addresses.items, out);
    source_of_family(&services.items, &places.source_addresses, out);
    source_of_tunnels(&services.items, &places.source_addresses, out);
    mtu(gateway.mtu, places, &services.items, out);
    max_flows(gateway.max_flows, places, services, out);
    max_flows_of_services(gateway.max_flows, places, &services.items, out);
}

/// All addresses that are listened on, to ask whether one is a VIP and by which line.
struct Vips<'a> {
    all: Vec<&'a Spanned<Listen>>,
    index: Listeners,
}

impl<'a> Vips<'a> {
    fn new(services: &'a [CheckedService]) -> Self {
        let all: Vec<_> = services.iter().flat_map(|service| &service.listen.items).collect();
        // Only `is_vip` is asked of it: protocol and service do not matter.
        let index = Listeners::new(all.iter().map(|listen| (listen.get_ref(), Carried::Any, ServiceId(0))));
        Self { all, index }
    }

    /// Where this address is listened on, if so.
    fn find(&self, address: Address) -> Option<Range<usize>> {
        if !self.index.is_vip(address) {
            return None;
        }
        self.all.iter().find(|listen| listen.get_ref().covers(address)).map(|listen| listen.span())
    }
}

fn names(services: &[CheckedService], out: &mut Vec<Diagnostic>) {
    let mut seen = HashMap::new();
    for name in services.iter().filter_map(|service| service.name.as_ref()) {
        if let Some(first) = seen.insert(name.get_ref(), name.span()) {
            let message = format!("two services are named `{}`", name.get_ref().escape_debug());
            let diagnostic = Diagnostic::new(Code::DuplicateService, name.span(), message);
            out.push(diagnostic.label("again here").also(first, "first here").help("give one of the two another name"));
        }
    }
}

/// No packet may belong to two services: the same address or prefix, protocol and port. A part of another prefix may be
/// listened on, since the longer prefix wins.
fn listens(services: &[CheckedService], out: &mut Vec<Diagnostic>) {
    let mut all: Vec<_> = services
        .iter()
        .flat_map(|service| service.protocol.into_iter().flat_map(Carried::with_ports).map(move |one| (one, service)))
        .flat_map(|(protocol, service)| service.listen.items.iter().map(move |listen| (protocol, listen, service)))
        .collect();
    let network = |(protocol, listen, _): &(Protocol, &Spanned<Listen>, _)| {
        (*protocol, listen.get_ref().address, listen.get_ref().prefix)
    };
    all.sort_by_key(|entry| (network(entry), *entry.1.get_ref().ports.start(), entry.1.span().start));
    for same in all.chunk_by(|a, b| network(a) == network(b)) {
        let mut reaching = &same[0];
        for entry in &same[1..] {
            // Of two services that carry any protocol, that is said of TCP.
            let said = entry.0 == Protocol::UDP && [entry, reaching].iter().all(|e| e.2.protocol == Some(Carried::Any));
            if entry.1.get_ref().ports.start() <= reaching.1.get_ref().ports.end() && !said {
                out.push(taken(reaching, entry));
            }
            if entry.1.get_ref().ports.end() > reaching.1.get_ref().ports.end() {
                reaching = entry;
            }
        }
    }
}

type Listening<'a> = (Protocol, &'a Spanned<Listen>, &'a CheckedService);

fn taken(one: &Listening<'_>, other: &Listening<'_>) -> Diagnostic {
    let (first, again) = if one.1.span().start < other.1.span().start { (one, other) } else { (other, one) };
    let span = again.1.span();
    let diagnostic = if std::ptr::eq(first.2, again.2) {
        let message = format!("{} listens twice on the same address", again.2.title());
        Diagnostic::new(Code::ListenTaken, span, message).help("remove one of the two, or give it other ports")
    } else {
        let message = format!("{} listens on an address that is already taken", again.2.title());
        let help = "give one of the two services another address or port";
        Diagnostic::new(Code::ListenTaken, span, message).help(help)
    };
    diagnostic.label("listened on again here").also(first.1.span(), "first used here")
}

/// A backend whose address is routed to the TUN gets nothing: the packet comes straight back.
fn backends(services: &[CheckedService], vips: &Vips<'_>, sources: &[Spanned<Address>], out: &mut Vec<Diagnostic>) {
    for service in services {
        for backend in &service.backends.items {
            let place = backend.place.clone();
            let name = backend.name.get_ref().escape_debug();
            if let Some(vip) = vips.find(backend.address) {
                let message =
                    format!("backend `{name}` of {} is an address that a service listens on", service.title());
                let diagnostic =
                    Diagnostic::new(Code::BackendIsVip, place.clone(), message).label("packets would loop");
                out.push(diagnostic.also(vip, "listened on here").help("write the server's own address"));
            }
            if let Some(source) = sources.iter().find(|source| *source.get_ref() == backend.address) {
                let message = format!("backend `{name}` of {} is a source address of the gateway", service.title());
                let diagnostic = Diagnostic::new(Code::BackendIsSource, place, message).label("packets would loop");
                out.push(diagnostic.also(source.span(), "source address").help("write the server's own address"));
            }
        }
    }
}

fn sources(vips: &Vips<'_>, sources: &[Spanned<Address>], out: &mut Vec<Diagnostic>) {
    for source in sources {
        if let Some(vip) = vips.find(*source.get_ref()) {
            let message = format!("source address {} is an address that a service listens on", source.get_ref());
            let diagnostic = Diagnostic::new(Code::SourceIsVip, source.span(), message).also(vip, "listened on here");
            out.push(diagnostic.help("a source address is for the backends' replies alone: take another one"));
        }
    }
}

/// Full NAT needs an address to send from, in each family that it serves.
fn source_of_family(services: &[CheckedService], sources: &List<Spanned<Address>>, out: &mut Vec<Diagnostic>) {
    if !sources.whole {
        return;
    }
    let has = |v4: bool| sources.items.iter().any(|source| source.get_ref().is_v4() == v4);
    for v4 in [true, false].into_iter().filter(|v4| !has(*v4)) {
        let full_nat = services.iter().filter(|service| service.has_source_nat() && service.has_backend_in(v4));
        let mut lacking = full_nat.filter_map(|service| Some((service, service.listens_in(v4)?)));
        let Some((service, listen)) = lacking.next() else { continue };
        let family = family(v4);
        let who = match lacking.count() {
            0 => format!("{} needs", service.title()),
            others => format!("{} and {others} more need", service.title()),
        };
        let message = format!("{who} an {family} source address for source-nat");
        let mut diagnostic = Diagnostic::new(Code::NoSourceAddress, listen.span(), message);
        if let Some(span) = &sources.span {
            diagnostic = diagnostic.also(span.clone(), format!("none of {family} here"));
        }
        let example = if v4 { "10.99.0.10" } else { "fd00:99::10" };
        out.push(diagnostic.help(format!(
            "add one in [gateway], as `source-addresses = [\"{example}\"]`, or set `source-nat = false` if replies are \
             routed back through the gateway"
        )));
    }
}

/// A tunnel begins at an address of its backend's family, whatever family it carries.
fn source_of_tunnels(services: &[CheckedService], sources: &List<Spanned<Address>>, out: &mut Vec<Diagnostic>) {
    if !sources.whole {
        return;
    }
    let has = |v4: bool| sources.items.iter().any(|source| source.get_ref().is_v4() == v4);
    for service in services.iter().filter(|service| service.has_tunnels()) {
        let lacks = |v4: &bool| !has(*v4) && service.has_backend_in(*v4);
        for v4 in [true, false].into_iter().filter(lacks) {
            let backend = service.backends.items.iter().find(|b| b.address.is_v4() == v4).expect("it has one");
            let family = family(v4);
            let message =
                format!("{} needs an {family} source address for the tunnels to its backends", service.title());
            let mut diagnostic = Diagnostic::new(Code::NoSourceAddress, backend.place.clone(), message);
            if let Some(span) = &sources.span {
                diagnostic = diagnostic.also(span.clone(), format!("none of {family} here"));
            }
            let example = if v4 { "10.99.0.10" } else { "fd00:99::10" };
            out.push(diagnostic.help(format!("add one in [gateway], as `source-addresses = [\"{example}\"]`")));
        }
    }
}

fn mtu(mtu: u16, places: &GatewayPlaces, services: &[CheckedService], out: &mut Vec<Diagnostic>) {
    let Some(span) = places.mtu.clone().filter(|_| mtu < LEAST_MTU_V6) else { return };
    let listen = services.iter().find_map(|service| service.listens_in(false)).map(Spanned::span);
    let source = || places.source_addresses.items.iter().find(|s| !s.get_ref().is_v4()).map(Spanned::span);
    let Some(v6) = listen.or_else(source) else { return };
    let message = format!("`mtu` is below {LEAST_MTU_V6}, the least of IPv6");
    let diagnostic = Diagnostic::new(Code::MtuBelowIpv6, span, message).also(v6, "IPv6 is used here");
    out.push(diagnostic.help("give the TUN at least 1280, or use IPv4 alone"));
}

/// A flow with source-nat holds a source port; where all services have it, the ports are a limit below `max-flows`.
fn max_flows(max_flows: u32, places: &GatewayPlaces, services: &List<CheckedService>, out: &mut Vec<Diagnostic>) {
    let Some(span) = places.max_flows.clone() else { return };
    let known = |service: &CheckedService| service.has_source_nat() && service.listen.whole && service.backends.whole;
    if !services.whole || !places.source_addresses.whole || !services.items.iter().all(known) {
        return;
    }
    let flows = flows_by_ports(&services.items, &places.source_addresses.items);
    if flows == 0 || u64::from(max_flows) <= flows {
        return;
    }
    let message = format!("`max-flows` is more than the source ports allow: {}", grouped(flows));
    let diagnostic = Diagnostic::new(Code::MaxFlowsBeyondPorts, span, message);
    let all = places.source_addresses.span.clone();
    let diagnostic = match all {
        Some(sources) => {
            diagnostic.also(sources, format!("each lends {} ports to each backend", grouped(PORTS_PER_SOURCE)))
        }
        None => diagnostic,
    };
    out.push(diagnostic.help("add source addresses, or backends, or set `max-flows` to that number"));
}

/// A service cannot have more flows than the gateway.
fn max_flows_of_services(all: u32, places: &GatewayPlaces, services: &[CheckedService], out: &mut Vec<Diagnostic>) {
    for service in services.iter().filter(|service| service.limits.max_flows.is_some_and(|most| most > all)) {
        let span = service.max_flows.clone().expect("it has no default");
        let message = format!("`max-flows` of {} is more than the gateway's, and never reached", service.title());
        let diagnostic = Diagnostic::new(Code::IdleLimit, span, message);
        let diagnostic = match places.max_flows.clone() {
            Some(gateway) => diagnostic.also(gateway, "all services together"),
            None => diagnostic.label(format!("all services together have {} by default", grouped(all))),
        };
        out.push(diagnostic.help("lower it, or raise `max-flows` in `[gateway]`"));
    }
}

/// How many flows can have a source port at once.
fn flows_by_ports(services: &[CheckedService], sources: &[Spanned<Address>]) -> u64 {
    let mut endpoints: HashMap<(Address, Protocol), Vec<RangeInclusive<u16>>> = HashMap::new();
    for service in services {
        for backend in &service.backends.items {
            let v4 = backend.address.is_v4();
            let listens = service.listen.items.iter().map(Spanned::get_ref).filter(|l| l.address.is_v4() == v4);
            let ports = listens.map(|listen| backend.port.map_or(listen.ports.clone(), |port| port..=port));
            let Some(Carried::One(protocol)) = service.protocol else { continue };
            endpoints.entry((backend.address, protocol)).or_default().extend(ports);
        }
    }
    let sources_of = |v4: bool| sources.iter().filter(|source| source.get_ref().is_v4() == v4).count() as u64;
    let (v4, v6) = (sources_of(true), sources_of(false));
    let each = endpoints.into_iter().map(|((address, _), ports)| {
        let sources = if address.is_v4() { v4 } else { v6 };
        distinct(ports) * sources * PORTS_PER_SOURCE
    });
    each.sum()
}

/// How many ports lie in any of the ranges.
fn distinct(mut ranges: Vec<RangeInclusive<u16>>) -> u64 {
    ranges.sort_by_key(|range| *range.start());
    let mut next = 0_u32;
    let mut count = 0;
    for range in ranges {
        let first = u32::from(*range.start()).max(next);
        let end = u32::from(*range.end()) + 1;
        count += u64::from(end.saturating_sub(first));
        next = next.max(end);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn ports_in_several_ranges_count_once() {
        assert_eq!(distinct(vec![]), 0);
        assert_eq!(distinct(vec![5..=5, 1..=3, 2..=4, 1..=65_535]), 65_535);
        assert_eq!(distinct(vec![10..=19, 30..=39, 10..=11]), 20);
    }

    /// Whether `max-flows` is found to be more than the source ports allow.
    #[track_caller]
    fn assert_port_limit(flows: u64, services: &str) {
        for (max_flows, beyond) in [(flows, false), (flows + 1, true)] {
            let text = format!(
                "[gateway]\nsource-addresses = ['10.99.0.10', '10.99.0.11', 'fd00:99::1']\nmax-flows = {max_flows}\n{services}"
            );
            let snapshot = load(&text, "tungate.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
            let warned = snapshot.warnings.diagnostics().iter().any(|d| d.code == Code::MaxFlowsBeyondPorts);
            assert_eq!(warned, beyond, "{max_flows}");
        }
    }

    #[test]
    fn a_backend_shared_by_services_lends_its_ports_once() {
        let service = |name: &str, port: u16, backends: &str| {
            format!("[[service]]\nname = '{name}'\nlisten = '192.0.2.1:{port}'\nbackends = [{backends}]\n")
        };
        let both = service("a", 80, "{ address = '10.0.0.1:80' }") + &service("b", 81, "{ address = '10.0.0.1:80' }");
        assert_port_limit(2 * 64_512, &both);
        let keeps = service("a", 80, "{ address = '10.0.0.1:80' }") + &service("b", 81, "{ address = '10.0.0.1' }");
        assert_port_limit(4 * 64_512, &keeps);
    }

    #[test]
    fn each_family_has_the_ports_of_its_own_sources() {
        let service = "[[service]]\nname = 'a'\nlisten = ['192.0.2.1:80', '[2001:db8::1]:80']\n\
                       backends = [{ address = '10.0.0.1' }, { address = 'fd00::1' }]\n";
        assert_port_limit(3 * 64_512, service);
    }

    #[test]
    fn without_source_nat_ports_are_no_limit() {
        let text = "[gateway]\nmax-flows = 100_000_000\n[[service]]\nname = 'a'\nlisten = '192.0.2.1:80'\n\
                    source-nat = false\nbackends = [{ address = '10.0.0.1' }]\n";
        assert!(load(text, "tungate.toml", None, "gw").unwrap().warnings.is_empty());
    }
}
