//! Whether a backend of a service with tunnels is ready for them.

use std::net::IpAddr;

use super::checks::{bad, ok, sysctl};
use super::{Finding, Host, Level};
use crate::config::{Backend, Carried, Mode, Service, Snapshot};
use crate::io::netlink::Prefix;
use crate::wire::Protocol;
use crate::wire::tunnel::{Encapsulation, GUE_PORT};

const SUBJECT: &str = "backend";
/// Ports of a range that are looked at: a service on thousands of ports does not have a program on each.
const PORTS: usize = 16;

/// What this machine is a backend of.
pub(super) struct Role<'s> {
    services: Vec<(&'s Service, &'s Backend, Encapsulation)>,
    sources: Vec<IpAddr>,
}

impl<'s> Role<'s> {
    /// `None` if it is the backend of no service with tunnels.
    pub(super) fn of(host: &Host, snapshot: &'s Snapshot) -> Option<Self> {
        let mut services = Vec::new();
        for service in &snapshot.services {
            let Mode::Dsr { encapsulation } = service.mode else { continue };
            let own = snapshot.backends_of(service.id).filter(|(_, backend)| host.has_address(backend.address.ip()));
            services.extend(own.map(|(_, backend)| (service, backend, encapsulation)));
        }
        let sources = [true, false].into_iter().filter_map(|v4| snapshot.sources(v4).first());
        (!services.is_empty()).then(|| Self { services, sources: sources.map(|address| address.ip()).collect() })
    }

    fn vips(&self) -> Vec<Prefix> {
        let listens = self.services.iter().flat_map(|(service, ..)| &service.listen);
        let mut vips: Vec<_> = listens.map(|listen| Prefix::new(listen.address.ip(), listen.prefix)).collect();
        vips.sort_unstable_by_key(|vip| (vip.address(), vip.length()));
        vips.dedup();
        vips
    }
}

impl Host {
    /// What a backend needs: the tunnel's end, the VIPs, a program that serves them, and nobody who hears of the VIPs or of
    /// clients too early.
    pub(super) fn as_backend(&self, role: &Role<'_>) -> Vec<Finding> {
        let named = |(service, backend, _): &(&Service, &Backend, Encapsulation)| {
            format!("{}/{} ({})", service.name, backend.name, backend.address)
        };
        let names: Vec<_> = role.services.iter().map(named).collect();
        let mut findings = vec![ok("role", format!("backend {}", names.join(", ")))];
        findings.extend(self.tunnel_ends(role));
        findings.push(self.services_addresses(role));
        findings.extend(self.listeners(role));
        findings.extend(self.heard_by_arp(role));
        if self.setting("ipv4/conf/all/rp_filter") == Some("1") {
            let found = "rp_filter is strict for all: drops what comes out of a tunnel".to_owned();
            let remedy = format!("{} (0 with the devices of --print-kernel)", sysctl("ipv4/conf/all/rp_filter", 2));
            findings.push(bad(Level::Fail, SUBJECT, found, remedy));
        }
        findings
    }

    /// Who takes the tunnels apart.
    fn tunnel_ends(&self, role: &Role<'_>) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        for (_, backend, encapsulation) in &role.services {
            let (v4, name) = (backend.address.is_v4(), encapsulation.name());
            let Some(source) = role.sources.iter().find(|source| source.is_ipv4() == v4) else { continue };
            let finding = match self.tunnel_end(*encapsulation, v4, backend.address.ip()) {
                Some(who) => ok(SUBJECT, format!("{who} takes {name} from {source} apart")),
                None => {
                    let found = format!(
                        "nothing takes {name} from {source} apart: no tungate decap runs, and no device of the kernel's does"
                    );
                    bad(
                        Level::Fail,
                        SUBJECT,
                        found,
                        "tungate decap -c FILE, or what its --print-kernel prints".to_owned(),
                    )
                }
            };
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        findings
    }

    fn tunnel_end(&self, encapsulation: Encapsulation, v4: bool, own: IpAddr) -> Option<String> {
        let (kinds, program) = match encapsulation {
            Encapsulation::Gre | Encapsulation::KeyedGre(_) => {
                (if v4 { &["gre"][..] } else { &["ip6gre"] }, self.sockets.takes(Protocol::GRE, v4))
            }
            Encapsulation::Ipip => {
                (if v4 { &["ipip", "sit"][..] } else { &["ip6tnl"] }, self.sockets.takes(Protocol::IPV4, v4))
            }
            // The kernel's end of GUE has a UDP socket, too.
            Encapsulation::Gue => (&[][..], self.sockets.listens(Protocol::UDP, own, GUE_PORT)),
        };
        let device = self.links.iter().find(|link| link.up && kinds.contains(&link.kind.as_str()));
        device.map(|link| format!("the kernel's {}", link.name)).or(program.then(|| "a program".to_owned()))
    }

    fn services_addresses(&self, role: &Role<'_>) -> Finding {
        let lacking = role.vips().into_iter().filter(|vip| !self.has_address(vip.address()));
        let lacking: Vec<_> = lacking.map(told).collect();
        if lacking.is_empty() {
            return ok(SUBJECT, "the services' addresses are this machine's, too".to_owned());
        }
        let found = format!("{} not an address of this machine: what comes for it is dropped", lacking.join(", "));
        bad(Level::Fail, SUBJECT, found, "tungate decap -c FILE, or what its --print-kernel prints".to_owned())
    }

    /// Ports of the services on which no program listens.
    fn listeners(&self, role: &Role<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (service, ..) in &role.services {
            let Carried::One(protocol) = service.protocol else { continue };
            let name = if protocol == Protocol::TCP { "TCP" } else { "UDP" };
            for listen in service.listen.iter().filter(|listen| listen.is_single() && listen.ports.len() <= PORTS) {
                let address = listen.address.ip();
                for port in listen.ports.clone().filter(|port| !self.sockets.listens(protocol, address, *port)) {
                    let at = std::net::SocketAddr::new(address, port);
                    let found = format!("nothing listens on {name} {at} ({})", service.name);
                    let remedy = format!("a server on port {port}, of {address} or of all addresses");
                    findings.push(bad(Level::Warn, SUBJECT, found, remedy));
                }
            }
        }
        findings
    }

    /// Whoever looks for a VIP by ARP in a network of this machine's would find it.
    fn heard_by_arp(&self, role: &Role<'_>) -> Option<Finding> {
        const ARP: &str = "ipv4/conf/all/arp_ignore";
        if self.setting(ARP) != Some("0") {
            return None;
        }
        let in_network = |vip: &Prefix| {
            let networks = self.addresses.iter().filter(|local| local.address.is_ipv4() && local.prefix_length < 32);
            networks.into_iter().any(|local| Prefix::new(local.address, local.prefix_length).contains(vip.address()))
        };
        let vip = role.vips().into_iter().find(in_network)?;
        let found =
            format!("answers ARP for {}, which lies in its network: clients would pass the gateway by", told(vip));
        Some(bad(Level::Warn, SUBJECT, found, format!("{} net.ipv4.conf.all.arp_announce=2", sysctl(ARP, 1))))
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|local| local.address == address)
    }
}

/// An address without its length, or a prefix.
fn told(vip: Prefix) -> String {
    if vip == Prefix::host(vip.address()) { vip.address().to_string() } else { vip.to_string() }
}
