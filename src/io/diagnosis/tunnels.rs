//! The ways to the backends, and how much fits the tunnels of direct server return.

use std::net::IpAddr;

use super::checks::{bad, ok};
use super::{Finding, Host, Level};
use crate::config::{Mode, Snapshot};
use crate::wire::Family;
use crate::wire::tunnel::LEAST_V6;

impl Host {
    /// The arithmetic for each service and family of its backends, by the narrowest way to one of them.
    pub(super) fn tunnels(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let mut findings = Vec::new();
        for service in &snapshot.services {
            let Mode::Dsr { encapsulation } = service.mode else { continue };
            for (family, v4, name) in [(Family::V4, true, "IPv4"), (Family::V6, false, "IPv6")] {
                let backends = snapshot.backends_of(service.id).filter(|(_, backend)| backend.address.is_v4() == v4);
                let Some(narrowest) = backends.map(|(_, backend)| self.room_to(backend.address.ip())).min() else {
                    continue;
                };
                let mtu = narrowest.min(snapshot.gateway.mtu);
                let overhead = encapsulation.overhead(family);
                let room = mtu.saturating_sub(overhead);
                let found = format!(
                    "{}: {} over {name} takes {overhead} of {mtu} bytes; packets up to {room} fit: advmss {} (IPv4), {} \
                     (IPv6) on the backends",
                    service.name,
                    encapsulation.name(),
                    room.saturating_sub(40),
                    room.saturating_sub(60),
                );
                let carries_v6 = service.listen.iter().any(|listen| !listen.address.is_v4());
                findings.push(if carries_v6 && room < LEAST_V6 {
                    let found = format!("{found}; IPv6 packets of up to {LEAST_V6} bytes need outer fragments");
                    let remedy =
                        format!("an MTU of {} on the way to the backends and in [gateway]", LEAST_V6 + overhead);
                    bad(Level::Warn, "tunnel", found, remedy)
                } else {
                    ok("tunnel", found)
                });
            }
        }
        findings
    }

    /// Backends that the kernel has no way to.
    pub(super) fn ways(&self, snapshot: &Snapshot) -> Vec<Finding> {
        const SUBJECT: &str = "routes";
        let mut findings = Vec::new();
        for service in &snapshot.services {
            for (_, backend) in snapshot.backends_of(service.id) {
                let address = backend.address.ip();
                let Some(way) = self.ways.get(&address) else { continue };
                let link = way.and_then(|way| self.links.iter().find(|link| Some(link.index) == way.interface));
                let trouble = match (way, link) {
                    (None, _) => "no route".to_owned(),
                    (Some(_), Some(link)) if link.carrier.is_none() => {
                        format!("its way is by {}, which is down", link.name)
                    }
                    _ => continue,
                };
                let found = format!("backend {}/{} ({address}): {trouble}", service.name, backend.name);
                findings.push(bad(Level::Fail, SUBJECT, found, format!("ip route get {address}")));
            }
        }
        if findings.is_empty() && !snapshot.services.is_empty() {
            findings.push(ok(SUBJECT, "to every backend".to_owned()));
        }
        findings
    }

    /// Bytes that the way to this address takes, as far as this machine knows.
    fn room_to(&self, address: IpAddr) -> u16 {
        let way = self.ways.get(&address).copied().flatten();
        let link = way.and_then(|way| self.links.iter().find(|link| Some(link.index) == way.interface));
        let narrowest = link.map(|link| link.mtu).into_iter().chain(way.and_then(|way| way.mtu)).min();
        narrowest.and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(u16::MAX)
    }
}
