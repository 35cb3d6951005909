//! The judges: each looks at one thing, with the command that mends it.

use super::{Finding, Host, Level, Running};
use crate::config::{Mode, Service, Snapshot};
use crate::io::addresses::Kept;
use crate::io::netlink::{Link, Prefix};
use crate::io::tun::TunError;
use crate::io::words::in_words;

impl Host {
    /// The interfaces by which packets come: those of `announce-on`, else all that are up.
    pub(super) fn doors(&self, snapshot: Option<&Snapshot>) -> Vec<&Link> {
        let named = snapshot.map(|snapshot| snapshot.gateway.announce_on.as_slice()).unwrap_or_default();
        if named.is_empty() {
            return self.links.iter().filter(|link| link.up && link.hardware_address.is_some()).collect();
        }
        named.iter().filter_map(|name| self.links.iter().find(|link| link.name == *name)).collect()
    }

    pub(super) fn setting(&self, path: &str) -> Option<&str> {
        self.settings.get(path).map(String::as_str)
    }

    pub(super) fn device(&self) -> Finding {
        match &self.tun_device {
            None => ok("TUN", "/dev/net/tun opens".to_owned()),
            Some(TunError::NoDevice) => {
                let remedy = "modprobe tun (a container: --device /dev/net/tun)".to_owned();
                bad(Level::Fail, "TUN", "there is no /dev/net/tun".to_owned(), remedy)
            }
            Some(error) => {
                bad(Level::Fail, "TUN", error.to_string(), "run as root, or: chmod 666 /dev/net/tun".to_owned())
            }
        }
    }

    /// CAP_NET_RAW is for announcing alone: without a configuration it is not known whether anybody wants that.
    pub(super) fn privileges(&self, snapshot: Option<&Snapshot>) -> Finding {
        const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];
        let Some(held) = self.capabilities else {
            return bad(Level::Warn, "privileges", "/proc does not tell".to_owned(), "mount /proc".to_owned());
        };
        let missing: Vec<_> = NEEDED.iter().filter(|(_, bit)| held >> bit & 1 == 0).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return ok("privileges", "CAP_NET_ADMIN, CAP_NET_RAW".to_owned());
        }
        let announces = snapshot.map(|snapshot| !snapshot.gateway.announce_on.is_empty());
        let level = match (missing.as_slice(), announces) {
            (["CAP_NET_RAW"], Some(false)) => {
                return ok("privileges", "CAP_NET_ADMIN; without announce-on no other is needed".to_owned());
            }
            (["CAP_NET_RAW"], None) => Level::Warn,
            _ => Level::Fail,
        };
        let why = if level == Level::Warn { ", needed with announce-on only" } else { "" };
        let found = format!("missing {}{why}", missing.join(", "));
        let remedy = "run as root, or `setcap cap_net_admin,cap_net_raw+ep` on the program".to_owned();
        bad(level, "privileges", found, remedy)
    }

    /// Without one, several workers hand packets to each other: slower, but right.
    pub(super) fn steering(&self) -> Finding {
        match &self.unsteered {
            None => ok("steering", "the kernel takes programs".to_owned()),
            Some(error) => {
                let found = format!("the kernel takes no program that finds a packet's worker: {}", in_words(error));
                bad(Level::Warn, "steering", found, "CAP_BPF besides, or workers = 1 in [gateway]".to_owned())
            }
        }
    }

    /// To remove the interface is only the remedy if no gateway serves on it.
    pub(super) fn interface(&self, name: &str, running: &Running) -> Finding {
        const SUBJECT: &str = "interface";
        let Some(link) = self.links.iter().find(|link| link.name == name) else {
            return ok(SUBJECT, format!("{name} is free"));
        };
        let taken = format!("{name} exists: `run` will refuse");
        match running {
            Running::On(served) if served == name && link.up => ok(SUBJECT, format!("a tungate serves on {name}")),
            Running::On(served) if served == name => {
                let found = format!("{name}, on which a tungate serves, is down: nothing comes in");
                bad(Level::Fail, SUBJECT, found, format!("ip link set {name} up"))
            }
            Running::On(served) => {
                let found = format!("{taken}, and the tungate that answers serves on {served}");
                bad(Level::Warn, SUBJECT, found, "another name in [gateway]".to_owned())
            }
            Running::Unknown(why) => {
                let found = format!("{taken}, unless a tungate serves on it; {why}");
                bad(Level::Warn, SUBJECT, found, "ask as root".to_owned())
            }
            Running::Nobody(socket) => {
                let found = format!("{taken}, and no tungate answers on {}", socket.display());
                let remedy = format!(
                    "name the socket with --socket if one runs; if nobody needs {name}: ip link del {name}, or another \
                     name in [gateway]"
                );
                bad(Level::Warn, SUBJECT, found, remedy)
            }
        }
    }

    pub(super) fn announcing(&self, name: &str) -> Finding {
        const SUBJECT: &str = "announce-on";
        let Some(link) = self.links.iter().find(|link| link.name == name) else {
            return bad(Level::Fail, SUBJECT, format!("{name} does not exist"), "ip link".to_owned());
        };
        if link.hardware_address.is_none() {
            let remedy = format!("take {name} out of announce-on");
            return bad(Level::Fail, SUBJECT, format!("{name} is no Ethernet"), remedy);
        }
        if !link.up {
            return bad(Level::Fail, SUBJECT, format!("{name} is down"), format!("ip link set {name} up"));
        }
        let proxy = format!("ipv4/conf/{name}/proxy_arp");
        if self.setting(&proxy) == Some("1") {
            let found = format!("{name}: the kernel answers ARP too, late, and still does when tungate is gone");
            return bad(Level::Warn, SUBJECT, found, sysctl(&proxy, 0));
        }
        ok(SUBJECT, format!("{name} is up"))
    }

    pub(super) fn forwarding_v4(&self, doors: &[&Link]) -> Finding {
        let closed = closed(doors, |name| self.setting(&format!("ipv4/conf/{name}/forwarding")) == Some("1"));
        if closed.is_empty() {
            return ok("IPv4 forwarding", "on".to_owned());
        }
        bad(Level::Fail, "IPv4 forwarding", format!("off on {}", closed.join(", ")), sysctl("ipv4/ip_forward", 1))
    }

    pub(super) fn forwarding_v6(&self, doors: &[&Link], snapshot: Option<&Snapshot>) -> Finding {
        const ALL: &str = "ipv6/conf/all/forwarding";
        if self.setting(ALL) == Some("1") {
            return ok("IPv6 forwarding", "on".to_owned());
        }
        if snapshot.is_some_and(|snapshot| snapshot.addresses().all(|(prefix, _)| prefix.address().is_ipv4())) {
            return ok("IPv6 forwarding", "off, and not needed".to_owned());
        }
        let closed = closed(doors, |name| self.setting(&format!("ipv6/conf/{name}/force_forwarding")) == Some("1"));
        if closed.is_empty() {
            return ok("IPv6 forwarding", "forced on".to_owned());
        }
        // Without a configuration it is not known whether anybody wants it.
        let level = if snapshot.is_some() { Level::Fail } else { Level::Warn };
        bad(level, "IPv6 forwarding", format!("off on {}", closed.join(", ")), sysctl(ALL, 1))
    }

    /// Found by experiment on Linux 6.18: what counts is the TUN's, the greater of its own and that for all, and what
    /// keeps its client's address. Loose is as strict as strict there, since a TUN has no address of its own. Both ask for
    /// the way back by the rules that the answer will meet, but for marks, which it does not have yet.
    pub(super) fn reverse_path_filter(&self, snapshot: Option<&Snapshot>) -> Finding {
        const SUBJECT: &str = "rp_filter";
        const ALL: &str = "ipv4/conf/all/rp_filter";
        let how = match self.setting(ALL) {
            Some("1") => "strict",
            Some("2") => "loose",
            Some(_) | None => return ok(SUBJECT, "off for all".to_owned()),
        };
        let keeps = |service: &Service| service.mode == Mode::Nat { source_nat: false };
        if snapshot.is_some_and(|snapshot| !snapshot.services.iter().any(keeps)) {
            return ok(SUBJECT, format!("{how} for all, which full NAT passes"));
        }
        if !self.rules.iter().any(|rule| rule.v4 && rule.by_mark) {
            return ok(SUBJECT, format!("{how} for all, and no routing rule goes by marks"));
        }
        let found =
            format!("{how} for all: where rules by mark bring answers back, drops what keeps its client's address");
        bad(Level::Warn, SUBJECT, found, sysctl(ALL, 0))
    }

    /// What keeps its client's address is answered to the client: without a rule that goes past the TUN.
    pub(super) fn ways_back(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (v4, command, family) in [(true, "ip", "IPv4"), (false, "ip -6", "IPv6")] {
            let keeps = |service: &&Service| {
                service.mode == Mode::Nat { source_nat: false }
                    && service.listen.iter().any(|listen| listen.address.is_v4() == v4)
            };
            let Some(service) = snapshot.services.iter().find(keeps) else { continue };
            if self.rules.iter().any(|rule| rule.v4 == v4) {
                continue;
            }
            let found = format!(
                "{}: no routing rule of {family} brings the backends' answers to the TUN, as source-nat = false needs",
                service.name
            );
            let remedy = format!(
                "{command} rule add iif INTERFACE-OF-THE-BACKENDS lookup 100; after each start {command} route add \
                 default dev {} table 100",
                snapshot.gateway.interface
            );
            findings.push(bad(Level::Warn, "way back", found, remedy));
        }
        findings
    }

    pub(super) fn connection_tracking(&self) -> Finding {
        match self.setting("netfilter/nf_conntrack_count") {
            None | Some("0") => ok("conntrack", "the kernel tracks no connections".to_owned()),
            Some(count) => bad(
                Level::Warn,
                "conntrack",
                format!("the kernel tracks {count} connections: what passes the gateway is tracked twice"),
                "exempt the gateway's traffic: `notrack` in an nftables chain of priority raw".to_owned(),
            ),
        }
    }

    pub(super) fn packet_size(&self, doors: &[&Link], mtu: u16) -> Finding {
        let narrow: Vec<_> = doors.iter().filter(|link| link.mtu < u32::from(mtu)).collect();
        let Some(least) = narrow.iter().map(|link| link.mtu).min() else { return ok("MTU", format!("{mtu}")) };
        let names: Vec<_> = narrow.iter().map(|link| format!("{} ({})", link.name, link.mtu)).collect();
        let found = format!("{mtu}, more than {}: larger packets depend on path MTU discovery", names.join(", "));
        bad(Level::Warn, "MTU", found, format!("mtu = {least} in [gateway]"))
    }

    /// VIPs that the hosts of an attached network look for by ARP or neighbour discovery, where nobody answers.
    pub(super) fn unannounced(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let mut findings = Vec::new();
        for local in &self.addresses {
            let Some(link) = self.links.iter().find(|link| link.index == local.interface) else { continue };
            if link.hardware_address.is_none() || snapshot.gateway.announce_on.contains(&link.name) {
                continue;
            }
            let network = Prefix::new(local.address, local.prefix_length);
            let vips = snapshot.addresses().filter(|(_, purpose)| *purpose == "a VIP").map(|(vip, _)| vip);
            for vip in vips.filter(|vip| network.contains(vip.address()) && vip.address() != local.address) {
                let found = format!("nobody answers for {vip} in the network of {}", link.name);
                let remedy = format!("announce-on = [\"{}\"] in [gateway], or routes on the hosts there", link.name);
                let finding = bad(Level::Warn, "announce-on", found, remedy);
                if !findings.contains(&finding) {
                    findings.push(finding); // a VIP of several services
                }
            }
        }
        findings
    }

    /// VIPs and source addresses that the kernel takes for its own.
    pub(super) fn own_addresses(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let kept = Kept::among(&self.addresses, &self.links, snapshot);
        if kept.is_empty() {
            return vec![ok("addresses", "no VIP and no source address is local".to_owned())];
        }
        let finding = |kept: Kept| {
            let level = if kept.is_alone() { Level::Fail } else { Level::Warn };
            bad(level, "addresses", format!("{kept}: the kernel keeps its packets"), kept.remedy())
        };
        kept.into_iter().map(finding).collect()
    }
}

pub(super) fn ok(subject: &str, found: String) -> Finding {
    Finding { level: Level::Ok, subject: subject.to_owned(), found, remedy: None }
}

pub(super) fn bad(level: Level, subject: &str, found: String, remedy: String) -> Finding {
    Finding { level, subject: subject.to_owned(), found, remedy: Some(remedy) }
}

fn closed<'a>(doors: &[&'a Link], open: impl Fn(&str) -> bool) -> Vec<&'a str> {
    doors.iter().map(|link| link.name.as_str()).filter(|name| !open(name)).collect()
}

/// The command that sets it. Slashes, which sysctl(8) takes as well as dots, where an interface's name has a dot.
pub(super) fn sysctl(path: &str, value: u8) -> String {
    let name = if path.contains('.') { format!("net/{path}") } else { format!("net.{}", path.replace('/', ".")) };
    format!("sysctl -w {name}={value}")
}
