//! Direct server return: how much fits its tunnels, and whether a backend is ready for them.

use super::checks::{bad, ok, sysctl};
use super::{Finding, Host, Level};
use crate::config::{Mode, Snapshot};
use crate::wire::Family;
use crate::wire::tunnel::LEAST_V6;

impl Host {
    /// The arithmetic for each service and family of its backends.
    pub(super) fn tunnels(snapshot: &Snapshot) -> Vec<Finding> {
        let mtu = snapshot.gateway.mtu;
        let mut findings = Vec::new();
        for service in &snapshot.services {
            let Mode::Dsr { encapsulation } = service.mode else { continue };
            for (family, v4, name) in [(Family::V4, true, "IPv4"), (Family::V6, false, "IPv6")] {
                if !snapshot.backends_of(service.id).any(|(_, backend)| backend.address.is_v4() == v4) {
                    continue;
                }
                let overhead = encapsulation.overhead(family);
                let room = mtu.saturating_sub(overhead);
                let sizes = format!("MSS {} for IPv4, {} for IPv6", room.saturating_sub(40), room.saturating_sub(60));
                let found = format!(
                    "{}: {} over {name} adds {overhead} to at most {room} bytes of {mtu}: {sizes}",
                    service.name,
                    encapsulation.name()
                );
                let carries_v6 = service.listen.iter().any(|listen| !listen.address.is_v4());
                findings.push(if carries_v6 && room < LEAST_V6 {
                    let found = format!("{found}; IPv6 packets of up to {LEAST_V6} bytes need outer fragments");
                    bad(
                        Level::Warn,
                        "tunnel",
                        found,
                        format!("mtu = {} in [gateway], if the network takes it", LEAST_V6 + overhead),
                    )
                } else {
                    ok("tunnel", found)
                });
            }
        }
        findings
    }

    /// Whether this machine is a backend of a service with tunnels.
    pub(super) fn is_backend(&self, snapshot: &Snapshot) -> bool {
        let tunnelled = snapshot.backends.iter().filter(|backend| snapshot.service(backend.service).is_tunnelled());
        tunnelled.into_iter().any(|backend| self.has_address(backend.address.ip()))
    }

    /// What a backend needs besides the tunnel's end: the VIPs, and nobody who hears of them or of clients too early.
    pub(super) fn as_backend(&self, snapshot: &Snapshot) -> Vec<Finding> {
        const SUBJECT: &str = "backend";
        const ARP: &str = "ipv4/conf/all/arp_ignore";
        let mut findings = Vec::new();
        let vips = snapshot.addresses().filter(|(_, purpose)| *purpose == "a VIP").map(|(prefix, _)| prefix);
        let lacking = vips.filter(|vip| !self.has_address(vip.address())).map(|vip| vip.to_string());
        let lacking: Vec<String> = lacking.collect();
        findings.push(if lacking.is_empty() {
            ok(SUBJECT, "the services' addresses are this machine's, too".to_owned())
        } else {
            let found = format!("{} not an address of this machine: what comes for it is dropped", lacking.join(", "));
            bad(Level::Fail, SUBJECT, found, "tungate decap -c FILE, or what its --print-kernel prints".to_owned())
        });
        if self.setting(ARP) == Some("0") {
            let found = "answers ARP for the services' addresses, if they lie in its network".to_owned();
            findings.push(bad(
                Level::Warn,
                SUBJECT,
                found,
                format!("{} net.ipv4.conf.all.arp_announce=2", sysctl(ARP, 1)),
            ));
        }
        if self.setting("ipv4/conf/all/rp_filter") == Some("1") {
            let found = "rp_filter is strict for all: drops what comes out of a tunnel".to_owned();
            findings.push(bad(Level::Fail, SUBJECT, found, sysctl("ipv4/conf/all/rp_filter", 0)));
        }
        findings
    }

    fn has_address(&self, address: std::net::IpAddr) -> bool {
        self.addresses.iter().any(|local| local.address == address)
    }
}
