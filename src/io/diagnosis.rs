//! What of this machine keeps a gateway from working, or from working well: the facts for `doctor`.
//!
//! Reading and judging are apart: [`Host::read`] looks, [`Host::diagnose`] is a pure function of what was seen. Nothing
//! is changed; each finding comes with the command that mends it. Why each setting matters stands in [`super::tun`].
//!
//! `send_redirects` is not looked at: what we send comes in by the TUN and leaves by another interface, and the kernel
//! only tells of shorter ways where the two are the same.

use std::collections::BTreeMap;
use std::fs;

use super::netlink::{Link, LocalAddress, Netlink, NetlinkError, Prefix};
use super::tun::{self, TunError};
use crate::config::{Mode, Snapshot};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but less well, or not for everything.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at, in a word or two.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do, a command if possible; `None` if all is well.
    pub remedy: Option<String>,
}

/// What was seen of a machine, or rather of the network namespace of the thread that looked.
#[derive(Debug)]
pub struct Host {
    /// Why `/dev/net/tun` cannot be opened.
    tun_device: Option<TunError>,
    /// Effective capabilities, as a bit set; `None` if `/proc` does not tell.
    capabilities: Option<u64>,
    links: Vec<Link>,
    addresses: Vec<LocalAddress>,
    /// Settings that exist here, by their path below `/proc/sys/net`.
    settings: BTreeMap<String, String>,
}

impl Host {
    /// Looks at the machine.
    ///
    /// # Errors
    /// The kernel cannot be asked for its links and addresses.
    pub fn read() -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        let (links, addresses) = (netlink.links()?, netlink.addresses()?);
        let of_all = ["ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter", "netfilter/nf_conntrack_count"];
        let of_each = ["ipv4/conf/*/forwarding", "ipv4/conf/*/proxy_arp", "ipv6/conf/*/force_forwarding"];
        let each = links.iter().flat_map(|link| of_each.map(|path| path.replace('*', &link.name)));
        let paths = of_all.map(str::to_owned).into_iter().chain(each);
        let value = |path: String| Some((path.clone(), fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?));
        let settings = paths.filter_map(value).map(|(path, text)| (path, text.trim().to_owned())).collect();
        let tun_device = tun::open_device().err();
        Ok(Self { tun_device, capabilities: effective_capabilities(), links, addresses, settings })
    }

    /// Judges what was seen; with a configuration, in the light of what that wants.
    pub fn diagnose(&self, snapshot: Option<&Snapshot>) -> Vec<Finding> {
        let mut findings = vec![self.device(), self.privileges()];
        findings.extend(snapshot.map(|snapshot| self.name(&snapshot.gateway.interface)));
        let doors = self.doors(snapshot);
        findings.extend(snapshot.into_iter().flat_map(|s| &s.gateway.announce_on).map(|name| self.announcing(name)));
        findings.push(self.forwarding_v4(&doors));
        findings.push(self.forwarding_v6(&doors, snapshot));
        findings.push(self.reverse_path_filter(snapshot));
        findings.push(self.connection_tracking());
        if let Some(snapshot) = snapshot {
            findings.push(self.packet_size(&doors, snapshot.gateway.mtu));
            findings.push(self.own_addresses(snapshot));
        }
        findings
    }

    /// The interfaces by which packets come: those of `announce-on`, else all that are up.
    fn doors(&self, snapshot: Option<&Snapshot>) -> Vec<&Link> {
        let named = snapshot.map(|snapshot| snapshot.gateway.announce_on.as_slice()).unwrap_or_default();
        if named.is_empty() {
            return self.links.iter().filter(|link| link.up && link.hardware_address.is_some()).collect();
        }
        named.iter().filter_map(|name| self.links.iter().find(|link| link.name == *name)).collect()
    }

    fn setting(&self, path: &str) -> Option<&str> {
        self.settings.get(path).map(String::as_str)
    }

    fn device(&self) -> Finding {
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

    fn privileges(&self) -> Finding {
        const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];
        let Some(held) = self.capabilities else {
            return bad(Level::Warn, "privileges", "/proc does not tell".to_owned(), "mount /proc".to_owned());
        };
        let missing: Vec<_> = NEEDED.iter().filter(|(_, bit)| held >> bit & 1 == 0).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return ok("privileges", "CAP_NET_ADMIN, CAP_NET_RAW".to_owned());
        }
        let found = format!("missing {}", missing.join(", "));
        let remedy = "run as root, or `setcap cap_net_admin,cap_net_raw+ep` on the program".to_owned();
        bad(Level::Fail, "privileges", found, remedy)
    }

    fn name(&self, interface: &str) -> Finding {
        if !self.links.iter().any(|link| link.name == interface) {
            return ok("interface", format!("{interface} is free"));
        }
        let remedy = format!("if no tungate runs here: ip link del {interface}, or another name in [gateway]");
        bad(Level::Warn, "interface", format!("{interface} exists: `run` will refuse"), remedy)
    }

    fn announcing(&self, name: &str) -> Finding {
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

    fn forwarding_v4(&self, doors: &[&Link]) -> Finding {
        let closed = closed(doors, |name| self.setting(&format!("ipv4/conf/{name}/forwarding")) == Some("1"));
        if closed.is_empty() {
            return ok("IPv4 forwarding", "on".to_owned());
        }
        bad(Level::Fail, "IPv4 forwarding", format!("off on {}", closed.join(", ")), sysctl("ipv4/ip_forward", 1))
    }

    fn forwarding_v6(&self, doors: &[&Link], snapshot: Option<&Snapshot>) -> Finding {
        const ALL: &str = "ipv6/conf/all/forwarding";
        if self.setting(ALL) == Some("1") {
            return ok("IPv6 forwarding", "on".to_owned());
        }
        if snapshot.is_some_and(|snapshot| prefixes(snapshot).all(|(prefix, _)| prefix.address().is_ipv4())) {
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

    fn reverse_path_filter(&self, snapshot: Option<&Snapshot>) -> Finding {
        const ALL: &str = "ipv4/conf/all/rp_filter";
        if self.setting(ALL) != Some("1") {
            return ok("rp_filter", "not strict for all".to_owned());
        }
        let keeps = |service: &crate::config::Service| service.mode == Mode::Nat { source_nat: false };
        let level = match snapshot {
            Some(snapshot) if snapshot.services.iter().any(keeps) => Level::Fail,
            Some(_) => return ok("rp_filter", "strict, which full NAT passes".to_owned()),
            None => Level::Warn,
        };
        let found = "strict for all: drops packets that keep their client's address (source-nat = false)".to_owned();
        bad(level, "rp_filter", found, sysctl(ALL, 2))
    }

    fn connection_tracking(&self) -> Finding {
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

    fn packet_size(&self, doors: &[&Link], mtu: u16) -> Finding {
        let narrow: Vec<_> = doors
            .iter()
            .filter(|link| link.mtu < u32::from(mtu))
            .map(|link| format!("{} ({})", link.name, link.mtu))
            .collect();
        if narrow.is_empty() {
            return ok("MTU", format!("{mtu}"));
        }
        let found = format!("{mtu}, more than {}: larger packets depend on path MTU discovery", narrow.join(", "));
        bad(Level::Warn, "MTU", found, "lower `mtu` in [gateway]".to_owned())
    }

    /// VIPs and source addresses that the kernel takes for its own.
    fn own_addresses(&self, snapshot: &Snapshot) -> Finding {
        for (prefix, what) in prefixes(snapshot) {
            let Some(local) = self.addresses.iter().find(|local| prefix.contains(local.address)) else { continue };
            let link = self.links.iter().find(|link| link.index == local.interface);
            let name = link.map_or("?", |link| link.name.as_str());
            let found = format!("{} ({what}) is an address of {name}: the kernel keeps its packets", local.address);
            let remedy = format!("ip address del {}/{} dev {name}", local.address, local.prefix_length);
            return bad(Level::Fail, "addresses", found, remedy);
        }
        ok("addresses", "no VIP and no source address is local".to_owned())
    }
}

fn ok(subject: &str, found: String) -> Finding {
    Finding { level: Level::Ok, subject: subject.to_owned(), found, remedy: None }
}

fn bad(level: Level, subject: &str, found: String, remedy: String) -> Finding {
    Finding { level, subject: subject.to_owned(), found, remedy: Some(remedy) }
}

fn closed<'a>(doors: &[&'a Link], open: impl Fn(&str) -> bool) -> Vec<&'a str> {
    doors.iter().map(|link| link.name.as_str()).filter(|name| !open(name)).collect()
}

/// All addresses that are ours to receive for, and what they are.
fn prefixes(snapshot: &Snapshot) -> impl Iterator<Item = (Prefix, &'static str)> {
    let listens = snapshot.services.iter().flat_map(|service| &service.listen);
    let vips = listens.map(|listen| (Prefix::new(listen.address.ip(), listen.prefix), "a VIP"));
    let sources = snapshot.gateway.source_addresses.iter();
    vips.chain(sources.map(|address| (Prefix::host(address.ip()), "a source address")))
}

/// The command that sets it. Slashes, which sysctl(8) takes as well as dots, where an interface's name has a dot.
fn sysctl(path: &str, value: u8) -> String {
    let name = if path.contains('.') { format!("net/{path}") } else { format!("net.{}", path.replace('/', ".")) };
    format!("sysctl -w {name}={value}")
}

fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const FULL_NAT: &str = r#"
[gateway]
interface = "gate"
source-addresses = ["10.99.0.10", "fd00:99::10"]
announce-on = ["eth0", "vlan.5"]
[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.1" }, { address = "fd00::1" }]
"#;

    fn snapshot(text: &str) -> Snapshot {
        config::load(text, "tungate.toml", 0, "host").unwrap_or_else(|report| panic!("{report:?}"))
    }

    fn link(index: u32, name: &str) -> Link {
        let (mtu, up, hardware_address) = (1500, true, Some([2, 0, 0, 0, 0, 1]));
        let (queue_length, queue_discipline) = (1000, "noqueue".to_owned());
        Link { index, name: name.to_owned(), mtu, up, hardware_address, queue_length, queue_discipline }
    }

    fn healthy() -> Host {
        let mut host = Host {
            tun_device: None,
            capabilities: Some(0b11 << 12),
            links: vec![link(2, "eth0"), link(3, "vlan.5")],
            addresses: vec![LocalAddress { interface: 2, address: [10, 0, 0, 254].into(), prefix_length: 24 }],
            settings: BTreeMap::new(),
        };
        host.set("ipv6/conf/all/forwarding", "1");
        host.set("ipv4/conf/eth0/forwarding", "1");
        host.set("ipv4/conf/vlan.5/forwarding", "1");
        host
    }

    impl Host {
        fn set(&mut self, path: &str, value: &str) {
            self.settings.insert(path.to_owned(), value.to_owned());
        }

        /// The only thing that is not well.
        fn complaint(&self, text: &str) -> (Level, String) {
            let findings = self.diagnose(Some(&snapshot(text)));
            let complaints: Vec<_> = findings.into_iter().filter(|finding| finding.level != Level::Ok).collect();
            let [complaint] = complaints.as_slice() else { panic!("{complaints:#?}") };
            let remedy = complaint.remedy.as_deref().unwrap();
            (complaint.level, format!("{}: {}; {remedy}", complaint.subject, complaint.found))
        }
    }

    #[test]
    fn a_healthy_machine_gives_no_cause_for_complaint() {
        for snapshot in [None, Some(&snapshot(FULL_NAT))] {
            let findings = healthy().diagnose(snapshot);
            assert!(findings.iter().all(|f| f.level == Level::Ok && f.remedy.is_none()), "{findings:#?}");
        }
    }

    #[test]
    fn each_obstacle_is_named_with_its_remedy() {
        type Harm = fn(&mut Host);
        let cases: [(Harm, Level, &str); 11] = [
            (|h| h.tun_device = Some(TunError::NoDevice), Level::Fail, "TUN: there is no /dev/net/tun; modprobe tun"),
            (|h| h.capabilities = Some(1 << 12), Level::Fail, "privileges: missing CAP_NET_RAW; run as root"),
            (|h| h.links.push(link(9, "gate")), Level::Warn, "interface: gate exists"),
            (|h| h.links[0].up = false, Level::Fail, "announce-on: eth0 is down; ip link set eth0 up"),
            (|h| h.links[0].hardware_address = None, Level::Fail, "announce-on: eth0 is no Ethernet"),
            (|h| h.set("ipv4/conf/eth0/proxy_arp", "1"), Level::Warn, "announce-on: eth0: the kernel answers ARP too"),
            (
                |h| h.set("ipv4/conf/eth0/forwarding", "0"),
                Level::Fail,
                "IPv4 forwarding: off on eth0; sysctl -w net.ipv4.ip_forward=1",
            ),
            (
                |h| h.set("ipv6/conf/all/forwarding", "0"),
                Level::Fail,
                "IPv6 forwarding: off on eth0, vlan.5; sysctl -w net.ipv6.conf.all.forwarding=1",
            ),
            (|h| h.set("netfilter/nf_conntrack_count", "7"), Level::Warn, "conntrack: the kernel tracks 7"),
            (|h| h.links[1].mtu = 1400, Level::Warn, "MTU: 1500, more than vlan.5 (1400)"),
            (
                |h| h.addresses[0].address = [10, 99, 0, 10].into(),
                Level::Fail,
                "addresses: 10.99.0.10 (a source address) is an address of eth0: the kernel keeps its packets; \
                 ip address del 10.99.0.10/24 dev eth0",
            ),
        ];
        for (harm, level, expected) in cases {
            let mut host = healthy();
            harm(&mut host);
            let (found_level, found) = host.complaint(FULL_NAT);
            assert!(found.starts_with(expected) && found_level == level, "{found_level:?} {found}\nnot {expected}");
        }
    }

    #[test]
    fn a_strict_reverse_path_filter_only_harms_who_keeps_the_clients_address() {
        let mut host = healthy();
        host.set("ipv4/conf/all/rp_filter", "1");
        let findings = host.diagnose(Some(&snapshot(FULL_NAT)));
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");

        let keeps = FULL_NAT.replace("name = \"web\"", "name = \"web\"\nsource-nat = false");
        let (level, found) = host.complaint(&keeps);
        assert_eq!(level, Level::Fail);
        assert!(found.ends_with("sysctl -w net.ipv4.conf.all.rp_filter=2"), "{found}");
    }

    #[test]
    fn ipv6_may_be_forced_on_or_not_be_wanted() {
        let mut host = healthy();
        host.set("ipv6/conf/all/forwarding", "0");
        let v4_only = FULL_NAT
            .replace(", \"fd00:99::10\"", "")
            .replace(", \"[2001:db8::10]:80\"", "")
            .replace(", { address = \"fd00::1\" }", "");
        assert!(host.diagnose(Some(&snapshot(&v4_only))).iter().all(|finding| finding.level == Level::Ok));

        host.set("ipv6/conf/eth0/force_forwarding", "1");
        host.set("ipv6/conf/vlan.5/force_forwarding", "1");
        assert!(host.diagnose(Some(&snapshot(FULL_NAT))).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn a_dot_in_an_interfaces_name_is_not_one_of_the_settings() {
        assert_eq!(sysctl("ipv4/conf/eth0/proxy_arp", 0), "sysctl -w net.ipv4.conf.eth0.proxy_arp=0");
        assert_eq!(sysctl("ipv4/conf/vlan.5/proxy_arp", 0), "sysctl -w net/ipv4/conf/vlan.5/proxy_arp=0");
    }
}
