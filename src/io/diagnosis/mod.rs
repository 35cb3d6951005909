//! What of this machine keeps a gateway from working, or from working well: the facts for `doctor`.
//!
//! Reading and judging are apart: [`Host::read`] looks, [`Host::diagnose`] is a pure function of what was seen. Nothing
//! is changed; each finding comes with the command that mends it. Why each setting matters stands in [`super::tun`].
//!
//! `send_redirects` is not looked at: what we send comes in by the TUN and leaves by another interface, and the kernel
//! only tells of shorter ways where the two are the same.

mod backend;
mod checks;
mod firewall;
mod sockets;
mod tunnels;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use backend::Role;
use firewall::Forwarding;
use sockets::Sockets;

use super::netlink::{AddedRule, Link, LocalAddress, Netlink, NetlinkError, Way};
use super::steering;
use super::tun::{self, TunError};
use crate::config::Snapshot;

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

/// Who answered on the admin socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Running {
    /// A gateway with this interface.
    On(String),
    /// Nobody, on this socket.
    Nobody(PathBuf),
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// What was seen of a machine, or rather of the network namespace of the thread that looked.
#[derive(Debug)]
pub struct Host {
    /// Why `/dev/net/tun` cannot be opened.
    tun_device: Option<TunError>,
    /// Effective capabilities, as a bit set; `None` if `/proc` does not tell.
    capabilities: Option<u64>,
    /// Why the kernel takes no steering program.
    unsteered: Option<io::Error>,
    links: Vec<Link>,
    addresses: Vec<LocalAddress>,
    rules: Vec<AddedRule>,
    firewall: Forwarding,
    sockets: Sockets,
    /// How backends are reached; `None` if not at all.
    ways: BTreeMap<IpAddr, Option<Way>>,
    /// Settings that exist here, by their path below `/proc/sys/net`.
    settings: BTreeMap<String, String>,
}

impl Host {
    /// Looks at the machine, and at the ways from here to a configuration's backends.
    ///
    /// # Errors
    /// The kernel cannot be asked for its links and addresses.
    pub fn read(snapshot: Option<&Snapshot>) -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        let (links, addresses) = (netlink.links()?, netlink.addresses()?);
        let mut rules = netlink.added_rules(true)?;
        // A kernel without IPv6 has none.
        rules.extend(netlink.added_rules(false).unwrap_or_default());
        let mut ways = BTreeMap::new();
        for backend in snapshot.into_iter().flat_map(|snapshot| &snapshot.backends) {
            ways.insert(backend.address.ip(), netlink.way_to(backend.address.ip()).ok());
        }
        let of_all = [
            "ipv6/conf/all/forwarding",
            "ipv4/conf/all/rp_filter",
            "netfilter/nf_conntrack_count",
            "ipv4/conf/all/arp_ignore",
        ];
        let of_each = ["ipv4/conf/*/forwarding", "ipv4/conf/*/proxy_arp", "ipv6/conf/*/force_forwarding"];
        let each = links.iter().flat_map(|link| of_each.map(|path| path.replace('*', &link.name)));
        let paths = of_all.map(str::to_owned).into_iter().chain(each);
        let value = |path: String| Some((path.clone(), fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?));
        let settings = paths.filter_map(value).map(|(path, text)| (path, text.trim().to_owned())).collect();
        let (tun_device, unsteered) = (tun::open_device().err(), steering::is_possible().err());
        let (capabilities, firewall, sockets) = (effective_capabilities(), Forwarding::read(), Sockets::read());
        Ok(Self { tun_device, capabilities, unsteered, links, addresses, rules, firewall, sockets, ways, settings })
    }

    /// Judges what was seen; with a configuration, in the light of what that wants and of who answers on its socket. A
    /// machine that has the address of a backend with tunnels is judged as that.
    pub fn diagnose(&self, configured: Option<(&Snapshot, &Running)>) -> Vec<Finding> {
        let snapshot = configured.map(|(snapshot, _)| snapshot);
        // What a gateway needs does not concern a machine that is a backend, unless it is both. The one that answers on the
        // socket may be in another namespace.
        let here = |running: &Running| matches!(running, Running::On(name) if self.links.iter().any(|link| link.name == *name));
        let serves = configured.is_some_and(|(_, running)| here(running));
        if let Some(role) = snapshot.filter(|_| !serves).and_then(|snapshot| Role::of(self, snapshot)) {
            return self.as_backend(&role);
        }
        let mut findings = vec![self.device(), self.privileges(snapshot), self.steering()];
        findings.extend(configured.map(|(snapshot, running)| self.interface(&snapshot.gateway.interface, running)));
        let doors = self.doors(snapshot);
        findings.extend(snapshot.into_iter().flat_map(|s| &s.gateway.announce_on).map(|name| self.announcing(name)));
        findings.push(self.forwarding_v4(&doors));
        findings.push(self.forwarding_v6(&doors, snapshot));
        findings.push(self.reverse_path_filter(snapshot));
        findings.push(self.firewall.judge(snapshot.map_or("tungate0", |snapshot| &snapshot.gateway.interface)));
        findings.push(self.connection_tracking());
        if let Some(snapshot) = snapshot {
            findings.push(self.packet_size(&doors, snapshot.gateway.mtu));
            findings.extend(self.ways_back(snapshot));
            findings.extend(self.ways(snapshot));
            findings.extend(self.tunnels(snapshot));
            findings.extend([self.own_addresses(snapshot), self.unannounced(snapshot)].concat());
        }
        findings
    }
}

fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests;
