//! The VIPs on the loopback.

use std::fs;
use std::net::IpAddr;

use super::DecapConfig;
use crate::io::netlink::{LocalAddress, Netlink, NetlinkError, Prefix, Route, Target};

/// A VIP that a gateway serves on this very machine, and its TUN: to make the VIP local would take its packets away from
/// it. It is a gateway if the way to the VIP, and that to one of the tunnels' sources alone, lead into a program's TUN.
pub(super) fn gateway_here(config: &DecapConfig) -> Result<Option<(Prefix, String)>, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let served = links.into_iter().filter(|link| link.tun && link.carrier.is_some());
    for tun in served {
        let own = |address: &IpAddr| {
            let way = netlink.way_to(*address).ok().filter(|way| way.interface == Some(tun.index));
            way.is_some_and(|way| way.prefix_length == Prefix::host(*address).length())
        };
        if !config.from.iter().any(own) {
            continue;
        }
        let leads_there =
            |vip: &&Prefix| netlink.way_to(vip.address()).is_ok_and(|way| way.interface == Some(tun.index));
        if let Some(vip) = config.vips.iter().find(leads_there) {
            return Ok(Some((*vip, tun.name)));
        }
    }
    Ok(None)
}

/// A VIP that is an address of an interface of this machine's, and that interface. The loopback is where VIPs belong, and
/// the TUN of another decap may have one, too.
pub(super) fn own_address(config: &DecapConfig) -> Result<Option<(Prefix, String)>, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let (addresses, links) = (netlink.addresses()?, netlink.links()?);
    let found = config.vips.iter().filter(|vip| **vip == Prefix::host(vip.address())).find_map(|vip| {
        let local = addresses.iter().filter(|local| local.address == vip.address());
        let on = |local: &LocalAddress| links.iter().find(|link| link.index == local.interface);
        let link = local.into_iter().filter_map(on).find(|link| link.name != "lo" && !link.tun)?;
        Some((*vip, link.name.clone()))
    });
    Ok(found)
}

/// The VIPs that we have added. Those that were there stay there.
#[derive(Debug)]
pub(super) struct Vips {
    netlink: Netlink,
    loopback: u32,
    added: Vec<Prefix>,
}

impl Vips {
    /// Makes all VIPs local to this machine, those that are not so yet, and takes over what a decap that was killed has left
    /// there: it is marked. And makes one an address of the TUN as well: to a loose
    /// reverse-path filter, which is the default of some distributions, a device without IPv4 address is as good as none.
    pub(super) fn add(vips: &[Prefix], tun: u32) -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        let loopback = netlink.link("lo")?.index;
        let mut this = Self { netlink, loopback, added: Vec::new() };
        for vip in vips {
            match this.add_one(*vip) {
                Ok(()) => this.added.push(*vip),
                Err(error) if error.errno() == Some(libc::EEXIST) && this.is_orphan(*vip)? => {
                    log::info!("{vip} is on the loopback already, left by a decap that was killed: it goes at the end");
                    this.added.push(*vip);
                }
                Err(error) if error.errno() == Some(libc::EEXIST) => {
                    log::info!("{vip} is on the loopback already, and stays there at the end");
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(vip) = vips.iter().find(|vip| vip.address().is_ipv4()) {
            let address = LocalAddress { interface: tun, address: vip.address(), prefix_length: 32 };
            this.netlink.add_own_address(&address)?; // it ends with the TUN
        }
        Ok(this)
    }

    /// VIPs that lie in a network of this machine's, and the interface on which the kernel answers ARP for them, as it does
    /// for every address of the loopback unless it is told not to: clients' packets would come here past the gateway.
    pub(super) fn told_by_arp(&mut self, vips: &[Prefix]) -> Result<Vec<(Prefix, String)>, NetlinkError> {
        let links = self.netlink.links()?;
        let mut told = Vec::new();
        for local in
            self.netlink.addresses()?.iter().filter(|local| local.address.is_ipv4() && local.prefix_length < 32)
        {
            let network = Prefix::new(local.address, local.prefix_length);
            let link = links.iter().find(|link| link.index == local.interface && link.index != self.loopback);
            let Some(link) = link.filter(|link| answers_arp(&link.name)) else { continue };
            let inside = vips.iter().filter(|vip| network.contains(vip.address()) || vip.contains(local.address));
            told.extend(inside.map(|vip| (*vip, link.name.clone())));
        }
        Ok(told)
    }

    /// An address, or a route that makes all of a prefix addresses.
    fn add_one(&mut self, vip: Prefix) -> Result<(), NetlinkError> {
        match self.address(vip) {
            Some(address) => self.netlink.add_own_address(&address),
            None => self.netlink.add_route(&self.route(vip)),
        }
    }

    /// Whether a decap has added it that is no more: one that lives has given its TUN an address, too.
    fn is_orphan(&mut self, vip: Prefix) -> Result<bool, NetlinkError> {
        let Some(address) = self.address(vip) else { return Ok(false) };
        let ours = self.netlink.own_addresses()?;
        let lives = ours.iter().any(|own| own.interface != self.loopback);
        Ok(!lives && ours.iter().any(|own| (own.interface, own.address) == (self.loopback, address.address)))
    }

    fn address(&self, vip: Prefix) -> Option<LocalAddress> {
        let whole = if vip.address().is_ipv4() { 32 } else { 128 };
        let address = LocalAddress { interface: self.loopback, address: vip.address(), prefix_length: vip.length() };
        (vip.length() == whole).then_some(address)
    }

    fn route(&self, vip: Prefix) -> Route {
        Route { destination: vip, target: Target::Local(self.loopback), metric: None, table: None }
    }
}

/// Whether the kernel answers ARP on this interface for addresses of others. The greater of the two settings counts.
fn answers_arp(interface: &str) -> bool {
    ["all", interface].into_iter().all(|name| {
        let setting = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/arp_ignore"));
        setting.is_ok_and(|value| value.trim() == "0")
    })
}

impl Drop for Vips {
    fn drop(&mut self) {
        for vip in std::mem::take(&mut self.added) {
            let removed = match self.address(vip) {
                Some(address) => self.netlink.delete_address(&address),
                None => self.netlink.delete_route(&self.route(vip)),
            };
            // Who has removed it meanwhile has done what was to be done.
            if let Err(error) = removed
                && !matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ESRCH))
            {
                log::warn!("{vip} stays on the loopback: {error}");
            }
        }
    }
}
